//! A timer that is moved rather than made anew. Knows nothing of what it bounds.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidegate_core::clock;
use tokio::time::{Instant, Sleep};

/// A timer that costs nothing until something is waited for, and little after that: moving a running one to a later
/// point in time takes no lock. It stays with its connection from request to request.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `until` is past. The caller's task is woken then.
    pub(crate) fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        // One that ends sooner is left to: most are not waited for until then, and moving it costs more than looking.
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

/// The point in time after a while; a very long while is as good as for ever.
pub(crate) fn after(duration: Duration) -> Instant {
    later(Instant::from_std(clock::turn()), duration)
}

/// The point in time so long after another.
pub(crate) fn later(time: Instant, duration: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    time + duration.min(FOR_EVER)
}
