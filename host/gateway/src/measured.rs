//! Bodies at the edge: the client's request as it comes in, bounded and timed, and the response as it leaves, counted until
//! its end, which is the end of the exchange.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::fields;
use tokio::time::Sleep;

/// A client's request body.
pub(crate) struct ClientBody {
    inner: Incoming,
    limit: u64,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    seen: Rc<Cell<u64>>,
}

impl ClientBody {
    pub(crate) fn new(
        inner: Incoming,
        limit: Option<u64>,
        patience: Duration,
        seen: Rc<Cell<u64>>,
    ) -> Self {
        ClientBody {
            inner,
            limit: limit.unwrap_or(u64::MAX),
            patience,
            timer: None,
            seen,
        }
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => {
                let patience = this.patience;
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::TimedOut))),
                    Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(frame) => {
                this.timer = None;
                Poll::Ready(frame.map(|frame| match frame {
                    Err(error) => Err(BodyError::Broken(error.to_string())),
                    Ok(mut frame) => {
                        if let Some(data) = frame.data_ref() {
                            let seen = this.seen.get().saturating_add(data.len() as u64);
                            this.seen.set(seen);
                            if seen > this.limit {
                                return Err(BodyError::TooLarge { limit: this.limit });
                            }
                        } else if let Some(trailers) = frame.trailers_mut() {
                            clean_trailers(trailers);
                        }
                        Ok(frame)
                    }
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Takes out what may not stand in trailers.
pub(crate) fn clean_trailers(trailers: &mut http::HeaderMap) {
    let refused: Vec<_> = trailers
        .keys()
        .filter(|name| !fields::may_trail(name.as_str()))
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// What is told how a response ended.
pub(crate) trait Ending {
    /// The last byte was taken, or the body broke.
    fn ended(&self, bytes: u64, error: Option<&BodyError>);
}

/// A response's body. Dropping it before its end means that the client is gone.
pub(crate) struct Leaving<E: Ending> {
    inner: Body,
    bytes: u64,
    end: Option<E>,
}

impl<E: Ending> Leaving<E> {
    pub(crate) fn new(inner: Body, end: E) -> Self {
        Leaving {
            inner,
            bytes: 0,
            end: Some(end),
        }
    }
}

impl<E: Ending + Unpin> HttpBody for Leaving<E> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                // hyper does not ask again behind a length that is met or behind trailers.
                if (this.inner.is_end_stream() || frame.is_trailers())
                    && let Some(end) = this.end.take()
                {
                    end.ended(this.bytes, None);
                }
                Some(Ok(frame))
            }
            None => {
                if let Some(end) = this.end.take() {
                    end.ended(this.bytes, None);
                }
                None
            }
            Some(Err(error)) => {
                if let Some(end) = this.end.take() {
                    end.ended(this.bytes, Some(&error));
                }
                Some(Err(error))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
