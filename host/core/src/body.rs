//! The one body type: every request's and response's bytes pass through it, whatever the protocol.
//! Knows no protocol and collects nothing.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// Why a body ended before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer it came from broke it off.
    #[error("the sender broke the body off: {0}")]
    Broken(String),
    /// Nothing came for longer than the bound between two reads.
    #[error("no part of the body came in time")]
    TimedOut,
    /// It is longer than allowed.
    #[error("the body is longer than the allowed {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// A filter stopped it: with an answer, or by failing.
    #[error("a filter stopped the body")]
    Stopped,
}

/// A body whose bytes come from elsewhere.
pub type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>;

/// A request's or response's body.
#[derive(Default)]
pub enum Body {
    /// No bytes and no trailers.
    #[default]
    Empty,
    /// Bytes that are all here; taken out when they are read.
    Full(Bytes),
    /// Bytes that come as they come. Dropping it tells the sender that nobody reads any more.
    Stream(BoxBody),
}

impl Body {
    /// A body of bytes that are here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Body::Empty
        } else {
            Body::Full(bytes)
        }
    }

    /// Wraps any other body. One that has ended already becomes [`Body::Empty`].
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        if body.is_end_stream() {
            Body::Empty
        } else {
            Body::Stream(Box::pin(body))
        }
    }

    /// Whether it is known that nothing comes (any more).
    pub fn is_empty(&self) -> bool {
        self.is_end_stream()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Body::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Empty => f.write_str("Body::Empty"),
            Body::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Body::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}
