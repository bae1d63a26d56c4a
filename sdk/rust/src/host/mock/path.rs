//! The normal form of a path (RFC 3986 section 6.2.2), as the host makes it: what could be read in two ways has none.

/// A path in normal form; none for what the host would refuse.
pub(super) fn normalise(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let decoded = decode(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut slash = false;
    for segment in decoded.split('/') {
        slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut normal = String::new();
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if slash {
        normal.push('/');
    }
    Some(normal)
}

/// Escapes of unreserved characters decoded, others in upper case, and what must be escaped is.
fn decode(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
                match value {
                    b'/' | b'\\' | b'#' | b';' | b'?' => return None,
                    _ if value.is_ascii_control() => return None,
                    _ if is_unreserved(value) => out.push(char::from(value)),
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            b'/' => out.push('/'),
            _ if is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte) => {
                out.push(char::from(byte));
            }
            _ if byte >= 0x80 || b"\"<>[]^`{|}".contains(&byte) => {
                out.push_str(&format!("%{byte:02X}"));
            }
            _ => return None,
        }
    }
    Some(out)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form_or_none() {
        for (given, expected) in [
            ("/", Some("/")),
            ("/a/b/", Some("/a/b/")),
            ("/x/../y%41", Some("/yA")),
            ("//a///b/.", Some("/a/b/")),
            ("/a/..", Some("/")),
            ("/../../a", Some("/a")),
            ("/%2e%2E/a", Some("/a")),
            ("/%e9 ", None),
            ("/é", Some("/%C3%A9")),
            ("/a%3a", Some("/a%3A")),
            ("a", None),
            ("", None),
            ("/a?b", None),
            ("/a#b", None),
            ("/a%2fb", None),
            ("/a%0a", None),
            ("/a%4", None),
            ("/a\\b", None),
        ] {
            assert_eq!(normalise(given).as_deref(), expected, "{given}");
        }
    }
}
