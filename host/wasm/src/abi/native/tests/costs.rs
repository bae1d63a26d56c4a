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
use std::task::Poll;
use std::time::{Duration, Instant};

use tidegate_core::filter::{Filter, Outcome};
use tidegate_core::phase::Phase;
use tidegate_core::usage::Isolation;

use super::guest::{CARRIERS, Carrier, Guest};
use super::world::{World, enter, exchange_with_id, poll, run};

const ROUNDS: u64 = 20_000;

/// The least of some means of processor time, in nanoseconds: neighbours on the machine only ever add.
fn nanos(mut act: impl FnMut(u64)) -> f64 {
    let mut least = f64::MAX;
    for round in 0..20 {
        let began = crate::time::processor();
        for n in 0..ROUNDS / 20 {
            act(round * ROUNDS / 20 + n + 1);
        }
        let spent = crate::time::processor() - began;
        least = least.min(spent as f64 / (ROUNDS / 20) as f64);
    }
    least
}

/// Ends a call that is not measured for what it gives.
fn end(outcome: Outcome) {
    match outcome {
        Outcome::Ready(result) => drop(result.unwrap()),
        // A call that may give way does so when a tick falls into it.
        Outcome::Pending(mut future) => match poll(&mut future) {
            Poll::Ready(result) => drop(result.unwrap()),
            Poll::Pending => panic!("it waits"),
        },
    }
}

fn noop() -> Guest {
    Guest::new().on(Phase::RequestHead, "(i32.const 0)")
}

fn call_cost(filter: &Rc<dyn Filter>) -> f64 {
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    let cost = nanos(|_| end(filter.call(Phase::RequestHead, true, &exchange)));
    run(filter, Phase::Log, &exchange).unwrap();
    cost
}

fn exchange_cost(filter: &Rc<dyn Filter>) -> f64 {
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    nanos(|id| {
        exchange.borrow_mut().id = id;
        exchange.borrow_mut().stage.phase = Phase::RequestHead;
        end(filter.call(Phase::RequestHead, true, &exchange));
        exchange.borrow_mut().stage.phase = Phase::Log;
        end(filter.call(Phase::Log, true, &exchange));
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
        (
            "auth",
            r#"{"optional":true,"api-key":{"consumers":[{"name":"alice","sha256":
            "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8"}]}}"#,
        ),
    ];
    let configs = configs.into_iter().flat_map(|(name, config)| {
        [
            (name.to_owned(), config),
            (format!("{name}.component"), config),
        ]
    });
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
            // Of each loop, the longest stretch for which it held the thread.
            let (mut by_clock, mut by_processor) = (Vec::new(), Vec::new());
            for id in 1..=50 {
                let exchange = exchange_with_id(id);
                enter(&exchange, Phase::RequestHead, b"");
                let (mut longest, mut busiest) = (Duration::ZERO, 0);
                let mut outcome = None;
                let mut stretch = |act: &mut dyn FnMut() -> bool| {
                    let (began, spent) = (Instant::now(), crate::time::processor());
                    let done = act();
                    longest = longest.max(began.elapsed());
                    busiest = busiest.max(crate::time::processor() - spent);
                    done
                };
                stretch(&mut || {
                    outcome = Some(filter.call(Phase::RequestHead, true, &exchange));
                    true
                });
                if let Some(Outcome::Pending(future)) = &mut outcome {
                    while !stretch(&mut || {
                        let waker = std::task::Waker::noop();
                        let polled = future
                            .as_mut()
                            .poll(&mut std::task::Context::from_waker(waker));
                        polled.is_ready()
                    }) {}
                }
                by_clock.push(longest);
                by_processor.push(Duration::from_nanos(busiest));
            }
            by_clock.sort();
            by_processor.sort();
            println!(
                "{carrier:?} {} with a bound of {time} ms: the longest stretch of a loop, median and worst of 50: {:?} and \
                 {:?} of processor time, {:?} and {:?} by the clock",
                isolation.name(),
                by_processor[25],
                by_processor[49],
                by_clock[25],
                by_clock[49],
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
    let carrier = match std::env::var("CARRIER") {
        Ok(_) => Carrier::Component,
        Err(_) => Carrier::Core,
    };
    let world = World::new();
    let filter = world.filter(&noop(), carrier);
    let exchange = exchange_with_id(1);
    enter(&exchange, Phase::RequestHead, b"");
    for _ in 0..calls.unwrap_or(1_000_000_u64) {
        end(filter.call(Phase::RequestHead, true, &exchange));
    }
}

#[test]
#[ignore = "a measurement"]
fn costs_of_many_fresh_instances_for_a_profiler() {
    let mut world = World::new();
    world.isolation = Some(Isolation::Fresh);
    let filter = world.filter(&noop(), Carrier::Core);
    for _ in 0..20 {
        exchange_cost(&filter);
    }
}
