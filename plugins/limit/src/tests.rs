//! The whole filter against the SDK's mock of the host: what passes, what is refused, and what clients are told.

use std::time::Duration;

use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Answered, Harness, Request, Response};

use super::*;

mod configuration;
mod model;
mod more;

fn limit(config: Value) -> Harness<Limit> {
    Harness::new(config).unwrap()
}

/// The answer in place of the upstream's, after which the exchange is over.
fn answer(harness: &mut Harness<Limit>, request: Request) -> Option<Answered> {
    let mut outcome = harness.request(request);
    let answer = outcome.answer.take();
    harness.end(outcome);
    answer
}

fn passes(harness: &mut Harness<Limit>, request: Request) -> bool {
    answer(harness, request).is_none()
}

fn from(client: &str) -> Request {
    Request::get("/").client(client)
}

#[test]
fn ten_a_second_with_a_burst_of_five() {
    let mut harness = limit(json!({"rate": 10, "burst": 5}));
    for left in (0..5).rev() {
        let mut outcome = harness.request(Request::get("/"));
        assert!(outcome.answer.is_none());
        let response = harness.response(&mut outcome, 200, &[], b"");
        let shown = response.field("ratelimit").unwrap();
        assert!(
            shown.starts_with(&format!("\"default\";r={left};t=1")),
            "{shown}"
        );
        assert_eq!(
            response.field("ratelimit-policy").as_deref(),
            Some("\"default\";q=5;w=1")
        );
        harness.end(outcome);
    }
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
    assert_eq!(
        refused.field("ratelimit").as_deref(),
        Some("\"default\";r=0;t=1")
    );
    assert_eq!(
        refused.field("ratelimit-policy").as_deref(),
        Some("\"default\";q=5;w=1")
    );
    assert_eq!(refused.text(), "too many requests\n");
    // What was refused has taken nothing: after a tenth of a second exactly one passes, and not a moment before.
    harness.advance(Duration::from_nanos(99_999_999));
    assert!(!passes(&mut harness, Request::get("/")));
    harness.advance(Duration::from_nanos(1));
    assert!(passes(&mut harness, Request::get("/")));
    assert!(!passes(&mut harness, Request::get("/")));
    // Thirty years are no more than a burst.
    harness.advance(Duration::from_secs(1_000_000_000));
    for _ in 0..5 {
        assert!(passes(&mut harness, Request::get("/")));
    }
    assert!(!passes(&mut harness, Request::get("/")));
    assert_eq!(harness.metric("limited_total,rule=default"), Some(4.0));
    assert_eq!(harness.exchanges(), 0);
}

#[test]
fn one_a_day_and_one_a_month_are_exact() {
    for (per, seconds) in [
        ("day", 86_400),
        ("week", 604_800),
        ("month", 2_592_000),
        ("90d", 7_776_000),
    ] {
        let mut harness = limit(json!({"rate": 1, "per": per}));
        assert!(passes(&mut harness, Request::get("/")));
        let refused = answer(&mut harness, Request::get("/")).unwrap();
        assert_eq!(
            refused.field("retry-after"),
            Some(seconds.to_string()),
            "{per}"
        );
        harness.advance(Duration::from_secs(seconds) - Duration::from_nanos(1));
        assert!(!passes(&mut harness, Request::get("/")), "{per}");
        harness.advance(Duration::from_nanos(1));
        assert!(passes(&mut harness, Request::get("/")), "{per}");
    }
}

#[test]
fn a_calendars_quota_comes_back_when_the_day_begins() {
    let mut harness = limit(json!({"rules": [{"rate": 3, "per": "day", "refill": "calendar"}]}));
    // 2026-01-01T00:00:00Z and 18 hours.
    harness.advance(Duration::from_secs(18 * 3_600));
    for _ in 0..3 {
        assert!(passes(&mut harness, Request::get("/")));
    }
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(refused.field("retry-after").as_deref(), Some("21600"));
    assert_eq!(
        refused.field("ratelimit").as_deref(),
        Some("\"default\";r=0;t=21600")
    );
    assert_eq!(
        refused.field("ratelimit-policy").as_deref(),
        Some("\"default\";q=3;w=86400")
    );
    harness.advance(Duration::from_secs(6 * 3_600) - Duration::from_millis(1));
    assert!(!passes(&mut harness, Request::get("/")));
    harness.advance(Duration::from_millis(1));
    for _ in 0..3 {
        assert!(passes(&mut harness, Request::get("/")));
    }
    assert!(!passes(&mut harness, Request::get("/")));
}

#[test]
fn clients_have_buckets_of_their_own() {
    let mut harness = limit(json!({"rate": 1}));
    assert!(passes(&mut harness, from("192.0.2.1")));
    assert!(passes(&mut harness, from("192.0.2.2")));
    assert!(!passes(&mut harness, from("192.0.2.1")));
    assert!(!passes(&mut harness, from("::ffff:192.0.2.1")));
    assert!(passes(&mut harness, from("2001:db8::1")));
    assert!(!passes(&mut harness, from("2001:db8::2")));
    assert!(passes(&mut harness, from("2001:db8:0:1::1")));
    let mut harness = limit(json!({"rate": 1, "ipv4-prefix": 24, "ipv6-prefix": 128}));
    assert!(passes(&mut harness, from("192.0.2.1")));
    assert!(!passes(&mut harness, from("192.0.2.2")));
    assert!(passes(&mut harness, from("2001:db8::1")));
    assert!(passes(&mut harness, from("2001:db8::2")));
    assert!(!passes(&mut harness, from("2001:db8::2")));
}

#[test]
fn every_key_tells_its_requests_apart() {
    let get = || Request::get("/");
    for (key, one, other) in [
        (
            "consumer",
            get().property("consumer", "ada"),
            get().property("consumer", "bob"),
        ),
        (
            "role",
            get().property("roles", "a,b"),
            get().property("roles", "b,a"),
        ),
        ("route", get().route("a"), get().route("b")),
        (
            "host",
            get().authority("a.example"),
            get().authority("b.example"),
        ),
        ("method", get(), Request::new("HEAD", "/")),
        (
            "header:X-Tenant",
            get().field("x-tenant", "a"),
            get().field("x-tenant", "b"),
        ),
        ("query:k", Request::get("/?k=a"), Request::get("/?k=b")),
        (
            "cookie:sid",
            get().field("cookie", "x=1; sid=a"),
            get().field("cookie", "sid=b"),
        ),
        (
            "claim:sub",
            get().property("claim.sub", "a"),
            get().property("claim.sub", "b"),
        ),
        ("param:id", get().param("id", "7"), get().param("id", "8")),
        (
            "property:p",
            get().property("p", "7"),
            get().property("p", "8"),
        ),
    ] {
        let mut harness = limit(json!({"rate": 1, "per": "hour", "key": key}));
        assert!(passes(&mut harness, one.clone()), "{key}");
        assert!(
            !passes(&mut harness, one.clone().client("192.0.2.77")),
            "{key}"
        );
        assert!(passes(&mut harness, other.clone()), "{key}");
        assert!(!passes(&mut harness, other.clone()), "{key}");
    }
    let mut harness = limit(json!({"rate": 1, "per": "hour", "key": "constant"}));
    assert!(passes(&mut harness, from("192.0.2.1")));
    assert!(!passes(&mut harness, from("192.0.2.2")));
}

#[test]
fn joined_keys_differ_if_any_part_does() {
    let mut harness = limit(json!({"rate": 1, "per": "hour", "key": ["route", "header:x-tenant"]}));
    let request =
        |route: &str, tenant: &str| Request::get("/").route(route).field("x-tenant", tenant);
    for (route, tenant) in [("a", "bc"), ("ab", "c"), ("a", "b"), ("abc", "")] {
        assert!(
            passes(&mut harness, request(route, tenant)),
            "{route} {tenant}"
        );
        assert!(
            !passes(&mut harness, request(route, tenant)),
            "{route} {tenant}"
        );
    }
}

#[test]
fn a_request_without_the_key_goes_where_the_operator_says() {
    let config = |missing: &str| {
        limit(
            json!({"rules": [{"rate": 1, "per": "hour", "key": "header:x-tenant", "missing": missing}]}),
        )
    };
    let mut harness = config("client");
    assert!(passes(&mut harness, from("192.0.2.1")));
    assert!(passes(&mut harness, from("192.0.2.2")));
    assert!(!passes(&mut harness, from("192.0.2.1")));
    let mut harness = config("shared");
    assert!(passes(&mut harness, from("192.0.2.1")));
    assert!(!passes(&mut harness, from("192.0.2.2")));
    assert!(passes(
        &mut harness,
        Request::get("/").field("x-tenant", "")
    ));
    let mut harness = config("pass");
    for _ in 0..5 {
        assert!(passes(&mut harness, from("192.0.2.1")));
    }
    // A consumer that auth let pass as nobody is none.
    let mut harness = limit(json!({"rate": 1, "per": "hour", "key": "consumer"}));
    assert!(passes(
        &mut harness,
        from("192.0.2.1").property("consumer", "")
    ));
    assert!(passes(
        &mut harness,
        from("192.0.2.2").property("consumer", "")
    ));
}

#[test]
fn of_several_rules_a_refused_request_takes_nothing() {
    let mut harness = limit(json!({"rules": [
        {"name": "fast", "rate": 2, "per": "second"},
        {"name": "slow", "rate": 3, "per": "hour"},
        {"name": "tenant", "rate": 100, "key": "header:x-tenant"},
    ]}));
    for _ in 0..2 {
        assert!(passes(&mut harness, Request::get("/")));
    }
    // `fast` refuses; `slow` keeps its third token.
    for _ in 0..10 {
        let refused = answer(
            &mut harness,
            Request::get("/").field("accept", "application/json"),
        )
        .unwrap();
        assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
        assert_eq!(
            refused.field("ratelimit").as_deref(),
            Some("\"fast\";r=0;t=1, \"slow\";r=1;t=2400, \"tenant\";r=98;t=1")
        );
        assert!(
            refused.text().contains("\"violated-policies\":[\"fast\"]"),
            "{}",
            refused.text()
        );
    }
    harness.advance(Duration::from_secs(1));
    assert!(passes(&mut harness, Request::get("/")));
    // Now `slow` refuses, and `fast` still has one.
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(refused.field("retry-after").as_deref(), Some("1199"));
    let shown = refused.field("ratelimit").unwrap();
    assert!(shown.starts_with("\"fast\";r=1;"), "{shown}");
    assert_eq!(harness.metric("limited_total,rule=fast"), Some(10.0));
    assert_eq!(harness.metric("limited_total,rule=slow"), Some(1.0));
}

#[test]
fn consumers_and_roles_have_quotas_of_their_own() {
    let mut harness = limit(json!({"rules": [{
        "rate": 1, "per": "hour", "key": "consumer",
        "quotas": [
            {"role": "gold", "rate": 4},
            {"consumer": "ada", "rate": 2, "per": "minute", "burst": 3},
            {"role": "staff", "unlimited": true},
        ],
    }]}));
    let request = |name: &str, roles: &str| {
        Request::get("/")
            .property("consumer", name)
            .property("roles", roles)
    };
    let mut passed = |name: &str, roles: &str| {
        (0..10)
            .filter(|_| passes(&mut harness, request(name, roles)))
            .count()
    };
    assert_eq!(passed("bob", "silver"), 1);
    assert_eq!(passed("cid", "silver, gold"), 4);
    assert_eq!(passed("ada", "gold,staff"), 3);
    assert_eq!(passed("dan", "staff"), 10);
    // Roles are tried in the configuration's order.
    assert_eq!(passed("eve", "staff,gold"), 4);
    let refused = answer(&mut harness, request("ada", "")).unwrap();
    assert_eq!(
        refused.field("ratelimit-policy").as_deref(),
        Some("\"default\";q=3;w=90")
    );
}

#[test]
fn who_is_exempt_is_not_counted() {
    let mut harness = limit(json!({
        "rate": 1, "per": "hour",
        "exempt": {"clients": ["10.0.0.0/8", "2001:db8::1"], "consumers": ["ops"], "roles": ["admin"]},
    }));
    for request in [
        from("10.1.2.3"),
        from("2001:db8::1"),
        from("192.0.2.1").property("consumer", "ops"),
        from("192.0.2.1").property("roles", "user,admin"),
    ] {
        for _ in 0..3 {
            let mut outcome = harness.request(request.clone());
            assert!(outcome.answer.is_none());
            let response = harness.response(&mut outcome, 200, &[], b"");
            assert_eq!(response.field("ratelimit"), None);
            harness.end(outcome);
        }
    }
    assert!(passes(
        &mut harness,
        from("192.0.2.1").field("x-consumer", "ops")
    ));
    assert!(!passes(
        &mut harness,
        from("192.0.2.1").field("x-consumer", "ops")
    ));
}

#[test]
fn a_rule_is_for_its_methods() {
    let mut harness =
        limit(json!({"rules": [{"rate": 1, "per": "hour", "methods": ["POST", "PUT"]}]}));
    assert!(passes(&mut harness, Request::new("POST", "/")));
    assert!(!passes(&mut harness, Request::new("PUT", "/")));
    for _ in 0..3 {
        assert!(passes(&mut harness, Request::get("/")));
    }
}

#[test]
fn a_dry_run_refuses_nobody_and_counts_whom_it_would() {
    let mut harness = limit(json!({"rules": [
        {"name": "trial", "rate": 2, "per": "hour", "dry-run": true},
        {"name": "real", "rate": 4, "per": "hour"},
    ]}));
    let passed = (0..6)
        .filter(|_| passes(&mut harness, Request::get("/")))
        .count();
    assert_eq!(passed, 4);
    assert_eq!(harness.metric("would_limit_total,rule=trial"), Some(2.0));
    assert_eq!(harness.metric("limited_total,rule=real"), Some(2.0));
    // Clients are not told of a trial.
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(
        refused.field("ratelimit-policy").as_deref(),
        Some("\"real\";q=4;w=3600")
    );
    let mut harness = limit(json!({"rate": 1, "dry-run": true}));
    let mut outcome = harness.request(Request::get("/"));
    let response = harness.respond(&mut outcome, Response::new(200));
    assert_eq!(response.field("ratelimit"), None);
    harness.end(outcome);
    assert!(passes(&mut harness, Request::get("/")));
}
