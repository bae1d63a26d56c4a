//! Token buckets as one number each: the time at which the bucket will be full again (the generic cell rate algorithm). Exact
//! across workers, since each decision is taken under its part's lock.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::clock::Clock;
use tidegate_core::services::{Limiter, Verdict};

use super::Sharded;

/// Buckets that one part holds before it throws full ones out.
const SWEEP_AT: usize = 16 * 1024;

/// All token buckets of the process. A bucket that is full again is the same as one that was never there, so only those are
/// thrown out: nobody can fill somebody's bucket by making others.
#[derive(Debug)]
pub struct TokenBuckets {
    clock: Arc<dyn Clock>,
    shards: Sharded<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    /// When each bucket is full again, in nanoseconds of the clock.
    full_at: HashMap<(Box<str>, Box<str>), u64>,
    /// How many there were after the last sweep.
    swept: usize,
}

impl TokenBuckets {
    /// No buckets yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        TokenBuckets {
            clock,
            shards: Sharded::new(64),
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
        if shard.full_at.len() >= SWEEP_AT.max(shard.swept * 2) {
            shard.full_at.retain(|_, full_at| *full_at > now);
            shard.swept = shard.full_at.len();
        }
        let key = (Box::from(space), Box::from(key));
        let full_at = shard.full_at.get(&key).copied().unwrap_or(0);
        let (verdict, full_at) = decide(now, full_at, tokens, rate, burst);
        if verdict.allowed && tokens > 0 {
            shard.full_at.insert(key, full_at);
        }
        verdict
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
        let remaining = tokens_in(whole - after, nanos_per_token);
        (
            Verdict {
                allowed: true,
                remaining,
                retry_after: 0,
                reset_after: after,
            },
            now.saturating_add(after),
        )
    } else {
        let retry_after = if tokens > burst {
            u64::MAX
        } else {
            after.saturating_sub(whole).max(1)
        };
        let remaining = tokens_in(whole.saturating_sub(missing), nanos_per_token);
        (
            Verdict {
                allowed: false,
                remaining,
                retry_after,
                reset_after: missing,
            },
            full_at,
        )
    }
}

/// Whole tokens; a billionth of one is lost to rounding and given back.
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
    fn waiting_as_told_is_enough_for_any_rate() {
        for rate in [1.0 / 86_400.0, 0.3, 1.0, 3.0, 7.0, 333.3, 1e6] {
            let (clock, buckets) = buckets();
            while buckets.take("f", "k", 1, rate, 3).allowed {}
            let wait = buckets.take("f", "k", 1, rate, 3).retry_after;
            clock.advance(Duration::from_nanos(wait));
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
            assert_eq!(
                buckets.take("f", "k", tokens, rate, burst).retry_after,
                u64::MAX
            );
        }
    }

    #[test]
    fn spaces_and_keys_are_apart_and_full_buckets_go() {
        let (clock, buckets) = buckets();
        assert!(buckets.take("f", "k", 1, 1.0, 1).allowed);
        assert!(buckets.take("g", "k", 1, 1.0, 1).allowed);
        assert!(buckets.take("f", "l", 1, 1.0, 1).allowed);
        assert!(!buckets.take("f", "k", 1, 1.0, 1).allowed);
        let _ = clock;
    }

    #[test]
    fn a_run_agrees_with_a_simple_model() {
        let (clock, buckets) = buckets();
        let (rate, burst) = (8.0, 4.0);
        let (mut level, mut state) = (burst, 12_345u64);
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Steps that are whole eighths of a token keep the model exact.
            let steps = (state >> 33) % 20;
            clock.advance(Duration::from_nanos(steps * 15_625_000));
            level = f64::min(burst, level + steps as f64 / 8.0);
            let tokens = ((state >> 40) % 3) as u32;
            let expected = level >= f64::from(tokens);
            assert_eq!(buckets.take("f", "k", tokens, rate, 4).allowed, expected);
            if expected {
                level -= f64::from(tokens);
            }
        }
    }
}
