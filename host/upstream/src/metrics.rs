//! What is counted of an upstream: attempts, retries, failures by reason, connections. Decides nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::metrics::{Counter, Gauge, Owner, Registry};

use crate::error::SendErrorKind;

/// A response's body that ended before its end.
pub(crate) const TRUNCATED: &str = "truncated";
/// A response's body that paused for too long.
pub(crate) const IDLE: &str = "idle_timeout";

/// One worker's figures of one upstream. Made once, not for each request.
#[derive(Debug)]
pub(crate) struct Figures {
    registry: Arc<Registry>,
    owner: Owner,
    upstream: Arc<str>,
    pub(crate) attempts: Counter,
    pub(crate) retries: Counter,
    opened: Counter,
    open: Gauge,
    failures: RefCell<HashMap<&'static str, Counter>>,
}

impl Figures {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize, upstream: Arc<str>) -> Self {
        let owner = Owner::Worker(worker);
        let labels = [("upstream", &*upstream)];
        // A name that someone else has taken must not stop requests: such a figure counts unseen.
        let counter = |name: &str, help: &str| {
            let made = registry.counter(owner, name, help, &labels);
            made.unwrap_or_default()
        };
        let attempts = counter(
            "tidegate_upstream_attempts_total",
            "Attempts to get an answer from an endpoint of an upstream.",
        );
        let retries = counter(
            "tidegate_upstream_retries_total",
            "Attempts that were not a request's first.",
        );
        let opened = counter(
            "tidegate_upstream_connections_opened_total",
            "Connections that were made to an upstream.",
        );
        let open = registry.gauge(
            "tidegate_upstream_connections_open",
            "Connections to an upstream that are open, those at rest included.",
            &labels,
        );
        Figures {
            owner,
            attempts,
            retries,
            opened,
            open: open.unwrap_or_default(),
            failures: RefCell::default(),
            registry,
            upstream,
        }
    }

    /// Counts a connection that has been made, until what is returned is dropped.
    pub(crate) fn opened(&self) -> OpenConnection {
        self.opened.increment();
        self.open.add(1.0);
        OpenConnection(self.open.clone())
    }

    /// Counts an attempt that failed. A client's broken request is no failure of the upstream.
    pub(crate) fn failed(&self, kind: &SendErrorKind) {
        if !matches!(kind, SendErrorKind::RequestBody(_)) {
            self.failed_for(kind.reason());
        }
    }

    /// Counts an attempt that failed for a reason.
    pub(crate) fn failed_for(&self, reason: &'static str) {
        self.failures
            .borrow_mut()
            .entry(reason)
            .or_insert_with(|| {
                let labels = [("upstream", &*self.upstream), ("reason", reason)];
                let made = self.registry.counter(
                    self.owner,
                    "tidegate_upstream_failures_total",
                    "Attempts that failed, by reason.",
                    &labels,
                );
                made.unwrap_or_default()
            })
            .increment();
    }
}

/// A connection that is open; counted no more once it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
