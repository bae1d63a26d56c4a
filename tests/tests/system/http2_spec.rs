//! HTTP/2 frame by frame (RFC 9113) and hpack (RFC 7541), as a client that does everything wrong once: each rule of
//! theirs that a client can break, and what a server owes it.

use tidegate_tests::certs::Authority;
use tidegate_tests::client::Tls;
use tidegate_tests::frames::{
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Fate, GET, GOAWAY, HEADERS, Http2, PADDED, PING, POST,
    PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS,
    STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, block, frame, headers, indexed_literal, reset,
    settings, window,
};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Scripted, Upstream};
use tidegate_tests::wire::Wire;

/// What a server owes for some bytes behind the handshake.
pub(crate) enum Owed {
    /// The request on stream 1 is answered with this.
    Answer(u16),
    /// The connection ends with one of these codes. Closing it without a word will do (section 5.4.1).
    End(&'static [u32]),
    /// Stream 1 is reset with one of these codes. Ending the connection with it will do (section 5.4.2).
    Reset(&'static [u32]),
    /// Stream 1 is reset, or answered with 400.
    Refusal,
    /// Nothing: a PING behind it is answered.
    Silence,
}

use Owed::{Answer, End, Refusal, Reset, Silence};

pub(crate) async fn gateway() -> (Gateway, Upstream) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    (gateway, upstream)
}

/// The same with TLS besides.
pub(crate) async fn secured() -> (Gateway, Upstream, Authority) {
    let upstream = Upstream::echo().await;
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let gateway = Setup::before(&upstream)
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key)
        .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
        .start()
        .await;
    (gateway, upstream, authority)
}

pub(crate) async fn connect_tls(gateway: &Gateway, authority: &Authority) -> Http2 {
    let tls = Tls::connect(gateway.https(), "localhost", authority.client(&["h2"])).await;
    let mut client = Http2::over(Wire::over_tls(tls.expect("a handshake")));
    client.begin(&[]).await;
    client
}

pub(crate) async fn pays(mut client: Http2, bytes: &[u8], owed: &Owed) -> Result<(), Fate> {
    // It may be gone before it has taken all.
    client.try_send(bytes).await;
    let fate = match owed {
        Silence => return client.sync().await,
        End(_) => client.end().await,
        Answer(_) | Reset(_) | Refusal => client.fate(1).await,
    };
    let paid = match (owed, fate) {
        (Answer(status), Fate::Answered(seen)) => *status == seen,
        (End(codes) | Reset(codes), Fate::GoAway(code)) => codes.contains(&code),
        (End(_) | Reset(_), Fate::Closed) => true,
        (Reset(codes), Fate::Reset(code)) => codes.contains(&code),
        (Refusal, Fate::Answered(status)) => status == 400,
        (Refusal, Fate::Reset(code) | Fate::GoAway(code)) => code == PROTOCOL_ERROR,
        _ => false,
    };
    if paid { Ok(()) } else { Err(fate) }
}

/// Sends each piece in the clear and over TLS.
async fn all_pay(cases: Vec<(&str, Vec<u8>, Owed)>) {
    let (gateway, upstream, authority) = secured().await;
    let mut wrong = Vec::new();
    for (name, bytes, owed) in &cases {
        let client = Http2::connect(gateway.http()).await;
        if let Err(fate) = pays(client, bytes, owed).await {
            wrong.push(format!("{name}: {fate:?}"));
        }
        let client = connect_tls(&gateway, &authority).await;
        if let Err(fate) = pays(client, bytes, owed).await {
            wrong.push(format!("{name} over TLS: {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Whatever they did, others are served.
    assert_eq!(gateway.get("/").await.status, 200);
    drop(upstream);
}

fn get() -> Vec<u8> {
    headers(END_STREAM, 1, &GET)
}

/// A POST that is not ended.
pub(crate) fn open() -> Vec<u8> {
    headers(0, 1, &POST)
}

pub(crate) fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    pieces.concat()
}

/// HEADERS with another block than that of fields.
fn raw_headers(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, payload)
}

#[tokio::test]
async fn what_is_allowed_is_served() {
    let padded = |payload: &[u8]| {
        let mut bytes = vec![5];
        bytes.extend(payload);
        bytes.extend([0; 5]);
        bytes
    };
    let with_priority = |payload: &[u8]| {
        let mut bytes = vec![0, 0, 0, 0, 15];
        bytes.extend(payload);
        bytes
    };
    let pieces = block(&GET);
    let mut crumbs = raw_headers(END_STREAM, 1, &pieces[..3]);
    for piece in pieces[3..].chunks(20) {
        crumbs.extend(frame(CONTINUATION, 0, 1, piece));
    }
    crumbs.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let mut reserved = get();
    reserved[5] |= 0x80;
    let mut head = GET;
    head[0].1 = b"HEAD";
    all_pay(vec![
        ("a GET", get(), Answer(200)),
        ("a HEAD", headers(END_STREAM, 1, &head), Answer(200)),
        (
            "a padded head",
            raw_headers(END_HEADERS | END_STREAM | PADDED, 1, &padded(&block(&GET))),
            Answer(200),
        ),
        (
            "a head with a priority",
            raw_headers(
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &with_priority(&block(&GET)),
            ),
            Answer(200),
        ),
        ("a head in many frames", crumbs, Answer(200)),
        ("the reserved bit", reserved, Answer(200)),
        (
            "flags that mean nothing",
            headers(END_STREAM | 0x42, 1, &GET),
            Answer(200),
        ),
        (
            "a body in frames, padded and empty ones among them",
            join(&[
                open(),
                frame(DATA, 0, 1, b"ab"),
                frame(DATA, 0, 1, &[]),
                frame(DATA, PADDED, 1, &padded(b"c")),
                frame(DATA, END_STREAM, 1, &[]),
            ]),
            Answer(200),
        ),
        (
            "trailers",
            join(&[
                open(),
                frame(DATA, 0, 1, b"ab"),
                headers(END_STREAM, 1, &[(b"x-sum", b"1")]),
            ]),
            Answer(200),
        ),
        (
            "a frame of the largest size",
            join(&[open(), frame(DATA, END_STREAM, 1, &[b'x'; 16 * 1024])]),
            Answer(200),
        ),
        (
            "priorities of streams that are not there",
            join(&[
                frame(PRIORITY, 0, 5, &[0, 0, 0, 3, 1]),
                get(),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
            ]),
            Answer(200),
        ),
        (
            "a frame of an unknown kind",
            join(&[frame(0x16, 0xff, 0, b"what"), frame(0x17, 0, 1, b""), get()]),
            Answer(200),
        ),
        (
            "a setting of an unknown name",
            join(&[settings(&[(0xff, 1), (0x99, 0)]), get()]),
            Answer(200),
        ),
        (
            "a PING's answer that nobody asked for",
            join(&[frame(PING, ACK, 0, b"12345678"), get()]),
            Answer(200),
        ),
        (
            "GOAWAY with an unknown code, and a request still",
            join(&[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), get()]),
            Answer(200),
        ),
        (
            "RST_STREAM with an unknown code",
            join(&[open(), reset(1, 0xff)]),
            Silence,
        ),
        (
            "WINDOW_UPDATE and RST_STREAM of a stream that is over",
            join(&[open(), reset(1, CANCEL), window(1, 10), reset(1, CANCEL)]),
            Silence,
        ),
        (
            "a field of the dynamic table",
            {
                let mut bytes = block(&GET);
                bytes.extend(indexed_literal(b"x-a", b"1"));
                bytes.extend([0xbe, 0xbe]);
                raw_headers(END_HEADERS | END_STREAM, 1, &bytes)
            },
            Answer(200),
        ),
        (
            "a table that changes its size",
            {
                let mut bytes = vec![0x20, 0x3f, 0xe1, 0x1f];
                bytes.extend(block(&GET));
                raw_headers(END_HEADERS | END_STREAM, 1, &bytes)
            },
            Answer(200),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_ping_is_answered_with_what_it_carried() {
    let (gateway, _upstream) = gateway().await;
    let mut client = Http2::connect(gateway.http()).await;
    client.send(frame(PING, 0, 0, b"\x00\xffabcdef")).await;
    loop {
        let seen = client.next().await.expect("the connection to go on");
        if seen.kind == PING {
            assert_eq!((seen.flags, &*seen.payload), (ACK, &b"\x00\xffabcdef"[..]));
            break;
        }
    }
    // Settings are acknowledged one by one.
    client.send(settings(&[(3, 100)]).repeat(3)).await;
    let mut acknowledged = 0;
    while acknowledged < 3 {
        let seen = client.next().await.expect("the connection to go on");
        if seen.kind == SETTINGS && seen.flags & ACK != 0 {
            acknowledged += 1;
        }
    }
    assert_eq!(client.sync().await, Ok(()));
}

#[tokio::test]
async fn what_does_not_begin_with_the_preface_is_no_http_2() {
    let (gateway, upstream) = gateway().await;
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"[..],
        b"PRI * HTTP/2.0\r\n\r\n",
        b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"INVALID CONNECTION PREFACE\r\n\r\n",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(bytes).await;
        wire.finish().await;
        let answer = wire.rest_or_open().await;
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {answer:?}"
        );
    }
    // The preface alone, and something else than SETTINGS behind it.
    let mut client = Http2::silent(gateway.http()).await;
    client
        .send([PREFACE, &headers(END_STREAM, 1, &GET)].concat())
        .await;
    assert!(matches!(
        client.end().await,
        Fate::GoAway(PROTOCOL_ERROR) | Fate::Closed
    ));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn frames_of_a_wrong_size_end_the_connection() {
    // The parser tells some of these with the general code.
    let size = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
    all_pay(vec![
        (
            "DATA over the bound",
            join(&[open(), frame(DATA, END_STREAM, 1, &[0; 16 * 1024 + 1])]),
            Reset(size),
        ),
        (
            "HEADERS over the bound",
            raw_headers(END_HEADERS | END_STREAM, 1, &[0; 16 * 1024 + 1]),
            End(size),
        ),
        (
            "a frame over the bound of which only the head comes",
            vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
            End(size),
        ),
        (
            "PRIORITY",
            join(&[open(), frame(PRIORITY, 0, 1, &[0; 4])]),
            Reset(size),
        ),
        (
            "RST_STREAM",
            join(&[open(), frame(RST_STREAM, 0, 1, &[0; 3])]),
            End(size),
        ),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0; 5]), End(size)),
        (
            "SETTINGS with an acknowledgement",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            End(size),
        ),
        ("PING", frame(PING, 0, 0, &[0; 6]), End(size)),
        (
            "WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            End(size),
        ),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0; 7]), End(size)),
    ])
    .await;
}

#[tokio::test]
async fn frames_on_the_wrong_stream_end_the_connection() {
    let wrong = &[PROTOCOL_ERROR];
    let closed = &[STREAM_CLOSED, PROTOCOL_ERROR];
    all_pay(vec![
        (
            "DATA on stream 0",
            frame(DATA, END_STREAM, 0, b"x"),
            End(wrong),
        ),
        (
            "HEADERS on stream 0",
            headers(END_STREAM, 0, &GET),
            End(wrong),
        ),
        (
            "PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0; 5]),
            End(wrong),
        ),
        ("RST_STREAM on stream 0", reset(0, CANCEL), End(wrong)),
        (
            "CONTINUATION on stream 0",
            frame(CONTINUATION, END_HEADERS, 0, &[]),
            End(wrong),
        ),
        (
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            End(wrong),
        ),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), End(wrong)),
        (
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            End(wrong),
        ),
        (
            "DATA before HEADERS",
            frame(DATA, END_STREAM, 1, b"x"),
            End(wrong),
        ),
        ("RST_STREAM before HEADERS", reset(1, CANCEL), End(wrong)),
        ("WINDOW_UPDATE before HEADERS", window(1, 100), End(wrong)),
        (
            "CONTINUATION before HEADERS",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            End(wrong),
        ),
        (
            "a stream of an even number",
            headers(END_STREAM, 2, &GET),
            End(wrong),
        ),
        (
            "a stream of a lower number",
            join(&[headers(END_STREAM, 5, &GET), headers(END_STREAM, 3, &GET)]),
            End(closed),
        ),
        (
            "PUSH_PROMISE from a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            End(wrong),
        ),
        (
            "DATA behind the end of a stream",
            join(&[get(), frame(DATA, END_STREAM, 1, b"x")]),
            Reset(closed),
        ),
        (
            "HEADERS behind the end of a stream",
            join(&[get(), headers(END_STREAM, 1, &GET)]),
            Reset(closed),
        ),
        (
            "CONTINUATION behind the end of a stream",
            join(&[get(), frame(CONTINUATION, END_HEADERS, 1, &block(&GET))]),
            End(closed),
        ),
        (
            "DATA behind RST_STREAM",
            join(&[open(), reset(1, CANCEL), frame(DATA, END_STREAM, 1, b"x")]),
            Reset(closed),
        ),
        (
            "HEADERS behind RST_STREAM",
            join(&[open(), reset(1, CANCEL), headers(END_STREAM, 1, &GET)]),
            Reset(closed),
        ),
    ])
    .await;
}

#[tokio::test]
async fn nothing_may_stand_inside_of_a_header_block() {
    let wrong = &[PROTOCOL_ERROR];
    let begun = || raw_headers(END_STREAM, 1, &block(&GET)[..10]);
    let rest = || frame(CONTINUATION, END_HEADERS, 1, &block(&GET)[10..]);
    all_pay(vec![
        (
            "PRIORITY",
            join(&[begun(), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), rest()]),
            End(wrong),
        ),
        (
            "PING",
            join(&[begun(), frame(PING, 0, 0, &[0; 8]), rest()]),
            End(wrong),
        ),
        (
            "DATA",
            join(&[begun(), frame(DATA, 0, 1, b"x"), rest()]),
            End(wrong),
        ),
        (
            "HEADERS of another stream",
            join(&[begun(), headers(END_STREAM, 3, &GET), rest()]),
            End(wrong),
        ),
        (
            "CONTINUATION of another stream",
            join(&[begun(), frame(CONTINUATION, END_HEADERS, 3, &[])]),
            End(wrong),
        ),
        (
            "a frame of an unknown kind",
            join(&[begun(), frame(0x16, 0, 1, b"x"), rest()]),
            End(wrong),
        ),
        (
            "CONTINUATION behind the end",
            join(&[get(), frame(CONTINUATION, END_HEADERS, 1, &[])]),
            End(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn padding_and_priority_have_bounds() {
    let wrong = &[PROTOCOL_ERROR];
    all_pay(vec![
        (
            "padding as long as DATA",
            join(&[open(), frame(DATA, PADDED | END_STREAM, 1, b"\x06abcde")]),
            End(wrong),
        ),
        (
            "padding longer than HEADERS",
            raw_headers(END_HEADERS | END_STREAM | PADDED, 1, b"\xff\x82\x87"),
            End(wrong),
        ),
        (
            "padded and empty",
            join(&[open(), frame(DATA, PADDED, 1, &[])]),
            End(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        (
            "a head that depends on itself",
            raw_headers(
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 1, 15][..], &block(&GET)].concat(),
            ),
            Reset(wrong),
        ),
        (
            "a priority that depends on itself",
            join(&[open(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 15])]),
            Reset(wrong),
        ),
    ])
    .await;
}

#[tokio::test]
async fn settings_and_windows_have_bounds() {
    let wrong = &[PROTOCOL_ERROR];
    let flow = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
    let most = u32::MAX >> 1;
    all_pay(vec![
        (
            "push that is neither on nor off",
            settings(&[(2, 2)]),
            End(wrong),
        ),
        ("a window above all", settings(&[(4, most + 1)]), End(flow)),
        ("small frames", settings(&[(5, 16_383)]), End(wrong)),
        ("large frames", settings(&[(5, 1 << 24)]), End(wrong)),
        ("a connection's window by 0", window(0, 0), End(wrong)),
        (
            "a stream's window by 0",
            join(&[open(), window(1, 0)]),
            Reset(wrong),
        ),
        (
            "a connection's window above all",
            join(&[window(0, most), window(0, most)]),
            End(flow),
        ),
        (
            "a stream's window above all",
            join(&[open(), window(1, most), window(1, most)]),
            Reset(flow),
        ),
        (
            "a stream's window above all by a setting",
            join(&[open(), window(1, most - 65_535), settings(&[(4, 65_536)])]),
            Reset(flow),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_window_is_kept_to() {
    let upstream =
        Upstream::serve(async |_| http::Response::new(tidegate_tests::client::full("12345678")))
            .await;
    let gateway = Setup::before(&upstream).start().await;
    // Windows of one byte: one byte a frame, and none before there is room again.
    let mut client = Http2::with_settings(gateway.http(), &[(4, 1)]).await;
    client.get(1, "/").await;
    let mut body: Vec<u8> = Vec::new();
    loop {
        let seen = client.next().await.expect("the connection to go on");
        if seen.kind == DATA && seen.stream == 1 {
            assert!(seen.payload.len() <= 1, "{seen:?}");
            body.extend(&seen.payload);
            if seen.ends() {
                break;
            }
            client.send(window(1, 1)).await;
        }
    }
    assert_eq!(body, b"12345678");
    // A window that falls below nothing, and rises again.
    let mut client = Http2::connect(gateway.http()).await;
    client.send(settings(&[(4, 3)])).await;
    client.get(1, "/").await;
    let mut got = 0;
    while got < 3 {
        let seen = client.next().await.expect("the connection to go on");
        if seen.kind == DATA {
            got += seen.payload.len();
        }
    }
    client.send(settings(&[(4, 2)])).await;
    assert_eq!(client.sync().await, Ok(()));
    client.send(settings(&[(4, 100)])).await;
    while got < 8 {
        let seen = client.next().await.expect("the connection to go on");
        if seen.kind == DATA {
            got += seen.payload.len();
        }
    }
    assert_eq!(got, 8);
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    let upstream = Scripted::start(|_, mut wire| async move {
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .toml("[server.limits]\nmax-concurrent-streams = 10")
        .start()
        .await;
    let mut client = Http2::connect(gateway.http()).await;
    let bytes: Vec<u8> = (0..11)
        .flat_map(|number| headers(END_STREAM, number * 2 + 1, &GET))
        .collect();
    client.send(bytes).await;
    assert!(matches!(
        client.fate(21).await,
        Fate::Reset(REFUSED_STREAM | PROTOCOL_ERROR)
    ));
    assert_eq!(client.sync().await, Ok(()));
    assert!(upstream.connections() <= 10);
}

#[tokio::test]
async fn header_blocks_that_hpack_does_not_know_end_the_connection() {
    // The parser tells these with the general code.
    let wrong = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
    let with = |bytes: &[u8]| {
        raw_headers(
            END_HEADERS | END_STREAM,
            1,
            &[&block(&GET)[..], bytes].concat(),
        )
    };
    all_pay(vec![
        ("an index of nothing", with(&[0x80]), End(wrong)),
        ("an index above the tables", with(&[0xc6]), End(wrong)),
        (
            "a name's index above the tables",
            with(&[0x7e, 0x01, b'a']),
            End(wrong),
        ),
        (
            "a table larger than allowed",
            with(&[0x3f, 0xe1, 0xff, 0x03]),
            End(wrong),
        ),
        ("a size behind a field", with(&[0x20]), End(wrong)),
        (
            "a string that is cut off",
            with(&[0x00, 0x05, b'a']),
            End(wrong),
        ),
        (
            "a number without end",
            with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            End(wrong),
        ),
        (
            "padding of more than 7 bits",
            with(&[0x00, 0x01, b'x', 0x82, 0x07, 0xff]),
            End(wrong),
        ),
        (
            "padding of zeros",
            with(&[0x00, 0x01, b'x', 0x81, 0x00]),
            End(wrong),
        ),
        (
            "the end of a string inside of it",
            with(&[0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            End(wrong),
        ),
        (
            "a block cut off in a field",
            raw_headers(END_HEADERS | END_STREAM, 1, &block(&GET)[..20]),
            End(wrong),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_over_its_window_ends_the_stream() {
    // Nothing is taken of it, so that no window is given back.
    let upstream = Scripted::start(|_, _wire| std::future::pending()).await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let mut client = Http2::connect(gateway.http()).await;
    client.send(open()).await;
    for _ in 0..1000 {
        if !client.try_send(frame(DATA, 0, 1, &[b'x'; 16 * 1024])).await {
            break;
        }
    }
    let fate = client.fate(1).await;
    assert!(
        matches!(
            fate,
            Fate::Reset(FLOW_CONTROL_ERROR) | Fate::GoAway(FLOW_CONTROL_ERROR)
        ),
        "{fate:?}"
    );
}
