//! Filters that do what no filter should: `tests/guests/hostile`, one after the other. Each exchange of theirs gets its
//! policy's answer; a neighbour on the same worker, under a constant load, sees no failure and no delay besides the
//! guest's own bound; and the memory returns to where it was.

use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use tidegate_tests::client::{Body, Client, full, get, get_with, pieces, request};
use tidegate_tests::gateway::Setup;
use tidegate_tests::hostile::{self, Outcome, PHASES, Trial};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

/// What 64 MiB of pages take on a machine that is busy with other tests: to be made, filled and given back.
const PAGES: Duration = Duration::from_millis(300);

/// A request with a body and trailers, so that there is every phase.
fn whole(path: &str) -> Request<Body> {
    let body = pieces(&["one", "two"], &[("x-end", "request")]);
    request(Method::POST, path)
        .header("te", "trailers")
        .header("trailer", "x-end")
        .body(body)
        .unwrap()
}

/// Answers with a body and trailers.
async fn upstream() -> Upstream {
    Upstream::serve(async |_| {
        let mut response = Response::new(pieces(&["three", "four"], &[("x-end", "response")]));
        let fields = response.headers_mut();
        fields.insert("trailer", "x-end".parse().unwrap());
        response
    })
    .await
}

/// What becomes of an exchange in which a filter fails in a phase.
fn outcome(phase: usize) -> Outcome {
    match PHASES[phase] {
        "request-head" | "response-head" => Outcome::Policy,
        "log" => Outcome::Served,
        _ => Outcome::PolicyOrCut,
    }
}

/// In each phase of an exchange.
async fn in_every_phase(name: &str, case: char) {
    let upstream = upstream().await;
    for phase in 1..PHASES.len() {
        let trial = Trial::new(name, phase, case, outcome(phase));
        trial.run(&upstream, whole).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_in_any_phase() {
    in_every_phase("loop", 'a').await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_in_any_phase() {
    in_every_phase("trap", 'a').await;
}

/// One guest in the request's head, in each of its variants.
async fn in_each_variant(name: &str, cases: std::ops::RangeInclusive<char>, outcome: Outcome) {
    let upstream = upstream().await;
    for case in cases {
        Trial::new(name, 1, case, outcome).run(&upstream, get).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_of_other_kinds() {
    in_each_variant("loop-nested", 'a'..='a', Outcome::Policy).await;
    in_each_variant("loop-calling", 'a'..='a', Outcome::Policy).await;
}

/// The host fills and copies memory for the guest: one such instruction is not interrupted, however much it fills; the
/// memory's bound is what bounds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_fills_memory() {
    let upstream = upstream().await;
    let trial = Trial::new("loop-filling", 1, 'a', Outcome::Policy).beyond(PAGES);
    trial.run(&upstream, get).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_of_every_kind() {
    in_each_variant("trap", 'b'..='e', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recursion_without_end() {
    in_each_variant("recursion", 'a'..='c', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pointers_and_lengths_that_lead_outside() {
    in_each_variant("pointers", 'a'..='l', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_do_not_exist() {
    in_each_variant("enumerations", 'a'..='d', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allocators_that_turn_bad() {
    // Memory of its own, in whatever place, is its own affair.
    in_each_variant("allocations", 'a'..='b', Outcome::Served).await;
    in_each_variant("allocations", 'c'..='h', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_without_end() {
    let upstream = upstream().await;
    for (case, outcome) in [('a', Outcome::Policy), ('b', Outcome::Policy)] {
        let trial = Trial::new("memory-bomb", 1, case, outcome)
            .time(Duration::from_millis(100))
            .beyond(PAGES);
        trial.run(&upstream, get).await;
    }
    in_each_variant("table-bomb", 'a'..='a', Outcome::Policy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_end() {
    let upstream = upstream().await;
    for phase in [2, 5] {
        let trial = Trial::new("body-flood", phase, 'a', Outcome::PolicyOrCut);
        trial
            .time(Duration::from_secs(2))
            .run(&upstream, whole)
            .await;
    }
}

/// Files that get as far as their first instruction, and no further.
#[tokio::test]
async fn what_never_starts_is_never_in_service() {
    let upstream = Upstream::echo().await;
    for (name, told) in [
        ("start-loop", "its limit `configure-"),
        ("start-trap", "unreachable"),
        ("initialize-loop", "its limit `configure-"),
        ("memory-4gib", "4294967296"),
        ("memory-65mib", "68157440"),
        ("memory64", "64-bit memory"),
        ("memory-shared", "shared memory"),
        ("table-huge", "table"),
        ("data-outside", "out of bounds"),
    ] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .server("filter-defaults.limits.configure-time = \"200ms\"")
            .filter("bad", hostile::guest(name))
            .route("/closed", "main", &["bad"])
            .route("/neighbour", "main", &[])
            .start()
            .await;
        assert_eq!(gateway.get("/neighbour").await.status, StatusCode::OK);
        let reply = gateway.get("/closed").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        let entry = gateway.plugin("bad").await;
        let reason = entry["reason"].as_str().unwrap_or_default();
        assert!(
            reason.contains("bad.wasm") && reason.contains(told),
            "{name}: {entry}"
        );
        // `check` says the same.
        let setup = gateway.stop().await;
        let check = setup.run(&["check", "--config", "tidegate.toml"]).await;
        assert_eq!(check.code, Some(1), "{name}: {}", check.said());
        assert!(check.stderr.contains(told), "{name}: {}", check.said());
    }
}

#[tokio::test]
async fn what_fails_in_configure_is_never_in_service() {
    let upstream = Upstream::echo().await;
    for (name, case, told) in [
        ("loop", 'a', "configure"),
        ("trap", 'a', "configure"),
        ("memory-bomb", 'a', "configure"),
        ("recursion", 'a', "configure"),
        ("allocations", 'g', "configure"),
    ] {
        let trial =
            Trial::new(name, 0, case, Outcome::Policy).limits(", configure-time = \"200ms\"");
        let begin = Instant::now();
        let gateway = trial.start(&upstream, Setup::new()).await;
        let reply = gateway.get("/closed").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(gateway.get("/open").await.status, StatusCode::OK, "{name}");
        assert_eq!(gateway.get("/neighbour").await.status, StatusCode::OK);
        let entry = gateway.plugin("bad").await;
        assert_eq!(entry["state"], "failed", "{name}: {entry}");
        assert!(
            entry["reason"].as_str().unwrap_or_default().contains(told),
            "{name}: {entry}"
        );
        eprintln!("{name} in configure: {:?}", begin.elapsed());
    }
}

/// Bytes that would be a line or a response of their own never come to the wire, in either direction.
#[tokio::test]
async fn fields_that_would_split_a_message() {
    let upstream = Upstream::echo().await;
    for phase in [1, 4] {
        let trial = Trial::new("fields", phase, 'a', Outcome::Served).time(Duration::from_secs(1));
        let gateway = trial.start(&upstream, Setup::new()).await;
        let mut wire = gateway.wire().await;
        wire.send("GET /closed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let (bytes, _) = wire.read_to_end().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(!text.contains("\nHTTP/1.1"), "{text}");
        for evil in ["set-cookie", "x-evil", "x evil", "x-split", "x-more"] {
            assert!(!text.to_ascii_lowercase().contains(evil), "{evil}: {text}");
        }
        // Ten are refused with a reason, the last one is fine.
        let said = |text: &str| {
            let log = gateway.log();
            log.iter().filter(|line| line.text.contains(text)).count()
        };
        until("what was refused to be told", async || {
            (said("refused: 1"), said("refused: 0")) == (10, 1)
        })
        .await;
    }
}

/// Answers that a filter may not give like this never leave like this.
#[tokio::test]
async fn answers_that_would_split_or_lie() {
    let upstream = Upstream::echo().await;
    for (case, status, body) in [
        // Refused by the host, so that there is none: that is a failure of the filter.
        ('a', 503, None),
        ('b', 503, None),
        // The second one counts, and only if the filter says so.
        ('c', 200, None),
        // The length is the host's.
        ('d', 503, None),
        ('e', 204, Some("")),
    ] {
        let trial = Trial::new("answers", 1, case, Outcome::Served);
        let gateway = trial.start(&upstream, Setup::new()).await;
        let mut wire = gateway.wire().await;
        wire.send("GET /closed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let (bytes, _) = wire.read_to_end().await;
        let text = String::from_utf8_lossy(&bytes);
        let first = format!("HTTP/1.1 {status} ");
        assert!(text.starts_with(&first), "{case}: {text}");
        assert!(!text.contains("x-split"), "{case}: {text}");
        if let Some(body) = body {
            let (_, found) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(found, body, "{case}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_fields() {
    let upstream = Upstream::echo().await;
    for (phase, case, most) in [(1, 'a', 256), (4, 'a', 256), (1, 'b', 0), (4, 'b', 0)] {
        let trial =
            Trial::new("field-flood", phase, case, Outcome::Served).time(Duration::from_secs(2));
        let gateway = trial.start(&upstream, Setup::new()).await;
        let mut wire = gateway.wire().await;
        wire.send("GET /closed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let text = wire.rest().await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        // As name and as value.
        let seen = text.matches("x-flood").count() / 2;
        assert!(seen <= most, "{seen} fields in phase {phase}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_figures() {
    let upstream = Upstream::echo().await;
    for phase in [0, 1] {
        let trial = Trial::new("metric-flood", phase, 'a', Outcome::Served)
            .limits(", configure-time = \"10s\"")
            .time(Duration::from_secs(2));
        let gateway = trial.start(&upstream, Setup::new()).await;
        assert_eq!(gateway.get("/closed").await.status, StatusCode::OK);
        let begin = Instant::now();
        let text = gateway.admin("/metrics").await.text();
        let took = begin.elapsed();
        let series = text.lines().filter(|line| line.contains("flood")).count();
        // 100 of each of the two filters, with a line or two about each.
        assert!(series <= 2 * 3 * 100, "{series} lines");
        assert!(took < Duration::from_secs(1), "{took:?}");
        trial.run_on(&gateway, get).await;
    }
}

/// The store is bounded for all: it holds what it held, or less, and the memory with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_values_in_the_store() {
    let upstream = Upstream::echo().await;
    let trial = Trial::new("store-flood", 1, 'a', Outcome::Served)
        .allow("store = [\"flood\"]")
        .time(Duration::from_secs(10));
    let gateway = trial.start(&upstream, Setup::new()).await;
    let before = gateway.memory();
    for _ in 0..3 {
        assert_eq!(gateway.get("/closed").await.status, StatusCode::OK);
    }
    let after = gateway.memory();
    // 8 MiB of values, and what it takes to know them.
    assert!(after < before + 24 * 1024, "{before} KiB, then {after} KiB");
    for _ in 0..3 {
        assert_eq!(gateway.get("/closed").await.status, StatusCode::OK);
    }
    let later = gateway.memory();
    assert!(later < after + 8 * 1024, "{after} KiB, then {later} KiB");
}

/// An exchange makes as many calls as its filter may make, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls() {
    let upstream = upstream().await;
    let called = Upstream::echo().await;
    // It is told no from the hundredth call on, and takes that for an answer.
    let trial = Trial::new("call-flood", 1, 'a', Outcome::Served)
        .allow("http = [\"called\"]")
        .time(Duration::from_secs(2));
    let setup = Setup::with_upstream("called", &called.url());
    let gateway = trial.start(&upstream, setup).await;
    assert_eq!(gateway.get("/closed").await.status, StatusCode::OK);
    assert_eq!(called.requests(), 100);
    gateway.logged(&["bad", "`calls`", "100"]).await;
    trial.run_on(&gateway, get).await;
}

/// A trap in one exchange while others of the same filter wait for their calls, and others have instances of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_while_others_wait() {
    let upstream = upstream().await;
    let (let_go, held) = tokio::sync::watch::channel(false);
    let called = Upstream::serve(move |_| {
        let mut held = held.clone();
        async move {
            held.wait_for(|go| *go).await.unwrap();
            Response::new(full("at last"))
        }
    })
    .await;
    let trial = Trial::new("call-or-trap", 1, 'a', Outcome::Policy).allow("http = [\"called\"]");
    let gateway = trial
        .start(&upstream, Setup::with_upstream("called", &called.url()))
        .await;
    let address = gateway.http();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::http1(address).await;
                client.send(get("/closed")).await
            })
        })
        .collect();
    until("all calls to be made", async || called.requests() == 8).await;
    for _ in 0..5 {
        let trap = get_with("/closed", &[("x-trap", "yes")]);
        let reply = gateway.send(trap).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    gateway
        .logged(&["bad", "request-head", "unreachable"])
        .await;
    let_go.send(true).unwrap();
    for reply in waiting {
        let reply = reply.await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
}

/// Only the exchange that traps is harmed, and the instance is never seen again: the next one counts from 1.
#[tokio::test]
async fn one_trap_in_ten_requests() {
    let upstream = Upstream::echo().await;
    let trial = Trial::new("trap-or-state", 4, 'a', Outcome::Policy);
    let gateway = trial.start(&upstream, Setup::new()).await;
    let mut client = gateway.http1().await;
    for number in 1..=50 {
        let reply = client.send(get("/closed")).await;
        let within = number % 10;
        if within == 0 {
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{number}");
        } else {
            assert_eq!(
                reply.field("x-count"),
                Some(&*within.to_string()),
                "{number}"
            );
        }
        // Others are not concerned.
        assert_eq!(
            client.send(get("/neighbour")).await.field("x-good"),
            Some("yes")
        );
    }
}

/// What is logged can't be read as another line, and there is no more of it than the disk can take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_log_lines() {
    let upstream = Upstream::echo().await;
    let trial = Trial::new("log-flood", 1, 'a', Outcome::Policy);
    let begin = Instant::now();
    let gateway = trial.start(&upstream, Setup::new()).await;
    let _refused_or_served = gateway.get("/closed").await;
    let line = gateway.logged(&["flood"]).await;
    assert!(line.is_json(), "{line:?}");
    assert!(!line.text.contains('\u{1b}'), "{line:?}");
    assert!(line.text.len() < 16 * 1024, "{} bytes", line.text.len());
    for _ in 0..5 {
        let _refused_or_served = gateway.get("/closed").await;
    }
    gateway.logged(&["bad", "log-rate"]).await;
    let lines = gateway.log();
    for line in &lines {
        assert_ne!(line.field("message"), Some("forged"), "{line:?}");
    }
    let flood = lines
        .iter()
        .filter(|line| line.text.contains("flood"))
        .count();
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    assert!(flood <= 100 * seconds, "{flood} lines in {seconds} s");
    // The proxy's own lines, and those of others, are not held back.
    assert_eq!(gateway.get("/neighbour").await.status, StatusCode::OK);
}

/// An instance keeps 1 KiB of every request until it has no more: then that request fails, and the next instance starts
/// with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_leak() {
    let upstream = Upstream::echo().await;
    let trial = Trial::new("leak", 1, 'a', Outcome::Policy).limits(", memory = \"1MiB\"");
    let gateway = trial.start(&upstream, Setup::new()).await;
    let mut client = gateway.http1().await;
    let mut failed = 0;
    let mut memory = 0;
    for number in 0..4000 {
        let reply = client.send(get("/closed")).await;
        failed += usize::from(reply.status != StatusCode::OK);
        if number == 1500 {
            memory = gateway.memory();
        }
    }
    let after = gateway.memory();
    // 1 MiB holds about 900.
    assert!(failed <= 5, "{failed} of 4000 failed");
    assert!(after <= memory + 4096, "{memory} KiB, then {after} KiB");
}

#[test]
fn every_hostile_guest_has_a_test() {
    let tests = [
        include_str!("hostile_guests.rs"),
        include_str!("hostile_files.rs"),
    ];
    for name in hostile::all() {
        let quoted = format!("\"{name}\"");
        assert!(
            tests.iter().any(|test| test.contains(&quoted)),
            "nothing uses {name}"
        );
        assert!(hostile::guest(&name).starts_with(b"\0asm"));
    }
}
