//! What can be done to a value on its way from its source into the text. Knows no exchange.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::Source;
use super::render::percent_encode;

/// What is done to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Lower,
    Upper,
    Trim,
    /// The first element of a list with commas.
    First,
    /// The last element of a list with commas.
    Last,
    UrlEncode,
    UrlDecode,
    Base64,
    Base64Url,
    /// Either alphabet, with or without padding; nothing if it is not base64.
    Base64Decode,
    Hex,
    /// SHA-256, in hexadecimal digits.
    Sha256,
    /// As many bytes at most.
    Truncate(usize),
    /// In place of nothing.
    Fallback(Vec<u8>),
    /// Another source in place of nothing.
    Or(Source),
    /// Before something, not before nothing.
    Prefix(Vec<u8>),
    /// Behind something.
    Suffix(Vec<u8>),
}

const KNOWN: &str = "lower, upper, trim, first, last, url-encode, url-decode, base64, base64url, base64-decode, hex, \
                     sha256, truncate:N, fallback:TEXT, or:SOURCE, prefix:TEXT, suffix:TEXT";

impl Filter {
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let text = || {
            let text = argument.ok_or_else(|| format!("`{name}` needs a text behind a colon"))?;
            if text.bytes().any(super::parse::is_control) {
                return Err("a value can't hold a control character".to_owned());
            }
            Ok(text.as_bytes().to_vec())
        };
        let filter = match name {
            "truncate" => {
                let length = argument.and_then(|length| length.parse().ok());
                return length
                    .map(Filter::Truncate)
                    .ok_or_else(|| "`truncate` needs a number of bytes behind a colon".to_owned());
            }
            "fallback" => return text().map(Filter::Fallback),
            "prefix" => return text().map(Filter::Prefix),
            "suffix" => return text().map(Filter::Suffix),
            "lower" => Filter::Lower,
            "upper" => Filter::Upper,
            "trim" => Filter::Trim,
            "first" => Filter::First,
            "last" => Filter::Last,
            "url-encode" => Filter::UrlEncode,
            "url-decode" => Filter::UrlDecode,
            "base64" => Filter::Base64,
            "base64url" => Filter::Base64Url,
            "base64-decode" => Filter::Base64Decode,
            "hex" => Filter::Hex,
            "sha256" => Filter::Sha256,
            _ => return Err(format!("`{name}` is no filter; there is {KNOWN}")),
        };
        match argument {
            Some(_) => Err(format!("`{name}` takes nothing behind a colon")),
            None => Ok(filter),
        }
    }

    /// Changes a value. [`Filter::Or`] is not done here, because only who renders knows the sources.
    pub(super) fn apply(&self, value: &mut Vec<u8>) {
        match self {
            Filter::Lower => value.make_ascii_lowercase(),
            Filter::Upper => value.make_ascii_uppercase(),
            Filter::Trim => keep(value, |value| value.trim_ascii()),
            Filter::First => keep(value, |value| {
                let mut parts = value.split(|byte| *byte == b',');
                parts.next().unwrap_or_default().trim_ascii()
            }),
            Filter::Last => keep(value, |value| {
                let mut parts = value.rsplit(|byte| *byte == b',');
                parts.next().unwrap_or_default().trim_ascii()
            }),
            Filter::UrlEncode => {
                let from = std::mem::take(value);
                percent_encode(&from, is_unreserved, value);
            }
            Filter::UrlDecode => *value = url_decode(value, false),
            Filter::Base64 => *value = STANDARD.encode(&*value).into_bytes(),
            Filter::Base64Url => *value = URL_SAFE_NO_PAD.encode(&*value).into_bytes(),
            Filter::Base64Decode => *value = base64_decode(value),
            Filter::Hex => *value = hex(value),
            Filter::Sha256 => *value = hex(&Sha256::digest(&*value)),
            Filter::Truncate(length) => value.truncate(*length),
            Filter::Fallback(text) if value.is_empty() => value.extend_from_slice(text),
            Filter::Prefix(text) if !value.is_empty() => {
                value.splice(0..0, text.iter().copied());
            }
            Filter::Suffix(text) if !value.is_empty() => value.extend_from_slice(text),
            Filter::Fallback(_) | Filter::Prefix(_) | Filter::Suffix(_) | Filter::Or(_) => {}
        }
    }
}

fn keep(value: &mut Vec<u8>, part: impl FnOnce(&[u8]) -> &[u8]) {
    *value = part(value).to_vec();
}

/// Characters that mean nothing anywhere in an address (RFC 3986 section 2.3).
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |value: u8| match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    };
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Escapes resolved; what is no escape stays. In forms, `+` is a space.
pub(crate) fn url_decode(value: &[u8], form: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, behind @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let decoded = digit(high).zip(digit(low));
                match decoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
                    Some(byte) => {
                        out.push(byte);
                        rest = behind;
                    }
                    None => out.push(b'%'),
                }
            }
            (b'+', _) if form => out.push(b' '),
            _ => out.push(*first),
        }
    }
    out
}

fn base64_decode(value: &[u8]) -> Vec<u8> {
    let unpadded: Vec<u8> = value
        .iter()
        .filter(|byte| **byte != b'=')
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    URL_SAFE_NO_PAD.decode(unpadded).unwrap_or_default()
}
