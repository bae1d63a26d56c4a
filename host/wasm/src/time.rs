//! How long a guest may run: the thread's processor time, and the clock's, from when its call began. Reads clocks only at
//! the guests' ticks, so that a call which ends before the first one costs nothing. Knows no guest.
//!
//! Processor time is what a guest answers for: on a machine that is busy with other things a healthy guest waits for
//! its turn, and that is not its doing. The clock's bound is there because a thread that gets no processor at all must
//! not be waited for without end.

use std::time::Duration;

use tidegate_core::error::{Limit, Overrun};

/// How often the guests' clock ticks. A call that is past its bound ends at the next tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks from now to the first look at the clocks.
pub(crate) const FIRST: u64 = 1;

/// The bounds of one call, or of an instance's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) processor: Duration,
    pub(crate) clock: Duration,
    /// What the two are called.
    pub(crate) limits: (Limit, Limit),
}

/// Two clocks read at once, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The thread's processor time.
    pub(crate) processor: u64,
    /// The steady clock.
    pub(crate) clock: u64,
}

/// What a call has used of its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    bounds: Bounds,
    used: Moment,
    /// When the stretch that runs was first looked at. What lay before is less than a tick.
    since: Option<Moment>,
    /// When the first stretch began, by the clock, if that was worth reading it.
    began: Option<u64>,
}

/// What a tick leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until so many ticks have passed.
    Ticks(u64),
    /// The guest is ended.
    Over(Overrun),
}

/// The calling thread's processor time in nanoseconds; 0 where the system does not say.
#[expect(
    unsafe_code,
    reason = "the standard library has no such clock, and crates that have it bring more than that"
)]
pub(crate) fn processor() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for one `timespec`, which is all that the call writes to, and the clock is a
    // constant of the system. On failure nothing is written.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if status != 0 {
        return 0;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}

impl Allowance {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Allowance {
            bounds,
            used: Moment {
                processor: 0,
                clock: 0,
            },
            since: None,
            began: None,
        }
    }

    /// Begins anew.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.used = Moment::default();
        self.since = None;
    }

    /// As [`Allowance::begin`], for a call that may pause before the first look: what runs until then counts too.
    pub(crate) fn begin_at(&mut self, clock: u64) {
        self.begin();
        self.began = Some(clock);
    }

    /// Whether a stretch was looked at since the beginning or the last pause.
    pub(crate) const fn runs(&self) -> bool {
        self.since.is_some()
    }

    /// Looks at the clocks: whether there is time left, and when to look again.
    pub(crate) fn look(&mut self, now: Moment) -> Next {
        self.count(now);
        let Bounds {
            processor,
            clock,
            limits,
        } = self.bounds;
        let over = |limit, bound: Duration, value: u64| {
            Next::Over(Overrun {
                limit,
                bound: micros(nanos(bound)),
                value: micros(value),
                trap: String::new(),
            })
        };
        let left = nanos(processor).saturating_sub(self.used.processor);
        let left_by_clock = nanos(clock).saturating_sub(self.used.clock);
        // Ticks are not quite even: what is left of less than half of one is not worth another.
        if left <= nanos(TICK) / 2 {
            over(limits.0, processor, self.used.processor)
        } else if left_by_clock <= nanos(TICK) / 2 {
            over(limits.1, clock, self.used.clock)
        } else {
            Next::Ticks(ticks(left.min(left_by_clock)))
        }
    }

    /// Notes that the guest does not run from now on.
    pub(crate) fn pause(&mut self, now: Moment) {
        self.count(now);
        self.since = None;
    }

    /// Notes that it runs again.
    pub(crate) fn resume(&mut self, now: Moment) {
        self.since = Some(now);
    }

    fn count(&mut self, now: Moment) {
        let since = self.since.unwrap_or_else(|| match self.began.take() {
            // Without a look there was no tick, so that much processor time it was at most.
            Some(clock) => Moment {
                processor: now
                    .processor
                    .saturating_sub(nanos(TICK).min(now.clock.saturating_sub(clock))),
                clock,
            },
            None => now,
        });
        self.used.processor += now.processor.saturating_sub(since.processor);
        self.used.clock += now.clock.saturating_sub(since.clock);
        self.since = Some(now);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const fn micros(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}

/// How many ticks a time is, at least one.
fn ticks(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(nanos(TICK)).clamp(1, u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn allowance() -> Allowance {
        Allowance::new(Bounds {
            processor: Duration::from_millis(20),
            clock: Duration::from_millis(200),
            limits: (Limit::Time, Limit::WallTime),
        })
    }

    fn at(processor: u64, clock: u64) -> Moment {
        Moment { processor, clock }
    }

    fn limit(next: &Next) -> Option<(Limit, u64, u64)> {
        match next {
            Next::Over(over) => Some((over.limit, over.bound, over.value)),
            Next::Ticks(_) => None,
        }
    }

    #[test]
    fn processor_time_counts_from_the_first_look() {
        let mut call = allowance();
        assert_eq!(call.look(at(500 * MS, 9000 * MS)), Next::Ticks(20));
        // The machine was busy: 60 ms went by, 4 of them this thread's.
        assert_eq!(call.look(at(504 * MS, 9060 * MS)), Next::Ticks(16));
        let over = call.look(at(520 * MS, 9080 * MS));
        assert_eq!(limit(&over), Some((Limit::Time, 20_000, 20_000)));
    }

    #[test]
    fn a_thread_without_processor_ends_at_the_clocks_bound() {
        let mut call = allowance();
        call.look(at(0, 0));
        assert_eq!(call.look(at(MS, 195 * MS)), Next::Ticks(5));
        let over = call.look(at(MS, 201 * MS));
        assert_eq!(limit(&over), Some((Limit::WallTime, 200_000, 201_000)));
    }

    #[test]
    fn pauses_do_not_count_and_what_was_used_before_does() {
        let mut call = allowance();
        call.look(at(0, 0));
        call.pause(at(15 * MS, 20 * MS));
        call.resume(at(900 * MS, 5000 * MS));
        assert_eq!(call.look(at(901 * MS, 5001 * MS)), Next::Ticks(4));
        assert!(limit(&call.look(at(905 * MS, 5005 * MS))).is_some());
    }

    #[test]
    fn a_call_that_pauses_before_the_first_look_pays_for_its_beginning() {
        let mut call = allowance();
        call.begin_at(1000 * MS);
        call.pause(at(500 * MS, 1000 * MS + MS / 2));
        call.resume(at(500 * MS, 2000 * MS));
        assert_eq!(call.look(at(510 * MS, 2010 * MS)), Next::Ticks(10));
        // However long by the clock, it had no tick.
        call.begin_at(0);
        call.pause(at(500 * MS, 190 * MS));
        call.resume(at(500 * MS, 2000 * MS));
        assert_eq!(call.look(at(500 * MS, 2000 * MS)), Next::Ticks(10));
    }

    #[test]
    fn the_threads_processor_time_moves_when_it_works() {
        let before = processor();
        let mut sum = 0_u64;
        while processor() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(processor() > before);
    }
}
