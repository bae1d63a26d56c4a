//! What a failing filter leaves behind: nothing of its own where it is left out, one count and one line a failure, and a
//! rest for those that fail again and again.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_core::exchange::{Exchange, Part};
use tidegate_core::phase::{Flow, Phase};

use super::harness::{Act, Fake, Origin, Seen, Setup, body, run, status, until};
use crate::{Quarantine, QuarantineSettings};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-from: upstream\r\n\r\nok";

/// Changes whatever can be changed of a head.
fn change(phase: Phase, exchange: &mut Exchange) {
    exchange.set_property("left", b"behind").unwrap();
    if phase == Phase::RequestHead {
        exchange.set_path("/changed").unwrap();
        exchange.set_method("PUT").unwrap();
        exchange.set(Part::Request, "x-in", b"changed").unwrap();
        exchange.remove(Part::Request, "x-gone").unwrap();
    } else if phase == Phase::ResponseHead {
        exchange.set_status(418).unwrap();
        exchange.set(Part::Response, "x-from", b"changed").unwrap();
    }
}

/// Changes heads and then fails in one phase.
fn failing(at: Phase, phases: &[Phase]) -> Fake {
    Fake::acting("bad", phases, move |phase, _, exchange| {
        let mut exchange = exchange.borrow_mut();
        match phase {
            Phase::RequestHead | Phase::ResponseHead => change(phase, &mut exchange),
            Phase::RequestBody | Phase::ResponseBody => exchange.chunk.replace(b"changed"),
            _ => {}
        }
        if phase == at {
            Act::Fail
        } else {
            Act::Flow(Flow::Continue)
        }
    })
}

const POST: &str =
    "POST /a?b HTTP/1.1\r\nHost: h\r\nX-In: 1\r\nX-Gone: 2\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn an_open_failure_leaves_the_request_as_it_was() {
    run(async {
        // Not only what the call that failed changed, as long as the head is held back.
        let wish = |filter: Fake| filter.whole(100, tidegate_core::phase::Overflow::Refuse);
        let head = [Phase::RequestHead];
        let both = [Phase::RequestHead, Phase::RequestBody];
        for bad in [
            failing(Phase::RequestHead, &head),
            wish(failing(Phase::RequestBody, &both)),
        ] {
            let origin = Origin::echo().await;
            let after = Fake::new("after", &head, |_, _, exchange| {
                assert_eq!(exchange.property("left"), None);
                Flow::Continue
            });
            let setup = Setup::new(&origin, vec![bad.open(), after]);
            let gateway = setup.start().await;
            let got = gateway.ask(POST).await;
            let sent = body(&got);
            assert!(sent.starts_with("POST /a?b HTTP/1.1\r\n"), "{sent}");
            assert!(sent.contains("\r\nx-in: 1\r\n"), "{sent}");
            assert!(sent.contains("\r\nx-gone: 2\r\n"), "{sent}");
            assert!(sent.ends_with("\r\n\r\nhi"), "{sent}");
        }
    });
}

#[test]
fn an_open_failure_leaves_the_response_as_it_was() {
    run(async {
        let wish = |filter: Fake| filter.whole(100, tidegate_core::phase::Overflow::Refuse);
        let both = [Phase::ResponseHead, Phase::ResponseBody];
        for bad in [
            failing(Phase::ResponseHead, &[Phase::ResponseHead]),
            wish(failing(Phase::ResponseBody, &both)),
        ] {
            let origin = Origin::answering(OK).await;
            let gateway = Setup::new(&origin, vec![bad.open()]).start().await;
            let got = gateway.get("/").await;
            assert_eq!((status(&got), body(&got)), ("200", "ok"));
            assert!(got.contains("\r\nx-from: upstream\r\n"), "{got}");
            assert!(
                (gateway.figure("tidegate_filter_fail_open_total{filter=\"bad\"}") - 1.0).abs()
                    < 0.1
            );
        }
    });
}

#[test]
fn an_open_failure_behind_too_long_a_body_does_not_break_it() {
    run(async {
        let origin = Origin::echo().await;
        let bad = failing(Phase::RequestBody, &[Phase::RequestBody]);
        let bad = bad.whole(4, tidegate_core::phase::Overflow::Stream).open();
        let gateway = Setup::new(&origin, vec![bad]).start().await;
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234")
            .await;
        until("the filter to fail", || {
            gateway.figure("tidegate_filter_fail_open_total{filter=\"bad\"}") > 0.5
        })
        .await;
        wire.send("56789").await;
        let got = wire.message().await.unwrap();
        assert!(body(&got).ends_with("0123456789"), "{got}");
    });
}

#[test]
fn a_failure_in_log_is_counted_and_harms_nobody() {
    run(async {
        let origin = Origin::answering(OK).await;
        for waits in [false, true] {
            let bad = Fake::acting("bad", &[Phase::Log], move |_, _, _| {
                if waits {
                    Act::WaitAndFail(Box::pin(tokio::task::yield_now()))
                } else {
                    Act::Fail
                }
            });
            let gateway = Setup::new(&origin, vec![bad]).start().await;
            let got = gateway.get("/").await;
            assert_eq!((status(&got), body(&got)), ("200", "ok"));
            until("the failure to be counted", || {
                let series =
                    "tidegate_filter_failures_total{filter=\"bad\",phase=\"log\",reason=\"trap\"}";
                gateway.figure(series) > 0.5
            })
            .await;
            assert!(gateway.figure("tidegate_filter_fail_open_total{filter=\"bad\"}") < 0.5);
        }
    });
}

fn quarantine(first: Duration) -> Arc<Quarantine> {
    Arc::new(Quarantine::new(QuarantineSettings {
        failures: 3,
        first,
        ..QuarantineSettings::default()
    }))
}

#[test]
fn a_filter_that_fails_again_and_again_is_not_called_for_a_while() {
    run(async {
        let origin = Origin::answering(OK).await;
        for open in [false, true] {
            let seen = Seen::default();
            let notes = seen.clone();
            let mut bad = Fake::acting("bad", &[Phase::RequestHead], move |_, _, _| {
                notes.add("called");
                Act::Fail
            });
            bad.quarantine = Some(quarantine(Duration::from_secs(3600)));
            let (policy, expected) = if open {
                (bad.open(), "200")
            } else {
                (bad, "503")
            };
            let gateway = Setup::new(&origin, vec![policy]).start().await;
            for _ in 0..10 {
                assert_eq!(status(&gateway.get("/").await), expected);
            }
            assert_eq!(seen.all().len(), 3);
            assert!(
                (gateway.figure("tidegate_filter_quarantines_total{filter=\"bad\"}") - 1.0).abs()
                    < 0.1
            );
            let passes = gateway.figure("tidegate_filter_fail_open_total{filter=\"bad\"}");
            assert!((passes - if open { 10.0 } else { 0.0 }).abs() < 0.1);
            if !open {
                let lines = gateway.lines(10).await;
                assert_eq!(lines[0]["reason"], "filter");
                assert_eq!(lines[9]["reason"], "filter_quarantined");
            }
        }
    });
}

#[test]
fn a_trial_that_goes_well_brings_the_filter_back() {
    run(async {
        let origin = Origin::answering(OK).await;
        let good = Arc::new(AtomicBool::new(false));
        let is_good = Arc::clone(&good);
        let mut bad = Fake::acting("bad", &[Phase::ResponseHead], move |_, _, _| {
            if is_good.load(Ordering::Relaxed) {
                Act::Flow(Flow::Continue)
            } else {
                Act::Fail
            }
        });
        let state = quarantine(Duration::from_millis(1));
        bad.quarantine = Some(Arc::clone(&state));
        let gateway = Setup::new(&origin, vec![bad]).start().await;
        while state.state().is_none_or(|state| state.times < 3) {
            assert_eq!(status(&gateway.get("/").await), "503");
        }
        let why = state.state().unwrap().why;
        assert_eq!(why, "in response-head: it trapped: on purpose");
        good.store(true, Ordering::Relaxed);
        while state.state().is_some() {
            gateway.get("/").await;
        }
        for _ in 0..5 {
            assert_eq!(status(&gateway.get("/").await), "200");
        }
    });
}

#[test]
fn a_response_tells_its_times_where_the_route_wants_that() {
    run(async {
        let origin = Origin::answering(OK).await;
        let count = Rc::new(Cell::new(0));
        for wanted in [true, false] {
            let filter = Fake::new(
                "a",
                &[Phase::RequestHead, Phase::ResponseHead],
                |_, _, _| Flow::Continue,
            );
            let gateway = Setup::new(&origin, vec![filter])
                .route(|route| route.server_timing = wanted)
                .start()
                .await;
            let got = gateway.get("/").await;
            let told = got
                .lines()
                .find_map(|line| line.strip_prefix("server-timing: "));
            assert_eq!(told.is_some(), wanted, "{got}");
            if let Some(told) = told {
                let (filter, upstream) = told.split_once(", ").unwrap();
                let number = |text: &str, name: &str| -> f64 {
                    text.strip_prefix(name).unwrap().parse().unwrap()
                };
                assert!(number(filter, "filter;dur=") < 1000.0);
                assert!(number(upstream, "upstream;dur=") > 0.0);
                count.set(count.get() + 1);
            }
        }
        assert_eq!(count.get(), 1);
    });
}
