//! Token buckets and requests in flight, shared by all workers and exact across them. Each filter has keys of its own.
//!
//! ```
//! use tidegate_sdk::limiter::{self, Bucket, Demand, LimiterError, Place};
//!
//! // Ten a second and twenty at once; a thousand a day, kept where the operator keeps the store.
//! const FAST: Bucket = Bucket::refilling(20, 10, 1_000);
//! const DAILY: Bucket = Bucket::refilling(1_000, 1_000, 86_400_000).shared();
//!
//! /// Both or none of them.
//! fn admits(who: &str) -> Result<bool, LimiterError> {
//!     let (fast, daily) = (format!("fast/{who}"), format!("daily/{who}"));
//!     let demands = [Demand::new(&FAST, &fast, 1), Demand::new(&DAILY, &daily, 1)];
//!     let levels = limiter::take_all(Place::Shared, &demands)?;
//!     Ok(levels.iter().all(|level| level.allowed))
//! }
//!
//! assert_eq!(FAST.take("fast/ada", 1)?.remaining, 19);
//! assert_eq!(FAST.peek("fast/ada", 2)?.remaining, 17);
//! // What it did cost is known when the answer is there.
//! assert!(!FAST.charge("fast/ada", 50)?.allowed);
//! # Ok::<(), LimiterError>(())
//! ```

use std::fmt;

/// What a token bucket said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the tokens were taken. If not, the bucket is as it was.
    pub allowed: bool,
    /// Whole tokens that are left after this call.
    pub remaining: u32,
    /// Nanoseconds until the same call would be allowed; 0 if it was, `u64::MAX` if it never will be.
    pub retry_after_ns: u64,
    /// Nanoseconds until the bucket is full again, if nobody takes anything.
    pub reset_after_ns: u64,
}

/// Takes `tokens` from the bucket of `key`. The bucket holds `burst` at most, starts full and gains `rate` tokens a second. A
/// rate that is not above 0, or a burst of 0, allows nothing.
///
/// ```
/// use tidegate_sdk::limiter;
///
/// let verdict = limiter::take("client 192.0.2.7", 1, 10.0, 20);
/// assert!(verdict.allowed);
/// assert_eq!(verdict.remaining, 19);
/// ```
pub fn take(key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
    crate::host::limiter_take(key, tokens, rate, burst)
}

/// Where a bucket is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the proxy's process: never unavailable, and forgotten when it ends.
    #[default]
    Local,
    /// Where the operator keeps what several machines share or what outlives the process. On a host that has no such place,
    /// as `Local`.
    Shared,
}

/// The shape of a bucket, and where it is kept. It starts full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The most tokens that it holds, from 1 to 2^53.
    pub capacity: u64,
    /// How many tokens come back in each period, evenly spread over it; 1 to 2^53. Not read if `full_at_ms` is given.
    pub refill: u64,
    /// The period in milliseconds, 1 to 2^40.
    pub period_ms: u64,
    /// If not 0: no token comes back before this moment, in milliseconds since 1970, and then all do.
    pub full_at_ms: u64,
    /// Where it is kept.
    pub place: Place,
}

/// What a bucket said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Whether the tokens are there; after [`Bucket::charge`], whether it is not in debt.
    pub allowed: bool,
    /// Whole tokens that are left after this call; 0 in debt.
    pub remaining: u64,
    /// Nanoseconds until the same call would be allowed; 0 if it was, `u64::MAX` if it never will be.
    pub retry_after_ns: u64,
    /// Nanoseconds until the bucket is full again, if nobody takes anything.
    pub reset_after_ns: u64,
}

/// How many requests are in flight, and whether this one was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whether there was room.
    pub allowed: bool,
    /// Requests in flight under the key, this one counted if it was let in.
    pub in_flight: u32,
}

/// Why the limiter did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterError {
    /// A key over 512 bytes, over 16 demands at once, or over 16 keys entered by one exchange.
    TooLarge,
    /// A bucket whose numbers are out of bounds.
    Invalid,
    /// The shared place can't be reached, or took too long.
    Unavailable,
    /// In `new` and `log`, for what might have to be waited for; [`enter`] outside of the request's phases.
    NotNow,
}

impl fmt::Display for LimiterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimiterError::TooLarge => "a key is too long, or there are too many",
            LimiterError::Invalid => "the bucket's numbers are out of bounds",
            LimiterError::Unavailable => "the limiter can't be reached",
            LimiterError::NotNow => "it can't be asked for in this phase",
        })
    }
}

impl std::error::Error for LimiterError {}

/// What is asked of one bucket by [`take_all`].
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The bucket's shape. Its place does not count here.
    pub bucket: &'a Bucket,
    /// Whose bucket it is, up to 512 bytes.
    pub key: &'a str,
    /// How many tokens are wanted.
    pub tokens: u64,
}

impl<'a> Demand<'a> {
    /// Tokens of a key's bucket.
    pub const fn new(bucket: &'a Bucket, key: &'a str, tokens: u64) -> Self {
        Demand {
            bucket,
            key,
            tokens,
        }
    }
}

impl Bucket {
    /// A bucket to which `refill` tokens come back in each period, in this process.
    pub const fn refilling(capacity: u64, refill: u64, period_ms: u64) -> Self {
        Bucket {
            capacity,
            refill,
            period_ms,
            full_at_ms: 0,
            place: Place::Local,
        }
    }

    /// A quota: nothing comes back before this moment of the wall's clock, in milliseconds since 1970, and then all of it. For a
    /// calendar's day or month, whose end the filter tells by [`clock::wall`](crate::clock::wall).
    pub const fn until(capacity: u64, full_at_ms: u64) -> Self {
        Bucket {
            capacity,
            refill: 0,
            period_ms: 0,
            full_at_ms,
            place: Place::Local,
        }
    }

    /// The same, kept where the operator's store is.
    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.place = Place::Shared;
        self
    }

    /// Takes tokens from a key's bucket if they are there. What is refused takes nothing.
    ///
    /// # Errors
    /// See [`LimiterError`].
    pub fn take(&self, key: &str, tokens: u64) -> Result<Level, LimiterError> {
        crate::host::limiter_try_take(&Demand::new(self, key, tokens))
    }

    /// What [`Bucket::take`] would say now. Takes nothing.
    ///
    /// # Errors
    /// See [`LimiterError`].
    pub fn peek(&self, key: &str, tokens: u64) -> Result<Level, LimiterError> {
        crate::host::limiter_peek(&Demand::new(self, key, tokens))
    }

    /// Takes tokens whether or not they are there, for what is known only afterwards: the bucket may go into debt. A negative
    /// number gives back, never above full. In `log`, with a shared place that may have to be waited for, the level is zeros.
    ///
    /// # Errors
    /// See [`LimiterError`].
    pub fn charge(&self, key: &str, tokens: i64) -> Result<Level, LimiterError> {
        crate::host::limiter_charge(self, key, tokens)
    }
}

/// Takes from several buckets in one step, from all of them or from none. Up to 16. Each level says what its own bucket said, in
/// the order of the demands; tokens were taken if all of them allow.
///
/// # Errors
/// See [`LimiterError`].
pub fn take_all(place: Place, demands: &[Demand<'_>]) -> Result<Vec<Level>, LimiterError> {
    crate::host::limiter_take_all(place, demands)
}

/// Counts this exchange as in flight under a key, unless `limit` others are. The host gives it back when the exchange ends, in
/// whatever way. However often an exchange enters, it counts once for each key. In the request's phases only.
///
/// # Errors
/// See [`LimiterError`].
pub fn enter(key: &str, limit: u32, place: Place) -> Result<Entry, LimiterError> {
    crate::host::limiter_enter(place, key, limit)
}
