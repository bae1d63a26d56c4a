//! What the admin pages show, made when it changes and not when it is asked for.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidegate_core::metrics::Registry;

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
    plugins: RefCell<Bytes>,
    configuration: RefCell<Bytes>,
}

impl Pages {
    /// Pages of a process that starts.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Pages {
            registry,
            phase: Cell::new(Phase::Starting),
            plugins: RefCell::new(Bytes::from_static(b"{\"plugins\":[]}\n")),
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
        self.registry.encode()
    }

    pub(crate) fn plugins(&self) -> Bytes {
        self.plugins.borrow().clone()
    }

    /// Shows these filters.
    pub(crate) fn set_plugins(&self, statuses: &[Status]) {
        self.plugins
            .replace(rendered(&json!({ "plugins": statuses })));
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
