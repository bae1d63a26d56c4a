//! Requests over HTTP/2 that are none, by their fields (RFC 9113 sections 8.1 to 8.3): refused, and nothing of them goes
//! on to a server that reads lines.

use tidegate_tests::frames::{
    DATA, END_STREAM, Fate, Field, GET, Http2, POST, PROTOCOL_ERROR, frame, headers,
};
use tidegate_tests::gateway::Setup;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

use crate::http2_spec::Owed::Refusal;
use crate::http2_spec::{connect_tls, gateway, join, open, pays, secured};

/// A request of these fields, with a body if there is one, and its owed answer.
fn request(fields: &[Field<'_>], body: Option<&[u8]>) -> Vec<u8> {
    match body {
        None => headers(END_STREAM, 1, fields),
        Some(body) => join(&[headers(0, 1, fields), frame(DATA, END_STREAM, 1, body)]),
    }
}

fn with(fields: &[Field<'static>]) -> Vec<u8> {
    request(&[&GET[..], fields].concat(), None)
}

fn without(name: &[u8]) -> Vec<u8> {
    let fields: Vec<Field<'_>> = GET
        .into_iter()
        .filter(|(found, _)| *found != name)
        .collect();
    request(&fields, None)
}

fn instead(name: &[u8], value: &'static [u8]) -> Vec<u8> {
    let fields = GET.map(|(found, old)| (found, if found == name { value } else { old }));
    request(&fields, None)
}

#[tokio::test]
async fn malformed_requests_are_refused_and_never_forwarded() {
    let (gateway, upstream, authority) = secured().await;
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut case = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes));
    // Section 8.2.1: what is no field.
    case("upper case", with(&[(b"X-Upper", b"1")]));
    case("a space in a name", with(&[(b"x a", b"1")]));
    case("a colon in a name", with(&[(b"x:a", b"1")]));
    case("an empty name", with(&[(b"", b"1")]));
    case("a line's end in a name", with(&[(b"x\r\nevil", b"1")]));
    case("bytes above 0x7f in a name", with(&[(b"x\xe9", b"1")]));
    case("CR LF in a value", with(&[(b"x-a", b"a\r\nevil: 1")]));
    case("CR in a value", with(&[(b"x-a", b"a\rb")]));
    case("LF in a value", with(&[(b"x-a", b"a\nb")]));
    case("NUL in a value", with(&[(b"x-a", b"a\0b")]));
    // Section 8.2.2: what belongs to one connection.
    case("connection", with(&[(b"connection", b"close")]));
    case("keep-alive", with(&[(b"keep-alive", b"timeout=5")]));
    case(
        "proxy-connection",
        with(&[(b"proxy-connection", b"keep-alive")]),
    );
    case(
        "transfer-encoding",
        with(&[(b"transfer-encoding", b"chunked")]),
    );
    case("upgrade", with(&[(b"upgrade", b"websocket")]));
    case("te with more than trailers", with(&[(b"te", b"gzip")]));
    case(
        "te with trailers and more",
        with(&[(b"te", b"trailers, deflate")]),
    );
    // Section 8.3: pseudo-fields.
    case("an unknown one", with(&[(b":unknown", b"1")]));
    case("one of responses", with(&[(b":status", b"200")]));
    case(
        "one behind the others",
        with(&[(b"x-a", b"1"), (b":path", b"/")]),
    );
    case("two methods", with(&[(b":method", b"GET")]));
    case("two schemes", with(&[(b":scheme", b"http")]));
    case("two paths", with(&[(b":path", b"/other")]));
    case("two authorities", with(&[(b":authority", b"h")]));
    case("no method", without(b":method"));
    case("no scheme", without(b":scheme"));
    case("no path", without(b":path"));
    case("no authority and no host", without(b":authority"));
    case("an empty path", instead(b":path", b""));
    case("a path without a slash", instead(b":path", b"admin"));
    case("a space in the path", instead(b":path", b"/a b"));
    case(
        "a line in the path",
        instead(b":path", b"/x HTTP/1.1\r\nevil: 1"),
    );
    case("an asterisk", instead(b":path", b"*"));
    case("an absolute path", instead(b":path", b"http://h/"));
    case(
        "another authority in the path",
        instead(b":path", b"@evil/"),
    );
    case(
        "a line in the method",
        instead(b":method", b"GET /x HTTP/1.1"),
    );
    case("an empty method", instead(b":method", b""));
    case("a scheme that is a URL", instead(b":scheme", b"http://x/?"));
    case("an empty scheme", instead(b":scheme", b""));
    case("a user in the authority", instead(b":authority", b"u:p@h"));
    case("a path in the authority", instead(b":authority", b"h/x"));
    case("a list of authorities", instead(b":authority", b"h, i"));
    case("a space in the authority", instead(b":authority", b"h i"));
    case(
        "a line in the authority",
        instead(b":authority", b"h\r\nevil: 1"),
    );
    case("a port above all", instead(b":authority", b"h:99999"));
    case("an empty authority", instead(b":authority", b""));
    case("another host", with(&[(b"host", b"other")]));
    case("two hosts", with(&[(b"host", b"h"), (b"host", b"h")]));
    // Section 8.1.1: a length that is not the body's.
    let long = [&POST[..], &[(b"content-length", b"4")]].concat();
    let short = [&POST[..], &[(b"content-length", b"2")]].concat();
    let odd = [&POST[..], &[(b"content-length", b"+3")]].concat();
    let two = [
        &POST[..],
        &[(b"content-length", b"3"), (b"content-length", b"3")],
    ]
    .concat();
    case(
        "a body shorter than its length",
        request(&long, Some(b"abc")),
    );
    case(
        "a body longer than its length",
        request(&short, Some(b"abc")),
    );
    case("a length and no body", request(&long, None));
    case("a length that is none", request(&odd, Some(b"abc")));
    case("two lengths", request(&two, Some(b"abc")));
    // Section 8.1: trailers that are none.
    case(
        "a second head that ends nothing",
        join(&[
            open(),
            headers(0, 1, &[(b"x-a", b"1")]),
            frame(DATA, END_STREAM, 1, b"x"),
        ]),
    );
    let mut wrong = Vec::new();
    for (name, bytes) in &cases {
        let client = Http2::connect(gateway.http()).await;
        if let Err(fate) = pays(client, bytes, &Refusal).await {
            wrong.push(format!("{name}: {fate:?}"));
        }
        let client = connect_tls(&gateway, &authority).await;
        if let Err(fate) = pays(client, bytes, &Refusal).await {
            wrong.push(format!("{name} over TLS: {fate:?}"));
        }
        let seen = upstream.seen();
        if seen.iter().any(|seen| seen.whole) {
            wrong.push(format!("{name}: the upstream got {:?}", seen.last()));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_fragment_is_seen_by_nobody() {
    // The parser drops it: routes, filters, the log and the upstream all see the path before it.
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { format = \"json\", path = \"-\" }")
        .start()
        .await;
    let mut client = Http2::connect(gateway.http()).await;
    client.get(1, "/a#b").await;
    assert_eq!(client.fate(1).await, Fate::Answered(200));
    assert_eq!(upstream.seen()[0].target, "/a");
    until("the line in the log", async || gateway.stdout().len() == 1).await;
    assert!(
        !gateway.stdout()[0].contains("#b"),
        "{:?}",
        gateway.stdout()
    );
}

#[tokio::test]
async fn a_pseudo_field_among_trailers_goes_nowhere() {
    // The parser drops it; a proxy that passed it on would let the next server read a second request line.
    let upstream = Upstream::echo().await;
    for endpoint in [upstream.url(), upstream.h2c()] {
        let gateway = Setup::with_upstream("main", &endpoint)
            .route("/*", "main", &[])
            .start()
            .await;
        let mut client = Http2::connect(gateway.http()).await;
        let fields: Vec<Field<'_>> =
            [&POST[..], &[(b"trailer", b"x-sum"), (b"te", b"trailers")]].concat();
        client.send(headers(0, 1, &fields)).await;
        client.send(frame(DATA, 0, 1, b"x")).await;
        client
            .send(headers(
                END_STREAM,
                1,
                &[(b":path", b"/evil"), (b"x-sum", b"1")],
            ))
            .await;
        let fate = client.fate(1).await;
        if fate == Fate::Answered(200) {
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(
                (seen.target.as_str(), seen.trailer("x-sum")),
                ("/", Some("1"))
            );
            assert_eq!(seen.trailer(":path"), None);
        } else {
            assert_eq!(fate, Fate::Reset(PROTOCOL_ERROR));
        }
    }
}

#[tokio::test]
async fn what_is_never_served_is_405_or_a_refusal() {
    let (gateway, upstream) = gateway().await;
    // CONNECT has no path and no scheme; with a protocol it would be a tunnel for WebSocket (RFC 8441), which is not
    // announced.
    let connect: [Field<'_>; 2] = [(b":method", b"CONNECT"), (b":authority", b"h:443")];
    let extended = [
        &GET.map(|(name, value)| {
            (
                name,
                if name == b":method" {
                    &b"CONNECT"[..]
                } else {
                    value
                },
            )
        })[..],
        &[(b":protocol", b"websocket")],
    ]
    .concat();
    for (name, bytes) in [
        ("CONNECT", request(&connect, None)),
        ("an extended CONNECT", request(&extended, None)),
        ("TRACE", instead(b":method", b"TRACE")),
    ] {
        let mut client = Http2::connect(gateway.http()).await;
        client.send(&bytes).await;
        let fate = client.fate(1).await;
        assert!(
            matches!(
                fate,
                Fate::Answered(405) | Fate::Reset(PROTOCOL_ERROR) | Fate::GoAway(PROTOCOL_ERROR)
            ),
            "{name}: {fate:?}"
        );
    }
    assert_eq!(upstream.requests(), 0);
}
