//! That an instance which is put back to its beginning can't be told from a new one, that only those are put back of which
//! this is known, and that they are counted as new ones.

use std::time::Duration;

use tidegate_core::phase::Phase;
use tidegate_core::usage::{Discard, Isolation};

use super::guest::{Carrier, Guest};
use super::world::{World, exchange_with_id, run};
use crate::touched::Touched;

/// Tells what it finds, and changes all of it: a global that nobody exports, what stands in the file, what `configure` wrote,
/// what was zero, and how much memory there is. `configure` tells 77.
fn meddler() -> Guest {
    let body = "
        (call $tell_number (i64.extend_i32_u (global.get $hidden)))
        (call $tell_number (i64.trunc_f64_u (global.get $wide)))
        (call $tell_byte (i32.const 60000))
        (call $tell_byte (i32.const 61000))
        (call $tell_byte (i32.const 100000))
        (call $tell_number (i64.extend_i32_u (memory.size)))
        (global.set $hidden (i32.const 1))
        (global.set $wide (f64.const 2))
        (i32.store8 (i32.const 60000) (i32.const 1))
        (i32.store8 (i32.const 61000) (i32.const 2))
        (memory.fill (i32.const 90000) (i32.const 3) (i32.const 20000))
        (i32.const 0)";
    Guest::new()
        .extra(
            "(global $hidden (mut i32) (i32.const 5)) (global $wide (mut f64) (f64.const 6))
            (data (i32.const 60000) \"\\07\")",
        )
        .configure(
            "(global.set $hidden (i32.const 8)) (i32.store8 (i32.const 61000) (i32.const 9))
            (call $tell_number (i64.const 77))",
        )
        .on(Phase::RequestHead, body)
        .on(
            Phase::RequestBody,
            "(drop (memory.grow (i32.const 1))) (i32.const 0)",
        )
        .on(Phase::ResponseHead, "unreachable")
}

const FOUND: [&str; 6] = ["8", "6", "7", "9", "0", "2"];

/// On the worker's stack, and on stacks of their own.
fn worlds() -> impl Iterator<Item = World> {
    [20, 60].into_iter().map(|time| {
        let mut world = World::new();
        world.isolation = Some(Isolation::Fresh);
        world.limits.time = Duration::from_millis(time);
        world
    })
}

/// Runs exchanges that overlap, and says what each found and how often `configure` ran meanwhile.
fn exchanges(world: &World, guest: &Guest, count: u64) -> (Vec<Vec<String>>, usize) {
    let module = world.load(&guest.build(Carrier::Core)).unwrap();
    let filter = world.on_worker(&*module).unwrap();
    let (mut found, mut configured) = (Vec::new(), 0);
    world.log.take();
    let before = module.usage();
    let mut last = None;
    for id in 0..count {
        let exchange = exchange_with_id(id);
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        let mut told = world.log.take();
        told.retain(|line| line != "77");
        found.push(told);
        if let Some(last) = last.replace(exchange) {
            run(&filter, Phase::Log, &last).unwrap();
            configured += world.log.take().iter().filter(|line| *line == "77").count();
        }
    }
    let usage = module.usage();
    let spent = usage.discarded(Discard::Spent) - before.discarded(Discard::Spent);
    assert_eq!(spent, count - 1);
    assert_eq!(
        usage.created - before.created,
        count - 1 + usage.instances - before.instances
    );
    assert!(usage.instances <= 4, "{usage:?}");
    drop((filter, last));
    let usage = module.usage();
    assert_eq!((usage.instances, usage.memory), (0, 0));
    (found, configured)
}

#[test]
fn every_exchange_finds_what_configure_left_and_nothing_else() {
    for world in worlds() {
        let (found, configured) = exchanges(&world, &meddler(), 50);
        assert!(found.iter().all(|found| *found == FOUND), "{found:?}");
        if Touched::get().is_some() {
            assert!(configured < 5, "{configured}");
        }
    }
}

#[test]
fn what_another_beginning_would_find_otherwise_is_found_anew() {
    let asks = [
        "(drop (call $clock.wall))",
        "(drop (call $clock.monotonic))",
        "(drop (call $random.number))",
        "(call $random.bytes (i32.const 8) (i32.const 64))",
        r#"(call $limiter.take {"k"} (i32.const 1) (f64.const 2.5) (i32.const 5) (i32.const 64))"#,
        r#"(call $store.get {"mine"} {"k"} (i32.const 64))"#,
    ];
    for world in worlds() {
        for ask in asks {
            let guest = meddler().configure(&format!(
                "(global.set $hidden (i32.const 8)) (i32.store8 (i32.const 61000) (i32.const 9)) {ask}
                (call $tell_number (i64.const 77))"
            ));
            let (found, configured) = exchanges(&world, &guest, 20);
            assert!(
                found.iter().all(|found| *found == FOUND),
                "{ask}: {found:?}"
            );
            assert!(configured >= 15, "{ask}: {configured}");
        }
    }
}

#[test]
fn state_that_can_not_be_reached_is_made_anew() {
    let hidden = [
        "(table $t 1 funcref) (func (table.set $t (i32.const 0) (ref.null func)))",
        "(global $r (mut funcref) (ref.null func))",
        "(func (export \"tidegate:host/exposed\"))",
    ];
    for world in worlds() {
        for extra in hidden {
            let (found, configured) = exchanges(&world, &meddler().extra(extra), 20);
            assert!(
                found.iter().all(|found| *found == FOUND),
                "{extra}: {found:?}"
            );
            assert!(configured >= 15, "{extra}: {configured}");
        }
    }
}

#[test]
fn one_that_failed_or_grew_is_not_put_back() {
    for world in worlds() {
        let module = world.load(&meddler().build(Carrier::Core)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        for id in 0..40 {
            let exchange = exchange_with_id(id);
            world.log.take();
            run(&filter, Phase::RequestHead, &exchange).unwrap();
            let mut found = world.log.take();
            found.retain(|line| line != "77");
            assert_eq!(found, FOUND, "{id}");
            if id % 2 == 0 {
                run(&filter, Phase::RequestBody, &exchange).unwrap();
            } else {
                run(&filter, Phase::ResponseHead, &exchange).unwrap_err();
            }
            run(&filter, Phase::Log, &exchange).unwrap();
        }
        let usage = module.usage();
        assert_eq!(usage.discarded(Discard::Failed), 20);
        assert_eq!(usage.discarded(Discard::Spent), 20);
        assert!(usage.instances <= 3, "{usage:?}");
    }
}

#[test]
fn one_that_wrote_all_over_a_large_memory_is_made_anew() {
    for world in worlds() {
        let guest = meddler().on(
            Phase::RequestTrailers,
            "(memory.fill (i32.const 131072) (i32.const 4) (i32.const 2000000)) (i32.const 0)",
        );
        let guest = guest.extra("(func $big (drop (memory.grow (i32.const 40)))) (start $big)");
        let filter = world.filter(&guest, Carrier::Core);
        for id in 0..20 {
            let exchange = exchange_with_id(id);
            world.log.take();
            run(&filter, Phase::RequestHead, &exchange).unwrap();
            let mut found = world.log.take();
            found.retain(|line| line != "77");
            assert_eq!(found, ["8", "6", "7", "9", "0", "42"]);
            run(&filter, Phase::RequestTrailers, &exchange).unwrap();
            run(&filter, Phase::Log, &exchange).unwrap();
        }
    }
}
