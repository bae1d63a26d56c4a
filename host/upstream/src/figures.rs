//! What is counted of upstreams: attempts, and failures by reason. Handles are made once per upstream and worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::metrics::{Counter, Owner, Registry};

use crate::error::SendErrorKind;

const ATTEMPTS: &str = "tidegate_upstream_attempts_total";
const FAILURES: &str = "tidegate_upstream_failures_total";

/// One worker's figures of all upstreams.
#[derive(Debug)]
pub(crate) struct Figures {
    registry: Arc<Registry>,
    owner: Owner,
    upstreams: RefCell<HashMap<Arc<str>, Rc<UpstreamFigures>>>,
}

impl Figures {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Self {
        Figures {
            registry,
            owner: Owner::Worker(worker),
            upstreams: RefCell::default(),
        }
    }

    /// Those of one upstream.
    pub(crate) fn of(&self, upstream: &Arc<str>) -> Rc<UpstreamFigures> {
        if let Some(held) = self.upstreams.borrow().get(upstream) {
            return held.clone();
        }
        // A name that someone else has taken must not stop requests: such a figure counts unseen.
        let attempts = self
            .registry
            .counter(
                self.owner,
                ATTEMPTS,
                "Attempts to get an answer from an endpoint of an upstream.",
                &[("upstream", upstream)],
            )
            .unwrap_or_default();
        let made = Rc::new(UpstreamFigures {
            attempts,
            failures: RefCell::default(),
        });
        self.upstreams
            .borrow_mut()
            .insert(upstream.clone(), made.clone());
        made
    }

    /// Counts an attempt that failed.
    pub(crate) fn failed(&self, upstream: &Arc<str>, of: &UpstreamFigures, kind: &SendErrorKind) {
        let reason = kind.reason();
        of.failures
            .borrow_mut()
            .entry(reason)
            .or_insert_with(|| {
                self.registry
                    .counter(
                        self.owner,
                        FAILURES,
                        "Attempts that failed, by reason.",
                        &[("upstream", upstream), ("reason", reason)],
                    )
                    .unwrap_or_default()
            })
            .increment();
    }
}

/// One upstream's figures.
#[derive(Debug)]
pub(crate) struct UpstreamFigures {
    pub(crate) attempts: Counter,
    failures: RefCell<HashMap<&'static str, Counter>>,
}
