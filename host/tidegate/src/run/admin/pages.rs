//! What the admin pages show. What seldom changes is made when it does, figures when they are asked for.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidegate_core::metrics::Registry;

use super::figures;
use crate::config::checked::Checked;
use crate::config::view;
use crate::run::filters::Status;
use crate::run::listen::Protocols;

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
    configuration: RefCell<Bytes>,
}

impl Pages {
    /// Pages of a process that starts.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Pages {
            registry,
            phase: Cell::new(Phase::Starting),
            plugins: RefCell::default(),
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
        for status in &*self.plugins.borrow() {
            figures::publish(&self.registry, &status.name, &status.live);
        }
        self.registry.encode()
    }

    pub(crate) fn plugins(&self) -> Bytes {
        let plugins = self.plugins.borrow();
        let shown = plugins
            .iter()
            .map(|status| figures::show(&self.registry, status));
        rendered(&json!({ "plugins": shown.collect::<Vec<_>>() }))
    }

    /// Shows these filters.
    pub(crate) fn set_plugins(&self, statuses: &[Status]) {
        self.plugins.replace(statuses.to_vec());
    }

    pub(crate) fn configuration(&self) -> Bytes {
        self.configuration.borrow().clone()
    }

    /// Shows this configuration, with the addresses as they came about.
    pub(crate) fn set_configuration(
        &self,
        checked: &Checked,
        listening: &[(Protocols, SocketAddr)],
    ) {
        let mut shown = view::view(checked);
        if let Some(shown) = shown.as_object_mut() {
            let listening = listening.iter();
            let listening =
                listening.map(|(kind, address)| json!({ "kind": kind.name(), "address": address }));
            shown.insert("listening".to_owned(), listening.collect());
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
