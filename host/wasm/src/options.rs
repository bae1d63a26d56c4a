//! What the operator decides about one filter: its configuration, what it may reach, and its bounds. Plain
//! values; reads nothing and checks nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::error::Limit;
use tidegate_core::services::Services;
use tidegate_core::usage::Isolation;

use crate::time::Bounds;

/// Everything that [`Engine::load`](crate::Engine::load) needs besides the compiled file.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The filter's name in the configuration; names it in errors, logs and metrics.
    pub name: Arc<str>,
    /// Handed to the guest's `configure` as it is; empty if there is none.
    pub config: String,
    /// What the filter may reach outside of its exchange.
    pub allow: Allow,
    /// Its bounds.
    pub limits: Limits,
    /// How exchanges share its instances; none: as is best for what it is.
    pub isolation: Option<Isolation>,
    /// What all filters share.
    pub services: Services,
}

/// What a filter was granted. Empty: nothing.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// Upstreams that it may call.
    pub http: Vec<String>,
    /// Namespaces of the store that it may use.
    pub store: Vec<String>,
    /// Environment values that it may read; `None` for a name that was granted but is not set.
    pub env: BTreeMap<String, Option<String>>,
}

/// One filter's bounds. All of them are always in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance, all its memories together.
    pub memory: usize,
    /// Elements of one instance's tables, all of them together.
    pub table: u32,
    /// The most processor time that one callback may take, waiting for HTTP calls not counted.
    pub time: Duration,
    /// The most time by the clock that one callback may take, waiting not counted.
    pub wall_time: Duration,
    /// The most processor time that instantiation and `configure` may take together.
    pub configure_time: Duration,
    /// The most time by the clock that instantiation and `configure` may take together.
    pub configure_wall_time: Duration,
    /// The most bytes of a body that are collected for the filter, and that it may make in one go: a piece of a
    /// body, the body of an answer, the body of an HTTP call.
    pub body: u32,
    /// The most instances on one worker, where exchanges do not share one.
    pub instances: u32,
    /// The most HTTP calls of one exchange.
    pub calls: u32,
    /// The most HTTP calls that wait at the same time, on all workers together.
    pub calls_at_once: u32,
    /// The most lines a second that it may log, on all workers together.
    pub log_rate: u32,
    /// The most series of its own figures.
    pub series: u32,
    /// The most bytes that each of its namespaces of the store may hold.
    pub store: u64,
}

impl Limits {
    /// Bounds of a callback.
    pub(crate) const fn call(&self) -> Bounds {
        Bounds {
            processor: self.time,
            clock: self.wall_time,
            limits: (Limit::Time, Limit::WallTime),
        }
    }

    /// Bounds of an instance's beginning.
    pub(crate) const fn configure(&self) -> Bounds {
        Bounds {
            processor: self.configure_time,
            clock: self.configure_wall_time,
            limits: (Limit::ConfigureTime, Limit::ConfigureWallTime),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 64 * 1024 * 1024,
            table: 100_000,
            time: Duration::from_millis(20),
            wall_time: Duration::from_millis(200),
            configure_time: Duration::from_secs(2),
            configure_wall_time: Duration::from_secs(10),
            body: 1024 * 1024,
            instances: 256,
            calls: 100,
            calls_at_once: 1000,
            log_rate: 100,
            series: 100,
            store: 8 * 1024 * 1024,
        }
    }
}
