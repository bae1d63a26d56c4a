//! A moment to wait for, which may move. Knows nobody who waits.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};

/// A moment to wait for. Moving it to later costs nothing until the earlier one has come, and asking again for one that is
/// known costs nothing either.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken when it comes.
    told: Option<Waker>,
}

impl Timer {
    /// Waits until then.
    pub(crate) fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        let knows = self
            .told
            .as_ref()
            .is_some_and(|told| told.will_wake(cx.waker()));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        } else if knows && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.told = None;
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                self.told = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
