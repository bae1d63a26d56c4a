//! Token buckets as one number each: the time at which the bucket will be full again (the generic cell rate algorithm). Exact
//! across workers, since each decision is taken under its part's lock.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::clock::Clock;
use tidegate_core::services::{Limiter, Verdict};

use super::Sharded;

const SHARDS: usize = 64;
/// Buckets that all parts hold together, unless told otherwise; about 150 bytes each.
const MAX_BUCKETS: usize = 1024 * 1024;

/// All token buckets of the process. A bucket that is full again is the same as one that was never there, so those are thrown
/// out first. If too many are not full, those that are nearest to it go: a bucket that somebody has emptied is the last that
/// the making of others could bring back to life.
#[derive(Debug)]
pub struct TokenBuckets {
    clock: Arc<dyn Clock>,
    shards: Sharded<Shard>,
    /// Buckets that one part may hold.
    bound: usize,
}

/// When a space's buckets are full again, in nanoseconds of the clock.
type Space = HashMap<Box<str>, u64>;

#[derive(Debug, Default)]
struct Shard {
    spaces: HashMap<Box<str>, Space>,
    buckets: usize,
}

impl TokenBuckets {
    /// No buckets yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::bounded(clock, MAX_BUCKETS)
    }

    /// No buckets yet, and never more than so many.
    pub fn bounded(clock: Arc<dyn Clock>, buckets: usize) -> Self {
        TokenBuckets {
            clock,
            shards: Sharded::new(SHARDS),
            bound: buckets.div_ceil(SHARDS).max(1),
        }
    }
}

impl Limiter for TokenBuckets {
    fn take(&self, space: &str, key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
        let never = Verdict {
            allowed: false,
            remaining: 0,
            retry_after: u64::MAX,
            reset_after: 0,
        };
        if !(rate.is_finite() && rate > 0.0) || burst == 0 {
            return never;
        }
        let Some(mut shard) = self.shards.lock(space, key) else {
            return never;
        };
        let now = self.clock.monotonic();
        let held = shard.spaces.get_mut(space).and_then(|it| it.get_mut(key));
        let full_at = held.as_deref().copied().unwrap_or(0);
        let (verdict, full_at) = decide(now, full_at, tokens, rate, burst);
        if !verdict.allowed || tokens == 0 {
            return verdict;
        }
        match held {
            Some(held) => *held = full_at,
            None => shard.insert(space, key, full_at, now, self.bound),
        }
        verdict
    }
}

impl Shard {
    fn insert(&mut self, space: &str, key: &str, full_at: u64, now: u64, bound: usize) {
        if self.buckets >= bound {
            self.make_room(now, bound);
        }
        if !self.spaces.contains_key(space) {
            self.spaces.insert(Box::from(space), Space::new());
        }
        if let Some(buckets) = self.spaces.get_mut(space) {
            buckets.insert(Box::from(key), full_at);
            self.buckets += 1;
        }
    }

    /// Throws out what is full, and if that is less than a tenth, the tenth that is nearest to it: looking through all of
    /// them is seldom.
    fn make_room(&mut self, now: u64, bound: usize) {
        self.retain(|full_at| full_at > now);
        let keep = bound - bound.div_ceil(10);
        if self.buckets <= keep {
            return;
        }
        let mut times: Vec<u64> = self
            .spaces
            .values()
            .flat_map(|it| it.values())
            .copied()
            .collect();
        let surplus = times.len() - keep;
        let (_, last_to_go, _) = times.select_nth_unstable(surplus - 1);
        let last_to_go = *last_to_go;
        // Of those that are equally near, as many as needed.
        let mut left = surplus;
        self.retain(|full_at| {
            let goes = full_at <= last_to_go && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }

    fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.spaces.retain(|_, buckets| {
            buckets.retain(|_, full_at| keep(*full_at));
            !buckets.is_empty()
        });
        self.buckets = self.spaces.values().map(HashMap::len).sum();
    }
}

/// One decision: what is said, and when the bucket is full again if it is taken.
fn decide(now: u64, full_at: u64, tokens: u32, rate: f64, burst: u32) -> (Verdict, u64) {
    let nanos_per_token = 1e9 / rate;
    let whole = nanos(nanos_per_token * f64::from(burst));
    let cost = nanos(nanos_per_token * f64::from(tokens));
    let missing = full_at.saturating_sub(now);
    let after = missing.saturating_add(cost);
    if tokens <= burst && after <= whole {
        let verdict = Verdict {
            allowed: true,
            remaining: tokens_in(whole - after, nanos_per_token),
            retry_after: 0,
            reset_after: after,
        };
        return (verdict, now.saturating_add(after));
    }
    let retry_after = if tokens > burst {
        u64::MAX
    } else {
        after.saturating_sub(whole).max(1)
    };
    let verdict = Verdict {
        allowed: false,
        remaining: tokens_in(whole.saturating_sub(missing), nanos_per_token),
        retry_after,
        reset_after: missing,
    };
    (verdict, full_at)
}

/// Whole tokens; a millionth of one is lost to rounding and given back.
fn tokens_in(time: u64, nanos_per_token: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates, and is bounded by burst"
    )]
    let tokens = (time as f64 / nanos_per_token + 1e-6) as u32;
    tokens
}

fn nanos(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float-to-integer cast saturates; the value is not negative"
    )]
    let nanos = value.round() as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_core::clock::ManualClock;

    fn buckets() -> (Arc<ManualClock>, TokenBuckets) {
        let clock = Arc::new(ManualClock::at(1_000_000_000));
        (Arc::clone(&clock), TokenBuckets::new(clock))
    }

    /// A sequence without an end that looks like chance.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn ten_a_second_with_a_burst_of_five() {
        let (clock, buckets) = buckets();
        let take = || buckets.take("f", "k", 1, 10.0, 5);
        for left in (0..5).rev() {
            let verdict = take();
            assert!(verdict.allowed);
            assert_eq!(verdict.remaining, left);
        }
        let refused = take();
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after, 100_000_000);
        assert_eq!(refused.reset_after, 500_000_000);
        clock.advance(Duration::from_millis(100));
        assert!(take().allowed);
        assert!(!take().allowed);
        clock.advance(Duration::from_secs(1_000_000_000));
        for _ in 0..5 {
            assert!(take().allowed);
        }
        assert!(!take().allowed);
    }

    #[test]
    fn waiting_as_told_is_enough_for_any_rate_and_less_is_not() {
        for rate in [1.0 / 86_400.0, 0.3, 1.0, 3.0, 7.0, 333.3, 1e6] {
            let (clock, buckets) = buckets();
            while buckets.take("f", "k", 1, rate, 3).allowed {}
            let wait = buckets.take("f", "k", 1, rate, 3).retry_after;
            clock.advance(Duration::from_nanos(wait - 1));
            assert!(!buckets.take("f", "k", 1, rate, 3).allowed, "{rate}");
            clock.advance(Duration::from_nanos(1));
            assert!(buckets.take("f", "k", 1, rate, 3).allowed, "{rate}");
        }
    }

    #[test]
    fn what_can_never_be_allowed_is_refused_for_ever() {
        let (_, buckets) = buckets();
        for (tokens, rate, burst) in [
            (1, 0.0, 5),
            (1, -1.0, 5),
            (1, f64::NAN, 5),
            (1, f64::INFINITY, 5),
            (1, 1.0, 0),
            (6, 1.0, 5),
        ] {
            let verdict = buckets.take("f", "k", tokens, rate, burst);
            assert_eq!((verdict.allowed, verdict.retry_after), (false, u64::MAX));
        }
    }

    #[test]
    fn spaces_and_keys_are_apart() {
        let (_, buckets) = buckets();
        for (space, key) in [("f", "k"), ("g", "k"), ("f", "l"), ("fk", "")] {
            assert!(buckets.take(space, key, 1, 1.0, 1).allowed);
            assert!(!buckets.take(space, key, 1, 1.0, 1).allowed);
        }
    }

    #[test]
    fn any_run_agrees_with_a_simple_model() {
        // Steps that are whole eighths of a token keep the model exact.
        for seed in 0..20 {
            let mut chance = Chance(seed);
            let (clock, buckets) = buckets();
            let burst = 1 + u32::try_from(chance.below(6)).unwrap();
            let mut levels = [f64::from(burst); 3];
            for _ in 0..3000 {
                let steps = chance.below(20);
                clock.advance(Duration::from_nanos(steps * 15_625_000));
                for level in &mut levels {
                    *level = f64::min(f64::from(burst), *level + steps as f64 / 8.0);
                }
                let key = usize::try_from(chance.below(3)).unwrap();
                let tokens = u32::try_from(chance.below(4)).unwrap();
                let expected = levels[key] >= f64::from(tokens);
                let verdict = buckets.take("f", &key.to_string(), tokens, 8.0, burst);
                assert_eq!(verdict.allowed, expected, "seed {seed}");
                if expected {
                    levels[key] -= f64::from(tokens);
                }
                assert_eq!(verdict.remaining, levels[key] as u32, "seed {seed}");
            }
        }
    }

    #[test]
    fn buckets_are_bounded_and_making_others_fills_none() {
        let clock = Arc::new(ManualClock::at(1));
        let buckets = TokenBuckets::bounded(Arc::clone(&clock) as Arc<dyn Clock>, 64 * 20);
        // One day until it has a token again.
        while buckets.take("f", "victim", 1, 1.0 / 86_400.0, 5).allowed {}
        for number in 0..20_000 {
            buckets.take("f", &format!("k{number}"), 1, 1.0 / 86_400.0, 5);
        }
        let held: usize = (0..SHARDS)
            .map(|n| buckets.shards.shards[n].lock().unwrap().buckets)
            .sum();
        assert!(held <= 64 * 21, "{held}");
        assert!(!buckets.take("f", "victim", 1, 1.0 / 86_400.0, 5).allowed);
        // When all are full, all can go.
        clock.advance(Duration::from_secs(86_400 * 5));
        for number in 0..20_000 {
            buckets.take("f", &format!("l{number}"), 1, 1e6, 5);
        }
        assert!(buckets.take("f", "victim", 5, 1.0 / 86_400.0, 5).allowed);
    }

    #[test]
    fn workers_share_a_bucket_exactly() {
        let buckets = Arc::new(TokenBuckets::new(Arc::new(ManualClock::at(1))));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let buckets = Arc::clone(&buckets);
                std::thread::spawn(move || {
                    let takes = 0..1000;
                    takes
                        .filter(|_| buckets.take("f", "k", 1, 1.0, 1500).allowed)
                        .count()
                })
            })
            .collect();
        let allowed: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(allowed, 1500);
    }
}
