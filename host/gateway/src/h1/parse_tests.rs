//! Raw bytes against the parser and the framing of bodies: each table is fed whole, and cut in two at every byte.

use super::*;
use crate::probe::Requests;

fn limits() -> Limits {
    Limits {
        max_head: 4096,
        max_target: 1024,
        max_fields: 10,
        ..Limits::default()
    }
}

/// What was read, and what was found.
fn feed(pieces: &[&[u8]]) -> (Requests, Option<ClientFault>) {
    let mut requests = Requests::new(&limits());
    for piece in pieces {
        if let Err(fault) = requests.feed(piece) {
            return (requests, Some(fault));
        }
    }
    (requests, None)
}

fn each_cut(text: &[u8], mut check: impl FnMut(&str, Requests, Option<ClientFault>)) {
    for cut in 0..text.len() {
        let (one, two) = text.split_at(cut);
        let (requests, fault) = feed(&[one, two]);
        let what = format!("{:?} cut at {cut}", String::from_utf8_lossy(text));
        check(&what, requests, fault);
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    let (requests, fault) = feed(&bytes);
    let what = format!("{:?} byte by byte", String::from_utf8_lossy(text));
    check(&what, requests, fault);
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
        each_cut(text.as_bytes(), |what, read, fault| {
            assert_eq!(fault, None, "{what}");
            assert!(!read.is_in_head() && !read.is_in_body(), "{what}");
            assert_eq!(read.request(), requests, "{what}");
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
        let (read, fault) = feed(&[text.as_bytes()]);
        assert_eq!(fault, None);
        assert!(read.is_in_body() && !read.is_in_head());
        assert_eq!(read.request(), 0);
    }
    let (read, _) = feed(&[b"GET / HTTP/1.1\r\n\r\nGET / HT"]);
    assert!(read.is_in_head());
    assert_eq!(read.request(), 1);
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
        each_cut(text.as_bytes(), |what, read, fault| {
            assert_eq!(fault, Some(expected), "{what}");
            assert!(read.heads.is_empty(), "{what}");
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
        each_cut(text.as_bytes(), |what, _, fault| {
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
        each_cut(format!("{head}{body}").as_bytes(), |what, read, fault| {
            assert!(fault.is_some(), "{what}");
            assert_eq!(read.heads.len(), 1, "{what}");
        });
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
        let (_, fault) = feed(&[text.as_bytes()]);
        assert_eq!(fault, Some(expected));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(700).collect();
        let (_, fault) = feed(&pieces);
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
fn what_is_read_is_what_was_sent() {
    let text = "\r\nPUT /a?b HTTP/1.1\r\nHost:  a \t\r\nX:\r\nx: \u{e9}\tb\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc";
    let second = "GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n";
    let third = "GET / HTTP/1.1\r\nConnection: keep-alive , CLOSE\r\n\r\n";
    each_cut(
        [text, second, third].concat().as_bytes(),
        |what, read, fault| {
            assert_eq!(fault, None, "{what}");
            assert_eq!(read.bodies, b"abc", "{what}");
            let [put, old, last] = &*read.heads else {
                panic!("{what}: {} heads", read.heads.len());
            };
            assert_eq!(
                (&put.parts.method, put.parts.version),
                (&Method::PUT, Version::HTTP_11)
            );
            assert_eq!(put.parts.uri, "/a?b", "{what}");
            assert_eq!(put.parts.headers["host"], "a", "{what}");
            let values: Vec<_> = put.parts.headers.get_all("x").iter().collect();
            assert_eq!(values, ["", "\u{e9}\tb"], "{what}");
            assert!(put.expects && put.keeps, "{what}");
            assert_eq!(old.parts.version, Version::HTTP_10, "{what}");
            assert!(old.keeps && !old.expects && !last.keeps, "{what}");
        },
    );
}

#[test]
fn a_head_that_is_refused_tells_what_came_of_it() {
    let mut parser = Parser::new(&limits());
    let text = b"GET /a HTTP/1.1\r\nX: b\r\nnonsense\r\n\r\n";
    let fault = parser.advance(text).unwrap_err();
    let bytes = Bytes::copy_from_slice(&text[..parser.judged()]);
    let head = parser.take(&bytes, Some(fault));
    assert_eq!(head.fault, Some(ClientFault::Head));
    assert_eq!(
        (&head.parts.method, head.parts.uri.path()),
        (&Method::GET, "/a")
    );
    assert_eq!(head.parts.headers["x"], "b");
    assert!(!head.keeps && head.framing.is_over());
    let fault = parser.advance(b"GET\r\n").unwrap_err();
    let head = parser.take(&Bytes::new(), Some(fault));
    assert_eq!(
        (head.parts.method.as_str(), head.parts.uri.path()),
        ("-", "/")
    );
}
