//! A filter as a stage of a body: each piece passes through it as it comes, and nothing is held back. Knows one filter and
//! the body before it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};

use crate::call::{Call, Done, Given};
use crate::chain::{Chain, Stop};
use crate::plan::Direction;

type Piece = Option<Result<Frame<Bytes>, BodyError>>;

/// A body that passes a filter on its way.
pub(crate) struct FilterBody {
    chain: Rc<Chain>,
    position: usize,
    direction: Direction,
    inner: Body,
    /// Whether the filter sees pieces, and trailers.
    pieces: bool,
    trailers: bool,
    state: State,
    /// Sent before anything else.
    prefix: Bytes,
    /// Whether the filter was told the end, and whether it has changed anything so far.
    told_end: bool,
    changed: bool,
}

enum State {
    Reading,
    /// With the trailers that follow the piece.
    Calling(Call, Option<HeaderMap>),
    /// All pieces have come, perhaps with trailers.
    Ending(Option<HeaderMap>),
    Done,
}

impl FilterBody {
    pub(crate) fn new(
        chain: &Rc<Chain>,
        position: usize,
        direction: Direction,
        inner: Body,
        pieces: bool,
        trailers: bool,
    ) -> Self {
        FilterBody {
            chain: Rc::clone(chain),
            position,
            direction,
            inner,
            pieces,
            trailers,
            state: State::Reading,
            prefix: Bytes::new(),
            told_end: !pieces,
            changed: false,
        }
    }

    /// Puts bytes before the body that the filter has seen already, and says whether it changed them.
    pub(crate) fn behind(mut self, bytes: Bytes, changed: bool) -> Self {
        self.prefix = bytes;
        self.changed = changed;
        self
    }

    /// Calls the filter, and remembers the trailers that come behind.
    fn call(&mut self, given: Given, end: bool, trailers: Option<HeaderMap>) {
        let phase = match given {
            Given::Trailers(_) => self.direction.trailers(),
            _ => self.direction.body(),
        };
        let moment = self.chain.moment(self.position, phase, false, end);
        self.state = State::Calling(Call::new(&self.chain, moment, given), trailers);
    }

    /// What comes of a callback.
    fn called(&mut self, done: Result<Done, Stop>) -> Piece {
        let done = match done {
            Ok(done) => done,
            Err(stop) => return self.broken(stop),
        };
        if done.left_out && self.changed {
            self.state = State::Done;
            return Some(Err(BodyError::Stopped));
        }
        self.changed |= done.changed;
        match done.given {
            Given::Piece(bytes) => (!bytes.is_empty()).then(|| Ok(Frame::data(bytes))),
            Given::Trailers(trailers) => {
                self.state = State::Done;
                Some(Ok(Frame::trailers(trailers)))
            }
            Given::Nothing => None,
        }
    }

    fn broken(&mut self, stop: Stop) -> Piece {
        self.state = State::Done;
        Some(Err(self.chain.stop_body(self.direction, stop)))
    }

    /// Whether the filter failed in this exchange and is left out. What it has made of the body so far can't be taken back,
    /// and the rest would not fit to it.
    fn is_left_out(&self) -> Option<Result<(), BodyError>> {
        if !self.chain.skipped.has(self.position) {
            return None;
        }
        Some(if self.changed {
            Err(BodyError::Stopped)
        } else {
            Ok(())
        })
    }

    /// Decides about a frame that has come from the body before.
    fn came(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Piece {
        let frame = match frame {
            None => {
                self.state = State::Ending(None);
                return None;
            }
            Some(Err(error)) => {
                self.state = State::Done;
                return Some(Err(error));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(bytes) if self.pieces => {
                let end = self.inner.is_end_stream();
                self.told_end |= end;
                self.call(Given::Piece(bytes), end, None);
                None
            }
            Ok(bytes) => Some(Ok(Frame::data(bytes))),
            Err(frame) => {
                self.state = State::Ending(frame.into_trailers().ok());
                None
            }
        }
    }

    /// Tells the filter the end, then shows it the trailers.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Piece {
        if !self.told_end {
            self.told_end = true;
            self.call(Given::Piece(Bytes::new()), true, trailers);
            return None;
        }
        match trailers {
            Some(trailers) if self.trailers => {
                self.trailers = false;
                self.call(Given::Trailers(trailers), true, None);
                None
            }
            trailers => {
                self.state = State::Done;
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl HttpBody for FilterBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let prefix = std::mem::take(&mut this.prefix);
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        loop {
            let produced = match std::mem::replace(&mut this.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Calling(mut call, trailers) => {
                    let Poll::Ready(done) = call.poll(cx) else {
                        this.state = State::Calling(call, trailers);
                        return Poll::Pending;
                    };
                    this.state = match trailers {
                        None if this.told_end && this.inner.is_end_stream() => State::Ending(None),
                        None => State::Reading,
                        trailers => State::Ending(trailers),
                    };
                    this.called(done)
                }
                State::Ending(trailers) => this.end(trailers),
                State::Reading => match this.is_left_out() {
                    Some(Err(error)) => Some(Err(error)),
                    left_out => {
                        this.state = State::Reading;
                        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
                        if left_out.is_some() {
                            this.pieces = false;
                            this.trailers = false;
                            this.told_end = true;
                        }
                        this.came(frame)
                    }
                },
            };
            if produced.is_some() {
                return Poll::Ready(produced);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done | State::Ending(None))
            && self.told_end
            && self.prefix.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces || !self.prefix.is_empty() {
            SizeHint::default()
        } else {
            self.inner.size_hint()
        }
    }
}
