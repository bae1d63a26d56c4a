//! What a rule means in numbers: tokens a second, and the fields that tell a client where it stands. Pure
//! arithmetic; asks no limiter.

use tidegate_sdk::prelude::*;

/// The time in which `rate` requests may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// One second.
    #[default]
    Second,
    /// Sixty seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds.
    Day,
}

impl Period {
    /// Its length in seconds.
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3_600,
            Period::Day => 86_400,
        }
    }
}

/// Tokens a second, for the host's limiter.
pub(crate) fn per_second(rate: u32, period: Period) -> f64 {
    f64::from(rate) / f64::from(period.seconds())
}

/// Nanoseconds as whole seconds, never less than the true time: a client that waits so long is let in
/// (RFC 9110 section 10.2.3 has no fractions).
pub(crate) fn whole_seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
}

/// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): quota and window of the named rule.
/// The window is the time in which an empty bucket fills.
pub(crate) fn policy(name: &str, burst: u32, rate: u32, period: Period) -> String {
    let window = (u64::from(burst) * u64::from(period.seconds())).div_ceil(u64::from(rate.max(1)));
    format!("\"{name}\";q={burst};w={}", window.max(1))
}

/// The value of `RateLimit`: what is left of the named rule's quota, and seconds until it is whole again.
pub(crate) fn state(name: &str, remaining: u32, reset_after_ns: u64) -> String {
    format!(
        "\"{name}\";r={remaining};t={}",
        whole_seconds(reset_after_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_as_long_as_told_is_always_long_enough() {
        assert_eq!(whole_seconds(0), 0);
        assert_eq!(whole_seconds(1), 1);
        assert_eq!(whole_seconds(1_000_000_000), 1);
        assert_eq!(whole_seconds(1_000_000_001), 2);
        assert_eq!(whole_seconds(u64::MAX), 18_446_744_074);
    }

    #[test]
    fn one_a_day_is_a_rate_too() {
        let rate = per_second(1, Period::Day);
        assert!(rate > 0.0 && (rate * 86_400.0 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_fields_say_quota_window_rest_and_reset() {
        assert_eq!(policy("api", 5, 10, Period::Second), "\"api\";q=5;w=1");
        assert_eq!(
            policy("api", 100, 100, Period::Minute),
            "\"api\";q=100;w=60"
        );
        assert_eq!(state("api", 3, 1_500_000_000), "\"api\";r=3;t=2");
    }
}
