//! A host for tests: one exchange at a time, a clock that stands still, and everything in plain sight. It follows the real
//! host's rules on what may be changed when, so that a test that passes here means something there.

pub(crate) mod calls;
mod exchange;
mod fields;
pub(crate) mod limiter;
mod path;
pub(crate) mod services;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

pub(crate) use exchange::Exchange;
pub(crate) use fields::Fields;

use crate::services::http::{Call, CallError, CallResponse};
use crate::services::limiter::Place;
use crate::services::log::Level;

thread_local! {
    /// The host that the filter's functions reach on this thread.
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// The exchange at hand, and everything outside of it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) exchange: Exchange,
    pub(crate) monotonic: u64,
    pub(crate) wall: u64,
    pub(crate) random: u64,
    /// Value and time of expiry, by namespace and key.
    pub(crate) store: HashMap<(String, String), (Vec<u8>, u64)>,
    /// Namespaces of the store that are not granted.
    pub(crate) refused: Vec<String>,
    pub(crate) store_down: bool,
    pub(crate) limiter_down: bool,
    /// What is missing from each bucket, by place and key.
    pub(crate) buckets: HashMap<(Place, String), limiter::Held>,
    pub(crate) entered: Vec<limiter::Entered>,
    /// The id of the exchange at hand.
    pub(crate) current: u64,
    pub(crate) env: BTreeMap<String, String>,
    /// What upstreams will say; one without an entry is not granted.
    pub(crate) replies: HashMap<String, VecDeque<Result<CallResponse, CallError>>>,
    pub(crate) calls: Vec<(String, Call)>,
    pub(crate) lines: Vec<(Level, String)>,
    pub(crate) figures: Vec<Figure>,
}

/// A figure that the filter defined.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// `,label=value` for each.
    pub(crate) labels: String,
    /// Of a histogram the sum.
    pub(crate) value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            exchange: Exchange::default(),
            monotonic: 1_000_000_000,
            // 2026-01-01T00:00:00Z.
            wall: 1_767_225_600_000_000_000,
            random: 0,
            store: HashMap::new(),
            refused: Vec::new(),
            store_down: false,
            limiter_down: false,
            buckets: HashMap::new(),
            entered: Vec::new(),
            current: 0,
            env: BTreeMap::new(),
            replies: HashMap::new(),
            calls: Vec::new(),
            lines: Vec::new(),
            figures: Vec::new(),
        }
    }
}

/// Acts on this thread's host.
pub(crate) fn with<T>(act: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| act(&mut host.borrow_mut()))
}

/// Makes `host` this thread's host while something runs.
pub(crate) fn inside<T>(host: &RefCell<Host>, run: impl FnOnce() -> T) -> T {
    /// Changes back also when a test's assertion fails in between.
    struct Exchanged<'a>(&'a RefCell<Host>);
    impl Drop for Exchanged<'_> {
        fn drop(&mut self) {
            HOST.with(|current| current.swap(self.0));
        }
    }
    HOST.with(|current| current.swap(host));
    let _back = Exchanged(host);
    run()
}
