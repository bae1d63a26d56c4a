//! The wait for a response's head, bounded in time. Knows neither protocol.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::timer::{Timer, after};
use crate::upload::Upload;

/// How a wait ended without a response.
pub(crate) enum NoHead<E> {
    /// Nothing came in time.
    TimedOut,
    /// The connection failed.
    Failed(Box<E>),
}

/// Waits for the head. The bound is counted from when it was last the upstream's turn: an upload, and a client that
/// sends slowly, may take their time; an upstream that has all it can take may not. Interim responses do not count.
pub(crate) async fn wait<T, E>(
    sent: impl Future<Output = Result<T, E>>,
    timer: &mut Timer,
    upload: Option<&Upload>,
    limit: Duration,
) -> Result<T, NoHead<E>> {
    let mut sent = pin!(sent);
    let mut until = None;
    poll_fn(|cx| {
        if let Poll::Ready(result) = sent.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|error| NoHead::Failed(Box::new(error))));
        }
        loop {
            let bound = *until.get_or_insert_with(|| after(limit));
            if timer.poll_until(bound, cx).is_pending() {
                return Poll::Pending;
            }
            let later = upload.and_then(|upload| upload.upstreams_turn_since().checked_add(limit));
            match later {
                Some(later) if later > bound => until = Some(later),
                _ => return Poll::Ready(Err(NoHead::TimedOut)),
            }
        }
    })
    .await
}
