//! How exchanges share instances: what each mode keeps apart, what is never used again, and that instances which hold
//! much memory are replaced without anybody noticing.

use std::time::Duration;

use tidegate_core::error::{Fault, Limit, Overrun};
use tidegate_core::filter::Outcome;
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::usage::{Discard, Isolation};

use super::guest::{CARRIERS, Carrier, Guest};
use super::world::{World, enter, exchange_with_id, run};
use crate::{Engine, EngineOptions, LoadError};

/// Counts its calls in a global, in memory and in a table, and tells the three counts.
fn counting() -> Guest {
    let count = "
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (i32.store (i32.const 60000) (i32.add (i32.load (i32.const 60000)) (i32.const 1)))
        (drop (table.grow $t (ref.null func) (i32.const 1)))
        (call $tell_number (i64.extend_i32_u (global.get $calls)))
        (call $tell_number (i64.extend_i32_u (i32.load (i32.const 60000))))
        (call $tell_number (i64.extend_i32_u (table.size $t)))";
    Guest::new()
        .extra("(global $calls (mut i32) (i32.const 0)) (table $t 0 funcref)")
        .on(Phase::RequestHead, &format!("{count} (i32.const 0)"))
        .on(Phase::ResponseHead, &format!("{count} (i32.const 0)"))
}

/// Every way of keeping instances apart: on the worker's stack, and on stacks of their own.
fn ways() -> impl Iterator<Item = (Carrier, Isolation, Duration)> {
    CARRIERS.into_iter().flat_map(|carrier| {
        [Isolation::Exclusive, Isolation::Fresh]
            .into_iter()
            .flat_map(move |isolation| {
                [20, 60].map(|time| (carrier, isolation, Duration::from_millis(time)))
            })
    })
}

fn world(isolation: Isolation, time: Duration) -> World {
    let mut world = World::new();
    world.isolation = Some(isolation);
    world.limits.time = time;
    world
}

#[test]
fn a_fresh_instance_has_nothing_of_another_exchange() {
    for (carrier, isolation, time) in ways().filter(|way| way.1 == Isolation::Fresh) {
        let world = world(isolation, time);
        let module = world.load(&counting().build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        assert_eq!(module.isolation(), Isolation::Fresh);
        // More exchanges than slots are warm, some at the same time.
        for round in 0..50 {
            let (one, two) = (exchange_with_id(round * 2), exchange_with_id(round * 2 + 1));
            run(&filter, Phase::RequestHead, &one).unwrap();
            run(&filter, Phase::RequestHead, &two).unwrap();
            run(&filter, Phase::ResponseHead, &one).unwrap();
            let expected = ["1", "1", "1", "1", "1", "1", "2", "2", "2"];
            assert_eq!(world.log.take(), expected, "{carrier:?} {time:?}");
            run(&filter, Phase::Log, &one).unwrap();
            run(&filter, Phase::Log, &two).unwrap();
        }
        let usage = module.usage();
        assert_eq!(usage.discarded(Discard::Spent), 100);
        assert!(usage.instances <= 3, "{usage:?}");
    }
}

#[test]
fn a_fresh_instance_has_nothing_of_one_that_trapped_or_had_another_size() {
    let guest = counting().on(
        Phase::RequestBody,
        "(drop (memory.grow (i32.const 100)))
        (memory.fill (i32.const 65536) (i32.const 255) (i32.const 6000000))
        unreachable",
    );
    let guest = guest.on(
        Phase::ResponseBody,
        "(drop (memory.grow (i32.const 100)))
        (call $tell_byte (i32.const 131072)) (call $tell_byte (i32.const 5000000)) (i32.const 0)",
    );
    for (carrier, isolation, time) in ways().filter(|way| way.1 == Isolation::Fresh) {
        let world = world(isolation, time);
        let filter = world.filter(&guest, carrier);
        for id in 0..50 {
            let exchange = exchange_with_id(id);
            run(&filter, Phase::RequestBody, &exchange).unwrap_err();
            run(&filter, Phase::Log, &exchange).unwrap();
            let exchange = exchange_with_id(1000 + id);
            run(&filter, Phase::ResponseBody, &exchange).unwrap();
            assert_eq!(world.log.take(), ["0", "0"], "{carrier:?} {time:?}");
            run(&filter, Phase::Log, &exchange).unwrap();
        }
    }
}

#[test]
fn an_exclusive_instance_serves_one_exchange_at_a_time_and_then_another() {
    for (carrier, isolation, time) in ways().filter(|way| way.1 == Isolation::Exclusive) {
        let world = world(isolation, time);
        let module = world.load(&counting().build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let (one, two) = (exchange_with_id(1), exchange_with_id(2));
        run(&filter, Phase::RequestHead, &one).unwrap();
        run(&filter, Phase::RequestHead, &two).unwrap();
        run(&filter, Phase::ResponseHead, &one).unwrap();
        let expected = ["1", "1", "1", "1", "1", "1", "2", "2", "2"];
        assert_eq!(world.log.take(), expected, "{carrier:?} {time:?}");
        run(&filter, Phase::Log, &one).unwrap();
        run(&filter, Phase::RequestHead, &exchange_with_id(3)).unwrap();
        assert_eq!(world.log.take(), ["3", "3", "3"], "{carrier:?} {time:?}");
        assert_eq!(module.usage().created, 3, "one of them at load");
    }
}

#[test]
fn there_are_as_many_instances_as_allowed_and_one_that_ends_makes_room() {
    for (carrier, isolation, time) in ways() {
        let mut world = world(isolation, time);
        world.limits.instances = 2;
        let module = world.load(&counting().build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let exchanges = [1, 2, 3].map(exchange_with_id);
        run(&filter, Phase::RequestHead, &exchanges[0]).unwrap();
        run(&filter, Phase::RequestHead, &exchanges[1]).unwrap();
        let error = run(&filter, Phase::RequestHead, &exchanges[2]).unwrap_err();
        let Fault::Over(Overrun {
            limit,
            bound,
            value,
            ..
        }) = error.fault
        else {
            panic!("{error}");
        };
        assert_eq!((limit, bound, value), (Limit::Instances, 2, 3));
        run(&filter, Phase::Log, &exchanges[0]).unwrap();
        run(&filter, Phase::RequestHead, &exchanges[2]).unwrap();
        assert_eq!(module.usage().over(Limit::Instances), 1);
    }
}

#[test]
fn idle_instances_go_when_there_is_less_to_do() {
    for (carrier, isolation, time) in ways() {
        let world = world(isolation, time);
        let module = world.load(&counting().build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let exchanges: Vec<_> = (0..40).map(exchange_with_id).collect();
        for exchange in &exchanges {
            run(&filter, Phase::RequestHead, exchange).unwrap();
        }
        assert!(module.usage().instances >= 40);
        for exchange in &exchanges {
            run(&filter, Phase::Log, exchange).unwrap();
        }
        // More exchanges, one by one.
        for id in 100..700 {
            let exchange = exchange_with_id(id);
            run(&filter, Phase::RequestHead, &exchange).unwrap();
            run(&filter, Phase::Log, &exchange).unwrap();
        }
        let usage = module.usage();
        assert!(usage.instances <= 3, "{carrier:?} {isolation:?}: {usage:?}");
        drop(filter);
        let usage = module.usage();
        assert_eq!(
            (usage.instances, usage.memory),
            (0, 0),
            "{carrier:?} {isolation:?}"
        );
        assert_eq!(usage.discarded.iter().sum::<u64>(), usage.created);
    }
}

#[test]
fn an_exhausted_pool_is_a_fault_and_room_comes_back() {
    let engine = Engine::new(EngineOptions {
        instances: 16,
        ..EngineOptions::default()
    })
    .unwrap();
    let world = world(Isolation::Fresh, Duration::from_millis(20));
    let module = world
        .load_with(&engine, &counting().build(Carrier::Core))
        .unwrap();
    let filter = world.on_worker(&*module).unwrap();
    let exchanges: Vec<_> = (0..17).map(exchange_with_id).collect();
    for exchange in &exchanges[..16] {
        run(&filter, Phase::RequestHead, exchange).unwrap();
    }
    let error = run(&filter, Phase::RequestHead, &exchanges[16]).unwrap_err();
    let over = error.fault.overrun().unwrap();
    assert_eq!((over.limit, over.bound), (Limit::Instances, 16), "{error}");
    assert_eq!(error.fault.kind(), "exhausted");
    run(&filter, Phase::Log, &exchanges[0]).unwrap();
    run(&filter, Phase::RequestHead, &exchanges[16]).unwrap();
}

#[test]
fn a_filter_that_makes_calls_is_never_shared() {
    let call = r#"(call $http-client.call {"users"} {"GET"} {"/"} (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)) (i32.const 0)"#;
    for carrier in CARRIERS {
        let mut world = World::new();
        let bytes = Guest::new().on(Phase::RequestHead, call).build(carrier);
        assert_eq!(
            world.load(&bytes).unwrap().isolation(),
            Isolation::Exclusive
        );
        world.isolation = Some(Isolation::Fresh);
        assert_eq!(world.load(&bytes).unwrap().isolation(), Isolation::Fresh);
        world.isolation = Some(Isolation::Shared);
        let error = world.load(&bytes).unwrap_err();
        assert!(matches!(error, LoadError::Isolation { .. }), "{error}");
        assert!(
            error.to_string().contains("`isolation` of [filter.test]"),
            "{error}"
        );
    }
}

#[test]
fn the_default_follows_from_how_long_a_call_may_take() {
    for carrier in CARRIERS {
        let mut world = World::new();
        let bytes = counting().build(carrier);
        assert_eq!(world.load(&bytes).unwrap().isolation(), Isolation::Shared);
        world.limits.time = Duration::from_millis(51);
        assert_eq!(
            world.load(&bytes).unwrap().isolation(),
            Isolation::Exclusive
        );
    }
}

#[test]
fn a_guest_that_may_take_long_gives_way_at_every_tick() {
    // About a second of work, with a bound of ten.
    let body = "(local $n i64)
        (loop $l (local.set $n (i64.add (local.get $n) (i64.const 1)))
            (br_if $l (i64.lt_u (local.get $n) (i64.const 200000000))))
        (i32.const 0)";
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.time = Duration::from_secs(10);
        let filter = world.filter(&Guest::new().on(Phase::RequestHead, body), carrier);
        let exchange = exchange_with_id(1);
        enter(&exchange, Phase::RequestHead, b"");
        let Outcome::Pending(mut future) = filter.call(Phase::RequestHead, true, &exchange) else {
            panic!("{carrier:?}: it did not give way");
        };
        // Another exchange is served in between, by another instance.
        let mut turns = 1;
        let flow = loop {
            let polled = future
                .as_mut()
                .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            match polled {
                std::task::Poll::Ready(result) => break result.unwrap(),
                std::task::Poll::Pending => turns += 1,
            }
        };
        assert_eq!(flow, Flow::Continue);
        assert!(turns > 20, "{carrier:?}: {turns}");
        // Its time goes on where it stopped: the bound holds over all stretches together.
        world.limits.time = Duration::from_millis(60);
        let filter = world.filter(&Guest::new().on(Phase::RequestHead, body), carrier);
        let error = run(&filter, Phase::RequestHead, &exchange_with_id(2)).unwrap_err();
        let over = error.fault.overrun().unwrap();
        assert_eq!(over.limit, Limit::Time, "{error}");
        assert!(over.value >= 59_000, "{error}");
    }
}

#[test]
fn a_call_that_is_given_up_in_the_middle_takes_its_instance_with_it() {
    let guest = Guest::new().on(
        Phase::RequestHead,
        "(loop $l (br_if $l (i32.const 1))) (i32.const 0)",
    );
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.time = Duration::from_secs(10);
        let module = world.load(&guest.build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let exchange = exchange_with_id(1);
        enter(&exchange, Phase::RequestHead, b"");
        drop(filter.call(Phase::RequestHead, true, &exchange));
        run(&filter, Phase::Log, &exchange).unwrap();
        assert_eq!(
            module.usage().discarded(Discard::Cancelled),
            1,
            "{carrier:?}"
        );
    }
}

#[test]
fn a_slow_leak_ends_with_a_new_instance_and_running_exchanges_keep_theirs() {
    // Every request keeps 64 KiB; every response tells how many requests its instance has seen.
    let guest = Guest::new()
        .extra("(global $seen (mut i64) (i64.const 0))")
        .on(
            Phase::RequestHead,
            "(global.set $seen (i64.add (global.get $seen) (i64.const 1)))
            (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
            (i32.const 0)",
        )
        .on(
            Phase::ResponseHead,
            "(call $tell_number (global.get $seen)) (i32.const 0)",
        );
    for carrier in CARRIERS {
        for isolation in [Isolation::Shared, Isolation::Exclusive] {
            let mut world = world(isolation, Duration::from_millis(20));
            world.limits.memory = 4 << 20;
            let module = world.load(&guest.build(carrier)).unwrap();
            let filter = world.on_worker(&*module).unwrap();
            // One that takes long, from before the first replacement.
            let long = exchange_with_id(1);
            run(&filter, Phase::RequestHead, &long).unwrap();
            for id in 2..500 {
                let exchange = exchange_with_id(id);
                run(&filter, Phase::RequestHead, &exchange)
                    .unwrap_or_else(|error| panic!("{carrier:?} {isolation:?} {id}: {error}"));
                run(&filter, Phase::Log, &exchange).unwrap();
                if id == 40 {
                    // The instance that it began with is still there, with all that it has seen.
                    run(&filter, Phase::ResponseHead, &long).unwrap();
                    let seen: u64 = world.log.take()[0].parse().unwrap();
                    let expected = if isolation == Isolation::Shared {
                        30..33
                    } else {
                        1..2
                    };
                    assert!(
                        expected.contains(&seen),
                        "{carrier:?} {isolation:?}: {seen}"
                    );
                    run(&filter, Phase::Log, &long).unwrap();
                }
            }
            let usage = module.usage();
            assert!(usage.discarded(Discard::Recycled) > 10, "{usage:?}");
            assert!(usage.memory_peak < 12 << 20, "{usage:?}");
            assert_eq!(usage.discarded(Discard::Failed), 0);
        }
    }
}

#[test]
fn an_instance_that_failed_is_made_anew_at_the_exchanges_end() {
    let guest = Guest::new()
        .on(Phase::RequestHead, "unreachable")
        .on(Phase::ResponseHead, "(i32.const 0)");
    for carrier in CARRIERS {
        let world = World::new();
        let module = world.load(&guest.build(carrier)).unwrap();
        let filter = world.on_worker(&*module).unwrap();
        let exchange = exchange_with_id(1);
        run(&filter, Phase::RequestHead, &exchange).unwrap_err();
        assert_eq!(module.usage().instances, 0);
        run(&filter, Phase::Log, &exchange).unwrap();
        assert_eq!(module.usage().instances, 1);
        assert_eq!(module.usage().discarded(Discard::Failed), 1);
    }
}

#[test]
fn an_instance_that_is_made_on_a_worker_has_no_more_time_than_at_load_and_a_little() {
    // The third one, the first after load and worker, never comes out of `configure`.
    let guest = counting().configure(
        r#"(call $store.increment {"mine"} {"made"} (i64.const 1) (i64.const 0) (i32.const 64))
        (if (i64.gt_s (i64.load (i32.const 72)) (i64.const 2)) (then
            (loop $l (br_if $l (i32.const 1)))))"#,
    );
    for (carrier, isolation, time) in ways() {
        let mut world = world(isolation, time);
        world.limits.configure_time = Duration::from_secs(60);
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange_with_id(1)).unwrap();
        let error = run(&filter, Phase::RequestHead, &exchange_with_id(2)).unwrap_err();
        let over = error.fault.overrun().unwrap();
        assert_eq!(over.limit, Limit::ConfigureTime, "{error}");
        assert!(over.bound < 10_000_000, "{error}");
        assert_eq!(error.phase, Phase::RequestHead);
    }
}
