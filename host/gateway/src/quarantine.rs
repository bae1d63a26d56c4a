//! A filter that fails again and again is taken out for a while, so that its exchanges get their answer at once and its
//! failures cost nothing. Shared by all workers: one atomic load an exchange while all is well. Time is an argument; knows no
//! policy and no exchange.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When a filter is taken out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// So many failures take it out; at least 1.
    pub failures: u32,
    /// They count when they came within this time and at least half of its exchanges failed meanwhile, or one after the
    /// other without an exchange that went well, however long it took.
    pub window: Duration,
    /// How long it is out at first. Each time that its trial fails, or it comes back soon, twice as long.
    pub first: Duration,
    /// The longest that it is out.
    pub longest: Duration,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        QuarantineSettings {
            failures: 20,
            window: Duration::from_secs(10),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// One filter's failures, on all workers.
#[derive(Debug)]
pub struct Quarantine {
    settings: QuarantineSettings,
    /// When the next trial may be made, in nanoseconds; 0 while the filter is in service.
    until: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    tallies: Vec<(usize, Arc<AtomicU64>)>,
    /// The latest failures: when, and how many exchanges there had been.
    failures: VecDeque<(u64, u64)>,
    /// How often in a row it was taken out.
    times: u32,
    /// When it was taken out and when it came back last, and why it was taken out.
    since: u64,
    back: Option<u64>,
    why: String,
}

/// Counts the exchanges of one worker. Only that worker's thread may count with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<AtomicU64>);

/// Whether an exchange may call the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// As any.
    Free,
    /// It decides whether the filter comes back.
    Trial,
    Refused,
}

/// A filter in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// When it was taken out, on the monotonic clock, in nanoseconds.
    pub since: u64,
    /// When the next trial may be made, on the same clock.
    pub until: u64,
    /// What its last failure was.
    pub why: String,
    /// How often in a row it was taken out.
    pub times: u32,
}

impl Tally {
    /// One exchange more. No read-modify-write: nobody else writes here.
    pub(crate) fn count(&self) {
        let counted = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(counted, Ordering::Relaxed);
    }
}

impl Quarantine {
    /// A filter that has not failed yet.
    pub fn new(settings: QuarantineSettings) -> Self {
        Quarantine {
            settings,
            until: AtomicU64::new(0),
            record: Mutex::default(),
        }
    }

    /// Whether the filter is in service.
    pub(crate) fn is_clear(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0
    }

    /// The tally of a worker.
    pub(crate) fn tally(&self, worker: usize) -> Tally {
        let mut record = self.record();
        if let Some((_, tally)) = record.tallies.iter().find(|(id, _)| *id == worker) {
            return Tally(Arc::clone(tally));
        }
        let tally = Tally::default();
        record.tallies.push((worker, Arc::clone(&tally.0)));
        tally
    }

    /// Decides about an exchange. One is let in at the end of each period; until it has decided, or for another period,
    /// no other one is.
    pub(crate) fn admit(&self, now: u64) -> Admission {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Admission::Free;
        }
        if now < until {
            return Admission::Refused;
        }
        let next = now.saturating_add(self.period(self.record().times, now));
        let mine = self
            .until
            .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        match mine {
            Ok(_) => Admission::Trial,
            Err(_) => Admission::Refused,
        }
    }

    /// Notes a failed exchange. Says for how long the filter is taken out, if it is now.
    pub(crate) fn failed(&self, now: u64, trial: bool, why: &str) -> Option<Duration> {
        let mut record = self.record();
        let is_clear = self.is_clear();
        if is_clear && !record.is_enough(now, &self.settings) {
            return None;
        }
        // Whatever was under way when it was taken out, or is no trial, says nothing new.
        if !is_clear && !trial {
            return None;
        }
        if is_clear {
            let soon = record
                .back
                .is_some_and(|back| now.saturating_sub(back) < nanos(self.settings.longest));
            record.times = if soon { record.times } else { 0 };
            record.since = now;
        }
        record.times = record.times.saturating_add(1);
        why.clone_into(&mut record.why);
        record.failures.clear();
        let period = self.period(record.times, now);
        // 0 would mean that it is in service.
        let until = now.saturating_add(period).max(1);
        self.until.store(until, Ordering::Relaxed);
        Some(Duration::from_nanos(period))
    }

    /// A trial went well. Says whether that brings the filter back.
    pub(crate) fn passed(&self, now: u64) -> bool {
        let mut record = self.record();
        if self.is_clear() {
            return false;
        }
        record.back = Some(now);
        record.failures.clear();
        self.until.store(0, Ordering::Relaxed);
        true
    }

    /// What there is to say of it; none: it is in service.
    pub fn state(&self) -> Option<Quarantined> {
        let record = self.record();
        let until = self.until.load(Ordering::Relaxed);
        (until != 0).then(|| Quarantined {
            since: record.since,
            until,
            why: record.why.clone(),
            times: record.times,
        })
    }

    /// How long it is out the so-manieth time: up to a tenth longer than the rule says, so that many filters, or many
    /// machines, don't try again at the same moment.
    fn period(&self, times: u32, now: u64) -> u64 {
        let doublings = times.saturating_sub(1).min(32);
        let first = nanos(self.settings.first);
        let period = first
            .saturating_mul(1 << doublings)
            .min(nanos(self.settings.longest))
            .max(1);
        let random = now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        period.saturating_add(random % (period / 10).max(1))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Notes a failure and says whether it is one too many.
    fn is_enough(&mut self, now: u64, settings: &QuarantineSettings) -> bool {
        let tallies = self.tallies.iter();
        let exchanges = tallies.fold(0u64, |sum, (_, tally)| {
            sum.wrapping_add(tally.load(Ordering::Relaxed))
        });
        self.failures.push_back((now, exchanges));
        let enough = settings.failures.max(1) as usize;
        while self.failures.len() > enough {
            self.failures.pop_front();
        }
        let Some((first, before)) = self.failures.front().copied() else {
            return false;
        };
        if self.failures.len() < enough {
            return false;
        }
        // The first failure's own exchange was counted before it.
        let between = exchanges.wrapping_sub(before).saturating_add(1);
        let failed = enough as u64;
        let soon = now.saturating_sub(first) <= nanos(settings.window);
        between <= failed || (soon && between <= failed.saturating_mul(2))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn quarantine() -> (Quarantine, Tally) {
        let quarantine = Quarantine::new(QuarantineSettings::default());
        let tally = quarantine.tally(0);
        (quarantine, tally)
    }

    /// Exchanges that fail one after the other, `step` apart. Returns when and for how long it was taken out.
    fn fail(it: &(Quarantine, Tally), from: u64, step: u64, most: u32) -> Option<(u64, Duration)> {
        for n in 0..u64::from(most) {
            it.1.count();
            let now = from + n * step;
            if let Some(period) = it.0.failed(now, false, "trap") {
                return Some((now, period));
            }
        }
        None
    }

    #[test]
    fn failures_in_a_row_take_it_out_however_slow_they_come() {
        let it = quarantine();
        assert_eq!(it.0.admit(1), Admission::Free);
        assert_eq!(fail(&it, SECOND, 100 * SECOND, 19), None);
        let (now, period) = fail(&it, 2000 * SECOND, 1, 1).unwrap();
        assert!((1000..=1100).contains(&period.as_millis()), "{period:?}");
        assert_eq!(it.0.admit(now + SECOND / 2), Admission::Refused);
        let state = it.0.state().unwrap();
        assert_eq!(
            (state.since, state.why.as_str(), state.times),
            (now, "trap", 1)
        );
    }

    #[test]
    fn one_bad_exchange_in_ten_takes_nothing_out() {
        let it = quarantine();
        for n in 0..10_000 {
            it.1.count();
            if n % 10 == 0 {
                assert_eq!(it.0.failed(SECOND + n, false, "trap"), None);
            }
        }
        // Two in three are too many, if they come fast.
        let mut out = None;
        for n in 0..60 {
            it.1.count();
            if n % 3 != 0 {
                out = out.or(it.0.failed(SECOND + n, false, "trap"));
            }
        }
        assert!(out.is_some());
        let slow = quarantine();
        for n in 0..200 {
            slow.1.count();
            if n % 3 != 0 {
                let now = (n + 1) * 10 * SECOND;
                assert_eq!(slow.0.failed(now, false, "trap"), None);
            }
        }
    }

    #[test]
    fn one_trial_a_period_and_each_is_longer() {
        let it = quarantine();
        let (mut now, mut period) = fail(&it, SECOND, 1, 20).unwrap();
        let mut seconds = Vec::new();
        for _ in 0..8 {
            let nanos = u64::try_from(period.as_nanos()).unwrap();
            assert_eq!(it.0.admit(now + nanos - 1), Admission::Refused);
            assert_eq!(it.0.admit(now + nanos), Admission::Trial);
            assert_eq!(it.0.admit(now + nanos), Admission::Refused);
            now += nanos + 5;
            // What is no trial says nothing.
            assert_eq!(it.0.failed(now, false, "trap"), None);
            period = it.0.failed(now, true, "trap").unwrap();
            seconds.push(period.as_millis() / 1000);
        }
        for (number, longer) in [2u128, 4, 8, 16, 32].into_iter().enumerate() {
            let range = longer..=longer + longer / 10;
            assert!(range.contains(&seconds[number]), "{seconds:?}");
        }
        assert!(seconds[5..].iter().all(|it| (60..=66).contains(it)));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another_one() {
        let it = quarantine();
        let (now, _) = fail(&it, SECOND, 1, 20).unwrap();
        assert_eq!(it.0.admit(now + 2 * SECOND), Admission::Trial);
        assert_eq!(it.0.admit(now + 4 * SECOND), Admission::Trial);
        assert!(it.0.passed(now + 5 * SECOND));
        assert!(!it.0.passed(now + 5 * SECOND));
        assert_eq!(it.0.admit(now + 5 * SECOND), Admission::Free);
        assert_eq!(it.0.state(), None);
        // Soon again: longer. Much later: as at first.
        let (_, period) = fail(&it, now + 6 * SECOND, 1, 20).unwrap();
        assert_eq!(period.as_millis() / 1000, 2);
        assert!(it.0.passed(now + 10 * SECOND));
        let (_, period) = fail(&it, now + 100 * SECOND, 1, 20).unwrap();
        assert_eq!(period.as_millis() / 1000, 1);
    }

    #[test]
    fn the_tallies_of_all_workers_count() {
        let (it, tally) = quarantine();
        let other = it.tally(1);
        for n in 0..40 {
            tally.count();
            other.count();
            other.count();
            assert_eq!(it.failed(SECOND + n, false, "trap"), None);
        }
        assert!(Arc::ptr_eq(&it.tally(1).0, &other.0));
    }
}
