//! The interfaces `exchange` and `body` as a core module calls them. Every function here is one crossing; what it
//! does stands in `host` and in the exchange itself.
//!
//! A function that hands over strings or lists builds its result in the state's reply and is entered as `gives` in
//! the table of `core_imports`; the others write their result themselves.

use bytes::Bytes;
use tidegate_core::exchange::Exchange;

use super::core_values::{
    Done, Guest, give_fields, optional, part, put_u32, put_unit, refusal, short,
};
use super::host;
use super::memory::{Pairs, bytes, text};
use super::state::State;

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
    value: impl FnOnce(&Exchange) -> Option<&[u8]>,
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
fn give_text(guest: Guest<'_>, result: u32, value: impl FnOnce(&Exchange) -> &str) -> Done {
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
    let outcome = guest.state.fits(body).and_then(|()| {
        guest.state.change(|exchange| {
            exchange.give_answer(short(status), &mut fields, Bytes::copy_from_slice(body))
        })
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

pub(super) fn elapsed(guest: Guest<'_>) -> Done<u64> {
    Ok(guest.state.read(|exchange| exchange.pace.elapsed()))
}

pub(super) fn delay(guest: Guest<'_>, milliseconds: u32, result: u32) -> Done {
    let outcome = guest.state.delay(milliseconds);
    put_unit(guest.memory, result, outcome.map_err(refusal))
}

pub(super) fn client_certificate(guest: Guest<'_>, result: u32) -> Done {
    guest.state.reply.begin(result, 88, 8);
    guest.state.reply_from(|exchange, reply| {
        let Some(facts) = host::client_certificate(exchange) else {
            return;
        };
        reply.put(0, [1]);
        for (at, text) in [
            (8, &facts.subject),
            (16, &facts.issuer),
            (24, &facts.serial),
            (48, &facts.sha256),
        ] {
            reply.bytes(at, text.as_bytes());
        }
        reply.put(32, facts.not_before.to_le_bytes());
        reply.put(40, facts.not_after.to_le_bytes());
        for (at, names) in [
            (56, &facts.dns_names),
            (64, &facts.uris),
            (72, &facts.emails),
            (80, &facts.ip_addresses),
        ] {
            let mut element = reply.list(at, names.len(), 8, 4);
            for name in names {
                reply.bytes(element, name.as_bytes());
                element += 8;
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
