//! Guests that make HTTP calls: the call itself, and the instances that wait.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tidegate_core::error::{Fault, FilterError, Limit, Overrun};
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::services::CallError;
use tidegate_core::usage::Isolation;

use super::guest::{CARRIERS, Guest};
use super::world::{World, enter, exchange, exchange_with_id, poll, run};

/// Asks the upstream `users` with a field and a body, and tells what came.
const CALL: &str = r#"
    (call $pair (i32.const 128) {"x-a"} {"1"})
    (call $http-client.call {"users"} {"POST"} {"/p?q"} (i32.const 128) (i32.const 1) {"body"}
        (i32.const 250) (i32.const 99) (i32.const 64))
    (call $tell_byte (i32.const 64))
    (if (i32.load8_u (i32.const 64))
        (then (call $tell_byte (i32.const 68)))
        (else
            (call $tell_number (i64.extend_i32_u (i32.load16_u (i32.const 68))))
            (call $tell_at (i32.load (i32.const 72)))
            (call $tell_at (i32.add (i32.load (i32.const 72)) (i32.const 8)))
            (call $tell_at (i32.const 80))))"#;

fn caller() -> Guest {
    Guest::new()
        .on(Phase::RequestHead, &format!("{CALL} (i32.const 0)"))
        .extra(
            "(func $pair (param $at i32) (param i32 i32 i32 i32)
                (i32.store (local.get $at) (local.get 1))
                (i32.store offset=4 (local.get $at) (local.get 2))
                (i32.store offset=8 (local.get $at) (local.get 3))
                (i32.store offset=12 (local.get $at) (local.get 4)))",
        )
}

type Waiting = Pin<Box<dyn Future<Output = Result<Flow, FilterError>>>>;

fn begin(filter: &Rc<dyn Filter>, phase: Phase, exchange: &SharedExchange) -> Waiting {
    enter(exchange, phase, b"");
    match filter.call(phase, true, exchange) {
        // It may have given way before it came to its call.
        Outcome::Pending(mut future) => {
            assert!(poll(&mut future).is_pending());
            future
        }
        Outcome::Ready(result) => panic!("it does not wait: {result:?}"),
    }
}

fn response() -> Result<Response<Bytes>, CallError> {
    let response = Response::builder().status(201).header("x-b", "2");
    Ok(response.body(Bytes::from_static(b"answer")).unwrap())
}

#[test]
fn what_may_be_left_out_is_told_so_and_never_waits() {
    let manifest = r#"{"capabilities": [{"kind": "http", "why": "to ask", "optional": true}]}"#;
    let guest = caller().extra(&format!("(@custom \"tidegate:manifest\" {manifest:?})"));
    for carrier in CARRIERS {
        let mut world = World::new();
        world.allow = crate::Allow::default();
        world.isolation = Some(Isolation::Shared);
        let filter = world.filter(&guest, carrier);
        let flow = run(&filter, Phase::RequestHead, &exchange());
        assert!(matches!(flow, Ok(Flow::Continue)), "{flow:?}");
        // An error, and the first of them.
        assert_eq!(world.log.take(), ["1", "0"], "{carrier:?}");
        // Granted, it waits as any other.
        world.allow.http = vec!["users".to_owned()];
        let refused = world.load(&guest.build(carrier)).unwrap_err();
        assert!(refused.to_string().contains("isolation"), "{refused}");
        world.isolation = None;
        let filter = world.filter(&guest, carrier);
        let mut call = begin(&filter, Phase::RequestHead, &exchange());
        assert!(poll(&mut call).is_pending());
    }
}

#[test]
fn a_call_is_sent_and_its_answer_handed_over() {
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&caller(), carrier);
        let exchange = exchange();
        let mut call = begin(&filter, Phase::RequestHead, &exchange);
        assert!(poll(&mut call).is_pending());
        assert_eq!(world.log.take(), [""; 0]);
        world.http.answer(0, response());
        assert!(matches!(poll(&mut call), Poll::Ready(Ok(Flow::Continue))));
        assert_eq!(
            world.log.take(),
            ["0", "201", "x-b", "2", "answer"],
            "{carrier:?}"
        );
        let asked = world.http.asked.borrow();
        let (upstream, request, timeout, max) = &asked[0];
        assert_eq!(upstream, "users");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/p?q");
        assert_eq!(request.headers()["x-a"], "1");
        assert_eq!(request.body(), "body");
        assert_eq!((*timeout, *max), (Duration::from_millis(250), 99));
    }
}

#[test]
fn a_call_that_fails_says_why() {
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&caller(), carrier);
        let reasons = [
            (CallError::InvalidRequest, "1"),
            (CallError::Unreachable, "2"),
            (CallError::TimedOut, "3"),
            (CallError::ResponseTooLarge, "4"),
            (CallError::Broken, "5"),
        ];
        for (number, (error, code)) in reasons.into_iter().enumerate() {
            let mut call = begin(&filter, Phase::RequestHead, &exchange());
            world.http.answer(number, Err(error));
            assert!(poll(&mut call).is_ready());
            assert_eq!(world.log.take(), ["1", code], "{carrier:?}");
        }
    }
}

#[test]
fn bounds_are_put_in_place_of_none_and_of_larger_ones() {
    let ask = |timeout: &str, max: &str| {
        format!(
            r#"(call $http-client.call {{"users"}} {{"GET"}} {{"/"}} (i32.const 0) (i32.const 0)
            {{""}} (i32.const {timeout}) (i32.const {max}) (i32.const 64))"#
        )
    };
    let body = format!("{} {} (i32.const 0)", ask("0", "0"), ask("-1", "-1"));
    let guest = Guest::new().on(Phase::RequestHead, &body);
    for carrier in CARRIERS {
        let world = World::new();
        world.http.answer(0, response());
        world.http.answer(1, response());
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let asked = world.http.asked.borrow();
        let bounds: Vec<_> = asked.iter().map(|asked| (asked.2, asked.3)).collect();
        let mib = 1024 * 1024;
        assert_eq!(
            bounds,
            [
                (Duration::from_secs(5), mib),
                (Duration::from_secs(60), mib)
            ],
            "{carrier:?}"
        );
    }
}

#[test]
fn what_can_not_be_sent_or_was_not_granted_is_refused_without_a_call() {
    let ask = |upstream: &str, method: &str, path: &str, field: &str| {
        format!(
            r#"(call $pair (i32.const 128) {{"{field}"}} {{"1"}})
            (call $http-client.call {{"{upstream}"}} {{"{method}"}} {{"{path}"}}
            (i32.const 128) (i32.const 1) {{""}} (i32.const 0) (i32.const 0) (i32.const 64))
            (call $tell_byte (i32.const 68))"#
        )
    };
    let asks = [
        ask("other", "GET", "/", "a"),
        ask("users", "G T", "/", "a"),
        ask("users", "CONNECT", "/", "a"),
        ask("users", "GET", "http://x/", "a"),
        ask("users", "GET", "/a b", "a"),
        ask("users", "GET", "/", "a b"),
        ask("users", "GET", "/", "host"),
        ask("users", "GET", "/", "content-length"),
    ];
    let guest = caller().on(
        Phase::RequestHead,
        &format!("{} (i32.const 0)", asks.join("\n")),
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take();
        assert!(
            lines[0].contains("add `allow = { http = [\"other\"] }` to [filter.test]"),
            "{}",
            lines[0]
        );
        assert_eq!(lines[1], "0");
        assert_eq!(lines[2..], ["1"; 7], "{carrier:?}");
        assert!(world.http.asked.borrow().is_empty());
    }
}

#[test]
fn configure_and_log_can_not_call() {
    let guest = caller()
        .configure(CALL)
        .on(Phase::Log, CALL)
        .on(Phase::RequestHead, "(i32.const 0)");
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        assert_eq!(world.log.take(), ["1", "6", "1", "6"]);
        let exchange = exchange();
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        run(&filter, Phase::Log, &exchange).unwrap();
        assert_eq!(world.log.take(), ["1", "6"], "{carrier:?}");
        assert!(world.http.asked.borrow().is_empty());
    }
}

/// Counts its calls in a global of the instance.
fn counting() -> Guest {
    caller()
        .extra("(global $calls (mut i64) (i64.const 0))")
        .on(
            Phase::RequestHead,
            &format!(
                "{CALL} (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
                (call $tell_number (global.get $calls)) (i32.const 0)"
            ),
        )
        .on(
            Phase::ResponseHead,
            "(call $tell_number (global.get $calls)) (i32.const 0)",
        )
}

#[test]
fn exchanges_wait_side_by_side_each_with_an_instance_of_its_own() {
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&counting(), carrier);
        let (one, two) = (exchange_with_id(1), exchange_with_id(2));
        let mut first = begin(&filter, Phase::RequestHead, &one);
        let mut second = begin(&filter, Phase::RequestHead, &two);
        world.http.answer(1, Err(CallError::Broken));
        assert!(poll(&mut second).is_ready());
        assert!(poll(&mut first).is_pending());
        world.http.answer(0, Err(CallError::TimedOut));
        assert!(poll(&mut first).is_ready());
        assert_eq!(world.log.take(), ["1", "5", "1", "1", "3", "1"]);
        // The instance stays with its exchange, and serves another one afterwards.
        run(&filter, Phase::ResponseHead, &one).unwrap();
        run(&filter, Phase::Log, &one).unwrap();
        let three = exchange_with_id(3);
        run(&filter, Phase::ResponseHead, &three).unwrap();
        assert_eq!(world.log.take(), ["1", "1"], "{carrier:?}");
    }
}

#[test]
fn there_are_no_more_instances_than_allowed() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.instances = 2;
        let filter = world.filter(&counting(), carrier);
        let exchanges = [1, 2, 3].map(exchange_with_id);
        let mut calls = exchanges[..2]
            .iter()
            .map(|exchange| begin(&filter, Phase::RequestHead, exchange))
            .collect::<Vec<_>>();
        let error = run(&filter, Phase::RequestHead, &exchanges[2]).unwrap_err();
        assert!(
            matches!(
                error.fault,
                Fault::Over(Overrun {
                    limit: Limit::Instances,
                    bound: 2,
                    ..
                })
            ),
            "{error}"
        );
        // One that ends makes room.
        world.http.answer(0, Err(CallError::Broken));
        assert!(poll(&mut calls[0]).is_ready());
        run(&filter, Phase::Log, &exchanges[0]).unwrap();
        drop(begin(&filter, Phase::RequestHead, &exchanges[2]));
    }
}

#[test]
fn a_call_that_is_dropped_takes_its_instance_with_it() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.instances = 1;
        let filter = world.filter(&counting(), carrier);
        let one = exchange_with_id(1);
        drop(begin(&filter, Phase::RequestHead, &one));
        run(&filter, Phase::Log, &one).unwrap();
        // The next exchange has a new instance, in which nothing was counted.
        run(&filter, Phase::ResponseHead, &exchange_with_id(2)).unwrap();
        assert_eq!(world.log.take(), ["0"], "{carrier:?}");
    }
}

#[test]
fn both_directions_of_one_exchange_take_turns() {
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&counting(), carrier);
        let exchange = exchange();
        let mut request = begin(&filter, Phase::RequestHead, &exchange);
        let mut response = begin(&filter, Phase::ResponseHead, &exchange);
        assert!(poll(&mut response).is_pending());
        world.http.answer(0, Err(CallError::Broken));
        assert!(poll(&mut request).is_ready());
        assert!(poll(&mut response).is_ready());
        assert_eq!(world.log.take(), ["1", "5", "1", "1"], "{carrier:?}");
    }
}

#[test]
fn a_guest_that_fails_after_a_call_is_replaced() {
    let guest = caller()
        .extra("(global $calls (mut i64) (i64.const 0))")
        .on(
            Phase::RequestHead,
            &format!("{CALL} (global.set $calls (i64.const 1)) unreachable"),
        )
        .on(
            Phase::ResponseHead,
            "(call $tell_number (global.get $calls)) (i32.const 0)",
        );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        let mut call = begin(&filter, Phase::RequestHead, &exchange);
        world.http.answer(0, Err(CallError::Broken));
        let Poll::Ready(Err(error)) = poll(&mut call) else {
            panic!("it should have failed");
        };
        assert!(matches!(error.fault, Fault::Trap(_)), "{error}");
        world.log.take();
        run(&filter, Phase::ResponseHead, &exchange).unwrap();
        assert_eq!(world.log.take(), ["0"], "{carrier:?}");
    }
}

#[test]
fn waiting_does_not_count_against_the_guests_time() {
    for carrier in CARRIERS {
        let mut world = World::new();
        // A compiler without optimisation needs more than the default for the first call of anything.
        world.limits.time = Duration::from_millis(300);
        let filter = world.filter(&caller(), carrier);
        let exchange = exchange();
        let mut call = begin(&filter, Phase::RequestHead, &exchange);
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(400) {
            assert!(poll(&mut call).is_pending());
            std::thread::yield_now();
        }
        world.http.answer(0, response());
        assert!(matches!(poll(&mut call), Poll::Ready(Ok(_))), "{carrier:?}");
    }
}

#[test]
fn a_guest_does_not_live_from_call_to_call() {
    let guest = caller().on(
        Phase::RequestHead,
        &format!("(loop $l {CALL} (br $l)) (i32.const 0)"),
    );
    for carrier in CARRIERS {
        let world = World::new();
        // By the host's clock, the guest has run for a minute before it calls.
        world.http.slow.set(Some(Arc::clone(&world.clock)));
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        let mut call = begin(&filter, Phase::RequestHead, &exchange);
        world.http.answer(0, response());
        let Poll::Ready(Err(error)) = poll(&mut call) else {
            panic!("{carrier:?}: it runs on");
        };
        assert!(
            matches!(
                error.fault,
                Fault::Over(Overrun {
                    limit: Limit::WallTime,
                    ..
                })
            ),
            "{error}"
        );
    }
}

#[test]
fn an_exchange_makes_as_many_calls_as_allowed() {
    let guest = caller().on(
        Phase::RequestHead,
        &format!("{CALL} (call $tell_byte (i32.const 68)) {CALL} (call $tell_byte (i32.const 68)) (i32.const 0)"),
    );
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.calls = 1;
        let module = world.load(&guest.build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        // Each exchange has its own count, also on an instance that was used before.
        for id in [1, 2] {
            let exchange = exchange_with_id(id);
            let mut call = begin(&filter, Phase::RequestHead, &exchange);
            world
                .http
                .answer(usize::try_from(id - 1).unwrap(), Err(CallError::Broken));
            assert!(poll(&mut call).is_ready());
            run(&filter, Phase::Log, &exchange).unwrap();
            let lines = world.log.take();
            // `broken`, then `not-now`.
            let numbers: Vec<_> = lines.iter().filter(|line| line.len() < 3).collect();
            assert_eq!(
                numbers.last().unwrap().as_str(),
                "6",
                "{carrier:?}: {lines:?}"
            );
            assert!(
                numbers.iter().any(|line| *line == "5"),
                "{carrier:?}: {lines:?}"
            );
        }
        assert_eq!(module.usage().over(Limit::Calls), 2);
    }
}

#[test]
fn as_many_calls_wait_at_once_as_allowed_and_one_that_is_dropped_makes_room() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.calls_at_once = 1;
        let module = world.load(&counting().build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let exchanges = [1, 2, 3].map(exchange_with_id);
        let first = begin(&filter, Phase::RequestHead, &exchanges[0]);
        // This one is told `not-now` and goes on.
        run(&filter, Phase::RequestHead, &exchanges[1]).unwrap();
        assert_eq!(module.usage().over(Limit::CallsAtOnce), 1);
        drop(first);
        drop(begin(&filter, Phase::RequestHead, &exchanges[2]));
    }
}

#[test]
fn the_body_of_a_call_is_bounded() {
    let guest = caller().on(
        Phase::RequestHead,
        &format!("{CALL} (call $tell_byte (i32.const 68)) (i32.const 0)"),
    );
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.body = 3;
        let module = world.load(&guest.build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take();
        assert!(
            lines[0].contains("its limit `body` of 3 bytes: it wanted 4"),
            "{lines:?}"
        );
        assert_eq!(module.usage().over(Limit::Body), 1);
    }
}
