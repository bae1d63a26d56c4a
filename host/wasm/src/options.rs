//! What the operator decides about one filter: its configuration, what it may reach, and its bounds. Plain
//! values; reads nothing and checks nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::services::Services;

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
    /// The longest that one callback may run, waiting for HTTP calls not counted. Rounded up to a millisecond.
    pub call: Duration,
    /// The longest that instantiation and `configure` may run together.
    pub configure: Duration,
    /// The most bytes of a body that are collected for the filter.
    pub body: u32,
    /// The most instances on one worker of a filter that makes HTTP calls.
    pub instances: u32,
}

impl Default for Limits {
    /// 64 MiB, 20 ms, 2 s, 1 MiB, 256 instances.
    fn default() -> Self {
        Limits {
            memory: 64 * 1024 * 1024,
            call: Duration::from_millis(20),
            configure: Duration::from_secs(2),
            body: 1024 * 1024,
            instances: 256,
        }
    }
}
