//! What can go wrong with a filter, said once for every way of running one. Chooses no status and writes no
//! log line: the gateway does both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::phase::Phase;

/// A filter's call that did not end as the contract says.
#[derive(Clone, Debug)]
pub struct FilterError {
    /// The filter's name in the configuration.
    pub filter: Arc<str>,
    /// The callback that failed.
    pub phase: Phase,
    /// What happened.
    pub fault: Fault,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "filter `{}` failed in {}: {}",
            self.filter, self.phase, self.fault
        )
    }
}

impl std::error::Error for FilterError {}

/// How a filter's call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The guest trapped: unreachable code, a bad access, an exhausted stack.
    #[error("it trapped: {0}")]
    Trap(String),
    /// The guest ran for longer than allowed.
    #[error("it ran longer than {} ms", .limit.as_millis())]
    TimedOut {
        /// The bound for one call.
        limit: Duration,
    },
    /// The guest broke the contract, for instance by answering without an answer.
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// No instance could be made.
    #[error("it could not be instantiated: {0}")]
    Instantiate(String),
    /// The guest refused its configuration, in its own words.
    #[error("it refused its configuration: {0}")]
    Refused(String),
    /// As many instances as allowed are at work.
    #[error("all of its {limit} instances are busy")]
    Exhausted {
        /// The bound.
        limit: u32,
    },
}

impl Fault {
    /// The kind's short name, for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Fault::Trap(_) => "trap",
            Fault::TimedOut { .. } => "timeout",
            Fault::Contract(_) => "contract",
            Fault::Instantiate(_) => "instantiate",
            Fault::Refused(_) => "refused",
            Fault::Exhausted { .. } => "exhausted",
        }
    }
}
