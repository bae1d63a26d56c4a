//! HTTP/2 clients that mean harm: each flood costs little, ends with its connection, and is counted; others do not notice
//! (RFC 9113 section 10.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_tests::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Fate, GET, HEADERS,
    Http2, PING, POST, PRIORITY, SETTINGS, WINDOW_UPDATE, block, frame, headers, indexed_literal,
    reset, window,
};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Scripted, Upstream};
use tidegate_tests::wait::until;

/// Sends a piece again and again until nobody takes it any more, and says how often that was.
async fn flood(client: &mut Http2, piece: &[u8], times: usize) -> usize {
    // In segments of some KiB, as a flood would come.
    let at_once = (8 * 1024 / piece.len()).max(1);
    let segment = piece.repeat(at_once);
    let mut sent = 0;
    while sent < times {
        if !client.try_send(&segment).await {
            break;
        }
        sent += at_once;
    }
    sent
}

/// Whether an end is one that a flood may have. One that still sends when its connection is closed may see no GOAWAY.
fn is_calmed(end: Fate) -> bool {
    matches!(end, Fate::GoAway(ENHANCE_YOUR_CALM) | Fate::Closed)
}

async fn abuses(gateway: &Gateway) -> f64 {
    gateway
        .metric("tidegate_client_errors_total", &[("reason", "h2_abuse")])
        .await
}

#[tokio::test]
async fn frames_without_use_end_their_connection() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    // What is allocated once is there already.
    gateway
        .http2()
        .await
        .send(tidegate_tests::client::get("/"))
        .await;
    let open = headers(0, 1, &POST);
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let kinds: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        (
            "SETTINGS that change the window",
            vec![],
            [
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]),
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 2]),
            ]
            .concat(),
        ),
        ("PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        (
            "WINDOW_UPDATE",
            open.clone(),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        ("empty DATA", open.clone(), frame(DATA, 0, 1, &[])),
        ("an unknown kind", vec![], frame(0x99, 0, 0, &[])),
        ("RST_STREAM of one stream", open.clone(), reset(1, CANCEL)),
        (
            "CONTINUATION",
            begun.clone(),
            frame(CONTINUATION, 0, 1, &[]),
        ),
        (
            "CONTINUATION with fields",
            begun,
            frame(CONTINUATION, 0, 1, &block(&[(b"x-a", b"0123456789")])),
        ),
        (
            "empty HEADERS",
            vec![],
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]),
        ),
    ];
    for (number, (name, begin, piece)) in kinds.iter().enumerate() {
        let memory = gateway.memory();
        let used = gateway.processor();
        let mut client = Http2::connect(gateway.http()).await;
        client.send(begin).await;
        let sent = flood(&mut client, piece, 100_000).await;
        let end = client.end().await;
        assert!(is_calmed(end), "{name}: {end:?} after {sent}");
        let used = gateway.processor() - used;
        // Built for debugging, on a machine that runs other tests: what has no bound would take much longer.
        assert!(used < Duration::from_secs(2), "{name}: {used:?}");
        let grown = gateway.memory().saturating_sub(memory);
        assert!(grown < 4 * 1024, "{name}: {grown} KiB");
        until(&format!("{name} to be counted"), async || {
            abuses(&gateway).await > number as f64 + 0.5
        })
        .await;
    }
    let seen = upstream.seen();
    assert!(
        seen.iter().filter(|seen| seen.whole).count() <= 1,
        "{seen:?}"
    );
    gateway
        .logged(&["h2_abuse", "a connection was ended"])
        .await;
    assert_eq!(gateway.get("/").await.status, 200);
}

/// An upstream that never answers, and how many requests it has at the moment, had at most, and ever.
async fn silent_upstream() -> (Scripted, Arc<[AtomicUsize; 3]>) {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let shared = Arc::clone(&counts);
    let upstream = Scripted::start(move |_, mut wire| {
        let counts = Arc::clone(&shared);
        async move {
            wire.try_read_until(b"\r\n\r\n").await?;
            let now = counts[0].fetch_add(1, Ordering::SeqCst) + 1;
            counts[1].fetch_max(now, Ordering::SeqCst);
            counts[2].fetch_add(1, Ordering::SeqCst);
            wire.read_to_end().await;
            counts[0].fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    (upstream, counts)
}

async fn before(upstream: &Scripted, limits: &str) -> Gateway {
    Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .toml(&format!("[server.limits]\n{limits}"))
        .start()
        .await
}

#[tokio::test]
async fn streams_that_are_reset_at_once_start_little() {
    let (upstream, counts) = silent_upstream().await;
    let gateway = before(&upstream, "max-concurrent-streams = 50").await;
    let mut client = Http2::connect(gateway.http()).await;
    for number in 0..100_000_u32 {
        let stream = number * 2 + 1;
        let pair = [headers(END_STREAM, stream, &GET), reset(stream, CANCEL)].concat();
        if !client.try_send(pair).await {
            break;
        }
    }
    let end = client.end().await;
    assert!(is_calmed(end), "{end:?}");
    until("the flood to be counted", async || {
        abuses(&gateway).await > 0.5
    })
    .await;
    until("the upstream to be left alone", async || {
        counts[0].load(Ordering::SeqCst) == 0
    })
    .await;
    assert!(counts[1].load(Ordering::SeqCst) <= 50);
    assert!(counts[2].load(Ordering::SeqCst) < 2_000);
}

#[tokio::test]
async fn streams_that_are_reset_in_their_own_time_are_a_flood_too() {
    let (upstream, counts) = silent_upstream().await;
    let gateway = before(&upstream, "max-concurrent-streams = 50").await;
    let mut client = Http2::connect(gateway.http()).await;
    let mut end = None;
    for round in 0..1000_u32 {
        // Each round is taken, served and forwarded before it is reset.
        let streams = (0..20).map(|number| (round * 20 + number) * 2 + 1);
        let begin: Vec<u8> = streams
            .clone()
            .flat_map(|stream| headers(END_STREAM, stream, &GET))
            .collect();
        client.try_send(begin).await;
        if let Err(fate) = client.sync().await {
            end = Some(fate);
            break;
        }
        let resets: Vec<u8> = streams.flat_map(|stream| reset(stream, CANCEL)).collect();
        client.try_send(resets).await;
    }
    let end = end.expect("the flood to be ended");
    assert!(is_calmed(end), "{end:?}");
    until("the upstream to be left alone", async || {
        counts[0].load(Ordering::SeqCst) == 0
    })
    .await;
    let most = counts[1].load(Ordering::SeqCst);
    assert!(most <= 70, "{most} at a time");
    let all = counts[2].load(Ordering::SeqCst);
    assert!(all < 4_500, "{all} in all");
}

#[tokio::test]
async fn a_server_that_is_made_to_reset_streams_starts_little() {
    // Frames that are wrong for their stream: the server resets it itself, again and again.
    type Make = fn(u32) -> Vec<u8>;
    let wrong: [(&str, Make); 5] = [
        ("a window by 0", |stream| window(stream, 0)),
        ("a window above all", |stream| {
            [window(stream, u32::MAX >> 1), window(stream, u32::MAX >> 1)].concat()
        }),
        ("DATA behind the end", |stream| frame(DATA, 0, stream, b"x")),
        ("HEADERS behind the end", |stream| {
            headers(END_STREAM, stream, &GET)
        }),
        ("a priority that depends on itself", |stream| {
            frame(
                PRIORITY,
                0,
                stream,
                &[&stream.to_be_bytes()[..], &[1]].concat(),
            )
        }),
    ];
    let (upstream, counts) = silent_upstream().await;
    let gateway = before(&upstream, "max-concurrent-streams = 50").await;
    for (name, make) in wrong {
        let mut client = Http2::connect(gateway.http()).await;
        let mut count = 0;
        for number in 0..10_000_u32 {
            let stream = number * 2 + 1;
            let pair = [headers(END_STREAM, stream, &GET), make(stream)].concat();
            if !client.try_send(pair).await {
                break;
            }
            count += 1;
        }
        let end = client.end().await;
        assert!(
            !matches!(end, Fate::GoAway(0)),
            "{name}: {end:?} after {count}"
        );
        until("the upstream to be left alone", async || {
            counts[0].load(Ordering::SeqCst) == 0
        })
        .await;
        let most = counts[1].swap(0, Ordering::SeqCst);
        assert!(most <= 60, "{name}: {most} at a time");
        let all = counts[2].swap(0, Ordering::SeqCst);
        assert!(all < 1_000, "{name}: {all} in all");
    }
}

#[tokio::test]
async fn a_header_bomb_is_431_and_takes_no_memory() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    gateway
        .http2()
        .await
        .send(tidegate_tests::client::get("/"))
        .await;
    // The peer's window is 0, so that no answer with a body can leave.
    let mut client = Http2::with_settings(gateway.http(), &[(4, 0)]).await;
    let memory = gateway.memory();
    // One field of almost 4 KiB in the table, then each byte says it again: 16 KiB that mean 64 MiB.
    let bomb = |field: &[u8], value: &[u8], times: usize| {
        let mut block = block(&GET);
        block.extend(indexed_literal(field, value));
        block.extend(vec![0xbe; times]);
        block
    };
    let large = [b'x'; 4000];
    for (name, block) in [
        ("a little too much", bomb(b"x-bomb", &large, 20)),
        ("far too much", bomb(b"x-bomb", &large, 12_000)),
        ("many small fields", bomb(b"a", b"", 5_000)),
        ("many crumbs of a cookie", bomb(b"cookie", b"a=b", 10_000)),
    ] {
        let mut client = Http2::with_settings(gateway.http(), &[(4, 0)]).await;
        client
            .send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
            .await;
        let fate = client.fate(1).await;
        assert!(
            matches!(fate, Fate::Answered(431) | Fate::GoAway(ENHANCE_YOUR_CALM)),
            "{name}: {fate:?}"
        );
    }
    // A little too much again and again: the connection is ended.
    let first = bomb(b"x-bomb", &large, 20);
    client
        .send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &first))
        .await;
    let mut number = 0_u32;
    let again = [&block(&GET)[..], &[0xbe; 20]].concat();
    while number < 10_000 {
        number += 1;
        let stream = number * 2 + 1;
        if !client
            .try_send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &again))
            .await
        {
            break;
        }
    }
    let end = client.end().await;
    assert!(is_calmed(end), "{end:?} after {number}");
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 2 * 1024, "{grown} KiB");
    assert_eq!(upstream.requests(), 1);
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn streams_whose_windows_are_closed_are_given_up_and_no_other_waits() {
    let upstream = Upstream::stream(async |request: http::Request<hyper::body::Incoming>| {
        http::Response::new(if request.uri().path() == "/large" {
            tidegate_tests::client::Flood::body(b'x', 10 << 20)
        } else {
            tidegate_tests::client::full("small")
        })
    })
    .await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nbody-idle-timeout = \"3s\"")
        .start()
        .await;
    let memory = gateway.memory();
    let mut client = Http2::with_settings(gateway.http(), &[(4, 0)]).await;
    for number in 0..99_u32 {
        client.get(number * 2 + 1, "/large").await;
    }
    // One that has a window is served meanwhile.
    client.get(199, "/small").await;
    client.send(window(199, 1000)).await;
    let mut answered = false;
    let mut resets = 0;
    let mut most = 0;
    while resets < 99 {
        let seen = client.next().await.expect("the connection to go on");
        most = most.max(gateway.memory().saturating_sub(memory));
        match seen.kind {
            DATA if seen.stream == 199 => {
                assert_eq!(seen.payload, b"small");
                assert_eq!(resets, 0, "it waited for others");
                answered = true;
            }
            tidegate_tests::frames::RST_STREAM => resets += 1,
            _ => {}
        }
    }
    assert!(answered);
    // 990 MiB were asked for.
    assert!(most < 64 * 1024, "{most} KiB");
    assert_eq!(client.sync().await, Ok(()));
}

#[tokio::test]
async fn a_header_block_that_is_slow_is_not_waited_for() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nheader-timeout = \"300ms\"")
        .start()
        .await;
    let begun = frame(HEADERS, END_STREAM, 3, &block(&GET)[..10]);
    for (name, bytes) in [
        ("a block without end", &begun[..]),
        ("a frame without end", &begun[..15]),
    ] {
        // Another request was served before it, and one runs.
        let mut client = Http2::connect(gateway.http()).await;
        client.get(1, "/").await;
        assert_eq!(client.fate(1).await, Fate::Answered(200), "{name}");
        client.send(bytes).await;
        let end = client.end().await;
        assert!(is_calmed(end), "{name}: {end:?}");
    }
    until("both to be counted", async || {
        gateway
            .metric(
                "tidegate_client_errors_total",
                &[("reason", "timeout_header")],
            )
            .await
            > 1.5
    })
    .await;
}

#[tokio::test]
async fn who_asks_for_nothing_more_is_sent_away() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nidle-timeout = \"300ms\"")
        .start()
        .await;
    let mut client = Http2::connect(gateway.http()).await;
    client.get(1, "/").await;
    assert_eq!(client.fate(1).await, Fate::Answered(200));
    assert_eq!(client.end().await, Fate::GoAway(0));
}

#[tokio::test]
async fn uploads_that_stand_still_are_given_up_one_by_one() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nbody-idle-timeout = \"500ms\"")
        .start()
        .await;
    let mut client = Http2::connect(gateway.http()).await;
    let begin: Vec<u8> = (0..100_u32)
        .flat_map(|number| {
            let stream = number * 2 + 1;
            [headers(0, stream, &POST), frame(DATA, 0, stream, b"half")].concat()
        })
        .collect();
    client.send(begin).await;
    let mut given_up = std::collections::HashSet::new();
    while given_up.len() < 100 {
        let seen = client.next().await.expect("the connection to go on");
        if matches!(seen.kind, HEADERS | tidegate_tests::frames::RST_STREAM) {
            given_up.insert(seen.stream);
        }
    }
    assert!(upstream.seen().iter().all(|seen| !seen.whole));
    assert_eq!(client.sync().await, Ok(()));
}
