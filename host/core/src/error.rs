//! What can go wrong with a filter, said once for every way of running one. Chooses no status and writes no
//! log line: the gateway does both.

use std::fmt;
use std::sync::Arc;

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
    /// The guest trapped: unreachable code, a bad access, a division by zero.
    #[error("it trapped: {0}")]
    Trap(String),
    /// The guest went over one of its limits.
    #[error("{0}")]
    Over(Overrun),
    /// The guest broke the contract, for instance by answering without an answer.
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// No instance could be made.
    #[error("it could not be instantiated: {0}")]
    Instantiate(String),
    /// The guest refused its configuration, in its own words.
    #[error("it refused its configuration: {0}")]
    Refused(String),
}

impl Fault {
    /// The kind's short name, for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Fault::Trap(_) => "trap",
            Fault::Over(over) => over.limit.kind(),
            Fault::Contract(_) => "contract",
            Fault::Instantiate(_) => "instantiate",
            Fault::Refused(_) => "refused",
        }
    }

    /// The limit that was gone over, if it was one.
    pub const fn overrun(&self) -> Option<&Overrun> {
        match self {
            Fault::Over(over) => Some(over),
            _ => None,
        }
    }
}

/// A limit that was gone over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// Which one.
    pub limit: Limit,
    /// What it is set to, in the limit's unit.
    pub bound: u64,
    /// What the guest had used, or wanted, when it was stopped; in the same unit.
    pub value: u64,
    /// How it ended, where that is not the limit's own doing: a guest whose memory can't grow traps on its own.
    pub trap: String,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overrun {
            limit,
            bound,
            value,
            trap,
        } = self;
        match limit.unit() {
            Unit::Time => write!(
                f,
                "it went over its limit `{limit}` of {}: it ran for {}",
                Millis(*bound),
                Millis(*value)
            )?,
            Unit::Bytes => write!(
                f,
                "it went over its limit `{limit}` of {bound} bytes: it wanted {value}"
            )?,
            Unit::Count => write!(
                f,
                "it went over its limit `{limit}` of {bound}: it wanted {value}"
            )?,
        }
        if !trap.is_empty() {
            write!(f, "; then it trapped: {trap}")?;
        }
        Ok(())
    }
}

/// Microseconds, shown as milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        match rest {
            0 => write!(f, "{whole} ms"),
            _ => write!(f, "{whole}.{rest:03} ms"),
        }
    }
}

/// What is bounded for each filter. [`Limit::name`] is its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Processor time of a call.
    Time,
    /// Time of a call by the clock.
    WallTime,
    /// Processor time of instantiation and `configure`.
    ConfigureTime,
    /// Time of instantiation and `configure` by the clock.
    ConfigureWallTime,
    /// Linear memory of an instance.
    Memory,
    /// Elements of an instance's tables.
    Table,
    /// Stack of a call.
    Stack,
    /// Bytes of a body that are collected for the filter or made by it in one go.
    Body,
    /// Instances of a worker, or of the process.
    Instances,
    /// HTTP calls of one exchange.
    Calls,
    /// HTTP calls that wait at the same time.
    CallsAtOnce,
    /// Lines a second.
    LogRate,
    /// Series of the filter's own figures.
    Series,
    /// Bytes in a namespace of the store.
    Store,
}

/// What a limit is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

impl Limit {
    /// All limits.
    pub const ALL: [Limit; 14] = [
        Limit::Time,
        Limit::WallTime,
        Limit::ConfigureTime,
        Limit::ConfigureWallTime,
        Limit::Memory,
        Limit::Table,
        Limit::Stack,
        Limit::Body,
        Limit::Instances,
        Limit::Calls,
        Limit::CallsAtOnce,
        Limit::LogRate,
        Limit::Series,
        Limit::Store,
    ];

    /// Its name: in the configuration, the log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Time => "time",
            Limit::WallTime => "wall-time",
            Limit::ConfigureTime => "configure-time",
            Limit::ConfigureWallTime => "configure-wall-time",
            Limit::Memory => "memory",
            Limit::Table => "table",
            Limit::Stack => "stack",
            Limit::Body => "body",
            Limit::Instances => "instances",
            Limit::Calls => "calls",
            Limit::CallsAtOnce => "calls-at-once",
            Limit::LogRate => "log-rate",
            Limit::Series => "series",
            Limit::Store => "store",
        }
    }

    /// What it is counted in.
    pub const fn unit(self) -> Unit {
        match self {
            Limit::Time | Limit::WallTime | Limit::ConfigureTime | Limit::ConfigureWallTime => {
                Unit::Time
            }
            Limit::Memory | Limit::Stack | Limit::Body | Limit::Store => Unit::Bytes,
            Limit::Table
            | Limit::Instances
            | Limit::Calls
            | Limit::CallsAtOnce
            | Limit::LogRate
            | Limit::Series => Unit::Count,
        }
    }

    /// The short name of the fault that going over it is, for metrics.
    const fn kind(self) -> &'static str {
        match self {
            Limit::Time | Limit::WallTime | Limit::ConfigureTime | Limit::ConfigureWallTime => {
                "timeout"
            }
            Limit::Instances => "exhausted",
            other => other.name(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_says_limit_and_value_in_its_unit() {
        let over = |limit, bound, value, trap: &str| {
            let trap = trap.to_owned();
            let over = Overrun {
                limit,
                bound,
                value,
                trap,
            };
            Fault::Over(over).to_string()
        };
        assert_eq!(
            over(Limit::Time, 20_000, 21_003, ""),
            "it went over its limit `time` of 20 ms: it ran for 21.003 ms"
        );
        assert_eq!(
            over(Limit::Memory, 65_536, 131_072, "unreachable in `f`"),
            "it went over its limit `memory` of 65536 bytes: it wanted 131072; then it trapped: unreachable in `f`"
        );
        assert_eq!(
            over(Limit::Instances, 2, 3, ""),
            "it went over its limit `instances` of 2: it wanted 3"
        );
    }
}
