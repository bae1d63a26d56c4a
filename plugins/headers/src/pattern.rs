//! What a value is held against: a text, one with `*` in it, or, behind `~`, a regular expression. Without a regular
//! expression where a comparison does. Knows no exchange.

use crate::regex::Regex;

/// What a value is held against.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pattern {
    kind: Kind,
    /// Whether letters' case counts.
    exact_case: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Any,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    /// The pieces between the stars, of which there are two at least.
    Stars(Vec<Vec<u8>>),
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern whose letters' case counts.
    ///
    /// # Errors
    /// What is wrong with its regular expression.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        Self::parse(text, true)
    }

    /// Reads a pattern for hosts, media types and the like, whose letters' case does not count.
    ///
    /// # Errors
    /// What is wrong with its regular expression.
    pub(crate) fn without_case(text: &str) -> Result<Self, String> {
        Self::parse(text, false)
    }

    fn parse(text: &str, exact_case: bool) -> Result<Self, String> {
        if let Some(pattern) = text.strip_prefix('~') {
            let regex = if exact_case {
                Regex::new(pattern)
            } else {
                Regex::new(&["(?i)", pattern].concat())
            };
            return Ok(Pattern {
                kind: Kind::Regex(regex?),
                exact_case,
            });
        }
        let text = if exact_case {
            text.to_owned()
        } else {
            text.to_ascii_lowercase()
        };
        let pieces: Vec<Vec<u8>> = text
            .split('*')
            .map(|piece| piece.as_bytes().to_vec())
            .collect();
        let kind = match pieces.as_slice() {
            [whole] => Kind::Exact(whole.clone()),
            [before, behind] => match (before.is_empty(), behind.is_empty()) {
                (true, true) => Kind::Any,
                (false, true) => Kind::Prefix(before.clone()),
                (true, false) => Kind::Suffix(behind.clone()),
                (false, false) => Kind::Stars(pieces),
            },
            _ => Kind::Stars(pieces),
        };
        Ok(Pattern { kind, exact_case })
    }

    /// Whether a value fits.
    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        if let Kind::Regex(regex) = &self.kind {
            return regex.is_match(value);
        }
        if !self.exact_case && value.iter().any(u8::is_ascii_uppercase) {
            return self.fits(&value.to_ascii_lowercase());
        }
        self.fits(value)
    }

    fn fits(&self, value: &[u8]) -> bool {
        match &self.kind {
            Kind::Any => true,
            Kind::Exact(text) => value == text,
            Kind::Prefix(text) => value.starts_with(text),
            Kind::Suffix(text) => value.ends_with(text),
            Kind::Stars(pieces) => stars(pieces, value),
            Kind::Regex(regex) => regex.is_match(value),
        }
    }
}

impl From<Regex> for Pattern {
    fn from(regex: Regex) -> Self {
        Pattern {
            kind: Kind::Regex(regex),
            exact_case: true,
        }
    }
}

/// The first piece at the beginning, the last at the end, the others anywhere between them, each as early as it can be.
fn stars(pieces: &[Vec<u8>], value: &[u8]) -> bool {
    let [first, between @ .., last] = pieces else {
        return false;
    };
    let Some(rest) = value.strip_prefix(first.as_slice()) else {
        return false;
    };
    let Some(mut rest) = rest.strip_suffix(last.as_slice()) else {
        return false;
    };
    for piece in between {
        if piece.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(piece.len()).position(|part| part == piece) else {
            return false;
        };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, yes, no) in [
            ("*", vec!["", "a"], vec![]),
            ("a", vec!["a"], vec!["", "ab", "A"]),
            ("/api/*", vec!["/api/", "/api/x/y"], vec!["/api", "/ap"]),
            ("*.js", vec![".js", "a.js"], vec!["a.jsx"]),
            ("a*b", vec!["ab", "axb"], vec!["a", "b", "abx"]),
            ("aa*aa", vec!["aaaa", "aaxaa"], vec!["aaa"]),
            ("*a*b*", vec!["ab", "xaxbx"], vec!["ba", "a"]),
            (
                "/*/x/*/y",
                vec!["/a/x/b/y", "/a/b/x//y"],
                vec!["/a/x/y", "/x/b/y"],
            ),
            ("~^/v[0-9]+/", vec!["/v1/", "/v22/x"], vec!["/v/", "x/v1/"]),
            ("", vec![""], vec!["a"]),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            for value in yes {
                assert!(pattern.is_match(value.as_bytes()), "{pattern:?} {value}");
            }
            for value in no {
                assert!(!pattern.is_match(value.as_bytes()), "{pattern:?} {value}");
            }
        }
        for pattern in ["*.Example.com", "~\\.example\\.com$"] {
            let pattern = Pattern::without_case(pattern).unwrap();
            assert!(pattern.is_match(b"A.EXAMPLE.com"));
            assert!(!pattern.is_match(b"a.example.org"));
        }
    }
}
