//! Token buckets, shared by all workers and exact across them. Each filter has keys of its own.

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
