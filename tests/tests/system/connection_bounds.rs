//! How many connections there may be, of whom, for how long, and what becomes of one more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_tests::certs::Authority;
use tidegate_tests::client::{Tls, get};
use tidegate_tests::frames::{END_STREAM, Fate, GET, GOAWAY, Http2, headers};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Scripted, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::{End, Wire};
use tokio::sync::Semaphore;

const ASK: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Connections that have each been served once.
async fn served(gateway: &Gateway, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = gateway.wire().await;
        wire.send(ASK).await;
        assert_eq!(wire.read_message().await.status(), 200);
        wires.push(wire);
    }
    wires
}

async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    gateway
        .metric("tidegate_connections_refused_total", &labels)
        .await
}

#[tokio::test]
async fn a_connection_over_the_bound_is_told_so_and_closed() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-connections = 3")
        .start()
        .await;
    let mut inside = served(&gateway, 3).await;
    for speaks in [true, false] {
        let mut outside = gateway.wire().await;
        if speaks {
            outside.send(ASK).await;
        }
        let answer = outside.read_message().await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert_eq!(outside.read_to_end().await, (Vec::new(), End::Closed));
    }
    assert!(refused(&gateway, "max_connections").await > 1.5);
    assert!((gateway.metric("tidegate_connections_max", &[]).await - 3.0).abs() < 0.1);
    let line = gateway
        .logged(&["connections are refused", "max-connections"])
        .await;
    assert_eq!(line.field("setting"), Some("max-connections"));
    // Those that are inside were never in danger, and one that leaves makes room.
    for wire in &mut inside {
        wire.send(ASK).await;
        assert_eq!(wire.read_message().await.status(), 200);
    }
    inside.pop();
    until("room for one more", async || {
        gateway.metric("tidegate_connections_open", &[]).await < 2.5
    })
    .await;
    served(&gateway, 1).await;
}

#[tokio::test]
async fn a_flood_over_the_bound_does_no_harm() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-connections = 10")
        .start()
        .await;
    let mut inside = served(&gateway, 10).await;
    let descriptors = gateway.descriptors();
    let mut flood = Vec::new();
    for _ in 0..500 {
        flood.push(gateway.wire().await);
    }
    inside[0].send(ASK).await;
    assert_eq!(inside[0].read_message().await.status(), 200);
    until("all of them to be refused", async || {
        refused(&gateway, "max_connections").await > 499.5
    })
    .await;
    until("their descriptors to be given back", async || {
        gateway.descriptors() <= descriptors + 2
    })
    .await;
    // One line a second at most.
    let lines = gateway.log();
    let lines = lines
        .iter()
        .filter(|line| line.text.contains("connections are refused"));
    assert!(lines.count() < 10);
}

#[tokio::test]
async fn over_tls_a_connection_over_the_bound_is_closed_before_the_handshake() {
    let upstream = Upstream::echo().await;
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let gateway = Setup::before(&upstream)
        .without_listener()
        .file("cert.pem", &identity.certificate)
        .file("key.pem", &identity.key)
        .toml("[server.limits]\nmax-connections = 1\n[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"")
        .start()
        .await;
    let config = || authority.client(&["http/1.1"]);
    let inside = Tls::connect(gateway.https(), "localhost", config())
        .await
        .expect("a handshake");
    let outside = Tls::connect(gateway.https(), "localhost", config()).await;
    assert!(outside.is_err());
    assert!(refused(&gateway, "max_connections").await > 0.5);
    drop(inside);
}

#[tokio::test]
async fn one_source_has_a_bound_of_its_own() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-connections-per-source = 2")
        .start()
        .await;
    let mut inside = served(&gateway, 2).await;
    let mut outside = gateway.wire().await;
    assert_eq!(outside.read_message().await.status(), 503);
    assert!(refused(&gateway, "max_connections_per_source").await > 0.5);
    gateway
        .logged(&["connections are refused", "max-connections-per-source"])
        .await;
    // Another source is served.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Wire::over(socket.connect(gateway.http()).await.unwrap());
    other.send(ASK).await;
    assert_eq!(other.read_message().await.status(), 200);
    inside.pop();
    until("room for one more", async || {
        let mut again = gateway.wire().await;
        again.try_send(ASK).await.is_ok()
            && again
                .try_read_message()
                .await
                .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn proxies_that_are_trusted_speak_for_many() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("trusted-proxies = [\"127.0.0.1\"]")
        .toml("[server.limits]\nmax-connections-per-source = 2")
        .start()
        .await;
    served(&gateway, 5).await;
}

#[tokio::test]
async fn the_last_request_of_a_connection_is_told_so() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-requests-per-connection = 3")
        .start()
        .await;
    let mut wire = gateway.wire().await;
    // All at once: those behind the last one are never served.
    wire.send(ASK.repeat(5)).await;
    for number in 1..=3 {
        let answer = wire.read_message().await;
        assert_eq!(answer.status(), 200);
        let expected = (number == 3).then_some("close");
        assert_eq!(answer.field("connection"), expected, "{number}");
    }
    let (rest, _) = wire.read_to_end().await;
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(upstream.requests(), 3);

    let mut client = Http2::connect(gateway.http()).await;
    let mut last = 0;
    let mut answered = 0;
    let three: Vec<u8> = [1, 3, 5]
        .into_iter()
        .flat_map(|stream| headers(END_STREAM, stream, &GET))
        .collect();
    client.send(three).await;
    while let Some(frame) = client.next().await {
        if frame.kind == GOAWAY {
            assert_eq!(frame.code(), 0);
            last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        }
        answered += usize::from(frame.ends());
    }
    // What had begun was finished.
    assert_eq!((answered, last), (3, 5));
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_ended_in_good_order() {
    let gate = Arc::new(Semaphore::new(0));
    let shared = Arc::clone(&gate);
    let upstream = Upstream::serve(move |seen| {
        let gate = Arc::clone(&shared);
        async move {
            if seen.target == "/slow" {
                gate.acquire().await.unwrap().forget();
            }
            http::Response::new(tidegate_tests::client::full("done"))
        }
    })
    .await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-connection-age = \"500ms\"")
        .start()
        .await;
    let begun = Instant::now();
    let mut wire = gateway.wire().await;
    wire.send(ASK).await;
    let first = wire.read_message().await;
    let young = begun.elapsed() < Duration::from_millis(450);
    assert!(!young || first.field("connection").is_none());
    // The next request behind the age is the last one.
    if first.field("connection").is_none() {
        tokio::time::sleep_until((begun + Duration::from_millis(600)).into()).await;
        wire.send(ASK).await;
        let answer = wire.read_message().await;
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (200, Some("close"))
        );
    }
    assert_eq!(wire.read_to_end().await, (Vec::new(), End::Closed));

    // Over HTTP/2 the farewell comes by itself, and what runs is finished behind it.
    let mut client = Http2::connect(gateway.http()).await;
    client.get(1, "/slow").await;
    loop {
        let frame = client.next().await.expect("a farewell");
        if frame.kind == GOAWAY {
            assert_eq!(frame.code(), 0);
            break;
        }
    }
    gate.add_permits(1);
    let mut answered = false;
    while let Some(frame) = client.next().await {
        answered |= frame.ends();
    }
    assert!(answered);
}

#[tokio::test]
async fn without_descriptors_it_waits_and_goes_on_by_itself() {
    // Each request holds a connection to the upstream: one HTTP/2 client takes every descriptor there is.
    let gate = Arc::new(Semaphore::new(0));
    let shared = Arc::clone(&gate);
    let upstream = Scripted::start(move |_, mut wire| {
        let gate = Arc::clone(&shared);
        async move {
            while let Ok(message) = wire.try_read_message().await {
                if message.head.starts_with("GET /slow") {
                    gate.acquire().await.unwrap().forget();
                }
                wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                    .await?;
            }
            Ok(())
        }
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .beforehand("ulimit -n 64")
        .start()
        .await;
    gateway.logged(&["max-connections", "ulimit -n"]).await;
    let mut client = Http2::connect(gateway.http()).await;
    for number in 0..100 {
        client.get(number * 2 + 1, "/slow").await;
    }
    // Some of them fail for want of a descriptor: 502 or 503, and the connection goes on.
    let mut refused = 0;
    while refused == 0 {
        let frame = client.next().await.expect("the connection to go on");
        refused += usize::from(frame.ends());
    }
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut wire = gateway.wire().await;
        let _may_be_refused = wire.try_send(ASK).await;
        waiting.push(wire);
    }
    // It neither spins nor floods its log.
    let (used, begun) = (gateway.processor(), Instant::now());
    let lines = gateway.log().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = gateway.processor() - used;
    assert!(used < begun.elapsed() / 5, "{used:?} of the processor");
    let grown = gateway.log().len() - lines;
    assert!(grown < 10, "{grown} lines in two seconds");
    // Admin is there all the while, with a descriptor of its own.
    for _ in 0..3 {
        let failures = gateway.metric("tidegate_accept_failures_total", &[]).await;
        assert!(failures > 0.5, "a connection was accepted all the same");
        assert_eq!(gateway.admin("/livez").await.status, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    // As soon as there are descriptors again, all is well.
    gate.add_permits(1000);
    drop(waiting);
    assert_eq!(client.sync().await, Ok(()));
    until("service to go on", async || {
        let mut wire = gateway.wire().await;
        wire.try_send(ASK).await.is_ok()
            && wire
                .try_read_message()
                .await
                .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    assert_eq!(gateway.get("/").await.status, 200);
    client.get(1001, "/").await;
    assert_eq!(client.fate(1001).await, Fate::Answered(200));
    let _same = get("/");
}
