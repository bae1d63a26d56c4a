//! What single steps of a request's way cost. `cargo xtask bench --micro` holds the results against `baseline.json`, in
//! proportion to [`calibration`], so that another machine may compare too. Names are flat and unique, because they are
//! the keys in that file.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that does not do its work must not go on"
)]

mod guests;

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use divan::Bencher;
use http::{HeaderMap, Method};
use tidegate_core::clock::SystemClock;
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::path::{Ambiguous, normalise};
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::services::{Limiter as _, Store as _};
use tidegate_core::usage::Isolation;
use tidegate_gateway::probe::Routes;
use tidegate_gateway::state::{MemoryStore, TokenBuckets};
use tidegate_gateway::{HostPattern, PathPattern, RouteSpec};

use self::guests::{Carrier, GET, GET_AND_SET, NOTHING, enter, exchange, filters};

fn main() {
    divan::main();
}

/// Work that depends on nothing of ours: FNV-1a of 4 KiB.
#[divan::bench]
fn calibration(bencher: Bencher<'_, '_>) {
    let bytes = vec![7_u8; 4096];
    bencher.bench_local(|| {
        black_box(&bytes)
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    });
}

// --- Paths and routes ---

#[divan::bench]
fn path_plain() -> bool {
    normalise(black_box("/v1/users/12345/orders"), Ambiguous::Refuse).is_ok()
}

#[divan::bench]
fn path_spelled_differently() -> bool {
    normalise(
        black_box("/v1//us%65rs/./12345/../12345/%c3%a9"),
        Ambiguous::Refuse,
    )
    .is_ok()
}

/// A thousand routes, of which some hosts and paths begin alike.
fn thousand() -> Routes {
    let mut specs = Vec::new();
    for number in 0..250 {
        for (host, path) in [
            ("a.example", format!("/api/r{number}/{{id}}/x")),
            ("*.example", format!("/api/r{number}/{{id}}/x")),
            ("", format!("/api/r{number}/{{id}}")),
            ("", format!("/files/r{number}/*")),
        ] {
            specs.push(RouteSpec {
                name: Arc::from(format!("{host}{path}")),
                host: match host {
                    "" => HostPattern::Any,
                    host => HostPattern::parse(host).expect("a host"),
                },
                path: PathPattern::parse(&path).expect("a pattern"),
                methods: Vec::new(),
                headers: Vec::new(),
                upstream: None,
                filters: Vec::new(),
                preserve_host: true,
                server_timing: false,
            });
        }
    }
    Routes::new(specs).expect("no two alike")
}

fn find(bencher: Bencher<'_, '_>, host: &str, path: &str, there: bool) {
    let (routes, fields) = (thousand(), HeaderMap::new());
    let find = || {
        routes
            .find(black_box(host), black_box(path), &Method::GET, &fields)
            .is_some()
    };
    assert_eq!(find(), there, "{host}{path}");
    bencher.bench_local(find);
}

#[divan::bench]
fn route_of_1000_by_host(bencher: Bencher<'_, '_>) {
    find(bencher, "a.example", "/api/r249/7/x", true);
}

#[divan::bench]
fn route_of_1000_by_suffix_then_any(bencher: Bencher<'_, '_>) {
    find(bencher, "b.example", "/files/r17/a/b/c", true);
}

#[divan::bench]
fn route_of_1000_none(bencher: Bencher<'_, '_>) {
    find(bencher, "b.example", "/other/r17/a/b/c", false);
}

// --- Shared state ---

#[divan::bench]
fn store_get(bencher: Bencher<'_, '_>) {
    let store = MemoryStore::new(Arc::new(SystemClock), 1 << 20);
    store.set("a", "key", "value".into(), None).expect("room");
    bencher.bench_local(|| store.get(black_box("a"), black_box("key")));
}

#[divan::bench]
fn store_set(bencher: Bencher<'_, '_>) {
    let store = MemoryStore::new(Arc::new(SystemClock), 1 << 20);
    bencher.bench_local(|| store.set(black_box("a"), black_box("key"), "value".into(), None));
}

#[divan::bench]
fn store_increment(bencher: Bencher<'_, '_>) {
    let store = MemoryStore::new(Arc::new(SystemClock), 1 << 20);
    bencher.bench_local(|| store.increment(black_box("a"), black_box("key"), 1, None));
}

#[divan::bench]
fn limiter_take(bencher: Bencher<'_, '_>) {
    let limiter = TokenBuckets::new(Arc::new(SystemClock));
    bencher.bench_local(|| limiter.take(black_box("a"), black_box("key"), 1, 1e9, 1_000_000));
}

// --- Filters ---

/// Calls a phase of every filter.
fn pass(filters: &[Rc<dyn Filter>], phase: Phase, exchange: &SharedExchange) {
    for filter in filters {
        match filter.call(phase, true, exchange) {
            Outcome::Ready(Ok(Flow::Continue)) => {}
            _ => panic!("a filter that does nothing goes on"),
        }
    }
}

/// So many filters with this code in their request head.
fn chain(bencher: Bencher<'_, '_>, carrier: Carrier, code: &str, count: usize) {
    let filters = filters(carrier, code, Isolation::Shared, count);
    let exchange = exchange(1);
    bencher.bench_local(|| {
        enter(&exchange, Phase::RequestHead);
        pass(&filters, Phase::RequestHead, &exchange);
    });
}

#[divan::bench]
fn filters_core_1(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Core, NOTHING, 1);
}

#[divan::bench]
fn filters_core_3(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Core, NOTHING, 3);
}

#[divan::bench]
fn filters_core_10(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Core, NOTHING, 10);
}

#[divan::bench]
fn filters_component_1(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Component, NOTHING, 1);
}

#[divan::bench]
fn filters_component_3(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Component, NOTHING, 3);
}

#[divan::bench]
fn filters_component_10(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Component, NOTHING, 10);
}

#[divan::bench]
fn field_get_core(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Core, GET, 1);
}

#[divan::bench]
fn field_get_and_set_core(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Core, GET_AND_SET, 1);
}

#[divan::bench]
fn field_get_component(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Component, GET, 1);
}

#[divan::bench]
fn field_get_and_set_component(bencher: Bencher<'_, '_>) {
    chain(bencher, Carrier::Component, GET_AND_SET, 1);
}

/// An exchange with an instance of its own: made, called twice, taken back or thrown away.
fn own_instance(bencher: Bencher<'_, '_>, carrier: Carrier, isolation: Isolation) {
    let filters = filters(carrier, NOTHING, isolation, 1);
    let mut id = 0;
    bencher
        .with_inputs(|| {
            id += 1;
            exchange(id)
        })
        .bench_local_values(|exchange| {
            enter(&exchange, Phase::RequestHead);
            pass(&filters, Phase::RequestHead, &exchange);
            enter(&exchange, Phase::Log);
            pass(&filters, Phase::Log, &exchange);
            exchange
        });
}

#[divan::bench]
fn instance_exclusive_core(bencher: Bencher<'_, '_>) {
    own_instance(bencher, Carrier::Core, Isolation::Exclusive);
}

#[divan::bench]
fn instance_fresh_core(bencher: Bencher<'_, '_>) {
    own_instance(bencher, Carrier::Core, Isolation::Fresh);
}

#[divan::bench]
fn instance_fresh_component(bencher: Bencher<'_, '_>) {
    own_instance(bencher, Carrier::Component, Isolation::Fresh);
}
