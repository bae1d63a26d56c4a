//! Time, as one trait that tests can replace. The only file that reads the machine's clocks for the rest.

use std::cell::Cell;
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

/// How often [`turn`] gives the same answer before it looks again, so that a loop that never rests still sees time pass.
const READS: u32 = 32;

thread_local! {
    /// What this thread's clock showed when it was last looked at, and for how many reads that is good enough. None on a
    /// thread whose loop does not call [`next_turn`].
    static TURN: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// The time, as it was in this turn of the thread's event loop: what happens in one turn happens at once, and the clock
/// is not read for each part of it. Late by some microseconds at most, or by as long as a turn is held up. On threads
/// whose loop does not call [`next_turn`], the exact time.
pub fn turn() -> Instant {
    TURN.with(|turn| match turn.get() {
        None => Instant::now(),
        Some((now, left)) if left > 0 => {
            turn.set(Some((now, left - 1)));
            now
        }
        Some(_) => {
            let now = Instant::now();
            turn.set(Some((now, READS)));
            now
        }
    })
}

/// To be called by a thread's event loop whenever it has waited: the next [`turn`] looks at the clock.
pub fn next_turn() {
    TURN.with(|turn| {
        let (now, _) = turn.get().unwrap_or_else(|| (Instant::now(), 0));
        turn.set(Some((now, 0)));
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_one_time_but_not_for_ever() {
        std::thread::spawn(|| {
            let exact = turn();
            while turn() == exact {}
            next_turn();
            let first = turn();
            assert!(first >= exact);
            while Instant::now() == first {}
            assert!((0..READS).all(|_| turn() == first));
            assert!(turn() > first);
            next_turn();
            let second = turn();
            while Instant::now() == second {}
            next_turn();
            assert!(turn() > second);
        })
        .join()
        .unwrap();
    }
}
