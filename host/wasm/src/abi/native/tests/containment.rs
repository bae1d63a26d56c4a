//! Broken and hostile guests: each fault is named, harms nobody but its own exchange, and the next exchange is served.

use std::rc::Rc;

use tidegate_core::error::{Fault, FilterError, Limit};
use tidegate_core::filter::Filter;
use tidegate_core::phase::{Flow, Phase};

use super::guest::{CARRIERS, Carrier, Guest};
use super::world::{World, exchange, run};
use crate::LoadError;

/// A guest that does something bad when the request has the field `x-bad`.
fn sometimes(bad: &str) -> Guest {
    Guest::new().on(
        Phase::RequestHead,
        &format!(
            r#"(local $n i32)
            (call $exchange.get (i32.const 0) {{"x-bad"}} (i32.const 64))
            (if (i32.load8_u (i32.const 64)) (then {bad}))
            (i32.const 0)"#
        ),
    )
}

fn bad(filter: &Rc<dyn Filter>) -> Result<Flow, FilterError> {
    let exchange = exchange();
    let fields = &mut exchange.borrow_mut().request.fields.clone();
    fields.insert("x-bad", http::HeaderValue::from_static("1"));
    exchange.borrow_mut().request.fields = fields.clone();
    run(filter, Phase::RequestHead, &exchange)
}

/// Runs a bad exchange between good ones, and gives the fault.
fn fault(guest: &Guest, carrier: Carrier, world: &World) -> Fault {
    let filter = world.filter(guest, carrier);
    for _ in 0..2 {
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
    }
    let error = bad(&filter).unwrap_err();
    for _ in 0..2 {
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
    }
    assert_eq!(error.phase, Phase::RequestHead);
    bad(&filter).unwrap_err();
    run(&filter, Phase::RequestHead, &exchange()).unwrap();
    error.fault
}

#[test]
fn traps_are_named_and_the_next_exchange_is_served() {
    let cases = [
        ("unreachable", "unreachable"),
        (
            "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
            "divide by zero",
        ),
        (
            "(drop (i32.load (i32.const -4)))",
            "out of bounds memory access",
        ),
        ("(call $deep)", "call stack exhausted"),
    ];
    for carrier in CARRIERS {
        for (body, expected) in cases {
            let guest = sometimes(body).extra("(func $deep (call $deep) (call $deep))");
            let fault = fault(&guest, carrier, &World::new());
            assert!(fault.to_string().contains(expected), "{carrier:?}: {fault}");
            match fault {
                Fault::Trap(_) => {}
                Fault::Over(over) => {
                    assert_eq!((over.limit, over.bound), (Limit::Stack, 512 * 1024));
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_trap_names_the_function() {
    let guest = sometimes("(call $helper)").extra("(func $helper unreachable)");
    let fault = fault(&guest, Carrier::Core, &World::new());
    assert!(fault.to_string().ends_with("in `helper`"), "{fault}");
}

#[test]
fn memory_to_begin_with_is_bounded_too() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.memory = 100_000;
        let guest = Guest::new().on(Phase::RequestHead, "(i32.const 0)");
        let error = world.load(&guest.build(carrier)).unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::TooLarge {
                    limit: Limit::Memory,
                    needed: 131_072,
                    bound: 100_000,
                    ..
                }
            ),
            "{carrier:?}: {error}"
        );
    }
}

#[test]
fn pointers_outside_of_the_memory_are_faults_and_nothing_is_allocated_for_them() {
    let cases = [
        r#"(call $exchange.set (i32.const 0) (i32.const -1) (i32.const 2) {"v"} (i32.const 64))"#,
        r#"(call $exchange.set (i32.const 0) {"n"} (i32.const 8) (i32.const -1) (i32.const 64))"#,
        r#"(call $exchange.set (i32.const 0) {"n"} {"v"} (i32.const 131071))"#,
        r#"(call $exchange.answer (i32.const 200) (i32.const 0) (i32.const 0x7fffffff) {""} (i32.const 64))"#,
        r#"(call $exchange.answer (i32.const 200) (i32.const 2) (i32.const 1) {""} (i32.const 64))"#,
        r#"(i32.store (i32.const 128) (i32.const -9)) (i32.store (i32.const 132) (i32.const 4))
        (call $exchange.answer (i32.const 200) (i32.const 128) (i32.const 1) {""} (i32.const 64))"#,
        r#"(call $exchange.path (i32.const 131068))"#,
        r#"(call $exchange.path (i32.const 66))"#,
        r#"(call $exchange.get (i32.const 0) {"accept"} (i32.const -4))"#,
        r#"(call $body.append (i32.const 1) (i32.const -1))"#,
        r#"(i32.store8 (i32.const 128) (i32.const 0xff))
        (call $log.write (i32.const 2) (i32.const 128) (i32.const 1))"#,
    ];
    for carrier in CARRIERS {
        for body in cases {
            let fault = fault(&sometimes(body), carrier, &World::new());
            if carrier == Carrier::Core {
                assert!(matches!(fault, Fault::Contract(_)), "{body}: {fault}");
            }
        }
    }
}

#[test]
fn values_that_an_enumeration_does_not_have_are_faults() {
    for carrier in CARRIERS {
        for body in [
            "(drop (call $exchange.count (i32.const 4)))",
            "(drop (call $log.enabled (i32.const 5)))",
            r#"(call $exchange.set-query (i32.const 2) {""} (i32.const 64))"#,
        ] {
            fault(&sometimes(body), carrier, &World::new());
        }
    }
}

#[test]
fn an_allocator_that_lies_is_a_fault() {
    let call = r#"(call $exchange.get (i32.const 0) {"accept"} (i32.const 64))"#;
    let cases = [
        ("(i32.const -1)", "outside of its memory"),
        ("(i32.const 131072)", "outside of its memory"),
        ("unreachable", "unreachable"),
    ];
    for (realloc, expected) in cases {
        for carrier in CARRIERS {
            // The configuration is empty, which fits anywhere but outside of the memory.
            let body = format!(
                "(if (result i32) (local.get $size) (then {realloc}) (else (i32.const 8)))"
            );
            let guest = sometimes(call).realloc(&body);
            let fault = fault(&guest, carrier, &World::new());
            if carrier == Carrier::Core {
                assert!(fault.to_string().contains(expected), "{realloc}: {fault}");
            }
        }
    }
    let unaligned = "(if (result i32) (local.get $size) (then (i32.const 9)) (else (i32.const 8)))";
    let guest = sometimes("(call $exchange.all (i32.const 0) (i32.const 64))").realloc(unaligned);
    for carrier in CARRIERS {
        let fault = fault(&guest, carrier, &World::new());
        if carrier == Carrier::Core {
            assert!(fault.to_string().contains("no multiple of 4"), "{fault}");
        }
    }
}

#[test]
fn an_allocator_can_not_call_the_host() {
    let realloc = "(if (local.get $size) (then (drop (call $exchange.status)))) (i32.const 4096)";
    let call = r#"(call $exchange.get (i32.const 0) {"accept"} (i32.const 64))"#;
    for carrier in CARRIERS {
        let fault = fault(&sometimes(call).realloc(realloc), carrier, &World::new());
        if carrier == Carrier::Core {
            assert!(
                fault
                    .to_string()
                    .contains("its cabi_realloc called the host"),
                "{fault}"
            );
        }
    }
}

#[test]
fn a_body_does_not_grow_without_bound() {
    let guest = Guest::new().on(
        Phase::RequestBody,
        "(loop $l (call $body.append (i32.const 0) (i32.const 65536)) (br $l)) (i32.const 0)",
    );
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.body = 1024 * 1024;
        let filter = world.filter(&guest, carrier);
        let error = run(&filter, Phase::RequestBody, &exchange()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("its limit `body` of 1048576 bytes"),
            "{carrier:?}: {error}"
        );
    }
}

#[test]
fn an_instance_that_can_not_be_made_again_fails_its_exchanges_only() {
    // Refuses its configuration from the third time on; the first two are those of load and worker.
    let guest = sometimes("unreachable").configure(
        r#"(call $store.increment {"mine"} {"made"} (i64.const 1) (i64.const 0) (i32.const 64))
        (if (i64.gt_s (i64.load (i32.const 72)) (i64.const 2)) (then
            (i32.store (i32.const 16) (i32.const 1))
            (i32.store (i32.const 20) (i32.const 0)) (i32.store (i32.const 24) (i32.const 0))))"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        bad(&filter).unwrap_err();
        let error = run(&filter, Phase::RequestHead, &exchange()).unwrap_err();
        assert!(
            matches!(error.fault, Fault::Refused(_)),
            "{carrier:?}: {error}"
        );
    }
}
