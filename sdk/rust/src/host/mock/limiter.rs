//! The mock's token buckets and requests in flight: exact, as the host's are. What is missing from a bucket is one number, in
//! nanoseconds multiplied by the refill.

use super::with;
use crate::phase::Phase;
use crate::services::limiter::{Bucket, Demand, Entry, Level, LimiterError, Place, Verdict};

/// What is missing from a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Nanoseconds times refill, at the moment `seen`; of a quota, tokens.
    missing: u128,
    seen: u64,
    /// Of a quota: its end.
    until: u64,
}

/// An exchange in flight under a key.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) id: u64,
    pub(crate) place: Place,
    pub(crate) key: String,
}

/// What is done to a bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Take,
    Peek,
    Charge,
}

/// A bucket's numbers, of which the period is in nanoseconds.
#[derive(Clone, Copy)]
struct Shape {
    capacity: u64,
    refill: u64,
    period: u64,
    until: u64,
}

pub(crate) fn limiter_take(key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
    let never = Verdict {
        retry_after_ns: u64::MAX,
        ..Verdict::default()
    };
    if !(rate.is_finite() && rate > 0.0) || burst == 0 {
        return never;
    }
    let each = 1e9 / rate;
    let (refill, period) = if each >= 1.0 && (each - each.round()).abs() <= each * 1e-12 {
        (1, each)
    } else {
        (1_000_000, each * 1e6)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float to integer saturates, which is what is meant"
    )]
    let period = (period.round() as u64).max(1);
    let shape = Shape {
        capacity: u64::from(burst),
        refill,
        period,
        until: 0,
    };
    let level = act(Place::Local, key, shape, i128::from(tokens), Act::Take);
    Verdict {
        allowed: level.allowed,
        remaining: u32::try_from(level.remaining).unwrap_or(u32::MAX),
        retry_after_ns: level.retry_after_ns,
        reset_after_ns: level.reset_after_ns,
    }
}

/// Whether the host would do what is asked.
fn check(place: Place, key: &str, bucket: &Bucket, waits: bool) -> Result<Shape, LimiterError> {
    const MAX_TOKENS: u64 = 1 << 53;
    if key.len() > 512 {
        return Err(LimiterError::TooLarge);
    }
    let refills = bucket.full_at_ms > 0
        || (1..=MAX_TOKENS).contains(&bucket.refill) && (1..=1 << 40).contains(&bucket.period_ms);
    if !refills || !(1..=MAX_TOKENS).contains(&bucket.capacity) {
        return Err(LimiterError::Invalid);
    }
    with(|host| {
        let must_not_wait = matches!(host.exchange.phase, None | Some(Phase::Log));
        if place == Place::Shared && waits && must_not_wait {
            return Err(LimiterError::NotNow);
        }
        if place == Place::Shared && host.limiter_down {
            return Err(LimiterError::Unavailable);
        }
        Ok(())
    })?;
    Ok(Shape {
        capacity: bucket.capacity,
        refill: bucket.refill.max(1),
        period: bucket.period_ms.saturating_mul(1_000_000),
        until: bucket.full_at_ms,
    })
}

pub(crate) fn limiter_try_take(of: &Demand<'_>) -> Result<Level, LimiterError> {
    let place = of.bucket.place;
    let shape = check(place, of.key, of.bucket, true)?;
    Ok(act(place, of.key, shape, i128::from(of.tokens), Act::Take))
}

pub(crate) fn limiter_peek(of: &Demand<'_>) -> Result<Level, LimiterError> {
    let place = of.bucket.place;
    let shape = check(place, of.key, of.bucket, true)?;
    Ok(act(place, of.key, shape, i128::from(of.tokens), Act::Peek))
}

pub(crate) fn limiter_take_all(
    place: Place,
    demands: &[Demand<'_>],
) -> Result<Vec<Level>, LimiterError> {
    if demands.len() > 16 {
        return Err(LimiterError::TooLarge);
    }
    let mut shapes = Vec::new();
    for demand in demands {
        shapes.push(check(place, demand.key, demand.bucket, true)?);
    }
    let before = with(|host| host.buckets.clone());
    let asked = || demands.iter().zip(&shapes);
    let mut levels: Vec<Level> = asked()
        .map(|(demand, shape)| {
            let tokens = i128::from(demand.tokens);
            act(place, demand.key, *shape, tokens, Act::Take)
        })
        .collect();
    if levels.iter().all(|level| level.allowed) {
        return Ok(levels);
    }
    with(|host| host.buckets = before);
    for ((demand, shape), level) in asked().zip(&mut levels) {
        let as_it_is = act(place, demand.key, *shape, 0, Act::Peek);
        level.remaining = as_it_is.remaining;
        level.reset_after_ns = as_it_is.reset_after_ns;
    }
    Ok(levels)
}

pub(crate) fn limiter_charge(of: &Bucket, key: &str, tokens: i64) -> Result<Level, LimiterError> {
    let shape = check(of.place, key, of, false)?;
    Ok(act(of.place, key, shape, i128::from(tokens), Act::Charge))
}

fn act(place: Place, key: &str, shape: Shape, tokens: i128, act: Act) -> Level {
    with(|host| {
        let held = host.buckets.get(&(place, key.to_owned()));
        let held = held.copied().unwrap_or_default();
        let quota = shape.until > 0;
        let left = shape
            .until
            .saturating_mul(1_000_000)
            .saturating_sub(host.wall);
        // Of a quota everything is in tokens, of another bucket in time.
        let unit = if quota { 1 } else { u128::from(shape.period) };
        let whole = u128::from(shape.capacity) * unit;
        let missing = if quota {
            let same = held.until == shape.until && left > 0;
            if same { held.missing } else { 0 }
        } else {
            let passed = u128::from(host.monotonic - held.seen) * u128::from(shape.refill);
            held.missing.saturating_sub(passed)
        };
        let cost = tokens.unsigned_abs().saturating_mul(unit);
        let wanted = if tokens < 0 {
            missing.saturating_sub(cost)
        } else {
            missing.saturating_add(cost)
        };
        let allowed = wanted <= whole;
        let after = match act {
            Act::Take if allowed => wanted,
            Act::Take | Act::Peek => missing,
            Act::Charge => wanted,
        };
        let shown = if allowed { wanted } else { after };
        let time = |missing: u128| {
            let nanoseconds = missing.div_ceil(u128::from(shape.refill));
            u64::try_from(nanoseconds).unwrap_or(u64::MAX)
        };
        let never = act != Act::Charge && tokens > i128::from(shape.capacity);
        let until_free = if quota {
            left.max(1)
        } else {
            time(wanted.saturating_sub(whole))
        };
        if act != Act::Peek {
            let held = Held {
                missing: after,
                seen: host.monotonic,
                until: shape.until,
            };
            host.buckets.insert((place, key.to_owned()), held);
        }
        let remaining = whole.saturating_sub(shown) / unit;
        Level {
            allowed,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            retry_after_ns: match (allowed, never) {
                (true, _) => 0,
                (false, true) => u64::MAX,
                (false, false) => until_free,
            },
            reset_after_ns: match quota {
                true if shown == 0 => 0,
                true => left,
                false => time(shown),
            },
        }
    })
}

pub(crate) fn limiter_enter(place: Place, key: &str, limit: u32) -> Result<Entry, LimiterError> {
    if key.len() > 512 {
        return Err(LimiterError::TooLarge);
    }
    with(|host| {
        if !matches!(
            host.exchange.phase,
            Some(Phase::RequestHead | Phase::RequestBody | Phase::RequestTrailers)
        ) {
            return Err(LimiterError::NotNow);
        }
        if place == Place::Shared && host.limiter_down {
            return Err(LimiterError::Unavailable);
        }
        let under = |entered: &&Entered| entered.place == place && entered.key == key;
        let held = host.entered.iter().filter(under).count();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let mut own = host.entered.iter().filter(|held| held.id == host.current);
        let again = own.clone().any(|entered| under(&entered));
        if !again && own.by_ref().count() >= 16 {
            return Err(LimiterError::TooLarge);
        }
        let allowed = again || held < limit;
        if allowed && !again {
            host.entered.push(Entered {
                id: host.current,
                place,
                key: key.to_owned(),
            });
        }
        Ok(Entry {
            allowed,
            in_flight: held + u32::from(allowed && !again),
        })
    })
}
