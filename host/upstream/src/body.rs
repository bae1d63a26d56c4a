//! A response's bytes on their way: bounded in time, and the connection given back at their end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BodyError};
use tokio::time::Sleep;

use crate::error;
use crate::pool::{Lease, after};

/// Makes the one body type of what hyper reads. `lease` is the connection if nobody else uses it.
pub(crate) fn response_body(incoming: Incoming, lease: Option<Lease>, idle: Duration) -> Body {
    if incoming.is_end_stream() {
        if let Some(lease) = lease {
            lease.give_back();
        }
        return Body::Empty;
    }
    Body::stream(ResponseBody {
        incoming: Some(incoming),
        lease,
        idle,
        timer: None,
        waiting: false,
    })
}

struct ResponseBody {
    /// `None` once it has ended, one way or the other.
    incoming: Option<Incoming>,
    lease: Option<Lease>,
    idle: Duration,
    /// Made at the first wait, and moved at the later ones.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs. It does only while a read waits for the upstream, so that a client that reads
    /// slowly is never mistaken for an upstream that sends slowly.
    waiting: bool,
}

impl ResponseBody {
    fn finish(&mut self) {
        self.incoming = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn break_off(&mut self) {
        self.incoming = None;
        self.lease = None;
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(after(idle));
        }
        timer.as_mut().poll(cx)
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = false;
                if incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.break_off();
                Poll::Ready(Some(Err(BodyError::Broken(error::chain(&error)))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match this.poll_timer(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    this.break_off();
                    Poll::Ready(Some(Err(BodyError::TimedOut)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
