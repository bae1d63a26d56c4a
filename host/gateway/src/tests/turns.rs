//! Filters that wait: one call at a time in an exchange, whichever way it goes, and none that outlives it.

use std::sync::Arc;

use tidegate_core::filter::SharedExchange;
use tidegate_core::phase::{Flow, Phase};
use tokio::sync::Notify;

use super::harness::{Act, Fake, Origin, Seen, Setup, body, run, status, until};

/// Waits for a signal in one phase, and notes what it sees then.
fn waiting(phase: Phase, gate: &Arc<Notify>, seen: &Seen) -> Fake {
    let (gate, seen) = (Arc::clone(gate), seen.clone());
    Fake::acting("waits", &[phase, Phase::Log], move |now, _, exchange| {
        if now != phase {
            seen.add("log");
            return Act::Flow(Flow::Continue);
        }
        seen.add("waits");
        let (gate, seen) = (Arc::clone(&gate), seen.clone());
        // The future is made and ended on one thread.
        let exchange = SharedExchange::clone(exchange);
        Act::Wait(Box::pin(async move {
            gate.notified().await;
            let chunk = exchange.borrow().chunk.read(0, 100).to_vec();
            let stage = exchange.borrow().stage.phase;
            seen.add(format!("{stage} {}", String::from_utf8_lossy(&chunk)));
            Flow::Continue
        }))
    })
}

#[test]
fn a_filter_that_waits_holds_only_its_own_exchange_up() {
    run(async {
        let origin = Origin::echo().await;
        let (gate, seen) = (Arc::new(Notify::new()), Seen::default());
        let gateway = Setup::new(&origin, vec![waiting(Phase::RequestHead, &gate, &seen)])
            .start()
            .await;
        let mut first = gateway.wire().await;
        first.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the first call", || seen.all().len() == 1).await;
        let mut second = gateway.wire().await;
        second.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the second call", || seen.all().len() == 2).await;
        gate.notify_waiters();
        for (wire, path) in [(&mut first, "/1"), (&mut second, "/2")] {
            let got = wire.message().await.unwrap();
            assert!(body(&got).starts_with(&format!("GET {path} ")), "{got}");
        }
    });
}

#[test]
fn the_directions_of_an_exchange_take_turns() {
    run(async {
        // Answers before it has read the body, and goes on while that is sent.
        let origin = Origin::start(|mut wire, _| async move {
            let _ = wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nresponse\r\n")
                .await;
            let _ = wire.until(b"0\r\n\r\n").await;
            wire.send("0\r\n\r\n").await;
        })
        .await;
        let (gate, seen) = (Arc::new(Notify::new()), Seen::default());
        let notes = seen.clone();
        let other = Fake::new(
            "other",
            &[Phase::ResponseBody],
            move |phase, _, exchange| {
                let chunk = String::from_utf8_lossy(exchange.chunk.read(0, 100)).into_owned();
                notes.add(format!("{phase} {chunk}"));
                Flow::Continue
            },
        );
        let waits = waiting(Phase::RequestBody, &gate, &seen);
        let gateway = Setup::new(&origin, vec![waits, other]).start().await;
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nrequest")
            .await;
        until("the call that waits", || !seen.all().is_empty()).await;
        assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200"));
        // The response's piece has come, and waits for its turn.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.all(), ["waits"]);
        gate.notify_one();
        assert_eq!(
            wire.until(b"0\r\n\r\n").await.unwrap(),
            "8\r\nresponse\r\n0\r\n\r\n"
        );
        let calls = seen.all();
        assert_eq!(calls[1], "request-body request");
        assert_eq!(calls[2], "response-body response");
    });
}

#[test]
fn a_call_that_waits_ends_with_its_exchange() {
    run(async {
        let origin = Origin::echo().await;
        for phase in [Phase::RequestHead, Phase::RequestBody] {
            let (gate, seen) = (Arc::new(Notify::new()), Seen::default());
            let gateway = Setup::new(&origin, vec![waiting(phase, &gate, &seen)])
                .start()
                .await;
            let mut wire = gateway.wire().await;
            wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
                .await;
            until("the call", || seen.all() == ["waits"]).await;
            wire.0.set_zero_linger().unwrap();
            drop(wire);
            until("the log", || seen.all() == ["waits", "log"]).await;
            gateway.all_closed().await;
            gate.notify_waiters();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(seen.all(), ["waits", "log"], "{phase}");
        }
    });
}

#[test]
fn a_piece_that_waits_is_whole_when_it_goes_on() {
    run(async {
        let origin = Origin::echo().await;
        let (gate, seen) = (Arc::new(Notify::new()), Seen::default());
        let gateway = Setup::new(&origin, vec![waiting(Phase::ResponseBody, &gate, &seen)])
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await;
        until("the call", || !seen.all().is_empty()).await;
        gate.notify_one();
        let (got, _) = wire.rest().await;
        assert_eq!(status(&got), "200");
        assert!(
            got.contains("GET /x HTTP/1.1") && got.ends_with("0\r\n\r\n"),
            "{got}"
        );
    });
}

#[test]
fn a_log_that_gives_way_comes_to_its_end() {
    run(async {
        let origin = Origin::echo().await;
        let seen = Seen::default();
        let notes = seen.clone();
        let phases = [Phase::RequestHead, Phase::Log];
        let slow = Fake::acting("slow", &phases, move |phase, _, _| {
            let notes = notes.clone();
            Act::Wait(Box::pin(async move {
                tokio::task::yield_now().await;
                notes.add(phase.name());
                Flow::Continue
            }))
        });
        let gateway = Setup::new(&origin, vec![slow]).start().await;
        assert_eq!(status(&gateway.get("/").await), "200");
        until("the log", || seen.all() == ["request-head", "log"]).await;
    });
}
