//! The figures of one worker, taken once at load so that counting is one addition. Knows no request.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tidegate_core::metrics::{Counter, Gauge, Histogram, Owner, Registry, SECONDS};
use tidegate_core::phase::Phase;

/// The classes of `tidegate_requests_total`; 499 stands for a client that left.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Lines on failures that a worker writes in a second; the figures count them all.
const LINES: u32 = 20;

/// What a worker counts besides routes and filters.
#[derive(Debug)]
pub(crate) struct WorkerFigures {
    registry: Arc<Registry>,
    owner: Owner,
    pub(crate) connections: Counter,
    pub(crate) open: Gauge,
    pub(crate) aborted: Counter,
    /// By reason, looked up once.
    failures: RefCell<Vec<(&'static str, Counter)>>,
    client_errors: RefCell<Vec<(&'static str, Counter)>>,
    /// Since when lines are counted, and how many were written.
    lines: Cell<(Option<Instant>, u32)>,
}

impl WorkerFigures {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Self {
        let owner = Owner::Worker(worker);
        // A handle that can't be had counts into the void; the names here are valid and taken by nobody else.
        let counter = |name, help| registry.counter(owner, name, help, &[]).unwrap_or_default();
        let open = registry
            .gauge(
                "tidegate_connections_open",
                "Client connections that are open.",
                &[],
            )
            .unwrap_or_default();
        WorkerFigures {
            owner,
            connections: counter("tidegate_connections_total", "Client connections accepted."),
            aborted: counter(
                "tidegate_client_aborts_total",
                "Exchanges that the client left before their end.",
            ),
            open,
            registry,
            failures: RefCell::default(),
            client_errors: RefCell::default(),
            lines: Cell::new((None, 0)),
        }
    }

    /// Counts a failure by its reason.
    pub(crate) fn failure(&self, reason: &'static str) {
        let help = "Exchanges that the proxy answered itself or broke off because something failed, by reason.";
        self.by_reason(&self.failures, "tidegate_failures_total", help, reason);
    }

    /// Counts what a client sent that can't be served.
    pub(crate) fn client_error(&self, reason: &'static str) {
        let help = "Connections or requests that were not understood or not allowed, by reason.";
        let name = "tidegate_client_errors_total";
        self.by_reason(&self.client_errors, name, help, reason);
    }

    fn by_reason(
        &self,
        known: &RefCell<Vec<(&'static str, Counter)>>,
        name: &str,
        help: &str,
        reason: &'static str,
    ) {
        let mut known = known.borrow_mut();
        if let Some((_, counter)) = known.iter().find(|(held, _)| *held == reason) {
            counter.increment();
            return;
        }
        let labels = [("reason", reason)];
        if let Ok(counter) = self.registry.counter(self.owner, name, help, &labels) {
            counter.increment();
            known.push((reason, counter));
        }
    }

    /// Whether one more line on a failure may be written: a flood of failures must not become a flood of lines.
    pub(crate) fn may_log(&self) -> bool {
        let now = Instant::now();
        let (since, written) = match self.lines.get() {
            (Some(since), written) if now - since < Duration::from_secs(1) => (since, written),
            _ => (now, 0),
        };
        self.lines.set((Some(since), written.saturating_add(1)));
        written < LINES
    }

    pub(crate) fn route(&self, name: &str) -> RouteFigures {
        RouteFigures {
            classes: CLASSES.map(|class| {
                let labels = [("route", name), ("class", class)];
                let help = "Exchanges by route and class of status.";
                self.registry
                    .counter(self.owner, "tidegate_requests_total", help, &labels)
                    .unwrap_or_default()
            }),
            seconds: self
                .registry
                .histogram(
                    self.owner,
                    "tidegate_request_duration_seconds",
                    "From a request's head to the last byte of its response.",
                    &[("route", name)],
                    &SECONDS,
                )
                .ok(),
        }
    }

    pub(crate) fn filter(&self, name: &str) -> FilterFigures {
        let counter = |metric, help, labels: &[(&str, &str)]| {
            self.registry
                .counter(self.owner, metric, help, labels)
                .unwrap_or_default()
        };
        let filter = ("filter", name);
        let by_phase =
            |metric, help, phase: Phase| counter(metric, help, &[filter, ("phase", phase.name())]);
        FilterFigures {
            calls: CALLED.map(|phase| {
                by_phase(
                    "tidegate_filter_calls_total",
                    "Calls into a filter, by phase.",
                    phase,
                )
            }),
            bytes: [Phase::RequestBody, Phase::ResponseBody].map(|phase| {
                by_phase(
                    "tidegate_filter_body_bytes_total",
                    "Bytes of bodies that a filter was called for, by phase.",
                    phase,
                )
            }),
            seconds: self
                .registry
                .histogram(
                    self.owner,
                    "tidegate_filter_call_seconds",
                    "Time in a filter's calls by the clock, waiting included; of each phase, one call in 16 is measured.",
                    &[filter],
                    &CALL_SECONDS,
                )
                .ok(),
            answers: counter(
                "tidegate_filter_answers_total",
                "Answers that a filter gave.",
                &[filter],
            ),
            skipped: counter(
                "tidegate_filter_fail_open_total",
                "Exchanges that went on without a filter that failed, is in quarantine or can't be had.",
                &[filter],
            ),
        }
    }

    /// Counts a filter's failure by phase and reason.
    pub(crate) fn filter_failure(&self, filter: &str, phase: Option<Phase>, reason: &str) {
        let phase = phase.map_or("", Phase::name);
        let labels = [("filter", filter), ("phase", phase), ("reason", reason)];
        let help = "Failures of a filter, by phase and reason.";
        self.count("tidegate_filter_failures_total", help, &labels);
    }

    /// Counts that a filter was taken out of service.
    pub(crate) fn quarantined(&self, filter: &str) {
        let help = "Times that a filter was taken out of service because it failed too often, failed trials included.";
        let labels = [("filter", filter)];
        self.count("tidegate_filter_quarantines_total", help, &labels);
    }

    fn count(&self, name: &str, help: &str, labels: &[(&str, &str)]) {
        if let Ok(counter) = self.registry.counter(self.owner, name, help, labels) {
            counter.increment();
        }
    }
}

/// What is counted for a route.
#[derive(Debug)]
pub(crate) struct RouteFigures {
    classes: [Counter; 5],
    seconds: Option<Histogram>,
}

impl RouteFigures {
    pub(crate) fn record(&self, status: StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.increment();
        }
        if let Some(histogram) = &self.seconds {
            histogram.observe(seconds);
        }
    }
}

/// The phases in which an exchange calls a filter, in the order of their counters.
const CALLED: [Phase; 7] = [
    Phase::RequestHead,
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseHead,
    Phase::ResponseBody,
    Phase::ResponseTrailers,
    Phase::Log,
];

/// One call in so many is timed: two looks at the clock would cost as much as a small call.
const TIMED: u64 = 16;

/// Bounds for the time of a call, in seconds: from half a microsecond to one second.
const CALL_SECONDS: [f64; 14] = [
    0.000_000_5,
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_5,
    0.001,
    0.005,
    0.02,
    0.1,
    1.0,
];

/// What is counted for a filter.
#[derive(Debug)]
pub(crate) struct FilterFigures {
    calls: [Counter; CALLED.len()],
    /// Request, response.
    bytes: [Counter; 2],
    seconds: Option<Histogram>,
    pub(crate) answers: Counter,
    pub(crate) skipped: Counter,
}

/// The clock of a call, if it runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Began {
    at: Option<Instant>,
    /// Whether the call is one of those for the histogram.
    sampled: bool,
}

impl FilterFigures {
    /// Counts a call that begins. `timed` says that somebody wants to know how long it takes, whatever the figures want.
    pub(crate) fn begin(&self, phase: Phase, timed: bool) -> Began {
        let index = match phase {
            Phase::RequestHead | Phase::Configure => 0,
            Phase::RequestBody => 1,
            Phase::RequestTrailers => 2,
            Phase::ResponseHead => 3,
            Phase::ResponseBody => 4,
            Phase::ResponseTrailers => 5,
            Phase::Log => 6,
        };
        let Some(counter) = self.calls.get(index) else {
            return Began::default();
        };
        let sampled = counter.get().is_multiple_of(TIMED);
        counter.increment();
        Began {
            at: (sampled || timed).then(Instant::now),
            sampled,
        }
    }

    /// How long a call took that ended, if that is known.
    pub(crate) fn end(&self, began: Began) -> Option<Duration> {
        let took = began.at?.elapsed();
        if began.sampled
            && let Some(seconds) = &self.seconds
        {
            seconds.observe(took.as_secs_f64());
        }
        Some(took)
    }

    /// Counts what of a body a filter was called for.
    pub(crate) fn saw(&self, phase: Phase, bytes: usize) {
        let [request, response] = &self.bytes;
        let counter = if phase == Phase::RequestBody {
            request
        } else {
            response
        };
        counter.add(bytes as u64);
    }
}

/// Lines on one thing's failures: so many a second, and then how many were left out.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    since: Cell<Option<Instant>>,
    written: Cell<u32>,
    suppressed: Cell<u64>,
}

impl Lines {
    /// So many a second.
    const MOST: u32 = 5;

    /// Whether one more line may be written, and how many were not since the last one.
    pub(crate) fn next(&self) -> Option<u64> {
        let now = Instant::now();
        let fresh = self
            .since
            .get()
            .is_none_or(|since| now - since >= Duration::from_secs(1));
        if fresh {
            self.since.set(Some(now));
            self.written.set(0);
        }
        if self.written.get() == Self::MOST {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.suppressed.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_told_in_few() {
        let lines = Lines::default();
        let written = (0..100).filter(|_| lines.next().is_some()).count();
        assert_eq!(written, Lines::MOST as usize);
        lines
            .since
            .set(Instant::now().checked_sub(Duration::from_secs(2)));
        assert_eq!(lines.next(), Some(95));
        assert_eq!(lines.next(), Some(0));
    }

    #[test]
    fn of_each_phase_the_first_call_is_timed_and_then_one_in_sixteen() {
        let figures = WorkerFigures::new(Arc::new(Registry::new()), 0).filter("a");
        for phase in CALLED {
            let timed = |_: &u64| figures.begin(phase, false).at.is_some();
            assert_eq!((0..32).filter(timed).collect::<Vec<_>>(), [0, 16]);
        }
        let began = figures.begin(Phase::Log, true);
        assert!(figures.end(began).is_some());
    }
}
