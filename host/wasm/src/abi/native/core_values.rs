//! Values as the canonical ABI passes them to and from a core module: enumerations, options, results and lists of
//! fields. Knows no host function.

use tidegate_core::exchange::{Part, Refusal};

use super::memory::{Reply, no_such_value, put};
use super::state::State;

/// The two sides of a crossing.
pub(super) struct Guest<'a> {
    pub(super) memory: &'a mut [u8],
    pub(super) state: &'a mut State,
}

/// How a crossing ends; an error is a trap.
pub(super) type Done<T = ()> = wasmtime::Result<T>;

pub(super) fn part(value: u32) -> Done<Part> {
    match value {
        0 => Ok(Part::Request),
        1 => Ok(Part::RequestTrailers),
        2 => Ok(Part::Response),
        3 => Ok(Part::ResponseTrailers),
        _ => Err(no_such_value("part", value)),
    }
}

/// A `u16`: the canonical ABI takes the low bits.
pub(super) fn short(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

pub(super) fn optional<T>(given: u32, value: impl FnOnce() -> Done<T>) -> Done<Option<T>> {
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

/// `result<_, ENUM>`: a discriminant, then the reason.
pub(super) fn put_unit(memory: &mut [u8], at: u32, outcome: Result<(), u8>) -> Done {
    let bytes = match outcome {
        Ok(()) => [0, 0],
        Err(reason) => [1, reason],
    };
    put(memory, at, 1, bytes)
}

/// `result<bool, ENUM>`.
pub(super) fn put_bool(memory: &mut [u8], at: u32, outcome: Result<bool, u8>) -> Done {
    let bytes = match outcome {
        Ok(value) => [0, u8::from(value)],
        Err(reason) => [1, reason],
    };
    put(memory, at, 1, bytes)
}

/// `result<u32, ENUM>`: the payload stands at 4.
pub(super) fn put_u32(memory: &mut [u8], at: u32, outcome: Result<u32, u8>) -> Done {
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

/// `list<field>` whose pointer and length stand at `at`.
pub(super) fn give_fields<'a>(
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
