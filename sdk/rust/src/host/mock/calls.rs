//! The mock's functions on the exchange, one for each of the contract's.

use super::{fields, with};
use crate::host::Part;
use crate::phase::Refusal;
use crate::views::{CertificateFacts, TlsFacts};

pub(crate) fn get(part: Part, name: &str) -> Option<Vec<u8>> {
    get_all(part, name).into_iter().next()
}

/// `host` of a request is its authority.
pub(crate) fn get_all(part: Part, name: &str) -> Vec<Vec<u8>> {
    with(|host| {
        let exchange = &host.exchange;
        if part == Part::Request && name.eq_ignore_ascii_case("host") {
            return vec![exchange.authority.clone().into_bytes()];
        }
        let fields = exchange.fields(part).into_iter().flatten();
        fields
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            .collect()
    })
}

pub(crate) fn count(part: Part) -> u32 {
    with(|host| {
        let count = host.exchange.fields(part).map_or(0, Vec::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    })
}

pub(crate) fn at(part: Part, index: u32) -> Option<(String, Vec<u8>)> {
    with(|host| host.exchange.fields(part)?.get(index as usize).cloned())
}

pub(crate) fn set(part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    with(|host| {
        let (fields, name) = host.exchange.changeable(part, name)?;
        fields::set(fields, name, value)
    })
}

pub(crate) fn append(part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    with(|host| {
        let (fields, name) = host.exchange.changeable(part, name)?;
        fields::append(fields, name, value)
    })
}

pub(crate) fn remove(part: Part, name: &str) -> Result<u32, Refusal> {
    with(|host| {
        let (fields, name) = host.exchange.changeable(part, name)?;
        Ok(fields::remove(fields, &name))
    })
}

macro_rules! read {
    ($($name:ident $field:ident -> $ty:ty),* $(,)?) => {
        $(pub(crate) fn $name() -> $ty { with(|host| host.exchange.$field.clone()) })*
    };
}

read! {
    method method -> String,
    scheme scheme -> String,
    authority authority -> String,
    path path -> String,
    query query -> Option<String>,
    status status -> u16,
    client_address client -> String,
    client_port port -> u16,
    protocol protocol -> String,
    tls tls -> Option<TlsFacts>,
    client_certificate certificate -> Option<CertificateFacts>,
    route route -> String,
    request_id request_id -> String,
}

macro_rules! write {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(pub(crate) fn $name(value: $ty) -> Result<(), Refusal> { with(|host| host.exchange.$name(value)) })*
    };
}

write! {
    set_method(&str),
    set_scheme(&str),
    set_authority(&str),
    set_path(&str),
    set_query(Option<&str>),
    set_status(u16),
}

pub(crate) fn elapsed() -> u64 {
    with(|host| host.monotonic.saturating_sub(host.exchange.began))
}

pub(crate) fn delay(milliseconds: u32) -> Result<(), Refusal> {
    with(|host| host.exchange.set_delay(milliseconds))
}

pub(crate) fn answer(
    status: u16,
    fields: &[(String, Vec<u8>)],
    body: &[u8],
) -> Result<(), Refusal> {
    with(|host| host.exchange.give_answer(status, fields, body))
}

pub(crate) fn path_parameter(name: &str) -> Option<String> {
    with(|host| {
        let mut parameters = host.exchange.parameters.iter();
        parameters
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    })
}

pub(crate) fn property(name: &str) -> Option<Vec<u8>> {
    with(|host| {
        let mut properties = host.exchange.properties.iter();
        properties
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    })
}

pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), Refusal> {
    with(|host| host.exchange.set_property(name, value))
}

pub(crate) fn body_read(offset: u32, max: u32) -> Vec<u8> {
    with(|host| {
        if !host.exchange.has_piece() {
            return Vec::new();
        }
        let piece = host.exchange.piece.iter();
        piece
            .skip(offset as usize)
            .take(max as usize)
            .copied()
            .collect()
    })
}

pub(crate) fn body_replace(bytes: &[u8]) {
    with(|host| {
        if host.exchange.has_piece() {
            host.exchange.piece = bytes.to_vec();
        }
    });
}

pub(crate) fn body_append(bytes: &[u8]) {
    with(|host| {
        if host.exchange.has_piece() {
            host.exchange.piece.extend_from_slice(bytes);
        }
    });
}
