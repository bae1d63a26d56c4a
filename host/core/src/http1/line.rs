//! What may stand in a field's line (RFC 9112 section 5).

/// The name and the value of a field's line that stands without its line end: a token, a colon right behind it, and no control
/// character but tabs. White space around the value is no part of it. None for what is no such line: one that is folded
/// (RFC 9112 section 5.2) or has a space before its colon is none.
pub fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| !is_token(*byte))?;
    match line.split_at_checked(colon)? {
        (name @ [_, ..], [b':', value @ ..]) if !value.iter().copied().any(is_control) => {
            Some((name, trim(value)))
        }
        _ => None,
    }
}

/// Takes spaces and tabs off both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What may stand in a token (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let it = byte as u8;
            #[expect(clippy::indexing_slicing, reason = "below 256")]
            {
                table[byte] = it.is_ascii_alphanumeric()
                    || matches!(
                        it,
                        b'!' | b'#'
                            | b'$'
                            | b'%'
                            | b'&'
                            | b'\''
                            | b'*'
                            | b'+'
                            | b'-'
                            | b'.'
                            | b'^'
                            | b'_'
                            | b'`'
                            | b'|'
                            | b'~'
                    );
            }
            byte += 1;
        }
        table
    };
    TOKEN.get(usize::from(byte)).copied().unwrap_or_default()
}

/// What may not stand in a value (RFC 9110 section 5.5): control characters but the tab.
pub fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7F
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_token_a_colon_and_a_value() {
        for (line, expected) in [
            ("A: b", ("A", "b")),
            ("a:\t b c \t", ("a", "b c")),
            ("a:", ("a", "")),
            ("x!#$%&'*+-.^_`|~9: :", ("x!#$%&'*+-.^_`|~9", ":")),
        ] {
            let found = split(line.as_bytes());
            assert_eq!(found, Some((expected.0.as_bytes(), expected.1.as_bytes())));
        }
        for line in [
            "",
            ":",
            ": a",
            "a",
            "a b: c",
            "a : b",
            " a: b",
            "a: \0",
            "a: \x7f",
            "a: b\rc",
            "\u{e9}: a",
        ] {
            assert_eq!(split(line.as_bytes()), None, "{line:?}");
        }
    }
}
