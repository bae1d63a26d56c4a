//! HTTP/2 downstream and upstream (RFC 9113): what it adds to HTTP/1.1, and what must not get through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use http::{Method, Response, StatusCode};
use tidegate_tests::client::{Client, empty, full, get, get_with, pieces, post, request};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Echo, Scripted, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::Wire;
use tokio::sync::Barrier;

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for (mut client, version) in [
        (gateway.http1().await, http::Version::HTTP_11),
        (gateway.http2().await, http::Version::HTTP_2),
    ] {
        let reply = client.send(post("/x?y", "body")).await;
        assert_eq!(reply.version, version);
        let seen = reply.echo();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("POST", "/x?y")
        );
        assert_eq!(seen.body, "body");
        assert_eq!(seen.version, "HTTP/1.1");
        assert_eq!(seen.all("host"), ["localhost"]);
    }
}

#[tokio::test]
async fn streams_do_not_wait_for_each_other() {
    // Nobody is answered before all have arrived.
    let barrier = Arc::new(Barrier::new(20));
    let upstream = Upstream::serve(move |_| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Response::new(full("together"))
        }
    })
    .await;
    let gateway = Setup::before(&upstream).start().await;
    let Client::Http2(sender) = gateway.http2().await else {
        unreachable!("asked for HTTP/2")
    };
    let replies = join_all((0..20).map(|_| {
        let mut client = Client::Http2(sender.clone());
        async move { client.send(get("/")).await.text() }
    }))
    .await;
    assert!(replies.iter().all(|text| text == "together"));
}

#[tokio::test]
async fn an_upstream_may_speak_http_2() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.h2c())
        .route("/*", "main", &[])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        for _ in 0..3 {
            let sent = get_with(
                "/x?y",
                &[("host", "shop.example"), ("x-a", "1"), ("x-a", "2")],
            );
            let seen = client.send(sent).await.echo();
            assert_eq!(seen.version, "HTTP/2.0");
            assert_eq!(seen.target, "/x?y");
            assert_eq!(seen.host(), Some("shop.example"));
            assert_eq!(seen.all("x-a"), ["1", "2"]);
            assert_eq!(seen.field("connection"), None);
        }
        let seen = client.send(post("/", "body")).await.echo();
        assert_eq!(seen.body, "body");
    }
    // One connection carries them all.
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_put_together() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let sent = get_with(
        "/",
        &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")],
    );
    let seen = gateway.http2().await.send(sent).await.echo();
    assert_eq!(seen.all("cookie"), ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn a_body_without_a_length_is_chunked_for_an_old_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let sent = request(Method::POST, "/")
        .body(pieces(&["ab", "c"], &[]))
        .unwrap();
    let seen = gateway.http2().await.send(sent).await.echo();
    assert_eq!(seen.body, "abc");
    assert_eq!(seen.all("transfer-encoding"), ["chunked"]);
    let sent = request(Method::GET, "/").body(empty()).unwrap();
    let seen = gateway.http2().await.send(sent).await.echo();
    assert_eq!(seen.field("transfer-encoding"), None);
}

#[tokio::test]
async fn a_head_over_the_bounds_is_431_here_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut many = get("/");
    for _ in 0..120 {
        many.headers_mut().append("x-a", "b".parse().unwrap());
    }
    let mut client = gateway.http2().await;
    // An answer, or a refused stream: the proxy is not obliged to read on.
    if let Ok(reply) = client.try_send(many).await {
        assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let long = get_with("/", &[("x-long", "a".repeat(80_000).as_str())]);
    let mut client = gateway.http2().await;
    if let Ok(reply) = client.try_send(long).await {
        assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut crumbs = get("/");
    for number in 0..2000 {
        let crumb = format!("c{number}=v").parse().unwrap();
        crumbs.headers_mut().append("cookie", crumb);
    }
    let mut client = gateway.http2().await;
    if let Ok(reply) = client.try_send(crumbs).await {
        assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_resets_only_its_stream() {
    let upstream = Upstream::stream(async |request: http::Request<hyper::body::Incoming>| {
        if request.uri().path() != "/break" {
            return Response::new(full("fine"));
        }
        let (mut sender, body) = tidegate_tests::client::streamed();
        tokio::spawn(async move {
            sender.send_data("some".into()).await.unwrap();
            sender.abort("broken on purpose".into());
        });
        Response::new(body)
    })
    .await;
    for endpoint in [upstream.url(), upstream.h2c()] {
        let gateway = Setup::with_upstream("main", &endpoint)
            .route("/*", "main", &[])
            .start()
            .await;
        let mut client = gateway.http2().await;
        assert!(client.try_send(get("/break")).await.is_err());
        assert_eq!(client.send(get("/")).await.text(), "fine");
    }
}

// --- Frames by hand: what a well-behaved client library would not send. ---

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literal fields without indexing (RFC 7541 section 6.2.2).
fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).unwrap());
            assert!(text.len() < 127, "one byte of length is enough here");
            bytes.extend(*text);
        }
    }
    bytes
}

/// What a proxy does with a request made of these fields, seen frame by frame.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    StreamReset,
    ConnectionEnded,
}

async fn outcome(gateway: &Gateway, fields: &[(&[u8], &[u8])], data: Option<&[u8]>) -> Outcome {
    let mut wire = gateway.wire().await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let end = if data.is_none() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if let Some(data) = data {
        bytes.extend(frame(DATA, END_STREAM, 1, data));
    }
    wire.send(bytes).await;
    read_outcome(&mut wire).await
}

async fn read_outcome(wire: &mut Wire) -> Outcome {
    loop {
        let Ok(head) = wire.try_read_exact(9).await else {
            return Outcome::ConnectionEnded;
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Ok(payload) = wire.try_read_exact(length as usize).await else {
            return Outcome::ConnectionEnded;
        };
        match (head[3], stream) {
            (HEADERS, 1) => return Outcome::Status(status(&payload)),
            (RST_STREAM, 1) => return Outcome::StreamReset,
            (GOAWAY, _) => return Outcome::ConnectionEnded,
            _ => {}
        }
    }
}

/// The status of a response, which hpack gives as an index of the static table or as a literal in it.
fn status(block: &[u8]) -> u16 {
    // A change of the dynamic table's size may stand first.
    let block = if block[0] & 0xe0 == 0x20 {
        &block[1..]
    } else {
        block
    };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // `:status` by its index, and three digits; huffman-coded they take two bytes.
        0x48 | 0x08 if block[1] == 3 => String::from_utf8_lossy(&block[2..5]).parse().unwrap(),
        0x48 | 0x08 => 999,
        other => panic!("no status: {other:#x}"),
    }
}

const GOOD: [(&[u8], &[u8]); 4] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
];

#[tokio::test]
async fn a_request_by_hand_is_a_request() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    assert_eq!(outcome(&gateway, &GOOD, None).await, Outcome::Status(200));
}

#[tokio::test]
async fn what_would_break_a_line_of_http_1_does_not_get_through() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let bad: &[(&[u8], &[u8])] = &[
        (b"x-a", b"a\r\nevil: 1"),
        (b"x-a", b"a\nb"),
        (b"x-a", b"a\0b"),
        (b"x-a\r\nevil", b"1"),
        (b"X-Upper", b"1"),
        (b"x a", b"1"),
        (b"x:a", b"1"),
        (b"", b"1"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"keep-alive", b"1"),
        (b"upgrade", b"websocket"),
        (b"proxy-connection", b"keep-alive"),
        (b"te", b"gzip"),
        (b":path", b"/other"),
        (b":unknown", b"1"),
        (b"host", b"other"),
    ];
    for (name, value) in bad {
        let mut fields = GOOD.to_vec();
        fields.push((name, value));
        let seen = outcome(&gateway, &fields, None).await;
        let name = String::from_utf8_lossy(name);
        assert_ne!(
            seen,
            Outcome::Status(200),
            "{name:?}: {:?}",
            upstream.seen()
        );
    }
    let replaced: &[(&[u8], &[u8])] = &[
        (b":path", b"/x HTTP/1.1\r\nevil: 1"),
        (b":path", b"/a b"),
        (b":path", b"admin"),
        (b":path", b""),
        (b":path", b"/public/..%2fadmin"),
        (b":method", b"GET /x HTTP/1.1"),
        (b":method", b""),
        (b":method", b"CONNECT"),
        (b":scheme", b"http://x/?"),
        (b":authority", b"u@h"),
        (b":authority", b"h/x"),
        (b":authority", b"h:99999"),
        (b":authority", b""),
    ];
    for (name, value) in replaced {
        let fields: Vec<(&[u8], &[u8])> = GOOD
            .iter()
            .map(|(good, old)| (*good, if good == name { *value } else { *old }))
            .collect();
        let seen = outcome(&gateway, &fields, None).await;
        let value = String::from_utf8_lossy(value);
        assert_ne!(
            seen,
            Outcome::Status(200),
            "{value:?}: {:?}",
            upstream.seen()
        );
    }
    assert_eq!(upstream.requests(), 0, "{:?}", upstream.seen());
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let with_length = |length: &'static [u8]| {
        let mut fields = GOOD.to_vec();
        fields[0] = (b":method", b"POST");
        fields.push((b"content-length", length));
        fields
    };
    let seen = outcome(&gateway, &with_length(b"3"), Some(b"abc")).await;
    assert_eq!(seen, Outcome::Status(200));
    for length in [b"2", b"4"] {
        let seen = outcome(&gateway, &with_length(length), Some(b"abc")).await;
        assert_ne!(seen, Outcome::Status(200), "{:?}", upstream.seen());
    }
    let seen = outcome(&gateway, &with_length(b"3"), None).await;
    assert_ne!(seen, Outcome::Status(200));
    let whole: Vec<Echo> = upstream
        .seen()
        .into_iter()
        .filter(|seen| seen.whole)
        .collect();
    assert_eq!(whole.len(), 1, "{whole:?}");
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_and_nothing_else() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for number in 0..20_000_u32 {
        let stream = number * 2 + 1;
        bytes.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &block(&GOOD),
        ));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let _ended_early = wire.try_send(bytes).await;
    wire.read_to_end().await;
    assert!(upstream.requests() < 2_000, "{}", upstream.requests());
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_opens_a_connection_and_no_stream_is_sent_away() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nheader-timeout = \"300ms\"\nidle-timeout = \"300ms\"")
        .start()
        .await;
    let mut opening = PREFACE.to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GOOD[..2]));
    for (name, bytes) in [
        ("no stream at all", opening.clone()),
        ("a head that never ends", [opening, begun].concat()),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(&bytes).await;
        let rest = wire.rest_or_open().await;
        assert!(!rest.ends_with("(still open)"), "{name}: {rest:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_reset_stream_ends_the_request_at_the_upstream() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let gone = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&arrived), Arc::clone(&gone));
    let upstream = Scripted::start(move |_, mut wire| {
        let (arrived, gone) = counts.clone();
        async move {
            wire.try_read_until(b"\r\n\r\n").await?;
            arrived.fetch_add(1, Ordering::SeqCst);
            wire.read_to_end().await;
            gone.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let Client::Http2(sender) = gateway.http2().await else {
        unreachable!("asked for HTTP/2")
    };
    let mut client = Client::Http2(sender.clone());
    let waiting = tokio::spawn(async move { client.start(get("/")).await.map(|_| ()) });
    until("the request to arrive", async || {
        arrived.load(Ordering::SeqCst) == 1
    })
    .await;
    waiting.abort();
    until("the upstream's connection to be closed", async || {
        gone.load(Ordering::SeqCst) == 1
    })
    .await;
}
