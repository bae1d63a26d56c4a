//! Replacements by pattern of the filter `headers`: they are bounded, they leave no control characters, and a match that is
//! replaced by itself changes nothing.

use std::time::{Duration, Instant};

use tidegate_headers::probe::replace;

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// Lines: the pattern, what stands in its place; the rest is the value.
pub const TARGET: Target = Target {
    name: "header-replace",
    fuzz,
    dictionary: &[
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "*",
        "+",
        "?",
        "|",
        "^",
        "$",
        ".",
        "\\d",
        "\\w",
        "\\b",
        "(?:",
        "(?i)",
        "(?P<a>",
        "[a-z]",
        "[^/]",
        "{1,3}",
        "{100}",
        "(a*)*",
        "(a|a)*",
        "$0",
        "$1",
        "${a}",
        "{header:x|lower}",
        "\n",
        "aaaa",
        "/",
    ],
};

/// No text may take longer, on a busy machine and without optimisation.
const BOUND: Duration = Duration::from_secs(5);

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let pattern = String::from_utf8_lossy(source.line()).into_owned();
    let with = String::from_utf8_lossy(source.line()).into_owned();
    let value = source.rest();
    let began = Instant::now();
    let replaced = replace(&pattern, &with, value);
    let same = replace(&pattern, "$0", value);
    assert!(
        began.elapsed() < BOUND,
        "{pattern} took {:?}",
        began.elapsed()
    );
    let clean = |bytes: &[u8]| {
        let kept = bytes
            .iter()
            .filter(|byte| !byte.is_ascii_control() || **byte == b'\t');
        kept.copied().collect::<Vec<u8>>()
    };
    if let Ok(Some(same)) = &same {
        assert_eq!(*same, clean(value), "{pattern}: a match is not itself");
    }
    match replaced {
        Ok(replaced) => {
            assert_eq!(
                replaced.is_some(),
                matches!(same, Ok(Some(_))),
                "whether {pattern} is found depends on what stands in its place"
            );
            let out = replaced.unwrap_or_default();
            assert_eq!(out, clean(&out), "{pattern}");
            fingerprint((out.len().min(64), value.len().min(64)))
        }
        Err(error) => fingerprint((2, error.len() % 64)),
    }
}
