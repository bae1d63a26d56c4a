//! The rules on names and values that a filter gives, and how a list of fields is changed. Knows no exchange.

use crate::phase::Refusal;

/// Fields in their order, names in lower case, those of one name together.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The most fields of one head.
const MAX_FIELDS: usize = 256;
/// The longest value, path or query, in bytes.
pub(super) const MAX_VALUE: usize = 32 * 1024;
/// The most bytes of names and values in one head.
const MAX_HEAD: usize = 64 * 1024;

/// Fields that the host answers for: framing, connection management and routing.
const HOSTS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that may not come behind a body, besides those of the host (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: [&str; 7] = [
    "authorization",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "set-cookie",
    "x-forwarded-for",
];

/// Checks a name and gives it in lower case.
pub(super) fn name(name: &str, trailer: bool) -> Result<String, Refusal> {
    if !is_token(name) {
        return Err(Refusal::InvalidName);
    }
    let name = name.to_ascii_lowercase();
    if HOSTS.contains(&name.as_str()) || (trailer && NOT_IN_TRAILERS.contains(&name.as_str())) {
        return Err(Refusal::Forbidden);
    }
    Ok(name)
}

/// Checks a value.
fn value(value: &[u8]) -> Result<(), Refusal> {
    if value.len() > MAX_VALUE {
        return Err(Refusal::TooLarge);
    }
    if value
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(Refusal::InvalidValue);
    }
    Ok(())
}

/// Whether a text is a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Puts one value in place of all values of a field.
pub(super) fn set(fields: &mut Fields, name: String, new: &[u8]) -> Result<(), Refusal> {
    value(new)?;
    let rest: Fields = fields
        .iter()
        .filter(|(known, _)| *known != name)
        .cloned()
        .collect();
    room(&rest, &name, new)?;
    let at = fields.iter().position(|(known, _)| *known == name);
    *fields = rest;
    fields.insert(at.unwrap_or(fields.len()), (name, new.to_vec()));
    Ok(())
}

/// Adds a value behind those that a field has.
pub(super) fn append(fields: &mut Fields, name: String, new: &[u8]) -> Result<(), Refusal> {
    value(new)?;
    room(fields, &name, new)?;
    let last = fields.iter().rposition(|(known, _)| *known == name);
    let at = last.map_or(fields.len(), |last| last + 1);
    fields.insert(at, (name, new.to_vec()));
    Ok(())
}

/// Removes all values of a field and says how many there were.
pub(super) fn remove(fields: &mut Fields, name: &str) -> u32 {
    let before = fields.len();
    fields.retain(|(known, _)| known != name);
    u32::try_from(before - fields.len()).unwrap_or(u32::MAX)
}

fn room(fields: &Fields, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let held: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if fields.len() >= MAX_FIELDS || held + name.len() + value.len() > MAX_HEAD {
        return Err(Refusal::TooLarge);
    }
    Ok(())
}
