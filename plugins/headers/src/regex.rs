//! Regular expressions that can't be made to take long: each is bounded in size, its time grows with text times size, and
//! text over a bound that falls with the size is not looked at. Bytes, not characters, are matched only where they are UTF-8.

use regex_lite::RegexBuilder;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// The largest compiled pattern, in bytes as the engine counts them.
const MAX_SIZE: usize = 8 * 1024;
/// Text times size that is looked at, in bytes times KiB: a few milliseconds at worst.
const MAX_WORK: usize = 4 * 1024;

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) struct Regex {
    regex: regex_lite::Regex,
    /// What every match begins with, at the text's beginning; spares the engine where it can.
    beginning: String,
    /// Whether it is that beginning and one group for all that follows, as rewrites often are; the engine is not asked then.
    takes_rest: bool,
    max_text: usize,
    groups: Vec<Option<String>>,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, or which bound it is over.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        Self::build(pattern, pattern)
    }

    /// Compiles a pattern that must match the whole text.
    ///
    /// # Errors
    /// As [`Regex::new`].
    pub(crate) fn whole(pattern: &str) -> Result<Self, String> {
        Self::build(&["^(?:", pattern, ")$"].concat(), pattern)
    }

    fn build(pattern: &str, written: &str) -> Result<Self, String> {
        if written.len() > MAX_PATTERN {
            return Err(format!(
                "the pattern is longer than {MAX_PATTERN} bytes; write several rules"
            ));
        }
        let mut size = 512;
        let regex = loop {
            match RegexBuilder::new(pattern)
                .size_limit(size)
                .nest_limit(32)
                .build()
            {
                Ok(regex) => break regex,
                Err(_) if size < MAX_SIZE => size *= 2,
                Err(error) => {
                    return Err(format!(
                        "`{written}` is no pattern that can be used: {error}"
                    ));
                }
            }
        };
        let groups = regex
            .capture_names()
            .map(|name| name.map(str::to_owned))
            .collect();
        Ok(Regex {
            takes_rest: rest(pattern).is_some(),
            beginning: rest(pattern)
                .unwrap_or_else(|| beginning(pattern))
                .to_owned(),
            max_text: MAX_WORK * 1024 / size,
            regex,
            groups,
        })
    }

    /// The names of its groups; the first is the whole match.
    pub(crate) fn groups(&self) -> &[Option<String>] {
        &self.groups
    }

    fn text<'t>(&self, text: &'t [u8]) -> Option<&'t str> {
        if text.len() > self.max_text || !text.starts_with(self.beginning.as_bytes()) {
            return None;
        }
        core::str::from_utf8(text).ok()
    }

    /// Whether it is found in a text.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.text(text)
            .is_some_and(|text| self.is_rest(text) || self.regex.is_match(text))
    }

    /// What its groups found, first match only.
    pub(crate) fn captures<'t>(&self, text: &'t [u8]) -> Option<Vec<Option<&'t [u8]>>> {
        let text = self.text(text)?;
        if self.is_rest(text) {
            let rest = text.get(self.beginning.len()..).unwrap_or_default();
            return Some(vec![Some(text.as_bytes()), Some(rest.as_bytes())]);
        }
        Some(groups(&self.regex.captures(text)?))
    }

    /// Whether a text that begins as it must is all taken; a dot does not stand for a line's end.
    fn is_rest(&self, text: &str) -> bool {
        self.takes_rest && !text.contains('\n')
    }

    /// The text with every match replaced by what `write` writes for it; none if there is no match.
    pub(crate) fn replace_all(
        &self,
        text: &[u8],
        mut write: impl FnMut(&[Option<&[u8]>], &mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let text = self.text(text)?;
        let mut out = Vec::new();
        let mut from = 0;
        let mut found = false;
        for captures in self.regex.captures_iter(text) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            found = true;
            out.extend_from_slice(text.get(from..whole.start()).unwrap_or_default().as_bytes());
            write(&groups(&captures), &mut out);
            from = whole.end();
        }
        if !found {
            return None;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default().as_bytes());
        Some(out)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

fn groups<'t>(captures: &regex_lite::Captures<'t>) -> Vec<Option<&'t [u8]>> {
    captures
        .iter()
        .map(|found| found.map(|found| found.as_str().as_bytes()))
        .collect()
}

/// The letters that stand behind `^` in a pattern without choices; the last one is left out, as what follows may make it
/// optional.
fn beginning(pattern: &str) -> &str {
    let Some(rest) = pattern.strip_prefix('^') else {
        return "";
    };
    if pattern.contains('|') {
        return "";
    }
    let plain =
        |letter: char| letter.is_ascii_alphanumeric() || "/-_=, @~%&;:!\"'<>".contains(letter);
    let end = rest.find(|letter| !plain(letter)).unwrap_or(rest.len());
    let letters = rest.get(..end).unwrap_or_default();
    if end == rest.len() {
        letters
    } else {
        letters.get(..end.saturating_sub(1)).unwrap_or_default()
    }
}

/// The beginning of a pattern that is `^`, plain letters, and `(.*)$`.
fn rest(pattern: &str) -> Option<&str> {
    let letters = pattern.strip_prefix('^')?.strip_suffix("(.*)$")?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_".contains(letter);
    letters.chars().all(plain).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn what_a_match_begins_with_is_found_and_nothing_more() {
        for (pattern, expected) in [
            ("^/api/(.*)$", "/api"),
            ("^/api", "/api"),
            ("^/apis?", "/api"),
            ("^/a|/b", ""),
            ("/api", ""),
            ("^.*", ""),
            ("^(?:/a)$", ""),
            ("^a{2}", ""),
        ] {
            assert_eq!(beginning(pattern), expected, "{pattern}");
        }
        assert!(Regex::new("^/apis?/").unwrap().is_match(b"/api/x"));
        assert!(Regex::new("(?i)^/API").unwrap().is_match(b"/api/x"));
    }

    #[test]
    fn what_needs_no_engine_finds_the_same() {
        for pattern in ["^/old/(.*)$", "^(.*)$", "^/a_b-c(.*)$"] {
            let quick = Regex::new(pattern).unwrap();
            assert!(quick.takes_rest, "{pattern}");
            let slow = Regex {
                takes_rest: false,
                ..quick.clone()
            };
            for text in [
                "/old/",
                "/old/x/y",
                "/old",
                "",
                "/a_b-c",
                "x/old/",
                "/old/\n",
                "/old/x\ny",
            ] {
                let text = text.as_bytes();
                assert_eq!(
                    quick.captures(text),
                    slow.captures(text),
                    "{pattern} {text:?}"
                );
                assert_eq!(
                    quick.is_match(text),
                    slow.is_match(text),
                    "{pattern} {text:?}"
                );
            }
        }
        assert!(!Regex::new("^/a.b(.*)$").unwrap().takes_rest);
        assert!(!Regex::new("^/a(.*)x$").unwrap().takes_rest);
    }

    #[test]
    fn a_pattern_is_bounded() {
        for (pattern, word) in [
            ("(", "is no pattern"),
            ("(a{1000}){1000}", "is no pattern"),
            (&"a".repeat(2000), "longer than 1024"),
            (&"(".repeat(500), "is no pattern"),
        ] {
            let error = Regex::new(pattern).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_worst_text_takes_milliseconds() {
        for pattern in [
            "(?:a?){60}z",
            "(a|b|ab)*z",
            "(.*)(.*)(.*)(.*)(.*)z$",
            "(?:(a?)(b?)){20}z",
        ] {
            let regex = Regex::new(pattern).unwrap();
            let text = "ab".repeat(regex.max_text / 2);
            let began = Instant::now();
            assert!(regex.captures(text.as_bytes()).is_none());
            // Without optimisation, on a busy machine: what would be exponential takes years.
            assert!(began.elapsed() < Duration::from_secs(5), "{pattern}");
            let longer = [text.as_bytes(), b"ababz"].concat();
            assert!(!regex.is_match(&longer), "{pattern}: over the bound");
        }
    }

    #[test]
    fn matches_are_replaced_one_after_another() {
        let regex = Regex::new("([a-z]+)=([0-9]*)").unwrap();
        let swap = |groups: &[Option<&[u8]>], out: &mut Vec<u8>| {
            for index in [2, 1] {
                out.extend_from_slice(groups.get(index).copied().flatten().unwrap_or_default());
            }
        };
        let replaced = regex.replace_all(b"a=1;bc=;d", swap).unwrap();
        assert_eq!(String::from_utf8(replaced).unwrap(), "1a;bc;d");
        assert_eq!(regex.replace_all(b"nothing", swap), None);
        assert_eq!(regex.replace_all(b"a=1\xff", swap), None, "no UTF-8");
    }
}
