//! When to look at files again after something was heard of them: soon, but not while one is being written or replaced.
//! Pure: it reads no file, and time is an argument.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From the first sign of a change to the look at it, so that what belongs together is seen together.
const SETTLE: Duration = Duration::from_millis(15);
/// How long a file that is being written must rest to count as whole, if nobody says that it was closed.
const QUIET: Duration = Duration::from_millis(500);
/// How long a file that went away may take to come back.
const RETURN: Duration = Duration::from_millis(120);
/// The longest that files that never rest can hold up a look.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much looking may be done at a stretch.
const EFFORT: Duration = Duration::from_secs(1);
/// The part of a core that looking may take in the long run: one in so many.
const SHARE: u32 = 2;

/// What was heard of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It was made or written to; more may follow.
    Writing,
    /// It was closed after writing, or put in place whole.
    Done,
    /// It went away.
    Gone,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// One among many: while it is written, the others are looked at without it.
    Alone,
    /// Everything depends on it: while it is written, nothing is looked at.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    sign: Sign,
    weight: Weight,
    at: Instant,
}

/// Files of which something was heard since they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    heard: HashMap<PathBuf, Heard>,
    /// When something was first heard that calls for a look.
    first: Option<Instant>,
    /// Whether something calls for a look that is no file.
    stirred: bool,
    /// Before this, no look.
    not_before: Option<Instant>,
}

/// How much looking was done lately, so that a storm of changes leaves the cores to the workers.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    spent: Duration,
    at: Option<Instant>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing was heard.
    Wait,
    /// Ask again then.
    At(Instant),
    /// Look.
    Look(Look),
}

/// How to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Files to read even if they look the same.
    pub(crate) dirty: HashSet<PathBuf>,
    /// Files to leave as they were, because they are being written.
    pub(crate) held: HashSet<PathBuf>,
}

impl Settle {
    /// Something was heard of a file.
    pub(crate) fn hear(&mut self, path: &Path, sign: Sign, weight: Weight, now: Instant) {
        self.first.get_or_insert(now);
        self.heard.insert(
            path.to_owned(),
            Heard {
                sign,
                weight,
                at: now,
            },
        );
    }

    /// A file was found changed without anything having been heard. Whoever writes it may not be done.
    pub(crate) fn find(&mut self, path: &Path, there: bool, weight: Weight, now: Instant) {
        let heard = self.heard.get(path).map(|heard| heard.sign);
        let sign = if there { Sign::Writing } else { Sign::Gone };
        // What was heard to be done is looked at anyway, and time does not start anew for what is gone.
        if heard == Some(Sign::Done) || heard == Some(sign) && !there {
            return;
        }
        self.hear(path, sign, weight, now);
    }

    /// Something changed that has no file of its own, such as a folder.
    pub(crate) fn stir(&mut self, now: Instant) {
        self.stirred = true;
        self.first.get_or_insert(now);
    }

    /// No look before that time.
    pub(crate) fn rest_until(&mut self, time: Instant) {
        self.not_before = Some(time);
    }

    /// What to do now. After [`Next::Look`], everything but the files that are being written is forgotten.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        self.heard.values_mut().for_each(|heard| heard.settle(now));
        let Some(first) = self.first else {
            return Next::Wait;
        };
        let due = self
            .heard
            .values()
            .filter_map(Heard::holds_up_until)
            .map(|time| time.min(first + PATIENCE))
            .chain([first + SETTLE])
            .chain(self.not_before)
            .max()
            .unwrap_or(now);
        // With nothing but files that are being written by themselves, there is nothing to see yet.
        let only_held = !self.stirred
            && !self.heard.is_empty()
            && self
                .heard
                .values()
                .all(|heard| heard.sign == Sign::Writing && heard.weight == Weight::Alone);
        if only_held {
            let rested = self.heard.values().map(|heard| heard.at + QUIET).min();
            return Next::At(rested.unwrap_or(due).max(due));
        }
        if now < due {
            return Next::At(due);
        }
        let mut look = Look::default();
        self.heard.retain(|path, heard| {
            let held = heard.sign == Sign::Writing && heard.weight == Weight::Alone;
            if held {
                look.held.insert(path.clone());
            } else {
                look.dirty.insert(path.clone());
            }
            held
        });
        self.stirred = false;
        self.first = (!self.heard.is_empty()).then_some(now);
        Next::Look(look)
    }
}

impl Effort {
    /// Counts a look that took so long, and says until when to rest; mostly not at all.
    pub(crate) fn spend(&mut self, took: Duration, now: Instant) -> Instant {
        let since = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.spent = self.spent.saturating_sub(since / SHARE) + took;
        now + self.spent.saturating_sub(EFFORT) * SHARE
    }
}

impl Heard {
    /// What has rested long enough is done.
    fn settle(&mut self, now: Instant) {
        if self.sign == Sign::Writing && now >= self.at + QUIET {
            self.sign = Sign::Done;
        }
    }

    /// Until when nothing is to be looked at.
    fn holds_up_until(&self) -> Option<Instant> {
        match (self.sign, self.weight) {
            (Sign::Gone, _) => Some(self.at + RETURN),
            (Sign::Writing, Weight::All) => Some(self.at + QUIET),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn wasm() -> &'static Path {
        Path::new("plugins/a.wasm")
    }

    fn toml() -> &'static Path {
        Path::new("tidegate.toml")
    }

    /// Lets time pass to the next look and says when it was and what to look at.
    fn look(settle: &mut Settle, mut now: Instant) -> (Instant, Look) {
        loop {
            match settle.next(now) {
                Next::Look(look) => return (now, look),
                Next::At(time) => {
                    assert!(time > now, "it asks to be asked again at once");
                    now = time;
                }
                Next::Wait => panic!("it waits for ever"),
            }
        }
    }

    #[test]
    fn a_file_that_was_closed_is_looked_at_soon_and_others_with_it() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        assert_eq!(settle.next(start), Next::Wait);
        settle.hear(wasm(), Sign::Writing, Weight::Alone, start);
        settle.hear(wasm(), Sign::Done, Weight::Alone, start + 3 * MS);
        let other = Path::new("plugins/b.wasm");
        settle.hear(other, Sign::Done, Weight::Alone, start + 10 * MS);
        let (at, look) = look(&mut settle, start + 10 * MS);
        assert!(at - start <= 20 * MS);
        assert_eq!(look.dirty.len(), 2);
        assert!(look.held.is_empty());
        assert_eq!(settle.next(at), Next::Wait);
    }

    #[test]
    fn a_file_in_ten_slices_is_looked_at_once_and_holds_nobody_up() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        let other = Path::new("plugins/b.wasm");
        let mut now = start;
        for slice in 0..10 {
            settle.hear(wasm(), Sign::Writing, Weight::Alone, now);
            if slice == 4 {
                settle.hear(other, Sign::Done, Weight::Alone, now);
                let (at, look) = look(&mut settle, now);
                assert!(at - now <= SETTLE);
                assert!(look.dirty.contains(other) && look.held.contains(wasm()));
            } else {
                assert!(matches!(settle.next(now), Next::At(_)));
            }
            now += 300 * MS;
        }
        settle.hear(wasm(), Sign::Done, Weight::Alone, now);
        let (at, look) = look(&mut settle, now);
        assert!(at - now <= SETTLE);
        assert!(look.dirty.contains(wasm()) && look.held.is_empty());
    }

    #[test]
    fn a_file_that_nobody_closes_is_looked_at_when_it_rests() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.hear(wasm(), Sign::Writing, Weight::Alone, start);
        let (at, look) = look(&mut settle, start);
        assert_eq!(at - start, QUIET);
        assert!(look.dirty.contains(wasm()));
    }

    #[test]
    fn half_a_configuration_is_not_read() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.hear(toml(), Sign::Writing, Weight::All, start);
        settle.hear(wasm(), Sign::Done, Weight::Alone, start + MS);
        assert_eq!(settle.next(start + 100 * MS), Next::At(start + QUIET));
        settle.hear(toml(), Sign::Done, Weight::All, start + 101 * MS);
        assert!(matches!(settle.next(start + 101 * MS), Next::Look(_)));
    }

    #[test]
    fn who_never_stops_writing_holds_up_the_rest_for_a_while_only() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.hear(wasm(), Sign::Done, Weight::Alone, start);
        let mut now = start;
        let at = loop {
            settle.hear(toml(), Sign::Writing, Weight::All, now);
            if let Next::Look(_) = settle.next(now) {
                break now;
            }
            now += 100 * MS;
            assert!(now < start + 2 * PATIENCE);
        };
        assert!(at - start >= PATIENCE);
    }

    #[test]
    fn a_file_that_is_deleted_and_made_anew_is_never_seen_missing() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.hear(wasm(), Sign::Gone, Weight::Alone, start);
        assert_eq!(settle.next(start + 99 * MS), Next::At(start + RETURN));
        settle.hear(wasm(), Sign::Writing, Weight::Alone, start + 100 * MS);
        settle.hear(wasm(), Sign::Done, Weight::Alone, start + 101 * MS);
        assert!(matches!(settle.next(start + 101 * MS), Next::Look(_)));
        // One that stays away is looked at in the end.
        settle.hear(wasm(), Sign::Gone, Weight::Alone, start + 200 * MS);
        let (at, _) = look(&mut settle, start + 200 * MS);
        assert_eq!(at - start, 200 * MS + RETURN);
    }

    #[test]
    fn a_storm_is_many_signs_and_few_looks() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        let (mut now, mut looks) = (start, 0);
        let mut effort = Effort::default();
        for _ in 0..100_000 {
            settle.hear(wasm(), Sign::Done, Weight::Alone, now);
            if let Next::Look(_) = settle.next(now) {
                looks += 1;
                let took = 50 * MS;
                now += took;
                settle.rest_until(effort.spend(took, now));
            }
            now += MS / 10;
        }
        // Half of the time, and what may be done at a stretch.
        let most = (now - start) / SHARE + EFFORT;
        assert!(looks * 50 * MS <= most + 50 * MS, "{looks}");
        assert!(looks >= 50, "{looks}");
        // The last sign is not lost.
        settle.hear(wasm(), Sign::Done, Weight::Alone, now);
        look(&mut settle, now);
    }

    #[test]
    fn a_single_look_is_followed_by_no_rest() {
        let (mut effort, start) = (Effort::default(), Instant::now());
        assert_eq!(effort.spend(300 * MS, start), start);
        assert_eq!(effort.spend(300 * MS, start + 300 * MS), start + 300 * MS);
        let long = effort.spend(2000 * MS, start + 3000 * MS);
        assert!(long > start + 4000 * MS);
        // After a while everything is forgotten.
        let later = start + 60_000 * MS;
        assert_eq!(effort.spend(900 * MS, later), later);
    }

    #[test]
    fn a_change_that_was_only_found_must_rest_first() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.find(wasm(), true, Weight::Alone, start);
        assert!(matches!(settle.next(start + 400 * MS), Next::At(_)));
        settle.find(wasm(), true, Weight::Alone, start + 400 * MS);
        let (at, _) = look(&mut settle, start + 400 * MS);
        assert_eq!(at - start, 400 * MS + QUIET);
        // One that was heard of is not held up by being found.
        settle.hear(wasm(), Sign::Done, Weight::Alone, at);
        settle.find(wasm(), true, Weight::Alone, at + MS);
        assert!(look(&mut settle, at + MS).0 - at <= SETTLE);
    }

    #[test]
    fn a_folder_that_changes_is_reason_enough() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.stir(start);
        let (at, look) = look(&mut settle, start);
        assert_eq!(at - start, SETTLE);
        assert_eq!(look, Look::default());
    }
}
