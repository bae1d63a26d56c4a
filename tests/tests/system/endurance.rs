//! What many reloads, many requests and many connections leave behind: nothing. The forms here are short enough for every
//! run; `TIDEGATE_TEST_LONG=1` (`cargo xtask test --long`) makes them as long as they are promised, at a pace that a
//! machine bears.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use tidegate_tests::client::{Client, get, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::sets_header;
use tidegate_tests::load::Load;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::{patience, settled, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const FILTERS: [&str; 3] = ["one", "two", "three"];
/// Memory that comes and goes with what the allocator keeps at hand; not of a kind that grows with time.
const SWAY: u64 = 2 * 1024;

/// Whether the whole length was asked for.
fn long() -> bool {
    std::env::var_os("TIDEGATE_TEST_LONG").is_some_and(|value| value != "0")
}

/// How long the long form of an hour is: `TIDEGATE_TEST_MINUTES` makes it shorter.
fn an_hour() -> Duration {
    let minutes = std::env::var("TIDEGATE_TEST_MINUTES").ok();
    let minutes = minutes.and_then(|minutes| minutes.parse().ok());
    Duration::from_secs(60 * minutes.unwrap_or(60))
}

/// Between two requests of one client: what goes on for long leaves the machine to others.
fn pause() -> Duration {
    Duration::from_millis(if long() { 5 } else { 0 })
}

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

async fn held(gateway: &Gateway) -> Held {
    // The smallest of a while: requests under way are not what is asked for.
    let mut memory = u64::MAX;
    for _ in 0..20 {
        memory = memory.min(gateway.memory());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let process = format!("/proc/{}", gateway.process());
    Held {
        memory,
        descriptors: gateway.descriptors(),
        threads: fs::read_dir(format!("{process}/task")).unwrap().count(),
        mappings: fs::read_to_string(format!("{process}/maps"))
            .unwrap()
            .lines()
            .count(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_leave_nothing_behind() {
    let (reloads, settle) = if long() { (1000, 50) } else { (150, 50) };
    let upstream = Upstream::echo().await;
    let mut setup = Setup::with_upstream("main", &upstream.url())
        .workers(2)
        .route("/*", "main", &FILTERS);
    for filter in FILTERS {
        setup = setup.filter(filter, sets_header(&format!("x-{filter}"), "0"));
    }
    let gateway = setup.start().await;
    let load = Load::paced(&gateway, &[], pause()).await;
    let mut client = gateway.http1().await;
    let mut before = None;
    let begin = Instant::now();
    for number in 1..=reloads {
        let text = number.to_string();
        for filter in FILTERS {
            let wasm = sets_header(&format!("x-{filter}"), &text);
            fs::write(gateway.plugin_file(&format!("{filter}.wasm")), wasm).unwrap();
        }
        until("the new versions", async || {
            let reply = client.send(get("/")).await;
            assert_eq!(reply.status, StatusCode::OK);
            let new = |filter: &&str| reply.field(&format!("x-{filter}")) == Some(&text);
            FILTERS.iter().all(new)
        })
        .await;
        if number == settle {
            before = Some(held(&gateway).await);
        }
        if number % 50 == 0 {
            let held = held(&gateway).await;
            eprintln!(
                "{number} reloads of 3 filters: {held:?}, {:?}",
                begin.elapsed()
            );
        }
    }
    let before = before.unwrap();
    let bound = before.memory + before.memory / 20 + SWAY;
    until("the memory to be as it was", async || {
        gateway.memory() <= bound
    })
    .await;
    let after = held(&gateway).await;
    assert!(
        after.descriptors <= before.descriptors + 8,
        "{before:?} {after:?}"
    );
    assert!(after.threads <= before.threads + 2, "{before:?} {after:?}");
    assert!(
        after.mappings <= before.mappings + 64,
        "{before:?} {after:?}"
    );
    load.finish().await;
}

/// Requests of every kind at the same time: short and long, answered and refused, with bodies in both directions, on
/// connections old and new, of HTTP/1.1 and HTTP/2, while filters fail and files change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_everything_leaves_nothing_behind() {
    let time = if long() {
        an_hour()
    } else {
        Duration::from_secs(20)
    };
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .workers(2)
        .filter("mark", sets_header("x-mark", "0"))
        .filter("bad", tidegate_tests::hostile::guest("trap"))
        .toml("[filter.bad]\nconfig = \"1a\"")
        .route("/*", "main", &["mark"])
        .route("/bad", "main", &["mark", "bad"])
        .start()
        .await;
    let load = Load::paced(&gateway, &[], pause()).await;
    let address = gateway.http();
    let end = Instant::now() + time;
    let others = [
        tokio::spawn(bodies(address, false, end)),
        tokio::spawn(bodies(address, true, end)),
        tokio::spawn(refused(address, end)),
        tokio::spawn(gone(address, end)),
    ];
    let mut looks = Vec::new();
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let wasm = sets_header("x-mark", &number.to_string());
        fs::write(gateway.plugin_file("mark.wasm"), wasm).unwrap();
        tokio::time::sleep(time / 40).await;
        looks.push(held(&gateway).await);
        if long() {
            eprintln!("{:?}", looks.last());
        }
        // What the tests' own upstream remembers is not the proxy's.
        upstream.forget();
    }
    for other in others {
        other.await.unwrap();
    }
    load.finish().await;
    // The first third is for everything to have been used once.
    let third = looks.len() / 3;
    let most = |looks: &[Held]| looks.iter().map(|held| held.memory).max().unwrap_or(0);
    let (early, late) = (most(&looks[third..2 * third]), most(&looks[2 * third..]));
    eprintln!(
        "{time:?} of everything: {early} KiB, then {late} KiB; {:?}",
        looks.last()
    );
    assert!(
        late <= early + early / 20 + SWAY,
        "{early} KiB, then {late} KiB: {looks:#?}"
    );
    let (first, last) = (looks[third], looks[looks.len() - 1]);
    assert!(last.threads <= first.threads + 2, "{first:?} {last:?}");
}

async fn bodies(address: SocketAddr, new: bool, end: Instant) {
    let mut client = Client::http1(address).await;
    let mut other = Client::http2(address).await;
    while Instant::now() < end {
        for length in [0, 1, 10_000, 300_000] {
            for client in [&mut client, &mut other] {
                let reply = client.send(post("/body", vec![b'x'; length])).await;
                assert_eq!(reply.status, StatusCode::OK);
                assert_eq!(reply.echo().body.len(), length);
                tokio::time::sleep(4 * pause()).await;
            }
        }
        if new {
            client = Client::http1(address).await;
            other = Client::http2(address).await;
        }
    }
}

/// Requests that a filter fails, that no route takes, and that are none.
async fn refused(address: SocketAddr, end: Instant) {
    while Instant::now() < end {
        let mut client = Client::http1(address).await;
        let reply = client.send(get("/bad")).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        let mut wire = tidegate_tests::wire::Wire::connect(address).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            .await;
        let (bytes, _) = wire.read_to_end().await;
        assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{bytes:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Clients that go away in the middle of something.
async fn gone(address: SocketAddr, end: Instant) {
    let mut number = 0_usize;
    while Instant::now() < end {
        let mut wire = tidegate_tests::wire::Wire::connect(address).await;
        let pieces = [
            "GET / HT",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ];
        wire.send(pieces[number % pieces.len()]).await;
        if number.is_multiple_of(2) {
            wire.reset();
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What an idle connection costs: goal of the design is a number that one can plan with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_cheap() {
    const WANTED: usize = 10_000;
    // The clients of this process, and those of the proxy; other tests run in this process too.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = rustix::process::Rlimit {
        current: Some(most.min(65_536)),
        maximum: limit.maximum,
    };
    if limit.current < raised.current {
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    }
    // The proxy keeps room for a connection to an upstream for each of a client's.
    let room = usize::try_from(most).unwrap_or(usize::MAX) / 2;
    let count = WANTED.min(room.saturating_sub(500));
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .workers(2)
        .server("limits.idle-timeout = \"30m\"")
        .filter("mark", sets_header("x-mark", "yes"))
        .route("/*", "main", &["mark"])
        .start()
        .await;
    // What is made at first use is there.
    let mut warm = Vec::new();
    open(&gateway, 64, &mut warm).await;
    let before = settled("the memory", || gateway.memory() / 64).await * 64;
    let begin = Instant::now();
    let mut connections = Vec::new();
    open(&gateway, count, &mut connections).await;
    let took = begin.elapsed();
    let after = settled("the memory", || gateway.memory() / 64).await * 64;
    let grown = after.saturating_sub(before);
    let each = grown * 10 / u64::try_from(count).unwrap();
    eprintln!(
        "{count} idle HTTP/1.1 connections, each after one request: {}.{} KiB each ({before} KiB, then {after} KiB), made in {took:?}",
        each / 10,
        each % 10
    );
    assert!(each < 200, "{}.{} KiB each", each / 10, each % 10);
    // All of them still work.
    for connection in connections.iter_mut().step_by(97) {
        ask(connection).await;
    }
    // The allocator keeps what it had, for the next ones; with each round they fit better into what is there.
    let mut rounds = vec![after];
    for _ in 0..3 {
        drop(std::mem::take(&mut connections));
        until("the connections to be gone", async || {
            gateway.descriptors() < 500
        })
        .await;
        open(&gateway, count, &mut connections).await;
        rounds.push(settled("the memory", || gateway.memory() / 64).await * 64);
    }
    eprintln!("the same again and again: {rounds:?} KiB");
    let (earlier, last) = (rounds[2] - before, rounds[3] - before);
    assert!(last <= earlier + earlier / 8 + SWAY, "{rounds:?} KiB");
    // When they have gone for good, so has their memory, within seconds.
    drop(connections);
    let mut left = 0;
    until("the memory to be given back", async || {
        left = gateway.memory().saturating_sub(before);
        left <= grown / 5
    })
    .await;
    eprintln!("of {grown} KiB, {left} KiB are left when they are gone");
}

async fn open(gateway: &Gateway, count: usize, connections: &mut Vec<TcpStream>) {
    let address = gateway.http();
    for number in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        // Of several addresses: one has not enough ports while others wait to be used again.
        let source = [127, 0, 0, u8::try_from(2 + number / 5000).unwrap()];
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let mut stream = within("a connection", socket.connect(address))
            .await
            .unwrap();
        ask(&mut stream).await;
        connections.push(stream);
    }
}

async fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    while !answer.ends_with(b"}") {
        let count = tokio::time::timeout(patience(), stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
