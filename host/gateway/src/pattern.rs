//! The hosts and paths that a route takes, as they are written, and what their names stand for. Chooses no route.

use std::fmt;
use std::sync::Arc;

use tidegate_core::exchange::PathParameters;
use tidegate_core::path::{self, Ambiguous};

/// Why a pattern can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No host, and no `*.` with a host.
    #[error("`{0}` is no host; write a name, or `*.` and a name")]
    Host(String),
    /// No path that could be matched.
    #[error(
        "`{0}` is no path pattern; write literal segments, `{{name}}` for one segment, `*` at the end for the rest"
    )]
    Path(String),
}

/// The hosts that a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This one, in lower case.
    Exact(String),
    /// Every host that ends so (`.example.com`), with at least one label before.
    Suffix(String),
}

impl HostPattern {
    /// Reads a host or `*.host`.
    ///
    /// # Errors
    /// [`PatternError::Host`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower, false),
        };
        let valid = !name.is_empty()
            && name.bytes().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
            });
        match (valid, wildcard) {
            (false, _) => Err(PatternError::Host(text.to_owned())),
            (true, true) => Ok(HostPattern::Suffix(format!(".{name}"))),
            (true, false) => Ok(HostPattern::Exact(name.to_owned())),
        }
    }
}

/// One piece of a path's pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// This very segment.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    Parameter(Arc<str>),
    /// Literal text and then everything; only at the end.
    Rest(Box<str>),
}

/// The paths that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

impl PathPattern {
    /// Reads a pattern: `/v1/users/{id}`, `/static/*`, `/*`.
    ///
    /// # Errors
    /// [`PatternError::Path`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError::Path(text.to_owned());
        let inner = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments = Vec::new();
        let mut pieces = inner.split('/').peekable();
        while let Some(piece) = pieces.next() {
            if let Some(name) = piece
                .strip_prefix('{')
                .and_then(|piece| piece.strip_suffix('}'))
            {
                let known = segments
                    .iter()
                    .any(|s| matches!(s, Segment::Parameter(n) if &**n == name));
                if name.is_empty() || name.contains(['{', '}', '*']) || known {
                    return Err(wrong());
                }
                segments.push(Segment::Parameter(Arc::from(name)));
            } else if let Some(literal) = piece.strip_suffix('*') {
                if pieces.peek().is_some() || literal.contains(['*', '{', '}']) {
                    return Err(wrong());
                }
                segments.push(Segment::Rest(normal_segment(literal).ok_or_else(wrong)?));
            } else if piece.contains(['{', '}', '*'])
                || (piece.is_empty() && pieces.peek().is_some())
            {
                return Err(wrong());
            } else {
                segments.push(Segment::Literal(normal_segment(piece).ok_or_else(wrong)?));
            }
        }
        Ok(PathPattern {
            text: text.to_owned(),
            segments,
        })
    }

    /// The pieces, from the first to the last.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the pattern's names stand for in a path in normal form that it matches.
    pub(crate) fn parameters(&self, path: &str) -> PathParameters {
        let mut found = PathParameters::new();
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for segment in &self.segments {
            if let Segment::Rest(literal) = segment {
                let tail = rest.strip_prefix(&**literal).unwrap_or_default();
                found.push((Arc::from("*"), decoded(tail)));
                break;
            }
            let (piece, more) = rest.split_once('/').unwrap_or((rest, ""));
            if let Segment::Parameter(name) = segment {
                found.push((Arc::clone(name), decoded(piece)));
            }
            rest = more;
        }
        found
    }

    /// The pattern without its names: two patterns of one shape match the same paths.
    pub(crate) fn shape(&self) -> Vec<Segment> {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Parameter(_) => Segment::Parameter(Arc::from("")),
                other => other.clone(),
            })
            .collect()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn normal_segment(text: &str) -> Option<Box<str>> {
    let normal = path::normalise(&format!("/{text}"), Ambiguous::Keep)
        .ok()?
        .into_owned();
    normal
        .strip_prefix('/')
        .filter(|segment| !segment.contains('/'))
        .map(Box::from)
}

/// A value with its escapes decoded; bytes that are no UTF-8 become U+FFFD.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escape = match (first, tail) {
            (b'%', [high, low, ..]) => char::from(*high)
                .to_digit(16)
                .zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_was_matched() {
        let found = |pattern: &str, path: &str| {
            let found = PathPattern::parse(pattern).unwrap().parameters(path);
            let pair = |(name, value): (Arc<str>, String)| format!("{name}={value}");
            found.into_iter().map(pair).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("/u/{id}/f/*", "/u/a%20b/f/x/y%2Fz"), "id=a b *=x/y/z");
        assert_eq!(found("/{a}/{b}", "/x/%C3%A9"), "a=x b=\u{e9}");
        assert_eq!(found("/a%41*", "/aAbc"), "*=bc");
        assert_eq!(found("/*", "/"), "*=");
        assert_eq!(found("/{a}", "/%FF%2"), "a=\u{fffd}%2");
        assert_eq!(found("/a", "/a"), "");
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in [
            "", "a", "/a//b", "/*/a", "/{a}/{a}", "/{}", "/a{b}", "/{a*}",
        ] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "*", "*.", "a b", "a/b"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            HostPattern::parse("Api.Example.com."),
            Ok(HostPattern::Exact("api.example.com".to_owned()))
        );
    }
}
