//! One call into a filter: waiting for the exchange's turn, the call, what it said, and what its failure means. The two
//! directions of an exchange may want to call at the same time, and a guest that waits keeps its piece of the exchange
//! until it is done; so there is one call at a time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use tidegate_core::error::{Fault, FilterError, Limit};
use tidegate_core::exchange::{Chunk, Stage};
use tidegate_core::filter::Outcome;
use tidegate_core::phase::{Flow, Phase};

use crate::answer::Failure;
use crate::chain::{Chain, Stop};
use crate::figures::Began;
use crate::snapshot;
use crate::worker::LiveFilter;

type Pending = Pin<Box<dyn Future<Output = Result<Flow, FilterError>>>>;

/// Whose call runs. The exchange owns a call that waits, so that it is gone when the exchange is.
#[derive(Default)]
pub(crate) struct Turn {
    running: RefCell<Option<Running>>,
    tickets: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    over: Cell<bool>,
}

struct Running {
    ticket: u64,
    call: Pending,
}

impl Turn {
    /// Whether the exchange has ended, and nobody is called any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Ends what runs, and everything that waits for its turn.
    pub(crate) fn end(&self) {
        self.over.set(true);
        let ended = self.running.borrow_mut().take();
        drop(ended);
        self.wake();
    }

    fn wake(&self) {
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Whether a call may be made at once.
    fn is_free(&self) -> bool {
        self.running.borrow().is_none()
    }

    fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_free() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|held| held.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn take(&self, call: Pending) -> u64 {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        self.running.replace(Some(Running { ticket, call }));
        ticket
    }

    /// What became of the call of a ticket; none: it was ended.
    fn poll(&self, ticket: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Flow, FilterError>>> {
        let mut running = self.running.borrow_mut();
        match &mut *running {
            Some(Running { ticket: of, call }) if *of == ticket => {
                let result = ready!(call.as_mut().poll(cx));
                *running = None;
                drop(running);
                self.wake();
                Poll::Ready(Some(result))
            }
            _ => Poll::Ready(None),
        }
    }

    fn give_back(&self, ticket: u64) {
        let mut running = self.running.borrow_mut();
        if running.as_ref().is_some_and(|held| held.ticket == ticket) {
            let ended = running.take();
            drop(running);
            drop(ended);
            self.wake();
        }
    }
}

/// What a callback is about, besides the heads.
#[derive(Debug, Default)]
pub(crate) enum Given {
    #[default]
    Nothing,
    Piece(Bytes),
    Trailers(HeaderMap),
}

/// What a callback left.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether the head stays until the body is here.
    pub(crate) holds: bool,
    /// What was given, as the filter left it.
    pub(crate) given: Given,
    /// Whether that is a piece other than the one that was given.
    pub(crate) changed: bool,
    /// Whether the filter failed, and the exchange goes on without it.
    pub(crate) left_out: bool,
}

impl Done {
    /// Nobody was asked, or nobody who counts.
    pub(crate) fn left_out(given: Given) -> Self {
        Done {
            holds: false,
            given,
            changed: false,
            left_out: true,
        }
    }
}

impl Given {
    /// Whether a piece became another. One that was not touched is known by its address.
    fn differs(&self, original: &Given) -> bool {
        match (self, original) {
            (Given::Piece(one), Given::Piece(other)) => {
                (one.as_ptr(), one.len()) != (other.as_ptr(), other.len()) && one != other
            }
            _ => false,
        }
    }
}

/// What a filter decided, besides an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Continue,
    /// The head stays until the body is here.
    Hold,
    /// Nothing: it failed, and the exchange goes on without it.
    LeftOut,
}

/// A head's callback that was begun.
pub(crate) enum HeadCall {
    Ended(Result<Said, Stop>),
    /// Put aside, so that those that end at once move few bytes.
    Waits(Box<Call>),
}

/// When and where a call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The filter's position in the route's chain.
    pub(crate) position: usize,
    pub(crate) stage: Stage,
    /// Whether nothing follows.
    pub(crate) end: bool,
}

/// A call on its way. Dropping it ends it.
pub(crate) struct Call {
    chain: Rc<Chain>,
    moment: Moment,
    state: State,
}

enum State {
    /// It is somebody else's turn.
    Waiting(Given),
    /// The guest waits for something.
    Running {
        ticket: u64,
        began: Began,
        original: Given,
    },
    Done,
}

impl Call {
    pub(crate) fn new(chain: &Rc<Chain>, moment: Moment, given: Given) -> Self {
        Call {
            chain: Rc::clone(chain),
            moment,
            state: State::Waiting(given),
        }
    }

    /// Makes the call as soon as it may be made.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Done, Stop>> {
        let turn = &self.chain.turn;
        if let State::Running { ticket, .. } = self.state {
            let result = ready!(turn.poll(ticket, cx));
            let State::Running {
                began, original, ..
            } = std::mem::replace(&mut self.state, State::Done)
            else {
                return Poll::Ready(Err(Stop::over()));
            };
            let ended = result.map_or_else(
                || Err(Stop::over()),
                |result| self.chain.settle(self.moment, began, original, result),
            );
            return Poll::Ready(ended);
        }
        if turn.is_over() {
            return Poll::Ready(Err(Stop::over()));
        }
        ready!(turn.poll_free(cx));
        let State::Waiting(given) = std::mem::replace(&mut self.state, State::Done) else {
            return Poll::Ready(Err(Stop::over()));
        };
        let position = self.moment.position;
        let chain = Rc::clone(&self.chain);
        let live = chain.live_filter(position);
        let found = live.and_then(|live| live.get(chain.worker.filter_services()));
        let (Some(live), Some(filter)) = (live, found) else {
            return Poll::Ready(Ok(Done::left_out(given)));
        };
        chain.called.set(position);
        let original = chain.present(live, self.moment.stage, given);
        let began = chain.begin(live, self.moment.stage.phase, &original);
        match filter.call(
            self.moment.stage.phase,
            self.moment.end,
            &self.chain.exchange,
        ) {
            Outcome::Ready(result) => {
                Poll::Ready(self.chain.settle(self.moment, began, original, result))
            }
            Outcome::Pending(call) => {
                let ticket = turn.take(call);
                self.state = State::Running {
                    ticket,
                    began,
                    original,
                };
                self.poll(cx)
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let State::Running { ticket, .. } = self.state {
            self.chain.turn.give_back(ticket);
        }
    }
}

/// Whether a call failed because of a limit.
pub(crate) fn is_over(error: &FilterError, limit: Limit) -> bool {
    error
        .fault
        .overrun()
        .is_some_and(|over| over.limit == limit)
}

impl Chain {
    /// Puts into the exchange what a callback is about, and returns what the filter can't have changed.
    fn present(&self, filter: &LiveFilter, stage: Stage, given: Given) -> Given {
        let open = filter.slot.failure == snapshot::Failure::Open;
        let mut exchange = self.exchange.borrow_mut();
        // Where a failure ends the exchange, nobody wants to know what there was before.
        exchange.begin_call(stage, open);
        match given {
            Given::Nothing => Given::Nothing,
            Given::Piece(bytes) => {
                exchange.chunk = Chunk::new(bytes.clone());
                Given::Piece(bytes)
            }
            Given::Trailers(trailers) => {
                let kept = trailers.clone();
                let place = if stage.phase == Phase::RequestTrailers {
                    &mut exchange.request_trailers
                } else {
                    &mut exchange.response_trailers
                };
                *place = Some(trailers);
                Given::Trailers(kept)
            }
        }
    }

    /// The clock of a call.
    fn begin(&self, filter: &LiveFilter, phase: Phase, original: &Given) -> Began {
        if let Given::Piece(bytes) = original {
            filter.figures.saw(phase, bytes.len());
        }
        filter.figures.begin(phase, self.spent.get().is_some())
    }

    /// Takes out of the exchange again what a callback was about.
    fn collect(&self, stage: Stage, original: &Given) -> Given {
        if matches!(original, Given::Nothing) {
            return Given::Nothing;
        }
        let mut exchange = self.exchange.borrow_mut();
        match original {
            Given::Nothing => Given::Nothing,
            Given::Piece(_) => Given::Piece(std::mem::take(&mut exchange.chunk).into_bytes()),
            Given::Trailers(_) => {
                let place = if stage.phase == Phase::RequestTrailers {
                    &mut exchange.request_trailers
                } else {
                    &mut exchange.response_trailers
                };
                Given::Trailers(place.take().unwrap_or_default())
            }
        }
    }

    /// Calls a filter for a head. Most decide at once, and for those nothing is put aside.
    pub(crate) fn call_head(
        self: &Rc<Self>,
        live: Option<&LiveFilter>,
        moment: Moment,
    ) -> HeadCall {
        if self.turn.is_over() {
            return HeadCall::Ended(Err(Stop::over()));
        }
        if !self.turn.is_free() {
            return HeadCall::Waits(Box::new(Call::new(self, moment, Given::Nothing)));
        }
        let found = live.and_then(|live| live.get(self.worker.filter_services()));
        let (Some(live), Some(filter)) = (live, found) else {
            return HeadCall::Ended(Ok(Said::LeftOut));
        };
        let Stage { phase, .. } = moment.stage;
        self.called.set(moment.position);
        let original = self.present(live, moment.stage, Given::Nothing);
        let began = self.begin(live, phase, &original);
        match filter.call(phase, moment.end, &self.exchange) {
            Outcome::Ready(result) => {
                HeadCall::Ended(self.judge(Some(live), moment, began, result))
            }
            Outcome::Pending(call) => {
                let ticket = self.turn.take(call);
                HeadCall::Waits(Box::new(Call {
                    chain: Rc::clone(self),
                    moment,
                    state: State::Running {
                        ticket,
                        began,
                        original,
                    },
                }))
            }
        }
    }

    /// Takes back what a callback was about, and says what happens next.
    fn settle(
        &self,
        moment: Moment,
        began: Began,
        original: Given,
        result: Result<Flow, FilterError>,
    ) -> Result<Done, Stop> {
        let became = self.collect(moment.stage, &original);
        let live = self.live_filter(moment.position);
        let said = self.judge(live, moment, began, result)?;
        if said == Said::LeftOut {
            // Pieces and trailers go on as they came.
            return Ok(Done::left_out(original));
        }
        Ok(Done {
            holds: said == Said::Hold,
            changed: became.differs(&original),
            given: became,
            left_out: false,
        })
    }

    /// Counts a call, and turns what it said into what happens next.
    fn judge(
        &self,
        live: Option<&LiveFilter>,
        moment: Moment,
        began: Began,
        result: Result<Flow, FilterError>,
    ) -> Result<Said, Stop> {
        let Moment {
            position, stage, ..
        } = moment;
        let figures = live.map(|filter| &filter.figures);
        if let Some(figures) = figures {
            let took = figures.end(began);
            self.add_time(took);
        }
        let broke = |what: &str| FilterError {
            filter: self.name(position),
            phase: stage.phase,
            fault: Fault::Contract(what.to_owned()),
        };
        let head = matches!(stage.phase, Phase::RequestHead | Phase::ResponseHead);
        let error = match result {
            Ok(flow) if flow == Flow::Continue || (flow == Flow::Hold && head) => {
                if !stage.head_open {
                    self.exchange.borrow_mut().end_call();
                }
                return Ok(if flow == Flow::Hold {
                    Said::Hold
                } else {
                    Said::Continue
                });
            }
            Ok(Flow::Answer) => {
                let answer = self.exchange.borrow_mut().answer.take();
                if let Some(answer) = answer {
                    if let Some(figures) = figures {
                        figures.answers.increment();
                    }
                    return Err(Stop::Answered {
                        by: position,
                        answer: Box::new(answer),
                    });
                }
                broke("it returned `answer` and gave none")
            }
            Ok(_) => broke("it returned `hold` outside of a head phase"),
            Err(error) => error,
        };
        self.note_failed(position, &error);
        let failure = if is_over(&error, Limit::Instances) {
            Failure::Instances
        } else {
            Failure::Filter
        };
        self.leave_out(position, failure)?;
        // Heads and properties go on as they were.
        self.exchange.borrow_mut().undo();
        Ok(Said::LeftOut)
    }
}
