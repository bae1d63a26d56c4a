//! The figures of one worker, taken once at load so that counting is one addition. Knows no request.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tidegate_core::metrics::{Counter, Gauge, Histogram, Owner, Registry, SECONDS};

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
        let counter = |metric, help| {
            self.registry
                .counter(self.owner, metric, help, &[("filter", name)])
                .unwrap_or_default()
        };
        FilterFigures {
            calls: counter("tidegate_filter_calls_total", "Calls into a filter."),
            nanoseconds: counter(
                "tidegate_filter_nanoseconds_total",
                "Time in a filter's calls, waiting included.",
            ),
            answers: counter(
                "tidegate_filter_answers_total",
                "Answers that a filter gave.",
            ),
            skipped: counter(
                "tidegate_filter_fail_open_total",
                "Exchanges that went on without a filter that failed.",
            ),
        }
    }

    /// Counts a filter's failure by its kind.
    pub(crate) fn filter_failure(&self, filter: &str, kind: &str) {
        let labels = [("filter", filter), ("kind", kind)];
        let help = "Failed calls into a filter, by kind.";
        if let Ok(counter) =
            self.registry
                .counter(self.owner, "tidegate_filter_failures_total", help, &labels)
        {
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

/// What is counted for a filter.
#[derive(Debug)]
pub(crate) struct FilterFigures {
    calls: Counter,
    nanoseconds: Counter,
    pub(crate) answers: Counter,
    pub(crate) skipped: Counter,
}

impl FilterFigures {
    /// Counts a call. Each is timed: two looks at the clock cost less than any call.
    pub(crate) fn called(&self, took: Duration) {
        self.calls.increment();
        self.nanoseconds
            .add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}
