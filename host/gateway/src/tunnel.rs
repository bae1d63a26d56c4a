//! What follows a 101: bytes both ways between client and upstream until both have ended. No filter sees them. The exchange
//! lasts as long.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_upstream::Upgraded;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::h1::ClientSide;
use crate::journey::Journey;

/// Tunnels are meant to rest; one in which nobody has said a word for so long is forgotten by both.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Bytes that are on their way in one direction.
const BUFFER: usize = 16 * 1024;

/// Joins both sides until both have ended, one has broken, or neither has said a word for long.
pub(crate) async fn join(journey: Journey, client: ClientSide, upstream: Upgraded) {
    let said = Rc::new(Cell::new(Instant::now()));
    let mut client = Side::new(client, &said);
    let mut upstream = Side::new(upstream, &said);
    let (sent, received) = (Rc::clone(&client.read), Rc::clone(&upstream.read));
    // Told when it ends, also if that is because nobody waits for it any more.
    let journey = Told {
        journey,
        sent,
        received,
    };
    let copied = async {
        let (a, b) = (&mut client, &mut upstream);
        // A broken tunnel is an ended one: what its end means is up to the protocol in it.
        let _ = tokio::io::copy_bidirectional_with_sizes(a, b, BUFFER, BUFFER).await;
    };
    tokio::select! {
        () = copied => {}
        () = silence(&said) => {}
    }
    drop(journey);
}

/// Waits until nobody has said a word for long.
async fn silence(said: &Cell<Instant>) {
    loop {
        let until = said.get() + IDLE;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// An exchange that ends as a tunnel.
struct Told {
    journey: Journey,
    sent: Rc<Cell<u64>>,
    received: Rc<Cell<u64>>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.journey.tunnel_bytes.set(self.sent.get());
        self.journey.response_bytes.set(self.received.get());
        self.journey.left();
    }
}

/// One side, whose bytes are counted.
struct Side<IO> {
    io: IO,
    read: Rc<Cell<u64>>,
    said: Rc<Cell<Instant>>,
}

impl<IO> Side<IO> {
    fn new(io: IO, said: &Rc<Cell<Instant>>) -> Self {
        Side {
            io,
            read: Rc::default(),
            said: Rc::clone(said),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Side<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if result.is_ready() {
            let came = (buf.filled().len() - before) as u64;
            this.read.set(this.read.get() + came);
            this.said.set(Instant::now());
        }
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Side<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
