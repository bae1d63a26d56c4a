//! Who is called, in which order, and what decisions and failures mean.

use bytes::Bytes;
use tidegate_core::exchange::{Exchange, Part};
use tidegate_core::phase::{Flow, Phase};

use super::harness::{Act, Fake, Origin, Seen, Setup, body, run, status};

const ALL: [Phase; 7] = [
    Phase::RequestHead,
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseHead,
    Phase::ResponseBody,
    Phase::ResponseTrailers,
    Phase::Log,
];
const HEADS: [Phase; 3] = [Phase::RequestHead, Phase::ResponseHead, Phase::Log];

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Notes every call.
fn noting(name: &'static str, phases: &[Phase], seen: &Seen) -> Fake {
    let seen = seen.clone();
    Fake::new(name, phases, move |phase, _, _| {
        seen.add(format!("{name} {phase}"));
        Flow::Continue
    })
}

fn answer(exchange: &mut Exchange, status: u16, text: &'static str) -> Flow {
    let given = exchange.give_answer(status, [("x-by", &b"filter"[..])], Bytes::from(text));
    given.expect("an answer may be given");
    Flow::Answer
}

#[test]
fn requests_pass_forwards_and_responses_backwards() {
    run(async {
        let origin = Origin::answering(OK).await;
        let seen = Seen::default();
        let filters = ["a", "b"].map(|name| noting(name, &HEADS, &seen)).to_vec();
        let gateway = Setup::new(&origin, filters).start().await;
        assert_eq!(body(&gateway.get("/").await), "ok");
        gateway.lines(1).await;
        assert_eq!(
            seen.all(),
            [
                "a request-head",
                "b request-head",
                "b response-head",
                "a response-head",
                "a log",
                "b log"
            ]
        );
    });
}

#[test]
fn an_answer_turns_back_where_it_was_given() {
    run(async {
        let origin = Origin::answering(OK).await;
        let seen = Seen::default();
        let no = Fake::new("no", &ALL, |phase, _, exchange| match phase {
            Phase::RequestHead => answer(exchange, 403, "no way"),
            Phase::Log => Flow::Continue,
            other => panic!("{other} of a filter that answered"),
        });
        let filters = vec![
            noting("outer", &HEADS, &seen),
            no,
            noting("inner", &HEADS, &seen),
        ];
        let gateway = Setup::new(&origin, filters).start().await;
        let got = gateway.get("/").await;
        assert_eq!((status(&got), body(&got)), ("403", "no way"));
        assert!(got.contains("\r\nx-by: filter\r\n"), "{got}");
        assert!(got.contains("\r\ncontent-length: 6\r\n"), "{got}");
        let line = &gateway.lines(1).await[0];
        assert_eq!(line["answered-by"], "no");
        assert_eq!(line["status"], 403);
        assert_eq!(
            seen.all(),
            ["outer request-head", "outer response-head", "outer log"]
        );
        assert!(origin.seen.all().is_empty());
        let series = "tidegate_filter_answers_total{filter=\"no\"}";
        assert!((gateway.figure(series) - 1.0).abs() < f64::EPSILON);
    });
}

#[test]
fn an_answer_on_the_way_back_replaces_the_response() {
    run(async {
        let origin = Origin::answering(OK).await;
        let seen = Seen::default();
        let notes = seen.clone();
        let outer = Fake::new("outer", &HEADS, move |phase, _, exchange| {
            if phase == Phase::ResponseHead {
                notes.add(exchange.response.as_ref().unwrap().status.to_string());
            }
            Flow::Continue
        });
        let swap = Fake::new("swap", &[Phase::ResponseHead], |_, _, exchange| {
            answer(exchange, 418, "tea")
        });
        let gateway = Setup::new(&origin, vec![outer, swap, noting("inner", &HEADS, &seen)])
            .start()
            .await;
        let got = gateway.get("/").await;
        assert_eq!((status(&got), body(&got)), ("418", "tea"));
        gateway.lines(1).await;
        assert!(seen.all().contains(&"418 I'm a teapot".to_owned()));
        // The upstream's body was not wanted any more; the next request is not confused by it.
        assert_eq!(status(&gateway.get("/").await), "418");
    });
}

#[test]
fn what_the_proxy_answers_passes_the_filters_that_saw_the_request() {
    run(async {
        let seen = Seen::default();
        let gateway = Setup::to(None, vec![noting("a", &HEADS, &seen)])
            .start()
            .await;
        let got = gateway.get("/").await;
        assert_eq!(status(&got), "502");
        let line = &gateway.lines(1).await[0];
        assert_eq!(line["reason"], "no_upstream");
        assert!(got.contains(line["request-id"].as_str().unwrap()), "{got}");
        assert_eq!(seen.all(), ["a request-head", "a response-head", "a log"]);
    });
}

#[test]
fn a_filter_that_fails_closed_ends_its_exchange_only() {
    run(async {
        let origin = Origin::answering(OK).await;
        for phase in [Phase::RequestHead, Phase::ResponseHead] {
            let seen = Seen::default();
            let notes = seen.clone();
            let bad = Fake::acting("bad", &HEADS, move |now, _, exchange| {
                notes.add(format!("bad {now}"));
                let path = exchange.borrow().request.target.path().to_owned();
                if now == phase && path == "/bad" {
                    Act::Fail
                } else {
                    Act::Flow(Flow::Continue)
                }
            });
            let gateway = Setup::new(&origin, vec![noting("outer", &HEADS, &seen), bad])
                .start()
                .await;
            let got = gateway.get("/bad").await;
            assert_eq!(status(&got), "503", "{got}");
            assert!(!got.contains("on purpose"), "{got}");
            assert_eq!(gateway.lines(1).await[0]["reason"], "filter");
            let calls = seen.take();
            assert_eq!(
                calls
                    .iter()
                    .filter(|call| **call == format!("bad {phase}"))
                    .count(),
                1
            );
            assert_eq!(
                calls.iter().filter(|call| call.ends_with("log")).count(),
                2,
                "{calls:?}"
            );
            assert!(
                calls.contains(&"outer response-head".to_owned()),
                "{calls:?}"
            );
            if phase == Phase::RequestHead {
                assert!(
                    !calls.contains(&"bad response-head".to_owned()),
                    "{calls:?}"
                );
            }
            assert_eq!(status(&gateway.get("/").await), "200");
            let series = format!(
                "tidegate_filter_failures_total{{filter=\"bad\",phase=\"{phase}\",reason=\"trap\"}}"
            );
            assert!((gateway.figure(&series) - 1.0).abs() < f64::EPSILON);
        }
    });
}

#[test]
fn a_filter_that_fails_open_is_left_out_of_its_exchange() {
    run(async {
        let origin = Origin::answering(OK).await;
        let seen = Seen::default();
        let notes = seen.clone();
        let bad = Fake::acting("bad", &ALL, move |phase, _, _| {
            notes.add(format!("bad {phase}"));
            Act::Fail
        })
        .open();
        let gateway = Setup::new(&origin, vec![bad]).start().await;
        let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(body(&gateway.ask(request).await), "ok");
        gateway.lines(1).await;
        assert_eq!(seen.all(), ["bad request-head", "bad log"]);
        assert!(origin.seen.all()[0].ends_with("hi"));
        let series = "tidegate_filter_fail_open_total{filter=\"bad\"}";
        assert!((gateway.figure(series) - 1.0).abs() < f64::EPSILON);
    });
}

#[test]
fn what_breaks_the_contract_is_a_failure() {
    run(async {
        let origin = Origin::answering(OK).await;
        for flow in [Flow::Answer, Flow::Hold] {
            let phase = if flow == Flow::Answer {
                Phase::RequestHead
            } else {
                Phase::RequestBody
            };
            let odd = Fake::new("odd", &[phase], move |now, _, _| {
                if now == phase { flow } else { Flow::Continue }
            });
            let gateway = Setup::new(&origin, vec![odd]).start().await;
            let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
            assert_eq!(status(&gateway.ask(request).await), "503", "{flow:?}");
            let series = format!(
                "tidegate_filter_failures_total{{filter=\"odd\",phase=\"{phase}\",reason=\"contract\"}}"
            );
            assert!((gateway.figure(&series) - 1.0).abs() < f64::EPSILON);
        }
    });
}

#[test]
fn a_filter_that_can_not_be_had_answers_by_its_policy() {
    run(async {
        let origin = Origin::answering(OK).await;
        for open in [false, true] {
            let setup = Setup::new(&origin, vec![noting("gone", &HEADS, &Seen::default())]);
            let gateway = setup.start().await;
            let mut snapshot =
                Setup::new(&origin, vec![noting("gone", &HEADS, &Seen::default())]).snapshot();
            for slot in &mut snapshot.filters {
                slot.module = None;
                slot.failure = if open {
                    crate::Failure::Open
                } else {
                    crate::Failure::Closed
                };
            }
            gateway.worker.install(std::sync::Arc::new(snapshot));
            let expected = if open { "200" } else { "503" };
            assert_eq!(status(&gateway.get("/").await), expected);
        }
    });
}

#[test]
fn log_runs_once_also_when_the_client_goes() {
    run(async {
        let arrived = Seen::default();
        let note = arrived.clone();
        let origin = Origin::start(move |mut wire, _| {
            let note = note.clone();
            async move {
                let _ = wire.head().await;
                note.add("arrived");
                let _ = wire.rest().await;
                note.add("left");
            }
        })
        .await;
        let seen = Seen::default();
        let gateway = Setup::new(&origin, vec![noting("a", &HEADS, &seen)])
            .start()
            .await;
        // A reset is seen at once; the end of what a client sends is not its end.
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        super::harness::until("the request to arrive", || !arrived.all().is_empty()).await;
        wire.0.set_zero_linger().unwrap();
        drop(wire);
        super::harness::until("the upstream to be told", || arrived.all().len() == 2).await;
        gateway.all_closed().await;
        let line = &gateway.lines(1).await[0];
        assert_eq!(line["status"], 499);
        assert_eq!(line["reason"], "client_abort");
        assert_eq!(seen.all(), ["a request-head", "a log"]);
        assert!((gateway.figure("tidegate_client_aborts_total") - 1.0).abs() < f64::EPSILON);
    });
}

#[test]
fn filters_see_and_change_what_is_forwarded() {
    run(async {
        let origin = Origin::echo().await;
        let change = Fake::new("change", &HEADS, |phase, _, exchange| {
            if phase == Phase::RequestHead {
                assert_eq!(exchange.parameter("*"), Some("a/b"));
                assert_eq!(exchange.get(Part::Request, "x-in"), Some(&b"1"[..]));
                exchange.set_path("/changed").unwrap();
                exchange.set_query(None).unwrap();
                exchange.set_authority("other.example:81").unwrap();
                exchange.set_method("PUT").unwrap();
                exchange.set(Part::Request, "x-in", b"2").unwrap();
            } else if phase == Phase::ResponseHead {
                // The request is still here to be read.
                assert_eq!(exchange.get(Part::Request, "x-in"), Some(&b"2"[..]));
                exchange.set_status(201).unwrap();
                exchange.append(Part::Response, "x-out", b"3").unwrap();
            }
            Flow::Continue
        });
        let gateway = Setup::new(&origin, vec![change]).start().await;
        let got = gateway
            .ask("GET /a/b?key=secret HTTP/1.1\r\nHost: h.example\r\nX-In: 1\r\n\r\n")
            .await;
        assert_eq!(status(&got), "201");
        assert!(got.contains("\r\nx-out: 3\r\n"), "{got}");
        let sent = body(&got);
        assert!(sent.starts_with("PUT /changed HTTP/1.1\r\n"), "{sent}");
        for line in [
            "host: other.example:81",
            "x-in: 2",
            "x-forwarded-host: h.example",
        ] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
        }
        // The log tells what was asked, but not what a filter took out of the query.
        let line = &gateway.lines(1).await[0];
        assert_eq!(line["target"], "/a/b");
        assert_eq!(line["method"], "GET");
        assert_eq!(line["host"], "h.example");
    });
}

#[test]
fn an_exchange_ends_with_the_filters_that_it_began_with() {
    run(async {
        let gate = std::sync::Arc::new(tokio::sync::Notify::new());
        let wait = std::sync::Arc::clone(&gate);
        let origin = Origin::start(move |mut wire, seen| {
            let wait = std::sync::Arc::clone(&wait);
            async move {
                while let Some(message) = wire.message().await {
                    let slow = message.starts_with("GET /slow");
                    seen.add(message);
                    if slow {
                        wait.notified().await;
                    }
                    wire.send(OK).await;
                }
            }
        })
        .await;
        let seen = Seen::default();
        let gateway = Setup::new(&origin, vec![noting("old", &HEADS, &seen)])
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await;
        super::harness::until("the request to arrive", || !origin.seen.all().is_empty()).await;
        let changed = Setup::new(&origin, vec![noting("new", &HEADS, &seen)]).snapshot();
        gateway.worker.install(std::sync::Arc::new(changed));
        assert_eq!(status(&gateway.get("/").await), "200");
        gate.notify_one();
        assert_eq!(status(&wire.message().await.unwrap()), "200");
        gateway.lines(2).await;
        assert_eq!(
            seen.all(),
            [
                "old request-head",
                "new request-head",
                "new response-head",
                "new log",
                "old response-head",
                "old log"
            ]
        );
    });
}
