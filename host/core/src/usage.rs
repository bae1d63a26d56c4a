//! What a filter's instances hold and have used: plain numbers that whoever runs guests gives out and whoever shows them
//! reads. Counts nothing itself.

use std::time::Duration;

use crate::error::Limit;

/// How exchanges share a filter's instances. The order is from the laxest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isolation {
    /// One instance of a worker serves all of its exchanges.
    #[default]
    Shared,
    /// An instance serves one exchange at a time, then another.
    Exclusive,
    /// An instance serves one exchange and no other.
    Fresh,
}

impl Isolation {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Isolation::Shared => "shared",
            Isolation::Exclusive => "exclusive",
            Isolation::Fresh => "fresh",
        }
    }
}

/// Why an instance is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Its exchange is over, and it was for that one alone.
    Spent,
    /// It holds so much memory that a new one is better.
    Recycled,
    /// Its last call failed.
    Failed,
    /// Its last call was given up before its end.
    Cancelled,
    /// Its filter is gone, or there are more idle instances than are kept.
    Retired,
}

impl Discard {
    /// All reasons.
    pub const ALL: [Discard; 5] = [
        Discard::Spent,
        Discard::Recycled,
        Discard::Failed,
        Discard::Cancelled,
        Discard::Retired,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::Spent => "spent",
            Discard::Recycled => "recycled",
            Discard::Failed => "failed",
            Discard::Cancelled => "cancelled",
            Discard::Retired => "retired",
        }
    }
}

/// What the instances of one loaded filter hold and have used, those of all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Instances that are alive.
    pub instances: u64,
    /// Instances that were made.
    pub created: u64,
    /// Instances that were given up, in the order of [`Discard::ALL`].
    pub discarded: [u64; Discard::ALL.len()],
    /// Bytes of linear memory that the living instances hold.
    pub memory: u64,
    /// The most bytes that they ever held together.
    pub memory_peak: u64,
    /// Processor time of all calls, estimated from every [`Usage::SAMPLED`]th.
    pub cpu: Duration,
    /// How often each limit was gone over, in the order of [`Limit::ALL`]: faults, and refusals that the guest was
    /// told of.
    pub over: [u64; Limit::ALL.len()],
}

impl Usage {
    /// One call of so many is measured for [`Usage::cpu`] and for `tidegate_filter_cpu_seconds`. A prime, so that a
    /// chain whose calls come in the same order again and again is measured in all of its places.
    pub const SAMPLED: u32 = 61;

    /// Instances that were given up for a reason.
    pub fn discarded(&self, why: Discard) -> u64 {
        let at = Discard::ALL.iter().position(|known| *known == why);
        at.and_then(|at| self.discarded.get(at))
            .copied()
            .unwrap_or_default()
    }

    /// How often a limit was gone over.
    pub fn over(&self, limit: Limit) -> u64 {
        let at = Limit::ALL.iter().position(|known| *known == limit);
        at.and_then(|at| self.over.get(at))
            .copied()
            .unwrap_or_default()
    }
}
