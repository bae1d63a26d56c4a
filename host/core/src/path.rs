//! The one normal form of a path (RFC 3986 section 6.2.2): what routes match, filters read and upstreams get.
//! Two spellings of one path must never be told apart by one of them and not by another, so whatever could be
//! read in two ways is refused. Knows no routes.

use std::borrow::Cow;

/// Why a path has no normal form here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("a path must begin with `/`")]
    Relative,
    /// A percent sign without two hexadecimal digits.
    #[error("a `%` in a path must be followed by two hexadecimal digits")]
    BadEscape,
    /// A byte that may not stand in a path: a control character, space, `#`, `?`, `\` and the like.
    #[error("the path has a character that may not stand there")]
    BadCharacter,
    /// An escape that servers read in different ways: `%2F`, `%5C`, `%00`, `%23`, `%3B`, `%3F` or a control
    /// character; or a dot segment with a parameter, `..;x`.
    #[error("the path has a part that servers read in different ways")]
    Ambiguous,
}

/// What to do with parts of a path that servers read in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguous {
    /// No normal form: [`PathError::Ambiguous`].
    #[default]
    Refuse,
    /// Kept as they are, escapes in upper case. Control characters are refused all the same.
    Keep,
}

/// Brings a path (without query) into normal form: escaped unreserved characters decoded once, other escapes in
/// upper case, bytes above 0x7F escaped, runs of slashes made one, dot segments removed. A path that is in
/// normal form already is not copied.
///
/// # Errors
/// See [`PathError`].
pub fn normalise(path: &str, ambiguous: Ambiguous) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::Relative);
    }
    if is_plain(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes, ambiguous)?;
    // Servers that take parameters off a segment read `/..;x` as `/..`.
    let hides_dots = ["/.;", "/..;"].iter().any(|dots| decoded.contains(dots));
    if hides_dots && ambiguous == Ambiguous::Refuse {
        return Err(PathError::Ambiguous);
    }
    Ok(Cow::Owned(remove_dot_segments(&decoded)))
}

/// Whether a path holds only characters that stay as they are, no run of slashes and no dot behind a slash.
fn is_plain(bytes: &[u8]) -> bool {
    let mut slash = false;
    for &byte in bytes {
        if !is_path_char(byte) || (slash && (byte == b'/' || byte == b'.')) {
            return false;
        }
        slash = byte == b'/';
    }
    true
}

/// RFC 3986 `pchar` without escapes, and the slash.
fn is_path_char(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Handles the escapes, once, from left to right. The result is ASCII.
fn decode(bytes: &[u8], ambiguous: Ambiguous) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (hex(rest.next()), hex(rest.next())) else {
                return Err(PathError::BadEscape);
            };
            let value = high << 4 | low;
            if is_unreserved(value) {
                out.push(char::from(value));
                continue;
            }
            let control = value < 0x20 || value == 0x7F;
            let special = matches!(value, b'/' | b'\\' | b'#' | b';' | b'?');
            if control || (special && ambiguous == Ambiguous::Refuse) {
                return Err(PathError::Ambiguous);
            }
            escape(&mut out, value);
        } else if is_path_char(byte) {
            out.push(char::from(byte));
        } else if byte >= 0x80
            || matches!(
                byte,
                b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}'
            )
        {
            escape(&mut out, byte);
        } else {
            return Err(PathError::BadCharacter);
        }
    }
    Ok(out)
}

fn hex(byte: Option<u8>) -> Option<u8> {
    char::from(byte?)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn escape(out: &mut String, value: u8) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    out.push('%');
    for nibble in [value >> 4, value & 15] {
        out.push(DIGITS.get(usize::from(nibble)).copied().unwrap_or('0'));
    }
}

/// RFC 3986 section 5.2.4 on an absolute path, with runs of slashes made one. Going above the root stays there.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = false;
        match segment {
            "" | "." => directory = true,
            ".." => {
                kept.pop();
                directory = true;
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory || kept.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Result<String, PathError> {
        normalise(path, Ambiguous::Refuse).map(Cow::into_owned)
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        assert!(matches!(
            normalise("/a/b.c/~d;x=1", Ambiguous::Refuse),
            Ok(Cow::Borrowed(_))
        ));
    }

    #[test]
    fn a_parameter_hides_no_dots() {
        for path in ["/a/..;/b", "/a/..;x=1", "/.;/b", "/a/%2e%2e;/b", "/%2E;x"] {
            assert_eq!(normal(path), Err(PathError::Ambiguous), "{path}");
            assert!(normalise(path, Ambiguous::Keep).is_ok(), "{path}");
        }
        for path in ["/a;..", "/...;x", "/a..;x", "/;..", "/.a;x"] {
            assert!(normal(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_has_one_normal_form() {
        for path in [
            "/admin",
            "/public/../admin",
            "/public/%2e%2e/admin",
            "//admin",
            "/%61dmin",
            "/./admin",
            "/../../admin",
            "/a/b/../../admin",
            "/public/.%2E/admin",
        ] {
            assert_eq!(normal(path).as_deref(), Ok("/admin"), "{path}");
        }
        assert_eq!(normal("/admin/.").as_deref(), Ok("/admin/"));
        assert_eq!(normal("/a/..").as_deref(), Ok("/"));
        assert_eq!(normal("/%c3%a9").as_deref(), Ok("/%C3%A9"));
        assert_eq!(normal("/é").as_deref(), Ok("/%C3%A9"));
        assert_eq!(normal("/.well-known/x").as_deref(), Ok("/.well-known/x"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/public/..%2fadmin",
            "/admin%00",
            "/a%5Cb",
            "/a%3bb",
            "/a%3Fb",
            "/a%23b",
            "/a%0d%0ab",
        ] {
            assert_eq!(normal(path), Err(PathError::Ambiguous), "{path}");
        }
        assert_eq!(normal("/public\\..\\admin"), Err(PathError::BadCharacter));
        assert_eq!(normal("/a b"), Err(PathError::BadCharacter));
        assert_eq!(normal("/%zz"), Err(PathError::BadEscape));
        assert_eq!(normal("/%4"), Err(PathError::BadEscape));
        assert_eq!(normal("admin"), Err(PathError::Relative));
        assert_eq!(normal(""), Err(PathError::Relative));
    }

    #[test]
    fn kept_escapes_stay_escapes() {
        let kept = normalise("/a%2fb/../c", Ambiguous::Keep).map(Cow::into_owned);
        assert_eq!(kept.as_deref(), Ok("/c"));
        let kept = normalise("/a%2f..%2fb", Ambiguous::Keep).map(Cow::into_owned);
        assert_eq!(kept.as_deref(), Ok("/a%2F..%2Fb"));
        assert_eq!(
            normalise("/a%00", Ambiguous::Keep),
            Err(PathError::Ambiguous)
        );
    }

    #[test]
    fn a_normal_form_is_its_own_normal_form() {
        for path in [
            "/%2525",
            "/a//b/./c/../d/",
            "/%7euser",
            "/%C3%A9/x",
            "/..//..",
            "/a|b",
        ] {
            let once = normal(path).unwrap();
            assert_eq!(normal(&once).as_deref(), Ok(once.as_str()), "{path}");
        }
    }
}
