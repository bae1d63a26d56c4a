//! The words of rate limits: buckets, what is asked of them and what they say, and requests in flight. Counts nothing
//! itself.

use std::fmt::{self, Debug};

/// The most tokens that a bucket holds, or gains in a period.
pub const MAX_TOKENS: u64 = 1 << 53;
/// The longest period, in milliseconds.
pub const MAX_PERIOD: u64 = 1 << 40;
/// The longest key, in bytes.
pub const MAX_LIMITER_KEY: usize = 512;
/// The most buckets of one step, and the most keys that one exchange is in flight under.
pub const MAX_DEMANDS: usize = 16;

/// Where a bucket is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In this process, shared by its workers.
    Local,
    /// Where the operator's store is; without one, in this process.
    Shared,
}

/// The shape of a bucket. It starts full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The most tokens that it holds.
    pub capacity: u64,
    /// Tokens that come back in each period, evenly spread.
    pub refill: u64,
    /// The period, in milliseconds.
    pub period_ms: u64,
    /// If not 0: nothing comes back before this moment of the wall's clock, in milliseconds since 1970, and then all.
    pub full_at_ms: u64,
}

impl Bucket {
    /// Whether its numbers are within their bounds.
    ///
    /// # Errors
    /// [`LimiterError::Invalid`].
    pub fn check(&self) -> Result<(), LimiterError> {
        let refills = self.full_at_ms > 0
            || (1..=MAX_TOKENS).contains(&self.refill)
                && (1..=MAX_PERIOD).contains(&self.period_ms);
        if refills && (1..=MAX_TOKENS).contains(&self.capacity) {
            Ok(())
        } else {
            Err(LimiterError::Invalid)
        }
    }
}

/// What is asked of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// Whose bucket it is.
    pub key: &'a str,
    /// How many tokens are wanted.
    pub tokens: u64,
    /// The bucket's shape.
    pub bucket: Bucket,
}

impl Demand<'_> {
    /// Whether key and bucket are within their bounds.
    ///
    /// # Errors
    /// [`LimiterError::TooLarge`] and [`LimiterError::Invalid`].
    pub fn check(&self) -> Result<(), LimiterError> {
        if self.key.len() > MAX_LIMITER_KEY {
            return Err(LimiterError::TooLarge);
        }
        self.bucket.check()
    }
}

/// What a bucket said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Whether the tokens are there.
    pub allowed: bool,
    /// Whole tokens that are left; 0 in debt.
    pub remaining: u64,
    /// Nanoseconds until the same call would be allowed; 0 if it was, `u64::MAX` if it never will be.
    pub retry_after: u64,
    /// Nanoseconds until the bucket is full.
    pub reset_after: u64,
}

/// What a token bucket said to [`Limiter::take`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the tokens were taken.
    pub allowed: bool,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// Nanoseconds until the same call would be allowed; 0 if it was, `u64::MAX` if it never will be.
    pub retry_after: u64,
    /// Nanoseconds until the bucket is full.
    pub reset_after: u64,
}

/// How many requests are in flight, and whether this one was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whether there was room.
    pub allowed: bool,
    /// Requests in flight under the key, this one counted if it was let in.
    pub in_flight: u32,
}

/// Why a limiter did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimiterError {
    /// A key over [`MAX_LIMITER_KEY`], or more than [`MAX_DEMANDS`].
    #[error("a key is too long, or there are too many")]
    TooLarge,
    /// A bucket whose numbers are out of bounds.
    #[error("the bucket's numbers are out of bounds")]
    Invalid,
    /// It can't be reached.
    #[error("the limiter can't be reached")]
    Unavailable,
    /// Not in a phase that must not wait, or that is too late.
    #[error("it can't be asked for in this phase")]
    NotNow,
}

/// A place in flight; dropping it gives it back.
pub struct Permit(Option<Box<dyn FnOnce()>>);

impl Permit {
    /// A place that is given back so.
    pub fn new(give_back: impl FnOnce() + 'static) -> Self {
        Permit(Some(Box::new(give_back)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Buckets and requests in flight that are kept in this process, exact across all workers. A `space` is the filter's
/// name. Keys and buckets were checked ([`Demand::check`]).
pub trait Limiter: Debug + Send + Sync {
    /// Takes `tokens` from the bucket of `key` in `space`. The bucket holds `burst`, starts full and gains `rate` tokens
    /// a second. A refused call takes nothing. A rate that is not finite and above 0, or a burst of 0, refuses every
    /// call.
    fn take(&self, space: &str, key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict;

    /// Takes tokens if they are there.
    ///
    /// # Errors
    /// [`LimiterError::Unavailable`] if there is no room for the bucket.
    fn try_take(
        &self,
        place: Place,
        space: &str,
        demand: &Demand<'_>,
    ) -> Result<Level, LimiterError>;

    /// What [`Limiter::try_take`] would say.
    ///
    /// # Errors
    /// As [`Limiter::try_take`].
    fn peek(&self, place: Place, space: &str, demand: &Demand<'_>) -> Result<Level, LimiterError>;

    /// Takes from all buckets or from none, in one step. If from none, levels are as they were before, and `allowed` is
    /// what each bucket alone would have said.
    ///
    /// # Errors
    /// As [`Limiter::try_take`]; nothing was taken.
    fn take_all(
        &self,
        place: Place,
        space: &str,
        demands: &[Demand<'_>],
    ) -> Result<Vec<Level>, LimiterError>;

    /// Takes tokens whether or not they are there, or gives some back.
    ///
    /// # Errors
    /// As [`Limiter::try_take`].
    fn charge(
        &self,
        place: Place,
        space: &str,
        key: &str,
        tokens: i64,
        bucket: &Bucket,
    ) -> Result<Level, LimiterError>;

    /// Counts a request as in flight unless `limit` are, until its permit is dropped. None if it was not let in.
    fn enter(&self, place: Place, space: &str, key: &str, limit: u32) -> (Entry, Option<Permit>);
}
