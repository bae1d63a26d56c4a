//! What a guest reaches besides its exchange: log, clock, random, store, limiter, metrics, environment.

use tidegate_core::phase::Phase;
use tidegate_core::services::Level;

use super::guest::{CARRIERS, Guest, RESULT};
use super::world::{World, both, exchange, run};

fn head(body: &str) -> Guest {
    let body = body.replace("{R}", RESULT);
    Guest::new().on(Phase::RequestHead, &format!("{body} (i32.const 0)"))
}

#[test]
fn log_lines_carry_level_and_request_id_and_are_cut() {
    // 4 KiB - 1 bytes of `a`, then a character of two bytes that would be cut in half.
    let guest = head(
        r#"(call $tell_number (i64.extend_i32_u (call $log.enabled (i32.const 3))))
        (call $tell_number (i64.extend_i32_u (call $log.enabled (i32.const 4))))
        (call $log.write (i32.const 0) {"bad"})
        (call $log.write (i32.const 4) {"not written"})
        (memory.fill (i32.const 8192) (i32.const 97) (i32.const 4095))
        (i32.store16 (i32.const 12287) (i32.const 0xa9c3))
        (call $log.write (i32.const 1) (i32.const 8192) (i32.const 4097))"#,
    )
    .configure(r#"(call $log.write (i32.const 1) {"early"})"#);
    for carrier in CARRIERS {
        let world = World::new();
        let module = world.load(&guest.build(carrier)).unwrap();
        assert_eq!(
            world.log.take_whole(),
            [(Level::Warn, None, "early".to_owned())]
        );
        let filter = world.on_worker(&*module).unwrap();
        world.log.take();
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take_whole();
        let id = Some("id-7".to_owned());
        assert_eq!(
            lines[..3],
            [
                (Level::Info, id.clone(), "1".to_owned()),
                (Level::Info, id.clone(), "0".to_owned()),
                (Level::Error, id.clone(), "bad".to_owned()),
            ],
            "{carrier:?}"
        );
        assert_eq!(lines[3], (Level::Warn, id, "a".repeat(4095)));
        assert_eq!(lines.len(), 4);
    }
}

#[test]
fn both_clocks_are_the_hosts() {
    both(
        &head("(call $tell_number (call $clock.monotonic)) (call $tell_number (call $clock.wall))"),
        Phase::RequestHead,
        &["1000000007", "1000000007"],
    );
}

#[test]
fn random_bytes_are_as_many_as_asked_for_up_to_a_bound_and_differ() {
    both(
        &head(
            r#"(call $random.bytes (i32.const 5) {R})
            (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
            (call $random.bytes (i32.const -1) {R})
            (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
            (call $tell_number (i64.extend_i32_u
                (i64.eq (i64.load (i32.load {R})) (i64.load offset=8 (i32.load {R})))))
            (call $tell_number (i64.extend_i32_u
                (i64.eq (call $random.number) (call $random.number))))"#,
        ),
        Phase::RequestHead,
        &["5", "4096", "0", "0"],
    );
}

#[test]
fn the_environment_shows_what_was_granted() {
    both(
        &head(
            r#"(call $environment.get {"SET"} {R}) (call $tell_byte {R}) (call $tell_at (i32.const 68))
            (call $environment.get {"UNSET"} {R}) (call $tell_byte {R})
            (call $environment.get {"PATH"} {R}) (call $tell_byte {R})"#,
        ),
        Phase::RequestHead,
        &["1", "value", "0", "0"],
    );
}

#[test]
fn the_store_keeps_values() {
    both(
        &head(
            r#"(call $store.get {"mine"} {"k"} {R}) (call $tell_byte {R}) (call $tell_byte (i32.const 68))
            (call $store.set {"mine"} {"k"} {"v"} (i64.const 9) {R}) (call $tell_byte {R})
            (call $store.get {"mine"} {"k"} {R})
            (call $tell_byte {R}) (call $tell_byte (i32.const 68)) (call $tell_at (i32.const 72))
            (call $store.compare-and-swap {"mine"} {"k"} (i32.const 1) {"x"} {"w"} (i64.const 0) {R})
            (call $tell_byte {R}) (call $tell_byte (i32.const 65))
            (call $store.compare-and-swap {"mine"} {"k"} (i32.const 1) {"v"} {"w"} (i64.const 0) {R})
            (call $tell_byte (i32.const 65))
            (call $store.compare-and-swap {"mine"} {"k"} (i32.const 0) (i32.const 0) (i32.const 0) {"w"} (i64.const 0) {R})
            (call $tell_byte (i32.const 65))
            (call $store.delete {"mine"} {"k"} {R}) (call $tell_byte {R}) (call $tell_byte (i32.const 65))
            (call $store.delete {"mine"} {"k"} {R}) (call $tell_byte (i32.const 65))
            (call $store.increment {"mine"} {"n"} (i64.const 5) (i64.const 0) {R}) (call $tell_byte {R})
            (call $store.increment {"mine"} {"n"} (i64.const -2) (i64.const 0) {R})
            (call $tell_number (i64.load (i32.const 72)))"#,
        ),
        Phase::RequestHead,
        &[
            "0", "0", "0", "0", "1", "v", "0", "0", "1", "0", "0", "1", "0", "0", "3",
        ],
    );
}

#[test]
fn the_store_says_why_it_did_nothing() {
    both(
        &head(
            r#"(call $store.set {"mine"} {"k"} {"v"} (i64.const 9) {R})
            (call $store.increment {"mine"} {"k"} (i64.const 1) (i64.const 0) {R})
            (call $tell_byte {R}) (call $tell_byte (i32.const 72))
            (call $store.get {"mine"} {"broken"} {R}) (call $tell_byte {R}) (call $tell_byte (i32.const 68))
            (memory.fill (i32.const 8192) (i32.const 97) (i32.const 513))
            (call $store.get {"mine"} (i32.const 8192) (i32.const 513) {R}) (call $tell_byte (i32.const 68))
            (call $store.set {"mine"} {"k"} (i32.const 0) (i32.const 65537) (i64.const 9) {R})
            (call $tell_byte (i32.const 65))"#,
        ),
        Phase::RequestHead,
        &["1", "2", "1", "3", "1", "1"],
    );
}

#[test]
fn a_namespace_that_was_not_granted_is_refused_and_reported_once() {
    let guest = head(
        r#"(call $store.delete {"other"} {"k"} {R}) (call $tell_byte (i32.const 65))
        (call $store.delete {"other"} {"k"} {R}) (call $tell_byte (i32.const 65))"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        let lines = world.log.take_whole();
        let messages: Vec<&str> = lines.iter().map(|line| line.2.as_str()).collect();
        let warning = "filter `test` asked for `other` without a grant; if it may, add \
                       `allow = { store = [\"other\"] }` to [filter.test]";
        assert_eq!(messages, [warning, "0", "0"], "{carrier:?}");
        assert_eq!(lines[0].0, Level::Warn);
    }
}

#[test]
fn the_limiter_takes_tokens() {
    both(
        &head(
            r#"(call $limiter.take {"key"} (i32.const 1) (f64.const 2.5) (i32.const 9) {R})
            (call $tell_byte {R}) (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
            (call $tell_number (i64.load offset=8 {R})) (call $tell_number (i64.load offset=16 {R}))
            (call $limiter.take {"other"} (i32.const 1) (f64.const 2.5) (i32.const 9) {R})
            (call $tell_byte {R})"#,
        ),
        Phase::RequestHead,
        &["1", "8", "1099511627777", "1099511627778", "0"],
    );
}

/// One label at 128: `a` = `b`; then two bounds at 192: 1.0, 2.0.
const METRICS: &str = r#"
    (call $pair (i32.const 128) {"a"} {"b"})
    (f64.store (i32.const 192) (f64.const 1)) (f64.store (i32.const 200) (f64.const 2))
    (call $metrics.counter {"hits"} {"How often."} (i32.const 128) (i32.const 1) (i32.const 64))
    (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 68))
    (call $metrics.gauge {"level"} {"How high."} (i32.const 0) (i32.const 0) (i32.const 64))
    (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 68))
    (call $metrics.histogram {"time"} {"How long."} (i32.const 0) (i32.const 0) (i32.const 192) (i32.const 2) (i32.const 64))
    (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 68))"#;

const PAIR: &str = "(func $pair (param $at i32) (param i32 i32 i32 i32)
    (i32.store (local.get $at) (local.get 1))
    (i32.store offset=4 (local.get $at) (local.get 2))
    (i32.store offset=8 (local.get $at) (local.get 3))
    (i32.store offset=12 (local.get $at) (local.get 4)))";

#[test]
fn figures_are_the_same_for_every_instance() {
    let guest = Guest::new().configure(METRICS).extra(PAIR).on(
        Phase::RequestHead,
        "(call $metrics.add (i32.const 0) (i64.const 2))
        (call $metrics.set (i32.const 1) (f64.const 4.5))
        (call $metrics.observe (i32.const 2) (f64.const 1.5))
        ;; Wrong kinds and unknown numbers are left alone.
        (call $metrics.add (i32.const 1) (i64.const 2))
        (call $metrics.set (i32.const 2) (f64.const 1))
        (call $metrics.observe (i32.const 0) (f64.const 1))
        (call $metrics.add (i32.const 9) (i64.const 2))
        (i32.const 0)",
    );
    for carrier in CARRIERS {
        let world = World::new();
        let module = world.load(&guest.build(carrier)).unwrap();
        assert_eq!(world.log.take(), ["0", "0", "0", "1", "0", "2"]);
        for _ in 0..2 {
            let filter = world.on_worker(&*module).unwrap();
            run(&filter, Phase::RequestHead, &exchange()).unwrap();
        }
        let text = world.metrics.encode();
        for line in [
            "# HELP tidegate_filter_hits How often.",
            "tidegate_filter_hits{a=\"b\",filter=\"test\"} 4",
            "tidegate_filter_level{filter=\"test\"} 4.5",
            "tidegate_filter_time_bucket{filter=\"test\",le=\"1\"} 0",
            "tidegate_filter_time_bucket{filter=\"test\",le=\"2\"} 2",
            "tidegate_filter_time_sum{filter=\"test\"} 3",
        ] {
            assert!(text.contains(line), "{carrier:?}: {line} in {text}");
        }
    }
}

#[test]
fn figures_that_can_not_be_are_refused_with_their_reason() {
    let define = |name: &str, labels: &str| {
        format!(
            r#"(call $metrics.counter {{"{name}"}} {{""}} {labels} (i32.const 64)) (call $tell_byte (i32.const 68))"#
        )
    };
    let label = |name: &str| format!(r#"(call $pair (i32.const 128) {{"{name}"}} {{"x"}})"#);
    let none = "(i32.const 0) (i32.const 0)";
    let one = "(i32.const 128) (i32.const 1)";
    let configure = [
        define("Upper", none),
        define("9", none),
        label("filter"),
        define("a", one),
        label("a-b"),
        define("a", one),
        // A gauge of that name is taken by the counter.
        define("a", none),
        r#"(call $metrics.gauge {"a"} {""} (i32.const 0) (i32.const 0) (i32.const 64)) (call $tell_byte (i32.const 68))"#.to_owned(),
        // Bounds that do not grow.
        "(f64.store (i32.const 192) (f64.const 2)) (f64.store (i32.const 200) (f64.const 1))".to_owned(),
        r#"(call $metrics.histogram {"h"} {""} (i32.const 0) (i32.const 0) (i32.const 192) (i32.const 2) (i32.const 64)) (call $tell_byte (i32.const 68))"#.to_owned(),
    ]
    .join("\n");
    let guest = head(&define("late", none))
        .configure(&configure)
        .extra(PAIR);
    for carrier in CARRIERS {
        let world = World::new();
        let module = world.load(&guest.build(carrier)).unwrap();
        assert_eq!(world.log.take(), ["0", "0", "2", "0", "0", "0", "1"]);
        let filter = world.on_worker(&*module).unwrap();
        world.log.take();
        run(&filter, Phase::RequestHead, &exchange()).unwrap();
        assert_eq!(world.log.take(), ["3"], "{carrier:?}");
    }
}

#[test]
fn a_filter_has_a_hundred_series_however_often_it_is_made() {
    // Names of two letters, another set for each instance: the letters come from the random numbers.
    let configure = r#"(local $n i32) (local $made i32)
        (loop $more
            (i32.store8 (i32.const 300) (i32.add (i32.const 97)
                (i32.rem_u (local.get $n) (i32.const 26))))
            (i32.store8 (i32.const 301) (i32.add (i32.const 97)
                (i32.div_u (local.get $n) (i32.const 26))))
            (i64.store (i32.const 302) (i64.or (i64.const 0x6161616161616161)
                (i64.and (call $random.number) (i64.const 0x0707070707070707))))
            (call $metrics.counter (i32.const 300) (i32.const 10) {""} (i32.const 0) (i32.const 0) (i32.const 64))
            (if (i32.eqz (i32.load8_u (i32.const 64)))
                (then (local.set $made (i32.add (local.get $made) (i32.const 1)))))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $n) (i32.const 120))))
        (call $tell_number (i64.extend_i32_u (local.get $made)))
        (call $tell_byte (i32.const 68))"#;
    let guest = head("").configure(configure);
    for carrier in CARRIERS {
        let world = World::new();
        let module = world.load(&guest.build(carrier)).unwrap();
        let refused = "filter `test` in configure: it went over its limit `series` of 100: it wanted 101; raise \
                       `limits.series` of [filter.test] if that is right";
        assert_eq!(world.log.take(), [refused, "100", "4"], "{carrier:?}");
        world.on_worker(&*module).unwrap();
        assert_eq!(world.log.take(), ["0", "4"], "{carrier:?}");
        let count = world.metrics.count("tidegate_filter_", "filter", "test");
        // One more is the host's own.
        assert_eq!(count, 101);
    }
}

/// Tells the numbers of a level that stands at an address.
fn tell_level(at: u32) -> String {
    format!(
        "(call $tell_byte (i32.const {at}))
         (call $tell_number (i64.load offset=8 (i32.const {at})))
         (call $tell_number (i64.load offset=16 (i32.const {at})))
         (call $tell_number (i64.load offset=24 (i32.const {at})))"
    )
}

#[test]
fn buckets_are_asked_one_by_one() {
    let bucket = "(i64.const 50) (i64.const 3) (i64.const 1099511627776) (i64.const 9)";
    let body = format!(
        r#"(call $limiter.try-take (i32.const 0) {{"key"}} (i64.const 8) {bucket} {{R}})
        (call $tell_byte {{R}}) {level}
        (call $limiter.peek (i32.const 1) {{"key"}} (i64.const 8) {bucket} {{R}})
        (call $tell_byte {{R}}) {level}
        (call $limiter.charge (i32.const 0) {{"key"}} (i64.const -7) {bucket} {{R}})
        (call $tell_byte {{R}}) {level}
        (call $limiter.try-take (i32.const 0) {{"gone"}} (i64.const 8) {bucket} {{R}})
        (call $tell_byte {{R}}) (call $tell_byte (i32.const 72))
        (call $limiter.peek (i32.const 0) {{"key"}} (i64.const 8) (i64.const 0) (i64.const 1) (i64.const 1) (i64.const 9) {{R}})
        (call $tell_byte {{R}}) (call $tell_byte (i32.const 72))
        (memory.fill (i32.const 8192) (i32.const 97) (i32.const 513))
        (call $limiter.charge (i32.const 0) (i32.const 8192) (i32.const 513) (i64.const -7) {bucket} {{R}})
        (call $tell_byte {{R}}) (call $tell_byte (i32.const 72))"#,
        level = tell_level(72),
    );
    both(
        &head(&body),
        Phase::RequestHead,
        &[
            "0",
            "1",
            "42",
            "1099511627779",
            "9",
            "0",
            "0",
            "50",
            "1099511627779",
            "9",
            "0",
            "1",
            "43",
            "1099511627779",
            "9",
            "1",
            "2",
            "1",
            "1",
            "1",
            "0",
        ],
    );
}

#[test]
fn a_bucket_of_the_shared_place_is_not_asked_where_nobody_may_wait() {
    let bucket = "(i64.const 50) (i64.const 3) (i64.const 1000) (i64.const 0)";
    let guest = Guest::new()
        .on(
            Phase::Log,
            &format!(
                r#"(call $limiter.try-take (i32.const 1) {{"key"}} (i64.const 8) {bucket} {R})
                (call $tell_byte {R}) (call $tell_byte (i32.const 72))
                (call $limiter.try-take (i32.const 0) {{"key"}} (i64.const 8) {bucket} {R}) (call $tell_byte {R})
                (call $limiter.charge (i32.const 1) {{"key"}} (i64.const -8) {bucket} {R}) (call $tell_byte {R})
                (call $limiter.enter (i32.const 0) {{"key"}} (i32.const 1) {R})
                (call $tell_byte {R}) (call $tell_byte (i32.const 68))"#,
                R = RESULT
            ),
        );
    both(&guest, Phase::Log, &["1", "3", "0", "0", "1", "3"]);
}

#[test]
fn several_buckets_are_asked_at_once() {
    // Two demands of 48 bytes at 4096: the key `key` at 4400, tokens, capacity, refill, period, moment.
    let numbers = |at: u32, numbers: [u64; 5]| -> String {
        let stores = numbers.iter().zip(1..);
        stores
            .map(|(number, place)| {
                format!(
                    "(i64.store (i32.const {}) (i64.const {number}))",
                    at + 8 * place
                )
            })
            .collect()
    };
    let demand = |at: u32, key: u32| {
        format!(
            "(i32.store (i32.const {at}) (i32.const {key})) (i32.store offset=4 (i32.const {at}) (i32.const 3))"
        )
    };
    let body = format!(
        r#"(memory.copy (i32.const 4400) {{"key"}})
        {one} {first} {two} {second}
        (call $limiter.take-all (i32.const 0) (i32.const 4096) (i32.const 2) {{R}})
        (call $tell_byte {{R}}) (call $tell_number (i64.extend_i32_u (i32.load (i32.const 72))))
        (memory.copy (i32.const 5000) (i32.load (i32.const 68)) (i32.const 64)) {level} {next}
        (call $limiter.take-all (i32.const 0) (i32.const 4096) (i32.const 17) {{R}})
        (call $tell_byte {{R}}) (call $tell_byte (i32.const 68))
        (call $limiter.take-all (i32.const 0) (i32.const 4096) (i32.const 0) {{R}})
        (call $tell_byte {{R}}) (call $tell_number (i64.extend_i32_u (i32.load (i32.const 72))))"#,
        one = demand(4096, 4400),
        first = numbers(4096, [1, 10, 1, 1, 0]),
        two = demand(4144, 4400),
        second = numbers(4144, [2, 20, 2, 2, 5]),
        level = tell_level(5000),
        next = tell_level(5032),
    );
    both(
        &head(&body),
        Phase::RequestHead,
        &[
            "0", "2", "1", "9", "2", "0", "1", "18", "4", "5", "1", "0", "0", "0",
        ],
    );
}

#[test]
fn an_exchange_is_in_flight_until_it_ends_and_counts_once() {
    let guest = head(
        r#"(call $limiter.enter (i32.const 0) {"key"} (i32.const 2) {R})
        (call $tell_byte {R}) (call $tell_byte (i32.const 68)) (call $tell_byte (i32.const 72))
        (call $limiter.enter (i32.const 0) {"key"} (i32.const 2) {R})
        (call $tell_byte (i32.const 68)) (call $tell_byte (i32.const 72))
        (call $limiter.enter (i32.const 1) {"other"} (i32.const 1) {R})
        (call $tell_byte {R}) (call $tell_byte (i32.const 68)) (call $tell_byte (i32.const 72))"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        let expected = ["0", "1", "1", "1", "1", "0", "0", "1"];
        assert_eq!(world.log.take(), expected, "{carrier:?}");
        assert_eq!(world.limiter.in_flight(), 1);
        exchange.borrow_mut().pace.end();
        assert_eq!(world.limiter.in_flight(), 0, "{carrier:?}");
    }
}
