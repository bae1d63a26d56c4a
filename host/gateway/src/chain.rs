//! What filters see of an exchange, in which order, and what their decisions mean. The request passes them forwards, the
//! response backwards; only a filter that saw the request sees the response. Knows no sockets.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header;
use http_body::Body as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::clock::{Clock as _, SystemClock};
use tidegate_core::error::{FilterError, Limit};
use tidegate_core::exchange::{Answer, Exchange, ResponseHead, Stage};
use tidegate_core::filter::{Outcome, SharedExchange};
use tidegate_core::phase::Phase;
use tokio::runtime::Handle;

use crate::answer::{self, Failure, Manner};
use crate::call::{Call, Done, Given, HeadCall, Moment, Said, Turn, is_over};
use crate::figures::Began;
use crate::filter_body::FilterBody;
use crate::marks::Marks;
use crate::plan::{Direction, Later, Step, Wish};
use crate::quarantine::Admission;
use crate::snapshot;
use crate::worker::{Live, LiveFilter, Worker};

/// Why a direction does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A filter gave an answer.
    Answered {
        /// Its position in the route's chain.
        by: usize,
        answer: Box<Answer>,
    },
    /// Something failed, and the client is told.
    Failed {
        /// The position of the filter that failed, if it was one.
        by: Option<usize>,
        failure: Failure,
    },
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed { by: None, failure }
    }
}

impl Stop {
    /// Whether the client's connection can't be trusted to go on.
    pub(crate) fn closes(&self) -> bool {
        matches!(self, Stop::Failed { failure, .. } if failure.closes())
    }

    /// For what is still on its way when the exchange is over: nobody is told.
    pub(crate) fn over() -> Self {
        Failure::Client(answer::ClientFault::BodyBroken).into()
    }
}

/// What is left of a filter's part in one direction when its head's callback was begun.
enum Rest {
    /// The callback itself: it waits.
    Call(Box<Call>),
    /// The body.
    Body { holds: bool },
}

/// An exchange on its way through the filters of its route.
pub(crate) struct Chain {
    pub(crate) worker: Rc<Worker>,
    pub(crate) live: Rc<Live>,
    pub(crate) exchange: SharedExchange,
    pub(crate) turn: Turn,
    /// The route; none before one is found.
    pub(crate) route: Cell<Option<usize>>,
    /// How many filters have seen the request.
    entered: Cell<usize>,
    /// How many of them will see the response.
    returning: Cell<Option<usize>>,
    /// Filters of which any callback ran.
    pub(crate) called: Marks,
    /// Filters that failed in this exchange and are not called again.
    pub(crate) skipped: Marks,
    /// Filters that are in quarantine, and come back if this exchange goes well.
    pub(crate) trials: Marks,
    pub(crate) manner: Manner,
    /// Time in filters' calls so far, where the route wants it told.
    pub(crate) spent: Cell<Option<Duration>>,
    /// Why the request's body was stopped on its way to the upstream.
    upload_stop: RefCell<Option<Stop>>,
    /// What the log says of it: the filter that answered, and why the proxy answered or broke off.
    pub(crate) answered_by: Cell<Option<usize>>,
    pub(crate) reason: Cell<Option<&'static str>>,
}

impl Chain {
    pub(crate) fn new(worker: Rc<Worker>, exchange: Exchange, manner: Manner) -> Self {
        Chain {
            live: worker.live(),
            worker,
            exchange: Rc::new(RefCell::new(exchange)),
            turn: Turn::default(),
            route: Cell::new(None),
            entered: Cell::new(0),
            returning: Cell::new(None),
            called: Marks::default(),
            skipped: Marks::default(),
            trials: Marks::default(),
            manner,
            spent: Cell::new(None),
            upload_stop: RefCell::new(None),
            answered_by: Cell::new(None),
            reason: Cell::new(None),
        }
    }

    /// Whether anybody but the proxy looks at this exchange.
    pub(crate) fn has_filters(&self) -> bool {
        !self.steps().is_empty()
    }

    /// What filters may want to see of the heads when those have gone.
    pub(crate) fn later(&self) -> Later {
        self.route
            .get()
            .map_or_else(Later::default, |route| self.live.later(route))
    }

    fn steps(&self) -> &[Step] {
        self.route.get().map_or(&[], |route| self.live.steps(route))
    }

    fn step(&self, position: usize) -> Option<&Step> {
        self.steps().get(position)
    }

    /// Takes the request's head, and as much of its body as filters want, through the filters.
    pub(crate) async fn request(self: &Rc<Self>, mut body: Body) -> Result<Body, Stop> {
        for (position, step) in self.steps().iter().enumerate() {
            self.entered.set(position + 1);
            if !self.enter(position, step)? {
                continue;
            }
            if let Some(rest) = self.head(position, step, Direction::Request, &body)? {
                let direction = Direction::Request;
                body = self.rest(position, step, direction, body, rest).await?;
            }
        }
        Ok(body)
    }

    /// Begins with a filter. Says whether it takes part: it does not if there is none to call, or if it failed so often
    /// that it is not called at the moment, and its policy lets the exchange go on all the same.
    fn enter(&self, position: usize, step: &Step) -> Result<bool, Stop> {
        let Some(filter) = self.live.filters.get(step.filter) else {
            return Ok(false);
        };
        match filter.admit() {
            Admission::Free => {}
            Admission::Trial => self.trials.set(position),
            Admission::Refused => {
                self.leave_out(position, Failure::Quarantined)?;
                return Ok(false);
            }
        }
        if !filter.can_be_had(self.worker.filter_services()) {
            self.worker
                .figures
                .filter_failure(&filter.slot.name, None, "unavailable");
            self.leave_out(position, Failure::Filter)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the response's head, which lies in the exchange, and its body backwards through the filters that saw the
    /// request, and returns the body that leaves.
    pub(crate) async fn response(self: &Rc<Self>, mut body: Body) -> Body {
        let returning = self.returning.get().unwrap_or_else(|| self.entered.get());
        self.returning.set(Some(returning));
        let passed = self.steps().iter().enumerate().take(returning);
        for (position, step) in passed.rev() {
            let direction = Direction::Response;
            let passed = match self.head(position, step, direction, &body) {
                Ok(None) => continue,
                Ok(Some(rest)) => self.rest(position, step, direction, body, rest).await,
                Err(stop) => Err(stop),
            };
            body = passed.unwrap_or_else(|stop| self.adopt(stop));
        }
        body
    }

    /// One filter's part in a head. Says what is left to do; for most filters, nothing.
    fn head(
        self: &Rc<Self>,
        position: usize,
        step: &Step,
        direction: Direction,
        body: &Body,
    ) -> Result<Option<Rest>, Stop> {
        let needs = step.needs(direction);
        if needs.is_nothing() || self.skipped.has(position) {
            return Ok(None);
        }
        let end = body.is_end_stream();
        let mut said = Said::Continue;
        if needs.head {
            let moment = self.moment(position, direction.head(), true, end);
            let live = self.live.filters.get(step.filter);
            said = match self.call_head(live, moment) {
                HeadCall::Ended(said) => said?,
                HeadCall::Waits(call) => return Ok(Some(Rest::Call(call))),
            };
        }
        let more =
            needs.body == Wish::Whole || !end && (needs.body == Wish::Pieces || needs.trailers);
        Ok(match said {
            Said::Hold => Some(Rest::Body { holds: true }),
            Said::Continue if more => Some(Rest::Body { holds: false }),
            Said::Continue | Said::LeftOut => None,
        })
    }

    /// The rest of one filter's part in one direction.
    async fn rest(
        self: &Rc<Self>,
        position: usize,
        step: &Step,
        direction: Direction,
        body: Body,
        rest: Rest,
    ) -> Result<Body, Stop> {
        let needs = step.needs(direction);
        let end = body.is_end_stream();
        let holds = match rest {
            Rest::Body { holds } => holds,
            Rest::Call(mut call) => poll_fn(|cx| call.poll(cx)).await?.holds,
        };
        if self.skipped.has(position) {
            return Ok(body);
        }
        if holds || (needs.body == Wish::Whole && !self.is_switching(direction)) {
            return self.whole(position, needs, direction, body).await;
        }
        let pieces = needs.body == Wish::Pieces;
        if end || !(pieces || needs.trailers) {
            return Ok(body);
        }
        if pieces {
            self.length_changes(direction);
        }
        let stage = FilterBody::new(self, position, direction, body, pieces, needs.trailers);
        Ok(Body::stream(stage))
    }

    /// Whether what leaves is the switch to another protocol, behind which there is no body.
    fn is_switching(&self, direction: Direction) -> bool {
        direction == Direction::Response
            && self
                .exchange
                .borrow()
                .response
                .as_ref()
                .is_some_and(|head| head.status == StatusCode::SWITCHING_PROTOCOLS)
    }

    pub(crate) fn moment(
        &self,
        position: usize,
        phase: Phase,
        head_open: bool,
        end: bool,
    ) -> Moment {
        Moment {
            position,
            stage: Stage { phase, head_open },
            end,
        }
    }

    /// Calls a filter, when it is this exchange's turn.
    pub(crate) async fn call(self: &Rc<Self>, moment: Moment, given: Given) -> Result<Done, Stop> {
        if self.skipped.has(moment.position) {
            return Ok(Done::left_out(given));
        }
        let mut call = Call::new(self, moment, given);
        poll_fn(|cx| call.poll(cx)).await
    }

    /// The length that the sender announced does not hold any more, nor do digests of what it sent.
    pub(crate) fn length_changes(&self, direction: Direction) {
        let mut exchange = self.exchange.borrow_mut();
        let fields = match direction {
            Direction::Request => Some(&mut exchange.request.fields),
            Direction::Response => exchange.response.as_mut().map(|head| &mut head.fields),
        };
        if let Some(fields) = fields {
            fields.remove(header::CONTENT_LENGTH);
            for name in ["content-md5", "digest", "content-digest"] {
                fields.remove(name);
            }
        }
    }

    // --- Answers and failures ---

    /// Makes an answer the exchange's response and returns its body.
    pub(crate) fn adopt(&self, stop: Stop) -> Body {
        let (by, mut answer) = match stop {
            Stop::Answered { by, answer } => {
                self.answered_by.set(Some(by));
                (Some(by), *answer)
            }
            Stop::Failed { by, failure } => {
                self.note(&failure);
                let id = self.exchange.borrow().request_id.clone();
                (by, failure.answer(self.manner, &id))
            }
        };
        if let (None, Some(by)) = (self.returning.get(), by) {
            self.returning.set(Some(by));
        }
        self.manner.suit(&mut answer);
        let Answer {
            status,
            fields,
            body,
        } = answer;
        self.exchange.borrow_mut().response = Some(ResponseHead { status, fields });
        Body::full(body)
    }

    /// Counts a failure and keeps its reason for the log.
    pub(crate) fn note(&self, failure: &Failure) {
        let reason = failure.told().reason;
        self.reason.set(Some(reason));
        if let Failure::LastHop = failure {
            return;
        }
        let of_client = failure.of_client().is_some();
        if of_client {
            self.worker.figures.client_error(reason);
        } else {
            self.worker.figures.failure(reason);
        }
        let upstream = match failure {
            Failure::Upstream(error) if !of_client => Some(error),
            _ => None,
        };
        if !(of_client || upstream.is_some()) || !self.worker.figures.may_log() {
            return;
        }
        let exchange = self.exchange.borrow();
        let id = exchange.request_id.to_str().unwrap_or_default();
        match upstream {
            None => {
                let client = exchange.client.peer;
                tracing::info!(%client, request_id = id, reason, "a request was refused");
            }
            Some(error) => tracing::warn!(
                request_id = id, route = %exchange.route, attempts = error.attempts, %error,
                "an upstream gave no answer"
            ),
        }
    }

    /// Stops a body that is on its way. The reason is told if there is still somebody to tell.
    pub(crate) fn stop_body(&self, direction: Direction, stop: Stop) -> BodyError {
        if direction == Direction::Request && self.returning.get().is_none() {
            self.upload_stop.replace(Some(stop));
        } else if let Stop::Failed { failure, .. } = stop
            && !self.turn.is_over()
        {
            self.note(&failure);
        }
        BodyError::Stopped
    }

    /// Why a filter stopped the request's body, if one did.
    pub(crate) fn take_upload_stop(&self) -> Option<Stop> {
        self.upload_stop.borrow_mut().take()
    }

    /// What a body means that broke off while it was collected.
    pub(crate) fn broken(&self, direction: Direction, error: &BodyError) -> Stop {
        match direction {
            Direction::Request => self
                .take_upload_stop()
                .unwrap_or_else(|| Failure::Client(answer::of_body(error)).into()),
            Direction::Response => match error {
                BodyError::TimedOut => Failure::ResponseTimedOut.into(),
                _ => Failure::ResponseBroken.into(),
            },
        }
    }

    // --- Filters ---

    /// The filter at a position of the route.
    pub(crate) fn live_filter(&self, position: usize) -> Option<&LiveFilter> {
        self.live.filters.get(self.step(position)?.filter)
    }

    /// The name of the filter at a position.
    pub(crate) fn name(&self, position: usize) -> Arc<str> {
        self.live_filter(position)
            .map_or_else(|| Arc::from(""), |filter| Arc::clone(&filter.slot.name))
    }

    /// Tells every filter that saw the request that the exchange is over. Runs once, whatever happened.
    pub(crate) fn end(self: &Rc<Self>) {
        self.turn.end();
        let entered = self.entered.replace(0);
        for (position, step) in self.steps().iter().enumerate().take(entered) {
            self.tell_the_end(position, step);
            let on_trial = self.trials.has(position) && self.called.has(position);
            if on_trial && !self.skipped.has(position) {
                self.trial_passed(position);
            }
        }
    }

    fn tell_the_end(self: &Rc<Self>, position: usize, step: &Step) {
        let wants = step.log;
        let skipped = self.skipped.has(position);
        if !self.called.has(position) && (!wants || skipped) {
            return;
        }
        let Some(live) = self.live.filters.get(step.filter) else {
            return;
        };
        let Some(filter) = live.present() else {
            return;
        };
        let stage = Stage {
            phase: Phase::Log,
            head_open: false,
        };
        self.exchange.borrow_mut().begin_call(stage, false);
        self.called.set(position);
        // Without a part in this phase, it only forgets what it kept of the exchange.
        let began = if wants {
            live.figures.begin(Phase::Log, false)
        } else {
            Began::default()
        };
        match filter.call(Phase::Log, true, &self.exchange) {
            Outcome::Ready(result) => {
                live.figures.end(began);
                // There is nothing left that its policy could decide, but it is counted.
                if let Err(error) = result
                    && !skipped
                {
                    self.skipped.set(position);
                    self.note_failed(position, &error);
                }
            }
            // It only gives way to others, and is over soon; without a runtime, nobody could bring it to its end.
            Outcome::Pending(call) if Handle::try_current().is_ok() => {
                let chain = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    if let Err(error) = call.await
                        && !skipped
                    {
                        chain.note_failed(position, &error);
                    }
                });
            }
            Outcome::Pending(_) => {}
        }
    }

    fn trial_passed(&self, position: usize) {
        let Some(filter) = self.live_filter(position) else {
            return;
        };
        if let Some(quarantine) = &filter.slot.quarantine
            && quarantine.passed(SystemClock.monotonic())
        {
            tracing::info!(
                filter = %filter.slot.name,
                "a filter is back in service: its trial request went well"
            );
        }
    }

    /// Counts time in a call, where the route wants it told.
    pub(crate) fn add_time(&self, took: Option<Duration>) {
        if let (Some(spent), Some(took)) = (self.spent.get(), took) {
            self.spent.set(Some(spent + took));
        }
    }

    // --- Failures of filters ---

    /// Leaves a filter out of the exchange from here on, as its policy says: the exchange goes on without it, or ends.
    pub(crate) fn leave_out(&self, position: usize, failure: Failure) -> Result<(), Stop> {
        self.skipped.set(position);
        let Some(filter) = self.live_filter(position) else {
            return Ok(());
        };
        match filter.slot.failure {
            snapshot::Failure::Open => {
                filter.figures.skipped.increment();
                Ok(())
            }
            snapshot::Failure::Closed => Err(Stop::Failed {
                by: Some(position),
                failure,
            }),
        }
    }

    /// Counts a failed call, tells of it, and takes the filter out of service if it was one too many.
    pub(crate) fn note_failed(&self, position: usize, error: &FilterError) {
        let Some(filter) = self.live_filter(position) else {
            return;
        };
        let figures = &self.worker.figures;
        let name = &filter.slot.name;
        let reason = error.fault.kind();
        figures.filter_failure(name, Some(error.phase), reason);
        if let Some(suppressed) = filter.lines.next() {
            let exchange = self.exchange.borrow();
            let id = exchange.request_id.to_str().unwrap_or_default();
            let over = error.fault.overrun();
            let limit = over.map(|over| over.limit.name());
            let (bound, value) = (over.map(|over| over.bound), over.map(|over| over.value));
            tracing::error!(
                filter = %name, phase = %error.phase, route = %exchange.route, request_id = id, reason,
                limit, bound, value, error = %error.fault, suppressed, "a filter failed"
            );
        }
        let Some(quarantine) = &filter.slot.quarantine else {
            return;
        };
        // That all of its instances are busy is no fault of the filter.
        if is_over(error, Limit::Instances) {
            return;
        }
        let trial = self.trials.has(position);
        let why = format!("in {}: {}", error.phase, error.fault);
        if let Some(period) = quarantine.failed(SystemClock.monotonic(), trial, &why) {
            figures.quarantined(name);
            let for_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
            let message = if trial {
                "a filter stays in quarantine: its trial request failed too"
            } else {
                "a filter is in quarantine: it failed too often, and until its next trial its policy answers for it"
            };
            tracing::error!(filter = %name, policy = filter.slot.failure.name(), for_ms, why, "{message}");
        }
    }
}
