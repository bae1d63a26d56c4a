//! Every head that is refused, by the bytes: its status, its reason, its connection closed, and not a byte of it at the
//! upstream.

use tidegate_tests::tap::Tap;

use crate::smuggling::{SMUGGLED, before, exchange, statuses};

/// What is refused at the head: the bytes, the status, the reason.
type Refused = (&'static str, Vec<u8>, u16, &'static str);

fn refused_heads() -> Vec<Refused> {
    let mut cases: Vec<Refused> = Vec::new();
    let mut post = |name: &'static str, fields: &str, status: u16, reason: &'static str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n{SMUGGLED}");
        cases.push((name, bytes.into_bytes(), status, reason));
    };
    post(
        "a length and chunks",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        400,
        "framing",
    );
    post(
        "chunks and a length",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        400,
        "framing",
    );
    post(
        "a length and a coding that is none",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        400,
        "framing",
    );
    post(
        "two lines of codings",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        400,
        "framing",
    );
    for coding in [
        "chunked, chunked",
        "chunked, identity",
        "identity",
        "xchunked",
        "chunked;q=1",
        "gzip",
        "gzip, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunked foo",
    ] {
        post(
            "a coding",
            &format!("Transfer-Encoding: {coding}"),
            501,
            "coding",
        );
    }
    post("an empty coding", "Transfer-Encoding:", 501, "coding");
    post(
        "a vertical tab",
        "Transfer-Encoding: \x0bchunked",
        400,
        "bad_head",
    );
    post(
        "a name with a space behind it",
        "Transfer-Encoding : chunked",
        400,
        "bad_head",
    );
    post(
        "a folded coding",
        "Transfer-Encoding:\r\n chunked",
        501,
        "coding",
    );
    for length in [
        "3\r\nContent-Length: 4",
        "3\r\nContent-Length: 3",
        "3, 4",
        "3, 3",
        "+3",
        "-1",
        "-0",
        "0x3",
        "3 3",
        "3;",
        "3.0",
        "1e1",
        "\u{0663}",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        post(
            "a length",
            &format!("Content-Length: {length}"),
            400,
            "framing",
        );
    }
    post("an empty length", "Content-Length:", 400, "framing");
    post(
        "a length with a space",
        "Content-Length : 3",
        400,
        "bad_head",
    );
    cases.push((
        "chunks in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        400,
        "framing",
    ));
    let heads: [(&'static str, &[u8], u16, &'static str); 36] = [
        ("LF only", b"GET / HTTP/1.1\nHost: h\n\n", 400, "bad_head"),
        ("one LF", b"GET / HTTP/1.1\r\nX: a\nHost: h\r\n\r\n", 400, "bad_head"),
        ("LF at the end", b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400, "bad_head"),
        ("a CR in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400, "bad_head"),
        ("CR CR LF", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n", 400, "bad_head"),
        ("a CR in the line", b"GET /\rx HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400, "bad_head"),
        ("a DEL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", 400, "bad_head"),
        ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("a tab in the target", b"GET /\t HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("a folded line", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400, "bad_head"),
        ("a tab before a field", b"GET / HTTP/1.1\r\n\tX: a\r\nHost: h\r\n\r\n", 400, "bad_head"),
        ("a space before a field", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400, "bad_head"),
        ("a space before the line", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_head"),
        ("an empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400, "bad_head"),
        ("no colon", b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400, "bad_head"),
        ("no token", b"GET / HTTP/1.1\r\nHost: h\r\nX(y): a\r\n\r\n", 400, "bad_head"),
        ("a name of other letters", b"GET / HTTP/1.1\r\nHost: h\r\n\xc3\xa9: a\r\n\r\n", 400, "bad_head"),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad_host"),
        ("a host with a space before its colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "bad_head"),
        ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "bad_host"),
        ("another host in the target", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_host"),
        ("a user in the target", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_host"),
        ("a port above all", b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "bad_host"),
        ("an asterisk", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("an authority", b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("another scheme", b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("a long method", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: h\r\n\r\n", 501, "method"),
        ("a version to come", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505, "version"),
        ("HTTP/2 on a line", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "version"),
        ("no version", b"GET /\r\nHost: h\r\n\r\n", 400, "bad_head"),
        ("a proxy's greeting", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_head"),
        ("another proxy's greeting", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02", 400, "bad_head"),
        ("an unknown expectation", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue, gold\r\nContent-Length: 3\r\n\r\nabc", 417, "expectation"),
    ];
    cases.extend(
        heads
            .into_iter()
            .map(|(name, bytes, status, reason)| (name, bytes.to_vec(), status, reason)),
    );
    cases
}

#[tokio::test]
async fn of_a_refused_head_the_upstream_gets_no_byte() {
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    let mut wrong = Vec::new();
    for (name, bytes, status, reason) in refused_heads() {
        let shown = format!("{name}: {:?}", String::from_utf8_lossy(&bytes));
        let labels = [("reason", reason)];
        let counted = gateway
            .metric("tidegate_client_errors_total", &labels)
            .await;
        let answer = exchange(&gateway, &bytes).await;
        if statuses(&answer) != [status.to_string()] {
            wrong.push(format!("{shown}: {answer:?}"));
            continue;
        }
        if !answer.to_lowercase().contains("connection: close") || answer.ends_with("(still open)")
        {
            wrong.push(format!("{shown} is not closed: {answer:?}"));
        }
        if !tap.all().is_empty() {
            wrong.push(format!("{shown}: the upstream got {:?}", tap.all()));
            tap.forget();
        }
        let now = gateway
            .metric("tidegate_client_errors_total", &labels)
            .await;
        if (now - counted - 1.0).abs() > 0.1 {
            wrong.push(format!("{shown}: {reason} went from {counted} to {now}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
