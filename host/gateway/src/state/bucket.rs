//! One bucket and one decision on it: numbers in, numbers out, exact for every rate. What is missing from a bucket is held as
//! the time at which it is full again, in nanoseconds and the rest of one as a fraction whose denominator is the refill
//! (the generic cell rate algorithm without its rounding). Knows no keys, no locks and no clock.

use tidegate_core::limiter::{Bucket, Level};

/// What is missing from a bucket. One from which nothing is missing need not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// When it is full again, in nanoseconds of the steady clock.
    pub(super) full_at: u64,
    /// The rest of a nanosecond, in parts of `refill`. Of a quota: the tokens that were taken.
    pub(super) part: u64,
    /// Of a quota: the end that it was taken for, in milliseconds since 1970; else 0.
    pub(super) until: u64,
}

/// A bucket's shape, in the units of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// Tokens come back evenly: `refill` in each `period` nanoseconds.
    Refilling {
        capacity: u64,
        refill: u64,
        period: u64,
    },
    /// All come back at once.
    Quota { capacity: u64, until: u64 },
}

/// Both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) steady: u64,
    pub(super) wall: u64,
}

/// What is done to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Tokens are taken if they are there.
    Take(u64),
    /// Nothing is taken, but said what would be.
    Peek(u64),
    /// Tokens are taken in any case.
    Charge(u64),
    /// Tokens are given back.
    GiveBack(u64),
}

impl Shape {
    pub(super) fn of(bucket: &Bucket) -> Self {
        match bucket.full_at_ms {
            0 => Shape::Refilling {
                capacity: bucket.capacity,
                refill: bucket.refill,
                period: bucket.period_ms.saturating_mul(1_000_000),
            },
            until => Shape::Quota {
                capacity: bucket.capacity,
                until,
            },
        }
    }

    /// Of a bucket that gains `rate` tokens a second; none if it never would.
    pub(super) fn of_rate(rate: f64, burst: u32) -> Option<Self> {
        if !(rate.is_finite() && rate > 0.0) || burst == 0 {
            return None;
        }
        let each = 1e9 / rate;
        // A period of whole nanoseconds is exact; what is not one is, for a million tokens, exact enough.
        let whole = each >= 1.0 && (each - each.round()).abs() <= each * 1e-12;
        let (refill, period) = if whole || each >= 1e12 {
            (1, each)
        } else {
            (1_000_000, each * 1e6)
        };
        Some(Shape::Refilling {
            capacity: u64::from(burst),
            refill,
            period: nanos(period).max(1),
        })
    }

    /// What is the same for all quotas of one kind, whenever they end.
    pub(super) fn lasting(self) -> Self {
        match self {
            Shape::Quota { capacity, .. } => Shape::Quota { capacity, until: 0 },
            refilling @ Shape::Refilling { .. } => refilling,
        }
    }

    /// One step on a bucket: what is said, and what it is afterwards.
    pub(super) fn decide(self, now: Now, held: Held, act: Act) -> (Level, Held) {
        match self {
            Shape::Refilling {
                capacity,
                refill,
                period,
            } => refilling(now.steady, held, act, (capacity, refill.max(1), period)),
            Shape::Quota { capacity, until } => quota(now, held, act, capacity, until),
        }
    }
}

fn refilling(
    now: u64,
    held: Held,
    act: Act,
    (capacity, refill, period): (u64, u64, u64),
) -> (Level, Held) {
    // All of these are times, multiplied by `refill`: at most 2^53 tokens of 2^60 ns, so that nothing overflows.
    let whole = u128::from(capacity) * u128::from(period);
    let missing = match held.full_at.checked_sub(now) {
        Some(left) if held.until == 0 => {
            u128::from(left) * u128::from(refill) + u128::from(held.part)
        }
        _ => 0,
    };
    let cost = |tokens: u64| u128::from(tokens) * u128::from(period);
    let (allowed, wanted, after) = match act {
        Act::Take(tokens) | Act::Peek(tokens) => {
            let wanted = missing + cost(tokens);
            let allowed = tokens <= capacity && wanted <= whole;
            let taken = allowed && matches!(act, Act::Take(_));
            (allowed, wanted, if taken { wanted } else { missing })
        }
        Act::Charge(tokens) => {
            let after = missing.saturating_add(cost(tokens));
            (after <= whole, after, after)
        }
        Act::GiveBack(tokens) => {
            let after = missing.saturating_sub(cost(tokens));
            (after <= whole, after, after)
        }
    };
    let shown = if allowed { wanted } else { after };
    let retry_after = match act {
        _ if allowed => 0,
        Act::Take(tokens) | Act::Peek(tokens) if tokens > capacity => u64::MAX,
        _ => ceil(wanted - whole, refill),
    };
    let level = Level {
        allowed,
        remaining: divide(whole.saturating_sub(shown), period.max(1)),
        retry_after,
        reset_after: ceil(shown, refill),
    };
    let left = divide(after, refill);
    let became = Held {
        full_at: now.saturating_add(left),
        part: u64::try_from(after - u128::from(left) * u128::from(refill)).unwrap_or(refill),
        until: 0,
    };
    (level, became)
}

fn quota(now: Now, held: Held, act: Act, capacity: u64, until: u64) -> (Level, Held) {
    // Who asks with an older end, because his clock is behind, asks about the newer one.
    let until = until.max(held.until);
    let left = until.saturating_mul(1_000_000).saturating_sub(now.wall);
    let used = if held.until == until { held.part } else { 0 };
    let used = if left == 0 { 0 } else { used };
    let (allowed, shown, after) = match act {
        Act::Take(tokens) | Act::Peek(tokens) => {
            let wanted = used.saturating_add(tokens);
            let allowed = wanted <= capacity;
            let taken = allowed && matches!(act, Act::Take(_));
            let shown = if allowed { wanted } else { used };
            (allowed, shown, if taken { wanted } else { used })
        }
        Act::Charge(tokens) => {
            let after = used.saturating_add(tokens);
            (after <= capacity, after, after)
        }
        Act::GiveBack(tokens) => {
            let after = used.saturating_sub(tokens);
            (after <= capacity, after, after)
        }
    };
    let never = matches!(act, Act::Take(tokens) | Act::Peek(tokens) if tokens > capacity);
    let level = Level {
        allowed,
        remaining: capacity.saturating_sub(shown),
        retry_after: match (allowed, never) {
            (true, _) => 0,
            (false, true) => u64::MAX,
            (false, false) => left.max(1),
        },
        reset_after: if shown == 0 { 0 } else { left },
    };
    let became = Held {
        full_at: now.steady.saturating_add(if after == 0 { 0 } else { left }),
        part: after,
        until,
    };
    (level, became)
}

/// Most numbers are small enough for one instruction.
fn divide(value: u128, by: u64) -> u64 {
    match u64::try_from(value) {
        Ok(value) => value / by,
        Err(_) => u64::try_from(value / u128::from(by)).unwrap_or(u64::MAX),
    }
}

fn ceil(value: u128, by: u64) -> u64 {
    divide(value.saturating_add(u128::from(by - 1)), by)
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
