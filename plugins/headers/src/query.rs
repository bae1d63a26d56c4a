//! The query as parameters, as forms write them. What is not changed stays as it was spelled. Knows no exchange.

use crate::template::{is_unreserved, percent_encode, url_decode};

/// The name and the value of each parameter, as they are written; a parameter without `=` has no value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (part, None),
    })
}

/// What stands behind a spelling.
pub(crate) fn decode(written: &str) -> Vec<u8> {
    url_decode(written.as_bytes(), true)
}

/// A name or a value as it may stand in a query.
pub(crate) fn encode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    percent_encode(text, is_unreserved, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Whether a name as it is written stands for `name`.
pub(crate) fn is(written: &str, name: &str) -> bool {
    written == name || written.contains(['%', '+']) && decode(written) == name.as_bytes()
}

/// The first value of a parameter, decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let (_, value) = pairs(query).find(|(written, _)| is(written, name))?;
    Some(decode(value.unwrap_or_default()))
}
