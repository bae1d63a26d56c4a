//! What filters see of an exchange, in which order, and what their decisions mean. The request passes them forwards, the
//! response backwards; only a filter that saw the request's head sees the response. Knows no sockets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::error::{Fault, FilterError};
use tidegate_core::exchange::{Answer, Chunk, Exchange, ResponseHead, Stage};
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{BodyMode, Flow, Overflow, Phase};

use crate::answer::{self, Failure};
use crate::filter_body::{FilterBody, WithTrailers};
use crate::snapshot;
use crate::worker::{Live, LiveFilter, Worker};

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Direction {
    fn head(self) -> Phase {
        if self == Direction::Request {
            Phase::RequestHead
        } else {
            Phase::ResponseHead
        }
    }

    pub(crate) fn body(self) -> Phase {
        if self == Direction::Request {
            Phase::RequestBody
        } else {
            Phase::ResponseBody
        }
    }

    pub(crate) fn trailers(self) -> Phase {
        if self == Direction::Request {
            Phase::RequestTrailers
        } else {
            Phase::ResponseTrailers
        }
    }
}

/// Why a direction does not go on.
pub(crate) enum Stop {
    /// A filter's answer lies in the exchange.
    Answered,
    /// Something failed, and the client is told.
    Failed(Failure),
}

/// An exchange on its way through the filters of its route.
pub(crate) struct Chain {
    pub(crate) worker: Rc<Worker>,
    pub(crate) live: Rc<Live>,
    pub(crate) exchange: SharedExchange,
    /// Positions in `live.filters`.
    filters: RefCell<Vec<usize>>,
    /// How many filters have seen the request's head.
    entered: Cell<usize>,
    /// Filters that failed in this exchange and are not called again.
    skipped: RefCell<Vec<usize>>,
    /// The filter that answered.
    pub(crate) answered_by: Cell<Option<usize>>,
    /// Why a body that was already on its way was stopped.
    pub(crate) stopped: RefCell<Option<Failure>>,
}

impl Chain {
    pub(crate) fn new(worker: Rc<Worker>, live: Rc<Live>, exchange: Exchange) -> Self {
        Chain {
            worker,
            live,
            exchange: Rc::new(RefCell::new(exchange)),
            filters: RefCell::default(),
            entered: Cell::new(0),
            skipped: RefCell::default(),
            answered_by: Cell::new(None),
            stopped: RefCell::default(),
        }
    }

    /// Sets the filters, once the route is known.
    pub(crate) fn route_through(&self, filters: &[usize]) {
        self.filters.replace(filters.to_vec());
    }

    /// Takes the request's head, and as much of its body as filters want, through the filters.
    pub(crate) async fn request(self: &Rc<Self>, mut body: Body) -> Result<Body, Stop> {
        let count = self.filters.borrow().len();
        for position in 0..count {
            self.entered.set(position + 1);
            if self.find(position).is_none() {
                self.policy(position, None).map_err(Stop::Failed)?;
                continue;
            }
            body = self.pass(position, Direction::Request, body).await?;
        }
        Ok(body)
    }

    /// Takes the response's head, which lies in the exchange, and its body backwards through the filters that saw the
    /// request, and returns the body that leaves.
    pub(crate) async fn response(self: &Rc<Self>, mut body: Body) -> Body {
        // A filter that answered, or failed, in the request's phases was the last that was entered.
        let from = self.answered_by.get().unwrap_or_else(|| self.entered.get());
        for position in (0..from).rev() {
            if self.find(position).is_none() {
                continue;
            }
            body = match self.pass(position, Direction::Response, body).await {
                Ok(body) => body,
                Err(stop) => self.adopt(stop),
            };
        }
        body
    }

    /// Makes an answer the exchange's response and returns its body.
    pub(crate) fn adopt(&self, stop: Stop) -> Body {
        let given = match stop {
            Stop::Answered => self.exchange.borrow_mut().answer.take(),
            Stop::Failed(failure) => {
                let told = failure.told();
                self.worker.figures.failure(told.reason);
                let answer = failure.answer(&self.exchange.borrow());
                self.stopped.replace(Some(failure));
                Some(answer)
            }
        };
        let mut exchange = self.exchange.borrow_mut();
        let mut answer = given.unwrap_or_else(|| Failure::Filter.answer(&exchange));
        if answer::is_grpc(&exchange) {
            answer::for_grpc(&mut answer);
        }
        let Answer {
            status,
            fields,
            body,
        } = answer;
        exchange.response = Some(ResponseHead { status, fields });
        Body::full(body)
    }

    /// One filter, one direction.
    async fn pass(
        self: &Rc<Self>,
        position: usize,
        direction: Direction,
        body: Body,
    ) -> Result<Body, Stop> {
        let Some(filter) = self.find(position) else {
            return Ok(body);
        };
        let phases = filter.interests().phases;
        let end = body.is_end_stream();
        let mut flow = Flow::Continue;
        if phases.has(direction.head()) {
            flow = self
                .call(&filter, position, direction.head(), true, end)
                .await?;
        }
        if flow == Flow::Answer {
            return Err(Stop::Answered);
        }
        let takes_body = phases.has(direction.body());
        let takes_trailers = phases.has(direction.trailers());
        let wish = match direction {
            Direction::Request => filter.interests().request_body,
            Direction::Response => filter.interests().response_body,
        };
        if flow == Flow::Hold || (takes_body && wish.mode == BodyMode::Whole) {
            return self
                .whole(
                    &filter,
                    position,
                    direction,
                    body,
                    wish.limit,
                    wish.overflow,
                )
                .await;
        }
        let streams = takes_body && wish.mode == BodyMode::Stream;
        if (streams || takes_trailers) && !end {
            if streams {
                self.length_changes(direction);
            }
            return Ok(Body::stream(FilterBody::new(
                Rc::clone(self),
                position,
                direction,
                body,
                streams,
                takes_trailers,
            )));
        }
        Ok(body)
    }

    /// Collects the body, lets the filter judge it with the head still here, and hands on what became of it.
    async fn whole(
        self: &Rc<Self>,
        filter: &Rc<dyn Filter>,
        position: usize,
        direction: Direction,
        mut body: Body,
        limit: u32,
        overflow: Overflow,
    ) -> Result<Body, Stop> {
        let mut held = BytesMut::new();
        let mut trailers = None;
        let mut over = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Stop::Failed(self.broken(direction, &error)))?;
            match frame.into_data() {
                Ok(data) => held.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if held.len() > limit as usize {
                over = true;
                break;
            }
        }
        if over && overflow == Overflow::Refuse {
            return Err(Stop::Failed(match direction {
                Direction::Request => Failure::Client(answer::ClientFault::BodyTooLarge),
                Direction::Response => Failure::ResponseTooLarge,
            }));
        }
        let original = held.freeze();
        self.exchange.borrow_mut().chunk = Chunk::new(original.clone());
        let flow = self
            .call(filter, position, direction.body(), true, !over)
            .await?;
        let judged = std::mem::take(&mut self.exchange.borrow_mut().chunk).into_bytes();
        if flow == Flow::Answer {
            return Err(Stop::Answered);
        }
        if over {
            self.length_changes(direction);
            let rest = FilterBody::new(Rc::clone(self), position, direction, body, true, true);
            return Ok(Body::stream(rest.with_prefix(judged)));
        }
        if judged != original {
            self.length_changes(direction);
        }
        if let Some(held) = trailers.take() {
            trailers = self.trailers(filter, position, direction, held).await?;
        }
        Ok(match trailers {
            None => Body::full(judged),
            Some(trailers) => Body::stream(WithTrailers::new(judged, trailers)),
        })
    }

    async fn trailers(
        self: &Rc<Self>,
        filter: &Rc<dyn Filter>,
        position: usize,
        direction: Direction,
        trailers: HeaderMap,
    ) -> Result<Option<HeaderMap>, Stop> {
        if !filter.interests().phases.has(direction.trailers()) {
            return Ok(Some(trailers));
        }
        self.put_trailers(direction, Some(trailers));
        let flow = self
            .call(filter, position, direction.trailers(), true, true)
            .await?;
        let trailers = self.take_trailers(direction);
        if flow == Flow::Answer {
            Err(Stop::Answered)
        } else {
            Ok(trailers)
        }
    }

    pub(crate) fn put_trailers(&self, direction: Direction, trailers: Option<HeaderMap>) {
        let mut exchange = self.exchange.borrow_mut();
        match direction {
            Direction::Request => exchange.request_trailers = trailers,
            Direction::Response => exchange.response_trailers = trailers,
        }
    }

    pub(crate) fn take_trailers(&self, direction: Direction) -> Option<HeaderMap> {
        let mut exchange = self.exchange.borrow_mut();
        match direction {
            Direction::Request => exchange.request_trailers.take(),
            Direction::Response => exchange.response_trailers.take(),
        }
    }

    /// The length that the sender announced does not hold any more.
    fn length_changes(&self, direction: Direction) {
        let mut exchange = self.exchange.borrow_mut();
        let fields = match direction {
            Direction::Request => Some(&mut exchange.request.fields),
            Direction::Response => exchange
                .response
                .as_mut()
                .map(|response| &mut response.fields),
        };
        if let Some(fields) = fields {
            fields.remove(header::CONTENT_LENGTH);
            // Digests of what was are wrong for what is.
            fields.remove("content-md5");
        }
    }

    fn broken(&self, direction: Direction, error: &BodyError) -> Failure {
        // A filter before this one may have stopped the body on purpose.
        if let Some(failure) = self.stopped.borrow_mut().take() {
            return failure;
        }
        match direction {
            Direction::Request => Failure::Client(answer::of_body(error)),
            Direction::Response => Failure::ResponseBroken,
        }
    }

    async fn call(
        &self,
        filter: &Rc<dyn Filter>,
        position: usize,
        phase: Phase,
        head_open: bool,
        end: bool,
    ) -> Result<Flow, Stop> {
        if self.is_skipped(position) {
            return Ok(Flow::Continue);
        }
        self.exchange.borrow_mut().stage = Stage { phase, head_open };
        let began = Instant::now();
        let result = match filter.call(phase, end, &self.exchange) {
            Outcome::Ready(result) => result,
            Outcome::Pending(future) => future.await,
        };
        self.settle(position, phase, began, result)
            .map_err(Stop::Failed)
    }

    /// Counts a call and turns its failure into what the filter's policy says.
    pub(crate) fn settle(
        &self,
        position: usize,
        phase: Phase,
        began: Instant,
        result: Result<Flow, FilterError>,
    ) -> Result<Flow, Failure> {
        let slot = self.slot(position);
        if let Some(slot) = slot {
            slot.figures.calls.increment();
            slot.figures
                .nanoseconds
                .add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        let broke = |what: &str| FilterError {
            filter: slot.map_or_else(|| std::sync::Arc::from(""), |slot| slot.slot.name.clone()),
            phase,
            fault: Fault::Contract(what.to_owned()),
        };
        let error = match result {
            Ok(Flow::Answer) if self.exchange.borrow().answer.is_none() => {
                broke("it returned `answer` and gave none")
            }
            Ok(Flow::Hold) if !matches!(phase, Phase::RequestHead | Phase::ResponseHead) => {
                broke("it returned `hold` outside of a head phase")
            }
            Ok(flow) => {
                if flow == Flow::Answer {
                    self.answered_by.set(Some(position));
                    if let Some(slot) = slot {
                        slot.figures.answers.increment();
                    }
                }
                return Ok(flow);
            }
            Err(error) => error,
        };
        self.policy(position, Some(&error)).map(|()| Flow::Continue)
    }

    /// What happens when a filter failed (or there is none to call): it is left out from here on, or the exchange ends.
    fn policy(&self, position: usize, error: Option<&FilterError>) -> Result<(), Failure> {
        self.skipped.borrow_mut().push(position);
        let Some(slot) = self.slot(position) else {
            return Ok(());
        };
        let id = self.exchange.borrow().request_id.clone();
        let id = id.to_str().unwrap_or_default();
        if let Some(error) = error {
            self.worker
                .figures
                .filter_failure(&slot.slot.name, error.fault.kind());
            tracing::error!(filter = %slot.slot.name, phase = %error.phase, request_id = id, error = %error.fault, "a filter failed");
        } else {
            self.worker
                .figures
                .filter_failure(&slot.slot.name, "unavailable");
        }
        match slot.slot.failure {
            snapshot::Failure::Open => {
                slot.figures.skipped.increment();
                Ok(())
            }
            snapshot::Failure::Closed => {
                // The response passes the filters before this one.
                self.answered_by.set(Some(position));
                Err(Failure::Filter)
            }
        }
    }

    pub(crate) fn is_skipped(&self, position: usize) -> bool {
        self.skipped.borrow().contains(&position)
    }

    pub(crate) fn is_open(&self, position: usize) -> bool {
        self.slot(position)
            .is_some_and(|slot| slot.slot.failure == snapshot::Failure::Open)
    }

    /// The filter at a position of the route.
    pub(crate) fn find(&self, position: usize) -> Option<Rc<dyn Filter>> {
        self.slot(position)?.get(self.worker.filter_services())
    }

    fn slot(&self, position: usize) -> Option<&LiveFilter> {
        let index = self.filters.borrow().get(position).copied()?;
        self.live.filters.get(index)
    }

    /// The name of the filter that answered.
    pub(crate) fn answerer(&self) -> Option<&str> {
        let position = self.answered_by.get()?;
        self.slot(position).map(|slot| &*slot.slot.name)
    }

    /// Tells every filter that saw the request that the exchange is over. Runs once, whatever happened.
    pub(crate) fn log(&self) {
        let entered = self.entered.replace(0);
        for position in 0..entered {
            let Some(filter) = self.find(position) else {
                continue;
            };
            let skipped = self.is_skipped(position);
            self.exchange.borrow_mut().stage = Stage {
                phase: Phase::Log,
                head_open: false,
            };
            match filter.call(Phase::Log, true, &self.exchange) {
                Outcome::Ready(Err(error)) if !skipped => {
                    let _ = self.policy(position, Some(&error));
                }
                Outcome::Ready(_) => {}
                Outcome::Pending(future) => {
                    tokio::task::spawn_local(future);
                }
            }
        }
    }

    /// Bytes of a piece that a body callback has seen.
    pub(crate) fn take_chunk(&self) -> Bytes {
        std::mem::take(&mut self.exchange.borrow_mut().chunk).into_bytes()
    }
}
