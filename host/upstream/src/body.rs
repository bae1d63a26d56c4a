//! A response's bytes on their way: bounded in time, and the connection given back at their end. Knows no protocol.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::http1::framing::Framing;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error;
use crate::http1::{self, Lease};
use crate::metrics::{Figures, IDLE, TRUNCATED};
use crate::timer::{Timer, after};
use crate::upload::Upload;

/// What a response's body needs besides its bytes.
pub(crate) struct Terms {
    /// How long it may pause between two reads.
    pub(crate) idle: Duration,
    pub(crate) figures: Rc<Figures>,
    /// The request's body: it may break the connection off, and then it is not the upstream that did.
    pub(crate) upload: Option<Rc<Upload>>,
}

/// Makes the one body type of what comes over a connection that many share.
pub(crate) fn shared(incoming: Incoming, terms: Terms) -> Body {
    if incoming.is_end_stream() {
        return Body::Empty;
    }
    Body::stream(ResponseBody::new(Source::Shared(incoming), terms))
}

/// Makes it of what comes over a connection that only this response uses.
pub(crate) fn exclusive(lease: Lease, framing: Framing, terms: Terms) -> Body {
    if framing.is_over() {
        lease.give_back();
        return Body::Empty;
    }
    let sending = lease
        .connection
        .as_ref()
        .is_some_and(|connection| connection.flow.is_sending());
    let source = if sending {
        Source::Split(Split::new(lease), framing)
    } else {
        Source::Exclusive(lease, framing)
    };
    Body::stream(ResponseBody::new(source, terms))
}

struct ResponseBody {
    source: Source,
    terms: Terms,
    /// For a body whose connection has none.
    timer: Timer,
    /// When the read that waits for the upstream has waited too long. Nothing runs while no read waits, so that a
    /// client that reads slowly is never mistaken for an upstream that sends slowly.
    until: Option<Instant>,
}

/// Where the bytes come from.
enum Source {
    /// Nothing comes any more.
    Over,
    Shared(Incoming),
    Exclusive(Lease, Framing),
    /// A connection over which the request is still sent.
    Split(Split, Framing),
}

/// A connection with two tasks: one reads the response, one sends the rest of the request, since whoever waits for the
/// response may not read it before the request is sent.
struct Split {
    lease: Rc<RefCell<Option<Lease>>>,
    sender: AbortHandle,
}

impl Split {
    fn new(lease: Lease) -> Self {
        let lease = Rc::new(RefCell::new(Some(lease)));
        let held = lease.clone();
        let sending = poll_fn(move |cx| match &mut *held.borrow_mut() {
            Some(Lease {
                connection: Some(connection),
                ..
            }) => connection.flow.poll_push(cx).map(drop),
            _ => Poll::Ready(()),
        });
        let sender = tokio::task::spawn_local(sending).abort_handle();
        Split { lease, sender }
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        self.sender.abort();
        // The task may be gone only later; the connection must not.
        let lease = self.lease.borrow_mut().take();
        drop(lease);
    }
}

type Read = Poll<Option<Result<Frame<Bytes>, String>>>;

fn read(lease: &mut Lease, framing: &mut Framing, cx: &mut Context<'_>) -> Read {
    let Some(connection) = &mut lease.connection else {
        return Poll::Ready(None);
    };
    connection.flow.poll_frame(framing, cx).map(|frame| {
        frame.map(|frame| {
            frame.map(|frame| match frame {
                http1::Frame::Data(data) => Frame::data(data),
                http1::Frame::Trailers(trailers) => Frame::trailers(trailers),
            })
        })
    })
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Read {
        match self {
            Source::Over => Poll::Ready(None),
            Source::Shared(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|error| error::chain(&error)))),
            Source::Exclusive(lease, framing) => read(lease, framing, cx),
            Source::Split(split, framing) => match &mut *split.lease.borrow_mut() {
                Some(lease) => read(lease, framing, cx),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Source::Over => true,
            Source::Shared(incoming) => incoming.is_end_stream(),
            Source::Exclusive(_, framing) | Source::Split(_, framing) => framing.is_over(),
        }
    }
}

impl ResponseBody {
    fn new(source: Source, terms: Terms) -> Self {
        ResponseBody {
            source,
            terms,
            timer: Timer::default(),
            until: None,
        }
    }

    fn finish(&mut self) {
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Over | Source::Shared(_) => {}
            Source::Exclusive(lease, _) => lease.give_back(),
            Source::Split(split, _) => {
                let lease = split.lease.borrow_mut().take();
                if let Some(lease) = lease {
                    lease.give_back();
                }
            }
        }
    }

    fn break_off(&mut self) {
        self.source = Source::Over;
    }

    fn broken(&mut self, detail: String) -> BodyError {
        self.break_off();
        let by_client = self.terms.upload.as_ref().and_then(|upload| upload.error());
        if by_client.is_none() {
            self.terms.figures.failed_for(TRUNCATED);
        }
        BodyError::Broken(detail)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| after(self.terms.idle));
        if let Source::Exclusive(lease, _) = &mut self.source
            && let Some(connection) = &mut lease.connection
        {
            return connection.timer.poll_until(until, cx);
        }
        self.timer.poll_until(until, cx)
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
        match this.source.poll(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.until = None;
                if this.source.is_over() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.broken(error)))),
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
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Over => SizeHint::with_exact(0),
            Source::Shared(incoming) => incoming.size_hint(),
            Source::Exclusive(_, framing) | Source::Split(_, framing) => framing
                .exact()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
