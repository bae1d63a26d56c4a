//! The streams of one HTTP/2 connection: where they run, and how long a client may leave one of them lying with its window
//! closed. Knows no request.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep};

/// Whether a stream's client takes what it was given.
#[derive(Debug, Default)]
pub(crate) struct Stall(Cell<Option<Instant>>);

impl Stall {
    /// A piece of the response was given, or the next one is asked for.
    pub(crate) fn given(&self, given: bool) {
        self.0.set(given.then(Instant::now));
    }
}

/// Runs a connection's streams on the worker's own thread. A stream of which nothing is taken for too long is dropped, which
/// resets it: no other stream waits for it, but its upstream and its buffers would.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    patience: Duration,
    /// The stream whose future comes next. The server half takes a request's future and hands it over in one step.
    next: Rc<RefCell<Option<Rc<Stall>>>>,
}

impl Streams {
    pub(crate) fn new(patience: Duration) -> Self {
        Streams {
            patience,
            next: Rc::default(),
        }
    }

    /// A new stream, which runs next.
    pub(crate) fn open(&self) -> Rc<Stall> {
        let stall = Rc::new(Stall::default());
        self.next.replace(Some(Rc::clone(&stall)));
        stall
    }
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let stream = Stream {
            future: Box::pin(future),
            stall: self.next.take(),
            patience: self.patience,
            timer: None,
        };
        tokio::task::spawn_local(stream);
    }
}

struct Stream<F> {
    future: Pin<Box<F>>,
    stall: Option<Rc<Stall>>,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = this.stall.as_ref().and_then(|stall| stall.0.get()) else {
            return Poll::Pending;
        };
        let until = since + this.patience;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
