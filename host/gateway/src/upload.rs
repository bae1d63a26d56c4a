//! A client's request body as it comes in: bounded, timed, counted, and, if nobody wants it, read to its end all the same so
//! that the connection can go on. Knows no filter and no upstream.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tidegate_core::fields;
use tokio::time::{Instant, Sleep};

use crate::admit::Aside;
use crate::h1::RequestBody;
use crate::settings::Limits;
use crate::trailers;

/// How much of a body that nobody wants is read, and for how long, before the connection is closed instead.
pub(crate) const DRAIN_BYTES: u64 = 256 * 1024;
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// A request's body as it comes out of its connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    Http1(RequestBody),
    Http2(hyper::body::Incoming),
}

/// A client's request body. The exchange owns it; whoever reads it has a [`ClientBody`].
pub(crate) struct Upload {
    incoming: RefCell<Option<Incoming>>,
    limit: u64,
    patience: Duration,
    /// Bytes a second that must come until the response begins.
    rate: u64,
    /// The names of the trailers that were announced.
    announced: Vec<HeaderName>,
    answered: Cell<bool>,
    /// Whether the client waits to be asked for it.
    expects: bool,
    asked: Cell<bool>,
    seen: Cell<u64>,
    abandoned: Cell<bool>,
}

impl Upload {
    /// `aside` is what its head said of it, `at_leisure` that it may take its time.
    pub(crate) fn new(
        incoming: Incoming,
        limits: &Limits,
        aside: &Aside,
        at_leisure: bool,
    ) -> Rc<Self> {
        Rc::new(Upload {
            incoming: RefCell::new(Some(incoming)),
            limit: limits.max_body.unwrap_or(u64::MAX),
            patience: limits.body_idle_timeout,
            rate: if at_leisure { 0 } else { limits.min_body_rate },
            announced: aside.trailer.iter().flat_map(trailers::announced).collect(),
            answered: Cell::new(false),
            expects: aside.expects,
            asked: Cell::new(false),
            seen: Cell::new(0),
            abandoned: Cell::new(true),
        })
    }

    /// Whether it says from the start that it is over the bound.
    pub(crate) fn is_too_large(&self) -> bool {
        self.incoming
            .borrow()
            .as_ref()
            .is_some_and(|incoming| incoming.size_hint().lower() > self.limit)
    }

    /// The response begins: who has an answer may go on as slowly as he likes.
    pub(crate) fn answered(&self) {
        self.answered.set(true);
    }

    /// Bytes that have come.
    pub(crate) fn bytes(&self) -> u64 {
        self.seen.get()
    }

    /// The body, to be read once.
    pub(crate) fn body(self: &Rc<Self>) -> Body {
        self.abandoned.set(false);
        Body::stream(ClientBody {
            upload: Rc::clone(self),
            timer: None,
            pace: Pace::default(),
        })
    }

    /// Reads on if nobody else does, so that the next request on a connection of HTTP/1 can be found.
    pub(crate) fn drain(&self) {
        if !self.abandoned.get() {
            return;
        }
        let Some(Incoming::Http1(incoming)) = self.incoming.borrow_mut().take() else {
            return;
        };
        let unasked = self.expects && !self.asked.get();
        let long = incoming.size_hint().lower() > DRAIN_BYTES;
        if !unasked && !long {
            incoming.skip();
        }
    }

    fn came(&self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(data) = frame.data_ref() {
            let seen = self.seen.get().saturating_add(data.len() as u64);
            self.seen.set(seen);
            if seen > self.limit {
                return Err(BodyError::TooLarge { limit: self.limit });
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            clean_trailers(trailers);
            trailers::keep(trailers, |name| self.announced.contains(name));
        }
        Ok(frame)
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Incoming::Http1(body) => Pin::new(body).poll_frame(cx),
            Incoming::Http2(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.to_string())))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::Http1(body) => body.is_end_stream(),
            Incoming::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::Http1(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
        }
    }
}

/// The body as it is read.
struct ClientBody {
    upload: Rc<Upload>,
    timer: Option<Pin<Box<Sleep>>>,
    pace: Pace,
}

/// How fast a body comes, while somebody waits for it.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// So many bytes came after such a wait. Says whether that is too slow: judged each time that as long as `patience` was
    /// waited for.
    fn is_too_slow(&mut self, waited: Duration, bytes: u64, patience: Duration, rate: u64) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.came = self.came.saturating_add(bytes);
        if self.waited < patience {
            return false;
        }
        let pace = std::mem::take(self);
        let millis = u64::try_from(pace.waited.as_millis()).unwrap_or(u64::MAX);
        pace.came < rate.saturating_mul(millis) / 1000
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
        let upload = &this.upload;
        upload.asked.set(true);
        let mut slot = upload.incoming.borrow_mut();
        let Some(incoming) = &mut *slot else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(upload.patience)));
                timer
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(BodyError::TimedOut)))
            }
            Poll::Ready(frame) => {
                let mut frame = frame.map(|frame| upload.came(frame?));
                if let (Some(timer), Some(Ok(came))) = (this.timer.take(), &frame)
                    && upload.rate > 0
                    && !upload.answered.get()
                {
                    let left = timer.deadline().saturating_duration_since(Instant::now());
                    let waited = upload.patience.saturating_sub(left);
                    let bytes = came.data_ref().map_or(0, |data| data.len() as u64);
                    if this
                        .pace
                        .is_too_slow(waited, bytes, upload.patience, upload.rate)
                    {
                        frame = Some(Err(BodyError::TimedOut));
                    }
                }
                if !matches!(frame, Some(Ok(_))) {
                    *slot = None;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.upload.incoming.borrow();
        incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.upload.incoming.borrow() {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.upload.abandoned.set(true);
    }
}

/// Takes out what may not stand in trailers.
pub(crate) fn clean_trailers(trailers: &mut http::HeaderMap) {
    trailers::keep(trailers, |name| fields::may_trail(name.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_judged_by_the_time_that_it_was_waited_for() {
        let second = Duration::from_secs(1);
        let patience = Duration::from_secs(10);
        let judge = |pieces: &[(u32, u64)]| {
            let mut pace = Pace::default();
            let mut slow = pieces
                .iter()
                .map(|(waited, bytes)| pace.is_too_slow(second * *waited, *bytes, patience, 16));
            slow.any(|slow| slow)
        };
        // Too little to judge, fast enough, a slow time behind a fast one, a byte now and then.
        assert!(!judge(&[(9, 1)]));
        assert!(!judge(&[(5, 80), (5, 80), (9, 1)]));
        assert!(judge(&[(10, 100_000), (5, 1), (5, 1)]));
        assert!(judge(&[(9, 1), (9, 1)]));
        // What comes at once costs no wait.
        assert!(!judge(&[(0, 1); 1000]));
    }
}
