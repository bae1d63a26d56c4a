//! How much one kind of consumer may ask for, with everything that can be worked out before a request comes. Asks no
//! limiter and reads no request.

use tidegate_sdk::limiter::Bucket;

use crate::config::{Cost, QuotaConfig, Refill, RuleConfig};
use crate::words::{Amount, Count, Period};

/// How much one kind of consumer may ask for.
#[derive(Debug)]
pub(crate) struct Quota {
    pub(crate) bound: Bound,
    /// How much clients are told that they have.
    pub(crate) told: u64,
    /// The rule's member of `RateLimit-Policy`.
    pub(crate) policy: Box<str>,
    /// The beginning of its member of `RateLimit`.
    pub(crate) state: Box<str>,
    /// The beginning of its keys.
    pub(crate) key: Box<str>,
}

/// What bounds it.
#[derive(Debug)]
pub(crate) enum Bound {
    /// Nothing.
    Unlimited,
    /// So many requests at a time.
    Concurrent(u32),
    /// A bucket that refills all the time.
    Steady(Steady),
    /// So much until a window of the calendar ends.
    Calendar(u64, Period),
}

/// A bucket that refills all the time. With a delay it holds more than the burst: who takes of that waits until the burst
/// alone would have had it.
#[derive(Debug)]
pub(crate) struct Steady {
    pub(crate) bucket: Bucket,
    /// What it holds beyond the burst.
    pub(crate) extra: u64,
    /// Nanoseconds in which the burst comes back.
    pub(crate) burst_ns: u64,
}

/// A quota as it is written, with what it takes over from its rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) rate: Option<Amount>,
    pub(crate) per: Period,
    pub(crate) burst: Option<Amount>,
    pub(crate) concurrent: Option<Count>,
}

impl Wanted {
    /// What a rule wants for whom no other quota is written.
    pub(crate) fn of_rule(rule: &RuleConfig) -> Result<Self, String> {
        let rated = [
            ("per", rule.per.is_some()),
            ("burst", rule.burst.is_some()),
            ("delay", rule.delay.is_some()),
            ("refill", rule.refill != Refill::Steady),
            ("cost", rule.cost != Cost::default()),
            ("default-cost", rule.default_cost.is_some()),
            ("max-cost", rule.max_cost.is_some()),
        ];
        match (rule.rate, rule.concurrent) {
            (None, None) => return Err("it limits nothing: add `rate` or `concurrent`".into()),
            (Some(_), Some(_)) => {
                return Err(
                    "`rate` and `concurrent` exclude each other: make two rules of them".into(),
                );
            }
            (None, Some(_)) => {
                if let Some((key, _)) = rated.iter().find(|(_, written)| *written) {
                    return Err([
                        "`",
                        key,
                        "` belongs to a `rate`: leave it away, or make a rule of its own",
                    ]
                    .concat());
                }
            }
            (Some(_), None) if rule.refill == Refill::Calendar => {
                for (key, written) in [
                    ("burst", rule.burst.is_some()),
                    ("delay", rule.delay.is_some()),
                ] {
                    if written {
                        return Err([
                            "`",
                            key,
                            "` means nothing with `refill = \"calendar\"`, where all of the rate comes at once: leave it away",
                        ]
                        .concat());
                    }
                }
            }
            (Some(_), None) => {}
        }
        match &rule.cost {
            Cost::Fixed(_) if rule.default_cost.is_some() || rule.max_cost.is_some() => {
                return Err("`default-cost` and `max-cost` belong to a cost that a field says: leave them away".into());
            }
            Cost::Response(_) if rule.delay.is_some() => {
                return Err(
                    "`delay` needs a cost that is known when the request comes: leave it away"
                        .into(),
                );
            }
            _ => {}
        }
        Ok(Wanted {
            rate: rule.rate,
            per: rule.per.unwrap_or_default(),
            burst: rule.burst,
            concurrent: rule.concurrent,
        })
    }

    /// What a quota of a rule wants; none for no limit.
    pub(crate) fn of_quota(quota: &QuotaConfig, rule: &Wanted) -> Result<Option<Self>, String> {
        let any = quota.rate.is_some()
            || quota.per.is_some()
            || quota.burst.is_some()
            || quota.concurrent.is_some();
        let of_rate = quota.rate.is_some() || quota.per.is_some() || quota.burst.is_some();
        match rule.rate {
            _ if quota.unlimited && any => Err("`unlimited` excludes a quota: leave one away".into()),
            _ if quota.unlimited => Ok(None),
            Some(_) if quota.concurrent.is_some() => Err("the rule has a `rate`, so its quotas have one too: `concurrent` belongs to another rule".into()),
            None if of_rate => Err("the rule has `concurrent`, so its quotas have it too: `rate` belongs to another rule".into()),
            Some(_) if quota.rate.is_none() => Err("add `rate`, or `unlimited = true`".into()),
            None if quota.concurrent.is_none() => Err("add `concurrent`, or `unlimited = true`".into()),
            _ => Ok(Some(Wanted {
                rate: quota.rate,
                per: quota.per.unwrap_or(rule.per),
                burst: quota.burst,
                concurrent: quota.concurrent,
            })),
        }
    }
}

impl Quota {
    /// A quota of the rule called `name`; `tag` tells its keys from those of the rule's other quotas.
    pub(crate) fn new(
        name: &str,
        tag: &str,
        wanted: &Wanted,
        rule: &RuleConfig,
    ) -> Result<Self, String> {
        let key = [name, tag].concat().into();
        let state = ["\"", name, "\";r="].concat().into();
        let mut policy = ["\"", name, "\";q="].concat();
        let (bound, told) = match (wanted.concurrent, wanted.rate) {
            (Some(limit), _) => {
                let limit = limit.0;
                push_number(&mut policy, u64::from(limit));
                policy.push_str(";qu=\"concurrent-requests\"");
                (Bound::Concurrent(limit), u64::from(limit))
            }
            (None, rate) => {
                let rate = rate.map_or(1, |rate| rate.0);
                let burst = wanted.burst.map_or(rate, |burst| burst.0);
                if let Cost::Fixed(cost) = rule.cost
                    && u64::from(cost) > burst
                {
                    return Err([
                        "no request could pass: its `cost` is more than the burst of ",
                        itoa::Buffer::new().format(burst),
                    ]
                    .concat());
                }
                push_number(&mut policy, burst);
                policy.push_str(";w=");
                push_number(&mut policy, seconds_to_fill(burst, rate, wanted.per.length));
                let bound = match rule.refill {
                    Refill::Calendar => Bound::Calendar(burst, wanted.per),
                    Refill::Steady => {
                        Bound::Steady(Steady::new(burst, rate, wanted.per.length, rule)?)
                    }
                };
                (bound, burst)
            }
        };
        Ok(Quota {
            bound,
            told,
            policy: policy.into(),
            state,
            key,
        })
    }

    /// No limit at all.
    pub(crate) fn unlimited() -> Self {
        Quota {
            bound: Bound::Unlimited,
            told: 0,
            policy: "".into(),
            state: "".into(),
            key: "".into(),
        }
    }
}

impl Steady {
    fn new(burst: u64, rate: u64, period: u64, rule: &RuleConfig) -> Result<Self, String> {
        let mut extra = 0;
        if let Some(delay) = rule.delay {
            extra = scaled(u64::from(delay.0), rate, period);
            let cost = match rule.cost {
                Cost::Fixed(cost) => u64::from(cost),
                Cost::Request(_) | Cost::Response(_) => 1,
            };
            if extra < cost {
                return Err("`delay` is shorter than the time until the next request's turn: make it longer, or the rate higher".into());
            }
        }
        let capacity = burst.saturating_add(extra);
        // Times are 64 bits of nanoseconds: 292 years and more.
        if scaled(capacity, period.saturating_mul(1_000_000), rate) > u64::MAX / 2 {
            return Err(
                "the burst would take more than 292 years to come back: make it smaller".into(),
            );
        }
        Ok(Steady {
            bucket: Bucket::refilling(capacity, rate, period),
            extra,
            burst_ns: scaled(burst, period.saturating_mul(1_000_000), rate),
        })
    }

    /// Milliseconds that a request waits which found that the bucket is full again after so many nanoseconds. A microsecond
    /// is lost to rounding.
    pub(crate) fn wait(&self, reset_after_ns: u64) -> u32 {
        let wait = reset_after_ns
            .saturating_sub(self.burst_ns)
            .saturating_add(998_999)
            / 1_000_000;
        u32::try_from(wait).unwrap_or(u32::MAX)
    }
}

/// `number * times / by` without overflow in between, rounded down.
fn scaled(number: u64, times: u64, by: u64) -> u64 {
    let product = u128::from(number) * u128::from(times) / u128::from(by.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// Whole seconds in which an empty bucket fills, never less than the true time.
fn seconds_to_fill(burst: u64, rate: u64, period: u64) -> u64 {
    let milliseconds = u128::from(burst) * u128::from(period);
    let seconds = milliseconds.div_ceil(u128::from(rate.max(1)) * 1_000);
    u64::try_from(seconds).unwrap_or(u64::MAX).max(1)
}

/// Adds a number in digits.
pub(crate) fn push_number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Nanoseconds as whole seconds, never less than the true time: a client that waits so long is let in (RFC 9110 section
/// 10.2.3 has no fractions).
pub(crate) fn whole_seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
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
    fn a_window_is_the_time_in_which_the_burst_comes_back() {
        assert_eq!(seconds_to_fill(5, 10, 1_000), 1);
        assert_eq!(seconds_to_fill(100, 100, 60_000), 60);
        assert_eq!(seconds_to_fill(5, 1, 1_000), 5);
        assert_eq!(seconds_to_fill(1, 1, 2_592_000_000), 2_592_000);
        assert_eq!(seconds_to_fill(u64::MAX, 1, u64::MAX), u64::MAX);
    }
}
