//! Every limit, in every place where a guest can run into it: the fault names limit, bound and value; whoever is told of
//! a refusal goes on; and the next exchange is served.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_core::error::{Fault, FilterError, Limit, Overrun};
use tidegate_core::filter::Filter;
use tidegate_core::phase::{Flow, Phase};

use super::guest::{CARRIERS, Carrier, Guest};
use super::world::{World, exchange, run, run_chunk};
use crate::LoadError;

const ENDLESS: &str = "(loop $endless (br $endless))";
/// Unknown to the compiler as endless, so that something may follow.
const LONG: &str = "(loop $long (br_if $long (i32.const 1)))";

fn over(fault: &Fault) -> Option<(Limit, u64, u64)> {
    let over = fault.overrun()?;
    Some((over.limit, over.bound, over.value))
}

fn result(phase: Phase) -> &'static str {
    if phase == Phase::Log {
        ""
    } else {
        "(i32.const 0)"
    }
}

/// Runs something in a phase that was just begun, and says how that failed; the next exchange must be served.
fn fails(world: &World, carrier: Carrier, phase: Phase, body: &str, extra: &str) -> Fault {
    let guest = Guest::new()
        .extra("(global $calls (mut i32) (i32.const 0))")
        .extra(extra)
        .on(
            phase,
            &format!(
                r#"(local $n i32)
                (call $store.increment {{"mine"}} {{"calls"}} (i64.const 1) (i64.const 0) (i32.const 64))
                (if (i64.eq (i64.load (i32.const 72)) (i64.const 1)) (then {body}))
                {}"#,
                result(phase)
            ),
        );
    let filter = world.filter(&guest, carrier);
    let error = run_chunk(&filter, phase, &exchange(), b"piece").unwrap_err();
    assert_eq!(error.phase, phase);
    run_chunk(&filter, phase, &exchange(), b"piece")
        .unwrap_or_else(|error| panic!("{carrier:?} {phase}: {error}"));
    error.fault
}

fn phases() -> impl Iterator<Item = Phase> {
    Phase::ALL.into_iter().skip(1)
}

// === Time ===

#[test]
fn a_loop_in_any_phase_is_ended_at_its_bound_of_processor_time() {
    for carrier in CARRIERS {
        for phase in phases() {
            let mut world = World::new();
            world.limits.time = Duration::from_millis(20);
            let began = crate::time::processor();
            let fault = fails(&world, carrier, phase, LONG, "");
            let spent = crate::time::processor() - began;
            let (limit, bound, value) = over(&fault).unwrap_or_else(|| panic!("{fault}"));
            assert_eq!((limit, bound), (Limit::Time, 20_000));
            assert!(value >= 19_000, "{carrier:?} {phase}: {fault}");
            assert!(spent >= 19_000_000, "{carrier:?} {phase}: {spent}");
        }
    }
}

#[test]
fn a_loop_that_calls_the_host_all_the_time_is_ended_too() {
    for carrier in CARRIERS {
        let world = World::new();
        let body = "(loop $l (drop (call $clock.wall)) (br_if $l (i32.const 1)))";
        let fault = fails(&world, carrier, Phase::RequestHead, body, "");
        assert_eq!(over(&fault).unwrap().0, Limit::Time, "{fault}");
    }
}

#[test]
fn a_thread_that_is_not_given_the_processor_is_ended_by_the_clock() {
    let mut world = World::new();
    world.limits.time = Duration::from_millis(50);
    world.limits.wall_time = Duration::from_millis(500);
    // The clock runs a hundred times as fast as the processor works for the guest.
    let (clock, stop) = (Arc::clone(&world.clock), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let hand = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            clock.advance(Duration::from_millis(100));
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let fault = fails(&world, Carrier::Core, Phase::RequestHead, LONG, "");
    stop.store(true, Ordering::Relaxed);
    hand.join().unwrap();
    let (limit, bound, value) = over(&fault).unwrap();
    assert_eq!((limit, bound), (Limit::WallTime, 500_000), "{fault}");
    assert!(value >= 499_000, "{fault}");
}

#[test]
fn a_healthy_guest_is_not_punished_for_a_busy_machine() {
    // Other threads of this process want the processors too, more of them than there are.
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let busy: Vec<_> = (0..cores * 4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let mut world = World::new();
    world.limits.time = Duration::from_millis(20);
    // About 5 ms of work: with an eighth of a processor, far more than 20 ms by the clock.
    let body = "(local $n i32)
        (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const 5000000))))
        (i32.const 0)";
    let guest = Guest::new().on(Phase::RequestHead, body);
    let filter = world.filter(&guest, Carrier::Core);
    let mut longest = Duration::ZERO;
    let results: Vec<_> = (0..10)
        .map(|_| {
            let began = Instant::now();
            let result = run(&filter, Phase::RequestHead, &exchange());
            longest = longest.max(began.elapsed());
            result
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
    for result in results {
        assert_eq!(result.unwrap(), Flow::Continue, "longest {longest:?}");
    }
}

#[test]
fn a_loop_before_the_first_exchange_keeps_the_filter_out() {
    let head = Guest::new().on(Phase::RequestHead, "(i32.const 0)");
    let cases = [
        ("configure", head.clone().configure(ENDLESS), true),
        (
            "start",
            head.clone()
                .extra(&format!("(func $start {ENDLESS}) (start $start)")),
            true,
        ),
        (
            "_initialize",
            head.clone()
                .extra(&format!("(func (export \"_initialize\") {ENDLESS})")),
            false,
        ),
        (
            "cabi_realloc",
            head.realloc(&format!("{ENDLESS} unreachable")),
            true,
        ),
    ];
    let mut world = World::new();
    world.limits.configure_time = Duration::from_millis(50);
    world.config = "{}".to_owned();
    for (name, guest, component) in cases {
        for carrier in CARRIERS {
            if carrier == Carrier::Component && !component {
                continue;
            }
            let error = world.load(&guest.build(carrier)).unwrap_err();
            let LoadError::Failed { fault, phase, .. } = &error else {
                panic!("{name} {carrier:?}: {error}");
            };
            assert_eq!(*phase, Phase::Configure);
            let (limit, bound, _) = over(fault).unwrap_or_else(|| panic!("{name}: {error}"));
            assert_eq!((limit, bound), (Limit::ConfigureTime, 50_000), "{name}");
        }
    }
}

// === Memory, table, stack ===

#[test]
fn memory_does_not_grow_over_its_bound_in_any_phase() {
    // Growing says no at the bound; the guest then gives up.
    let body =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    for carrier in CARRIERS {
        for phase in phases() {
            let mut world = World::new();
            world.limits.memory = 1024 * 1024;
            let fault = fails(&world, carrier, phase, body, "");
            let wanted = 1024 * 1024 + 64 * 1024;
            assert_eq!(
                over(&fault),
                Some((Limit::Memory, 1024 * 1024, wanted)),
                "{carrier:?} {phase}: {fault}"
            );
            assert!(fault.to_string().contains("unreachable"), "{fault}");
        }
    }
}

#[test]
fn a_guest_that_does_without_more_memory_goes_on() {
    let body = "(drop (memory.grow (i32.const 1000))) (i32.const 0)";
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.memory = 1024 * 1024;
        // A later trap is not blamed on it.
        let guest = Guest::new()
            .on(Phase::RequestHead, body)
            .on(Phase::ResponseHead, "unreachable");
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let error = run(&filter, Phase::ResponseHead, &exchange()).unwrap_err();
        assert!(matches!(error.fault, Fault::Trap(_)), "{error}");
    }
}

#[test]
fn memory_and_tables_to_begin_with_are_bounded_at_load() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.table = 1000;
        let head = Guest::new().on(Phase::RequestHead, "(i32.const 0)");
        let guest = head.extra("(table 1001 funcref)");
        let error = world.load(&guest.build(carrier)).unwrap_err();
        let LoadError::TooLarge {
            limit,
            needed,
            bound,
            ..
        } = &error
        else {
            panic!("{carrier:?}: {error}");
        };
        assert_eq!((*limit, *bound), (Limit::Table, 1000));
        // A component brings a small table of its own.
        assert!((1001..1100).contains(needed), "{error}");
        assert!(
            error
                .to_string()
                .contains("raise `limits.table` of [filter.test]"),
            "{error}"
        );
    }
}

#[test]
fn a_grow_in_the_start_function_is_bounded() {
    let start = "(func $start
        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)
        (start $start)";
    let guest = Guest::new()
        .on(Phase::RequestHead, "(i32.const 0)")
        .extra(start);
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.memory = 1024 * 1024;
        let error = world.load(&guest.build(carrier)).unwrap_err();
        let LoadError::Failed { fault, .. } = &error else {
            panic!("{carrier:?}: {error}");
        };
        assert_eq!(over(fault).unwrap().0, Limit::Memory, "{error}");
    }
}

#[test]
fn tables_do_not_grow_over_their_bound() {
    let body = "(loop $l (br_if $l (i32.ne
            (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
        unreachable";
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.table = 1000;
        let fault = fails(
            &world,
            carrier,
            Phase::RequestHead,
            body,
            "(table $t 10 funcref)",
        );
        let (limit, bound, value) = over(&fault).unwrap_or_else(|| panic!("{fault}"));
        assert_eq!((limit, bound), (Limit::Table, 1000));
        assert!((1001..=1200).contains(&value), "{fault}");
    }
}

#[test]
fn recursion_without_end_is_a_fault_of_the_stack_in_every_phase() {
    let many = "(local i64 i64 i64 i64 i64 i64 i64 i64)".repeat(100);
    let frames = [
        "(func $deep (call $deep) (call $deep))".to_owned(),
        format!("(func $deep {many} (call $deep) (call $deep))"),
    ];
    for carrier in CARRIERS {
        for phase in phases() {
            for extra in &frames {
                let fault = fails(&World::new(), carrier, phase, "(call $deep)", extra);
                let (limit, bound, _) = over(&fault).unwrap_or_else(|| panic!("{fault}"));
                assert_eq!(
                    (limit, bound),
                    (Limit::Stack, 512 * 1024),
                    "{carrier:?} {phase}"
                );
            }
        }
    }
}

// === Bodies ===

#[test]
fn a_piece_of_a_body_is_bounded_before_it_is_copied() {
    for carrier in CARRIERS {
        for (call, wanted) in [
            ("(call $body.replace (i32.const 0) (i32.const 1001))", 1001),
            ("(call $body.append (i32.const 0) (i32.const 996))", 1001),
        ] {
            for phase in [Phase::RequestBody, Phase::ResponseBody] {
                let mut world = World::new();
                world.limits.body = 1000;
                let fault = fails(&world, carrier, phase, call, "");
                assert_eq!(over(&fault), Some((Limit::Body, 1000, wanted)), "{fault}");
            }
        }
    }
}

#[test]
fn an_answer_over_the_bound_is_refused_with_a_reason() {
    let body = r#"
        (call $exchange.answer (i32.const 200) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 1001) (i32.const 64))
        (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 65))
        (i32.const 0)"#;
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.body = 1000;
        let filter = world.filter(&Guest::new().on(Phase::RequestHead, body), carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take();
        assert!(
            lines[0].contains("`body` of 1000 bytes: it wanted 1001"),
            "{lines:?}"
        );
        // An error, of the kind `too-large`.
        assert_eq!(lines[1..], ["1", "4"], "{carrier:?}");
    }
}

// === What a guest is told ===

#[test]
fn lines_over_the_rate_are_suppressed_and_that_is_said() {
    let body = r#"(local $n i32)
        (loop $l (call $tell {"line"})
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const 50))))
        (i32.const 0)"#;
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.log_rate = 10;
        let module = world
            .load(&Guest::new().on(Phase::RequestHead, body).build(carrier))
            .unwrap();
        let filter = world.on_worker(&*module).unwrap();
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take();
        assert_eq!(lines.len(), 11, "{lines:?}");
        assert!(lines[..10].iter().all(|line| line == "line"));
        assert!(
            lines[10].contains("its limit `log-rate` of 10"),
            "{lines:?}"
        );
        // Nothing more in this second, and in the next one what was not said.
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        assert!(world.log.take().is_empty());
        world.clock.advance(Duration::from_secs(1));
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take();
        assert_eq!(lines[0], "90 lines were suppressed", "{lines:?}");
        assert_eq!(lines.len(), 11, "{lines:?}");
        assert_eq!(module.usage().over(Limit::LogRate), 130);
    }
}

#[test]
fn a_line_is_cut_before_it_is_looked_at_and_other_strings_are_bounded() {
    // 128 KiB that are no text behind the first bytes.
    let guest = Guest::new()
        .extra("(data (i32.const 4096) \"a\\ff\")")
        .on(
            Phase::RequestHead,
            r#"(memory.fill (i32.const 8192) (i32.const 97) (i32.const 100000))
            (i32.store8 (i32.const 100000) (i32.const 255))
            (call $log.write (i32.const 2) (i32.const 8192) (i32.const 100000))
            (i32.const 0)"#,
        )
        .on(
            Phase::ResponseHead,
            r#"(drop (memory.grow (i32.const 32)))
            (call $exchange.get (i32.const 0) (i32.const 0) (i32.const 1048577) (i32.const 64))
            (i32.const 0)"#,
        );
    let world = World::new();
    let filter = world.filter(&guest, Carrier::Core);
    run(&filter, Phase::RequestHead, &exchange()).unwrap();
    assert_eq!(world.log.take(), ["a".repeat(4096)]);
    let error = run(&filter, Phase::ResponseHead, &exchange()).unwrap_err();
    assert!(
        error.to_string().contains("a string of 1048577 bytes"),
        "{error}"
    );
    // The component runtime bounds what it copies for the host.
    let guest = Guest::new().on(
        Phase::RequestHead,
        r#"(drop (memory.grow (i32.const 100)))
        (call $exchange.get (i32.const 0) (i32.const 0) (i32.const 4000000) (i32.const 64))
        (i32.const 0)"#,
    );
    let filter = world.filter(&guest, Carrier::Component);
    run(&filter, Phase::RequestHead, &exchange()).unwrap_err();
}

#[test]
fn an_overrun_is_counted_once_for_each_time() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.memory = 1024 * 1024;
        let guest = Guest::new().on(
            Phase::RequestHead,
            "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 0)",
        );
        let module = world.load(&guest.build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        for _ in 0..3 {
            let error: FilterError = run(&filter, Phase::RequestHead, &exchange()).unwrap_err();
            assert!(matches!(
                error.fault,
                Fault::Over(Overrun {
                    limit: Limit::Memory,
                    ..
                })
            ));
        }
        assert_eq!(module.usage().over(Limit::Memory), 3);
        let _: Rc<dyn Filter> = filter;
    }
}
