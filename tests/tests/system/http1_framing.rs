//! Requests that could be read in two ways, in raw bytes (RFC 9112). Each is refused and its connection closed,
//! and nothing of it is forwarded: the next server would read it its own way.

use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Echo, Upstream};
use tidegate_tests::wait::until;

/// Sends bytes on a connection of their own and gives all that comes back until it is closed. One that stays open
/// is reported by words behind what came.
async fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut wire = gateway.wire().await;
    // The proxy may have refused before it has read all.
    let _refused_early = wire.try_send(bytes).await;
    wire.rest_or_open().await
}

/// Checks that each request is refused, with its connection closed and nothing forwarded.
async fn all_refused(statuses: &[u16], requests: &[(&str, &[u8])]) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wrong = Vec::new();
    for (name, bytes) in requests {
        let answer = exchange(&gateway, bytes).await;
        let status = answer
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| digits.parse::<u16>().ok());
        let refused = status.is_some_and(|status| statuses.contains(&status));
        let once = answer.matches("HTTP/1.").count() == 1;
        let closes = answer.to_lowercase().contains("connection: close");
        if !(refused && once && closes) {
            wrong.push(format!("{name}: {answer:?}"));
        }
        let whole = upstream.seen().iter().any(|seen| seen.whole);
        if whole {
            wrong.push(format!("{name}: the upstream got a request"));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn smuggling(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}{SMUGGLED}").into_bytes()
}

#[tokio::test]
async fn two_framings_are_refused() {
    let chunked = "0\r\n\r\n";
    let cases = [
        (
            "length, then chunked",
            smuggling("Content-Length: 6\r\nTransfer-Encoding: chunked", chunked),
        ),
        (
            "chunked, then length",
            smuggling("Transfer-Encoding: chunked\r\nContent-Length: 6", chunked),
        ),
        (
            "chunked twice in one field",
            smuggling("Transfer-Encoding: chunked, chunked", chunked),
        ),
        (
            "chunked in two fields",
            smuggling(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                chunked,
            ),
        ),
        (
            "identity behind chunked",
            smuggling("Transfer-Encoding: chunked, identity", chunked),
        ),
        (
            "chunked and identity in two fields",
            smuggling(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                chunked,
            ),
        ),
        ("identity", smuggling("Transfer-Encoding: identity", "")),
        (
            "an unknown coding",
            smuggling("Transfer-Encoding: xchunked", chunked),
        ),
        ("an empty coding", smuggling("Transfer-Encoding: ", chunked)),
        (
            "a coding with a control character",
            smuggling("Transfer-Encoding: \x0bchunked", chunked),
        ),
        (
            "a coding that is not unpacked",
            smuggling("Transfer-Encoding: gzip, chunked", chunked),
        ),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "a field name that ends with a space",
            smuggling("Transfer-Encoding : chunked", chunked),
        ),
    ];
    let cases: Vec<(&str, &[u8])> = cases
        .iter()
        .map(|(name, bytes)| (*name, &**bytes))
        .collect();
    all_refused(&[400, 501], &cases).await;
}

#[tokio::test]
async fn a_length_that_is_no_number_is_refused() {
    let lengths = [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: +3",
        "Content-Length: -1",
        "Content-Length: 0x3",
        "Content-Length: 3 3",
        "Content-Length: 3;",
        "Content-Length: ",
        "Content-Length: 3.0",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551617",
        "Content-Length : 3",
    ];
    let cases: Vec<(&str, Vec<u8>)> = lengths
        .iter()
        .map(|length| (*length, smuggling(length, "abc")))
        .collect();
    let cases: Vec<(&str, &[u8])> = cases
        .iter()
        .map(|(name, bytes)| (*name, &**bytes))
        .collect();
    all_refused(&[400, 413], &cases).await;
}

#[tokio::test]
async fn a_length_that_is_repeated_is_refused_or_made_one() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for fields in [
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3, 3",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\nabc"))
            .await;
        let reply = wire.read_message().await;
        if reply.status() == 200 {
            let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(seen.all("content-length"), ["3"]);
        } else {
            assert_eq!(reply.status(), 400, "{fields:?}");
        }
    }
}

#[tokio::test]
async fn chunks_that_are_no_chunks_end_the_request() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for body in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "f0000000000000003\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcXX0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nBad Trailer: x\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: a\nY: b\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = exchange(&gateway, format!("{head}{body}{SMUGGLED}").as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{body:?}: {answer:?}"
        );
        assert!(
            answer.matches("HTTP/1.1").count() <= 1,
            "{body:?}: {answer:?}"
        );
        let seen = upstream.seen();
        assert!(!seen.iter().any(|seen| seen.whole), "{body:?}: {seen:?}");
        assert!(
            !seen.iter().any(|seen| seen.target == "/smuggled"),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn chunk_extensions_are_dropped_and_bounded() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = gateway.wire().await;
    wire.send(format!(
        "{head}3;name=value;q=\"x y\"\r\nabc\r\n0;last\r\n\r\n"
    ))
    .await;
    let reply = wire.read_message().await;
    assert_eq!(reply.status(), 200);
    let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(seen.body, "abc");

    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(1024 * 1024));
    let answer = exchange(&gateway, format!("{head}{long}").as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer:?}"
    );
    assert_eq!(upstream.seen().iter().filter(|seen| seen.whole).count(), 1);
}

#[tokio::test]
async fn a_head_with_loose_line_ends_or_control_characters_is_refused() {
    all_refused(
        &[400],
        &[
            ("lines that end with LF", b"GET / HTTP/1.1\nHost: h\n\n"),
            (
                "one line that ends with LF",
                b"GET / HTTP/1.1\r\nX: a\nHost: h\r\n\r\n",
            ),
            (
                "a head that ends with LF",
                b"GET / HTTP/1.1\r\nHost: h\r\n\n",
            ),
            (
                "a CR in a value",
                b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
            ),
            (
                "a CR in the request line",
                b"GET /\rx HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            (
                "a NUL in a value",
                b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            ),
            (
                "a NUL in the target",
                b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            (
                "an escape character in a value",
                b"GET / HTTP/1.1\r\nHost: h\r\nX: \x1b[2J\r\n\r\n",
            ),
            (
                "a folded line",
                b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
            ),
            (
                "a space before the first field",
                b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
            ),
            (
                "a space in a name",
                b"GET / HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n",
            ),
            (
                "a space behind a name",
                b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            ),
            ("an empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n"),
            (
                "a line without a colon",
                b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n",
            ),
            (
                "a name that is no token",
                b"GET / HTTP/1.1\r\nHost: h\r\nX(y): a\r\n\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_host_that_is_missing_repeated_or_broken_is_refused() {
    all_refused(
        &[400],
        &[
            ("no host", b"GET / HTTP/1.1\r\n\r\n"),
            ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (
                "the same host twice",
                b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            ),
            ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            ("a path in the host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("a user in the host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
            (
                "a port that is none",
                b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            ),
            ("a port of letters", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
            ("an empty host", b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
            (
                "a space in the host",
                b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused() {
    all_refused(
        &[400, 405, 501, 505],
        &[
            ("an asterisk for GET", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
            (
                "a target without a slash",
                b"GET admin HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            (
                "a target that is an authority",
                b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            (
                "an asterisk with a path",
                b"OPTIONS */x HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
            (
                "a space in the target",
                b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            ("two spaces", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (
                "a method that is no token",
                b"GE(T / HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
            (
                "a version of the future",
                b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
            ),
            ("another version", b"GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
            (
                "a version in lower case",
                b"GET / http/1.1\r\nHost: h\r\n\r\n",
            ),
            ("no version", b"GET /\r\nHost: h\r\n\r\n"),
            (
                "a proxy's greeting",
                b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_head_over_the_bounds_is_refused() {
    let line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(70_000));
    let field = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
        "X: a\r\n".repeat(101)
    );
    all_refused(&[414, 431], &[("a long request line", line.as_bytes())]).await;
    all_refused(
        &[431],
        &[
            ("a long field", field.as_bytes()),
            ("too many fields", many.as_bytes()),
        ],
    )
    .await;
}

#[tokio::test]
async fn bounds_of_a_head_can_be_set() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-head = \"4KiB\"\nmax-fields = 10")
        .start()
        .await;
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "a".repeat(3000)
    );
    let mut wire = gateway.wire().await;
    wire.send(fits).await;
    assert_eq!(wire.read_message().await.status(), 200);
    for over in [
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
            "a".repeat(5000)
        ),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: a\r\n".repeat(11)),
    ] {
        let answer = exchange(&gateway, over.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    }
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_bad_request_in_a_row_ends_the_row() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let good = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n");
    let row = format!(
        "{}{}GET /bad HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n{}{}",
        good("1"),
        good("2"),
        good("4"),
        good("5")
    );
    let answers = exchange(&gateway, row.as_bytes()).await;
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .filter(|status| status.parse::<u16>().is_ok())
        .collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answers}");
    let targets: Vec<String> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert_eq!(targets, ["/1", "/2"]);
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_never_read_as_a_request() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["no"])
        .filter(
            "no",
            tidegate_tests::guests::Guest::new()
                .answers(403, "no")
                .build(),
        )
        .start()
        .await;
    for length in [SMUGGLED.len(), 1024 * 1024] {
        let body = SMUGGLED.repeat(length.div_ceil(SMUGGLED.len()));
        let body = &body[..length];
        let all = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut wire = gateway.wire().await;
        let _refused_early = wire.try_send(all).await;
        let _refused_early = wire.try_send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        wire.finish().await;
        let answers = wire.rest().await;
        let count = answers.matches("HTTP/1.1 403").count();
        assert!((1..=2).contains(&count), "{count} answers: {answers:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn what_is_odd_but_clear_goes_through() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for (request, target) in [
        (
            "\r\nGET /empty-line HTTP/1.1\r\nHost: h\r\n\r\n",
            "/empty-line",
        ),
        ("GET /no-space HTTP/1.1\r\nHost:h\r\n\r\n", "/no-space"),
        ("GET /tabs HTTP/1.1\r\nHost: \t h \t \r\n\r\n", "/tabs"),
        ("GET /case HTTP/1.1\r\nhOsT: h\r\n\r\n", "/case"),
        ("GET /ip HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "/ip"),
        (
            "GET /bytes HTTP/1.1\r\nHost: h\r\nX: \u{e9}\r\n\r\n",
            "/bytes",
        ),
        ("X-METHOD /method HTTP/1.1\r\nHost: h\r\n\r\n", "/method"),
        (
            "GET http://h/absolute HTTP/1.1\r\nHost: h\r\n\r\n",
            "/absolute",
        ),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(request).await;
        let reply = wire.read_message().await;
        assert_eq!(reply.status(), 200, "{request:?}: {reply:?}");
        let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(seen.target, target);
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_a_head() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    for byte in
        b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    {
        wire.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    let reply = wire.read_message().await;
    let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((seen.target.as_str(), seen.body.as_str()), ("/slow", "ab"));
}

#[tokio::test]
async fn who_is_slow_with_a_head_is_sent_away() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nheader-timeout = \"1s\"\nidle-timeout = \"1s\"")
        .start()
        .await;
    // Nothing at all, half a head, half a preface: each is closed.
    for begin in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\n", "PRI * HT"] {
        let mut wire = gateway.wire().await;
        wire.send(begin).await;
        let answer = wire.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{begin:?}: {answer:?}"
        );
    }
    // Idle after an answer.
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(wire.read_message().await.status(), 200);
    assert_eq!(wire.rest().await, "");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn refused_requests_are_counted_by_reason() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for (request, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", "bad_host"),
        ("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", "bad_path"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 2\r\n\r\n",
            "framing",
        ),
    ] {
        exchange(&gateway, request.as_bytes()).await;
        until(&format!("{reason} to be counted"), async || {
            gateway
                .metric("tidegate_client_errors_total", &[("reason", reason)])
                .await
                > 0.5
        })
        .await;
    }
}
