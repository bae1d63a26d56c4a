//! What calls and instances cost. Figures, and no judgement: run in release, by hand.
//!
//! `cargo test --release -p tidegate-wasm costs -- --ignored --nocapture --test-threads 1`

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "figures for whoever runs it by hand"
)]

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate_core::filter::{Filter, Outcome};
use tidegate_core::phase::Phase;
use tidegate_core::usage::Isolation;

use super::guest::{CARRIERS, Carrier, Guest};
use super::world::{World, enter, exchange_with_id, run};

const ROUNDS: u64 = 20_000;

/// The least of some means, in nanoseconds: neighbours on the machine only ever add.
fn nanos(mut act: impl FnMut(u64)) -> f64 {
    let mut least = f64::MAX;
    for round in 0..10 {
        let began = Instant::now();
        for n in 0..ROUNDS / 10 {
            act(round * ROUNDS / 10 + n + 1);
        }
        let mean = began.elapsed().as_nanos() as f64 / (ROUNDS / 10) as f64;
        least = least.min(mean);
    }
    least
}

fn noop() -> Guest {
    Guest::new().on(Phase::RequestHead, "(i32.const 0)")
}

fn call_cost(filter: &Rc<dyn Filter>) -> f64 {
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    let cost = nanos(|_| {
        let outcome = filter.call(Phase::RequestHead, true, &exchange);
        assert!(matches!(outcome, Outcome::Ready(Ok(_))));
    });
    run(filter, Phase::Log, &exchange).unwrap();
    cost
}

fn exchange_cost(filter: &Rc<dyn Filter>) -> f64 {
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    nanos(|id| {
        exchange.borrow_mut().id = id;
        exchange.borrow_mut().stage.phase = Phase::RequestHead;
        assert!(matches!(
            filter.call(Phase::RequestHead, true, &exchange),
            Outcome::Ready(Ok(_))
        ));
        exchange.borrow_mut().stage.phase = Phase::Log;
        assert!(matches!(
            filter.call(Phase::Log, true, &exchange),
            Outcome::Ready(Ok(_))
        ));
    })
}

#[test]
#[ignore = "a measurement"]
fn costs_of_calls_and_instances() {
    for carrier in CARRIERS {
        for isolation in [Isolation::Shared, Isolation::Exclusive, Isolation::Fresh] {
            for (time, way) in [(50, "at once"), (51, "gives way")] {
                if isolation == Isolation::Shared && time == 51 {
                    continue;
                }
                let mut world = World::new();
                world.isolation = Some(isolation);
                world.limits.time = Duration::from_millis(time);
                let filter = world.filter(&noop(), carrier);
                let call = call_cost(&filter);
                let exchange = exchange_cost(&filter);
                println!(
                    "{carrier:?} {} {way}: a call {call:.0} ns, an exchange with one call {exchange:.0} ns",
                    isolation.name()
                );
            }
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_fresh_instances_of_the_shipped_filters() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    let configs = [
        ("headers", r#"{"request":{"set":{"x-a":"1"}}}"#),
        ("limit", r#"{"rate":"1000000/s","burst":1000000}"#),
        (
            "auth",
            r#"{"api-keys":{"keys":[{"name":"one","key":"secret-of-one-1234"}]}}"#,
        ),
    ];
    for (name, config) in configs {
        let Ok(bytes) = fs::read(root.join(format!("{name}.wasm"))) else {
            println!("{name}: not built");
            continue;
        };
        let mut world = World::new();
        world.config = config.to_owned();
        for isolation in [Isolation::Shared, Isolation::Fresh] {
            world.isolation = Some(isolation);
            let module = match world.load(&bytes) {
                Ok(module) => module,
                Err(error) => {
                    println!("{name}: {error}");
                    continue;
                }
            };
            let filter = world.on_worker(&*module).unwrap();
            let exchange = exchange_cost(&filter);
            println!(
                "{name} {}: an exchange {exchange:.0} ns, {} KiB of memory an instance",
                isolation.name(),
                module.usage().memory / module.usage().instances / 1024
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_a_loop_to_the_workers_other_exchanges() {
    let guest = Guest::new().on(
        Phase::RequestHead,
        "(loop $l (br_if $l (i32.const 1))) (i32.const 0)",
    );
    for carrier in [Carrier::Core, Carrier::Component] {
        for (isolation, time) in [
            (Isolation::Shared, 20),
            (Isolation::Exclusive, 20),
            (Isolation::Exclusive, 51),
        ] {
            let mut world = World::new();
            world.limits.time = Duration::from_millis(time);
            world.isolation = Some(isolation);
            let filter = world.filter(&guest, carrier);
            let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
            for id in 1..=20 {
                let exchange = exchange_with_id(id);
                enter(&exchange, Phase::RequestHead, b"");
                let began = Instant::now();
                let mut outcome = filter.call(Phase::RequestHead, true, &exchange);
                longest = longest.max(began.elapsed());
                if let Outcome::Pending(future) = &mut outcome {
                    loop {
                        let slice = Instant::now();
                        let done = std::pin::Pin::new(&mut *future)
                            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
                            .is_ready();
                        longest = longest.max(slice.elapsed());
                        if done {
                            break;
                        }
                    }
                }
                all += began.elapsed();
            }
            println!(
                "{carrier:?} {} with a bound of {time} ms: the longest stretch {longest:?}, ended after {:?}",
                isolation.name(),
                all / 20
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_many_calls_for_a_profiler() {
    let calls = std::env::var("CALLS")
        .ok()
        .and_then(|calls| calls.parse().ok());
    let world = World::new();
    let filter = world.filter(&noop(), Carrier::Core);
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    for _ in 0..calls.unwrap_or(1_000_000_u64) {
        let outcome = filter.call(Phase::RequestHead, true, &exchange);
        assert!(matches!(outcome, Outcome::Ready(Ok(_))));
    }
}
