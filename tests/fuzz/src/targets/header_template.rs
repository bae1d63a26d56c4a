//! Templates of the filter `headers`: whatever stands in one, and whatever the client sends, what comes out fits the place
//! that it is for.

use tidegate_headers::probe::{Kind, template};

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// A line with the template; the rest is the value of all that could be asked.
pub const TARGET: Target = Target {
    name: "header-template",
    fuzz,
    dictionary: &[
        "{",
        "}",
        "{{",
        "}}",
        "|",
        ":",
        "'",
        "$",
        "{header:x}",
        "{path}",
        "{query:a}",
        "{param:*}",
        "{cookie:c}",
        "{property:consumer}",
        "{host}",
        "{uri}",
        "{nonce}",
        "{time:http}",
        "{status}",
        "{duration:s}",
        "|lower",
        "|upper",
        "|trim",
        "|first",
        "|last",
        "|url-encode",
        "|url-decode",
        "|base64",
        "|base64url",
        "|base64-decode",
        "|hex",
        "|sha256",
        "|truncate:3",
        "|fallback:x",
        "|or:route",
        "|prefix:a",
        "|suffix:b",
        "\r\n",
        "%0d%0a",
        "%00",
        "..",
        "/",
        "\"",
        "<",
        "&",
        ";",
        ",",
        "\\",
        "\n",
    ],
};

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let text = String::from_utf8_lossy(source.line()).into_owned();
    let value = source.rest();
    let mut seen = Vec::new();
    for kind in [Kind::Field, Kind::Url, Kind::Query, Kind::Cookie] {
        match template(kind, &text, value) {
            Ok(out) => {
                fits(kind, &out);
                seen.push(out.len().min(64));
            }
            Err(error) => {
                assert!(
                    !error.contains(['\r', '\n', '\0']) || text.contains(['\r', '\0']),
                    "{error:?}"
                );
                seen.push(1000 + error.len() % 100);
            }
        }
    }
    // One place alone, so that nothing of what comes out is the operator's own.
    let place = place(&text);
    if let Ok(out) = template(Kind::Html, &place, value) {
        assert!(
            !out.iter().any(|byte| b"<>\"'".contains(byte)),
            "{place}: {out:?}"
        );
    }
    if let Ok(out) = template(Kind::Json, &place, value) {
        let string = [b"\"", out.as_slice(), b"\""].concat();
        let read = serde_json::from_slice::<String>(&string);
        assert!(read.is_ok(), "{place}: {read:?}");
    }
    // These are in the form of an address already, or the operator's own words.
    let own = ["fallback", "url-encode", "query", "uri"];
    if let Ok(out) = template(Kind::Url, &place, value)
        && !own.iter().any(|word| place.contains(word))
    {
        assert!(
            !out.iter().any(|byte| b"?#;\\ \"<>".contains(byte)),
            "{place}: {out:?}"
        );
    }
    fingerprint(seen)
}

/// The first place of a text; a field if there is none.
fn place(text: &str) -> String {
    let inside = text.split_once('}').map(|(before, _)| before);
    let inside = inside.and_then(|before| before.rsplit_once('{'));
    match inside {
        Some((_, inside)) if !inside.is_empty() => format!("{{{inside}}}"),
        _ => "{header:x}".to_owned(),
    }
}

fn fits(kind: Kind, out: &[u8]) {
    assert!(
        !out.iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t'),
        "{kind:?}: {out:?}"
    );
    match kind {
        Kind::Cookie => assert!(
            out.iter()
                .all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(byte)),
            "{out:?}"
        ),
        Kind::Query => assert!(
            out.iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(byte)),
            "{out:?}"
        ),
        _ => {}
    }
}
