//! Raw bytes against the guard: each table is fed whole, and cut in two at every byte.

use super::*;

fn guard() -> Guard {
    Guard::new(&Limits {
        max_head: 4096,
        max_target: 1024,
        max_fields: 10,
        ..Limits::default()
    })
}

/// What the parser would get to see, and what was found.
fn feed(pieces: &[&[u8]]) -> (Vec<u8>, Option<ClientFault>, Guard) {
    let mut guard = guard();
    let mut passed = Vec::new();
    for piece in pieces {
        match guard.inspect(piece) {
            Seen::Clear => passed.extend_from_slice(piece),
            Seen::Upgrade(kept) => {
                passed.extend_from_slice(&piece[..kept]);
                break;
            }
            Seen::Fault {
                kept, fault, tail, ..
            } => {
                passed.extend_from_slice(&piece[..kept]);
                passed.extend_from_slice(tail);
                return (passed, Some(fault), guard);
            }
        }
    }
    (passed, None, guard)
}

fn each_cut(text: &[u8], mut check: impl FnMut(&str, Vec<u8>, Option<ClientFault>, Guard)) {
    for cut in 0..text.len() {
        let (one, two) = text.split_at(cut);
        let (passed, fault, guard) = feed(&[one, two]);
        let what = format!("{:?} cut at {cut}", String::from_utf8_lossy(text));
        check(&what, passed, fault, guard);
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    let (passed, fault, guard) = feed(&bytes);
    let what = format!("{:?} byte by byte", String::from_utf8_lossy(text));
    check(&what, passed, fault, guard);
}

#[test]
fn ordinary_requests_are_followed_to_their_end() {
    for (text, requests) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("GET /\"x{}|^~\u{e9} HTTP/1.0\r\n\r\n", 1),
        ("GET http://a/b HTTP/1.1\r\nHost:a\r\n\r\n", 1),
        (
            "OPTIONS * HTTP/1.1\r\nHost: \t a \t\r\nX: \u{e9}\tb\r\n\r\n",
            1,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\0cGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: ChunKed \r\n\r\n3;a=\"b\";c\r\n\n\n\n\r\nA\r\n0123456789\r\n0;z\r\nX: y\r\nZ:\r\n\r\n",
            1,
        ),
        ("POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n", 1),
    ] {
        each_cut(text.as_bytes(), |what, passed, fault, guard| {
            assert_eq!(fault, None, "{what}");
            assert_eq!(passed, text.as_bytes(), "{what}");
            assert!(guard.is_between(), "{what}");
            assert_eq!(guard.request(), requests, "{what}");
        });
    }
}

#[test]
fn a_body_is_known_to_be_under_way() {
    for text in [
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ] {
        let (_, fault, guard) = feed(&[text.as_bytes()]);
        assert_eq!(fault, None);
        assert!(guard.is_in_body() && !guard.is_in_head() && !guard.is_between());
        assert_eq!(guard.request(), 0);
    }
    let (_, _, guard) = feed(&[b"GET / HTTP/1.1\r\n\r\nGET / HT"]);
    assert!(guard.is_in_head());
    assert_eq!(guard.request(), 1);
}

const REQUEST: &str = "POST / HTTP/1.1\r\n";

#[test]
fn a_head_that_can_be_read_in_two_ways_does_not_pass() {
    use ClientFault::{Coding, Framing, Head, Path, TooManyFields, UnknownMethod, Version};
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(11));
    let method = format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(33));
    for (text, expected) in [
        // Lines.
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nX: \x1b[2J\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nX: \x7f\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nX Y: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nX(y): a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\n\u{e9}: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", Head),
        ("GET / HTTP/1.1\r\nnonsense\r\n\r\n", Head),
        (&fields, TooManyFields),
        // The request line.
        ("GET  / HTTP/1.1\r\n\r\n", Head),
        ("GET /a b HTTP/1.1\r\n\r\n", Head),
        ("GET\t/ HTTP/1.1\r\n\r\n", Head),
        ("GET / HTTP/1.1 \r\n\r\n", Head),
        (" GET / HTTP/1.1\r\n\r\n", Head),
        ("GET /\r\n\r\n", Head),
        ("GET / http/1.1\r\n\r\n", Head),
        ("GET / HTTP/1.1x\r\n\r\n", Head),
        ("GE(T / HTTP/1.1\r\n\r\n", Head),
        (&method, UnknownMethod),
        ("GET / HTTP/1.2\r\n\r\n", Version),
        ("GET / HTTP/3.0\r\n\r\n", Version),
        ("GET /\0 HTTP/1.1\r\n\r\n", Path),
        ("GET /a#b HTTP/1.1\r\n\r\n", Path),
        ("GET /\x0bx HTTP/1.1\r\n\r\n", Path),
        ("GET admin HTTP/1.1\r\n\r\n", Path),
        ("GET a:80 HTTP/1.1\r\n\r\n", Path),
        ("GET ftp://a/ HTTP/1.1\r\n\r\n", Path),
        ("GET * HTTP/1.1\r\n\r\n", Path),
        ("OPTIONS */x HTTP/1.1\r\n\r\n", Path),
        // Framing.
        (
            "POST / HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 6\r\ncontent-length: 6\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            Coding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            Coding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            Coding,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", Coding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            Head,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
            Head,
        ),
    ] {
        each_cut(text.as_bytes(), |what, passed, fault, _| {
            assert_eq!(fault, Some(expected), "{what}");
            // The parser sees one whole head, or something that it refuses; never a second one or a rest.
            let ends: Vec<_> = passed
                .windows(4)
                .filter(|four| four == b"\r\n\r\n")
                .collect();
            assert!(
                ends.len() <= 1,
                "{what}: {:?}",
                String::from_utf8_lossy(&passed)
            );
            assert!(
                passed.ends_with(b"\r\n\r\n") || passed.ends_with(b"\n"),
                "{what}"
            );
        });
    }
    for length in [
        "3, 4",
        "3, 3",
        "+3",
        "-1",
        "0x3",
        "3 3",
        "3;",
        "",
        "3.0",
        "99999999999999999999",
        "9223372036854775808",
    ] {
        let text = format!("{REQUEST}Content-Length: {length}\r\n\r\n");
        each_cut(text.as_bytes(), |what, _, fault, _| {
            assert_eq!(fault, Some(Framing), "{what}");
        });
    }
}

#[test]
fn chunks_that_are_no_chunks_do_not_pass() {
    let head = format!("{REQUEST}Transfer-Encoding: chunked\r\n\r\n");
    for body in [
        "0x3\r\nabc\r\n",
        "+3\r\n",
        "-1\r\n",
        "3_0\r\n",
        "3 \r\n",
        " 3\r\n",
        "\r\n",
        "3\nabc",
        "3\r\r\n",
        "f0000000000000003\r\n",
        "0000000000000003\r\n",
        "3\r\nabcXX",
        "3\r\nabc\n",
        "3\r\nabc\rX",
        "3;a\nb\r\n",
        "3;a\rb\r\n",
        "3;\0\r\n",
        ";a\r\n",
        "0\r\n\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\nBad Trailer: x\r\n\r\n",
        "0\r\nX: \x01\r\n\r\n",
    ] {
        each_cut(
            format!("{head}{body}").as_bytes(),
            |what, passed, fault, _| {
                assert!(fault.is_some(), "{what}");
                assert!(passed.starts_with(head.as_bytes()), "{what}");
                // What passed of the body is not a whole one.
                assert!(!passed[head.len()..].ends_with(b"0\r\n\r\n"), "{what}");
            },
        );
    }
}

#[test]
fn what_has_no_end_is_bounded() {
    let long = "a".repeat(5000);
    for (text, expected) in [
        (format!("GET /{long}"), ClientFault::TargetTooLong),
        (
            format!("GET / HTTP/1.1\r\nX: {long}"),
            ClientFault::HeadTooLarge,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{}",
                format!("X: {}\r\n", &long[..500]).repeat(9)
            ),
            ClientFault::HeadTooLarge,
        ),
        ("\r\n".repeat(3000), ClientFault::HeadTooLarge),
    ] {
        let (_, fault, _) = feed(&[text.as_bytes()]);
        assert_eq!(fault, Some(expected));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(700).collect();
        let (_, fault, _) = feed(&pieces);
        assert_eq!(fault, Some(expected));
    }
    let head = format!("{REQUEST}Transfer-Encoding: chunked\r\n\r\n");
    let extensions = format!("{head}{}", format!("1;{long}\r\nx\r\n").repeat(4));
    assert_eq!(feed(&[extensions.as_bytes()]).1, Some(ClientFault::Framing));
    let trailers = format!("{head}0\r\n{}", format!("X: {long}\r\n").repeat(4));
    assert_eq!(
        feed(&[trailers.as_bytes()]).1,
        Some(ClientFault::HeadTooLarge)
    );
}

#[test]
fn nothing_passes_behind_an_upgrade_that_has_no_answer() {
    let head = "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    each_cut(
        format!("{head}\u{81}\x05hello").as_bytes(),
        |what, passed, fault, guard| {
            assert_eq!(fault, None, "{what}");
            assert!(
                head.as_bytes().starts_with(&passed) || passed == head.as_bytes(),
                "{what}"
            );
            assert_eq!(guard.request(), 1, "{what}");
        },
    );
    // With a body it is no request to change the protocol.
    let text = "POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\naGET / HTTP/1.1\r\n\r\n";
    assert_eq!(guard().inspect(text.as_bytes()), Seen::Clear);
}

#[test]
fn a_head_that_stands_still_can_be_made_whole() {
    for (text, whole) in [
        ("G", "G / HTTP/1.1\r\n\r\n"),
        ("GET ", "GET / HTTP/1.1\r\n\r\n"),
        ("GET /a", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a ", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a HT", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n"),
        ("GET /a HTTP/1.1", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a HTTP/1.1\r", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a HTTP/1.1\r\n", "GET /a HTTP/1.1\r\n\r\n"),
        ("GET /a HTTP/1.1\r\nHo", "GET /a HTTP/1.1\r\nHo:\r\n\r\n"),
        (
            "GET /a HTTP/1.1\r\nHost: a",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: a\r\n\r",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ] {
        let (mut passed, _, guard) = feed(&[text.as_bytes()]);
        passed.extend_from_slice(guard.tail());
        assert_eq!(String::from_utf8(passed).unwrap(), whole);
    }
}
