//! The interfaces besides the exchange as a core module calls them: log, clock, random, environment, metrics, store,
//! limiter and HTTP calls. Every function here is one crossing; what it does stands in `host` and `figures`.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tidegate_core::limiter::{self, Bucket, Demand, LimiterError, Place};
use tidegate_core::services::{CallFuture, Level};

use super::core_values::{
    Done, Guest, give_fields, optional, put_bool, put_u32, put_unit, refusal,
};
use super::figures::Define;
use super::host::{self, Call, CallRefusal, StoreRefusal};
use super::memory::{self, Pairs, bytes, no_such_value, put, text};
use super::state::State;

// --- log, clock, random, environment ---

fn level(value: u32) -> Done<Level> {
    match value {
        0 => Ok(Level::Error),
        1 => Ok(Level::Warn),
        2 => Ok(Level::Info),
        3 => Ok(Level::Debug),
        4 => Ok(Level::Trace),
        _ => Err(no_such_value("level", value)),
    }
}

pub(super) fn log_enabled(guest: Guest<'_>, of: u32) -> Done<u32> {
    Ok(u32::from(guest.state.log_enabled(level(of)?)))
}

pub(super) fn log_write(guest: Guest<'_>, of: u32, message: u32, length: u32) -> Done {
    let level = level(of)?;
    // Nothing of a line is read that nobody wants.
    if guest.state.log_enabled(level) {
        let message = memory::beginning(guest.memory, message, length, host::MAX_LINE)?;
        guest.state.log_write(level, message);
    }
    Ok(())
}

pub(super) fn monotonic(guest: Guest<'_>) -> Done<u64> {
    Ok(guest.state.monotonic())
}

pub(super) fn wall(guest: Guest<'_>) -> Done<u64> {
    Ok(guest.state.wall())
}

pub(super) fn random_bytes(guest: Guest<'_>, length: u32, result: u32) -> Done {
    let bytes = host::random(length)?;
    guest.state.reply.begin(result, 8, 4);
    guest.state.reply.bytes(0, &bytes);
    Ok(())
}

pub(super) fn random_number(_: Guest<'_>) -> Done<u64> {
    host::random_number()
}

pub(super) fn environment(guest: Guest<'_>, name: u32, length: u32, result: u32) -> Done {
    let name = text(guest.memory, name, length)?;
    let facts = Arc::clone(&guest.state.facts);
    let reply = &mut guest.state.reply;
    reply.begin(result, 12, 4);
    if let Some(value) = facts.allow.env.get(name).and_then(Option::as_deref) {
        reply.put(0, [1]);
        reply.bytes(4, value.as_bytes());
    }
    Ok(())
}

// --- metrics ---

/// A guest's `list<label>`, borrowed.
fn labels(memory: &[u8], at: u32, count: u32) -> Done<Vec<(&str, &str)>> {
    let elements = memory::list(memory, at, count, 16, 4)?.chunks_exact(16);
    // More labels than any figure may have are refused as too many without being read.
    let pairs = elements.take(32).map(|element| {
        let [name, name_length, value, value_length] =
            [0, 4, 8, 12].map(|at| memory::number(element, at));
        Ok((
            text(memory, name, name_length)?,
            text(memory, value, value_length)?,
        ))
    });
    pairs.collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn counter(
    guest: Guest<'_>,
    name: u32,
    name_length: u32,
    help: u32,
    help_length: u32,
    list: u32,
    list_count: u32,
    result: u32,
) -> Done {
    let name = text(guest.memory, name, name_length)?;
    let help = text(guest.memory, help, help_length)?;
    let labels = labels(guest.memory, list, list_count)?;
    let outcome = guest.state.define(Define::Counter, name, help, &labels);
    put_u32(guest.memory, result, outcome.map_err(refusal))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn gauge(
    guest: Guest<'_>,
    name: u32,
    name_length: u32,
    help: u32,
    help_length: u32,
    list: u32,
    list_count: u32,
    result: u32,
) -> Done {
    let name = text(guest.memory, name, name_length)?;
    let help = text(guest.memory, help, help_length)?;
    let labels = labels(guest.memory, list, list_count)?;
    let outcome = guest.state.define(Define::Gauge, name, help, &labels);
    put_u32(guest.memory, result, outcome.map_err(refusal))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn histogram(
    guest: Guest<'_>,
    name: u32,
    name_length: u32,
    help: u32,
    help_length: u32,
    list: u32,
    list_count: u32,
    bounds: u32,
    bounds_count: u32,
    result: u32,
) -> Done {
    let name = text(guest.memory, name, name_length)?;
    let help = text(guest.memory, help, help_length)?;
    let labels = labels(guest.memory, list, list_count)?;
    let bounds: Vec<f64> = memory::list(guest.memory, bounds, bounds_count, 8, 8)?
        .chunks_exact(8)
        // One more than is allowed is enough to be refused.
        .take(128)
        .map(|eight| f64::from_le_bytes(eight.try_into().unwrap_or_default()))
        .collect();
    let define = Define::Histogram(&bounds);
    let outcome = guest.state.define(define, name, help, &labels);
    put_u32(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn metric_add(guest: Guest<'_>, metric: u32, delta: u64) -> Done {
    guest.state.add(metric, delta);
    Ok(())
}

pub(super) fn metric_set(guest: Guest<'_>, metric: u32, value: f64) -> Done {
    guest.state.set(metric, value);
    Ok(())
}

pub(super) fn metric_observe(guest: Guest<'_>, metric: u32, value: f64) -> Done {
    guest.state.observe(metric, value);
    Ok(())
}

// --- store ---

fn store_refusal(refusal: StoreRefusal) -> u8 {
    match refusal {
        StoreRefusal::NotGranted => 0,
        StoreRefusal::TooLarge => 1,
        StoreRefusal::NotANumber => 2,
        StoreRefusal::Unavailable => 3,
    }
}

pub(super) fn store_get(
    guest: Guest<'_>,
    space: u32,
    space_length: u32,
    key: u32,
    key_length: u32,
    result: u32,
) -> Done {
    let space = text(guest.memory, space, space_length)?;
    let key = text(guest.memory, key, key_length)?;
    let outcome = guest.state.store_get(space, key);
    let reply = &mut guest.state.reply;
    reply.begin(result, 16, 4);
    match outcome {
        Ok(None) => {}
        Ok(Some(value)) => {
            reply.put(4, [1]);
            reply.bytes(8, &value);
        }
        Err(reason) => {
            reply.put(0, [1]);
            reply.put(4, [store_refusal(reason)]);
        }
    }
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn store_set(
    guest: Guest<'_>,
    space: u32,
    space_length: u32,
    key: u32,
    key_length: u32,
    value: u32,
    value_length: u32,
    ttl: u64,
    result: u32,
) -> Done {
    let space = text(guest.memory, space, space_length)?;
    let key = text(guest.memory, key, key_length)?;
    let value = bytes(guest.memory, value, value_length)?;
    let outcome = guest.state.store_set(space, key, value, ttl);
    put_unit(guest.memory, result, outcome.map_err(store_refusal))
}

pub(super) fn store_delete(
    guest: Guest<'_>,
    space: u32,
    space_length: u32,
    key: u32,
    key_length: u32,
    result: u32,
) -> Done {
    let space = text(guest.memory, space, space_length)?;
    let key = text(guest.memory, key, key_length)?;
    let outcome = guest.state.store_delete(space, key);
    put_bool(guest.memory, result, outcome.map_err(store_refusal))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn store_swap(
    guest: Guest<'_>,
    space: u32,
    space_length: u32,
    key: u32,
    key_length: u32,
    given: u32,
    expected: u32,
    expected_length: u32,
    value: u32,
    value_length: u32,
    ttl: u64,
    result: u32,
) -> Done {
    let space = text(guest.memory, space, space_length)?;
    let key = text(guest.memory, key, key_length)?;
    let expected = optional(given, || bytes(guest.memory, expected, expected_length))?;
    let value = bytes(guest.memory, value, value_length)?;
    let outcome = guest.state.store_swap(space, key, expected, value, ttl);
    put_bool(guest.memory, result, outcome.map_err(store_refusal))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens strings and lists into pairs"
)]
pub(super) fn store_increment(
    guest: Guest<'_>,
    space: u32,
    space_length: u32,
    key: u32,
    key_length: u32,
    delta: i64,
    ttl: u64,
    result: u32,
) -> Done {
    let space = text(guest.memory, space, space_length)?;
    let key = text(guest.memory, key, key_length)?;
    let outcome = guest.state.store_increment(space, key, delta, ttl);
    // `result<s64, ENUM>`: the payload stands at 8.
    let mut bytes = [0; 16];
    let [discriminant, _, _, _, _, _, _, _, payload @ ..] = &mut bytes;
    match outcome {
        Ok(value) => *payload = value.to_le_bytes(),
        Err(reason) => {
            *discriminant = 1;
            *payload = u64::from(store_refusal(reason)).to_le_bytes();
        }
    }
    put(guest.memory, result, 8, bytes)
}

// --- limiter ---

pub(super) fn take(
    guest: Guest<'_>,
    key: u32,
    length: u32,
    tokens: u32,
    rate: f64,
    burst: u32,
    result: u32,
) -> Done {
    let key = text(guest.memory, key, length)?;
    let verdict = guest.state.limiter_take(key, tokens, rate, burst);
    let mut head = [0; 8];
    let [allowed, _, _, _, remaining @ ..] = &mut head;
    *allowed = u8::from(verdict.allowed);
    *remaining = verdict.remaining.to_le_bytes();
    put(guest.memory, result, 8, head)?;
    let after = [(8, verdict.retry_after), (16, verdict.reset_after)];
    for (offset, nanoseconds) in after {
        let at = result.saturating_add(offset);
        put(guest.memory, at, 1, nanoseconds.to_le_bytes())?;
    }
    Ok(())
}

fn place(value: u32) -> Done<Place> {
    match value {
        0 => Ok(Place::Local),
        1 => Ok(Place::Shared),
        _ => Err(no_such_value("place", value)),
    }
}

fn limiter_refusal(refusal: LimiterError) -> u8 {
    match refusal {
        LimiterError::TooLarge => 0,
        LimiterError::Invalid => 1,
        LimiterError::Unavailable => 2,
        LimiterError::NotNow => 3,
    }
}

/// The 32 bytes of a `level`.
fn level_bytes(level: &limiter::Level) -> [u8; 32] {
    let mut bytes = [0; 32];
    let numbers = [level.remaining, level.retry_after, level.reset_after];
    let (eights, _) = bytes.as_chunks_mut::<8>();
    for (place, number) in eights.iter_mut().skip(1).zip(numbers) {
        *place = number.to_le_bytes();
    }
    let [allowed, ..] = &mut bytes;
    *allowed = u8::from(level.allowed);
    bytes
}

/// `result<level, limiter-error>`: the payload stands at 8.
fn put_level(memory: &mut [u8], at: u32, outcome: Result<limiter::Level, LimiterError>) -> Done {
    let mut bytes = [0; 40];
    let [discriminant, _, _, _, _, _, _, _, payload @ ..] = &mut bytes;
    match outcome {
        Ok(level) => *payload = level_bytes(&level),
        Err(error) => {
            *discriminant = 1;
            let [reason, ..] = payload;
            *reason = limiter_refusal(error);
        }
    }
    put(memory, at, 8, bytes)
}

/// The flat arguments of a `demand`.
type DemandArguments = (u32, u32, u64, u64, u64, u64, u64);

fn demand(
    memory: &[u8],
    (key, length, tokens, capacity, refill, period_ms, full_at_ms): DemandArguments,
) -> Done<Demand<'_>> {
    Ok(Demand {
        key: text(memory, key, length)?,
        tokens,
        bucket: Bucket {
            capacity,
            refill,
            period_ms,
            full_at_ms,
        },
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens records"
)]
pub(super) fn try_take(
    guest: Guest<'_>,
    at: u32,
    key: u32,
    length: u32,
    tokens: u64,
    capacity: u64,
    refill: u64,
    period: u64,
    full_at: u64,
    result: u32,
) -> Done {
    let arguments = (key, length, tokens, capacity, refill, period, full_at);
    let demand = demand(guest.memory, arguments)?;
    let outcome = guest.state.limiter_try(place(at)?, &demand, true);
    put_level(guest.memory, result, outcome)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens records"
)]
pub(super) fn peek(
    guest: Guest<'_>,
    at: u32,
    key: u32,
    length: u32,
    tokens: u64,
    capacity: u64,
    refill: u64,
    period: u64,
    full_at: u64,
    result: u32,
) -> Done {
    let arguments = (key, length, tokens, capacity, refill, period, full_at);
    let demand = demand(guest.memory, arguments)?;
    let outcome = guest.state.limiter_try(place(at)?, &demand, false);
    put_level(guest.memory, result, outcome)
}

/// A guest's `list<demand>`. What is more than may be asked for is refused without being read.
fn demands(memory: &[u8], at: u32, count: u32) -> Done<Vec<Demand<'_>>> {
    let elements = memory::list(memory, at, count, 48, 8)?.chunks_exact(48);
    elements
        .take(limiter::MAX_DEMANDS + 1)
        .map(|element| {
            let long = |at| memory::long(element, at);
            let (key, length) = (memory::number(element, 0), memory::number(element, 4));
            let rest = (long(16), long(24), long(32), long(40));
            demand(
                memory,
                (key, length, long(8), rest.0, rest.1, rest.2, rest.3),
            )
        })
        .collect()
}

pub(super) fn take_all(guest: Guest<'_>, at: u32, list: u32, count: u32, result: u32) -> Done {
    let outcome = {
        let demands = demands(guest.memory, list, count)?;
        guest.state.limiter_take_all(place(at)?, &demands)
    };
    give_levels(guest.state, outcome, result);
    Ok(())
}

/// `result<list<level>, limiter-error>`.
pub(super) fn give_levels(
    state: &mut State,
    outcome: Result<Vec<limiter::Level>, LimiterError>,
    result: u32,
) {
    let reply = &mut state.reply;
    reply.begin(result, 12, 4);
    match outcome {
        Ok(levels) => {
            let mut element = reply.list(4, levels.len(), 32, 8);
            for level in &levels {
                reply.put(element, level_bytes(level));
                element += 32;
            }
        }
        Err(error) => {
            reply.put(0, [1]);
            reply.put(4, [limiter_refusal(error)]);
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the canonical ABI flattens records"
)]
pub(super) fn charge(
    guest: Guest<'_>,
    at: u32,
    key: u32,
    length: u32,
    tokens: i64,
    capacity: u64,
    refill: u64,
    period: u64,
    full_at: u64,
    result: u32,
) -> Done {
    let arguments = (key, length, 0, capacity, refill, period, full_at);
    let Demand { key, bucket, .. } = demand(guest.memory, arguments)?;
    let outcome = guest.state.limiter_charge(place(at)?, key, tokens, bucket);
    put_level(guest.memory, result, outcome)
}

pub(super) fn enter(
    guest: Guest<'_>,
    at: u32,
    key: u32,
    length: u32,
    limit: u32,
    result: u32,
) -> Done {
    let key = text(guest.memory, key, length)?;
    let outcome = guest.state.limiter_enter(place(at)?, key, limit);
    // `result<entry, limiter-error>`: the payload stands at 4.
    let mut bytes = [0; 12];
    let [discriminant, _, _, _, first, _, _, _, in_flight @ ..] = &mut bytes;
    match outcome {
        Ok(entry) => {
            *first = u8::from(entry.allowed);
            *in_flight = entry.in_flight.to_le_bytes();
        }
        Err(error) => {
            *discriminant = 1;
            *first = limiter_refusal(error);
        }
    }
    put(guest.memory, result, 4, bytes)
}

// --- http-client ---

fn call_refusal(refusal: CallRefusal) -> u8 {
    match refusal {
        CallRefusal::NotGranted => 0,
        CallRefusal::InvalidRequest => 1,
        CallRefusal::Unreachable => 2,
        CallRefusal::TimedOut => 3,
        CallRefusal::ResponseTooLarge => 4,
        CallRefusal::Broken => 5,
        CallRefusal::NotNow => 6,
    }
}

/// The flat arguments of `http-client.call`: a string, then the record's members one after the other.
pub(super) type CallArguments = (
    (u32, u32),
    (u32, u32),
    (u32, u32),
    (u32, u32),
    (u32, u32),
    u32,
    u32,
);

/// Begins a call.
pub(super) fn call(
    guest: Guest<'_>,
    (upstream, method, path, list, body, timeout_ms, max_response): CallArguments,
) -> Done<Result<CallFuture, CallRefusal>> {
    let memory = &*guest.memory;
    let mut fields = Pairs::new(memory, list.0, list.1)?;
    let call = Call {
        upstream: text(memory, upstream.0, upstream.1)?,
        method: text(memory, method.0, method.1)?,
        path: text(memory, path.0, path.1)?,
        body: bytes(memory, body.0, body.1)?,
        timeout_ms,
        max_response,
    };
    let begun = guest.state.begin_call(call, &mut fields);
    fields.finish()?;
    Ok(begun)
}

/// Builds what a call ended with: `result<call-response, call-error>`.
pub(super) fn called(
    state: &mut State,
    outcome: Result<Response<Bytes>, CallRefusal>,
    result: u32,
) {
    let reply = &mut state.reply;
    reply.begin(result, 24, 4);
    match outcome {
        Ok(response) => {
            reply.put(4, response.status().as_u16().to_le_bytes());
            let fields = response.headers().iter();
            give_fields(
                reply,
                8,
                fields.map(|(name, value)| (name.as_str(), value.as_bytes())),
            );
            reply.bytes(16, response.body());
        }
        Err(reason) => {
            reply.put(0, [1]);
            reply.put(4, [call_refusal(reason)]);
        }
    }
}
