//! Request smuggling, by the bytes: what a client sends on one side, what the next server gets on the other (RFC 9112
//! section 11.2). The upstream here reads more strictly than any server would, so that what passes it has one meaning.

use std::time::Duration;

use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::tap::{Raw, Tap};
use tidegate_tests::wait::until;
use tidegate_tests::wire::End;

pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

pub(crate) async fn before(tap: &Tap) -> Gateway {
    Setup::with_upstream("main", &tap.url())
        .route("/*", "main", &[])
        .start()
        .await
}

/// Sends bytes on a connection of their own and gives all that comes back until it is closed.
pub(crate) async fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut wire = gateway.wire().await;
    let _refused_early = wire.try_send(bytes).await;
    wire.rest_or_open().await
}

pub(crate) fn statuses(answers: &str) -> Vec<&str> {
    let lines = answers.split("\r\n");
    lines
        .filter_map(|line| {
            let at = line.find("HTTP/1.1 ").or_else(|| line.find("HTTP/1.0 "))?;
            line.get(at + 9..at + 12)
        })
        .filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

/// One request in, with its connection's name; one out: its line, its own fields, its body.
struct Passes {
    sent: &'static [u8],
    line: &'static str,
    fields: &'static [&'static str],
    body: &'static [u8],
}

#[tokio::test]
async fn a_request_arrives_as_one_request_with_one_framing() {
    let cases = [
        Passes {
            sent: b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            line: "GET /a HTTP/1.1",
            fields: &[],
            body: b"",
        },
        Passes {
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            line: "POST /a HTTP/1.1",
            fields: &["content-length: 3"],
            body: b"abc",
        },
        Passes {
            // A body that looks like a request is a body.
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 39\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["content-length: 39"],
            body: b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n",
        },
        Passes {
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["content-length: 0"],
            body: b"",
        },
        Passes {
            // Extensions are dropped, sizes are written anew.
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0003;a=b;c=\"d\"\r\nabc\r\n00A\r\n0123456789\r\n000;last\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"abc0123456789",
        },
        Passes {
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"a",
        },
        Passes {
            // Methods that seldom have a body keep the one that they have.
            sent: b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            line: "GET /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"a",
        },
        Passes {
            sent: b"DELETE /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n25\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n0\r\n\r\n",
            line: "DELETE /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n\r\n",
        },
        Passes {
            sent: b"OPTIONS /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            line: "OPTIONS /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"a",
        },
        Passes {
            sent: b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na",
            line: "GET /a HTTP/1.1",
            fields: &["content-length: 1"],
            body: b"a",
        },
        Passes {
            // What Connection names is taken out, but for what the message is read by.
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: content-length, host, transfer-encoding, x-a, \r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 3\r\n\r\nabc",
            line: "POST /a HTTP/1.1",
            fields: &["x-b: 2", "content-length: 3"],
            body: b"abc",
        },
        Passes {
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"a",
        },
        Passes {
            // Bytes above 0x7f are passed on as they are, tabs and spaces around a value are not a part of it.
            sent: b"GET /a HTTP/1.1\r\nHost: h\r\nX-A: \t \x80\xe9\xff  b\t\r\n\r\n",
            line: "GET /a HTTP/1.1",
            fields: &["x-a: \u{fffd}\u{fffd}\u{fffd}  b"],
            body: b"",
        },
        Passes {
            sent: b"POST /a HTTP/1.0\r\nHost: h\r\nContent-Length: 1\r\n\r\na",
            line: "POST /a HTTP/1.1",
            fields: &["content-length: 1"],
            body: b"a",
        },
        Passes {
            // Trailers that are not wanted go nowhere.
            sent: b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nX-T: 1\r\n\r\n",
            line: "POST /a HTTP/1.1",
            fields: &["transfer-encoding: chunked"],
            body: b"a",
        },
        Passes {
            // Empty lines before a request mean nothing.
            sent: b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            line: "GET /a HTTP/1.1",
            fields: &[],
            body: b"",
        },
        Passes {
            sent: b"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            line: "GET /a HTTP/1.1",
            fields: &[],
            body: b"",
        },
    ];
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    for (number, case) in cases.iter().enumerate() {
        let shown = String::from_utf8_lossy(case.sent);
        // Each is sent twice in one go, and the connection is still in step behind it.
        let mut wire = gateway.wire().await;
        let once =
            case.sent.starts_with(b"POST /a HTTP/1.0") || shown.contains("Connection: close");
        wire.send(case.sent).await;
        if !once {
            wire.send(case.sent).await;
        }
        for _ in 0..if once { 1 } else { 2 } {
            assert_eq!(wire.read_message().await.text(), "ok", "{shown:?}");
        }
        let requests = tap.requests();
        let mine: Vec<&Raw> = requests
            .iter()
            .filter(|raw| !raw.line.contains("/done"))
            .collect();
        for raw in &mine {
            assert_eq!(raw.line, case.line, "{shown:?}");
            let mut fields = raw.own_fields();
            let mut expected: Vec<String> = case.fields.iter().map(ToString::to_string).collect();
            fields.sort();
            expected.sort();
            assert_eq!(fields, expected, "{shown:?}");
            assert_eq!(raw.body, case.body, "{shown:?}");
            assert_eq!(raw.all("host"), ["h"], "{shown:?}");
            assert!(!raw.trailers.to_lowercase().contains("content-length"));
            assert!(!raw.trailers.to_lowercase().contains("host"));
        }
        assert_eq!(mine.len(), if once { 1 } else { 2 }, "{number}: {shown:?}");
        tap.forget();
    }
}

#[tokio::test]
async fn a_refusal_is_logged_with_its_reason_and_the_clients_address() {
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0\r\n\r\n", "bad_head"),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "framing",
        ),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(bytes).await;
        wire.rest().await;
        let peer = wire.local().to_string();
        let line = gateway.logged(&[reason, &peer]).await;
        assert!(line.is_json(), "{line:?}");
    }
}

#[tokio::test]
async fn of_a_refused_body_the_upstream_gets_no_end() {
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    for body in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "f0000000000000003\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        ";a\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcXX0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "0\r\nBad Trailer: x\r\n\r\n",
        "0\r\nX: a\nY: b\r\n\r\n",
        "0\r\n X: a\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\n: a\r\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\nX: a\r\n\n",
        "0\n\r\n",
        "0\r\n\n",
    ] {
        // With a piece before it that was in order, and without.
        for before in ["", "4\r\nfine\r\n"] {
            let head = "POST /bad HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
            let bytes = format!("{head}{before}{body}{SMUGGLED}");
            let answer = exchange(&gateway, bytes.as_bytes()).await;
            assert_eq!(statuses(&answer), ["400"], "{before}{body:?}: {answer:?}");
            assert!(!answer.ends_with("(still open)"), "{body:?}: {answer:?}");
            assert!(
                answer.to_lowercase().contains("connection: close"),
                "{body:?}: {answer:?}"
            );
            for connection in tap.connections() {
                assert!(!connection.contains("smuggled"), "{body:?}: {connection:?}");
                // A last chunk would make it whole.
                assert!(
                    !connection.contains("\r\n0\r\n"),
                    "{body:?}: {connection:?}"
                );
            }
            tap.forget();
        }
    }
}

#[tokio::test]
async fn a_row_of_twenty_is_served_up_to_the_bad_one() {
    let tap = Tap::start().await;
    let gateway = Setup::with_upstream("main", &tap.url())
        .route("/*", "main", &[])
        .route("/5", "main", &["no"])
        .filter("no", Guest::new().answers(403, "no").build())
        .start()
        .await;
    let mut row = String::new();
    for number in 1..=20 {
        row += &match number {
            // One with a body, one that a filter refuses, one that is no request.
            3 => "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
            10 => "GET /10 HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n".to_owned(),
            _ => format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n"),
        };
    }
    let mut wire = gateway.wire().await;
    wire.send(&row).await;
    for number in 1..10 {
        let reply = wire.read_message().await;
        let (status, text) = if number == 5 {
            (403, "no")
        } else {
            (200, "ok")
        };
        assert_eq!((reply.status(), &*reply.text()), (status, text), "{number}");
        assert_eq!(reply.field("connection"), None, "{number}");
    }
    let last = wire.read_message().await;
    assert_eq!(last.status(), 400);
    assert_eq!(last.field("connection"), Some("close"));
    let (rest, end) = wire.read_to_end().await;
    assert_eq!((rest.len(), end), (0, End::Closed));
    let lines: Vec<String> = tap.requests().into_iter().map(|raw| raw.line).collect();
    let expected: Vec<String> = [1, 2, 3, 4, 6, 7, 8, 9]
        .map(|number| {
            let method = if number == 3 { "POST" } else { "GET" };
            format!("{method} /{number} HTTP/1.1")
        })
        .to_vec();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_body_behind_a_refusal_is_no_request() {
    let tap = Tap::start().await;
    let gateway = Setup::with_upstream("main", &tap.url())
        .route("/*", "main", &[])
        .route("/no", "main", &["no"])
        .filter("no", Guest::new().answers(403, "no").build())
        .start()
        .await;
    let smuggled = SMUGGLED.repeat(1024 * 1024 / SMUGGLED.len());
    let small = SMUGGLED.repeat(100);
    let chunked = |body: &str| {
        format!(
            "POST /no HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let lengthy = |body: &str| {
        format!(
            "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (name, all, drained) in [
        ("a small length", lengthy(&small), true),
        ("small chunks", chunked(&small), true),
        ("a length of a MiB", lengthy(&smuggled), false),
        ("chunks of a MiB", chunked(&smuggled), false),
    ] {
        let mut wire = gateway.wire().await;
        // The body comes behind the refusal.
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        wire.send(format!("{head}\r\n\r\n")).await;
        let refusal = wire.read_message().await;
        assert_eq!((refusal.status(), &*refusal.text()), (403, "no"), "{name}");
        let _closed_early = wire.try_send(body).await;
        let _closed_early = wire.try_send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        wire.finish().await;
        let answers = wire.rest().await;
        if drained {
            // What is short is read to its end, and the next request is found behind it.
            assert_eq!(statuses(&answers), ["200"], "{name}: {answers:?}");
            let requests = tap.requests();
            assert_eq!(requests.len(), 1, "{name}");
            assert_eq!(requests[0].line, "GET /next HTTP/1.1");
        } else {
            assert_eq!(statuses(&answers), [""; 0], "{name}: {answers:?}");
            assert_eq!(tap.all(), "", "{name}");
        }
        tap.forget();
    }
}

#[tokio::test]
async fn bytes_in_a_body_of_many_pieces_keep_their_order() {
    // Every byte has a segment of its own: no state is lost between two reads.
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    let mut wire = gateway.wire().await;
    let row = "POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: 1\r\n\r\n\
               POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nde\
               GET /3 HTTP/1.1\r\nHost: h\r\n\r\n";
    for byte in row.as_bytes() {
        wire.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        assert_eq!(wire.read_message().await.status(), 200);
    }
    let requests: Vec<(String, Vec<u8>)> = tap
        .requests()
        .into_iter()
        .map(|raw| (raw.line, raw.body))
        .collect();
    assert_eq!(
        requests,
        [
            ("POST /1 HTTP/1.1".to_owned(), b"abc".to_vec()),
            ("POST /2 HTTP/1.1".to_owned(), b"de".to_vec()),
            ("GET /3 HTTP/1.1".to_owned(), Vec::new()),
        ]
    );
}

#[tokio::test]
async fn no_rewrite_writes_a_line_of_its_own() {
    // A filter that builds its fields from the request can't be led to end a line.
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    for target in [
        "/a%0d%0aX-Evil:%201",
        "/a%0aX",
        "/a%00",
        "/%E0%80%AF",
        "/%c0%ae%c0%ae/x",
        "/%",
        "/%4",
        "/%zz",
    ] {
        let answer = exchange(
            &gateway,
            format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        for raw in tap.requests() {
            let lower = raw.line.to_lowercase();
            assert!(!lower.contains("%0d") && !lower.contains("%0a"), "{raw:?}");
            assert!(!lower.contains("evil"), "{raw:?}");
        }
        // Escapes that are none are refused; bytes that are no UTF-8 stay escaped.
        let is_utf8 = !target.contains("E0") && !target.contains("c0");
        let expected = if is_utf8 { "400" } else { "200" };
        assert_eq!(statuses(&answer), [expected], "{target}: {answer:?}");
        tap.forget();
    }
    // The query is none of our business, byte for byte.
    let mut wire = gateway.wire().await;
    wire.send("GET /q?a=%zz&a=1;b=%0d%0a&c=%&d=[|] HTTP/1.1\r\nHost: h\r\n\r\n")
        .await;
    assert_eq!(wire.read_message().await.status(), 200);
    assert_eq!(
        tap.requests()[0].line,
        "GET /q?a=%zz&a=1;b=%0d%0a&c=%&d=[|] HTTP/1.1"
    );
}

#[tokio::test]
async fn an_expectation_never_puts_the_connection_out_of_step() {
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    // The body is sent at once, and looks like a request.
    let mut wire = gateway.wire().await;
    let length = SMUGGLED.len();
    wire.send(format!(
        "POST /1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}\
         GET /2 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
    ))
    .await;
    let mut finals = 0;
    while finals < 3 {
        let head = wire.read_head().await;
        if head.starts_with("HTTP/1.1 100 ") {
            assert_eq!(finals, 0, "asked for a body that is not there");
            continue;
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
        assert_eq!(wire.read_exact(2).await, b"ok");
        finals += 1;
    }
    assert!(wire.stays_silent(Duration::from_millis(100)).await);
    let lines: Vec<String> = tap.requests().into_iter().map(|raw| raw.line).collect();
    assert_eq!(
        lines,
        ["POST /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1"]
    );
    assert!(
        tap.requests()
            .iter()
            .all(|raw| raw.all("expect").is_empty())
    );
    tap.forget();
    // HTTP/1.0 knows no interim responses.
    let answer = exchange(
        &gateway,
        b"POST /old HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    )
    .await;
    assert!(!answer.contains(" 100 "), "{answer:?}");
    assert!(answer.contains(" 200 "), "{answer:?}");
    assert_eq!(tap.requests()[0].body, b"body");
}

#[tokio::test]
async fn trailers_are_bounded_and_never_become_fields() {
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization, X-Auth-User\r\n\r\n1\r\na\r\n0\r\n";
    let refused = [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Cookie",
        "X-Forwarded-For",
        "Connection",
        "Set-Cookie",
        "Trailer",
    ];
    let mut trailers = "X-Sum: 1\r\n".to_owned();
    for name in refused {
        trailers += &format!("{name}: evil\r\n");
    }
    let mut wire = gateway.wire().await;
    wire.send(format!("{head}{trailers}\r\n")).await;
    assert_eq!(wire.read_message().await.status(), 200);
    let raw = &tap.requests()[0];
    assert!(!format!("{raw:?}").contains("evil"), "{raw:?}");
    assert!(
        raw.own_fields()
            .iter()
            .all(|field| !field.contains("x-sum:"))
    );
    tap.forget();
    // Many of them, and much of them.
    for trailers in [
        "X: a\r\n".repeat(5000),
        format!("X: {}\r\n", "a".repeat(100_000)),
    ] {
        let answer = exchange(
            &gateway,
            format!("{head}{trailers}\r\n{SMUGGLED}").as_bytes(),
        )
        .await;
        let seen = statuses(&answer);
        assert!(seen == ["431"] || seen == ["400"], "{answer:?}");
        assert!(!tap.all().contains("smuggled"));
        assert!(!tap.all().contains("\r\n0\r\n"), "{:?}", tap.all());
        tap.forget();
    }
}

#[tokio::test]
async fn a_bad_request_leaves_the_upstreams_connection_in_step() {
    // One connection to the upstream carries all; broken bodies must cost it, not poison it.
    let tap = Tap::start().await;
    let gateway = before(&tap).await;
    for number in 0..5 {
        let mut broken = gateway.wire().await;
        broken
            .send("POST /broken HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n")
            .await;
        until("the broken one to arrive", async || {
            tap.all().matches("5\r\nGET /\r\n").count() == number + 1
        })
        .await;
        broken.send("zz").await;
        assert!(broken.rest().await.starts_with("HTTP/1.1 400 "));
        let mut wire = gateway.wire().await;
        wire.send(format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        assert_eq!(wire.read_message().await.text(), "ok");
    }
    for connection in tap.connections() {
        if let Some(at) = connection.find("POST /broken") {
            let behind = &connection[at + "POST /broken HTTP/1.1".len()..];
            assert!(!behind.contains(" HTTP/1.1"), "{connection:?}");
            assert!(!behind.contains("\r\n0\r\n"), "{connection:?}");
        }
    }
}
