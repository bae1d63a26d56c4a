//! The contract's host functions as a core module calls them: arguments out of its memory, results into it, as the
//! canonical ABI lays them out. Every function here is one crossing; what it does stands in `host`.
//!
//! A function that hands over strings or lists builds its result in [`State::reply`](super::state::State) and is
//! entered as `gives` in the table of `core_imports`; the others write their result themselves.

use bytes::Bytes;
use http::Response;
use tidegate_core::exchange::{Part, Refusal};
use tidegate_core::services::{CallFuture, Level};

use super::figures::Define;
use super::host::{self, Call, CallRefusal, StoreRefusal};
use super::memory::{self, Pairs, Reply, bytes, no_such_value, put, text};
use super::state::State;

/// The two sides of a crossing.
pub(super) struct Guest<'a> {
    pub(super) memory: &'a mut [u8],
    pub(super) state: &'a mut State,
}

type Done<T = ()> = wasmtime::Result<T>;

// --- Values ---

fn part(value: u32) -> Done<Part> {
    match value {
        0 => Ok(Part::Request),
        1 => Ok(Part::RequestTrailers),
        2 => Ok(Part::Response),
        3 => Ok(Part::ResponseTrailers),
        _ => Err(no_such_value("part", value)),
    }
}

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

/// A `u16`: the canonical ABI takes the low bits.
fn short(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn optional<T>(given: u32, value: impl FnOnce() -> Done<T>) -> Done<Option<T>> {
    match given {
        0 => Ok(None),
        1 => value().map(Some),
        _ => Err(no_such_value("option", given)),
    }
}

pub(super) fn refusal(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::InvalidName => 0,
        Refusal::InvalidValue => 1,
        Refusal::Forbidden => 2,
        Refusal::TooLate => 3,
        Refusal::TooLarge => 4,
        Refusal::Absent => 5,
    }
}

fn store_refusal(refusal: StoreRefusal) -> u8 {
    match refusal {
        StoreRefusal::NotGranted => 0,
        StoreRefusal::TooLarge => 1,
        StoreRefusal::NotANumber => 2,
        StoreRefusal::Unavailable => 3,
    }
}

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

/// `result<_, ENUM>`: a discriminant, then the reason.
fn put_unit(memory: &mut [u8], at: u32, outcome: Result<(), u8>) -> Done {
    let bytes = match outcome {
        Ok(()) => [0, 0],
        Err(reason) => [1, reason],
    };
    put(memory, at, 1, bytes)
}

/// `result<bool, ENUM>`.
fn put_bool(memory: &mut [u8], at: u32, outcome: Result<bool, u8>) -> Done {
    let bytes = match outcome {
        Ok(value) => [0, u8::from(value)],
        Err(reason) => [1, reason],
    };
    put(memory, at, 1, bytes)
}

/// `result<u32, ENUM>`: the payload stands at 4.
fn put_u32(memory: &mut [u8], at: u32, outcome: Result<u32, u8>) -> Done {
    let mut bytes = [0; 8];
    let [discriminant, _, _, _, payload @ ..] = &mut bytes;
    match outcome {
        Ok(value) => *payload = value.to_le_bytes(),
        Err(reason) => {
            *discriminant = 1;
            *payload = u32::from(reason).to_le_bytes();
        }
    }
    put(memory, at, 4, bytes)
}

// --- exchange: fields ---

pub(super) fn get(guest: Guest<'_>, place: u32, name: u32, length: u32, result: u32) -> Done {
    let place = part(place)?;
    let name = text(guest.memory, name, length)?;
    give_option(guest.state, result, |exchange| exchange.get(place, name))
}

/// Hands over `option<list<u8>>` or `option<string>`.
fn give_option(
    state: &mut State,
    result: u32,
    value: impl FnOnce(&tidegate_core::exchange::Exchange) -> Option<&[u8]>,
) -> Done {
    state.reply.begin(result, 12, 4);
    state.reply_from(|exchange, reply| {
        if let Some(value) = value(exchange) {
            reply.put(0, [1]);
            reply.bytes(4, value);
        }
    });
    Ok(())
}

pub(super) fn get_all(guest: Guest<'_>, place: u32, name: u32, length: u32, result: u32) -> Done {
    let place = part(place)?;
    let name = text(guest.memory, name, length)?;
    guest.state.reply.begin(result, 8, 4);
    guest.state.reply_from(|exchange, reply| {
        let count = host::values(exchange, place, name).count();
        let mut at = reply.list(0, count, 8, 4);
        for value in host::values(exchange, place, name) {
            reply.bytes(at, value);
            at += 8;
        }
    });
    give_empty_list(guest.state);
    Ok(())
}

/// A list without elements still has a pointer, which the guest allocates.
fn give_empty_list(state: &mut State) {
    if state.reply.wanted(1).is_none() {
        state.reply.list(0, 0, 0, 4);
    }
}

pub(super) fn count(guest: Guest<'_>, place: u32) -> Done<u32> {
    let place = part(place)?;
    Ok(guest.state.read(|exchange| host::count(exchange, place)))
}

pub(super) fn at(guest: Guest<'_>, place: u32, index: u32, result: u32) -> Done {
    let place = part(place)?;
    guest.state.reply.begin(result, 20, 4);
    guest.state.reply_from(|exchange, reply| {
        if let Some((name, value)) = host::all(exchange, place).nth(index as usize) {
            reply.put(0, [1]);
            reply.bytes(4, name.as_bytes());
            reply.bytes(12, value);
        }
    });
    Ok(())
}

pub(super) fn all(guest: Guest<'_>, place: u32, result: u32) -> Done {
    let place = part(place)?;
    guest.state.reply.begin(result, 8, 4);
    guest.state.reply_from(|exchange, reply| {
        give_fields(reply, 0, host::all(exchange, place));
    });
    give_empty_list(guest.state);
    Ok(())
}

/// `list<field>` whose pointer and length stand at `at`.
fn give_fields<'a>(
    reply: &mut Reply,
    at: usize,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) {
    let fields: Vec<_> = fields.collect();
    let mut element = reply.list(at, fields.len(), 16, 4);
    for (name, value) in fields {
        reply.bytes(element, name.as_bytes());
        reply.bytes(element + 8, value);
        element += 16;
    }
}

pub(super) fn set(
    guest: Guest<'_>,
    place: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
    result: u32,
) -> Done {
    let place = part(place)?;
    let name = text(guest.memory, name, name_length)?;
    let value = bytes(guest.memory, value, value_length)?;
    let outcome = guest
        .state
        .change(|exchange| exchange.set(place, name, value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn append(
    guest: Guest<'_>,
    place: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
    result: u32,
) -> Done {
    let place = part(place)?;
    let name = text(guest.memory, name, name_length)?;
    let value = bytes(guest.memory, value, value_length)?;
    let outcome = guest
        .state
        .change(|exchange| exchange.append(place, name, value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn remove(guest: Guest<'_>, place: u32, name: u32, length: u32, result: u32) -> Done {
    let place = part(place)?;
    let name = text(guest.memory, name, length)?;
    let outcome = guest.state.change(|exchange| exchange.remove(place, name));
    put_u32(guest.memory, result, outcome.map_err(refusal))
}

// --- exchange: request line, status, answer ---

/// Hands over a string.
fn give_text(
    guest: Guest<'_>,
    result: u32,
    value: impl FnOnce(&tidegate_core::exchange::Exchange) -> &str,
) -> Done {
    guest.state.reply.begin(result, 8, 4);
    guest
        .state
        .reply_from(|exchange, reply| reply.bytes(0, value(exchange).as_bytes()));
    if guest.state.reply.wanted(1).is_none() {
        guest.state.reply.bytes(0, &[]);
    }
    Ok(())
}

pub(super) fn method(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, |exchange| exchange.request.method.as_str())
}

pub(super) fn set_method(guest: Guest<'_>, value: u32, length: u32, result: u32) -> Done {
    let value = text(guest.memory, value, length)?;
    let outcome = guest.state.change(|exchange| exchange.set_method(value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn scheme(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, |exchange| exchange.request.scheme.as_str())
}

pub(super) fn set_scheme(guest: Guest<'_>, value: u32, length: u32, result: u32) -> Done {
    let value = text(guest.memory, value, length)?;
    let outcome = guest.state.change(|exchange| exchange.set_scheme(value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn authority(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, host::authority)
}

pub(super) fn set_authority(guest: Guest<'_>, value: u32, length: u32, result: u32) -> Done {
    let value = text(guest.memory, value, length)?;
    let outcome = guest.state.change(|exchange| exchange.set_authority(value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn path(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, |exchange| exchange.request.target.path())
}

pub(super) fn set_path(guest: Guest<'_>, value: u32, length: u32, result: u32) -> Done {
    let value = text(guest.memory, value, length)?;
    let outcome = guest.state.change(|exchange| exchange.set_path(value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn query(guest: Guest<'_>, result: u32) -> Done {
    give_option(guest.state, result, |exchange| {
        exchange.request.target.query().map(str::as_bytes)
    })
}

pub(super) fn set_query(
    guest: Guest<'_>,
    given: u32,
    value: u32,
    length: u32,
    result: u32,
) -> Done {
    let value = optional(given, || text(guest.memory, value, length))?;
    let outcome = guest.state.change(|exchange| exchange.set_query(value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn status(guest: Guest<'_>) -> Done<u32> {
    Ok(u32::from(guest.state.read(host::status)))
}

pub(super) fn set_status(guest: Guest<'_>, status: u32, result: u32) -> Done {
    let outcome = guest
        .state
        .change(|exchange| exchange.set_status(short(status)));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn answer(
    guest: Guest<'_>,
    status: u32,
    fields: u32,
    fields_count: u32,
    body: u32,
    body_length: u32,
    result: u32,
) -> Done {
    let mut fields = Pairs::new(guest.memory, fields, fields_count)?;
    let body = bytes(guest.memory, body, body_length)?;
    let outcome = guest.state.change(|exchange| {
        exchange.give_answer(short(status), &mut fields, Bytes::copy_from_slice(body))
    });
    fields.finish()?;
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

// --- exchange: facts ---

pub(super) fn client_address(guest: Guest<'_>, result: u32) -> Done {
    guest.state.reply.begin(result, 8, 4);
    guest
        .state
        .reply_from(|exchange, reply| reply.display(0, exchange.client.address));
    if guest.state.reply.wanted(1).is_none() {
        guest.state.reply.bytes(0, &[]);
    }
    Ok(())
}

pub(super) fn client_port(guest: Guest<'_>) -> Done<u32> {
    Ok(guest
        .state
        .read(|exchange| u32::from(exchange.client.peer.port())))
}

pub(super) fn protocol(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, |exchange| host::protocol(exchange))
}

pub(super) fn tls(guest: Guest<'_>, result: u32) -> Done {
    guest.state.reply.begin(result, 44, 4);
    guest.state.reply_from(|exchange, reply| {
        let Some(facts) = &exchange.client.tls else {
            return;
        };
        reply.put(0, [1]);
        reply.bytes(4, facts.version.as_bytes());
        reply.bytes(12, facts.cipher.as_bytes());
        for (at, value) in [(20, &facts.server_name), (32, &facts.alpn)] {
            if let Some(value) = value {
                reply.put(at, [1]);
                reply.bytes(at + 4, value.as_bytes());
            }
        }
    });
    Ok(())
}

pub(super) fn route(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, |exchange| &exchange.route)
}

pub(super) fn path_parameter(guest: Guest<'_>, name: u32, length: u32, result: u32) -> Done {
    let name = text(guest.memory, name, length)?;
    give_option(guest.state, result, |exchange| {
        exchange.parameter(name).map(str::as_bytes)
    })
}

pub(super) fn request_id(guest: Guest<'_>, result: u32) -> Done {
    give_text(guest, result, host::request_id)
}

pub(super) fn property(guest: Guest<'_>, name: u32, length: u32, result: u32) -> Done {
    let name = text(guest.memory, name, length)?;
    give_option(guest.state, result, |exchange| exchange.property(name))
}

pub(super) fn set_property(
    guest: Guest<'_>,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
    result: u32,
) -> Done {
    let name = text(guest.memory, name, name_length)?;
    let value = bytes(guest.memory, value, value_length)?;
    let outcome = guest
        .state
        .change(|exchange| exchange.set_property(name, value));
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

// --- body ---

pub(super) fn read(guest: Guest<'_>, offset: u32, max: u32, result: u32) -> Done {
    let length = guest
        .state
        .read(|exchange| host::readable(exchange, offset, max));
    guest.state.reply.begin(result, 8, 4);
    guest.state.reply.chunk(0, offset, length);
    Ok(())
}

pub(super) fn replace(guest: Guest<'_>, value: u32, length: u32) -> Done {
    let value = bytes(guest.memory, value, length)?;
    guest.state.change_chunk(value, false)
}

pub(super) fn append_body(guest: Guest<'_>, value: u32, length: u32) -> Done {
    let value = bytes(guest.memory, value, length)?;
    guest.state.change_chunk(value, true)
}

// --- log, clock, random, environment ---

pub(super) fn log_enabled(guest: Guest<'_>, of: u32) -> Done<u32> {
    Ok(u32::from(guest.state.log_enabled(level(of)?)))
}

pub(super) fn log_write(guest: Guest<'_>, of: u32, message: u32, length: u32) -> Done {
    let message = text(guest.memory, message, length)?;
    guest.state.log_write(level(of)?, message);
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
    let facts = std::sync::Arc::clone(&guest.state.facts);
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

// --- http-client ---

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
