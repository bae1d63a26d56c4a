//! What stands behind one instance while it runs: the exchange of the running callback, the filter's grants and
//! bounds, and the handles that save look-ups. Both carriers' stores hold it.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use send_wrapper::SendWrapper;
use tidegate_core::exchange::{Exchange, Refusal};
use tidegate_core::filter::SharedExchange;
use tidegate_core::metrics::Owner;
use tidegate_core::phase::Phase;
use tidegate_core::services::{HttpClient, Level, Services};
use wasmtime::{Memory, TypedFunc};

use super::figures::{Figures, Series};
use super::memory::Reply;
use crate::error::toml_key;
use crate::limits::Growth;
use crate::options::{Allow, Limits};

/// What does not change about a loaded filter. Shared by all of its instances on all workers.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: Arc<str>,
    pub(super) config: String,
    pub(super) allow: Allow,
    pub(super) limits: Limits,
    pub(super) services: Services,
    /// The figures that its instances have defined so far.
    pub(super) series: Mutex<HashSet<Series>>,
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
    ) -> Self {
        Facts {
            name,
            config,
            allow,
            limits,
            services,
            series: Mutex::default(),
            reported: Mutex::default(),
        }
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
    /// The worker's way out. None where nothing may be called: at load.
    pub(super) http: Option<Rc<dyn HttpClient>>,
    /// When the running call began, and how long it may run; kept where calls can wait.
    pub(super) clock: Slice,
    /// A core module's exports, looked up once.
    pub(super) memory: Option<Memory>,
    pub(super) realloc: Option<Rc<Realloc>>,
    /// Whether the guest's allocator runs. It may not call the host.
    pub(super) allocating: bool,
    pub(super) reply: Reply,
}

/// A core module's `cabi_realloc`.
pub(super) type Realloc = TypedFunc<(u32, u32, u32, u32), u32>;

/// The time that a call has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    pub(super) began: u64,
    pub(super) left: Duration,
}

impl State {
    pub(super) fn new(facts: Arc<Facts>, http: Option<Rc<dyn HttpClient>>, owner: Owner) -> Self {
        State {
            exchange: None,
            phase: Phase::Configure,
            growth: Growth::new(facts.limits.memory),
            figures: Figures::new(owner),
            http,
            clock: Slice::default(),
            memory: None,
            realloc: None,
            allocating: false,
            reply: Reply::default(),
            facts,
        }
    }

    /// Makes an exchange the current one.
    pub(super) fn enter(&mut self, phase: Phase, exchange: &SharedExchange) {
        self.phase = phase;
        self.exchange = Some(Rc::clone(exchange));
    }

    /// Ends what [`State::enter`] began.
    pub(super) fn leave(&mut self) {
        self.exchange = None;
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
