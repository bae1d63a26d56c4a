//! Time, as one trait that tests can replace. The only file that reads the machine's clocks for the rest.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks: one that never goes back, and the one on the wall.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since an arbitrary start, never backwards.
    fn monotonic(&self) -> u64;
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    fn wall(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        nanos(START.get_or_init(Instant::now).elapsed())
    }

    fn wall(&self) -> u64 {
        nanos(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that shows the given time on both faces.
    pub fn at(nanos: u64) -> Self {
        ManualClock {
            nanos: AtomicU64::new(nanos),
        }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(nanos(by), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
