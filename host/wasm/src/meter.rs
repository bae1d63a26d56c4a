//! What one loaded filter's instances hold and have used, counted where it happens: at the making, growing and giving
//! up of instances, at limits, and on a sample of the calls. The calls that are not in the sample pay for one number
//! of their thread.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_core::error::Limit;
use tidegate_core::usage::{Discard, Usage};

/// The counts of all workers together.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    instances: AtomicU64,
    created: AtomicU64,
    discarded: [AtomicU64; Discard::ALL.len()],
    memory: AtomicU64,
    memory_peak: AtomicU64,
    /// Nanoseconds of the calls in the sample.
    sampled: AtomicU64,
    over: [AtomicU64; Limit::ALL.len()],
}

impl Meter {
    /// A limit was gone over.
    pub(crate) fn over(&self, limit: Limit) {
        let at = Limit::ALL.iter().position(|known| *known == limit);
        if let Some(count) = at.and_then(|at| self.over.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call of the sample took so many nanoseconds of processor time.
    pub(crate) fn sampled(&self, nanoseconds: u64) {
        self.sampled.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn count_discarded(&self, why: Discard) {
        let at = Discard::ALL.iter().position(|known| *known == why);
        if let Some(count) = at.and_then(|at| self.discarded.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let sampled = read(&self.sampled).saturating_mul(u64::from(Usage::SAMPLED));
        Usage {
            instances: read(&self.instances),
            created: read(&self.created),
            discarded: self.discarded.each_ref().map(read),
            memory: read(&self.memory),
            memory_peak: read(&self.memory_peak),
            cpu: Duration::from_nanos(sampled),
            over: self.over.each_ref().map(read),
        }
    }
}

/// Whether the call that begins on this thread is in the sample.
#[inline]
pub(crate) fn in_sample() -> bool {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    CALLS.with(|calls| {
        let left = calls.get();
        calls.set(left.checked_sub(1).unwrap_or(Usage::SAMPLED - 1));
        left == 0
    })
}

/// One instance's part in the counts, from its making to its end.
#[derive(Debug)]
pub(crate) struct Share {
    meter: Arc<Meter>,
    memory: u64,
    /// Why it is given up if that happens now.
    pub(crate) why: Discard,
}

impl Share {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        meter.instances.fetch_add(1, Ordering::Relaxed);
        meter.created.fetch_add(1, Ordering::Relaxed);
        Share {
            meter,
            memory: 0,
            why: Discard::Failed,
        }
    }

    /// The instance was put back to its beginning: it is another one now.
    pub(crate) fn renewed(&mut self) {
        self.meter.created.fetch_add(1, Ordering::Relaxed);
        self.meter.count_discarded(Discard::Spent);
    }

    /// The instance holds so many bytes more.
    pub(crate) fn grew(&mut self, bytes: u64) {
        self.memory += bytes;
        let now = self.meter.memory.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.meter.memory_peak.fetch_max(now, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.meter.instances.fetch_sub(1, Ordering::Relaxed);
        self.meter.memory.fetch_sub(self.memory, Ordering::Relaxed);
        self.meter.count_discarded(self.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_from_its_making_to_its_end() {
        let meter = Arc::new(Meter::default());
        let mut one = Share::new(Arc::clone(&meter));
        let mut two = Share::new(Arc::clone(&meter));
        one.grew(10);
        two.grew(5);
        two.why = Discard::Spent;
        drop(two);
        let usage = meter.usage();
        assert_eq!((usage.instances, usage.created), (1, 2));
        assert_eq!((usage.memory, usage.memory_peak), (10, 15));
        assert_eq!(usage.discarded(Discard::Spent), 1);
        assert_eq!(usage.discarded(Discard::Failed), 0);
    }

    #[test]
    fn one_call_of_so_many_is_in_the_sample() {
        let sampled = (0..Usage::SAMPLED * 3).filter(|_| in_sample()).count();
        assert_eq!(sampled, 3);
    }
}
