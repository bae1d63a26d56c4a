//! Bodies through filters: in pieces, whole, held, changed, bounded, with trailers.

use bytes::Bytes;
use tidegate_core::exchange::{Exchange, Part};
use tidegate_core::phase::{Flow, Overflow, Phase};

use super::harness::{Act, Fake, Origin, Seen, Setup, body, run, status};

const BODIES: [Phase; 4] = [
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseBody,
    Phase::ResponseTrailers,
];

fn piece(exchange: &Exchange) -> String {
    String::from_utf8_lossy(exchange.chunk.read(0, u32::MAX)).into_owned()
}

/// Notes every piece, and changes it.
fn shouting(seen: &Seen) -> Fake {
    let seen = seen.clone();
    Fake::new("shout", &BODIES, move |phase, end, exchange| {
        if matches!(phase, Phase::RequestBody | Phase::ResponseBody) {
            let text = piece(exchange);
            seen.add(format!("{phase} {text:?} {end}"));
            exchange.chunk.replace(text.to_uppercase().as_bytes());
        } else {
            let part = if phase == Phase::RequestTrailers {
                Part::RequestTrailers
            } else {
                Part::ResponseTrailers
            };
            seen.add(format!("{phase}"));
            exchange.set(part, "x-sum", b"changed").unwrap();
        }
        Flow::Continue
    })
}

fn post(text: &str) -> String {
    let length = text.len();
    format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{text}")
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
     3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\nauthorization: evil\r\n\r\n";

#[test]
fn pieces_pass_a_filter_as_they_come() {
    run(async {
        let origin = Origin::start(|mut wire, seen| async move {
            while let Some(message) = wire.message().await {
                seen.add(message);
                wire.send(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n",
                )
                .await;
            }
        })
        .await;
        let seen = Seen::default();
        let gateway = Setup::new(&origin, vec![shouting(&seen)]).start().await;
        let got = gateway.ask(CHUNKED).await;
        assert!(
            got.ends_with("2\r\nOK\r\n0\r\nx-sum: changed\r\n\r\n"),
            "{got}"
        );
        let sent = &origin.seen.all()[0];
        assert!(
            sent.contains("\r\ntransfer-encoding: chunked\r\n"),
            "{sent}"
        );
        let (_, sent_body) = sent.split_once("\r\n\r\n").unwrap();
        let letters: String = sent_body
            .chars()
            .filter(|c| ('A'..='E').contains(c))
            .collect();
        assert_eq!(letters, "ABCDE");
        assert!(sent.ends_with("0\r\nx-sum: changed\r\n\r\n"), "{sent}");
        let calls = seen.all();
        let ends: Vec<_> = calls.iter().filter(|call| call.ends_with("true")).collect();
        assert_eq!(ends.len(), 2, "{calls:?}");
        assert!(calls.contains(&"request-trailers".to_owned()), "{calls:?}");
        assert!(calls.contains(&"response-trailers".to_owned()), "{calls:?}");
    });
}

#[test]
fn a_changed_body_has_no_length_of_its_past() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![shouting(&Seen::default())])
            .start()
            .await;
        let got = gateway.ask(&post("hello")).await;
        let sent = &origin.seen.all()[0];
        assert!(!sent.to_lowercase().contains("content-length"), "{sent}");
        assert!(sent.contains("5\r\nHELLO\r\n0\r\n\r\n"), "{sent}");
        assert!(got.contains("\r\ntransfer-encoding: chunked\r\n"), "{got}");
        assert!(got.contains("HELLO"), "{got}");
        // No body, no call, no length.
        let got = gateway.get("/").await;
        assert_eq!(status(&got), "200");
        let sent = origin.seen.all()[1].to_lowercase();
        assert!(
            !sent.contains("transfer-encoding") && !sent.contains("content-length"),
            "{sent}"
        );
    });
}

#[test]
fn the_end_is_told_once() {
    run(async {
        let origin = Origin::echo().await;
        for request in [
            post("hello"),
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
                .to_owned(),
        ] {
            let seen = Seen::default();
            let gateway = Setup::new(&origin, vec![shouting(&seen)]).start().await;
            gateway.ask(&request).await;
            let calls = seen.all();
            let request: Vec<_> = calls
                .iter()
                .filter(|call| call.starts_with("request-body"))
                .collect();
            assert!(request.last().unwrap().ends_with("true"), "{calls:?}");
            assert_eq!(
                request.iter().filter(|call| call.ends_with("true")).count(),
                1,
                "{calls:?}"
            );
        }
    });
}

#[test]
fn a_whole_body_is_judged_before_the_head_goes_on() {
    run(async {
        let origin = Origin::echo().await;
        let judge = Fake::new("judge", &[Phase::RequestBody], |_, end, exchange| {
            assert!(end && exchange.stage.head_open);
            let text = piece(exchange);
            exchange
                .set(Part::Request, "x-length", text.len().to_string().as_bytes())
                .unwrap();
            if text.contains("evil") {
                exchange
                    .give_answer(403, [], Bytes::from_static(b"evil"))
                    .unwrap();
                return Flow::Answer;
            }
            if text == "change" {
                exchange.chunk.replace(b"changed it");
            }
            Flow::Continue
        })
        .whole(10, Overflow::Refuse);
        let gateway = Setup::new(&origin, vec![judge]).start().await;
        let got = gateway.ask(&post("good")).await;
        assert!(body(&got).contains("\r\nx-length: 4\r\n"), "{got}");
        assert!(body(&got).contains("\r\ncontent-length: 4\r\n"), "{got}");
        assert!(got.ends_with("\r\n\r\ngood"), "{got}");
        let got = gateway.ask(&post("change")).await;
        assert!(body(&got).contains("\r\ncontent-length: 10\r\n"), "{got}");
        assert!(got.ends_with("\r\n\r\nchanged it"), "{got}");
        // In pieces too, and without a body.
        let got = gateway.ask(CHUNKED).await;
        assert!(body(&got).contains("\r\nx-length: 5\r\n"), "{got}");
        assert!(body(&gateway.get("/").await).contains("\r\nx-length: 0\r\n"));
        let before = origin.seen.all().len();
        assert_eq!(status(&gateway.ask(&post("an evil")).await), "403");
        for long in [
            post("a long body"),
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n".to_owned(),
        ] {
            let got = gateway.ask(&long).await;
            assert_eq!(status(&got), "413", "{got}");
        }
        assert_eq!(origin.seen.all().len(), before);
        assert_eq!(gateway.lines(7).await[6]["reason"], "body_too_large");
    });
}

#[test]
fn a_body_over_the_bound_may_go_on_in_pieces() {
    run(async {
        let origin = Origin::echo().await;
        let seen = Seen::default();
        let notes = seen.clone();
        let judge = Fake::new("judge", &[Phase::RequestBody], move |_, end, exchange| {
            notes.add(format!(
                "{} {end} {}",
                exchange.stage.head_open,
                piece(exchange).len()
            ));
            if exchange.stage.head_open {
                exchange.set(Part::Request, "x-judged", b"1").unwrap();
            }
            let text = piece(exchange).to_uppercase();
            exchange.chunk.replace(text.as_bytes());
            Flow::Continue
        })
        .whole(4, Overflow::Stream);
        let gateway = Setup::new(&origin, vec![judge]).start().await;
        let got = gateway.ask(CHUNKED).await;
        assert!(body(&got).contains("\r\nx-judged: 1\r\n"), "{got}");
        let calls = seen.all();
        assert!(calls[0].starts_with("true false"), "{calls:?}");
        assert!(calls.last().unwrap().starts_with("false true"), "{calls:?}");
        let letters: String = got
            .rsplit("\r\n\r\n")
            .nth(1)
            .unwrap()
            .chars()
            .filter(|c| ('A'..='E').contains(c))
            .collect();
        assert_eq!(letters, "ABCDE", "{got}");
        // What fits is one call.
        seen.take();
        gateway.ask(&post("abc")).await;
        assert_eq!(seen.all(), ["true true 3"]);
    });
}

#[test]
fn a_response_is_judged_whole_as_well() {
    run(async {
        let origin = Origin::echo().await;
        let judge = Fake::new("judge", &[Phase::ResponseBody], |_, end, exchange| {
            assert!(end && exchange.stage.head_open);
            exchange.set_status(202).unwrap();
            exchange.chunk.replace(b"short");
            Flow::Continue
        })
        .whole(200, Overflow::Refuse);
        let gateway = Setup::new(&origin, vec![judge]).start().await;
        let got = gateway.get("/").await;
        assert_eq!((status(&got), body(&got)), ("202", "short"), "{got}");
        assert!(got.contains("\r\ncontent-length: 5\r\n"), "{got}");
        let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(300));
        let got = gateway.ask(&long).await;
        assert_eq!(status(&got), "502", "{got}");
        assert_eq!(gateway.lines(2).await[1]["reason"], "response_too_large");
        // The length of what HEAD has no body of stays the upstream's.
        let mut wire = gateway.wire().await;
        wire.send("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await;
        let (got, _) = wire.rest().await;
        assert!(got.ends_with("\r\n\r\n"), "{got}");
    });
}

#[test]
fn a_held_head_waits_for_its_body() {
    run(async {
        let origin = Origin::echo().await;
        let seen = Seen::default();
        let notes = seen.clone();
        let phases = [Phase::RequestHead, Phase::RequestBody];
        let hold = Fake::new("hold", &phases, move |phase, end, exchange| {
            notes.add(format!("{phase} {end}"));
            if phase == Phase::RequestHead {
                let held = exchange.request.target.path() == "/hold";
                return if held { Flow::Hold } else { Flow::Continue };
            }
            exchange
                .set(Part::Request, "x-held", piece(exchange).as_bytes())
                .unwrap();
            Flow::Continue
        })
        .on_hold();
        let gateway = Setup::new(&origin, vec![hold]).start().await;
        let got = gateway.ask(&post("hi")).await;
        assert!(!got.contains("x-held"), "{got}");
        assert_eq!(seen.take(), ["request-head false"]);
        let got = gateway.ask(&post("hi").replacen('/', "/hold", 1)).await;
        assert!(got.contains("\r\nx-held: hi\r\n"), "{got}");
        assert_eq!(seen.take(), ["request-head false", "request-body true"]);
    });
}

#[test]
fn an_answer_in_a_streamed_body_stops_the_upload() {
    run(async {
        let origin = Origin::start(|mut wire, seen| async move {
            if let Some(message) = wire.message().await {
                seen.add(message);
            }
        })
        .await;
        let seen = Seen::default();
        let outer_seen = seen.clone();
        let outer = Fake::new("outer", &[Phase::ResponseHead], move |_, _, _| {
            outer_seen.add("outer");
            Flow::Continue
        });
        let inner_seen = seen.clone();
        let inner = Fake::new("inner", &[Phase::ResponseHead], move |_, _, _| {
            inner_seen.add("inner");
            Flow::Continue
        });
        let stop = Fake::new("stop", &[Phase::RequestBody], |_, _, exchange| {
            if piece(exchange).contains("evil") {
                exchange
                    .give_answer(403, [], Bytes::from_static(b"evil"))
                    .unwrap();
                return Flow::Answer;
            }
            Flow::Continue
        });
        let gateway = Setup::new(&origin, vec![outer, stop, inner]).start().await;
        let request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n4\r\nevil\r\n0\r\n\r\n";
        let got = gateway.ask(request).await;
        assert_eq!((status(&got), body(&got)), ("403", "evil"), "{got}");
        assert_eq!(seen.all(), ["outer"]);
        assert!(origin.seen.all().is_empty(), "the upload looked whole");
        assert_eq!(gateway.lines(1).await[0]["answered-by"], "stop");
    });
}

#[test]
fn a_failure_in_a_streamed_body_never_looks_whole() {
    run(async {
        let origin = Origin::echo().await;
        // Fails at the second piece.
        let failing = |phase: Phase, open: bool, change: bool| {
            let count = std::sync::atomic::AtomicUsize::new(0);
            let fake = Fake::acting("bad", &[phase], move |now, _, exchange| {
                if now != phase {
                    return Act::Flow(Flow::Continue);
                }
                if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1 {
                    return Act::Fail;
                }
                if change {
                    exchange.borrow_mut().chunk.append(b"!");
                }
                Act::Flow(Flow::Continue)
            });
            if open { fake.open() } else { fake }
        };
        for (open, change, fine) in [
            (false, false, false),
            (true, true, false),
            (true, false, true),
        ] {
            let what = format!("open {open}, change {change}");
            let gateway = Setup::new(&origin, vec![failing(Phase::RequestBody, open, change)])
                .start()
                .await;
            let before = origin.seen.all().len();
            let got = gateway.ask(CHUNKED).await;
            assert_eq!(status(&got) == "200", fine, "{what}: {got}");
            assert_eq!(origin.seen.all().len() > before, fine, "{what}");
        }
        // In two pieces, for sure.
        let origin = Origin::start(|mut wire, _| async move {
            while wire.message().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
                    .await;
                tokio::task::yield_now().await;
                wire.send("2\r\ncd\r\n0\r\n\r\n").await;
            }
        })
        .await;
        for (open, change, fine) in [
            (false, false, false),
            (true, true, false),
            (true, false, true),
        ] {
            let what = format!("open {open}, change {change}");
            let gateway = Setup::new(&origin, vec![failing(Phase::ResponseBody, open, change)])
                .start()
                .await;
            let mut wire = gateway.wire().await;
            wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                .await;
            let (got, _) = wire.rest().await;
            assert_eq!(got.ends_with("0\r\n\r\n"), fine, "{what}: {got}");
            if !fine {
                assert_eq!(gateway.lines(1).await[0]["reason"], "filter", "{what}");
            }
        }
    });
}

#[test]
fn bodies_pass_several_filters_one_after_the_other() {
    run(async {
        let origin = Origin::echo().await;
        let adding = |name: &'static str| {
            Fake::new(
                name,
                &[Phase::RequestBody, Phase::ResponseBody],
                move |_, end, exchange| {
                    if end {
                        exchange.chunk.append(name.as_bytes());
                    }
                    Flow::Continue
                },
            )
        };
        let whole = adding("w").whole(1000, Overflow::Refuse);
        let gateway = Setup::new(&origin, vec![adding("a"), whole, adding("b")])
            .start()
            .await;
        let got = gateway.ask(&post("-")).await;
        let sent = &origin.seen.all()[0];
        let plain: String = body(sent).chars().filter(|c| "-awb".contains(*c)).collect();
        assert_eq!(plain, "-awb", "{sent}");
        assert!(got.contains("bwa") || got.trim_end().contains('b'), "{got}");
        let letters: String = got
            .chars()
            .rev()
            .filter(|c| "awb".contains(*c))
            .take(3)
            .collect();
        assert_eq!(letters, "awb", "{got}");
    });
}

#[test]
fn who_is_slow_or_too_long_is_told_so() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| {
                settings.limits.max_body = Some(10);
                settings.limits.body_idle_timeout = std::time::Duration::from_millis(50);
            })
            .start()
            .await;
        let got = gateway
            .ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        assert_eq!(status(&got), "408", "{got}");
        let got = gateway
            .ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n")
            .await;
        assert_eq!(status(&got), "413", "{got}");
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n";
        let got = gateway.ask(chunked).await;
        assert_eq!(status(&got), "413", "{got}");
        assert!(origin.seen.all().is_empty());
        let lines = gateway.lines(3).await;
        let reasons: Vec<_> = lines
            .iter()
            .map(|line| line["reason"].as_str().unwrap())
            .collect();
        assert_eq!(
            reasons,
            ["timeout_body", "body_too_large", "body_too_large"]
        );
    });
}
