//! What the admin pages show. What seldom changes is made when it does, figures when they are asked for.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tidegate_core::metrics::Registry;
use tidegate_gateway::Snapshot;

use super::figures::{self, Published};
use crate::config::checked::Checked;
use crate::config::view;
use crate::run::filters::Status;
use crate::run::listen::Protocols;
use crate::run::standing::Standing;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not everything is up.
    Starting,
    /// Requests are served.
    Ready,
    /// It is about to end.
    Draining,
}

/// The pages.
#[derive(Debug)]
pub(crate) struct Pages {
    registry: Arc<Registry>,
    phase: Cell<Phase>,
    plugins: RefCell<Vec<Status>>,
    published: RefCell<Published>,
    /// From the oldest to the one in force.
    snapshots: RefCell<Vec<(Timestamp, Weak<Snapshot>)>>,
    configuration: RefCell<Bytes>,
}

impl Pages {
    /// Pages of a process that starts.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Pages {
            registry,
            phase: Cell::new(Phase::Starting),
            plugins: RefCell::default(),
            published: RefCell::default(),
            snapshots: RefCell::default(),
            configuration: RefCell::new(Bytes::from_static(b"{}\n")),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub(crate) fn metrics(&self) -> String {
        let mut published = self.published.borrow_mut();
        published.publish(&self.registry, &self.plugins.borrow());
        self.registry.encode()
    }

    pub(crate) fn plugins(&self) -> Bytes {
        let plugins = self.plugins.borrow();
        let shown = plugins
            .iter()
            .map(|status| figures::show(&self.registry, status));
        let mut snapshots = self.snapshots.borrow_mut();
        snapshots.retain(|(_, snapshot)| snapshot.strong_count() > 0);
        let held = snapshots.iter().map(|(since, snapshot)| {
            // One is the control thread's, if it is in force; each other one is a worker's, with the exchanges that
            // began with it.
            json!({ "since": since.to_string(), "holders": snapshot.strong_count() })
        });
        rendered(&json!({
            "plugins": shown.collect::<Vec<_>>(),
            "snapshots": held.collect::<Vec<_>>(),
        }))
    }

    /// Shows a snapshot that came into force, as long as somebody holds it.
    pub(crate) fn hold(&self, snapshot: &Arc<Snapshot>) {
        let mut snapshots = self.snapshots.borrow_mut();
        // Nobody may ever look, and what is remembered of a snapshot keeps its place in memory.
        snapshots.retain(|(_, snapshot)| snapshot.strong_count() > 0);
        snapshots.push((Timestamp::now(), Arc::downgrade(snapshot)));
    }

    /// Shows these filters.
    pub(crate) fn set_plugins(&self, statuses: &[Status]) {
        self.plugins.replace(statuses.to_vec());
    }

    pub(crate) fn configuration(&self) -> Bytes {
        self.configuration.borrow().clone()
    }

    /// Shows this configuration, with the addresses as they came about, and whether the files still say this.
    pub(crate) fn set_configuration(
        &self,
        checked: &Checked,
        listening: &[(Protocols, SocketAddr)],
        standing: &Standing,
    ) {
        let mut shown = view::view(checked);
        if let Some(shown) = shown.as_object_mut() {
            let listening = listening.iter();
            let listening =
                listening.map(|(kind, address)| json!({ "kind": kind.name(), "address": address }));
            shown.insert("listening".to_owned(), listening.collect());
            shown.insert("reload".to_owned(), json!(standing));
        }
        self.configuration.replace(rendered(&shown));
    }
}

fn rendered(value: &serde_json::Value) -> Bytes {
    // Values that were just made can always be written.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_snapshots_that_are_gone_nothing_is_kept() {
        let pages = Pages::new(Arc::default());
        let first = Arc::new(Snapshot::default());
        pages.hold(&first);
        for _ in 0..100 {
            pages.hold(&Arc::new(Snapshot::default()));
        }
        assert!(pages.snapshots.borrow().len() <= 2);
        assert!(pages.snapshots.borrow()[0].1.upgrade().is_some());
    }
}
