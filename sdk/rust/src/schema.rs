//! JSON Schemas as constants, so that a filter's manifest can carry the schema of its configuration without running.

#![allow(
    clippy::indexing_slicing,
    reason = "runs in the compiler only, where an index past the end is a compile error"
)]

use std::collections::{BTreeMap, HashMap};

/// A type with a JSON Schema. Derive it for configuration types; documentation comments become descriptions.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Deserialize, ConfigSchema)]
/// #[serde(rename_all = "kebab-case", deny_unknown_fields)]
/// struct Config {
///     /// What to say.
///     greeting: String,
/// }
/// assert!(Config::SCHEMA.contains("What to say."));
/// ```
pub trait ConfigSchema {
    /// The schema, as JSON.
    const SCHEMA: &'static str;

    /// Whether this is the type of a filter that takes no configuration.
    #[doc(hidden)]
    const TAKES_NOTHING: bool = false;
}

impl ConfigSchema for () {
    const SCHEMA: &'static str = "{\"type\":\"object\",\"additionalProperties\":false}";
    const TAKES_NOTHING: bool = true;
}

macro_rules! plain {
    ($($ty:ty => $schema:literal),* $(,)?) => {
        $(impl ConfigSchema for $ty { const SCHEMA: &'static str = $schema; })*
    };
}

plain! {
    bool => "{\"type\":\"boolean\"}",
    String => "{\"type\":\"string\"}",
    f32 => "{\"type\":\"number\"}",
    f64 => "{\"type\":\"number\"}",
    u8 => "{\"type\":\"integer\",\"minimum\":0,\"maximum\":255}",
    u16 => "{\"type\":\"integer\",\"minimum\":0,\"maximum\":65535}",
    u32 => "{\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295}",
    u64 => "{\"type\":\"integer\",\"minimum\":0}",
    i32 => "{\"type\":\"integer\"}",
    i64 => "{\"type\":\"integer\"}",
    serde_json::Value => "{}",
}

impl<T: ConfigSchema> ConfigSchema for Option<T> {
    const SCHEMA: &'static str = T::SCHEMA;
}

impl<T: ConfigSchema> ConfigSchema for Box<T> {
    const SCHEMA: &'static str = T::SCHEMA;
}

impl<T: ConfigSchema> ConfigSchema for Vec<T> {
    const SCHEMA: &'static str =
        Buffer::concat(&["{\"type\":\"array\",\"items\":", T::SCHEMA, "}"]).as_str();
}

impl<T: ConfigSchema> ConfigSchema for BTreeMap<String, T> {
    const SCHEMA: &'static str = Buffer::concat(&[
        "{\"type\":\"object\",\"additionalProperties\":",
        T::SCHEMA,
        "}",
    ])
    .as_str();
}

impl<T: ConfigSchema> ConfigSchema for HashMap<String, T> {
    const SCHEMA: &'static str = <BTreeMap<String, T> as ConfigSchema>::SCHEMA;
}

/// Room for a schema whose length the compiler can't name; it exists at compile time only.
struct Buffer {
    bytes: [u8; 32 * 1024],
    length: usize,
}

impl Buffer {
    const fn concat(pieces: &[&str]) -> Self {
        let mut buffer = Buffer {
            bytes: [0; 32 * 1024],
            length: 0,
        };
        let mut piece = 0;
        while piece < pieces.len() {
            let text = pieces[piece].as_bytes();
            let mut at = 0;
            while at < text.len() {
                buffer.bytes[buffer.length] = text[at];
                buffer.length += 1;
                at += 1;
            }
            piece += 1;
        }
        buffer
    }

    const fn as_str(&self) -> &str {
        text(self.bytes.split_at(self.length).0)
    }
}

/// Bytes that are known to be UTF-8, because they were put together from whole texts.
#[doc(hidden)]
pub const fn text(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

#[doc(hidden)]
pub const fn total(pieces: &[&str]) -> usize {
    let (mut sum, mut piece) = (0, 0);
    while piece < pieces.len() {
        sum += pieces[piece].len();
        piece += 1;
    }
    sum
}

#[doc(hidden)]
pub const fn join<const N: usize>(pieces: &[&str]) -> [u8; N] {
    let (mut out, mut length, mut piece) = ([0; N], 0, 0);
    while piece < pieces.len() {
        let text = pieces[piece].as_bytes();
        let mut at = 0;
        while at < text.len() {
            out[length] = text[at];
            length += 1;
            at += 1;
        }
        piece += 1;
    }
    out
}

const fn escape(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

#[doc(hidden)]
pub const fn quoted_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut length, mut at) = (2, 0);
    while at < bytes.len() {
        length += if escape(bytes[at]) { 6 } else { 1 };
        at += 1;
    }
    length
}

#[doc(hidden)]
pub const fn quoted<const N: usize>(text: &str) -> [u8; N] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let (mut out, mut length, mut at) = ([b'"'; N], 1, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        if escape(byte) {
            let escaped = [
                b'\\',
                b'u',
                b'0',
                b'0',
                DIGITS[(byte >> 4) as usize],
                DIGITS[(byte & 15) as usize],
            ];
            let mut digit = 0;
            while digit < 6 {
                out[length] = escaped[digit];
                length += 1;
                digit += 1;
            }
        } else {
            out[length] = byte;
            length += 1;
        }
        at += 1;
    }
    out
}

/// Texts put together at compile time.
#[doc(hidden)]
#[macro_export]
macro_rules! __concat {
    ($($piece:expr),* $(,)?) => {{
        const PIECES: &[&str] = &[$($piece),*];
        const LENGTH: usize = $crate::schema::total(PIECES);
        const BYTES: [u8; LENGTH] = $crate::schema::join::<LENGTH>(PIECES);
        $crate::schema::text(&BYTES)
    }};
}

/// A text as a JSON string, at compile time.
#[doc(hidden)]
#[macro_export]
macro_rules! __quote {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const LENGTH: usize = $crate::schema::quoted_length(TEXT);
        const BYTES: [u8; LENGTH] = $crate::schema::quoted::<LENGTH>(TEXT);
        $crate::schema::text(&BYTES)
    }};
}

#[doc(hidden)]
pub use crate::{__concat as concat, __quote as quote};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_json() {
        const TEXT: &str = quote!("a\"b\\c\n");
        assert_eq!(serde_json::from_str::<String>(TEXT).unwrap(), "a\"b\\c\n");
        let schema: serde_json::Value =
            serde_json::from_str(<Vec<Option<BTreeMap<String, u8>>>>::SCHEMA).unwrap();
        assert_eq!(schema["items"]["additionalProperties"]["maximum"], 255);
    }
}
