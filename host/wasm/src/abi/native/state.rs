//! What stands behind one instance while it runs: the exchange of the running callback, the filter's grants and
//! bounds, and the handles that save look-ups. Both carriers' stores hold it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use send_wrapper::SendWrapper;
use tidegate_core::error::{Fault, FilterError, Limit, Overrun};
use tidegate_core::exchange::{Exchange, Refusal};
use tidegate_core::filter::{GiveWay, Outcome, SharedExchange, Sleep, WorkerServices};
use tidegate_core::metrics::{Histogram, Owner};
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::services::{HttpClient, Level, Services};
use tidegate_core::usage::Discard;
use wasmtime::{Memory, TypedFunc, UpdateDeadline};

use super::figures::{Figures, Series, thread_owner};
use super::memory::Reply;
use crate::error::toml_key;
use crate::fault::Over;
use crate::limits::Growth;
use crate::meter::Meter;
use crate::options::{Allow, Limits};
use crate::time::{self, Allowance, Bounds, Moment, Next};

/// What does not change about a loaded filter. Shared by all of its instances on all workers.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: Arc<str>,
    pub(super) config: String,
    pub(super) allow: Allow,
    pub(super) limits: Limits,
    pub(super) services: Services,
    /// Bytes of stack that a call may use.
    pub(super) stack: u64,
    /// Nanoseconds of processor time that the first instance's beginning took; 0 before that.
    began_in: AtomicU64,
    /// What its instances hold and have used.
    pub(super) meter: Arc<Meter>,
    /// The figures that its instances have defined so far.
    pub(super) series: Mutex<HashSet<Series>>,
    /// HTTP calls that wait now.
    pub(super) calls: AtomicU32,
    /// Lines of this second.
    lines: Mutex<Second>,
    /// When each limit was last reported, on the steady clock.
    over: Mutex<HashMap<Limit, u64>>,
    /// Refused uses that were reported already.
    reported: Mutex<HashSet<String>>,
}

/// The most different refused names that are reported of one filter.
const MAX_REPORTED: usize = 100;

impl Facts {
    pub(super) fn new(
        name: Arc<str>,
        config: String,
        allow: Allow,
        limits: Limits,
        services: Services,
        stack: u64,
    ) -> Self {
        Facts {
            name,
            config,
            allow,
            limits,
            services,
            stack,
            began_in: AtomicU64::new(0),
            meter: Arc::default(),
            series: Mutex::default(),
            calls: AtomicU32::new(0),
            lines: Mutex::default(),
            over: Mutex::default(),
            reported: Mutex::default(),
        }
    }
}

/// Lines in one second.
#[derive(Debug, Default)]
struct Second {
    /// The second, counted by the steady clock.
    number: u64,
    written: u32,
    suppressed: u64,
}

/// What becomes of a line.
pub(super) enum Line {
    /// It is written, after a note that so many were not, if any were.
    Written { suppressed: u64 },
    /// It is not. Only the first one of a second is worth a word.
    Suppressed { first: bool },
}

impl Facts {
    /// Notes how long the first instance took to begin.
    pub(super) fn began(&self, nanoseconds: u64) {
        self.began_in.store(nanoseconds.max(1), Ordering::Relaxed);
    }

    /// Bounds of an instance's beginning. The first one has all the time that is configured for it. Those after it are made
    /// on a worker, whose other exchanges wait: they have four times what the first one took, or the time of a call.
    fn beginning(&self) -> Bounds {
        let bounds = self.limits.configure();
        let first = Duration::from_nanos(self.began_in.load(Ordering::Relaxed));
        if first.is_zero() {
            return bounds;
        }
        let again = first.saturating_mul(4).max(self.limits.time);
        Bounds {
            processor: again.min(bounds.processor),
            ..bounds
        }
    }

    /// Takes a line of this second's, if one is left.
    pub(super) fn take_line(&self) -> Line {
        let number = self.services.clock.monotonic() / 1_000_000_000;
        let mut second = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut second.number, number);
        let mut suppressed = 0;
        if before != number {
            second.written = 0;
            suppressed = std::mem::take(&mut second.suppressed);
        }
        if second.written < self.limits.log_rate {
            second.written += 1;
            Line::Written { suppressed }
        } else {
            second.suppressed += 1;
            Line::Suppressed {
                first: second.suppressed == 1,
            }
        }
    }

    /// Whether it is time to report a limit again.
    fn reports(&self, limit: Limit) -> bool {
        let now = self.services.clock.monotonic();
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let last = over.get(&limit);
        let due = last.is_none_or(|last| now.saturating_sub(*last) >= REPORT_AGAIN);
        if due {
            over.insert(limit, now);
        }
        due
    }
}

/// How long a limit that was reported is not reported again, in nanoseconds.
const REPORT_AGAIN: u64 = 60 * 1_000_000_000;

/// What stands on one worker for all of a filter's instances there.
pub(super) struct Local {
    /// The way out. None where nothing may be called: at load.
    pub(super) http: Option<Rc<dyn HttpClient>>,
    /// Ends a stretch of a guest's time so that the worker's other exchanges have theirs.
    pub(super) give_way: Option<GiveWay>,
    sleep: Option<Sleep>,
    pub(super) owner: Owner,
    /// Processor time of the calls that are in the sample.
    pub(super) cpu: Option<Histogram>,
}

/// The bounds of `tidegate_filter_cpu_seconds`.
const CPU_SECONDS: [f64; 13] = [
    5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2e-2, 1e-1,
];

impl Local {
    /// Of no worker.
    pub(super) fn at_load() -> Rc<Self> {
        Rc::new(Local {
            http: None,
            give_way: None,
            sleep: None,
            owner: Owner::Process,
            cpu: None,
        })
    }

    /// Of the worker whose thread this is.
    pub(super) fn of_worker(facts: &Facts, services: &WorkerServices) -> Rc<Self> {
        let owner = thread_owner();
        let cpu = facts.services.metrics.histogram(
            owner,
            "tidegate_filter_cpu_seconds",
            "Processor time of a filter's calls, of one call in 61.",
            &[("filter", &facts.name)],
            &CPU_SECONDS,
        );
        Rc::new(Local {
            http: Some(Rc::clone(&services.http)),
            give_way: Some(services.give_way),
            sleep: Some(services.sleep),
            owner,
            cpu: cpu.ok(),
        })
    }
}

impl Local {
    /// How a call that is done ends for its exchange, which the guest may have asked to wait.
    #[inline]
    pub(super) fn pace(
        &self,
        result: Result<Flow, FilterError>,
        exchange: &SharedExchange,
    ) -> Outcome {
        let delay = exchange.borrow_mut().pace.take_delay();
        match (delay, self.sleep, result) {
            (Some(delay), Some(sleep), Ok(flow)) => Outcome::Pending(Box::pin(async move {
                sleep(delay).await;
                Ok(flow)
            })),
            (_, _, result) => Outcome::Ready(result),
        }
    }

    /// The same, for a call that is waited for in any case.
    pub(super) async fn paced(&self, exchange: &SharedExchange) {
        let delay = exchange.borrow_mut().pace.take_delay();
        if let (Some(delay), Some(sleep)) = (delay, self.sleep) {
            sleep(delay).await;
        }
    }
}

impl Resumed {
    fn set(&self, now: Moment) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn take(&self) -> Option<Moment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The data of a store.
pub(super) struct State {
    pub(super) facts: Arc<Facts>,
    /// The exchange whose callback runs. None in `configure`.
    exchange: Option<SharedExchange>,
    /// The callback that runs.
    pub(super) phase: Phase,
    pub(super) growth: Growth,
    pub(super) figures: Figures,
    /// What the worker's instances share.
    pub(super) local: Rc<Local>,
    /// What the running call has used of its time.
    pub(super) allowance: Allowance,
    /// Where calls may give way: when the guest last went on after it did.
    pub(super) resumed: Option<Arc<Resumed>>,
    /// The exchange that made HTTP calls last, and how many.
    pub(super) called: (u64, u32),
    /// A core module's exports, looked up once.
    pub(super) memory: Option<Memory>,
    pub(super) realloc: Option<Rc<Realloc>>,
    /// Whether its beginning asked for nothing that is another thing the next time: all instances begin alike then.
    pub(super) steady: bool,
    /// Whether the guest's allocator runs. It may not call the host.
    pub(super) allocating: bool,
    pub(super) reply: Reply,
}

/// A core module's `cabi_realloc`.
pub(super) type Realloc = TypedFunc<(u32, u32, u32, u32), u32>;

/// When a guest went on, told from a future that can't reach the state.
#[derive(Debug, Default)]
pub(super) struct Resumed(Mutex<Option<Moment>>);

impl State {
    pub(super) fn new(facts: Arc<Facts>, local: Rc<Local>) -> Self {
        State {
            exchange: None,
            phase: Phase::Configure,
            growth: Growth::new(&facts.limits, Arc::clone(&facts.meter)),
            figures: Figures::new(local.owner),
            local,
            allowance: Allowance::new(facts.beginning()),
            resumed: None,
            called: (0, 0),
            memory: None,
            realloc: None,
            steady: true,
            allocating: false,
            reply: Reply::default(),
            facts,
        }
    }

    /// Makes an exchange the current one.
    pub(super) fn enter(&mut self, phase: Phase, exchange: &SharedExchange) {
        self.phase = phase;
        self.exchange = Some(Rc::clone(exchange));
        self.allowance.begin();
        self.growth.begin();
        // Whoever drops it before its end was in no mood to wait.
        self.growth.share.why = Discard::Cancelled;
    }

    /// The guest asks for something outside of the exchange.
    #[inline]
    pub(super) fn asked_outside(&mut self) {
        if self.phase == Phase::Configure {
            self.steady = false;
        }
    }

    /// Ends what [`State::enter`] began.
    pub(super) fn leave(&mut self) {
        self.exchange = None;
    }

    /// Both clocks, as they are now.
    pub(super) fn now(&self) -> Moment {
        Moment {
            processor: time::processor(),
            clock: self.facts.services.clock.monotonic(),
        }
    }

    /// A tick has passed while the guest ran: whether it may go on, and until when.
    pub(super) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        // What an earlier call left behind is not this one's.
        let resumed = self.resumed.as_deref().and_then(Resumed::take);
        if let Some(resumed) = resumed.filter(|_| self.allowance.runs()) {
            self.allowance.resume(resumed);
        }
        let ticks = match self.allowance.look(self.now()) {
            Next::Ticks(ticks) => ticks,
            Next::Over(over) => return Err(wasmtime::Error::new(Over(over))),
        };
        let (Some(resumed), Some(give_way)) = (&self.resumed, self.local.give_way) else {
            return Ok(UpdateDeadline::Continue(ticks));
        };
        let resumed = Arc::clone(resumed);
        let clock = Arc::clone(&self.facts.services.clock);
        let others = async move {
            give_way().await;
            resumed.set(Moment {
                processor: time::processor(),
                clock: clock.monotonic(),
            });
        };
        Ok(UpdateDeadline::YieldCustom(time::FIRST, Box::pin(others)))
    }

    /// A call of the sample took so much processor time.
    pub(super) fn sampled(&self, nanoseconds: u64) {
        self.facts.meter.sampled(nanoseconds);
        if let Some(cpu) = &self.local.cpu {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            cpu.observe(nanoseconds as f64 / 1e9);
        }
    }

    /// A call failed. What is said of it is the gateway's.
    pub(super) fn failed(&self, fault: &Fault) {
        if let Some(over) = fault.overrun() {
            self.facts.meter.over(over.limit);
        }
    }

    /// The guest went over a limit and was told so. Counts it, and says so in the log now and then.
    pub(super) fn refused(&self, limit: Limit, bound: u64, value: u64) {
        let facts = &self.facts;
        facts.meter.over(limit);
        if facts.reports(limit) {
            let over = Overrun {
                limit,
                bound,
                value,
                trap: String::new(),
            };
            let message = format!(
                "filter `{}` in {}: {over}; raise `limits.{limit}` of [filter.{}] if that is right",
                facts.name,
                self.phase,
                toml_key(&facts.name)
            );
            self.log(Level::Warn, &message);
        }
    }

    /// The current exchange, if there is one.
    pub(super) fn exchange(&self) -> Option<&SharedExchange> {
        self.exchange.as_ref()
    }

    /// Reads the current exchange; `R::default()` when there is none.
    pub(super) fn read<R: Default>(&self, read: impl FnOnce(&Exchange) -> R) -> R {
        self.exchange
            .as_ref()
            .map_or_else(R::default, |exchange| read(&exchange.borrow()))
    }

    /// Reads the current exchange into the reply that is being built.
    pub(super) fn reply_from(&mut self, build: impl FnOnce(&Exchange, &mut Reply)) {
        if let Some(exchange) = &self.exchange {
            build(&exchange.borrow(), &mut self.reply);
        }
    }

    /// Copies the finished reply into the guest's memory.
    pub(super) fn hand_over(&mut self, memory: &mut [u8]) -> wasmtime::Result<()> {
        let exchange = self.exchange.as_ref().map(|exchange| exchange.borrow());
        self.reply.write(memory, |offset, length| {
            exchange
                .as_ref()
                .map_or(&[], |exchange| exchange.chunk.read(offset, length))
        })
    }

    /// Changes the current exchange. Without one, whatever would be changed has not come yet.
    pub(super) fn change<R>(
        &self,
        change: impl FnOnce(&mut Exchange) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        match &self.exchange {
            Some(exchange) => change(&mut exchange.borrow_mut()),
            None => Err(Refusal::TooLate),
        }
    }

    /// Whether a list of grants names something. If not, says so in the log, once for each name, with the line
    /// that would grant it.
    pub(super) fn granted(&self, key: &str, list: &[String], name: &str) -> bool {
        if list.iter().any(|granted| granted == name) {
            return true;
        }
        let filter = &self.facts.name;
        let shown: String = name.chars().take(100).collect();
        let mut reported = self
            .facts
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if reported.len() < MAX_REPORTED && reported.insert(format!("{key}/{shown}")) {
            self.log(
                Level::Warn,
                &format!(
                    "filter `{filter}` asked for `{shown}` without a grant; if it may, add \
                     `allow = {{ {key} = [\"{shown}\"] }}` to [filter.{}]",
                    toml_key(filter)
                ),
            );
        }
        false
    }

    /// Writes a line with the filter's name and the exchange's request id.
    pub(super) fn log(&self, level: Level, message: &str) {
        let exchange = self.exchange.as_ref().map(|exchange| exchange.borrow());
        let id = exchange
            .as_ref()
            .and_then(|exchange| exchange.request_id.to_str().ok());
        let services = &self.facts.services;
        services.log.write(level, &self.facts.name, id, message);
    }
}

/// A store's data. Stores that only ever run on one thread hold the state itself; those whose calls can wait must
/// be `Send` for the runtime and hold it in a wrapper that keeps it on its thread.
pub(super) trait Data: 'static {
    fn state(&mut self) -> &mut State;
    fn peek(&self) -> &State;
}

impl Data for State {
    fn state(&mut self) -> &mut State {
        self
    }

    fn peek(&self) -> &State {
        self
    }
}

/// The data of a store whose calls can wait.
pub(super) type Held = SendWrapper<State>;

impl Data for Held {
    fn state(&mut self) -> &mut State {
        self
    }

    fn peek(&self) -> &State {
        self
    }
}
