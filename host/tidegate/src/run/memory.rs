//! Memory that was freed and is still held: the allocator keeps it for the next ones, and after many connections or many
//! versions of filters that can be most of what the process has. Says when it is worth giving back, and does so.
//! Knows no connection and no filter.

use std::time::{Duration, Instant};

/// The least time between two times that memory is given back: each costs the allocator a walk over what is free.
const PAUSE: Duration = Duration::from_secs(5);
/// So many connections must have ended, out of which at least half of all, ...
const CONNECTIONS: usize = 500;

/// What happened since memory was last given back.
#[derive(Debug)]
pub(crate) struct Freed {
    /// The most connections that were open.
    most: usize,
    /// Whether something was replaced.
    replaced: bool,
    not_before: Instant,
}

impl Freed {
    /// Begins with nothing.
    pub(crate) fn new(now: Instant) -> Self {
        Freed {
            most: 0,
            replaced: false,
            not_before: now,
        }
    }

    /// Something large, such as a snapshot, was replaced and will be freed.
    pub(crate) fn replaced(&mut self) {
        self.replaced = true;
    }

    /// Whether it is time to give memory back; if so, everything is forgotten. To be asked every few seconds.
    pub(crate) fn is_due(&mut self, open: usize, now: Instant) -> bool {
        self.most = self.most.max(open);
        let ended = self.most - open;
        if now < self.not_before || !(self.replaced || ended >= CONNECTIONS.max(open)) {
            return false;
        }
        *self = Freed {
            most: open,
            replaced: false,
            not_before: now + PAUSE,
        };
        true
    }
}

/// Gives what is free back to the system, wherever it lies. Other threads that want memory wait for as long as their own
/// part is walked over: some microseconds for each free piece, so it is not for every moment.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator's own function has no safe form")]
pub(crate) fn give_back() {
    // SAFETY: `malloc_trim` takes a number by value, locks what it walks over, and gives back only what is free
    // (malloc_trim(3): MT-safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_after_many_ended_or_something_was_replaced_and_not_too_often() {
        let start = Instant::now();
        let mut freed = Freed::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!freed.is_due(0, at(0)));
        assert!(!freed.is_due(10_000, at(2)));
        assert!(!freed.is_due(5_001, at(4)), "half of them are still there");
        assert!(freed.is_due(100, at(6)));
        assert!(!freed.is_due(0, at(20)), "nothing worth it since");
        freed.replaced();
        assert!(freed.is_due(0, at(22)));
        freed.replaced();
        assert!(!freed.is_due(0, at(23)), "so soon again");
        assert!(freed.is_due(0, at(27)));
        // A few that come and go are never a reason.
        for second in 30..100 {
            let open = usize::try_from(second % 2).unwrap_or_default() * 499;
            assert!(!freed.is_due(open, at(second)));
        }
    }
}
