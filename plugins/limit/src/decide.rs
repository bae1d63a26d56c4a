//! One request against all rules: nothing is taken unless every rule that counts lets it pass. Knows no field of an
//! answer.
//!
//! The order keeps that promise. First come rules that only look (what they take is known with the response), then
//! requests in flight (the host gives those back by itself), then all buckets in one call.

use tidegate_sdk::clock;
use tidegate_sdk::limiter::{self, Bucket, Demand, Level, LimiterError, Place};

use crate::calendar::window_end;
use crate::config::{Cost, StoreFailure};
use crate::key::Facts;
use crate::quota::{Bound, Quota};
use crate::rule::Rule;

/// A rule that a request falls under, and what came of it.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The rule's number.
    pub(crate) index: usize,
    pub(crate) rule: &'a Rule,
    /// The quota's number among the rule's.
    pub(crate) number: usize,
    pub(crate) quota: &'a Quota,
    pub(crate) key: String,
    /// Where the client stands; none as long as nothing was asked, or if the store could not be.
    pub(crate) level: Option<Level>,
    ask: Ask,
}

/// What is asked of the limiter.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// A place among the requests in flight.
    Enter(u32),
    /// So many tokens of a bucket.
    Take(Bucket, u64),
    /// A look at a bucket that is charged later.
    Look(Bucket),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It goes on, after so many milliseconds.
    Pass(u32),
    /// It is over a rule.
    Limited,
    /// The store can't be reached, and nothing passes without it.
    Unavailable,
}

/// The bucket of a quota now; none if it has none.
pub(crate) fn bucket(quota: &Quota) -> Option<Bucket> {
    match &quota.bound {
        Bound::Steady(steady) => Some(steady.bucket),
        Bound::Calendar(capacity, period) => Some(Bucket::until(
            *capacity,
            window_end(clock::wall() / 1_000_000, *period),
        )),
        Bound::Concurrent(_) | Bound::Unlimited => None,
    }
}

/// What a rule asks for a request; none if it lets it pass unseen.
pub(crate) fn ask<'a>(index: usize, rule: &'a Rule, facts: &Facts<'_>) -> Option<Asked<'a>> {
    if !rule.is_for(facts.request()) {
        return None;
    }
    let number = rule.choose(facts);
    let quota = rule.quota(number)?;
    let ask = match &quota.bound {
        Bound::Unlimited => return None,
        Bound::Concurrent(limit) => Ask::Enter(*limit),
        Bound::Steady(_) | Bound::Calendar(..) => {
            let bucket = bucket(quota)?;
            match &rule.cost {
                Cost::Fixed(cost) => Ask::Take(bucket, u64::from(*cost)),
                Cost::Request(name) => {
                    let field = facts.request().get(name);
                    Ask::Take(bucket, rule.cost_of(field.as_deref(), quota))
                }
                Cost::Response(_) => Ask::Look(bucket),
            }
        }
    };
    Some(Asked {
        index,
        rule,
        number,
        quota,
        key: rule.key(quota, facts)?,
        level: None,
        ask,
    })
}

/// Asks the limiter for everything that a request needs.
pub(crate) fn decide(all: &mut [Asked<'_>], failure: StoreFailure) -> Decision {
    match run(all, failure) {
        Ok(wait) => Decision::Pass(wait),
        Err(refused) => refused,
    }
}

fn run(all: &mut [Asked<'_>], failure: StoreFailure) -> Result<u32, Decision> {
    let counts = |asked: &Asked<'_>| !asked.rule.dry_run;
    // Looks and entries first: they need no giving back.
    for asked in all.iter_mut().filter(|asked| counts(asked)) {
        if !matches!(asked.ask, Ask::Take(..)) {
            asked.go(failure)?;
        }
    }
    refuse_over(all)?;
    let mut buckets = 0;
    for asked in all.iter().filter(|asked| counts(asked)) {
        buckets += usize::from(matches!(asked.ask, Ask::Take(..)));
    }
    if buckets == 1 {
        for asked in all.iter_mut().filter(|asked| counts(asked)) {
            if matches!(asked.ask, Ask::Take(..)) {
                asked.go(failure)?;
            }
        }
    } else if buckets > 1 {
        take_together(all, failure)?;
    }
    refuse_over(all)?;
    // A dry run sees what its rules would have seen: the requests that pass.
    for asked in all.iter_mut().filter(|asked| asked.rule.dry_run) {
        let _would_fail = asked.go(StoreFailure::Open);
        if asked.level.is_some_and(|level| !level.allowed) {
            asked.rule.figures.limited.add(1);
        }
    }
    Ok(longest_wait(all))
}

/// Refuses if a rule that counts is over, and counts it.
fn refuse_over(all: &[Asked<'_>]) -> Result<(), Decision> {
    let mut over = Ok(());
    for asked in all.iter().filter(|asked| asked.is_over()) {
        asked.rule.figures.limited.add(1);
        over = Err(Decision::Limited);
    }
    over
}

/// Takes from several buckets or from none: those of this process in one call and those of the store in another. What the
/// first gave goes back if the second refuses.
fn take_together(all: &mut [Asked<'_>], failure: StoreFailure) -> Result<(), Decision> {
    let mut taken_here = false;
    for shared in [false, true] {
        let outcome = take_all(
            all,
            shared,
            if shared { Place::Shared } else { Place::Local },
        );
        let outcome = match outcome {
            Err(_) if shared => {
                for asked in all.iter().filter(|asked| asked.takes_in(shared)) {
                    asked.count_unavailable();
                }
                match failure {
                    StoreFailure::Local => take_all(all, shared, Place::Local),
                    StoreFailure::Open => Ok(true),
                    StoreFailure::Closed => {
                        give_back(all, taken_here);
                        return Err(Decision::Unavailable);
                    }
                }
            }
            outcome => outcome,
        };
        match outcome {
            Ok(true) => taken_here = true,
            // The caller finds who is over.
            Ok(false) => {
                give_back(all, shared && taken_here);
                return Ok(());
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Takes from all buckets of one place. Says whether all gave, which none at all do too.
fn take_all(all: &mut [Asked<'_>], shared: bool, place: Place) -> Result<bool, LimiterError> {
    let wanted: Vec<Demand<'_>> = all
        .iter()
        .filter(|asked| asked.takes_in(shared))
        .filter_map(|asked| match &asked.ask {
            Ask::Take(bucket, tokens) => Some(Demand::new(bucket, &asked.key, *tokens)),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(true);
    }
    let levels = limiter::take_all(place, &wanted)?;
    let allowed = levels.iter().all(|level| level.allowed);
    let asked = all.iter_mut().filter(|asked| asked.takes_in(shared));
    for (asked, level) in asked.zip(levels) {
        asked.level = Some(level);
    }
    Ok(allowed)
}

fn give_back(all: &[Asked<'_>], taken: bool) {
    for asked in all.iter().filter(|asked| taken && asked.takes_in(false)) {
        if let Ask::Take(bucket, tokens) = asked.ask {
            let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
            let _never_fails_here = bucket.charge(&asked.key, -tokens);
        }
    }
}

/// How long the request waits for the bucket that is furthest behind.
fn longest_wait(all: &[Asked<'_>]) -> u32 {
    let mut longest = 0;
    for asked in all {
        if let (Bound::Steady(steady), Some(level)) = (&asked.quota.bound, asked.level)
            && let Some(delayed) = asked.rule.figures.delayed
        {
            let wait = steady.wait(level.reset_after_ns);
            if wait > 0 {
                delayed.add(1);
                longest = longest.max(wait);
            }
        }
    }
    longest
}

impl Asked<'_> {
    /// Asks for this rule alone. Says how the request ends if the store fails and nothing passes without it.
    fn go(&mut self, failure: StoreFailure) -> Result<(), Decision> {
        let mut outcome = self.once(self.rule.shared);
        if self.rule.shared && outcome.is_err() {
            self.count_unavailable();
            match failure {
                StoreFailure::Local => outcome = self.once(false),
                StoreFailure::Open => {}
                StoreFailure::Closed => return Err(Decision::Unavailable),
            }
        }
        self.level = outcome.ok();
        Ok(())
    }

    fn once(&self, shared: bool) -> Result<Level, LimiterError> {
        let placed = |bucket: Bucket| if shared { bucket.shared() } else { bucket };
        match self.ask {
            Ask::Take(bucket, tokens) => placed(bucket).take(&self.key, tokens),
            Ask::Look(bucket) => placed(bucket).peek(&self.key, 1),
            Ask::Enter(limit) => {
                let place = if shared { Place::Shared } else { Place::Local };
                let entry = limiter::enter(&self.key, limit, place)?;
                Ok(Level {
                    allowed: entry.allowed,
                    remaining: u64::from(limit.saturating_sub(entry.in_flight)),
                    // Nobody knows when another request ends.
                    retry_after_ns: if entry.allowed { 0 } else { 1 },
                    reset_after_ns: 0,
                })
            }
        }
    }

    /// Whether it takes from a bucket of this process, or of the store, and counts.
    fn takes_in(&self, shared: bool) -> bool {
        matches!(self.ask, Ask::Take(..)) && !self.rule.dry_run && self.rule.shared == shared
    }

    /// Whether its rule refuses the request.
    pub(crate) fn is_over(&self) -> bool {
        !self.rule.dry_run && self.level.is_some_and(|level| !level.allowed)
    }

    fn count_unavailable(&self) {
        if let Some(counter) = self.rule.figures.unavailable {
            counter.add(1);
        }
    }
}

/// What is left of a quota as clients are told it: what a delay adds to the burst is not theirs.
pub(crate) fn remaining(quota: &Quota, level: Level) -> u64 {
    match &quota.bound {
        Bound::Steady(steady) => level.remaining.saturating_sub(steady.extra),
        _ => level.remaining,
    }
}

/// Nanoseconds until a quota is whole again; none if no time makes it so.
pub(crate) fn reset(quota: &Quota, level: Level) -> Option<u64> {
    match &quota.bound {
        Bound::Concurrent(_) => None,
        _ => Some(level.reset_after_ns),
    }
}
