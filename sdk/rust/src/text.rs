//! Texts put together while the compiler runs: what the schemas and manifests are made of. Knows JSON's quotes and nothing else
//! of it.
#![expect(
    clippy::indexing_slicing,
    reason = "this runs at compile time, where an index out of bounds is an error of the compiler"
)]

/// Room for a schema whose length the compiler can't name; it exists at compile time only.
pub(crate) struct Buffer {
    bytes: [u8; 32 * 1024],
    length: usize,
}

impl Buffer {
    pub(crate) const fn concat(pieces: &[&str]) -> Self {
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

    pub(crate) const fn as_str(&self) -> &str {
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
        const LENGTH: usize = $crate::text::total(PIECES);
        const BYTES: [u8; LENGTH] = $crate::text::join::<LENGTH>(PIECES);
        $crate::text::text(&BYTES)
    }};
}

/// A text as a JSON string, at compile time.
#[doc(hidden)]
#[macro_export]
macro_rules! __quote {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const LENGTH: usize = $crate::text::quoted_length(TEXT);
        const BYTES: [u8; LENGTH] = $crate::text::quoted::<LENGTH>(TEXT);
        $crate::text::text(&BYTES)
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_is_quoted_as_json_has_it() {
        const TEXT: &str = crate::schema::quote!("a\"b\\c\n\u{e9}");
        let back: String = serde_json::from_str(TEXT).unwrap();
        assert_eq!(back, "a\"b\\c\n\u{e9}");
    }
}
