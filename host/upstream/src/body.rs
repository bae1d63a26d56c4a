//! A response's bytes on their way: bounded in time, and the connection given back at their end. Knows no protocol.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BodyError};
use tokio::time::Instant;

use crate::error;
use crate::http1::Lease;
use crate::metrics::{Figures, IDLE, TRUNCATED};
use crate::timer::{Timer, after};
use crate::upload::Upload;

/// What a response's body needs besides its bytes.
pub(crate) struct Terms {
    /// The connection, if nobody else uses it.
    pub(crate) lease: Option<Lease>,
    /// How long it may pause between two reads.
    pub(crate) idle: Duration,
    pub(crate) figures: Rc<Figures>,
    /// The request's body: it may break the connection off, and then it is not the upstream that did.
    pub(crate) upload: Option<Rc<Upload>>,
}

/// Makes the one body type of what hyper reads.
pub(crate) fn response_body(incoming: Incoming, terms: Terms) -> Body {
    if incoming.is_end_stream() {
        if let Some(lease) = terms.lease {
            lease.give_back();
        }
        return Body::Empty;
    }
    Body::stream(ResponseBody {
        incoming: Some(incoming),
        terms,
        timer: Timer::default(),
        until: None,
    })
}

struct ResponseBody {
    /// `None` once it has ended, one way or the other.
    incoming: Option<Incoming>,
    terms: Terms,
    /// For a body whose connection is shared; others use their connection's.
    timer: Timer,
    /// When the read that waits for the upstream has waited too long. Nothing runs while no read waits, so that a
    /// client that reads slowly is never mistaken for an upstream that sends slowly.
    until: Option<Instant>,
}

impl ResponseBody {
    fn finish(&mut self) {
        self.incoming = None;
        if let Some(lease) = self.terms.lease.take() {
            lease.give_back();
        }
    }

    fn break_off(&mut self) {
        self.incoming = None;
        self.terms.lease = None;
    }

    fn broken(&mut self, error: &hyper::Error) -> BodyError {
        self.break_off();
        let by_client = self.terms.upload.as_ref().and_then(|upload| upload.error());
        if by_client.is_none() {
            self.terms.figures.failed_for(TRUNCATED);
        }
        BodyError::Broken(error::chain(error))
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| after(self.terms.idle));
        let own = &mut self.timer;
        let timer = match &mut self.terms.lease {
            Some(lease) => lease.timer().unwrap_or(own),
            None => own,
        };
        timer.poll_until(until, cx)
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
                this.until = None;
                if incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.broken(&error)))),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match this.poll_timer(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    this.break_off();
                    this.terms.figures.failed_for(IDLE);
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
