//! Templates by themselves, over facts that a table gives.

use super::*;
use crate::facts::Facts;

/// Facts by their sources; fields of the request are all there is besides.
struct Table(Vec<(Source, Vec<u8>)>);

impl Facts for Table {
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool {
        let found = self.0.iter().find(|(known, _)| known == source);
        found.is_some_and(|(_, value)| {
            out.extend_from_slice(value);
            true
        })
    }

    fn request_fields(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn response_fields(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn status(&self) -> u16 {
        0
    }
}

fn table() -> Table {
    let header = |name: &str| Source::Header(name.to_owned());
    Table(vec![
        (header("x"), b"Some, Thing ".to_vec()),
        (header("evil"), b"a\r\nset-cookie: b\0\x7f".to_vec()),
        (header("code"), b"<a href=\"'&\\".to_vec()),
        (header("up"), b"../../etc/passwd?a#b;c%2f".to_vec()),
        (header("b64"), b"aGk_YQ==".to_vec()),
        (header("utf8"), "caf\u{e9}".as_bytes().to_vec()),
        (header("crlf"), b"a%0d%0ab".to_vec()),
        (Source::Route, b"users".to_vec()),
        (Source::Path, b"/a%20b/c".to_vec()),
        (Source::Parameter("*".to_owned()), b"a b/c".to_vec()),
    ])
}

fn render(escape: Escape, text: &str) -> String {
    let template = Grammar::fields(true).of(escape).parse_body(text).unwrap();
    let mut out = b"> ".to_vec();
    template.render(&table(), &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("> ").unwrap().to_owned()
}

#[test]
fn places_are_filled_in_and_braces_can_be_written() {
    for (text, expected) in [
        ("a {route} b{route}", "a users busers"),
        ("{{route}} }}{{", "{route} }{"),
        ("", ""),
        ("{ route | upper }", "USERS"),
        ("$1 costs $", "$1 costs $"),
        ("{header:missing}", ""),
    ] {
        assert_eq!(render(Escape::Field, text), expected, "{text}");
    }
    let literal = Grammar::fields(true).parse("plain").unwrap();
    assert_eq!(literal.literal(), Some(&b"plain"[..]));
    let place = Grammar::fields(true).parse("{route}").unwrap();
    assert_eq!(place.literal(), None);
}

#[test]
fn filters_change_values_one_after_another() {
    for (text, expected) in [
        ("{header:x|lower}", "some, thing "),
        ("{header:x|first}", "Some"),
        ("{header:x|last|lower}", "thing"),
        ("{header:x|trim}", "Some, Thing"),
        ("{header:x|truncate:4}", "Some"),
        ("{header:x|url-encode}", "Some%2C%20Thing%20"),
        ("{header:x|first|base64}", "U29tZQ=="),
        ("{header:x|first|base64url}", "U29tZQ"),
        ("{header:b64|base64-decode}", "hi?a"),
        ("{header:x|first|hex}", "536f6d65"),
        (
            "{route|sha256}",
            // printf users | sha256sum
            "7dfb4cf67742cb0660305e56ef816c53fcec892cae7f6ee39b75f34e659d672c",
        ),
        ("{header:none|fallback:'a|b}c'}", "a|b}c"),
        ("{header:none|fallback: x }", "x"),
        ("{route|fallback:x}", "users"),
        ("{header:none|or:route}", "users"),
        ("{header:none|or:header:x|first}", "Some"),
        ("{route|prefix:'r='|suffix:;}", "r=users;"),
        ("{header:none|prefix:'r='}", ""),
        ("{header:utf8|url-encode|url-decode}", "caf\u{e9}"),
    ] {
        assert_eq!(render(Escape::Field, text), expected, "{text}");
    }
}

#[test]
fn a_value_from_outside_cannot_break_what_it_becomes_part_of() {
    for (escape, text, expected) in [
        (Escape::Field, "v={header:evil}", "v=aset-cookie: b"),
        (Escape::Field, "v={header:crlf|url-decode}", "v=ab"),
        (Escape::Field, "v={header:evil|trim}", "v=aset-cookie: b"),
        (
            Escape::Url,
            "/f/{header:up}",
            "/f/..%2F..%2Fetc%2Fpasswd%3Fa%23b%3Bc%252f",
        ),
        (Escape::Url, "/x{path}/{param:*}", "/x/a%20b/c/a%20b/c"),
        (Escape::Url, "{header:evil}", "a%0D%0Aset-cookie:%20b%00%7F"),
        (
            Escape::Query,
            "{header:up}",
            "..%2F..%2Fetc%2Fpasswd%3Fa%23b%3Bc%252f",
        ),
        (
            Escape::Cookie,
            "{header:evil}",
            "a%0D%0Aset-cookie:%20b%00%7F",
        ),
        (
            Escape::Html,
            "<b>{header:code}</b>\n",
            "<b>&lt;a href=&quot;&#39;&amp;\\</b>\n",
        ),
        (Escape::Json, "\"{header:code}\"", "\"<a href=\\\"'&\\\\\""),
        (
            Escape::Json,
            "\"{header:evil}\"",
            "\"a\\u000d\\u000aset-cookie: b\\u0000\u{7f}\"",
        ),
        (Escape::Url, "{header:none|fallback:/a/b}", "/a/b"),
    ] {
        assert_eq!(render(escape, text), expected, "{text}");
    }
}

#[test]
fn groups_are_filled_in_where_there_is_a_pattern() {
    let groups = [None, None, Some("name".to_owned())];
    let grammar = Grammar::fields(true).with(&groups);
    for (text, expected) in [
        ("$2-$1", "b-A"),
        ("${name}x$$1", "bx$1"),
        ("{$1|lower}{$name}", "ab"),
        ("$0", "A.b"),
    ] {
        let template = grammar.parse(text).unwrap();
        let mut out = Vec::new();
        let found: [Option<&[u8]>; 3] = [Some(b"A.b"), Some(b"A"), Some(b"b")];
        template.render_with(&table(), &found, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
    }
    for (text, words) in [
        ("$3", "no group `3`; it has 2"),
        ("${other}", "no group `other`"),
        ("$", "names no group"),
        ("${name", "without its `}`"),
    ] {
        let error = grammar.parse(text).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let error = Grammar::fields(true).parse("{$1}").unwrap_err();
    assert!(error.contains("needs a pattern"), "{error}");
}

#[test]
fn what_stands_for_nothing_is_named() {
    for (text, word) in [
        ("{clientip}", "`{clientip}` stands for nothing"),
        ("{header:}", "needs a name"),
        ("{}", "stands for nothing"),
        ("{certificate:x}", "no `x`"),
        ("a{b", "without"),
        ("a}b", "without"),
        ("{route|upcase}", "`upcase` is no filter"),
        ("{route|upper:x}", "takes nothing"),
        ("{route|truncate:x}", "number of bytes"),
        ("{route|or:x}", "stands for nothing"),
        ("{route|or}", "needs a source"),
        ("{route|fallback}", "needs a text"),
        ("a\r\nb", "control character"),
        ("{header:x|fallback:'a}", "without"),
    ] {
        let error = Grammar::fields(true).parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    let error = Grammar::fields(false).parse("{status}").unwrap_err();
    assert!(error.contains("no response yet"), "{error}");
}
