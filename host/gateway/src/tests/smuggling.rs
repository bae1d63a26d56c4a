//! Requests that could be read in two ways, in raw bytes (RFC 9112 section 11.2): each is answered, its connection is
//! closed, it is counted and logged, and nothing of it is forwarded.

use super::harness::{Origin, Setup, Wire, run, status};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn cases() -> Vec<(&'static str, String, &'static str)> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}");
    let long = "a".repeat(70_000);
    vec![
        (
            "400 framing",
            post(
                "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            "a length and chunks",
        ),
        (
            "400 framing",
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
                "0\r\n\r\n",
            ),
            "chunks and a length",
        ),
        (
            "400 framing",
            post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"),
            "two lengths",
        ),
        (
            "400 framing",
            post("Content-Length: +3\r\n", "abc"),
            "a signed length",
        ),
        (
            "501 coding",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            "a coding",
        ),
        (
            "501 coding",
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            "chunks twice",
        ),
        (
            "400 framing",
            "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "chunks in 1.0",
        ),
        (
            "400 bad_head",
            "GET / HTTP/1.1\nHost: h\n\n".to_owned(),
            "bare LF",
        ),
        ("400 bad_head", get("Host: h\r\nX: a\rb\r\n"), "bare CR"),
        ("400 bad_head", get("Host: h\r\nX: a\0b\r\n"), "NUL"),
        (
            "400 bad_head",
            get("Host : h\r\n"),
            "a space before the colon",
        ),
        (
            "400 bad_head",
            get("Host: h\r\nX: a\r\n b\r\n"),
            "a folded line",
        ),
        (
            "400 bad_head",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "two spaces",
        ),
        (
            "505 version",
            "GET / HTTP/1.2\r\nHost: h\r\n\r\n".to_owned(),
            "another version",
        ),
        (
            "400 bad_path",
            "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "a fragment",
        ),
        (
            "400 bad_path",
            "GET admin HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "no path",
        ),
        (
            "400 bad_path",
            "GET /..%2fadmin HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "an ambiguous path",
        ),
        ("400 bad_host", get(""), "no host"),
        ("400 bad_host", get("Host: a\r\nHost: a\r\n"), "two hosts"),
        ("400 bad_host", get("Host: u@a\r\n"), "a user"),
        (
            "400 bad_host",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "two names",
        ),
        (
            "405 method",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(),
            "CONNECT",
        ),
        (
            "405 method",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "TRACE",
        ),
        (
            "501 method",
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(40)),
            "a long method",
        ),
        (
            "417 expectation",
            get("Host: h\r\nExpect: gold\r\n"),
            "an expectation",
        ),
        (
            "414 uri_too_long",
            format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
            "a long target",
        ),
        (
            "431 header_too_large",
            get(&format!("Host: h\r\nX: {long}\r\n")),
            "a long field",
        ),
        (
            "431 header_too_large",
            get(&format!("Host: h\r\n{}", "X: a\r\n".repeat(101))),
            "many fields",
        ),
    ]
}

#[test]
fn each_is_refused_counted_and_logged() {
    run(async {
        let origin = Origin::echo().await;
        for (expected, request, what) in cases() {
            let (code, reason) = expected.split_once(' ').unwrap();
            let gateway = Setup::new(&origin, vec![]).start().await;
            let mut wire = gateway.wire().await;
            wire.send(format!("{request}{SMUGGLED}")).await;
            let (got, _) = wire.rest().await;
            assert_eq!(status(&got), code, "{what}: {got:?}");
            assert_eq!(got.matches("HTTP/1.").count(), 1, "{what}: {got:?}");
            let closes = got.contains("connection: close") || got.starts_with("HTTP/1.0");
            assert!(closes, "{what}: {got:?}");
            let line = &gateway.lines(1).await[0];
            assert_eq!(line["reason"], reason, "{what}");
            assert!(
                got.contains(line["request-id"].as_str().unwrap()),
                "{what}: {got}"
            );
            let series = format!("tidegate_client_errors_total{{reason=\"{reason}\"}}");
            assert!(
                (gateway.figure(&series) - 1.0).abs() < f64::EPSILON,
                "{what}"
            );
            drop(wire);
            gateway.all_closed().await;
        }
        assert!(origin.seen.all().is_empty(), "{:?}", origin.seen.all());
    });
}

#[test]
fn a_client_that_has_ended_its_side_is_told_all_the_same() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let good = (
            "200 -",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "a good one",
        );
        let with_body = (
            "200 -",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            "with a body",
        );
        for (expected, request, what) in cases().into_iter().chain([good, with_body]) {
            for early in [false, true] {
                let mut wire = gateway.wire().await;
                wire.send(&request).await;
                if !early {
                    tokio::task::yield_now().await;
                }
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut wire.0).await;
                let (got, in_order) = wire.rest().await;
                assert_eq!(status(&got), &expected[..3], "{what}: {got:?}");
                assert!(in_order, "{what}");
            }
        }
    });
}

#[test]
fn chunks_that_are_no_chunks_end_the_request() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        for body in [
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "3\r\nabcXX0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\nBad Trailer: x\r\n\r\n",
            "3\r\nabc\r\n0\r\nX: a\nY: b\r\n\r\n",
            "f0000000000000003\r\nabc\r\n0\r\n\r\n",
        ] {
            let mut wire = gateway.wire().await;
            wire.send(format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
            ))
            .await;
            let (got, _) = wire.rest().await;
            assert_eq!(status(&got), "400", "{body:?}: {got:?}");
            assert_eq!(got.matches("HTTP/1.").count(), 1, "{body:?}: {got:?}");
        }
        assert!(origin.seen.all().is_empty(), "{:?}", origin.seen.all());
        for (reason, count) in [("framing", 6.0), ("bad_head", 2.0)] {
            let series = format!("tidegate_client_errors_total{{reason=\"{reason}\"}}");
            assert!((gateway.figure(&series) - count).abs() < f64::EPSILON);
        }
    });
}

#[test]
fn a_bad_request_in_a_row_ends_the_row() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let good = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let row = format!(
            "{}{}POST /bad HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n{}{}",
            good("/1"),
            good("/2"),
            good("/4"),
            good("/5")
        );
        for cut in [0, 10, 80, 90, 120, row.len() - 3] {
            let mut wire = gateway.wire().await;
            let (one, two) = row.split_at(cut);
            wire.send(one).await;
            tokio::task::yield_now().await;
            wire.send(two).await;
            let (got, _) = wire.rest().await;
            let statuses: Vec<&str> = got
                .match_indices("HTTP/1.1 ")
                .filter_map(|(at, _)| got.get(at + 9..at + 12))
                .filter(|status| status.parse::<u16>().is_ok())
                .collect();
            assert_eq!(statuses, ["200", "200", "400"], "cut at {cut}: {got}");
        }
        assert!(
            origin
                .seen
                .all()
                .iter()
                .all(|head| head.starts_with("GET /1 ") || head.starts_with("GET /2 "))
        );
    });
}

#[test]
fn the_body_of_a_refused_request_is_never_read_as_a_request() {
    run(async {
        let origin = Origin::echo().await;
        for (length, kept) in [(SMUGGLED.len(), true), (1024 * 1024, false)] {
            // No route takes it.
            let gateway = Setup::new(&origin, vec![])
                .route(|route| route.methods = vec![http::Method::HEAD])
                .start()
                .await;
            let body = SMUGGLED.repeat(length.div_ceil(SMUGGLED.len()));
            let mut wire: Wire = gateway.wire().await;
            let (mut read, mut write) = wire.0.split();
            let all = format!(
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}GET /next HTTP/1.1\r\nHost: h\r\n\r\n",
                &body[..length]
            );
            let sending = async {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut write, all.as_bytes()).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            };
            let mut got = String::new();
            let (_, read) = tokio::join!(
                sending,
                tokio::io::AsyncReadExt::read_to_string(&mut read, &mut got)
            );
            read.unwrap();
            let answers = got.matches("HTTP/1.1 404").count();
            assert_eq!(answers, if kept { 2 } else { 1 }, "{length}: {got}");
        }
        assert!(origin.seen.all().is_empty());
    });
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked_once_or_never() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        wire.send(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        assert_eq!(wire.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        wire.send("hi").await;
        let got = wire.message().await.unwrap();
        assert!(
            got.ends_with("\r\n\r\nhi") && !got.contains("expect"),
            "{got}"
        );
        let gateway = Setup::to(None, vec![]).start().await;
        let mut wire = gateway.wire().await;
        wire.send(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        let (got, _) = wire.rest().await;
        assert_eq!(status(&got), "502", "{got}");
    });
}
