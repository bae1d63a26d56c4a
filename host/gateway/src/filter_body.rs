//! A filter as a stage of a body: each piece passes through it as it comes, and nothing is held back. Knows one filter and
//! the body before it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tidegate_core::error::FilterError;
use tidegate_core::exchange::{Chunk, Stage};
use tidegate_core::filter::Outcome;
use tidegate_core::phase::{Flow, Phase};

use crate::chain::{Chain, Direction};

type Pending = Pin<Box<dyn Future<Output = Result<Flow, FilterError>>>>;
type Piece = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A body that passes a filter on its way.
pub(crate) struct FilterBody {
    chain: Rc<Chain>,
    position: usize,
    direction: Direction,
    inner: Body,
    /// Whether the filter sees pieces, and trailers.
    data: bool,
    trailers: bool,
    state: State,
    /// Sent before anything else.
    prefix: Option<Bytes>,
    /// Trailers that wait for the last piece's callback.
    waiting: Option<HeaderMap>,
    /// Whether the filter was told the end, and whether it has changed anything so far.
    told_end: bool,
    changed: bool,
}

enum State {
    Reading,
    Calling {
        call: Pending,
        began: Instant,
        phase: Phase,
        original: Bytes,
    },
    Done,
}

impl FilterBody {
    pub(crate) fn new(
        chain: Rc<Chain>,
        position: usize,
        direction: Direction,
        inner: Body,
        data: bool,
        trailers: bool,
    ) -> Self {
        FilterBody {
            chain,
            position,
            direction,
            inner,
            data,
            trailers,
            state: State::Reading,
            prefix: None,
            waiting: None,
            told_end: !data,
            changed: false,
        }
    }

    /// Puts bytes before the body that the filter has seen already.
    pub(crate) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        self
    }

    /// Calls the filter for a piece. Ready with what to send, if it is something.
    fn call(
        &mut self,
        phase: Phase,
        bytes: Bytes,
        end: bool,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let filter = if self.chain.is_skipped(self.position) {
            None
        } else {
            self.chain.find(self.position)
        };
        let Some(filter) = filter else {
            self.told_end |= end;
            return self.pass_on(phase, bytes);
        };
        {
            let mut exchange = self.chain.exchange.borrow_mut();
            exchange.stage = Stage {
                phase,
                head_open: false,
            };
            exchange.chunk = Chunk::new(bytes.clone());
        }
        if phase == self.direction.body() {
            self.told_end |= end;
        }
        let began = Instant::now();
        match filter.call(phase, end, &self.chain.exchange) {
            Outcome::Ready(result) => self.settle(phase, began, bytes, result),
            Outcome::Pending(call) => {
                self.state = State::Calling {
                    call,
                    began,
                    phase,
                    original: bytes,
                };
                None
            }
        }
    }

    fn settle(
        &mut self,
        phase: Phase,
        began: Instant,
        original: Bytes,
        result: Result<Flow, FilterError>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let failed = result.is_err();
        let became = self.chain.take_chunk();
        match self.chain.settle(self.position, phase, began, result) {
            Ok(Flow::Answer) => {
                self.state = State::Done;
                Some(Err(BodyError::Stopped))
            }
            // The filter failed and its policy is `open`.
            Ok(_)
                if failed
                    || (self.chain.is_skipped(self.position)
                        && self.chain.is_open(self.position)) =>
            {
                if self.changed {
                    self.state = State::Done;
                    return Some(Err(BodyError::Stopped));
                }
                self.pass_on(phase, original)
            }
            Ok(_) => {
                self.changed |= became != original;
                self.pass_on(phase, became)
            }
            Err(failure) => {
                self.chain.stopped.replace(Some(failure));
                self.state = State::Done;
                Some(Err(BodyError::Stopped))
            }
        }
    }

    fn pass_on(&mut self, phase: Phase, bytes: Bytes) -> Option<Result<Frame<Bytes>, BodyError>> {
        if phase == self.direction.trailers() {
            self.state = State::Done;
            return self
                .chain
                .take_trailers(self.direction)
                .map(|trailers| Ok(Frame::trailers(trailers)));
        }
        (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
    }

    /// The end of the body has come, perhaps with trailers.
    fn finish(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if !self.told_end {
            return self.call(self.direction.body(), Bytes::new(), true);
        }
        let trailers = self.waiting.take();
        match trailers {
            None => {
                self.state = State::Done;
                None
            }
            Some(trailers) if self.trailers => {
                self.chain.put_trailers(self.direction, Some(trailers));
                self.call(self.direction.trailers(), Bytes::new(), true)
            }
            Some(trailers) => {
                self.state = State::Done;
                Some(Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl HttpBody for FilterBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        let this = self.get_mut();
        if let Some(prefix) = this.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        loop {
            let produced = match &mut this.state {
                State::Done => return Poll::Ready(None),
                State::Calling { call, .. } => {
                    let result = ready!(call.as_mut().poll(cx));
                    let State::Calling {
                        began,
                        phase,
                        original,
                        ..
                    } = std::mem::replace(&mut this.state, State::Reading)
                    else {
                        continue;
                    };
                    this.settle(phase, began, original, result)
                }
                State::Reading if this.waiting.is_some() => this.finish(),
                State::Reading => match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    None => this.finish(),
                    Some(Err(error)) => {
                        this.state = State::Done;
                        Some(Err(error))
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) if this.data => {
                            let end = this.inner.is_end_stream();
                            this.call(this.direction.body(), bytes, end)
                        }
                        Ok(bytes) => Some(Ok(Frame::data(bytes))),
                        Err(frame) => {
                            this.waiting = frame.into_trailers().ok();
                            this.finish()
                        }
                    },
                },
            };
            if produced.is_some() {
                return Poll::Ready(produced);
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.data || self.prefix.is_some() {
            SizeHint::default()
        } else {
            self.inner.size_hint()
        }
    }
}

/// Bytes that are here, and trailers behind them.
pub(crate) struct WithTrailers {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl WithTrailers {
    pub(crate) fn new(bytes: Bytes, trailers: HeaderMap) -> Self {
        WithTrailers {
            bytes,
            trailers: Some(trailers),
        }
    }
}

impl HttpBody for WithTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Piece {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }
}
