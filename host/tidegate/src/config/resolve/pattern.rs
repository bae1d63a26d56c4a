//! Hosts and paths of routes as text: whether they can match anything at all. The gateway's router does the matching.

use tidegate_core::path::{Ambiguous, normalise};

/// What is wrong with a pattern, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

fn wrong(message: &str, help: impl Into<String>) -> Wrong {
    Wrong {
        message: message.to_owned(),
        help: help.into(),
    }
}

/// A route's host in normal form: lower case, without a dot at the end.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    let host = text.to_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.contains("://") || host.contains('/') {
        return Err(wrong(
            "is not a host",
            "write the host alone: \"api.example.com\"",
        ));
    }
    if host == "*" {
        return Err(wrong(
            "is not a host",
            "leave `host` away to match any host",
        ));
    }
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return match inside.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(host.to_owned()),
            Err(_) => Err(wrong("is not an address", "write it as \"[::1]\"")),
        };
    }
    if let Some((before, port)) = host.rsplit_once(':')
        && port.chars().all(|char| char.is_ascii_digit())
    {
        return Err(wrong(
            "has a port, which hosts of routes have not",
            format!("write \"{before}\"; it matches on every port"),
        ));
    }
    if !host.is_ascii() {
        return Err(wrong(
            "has letters that are not ASCII",
            "write it as it stands in DNS (\"xn--...\")",
        ));
    }
    let exact = host.strip_prefix("*.").unwrap_or(host);
    if exact.contains('*') {
        return Err(wrong(
            "has a `*` that is not the whole first label",
            "write \"*.example.com\" for all names below example.com",
        ));
    }
    let valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if exact.len() > 253 || !exact.split('.').all(valid) {
        return Err(wrong(
            "is not a host",
            "write it as \"api.example.com\" or \"*.example.com\"",
        ));
    }
    Ok(host.to_owned())
}

/// Holds a route's path against the rules of patterns.
pub(super) fn path(text: &str) -> Result<(), Wrong> {
    if !text.starts_with('/') {
        let help = format!("write \"/{}\"", text.trim_start_matches('*'));
        return Err(wrong("does not begin with `/`", help));
    }
    if text.contains(['?', '#']) {
        return Err(wrong(
            "has a query, which paths of routes have not",
            "leave away what begins with `?` or `#`",
        ));
    }
    let (segments, rest) = match text.strip_suffix('*') {
        Some(before) => (before, true),
        None => (text, false),
    };
    if segments.contains('*') {
        return Err(wrong(
            "has a `*` that is not at its end",
            "write `{name}` for one segment",
        ));
    }
    if rest && !segments.ends_with('/') {
        return Err(wrong(
            "has a `*` inside of a segment",
            format!("write \"{segments}/*\" for everything below \"{segments}\""),
        ));
    }
    let mut names = Vec::new();
    let mut literal = String::new();
    for segment in segments.split('/').skip(1) {
        literal.push('/');
        if let Some(name) = segment
            .strip_prefix('{')
            .and_then(|it| it.strip_suffix('}'))
        {
            parameter(name, &mut names)?;
            // Stands for any segment that is in normal form.
            literal.push('x');
        } else if segment.contains(['{', '}']) {
            return Err(wrong(
                "has a brace inside of a segment",
                "`{name}` stands for a whole segment",
            ));
        } else {
            literal.push_str(segment);
        }
    }
    match normalise(&literal, Ambiguous::Keep) {
        Ok(normal) if normal == literal => Ok(()),
        Ok(normal) if names.is_empty() => {
            let star = if rest { "*" } else { "" };
            Err(wrong(
                "is not in normal form, so that no request can match it",
                format!("write \"{normal}{star}\""),
            ))
        }
        Ok(_) => Err(wrong(
            "is not in normal form, so that no request can match it",
            "without `//`, `.` and `..`, and with letters unescaped",
        )),
        Err(error) => Err(wrong(
            &format!("can't match anything: {error}"),
            "write it as it stands in a URL",
        )),
    }
}

fn parameter<'a>(name: &'a str, names: &mut Vec<&'a str>) -> Result<(), Wrong> {
    let valid = !name.is_empty()
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '-');
    if !valid {
        return Err(wrong(
            &format!("has `{{{name}}}`, which is no name of a segment"),
            "a name has letters, digits, `-` and `_`",
        ));
    }
    if names.contains(&name) {
        return Err(wrong(
            &format!("has `{{{name}}}` twice"),
            "give each segment a name of its own",
        ));
    }
    names.push(name);
    Ok(())
}

/// A path with all names of segments made one, so that patterns which match the same look the same.
pub(super) fn shape(path: &str) -> String {
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                "{}"
            } else {
                segment
            }
        })
        .collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_without_port() {
        assert_eq!(host("API.Example.com.").unwrap(), "api.example.com");
        assert_eq!(host("*.example.com").unwrap(), "*.example.com");
        assert_eq!(host("[::1]").unwrap(), "[::1]");
        assert_eq!(host("127.0.0.1").unwrap(), "127.0.0.1");
        for text in [
            "", "*", "a:80", "http://a", "a/b", "*a.com", "a.*.com", "é.fr", "a..b", "[::x]", "a b",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_in_normal_form() {
        for text in [
            "/",
            "/*",
            "/a",
            "/a/",
            "/v1/users/{id}",
            "/{a}/{b}/*",
            "/.well-known/x",
            "/a%20b",
            "/%C3%A9",
        ] {
            assert_eq!(path(text), Ok(()), "{text}");
        }
        for text in [
            "", "a", "*", "/a*", "/*/a", "/{a}/{a}", "/{}", "/{a b}", "/x{a}", "/{a}y", "/a//b",
            "/a/../b", "/%61", "/a?b", "/a b", "/é",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
        assert!(path("/a/../%62").unwrap_err().help.contains("\"/b\""));
        assert_eq!(shape("/a/{x}/*"), shape("/a/{y}/*"));
    }
}
