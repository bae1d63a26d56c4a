//! Costs, waiting, requests in flight, the look of answers, and what happens without a store.

use super::*;

#[test]
fn a_request_costs_what_is_written_or_what_its_field_says() {
    let mut harness = limit(json!({"rules": [{"rate": 10, "per": "hour", "cost": 4}]}));
    assert!(passes(&mut harness, Request::get("/")));
    assert!(passes(&mut harness, Request::get("/")));
    assert!(!passes(&mut harness, Request::get("/")));

    let mut harness = limit(json!({"rules": [
        {"rate": 10, "per": "hour", "cost": "request:x-cost", "default-cost": 2, "max-cost": 5},
    ]}));
    let mut left = |cost: &str| {
        let request = Request::get("/").field("x-cost", cost);
        let mut outcome = harness.request(request);
        let response = harness.response(&mut outcome, 200, &[], b"");
        harness.end(outcome);
        response
            .field("ratelimit")
            .map(|shown| shown.split(['=', ';']).nth(2).unwrap().to_owned())
    };
    assert_eq!(left("3").as_deref(), Some("7"));
    // No number costs the default, and too much the most.
    assert_eq!(left("many").as_deref(), Some("5"));
    assert_eq!(left("99999999999999999999").as_deref(), Some("0"));
    assert!(!passes(
        &mut harness,
        Request::get("/").field("x-cost", "0")
    ));
}

#[test]
fn what_a_response_says_that_it_cost_is_taken_afterwards() {
    let mut harness = limit(json!({"rules": [
        {"name": "tokens", "rate": 100, "per": "minute", "cost": "response:X-Tokens-Used", "default-cost": 10},
    ]}));
    let mut respond = |tokens: Option<&str>| {
        let mut outcome = harness.request(Request::get("/"));
        if let Some(answer) = outcome.answer.take() {
            harness.end(outcome);
            return Err(answer);
        }
        let response = match tokens {
            Some(tokens) => harness.response(&mut outcome, 200, &[("x-tokens-used", tokens)], b""),
            None => harness.response(&mut outcome, 502, &[], b""),
        };
        harness.end(outcome);
        Ok(response.field("ratelimit").unwrap())
    };
    assert_eq!(respond(Some("30")).unwrap(), "\"tokens\";r=70;t=18");
    assert_eq!(respond(Some("0")).unwrap(), "\"tokens\";r=70;t=18");
    assert_eq!(respond(None).unwrap(), "\"tokens\";r=60;t=24");
    // As long as anything is left the next one passes, whatever it will cost: the bucket goes into debt.
    assert_eq!(respond(Some("160")).unwrap(), "\"tokens\";r=0;t=120");
    let refused = respond(Some("1")).unwrap_err();
    assert_eq!(refused.status, 429);
    // A hundred tokens of debt and one that is there: 101 times 0.6 s.
    assert_eq!(refused.field("retry-after").as_deref(), Some("61"));
    harness.advance(Duration::from_millis(60_600));
    assert!(passes(&mut harness, Request::get("/")));
}

#[test]
fn a_client_that_goes_away_pays_what_a_silent_response_costs() {
    let mut harness = limit(json!({"rules": [
        {"rate": 1, "per": "hour", "cost": "response:x-used", "default-cost": 1},
    ]}));
    let outcome = harness.request(Request::get("/"));
    assert!(outcome.answer.is_none());
    harness.end(outcome);
    assert!(!passes(&mut harness, Request::get("/")));
}

#[test]
fn a_delay_spreads_a_burst_and_refuses_what_would_wait_longer() {
    let mut harness = limit(json!({"rules": [{"rate": 10, "burst": 2, "delay": "300ms"}]}));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let outcome = harness.request(Request::get("/"));
        waits.push(
            outcome
                .answer
                .as_ref()
                .map_or(Ok(outcome.delay_ms), |answer| Err(answer.status)),
        );
        harness.end(outcome);
    }
    assert_eq!(waits, [Ok(0), Ok(0), Ok(100), Ok(200), Ok(300), Err(429)]);
    assert_eq!(harness.metric("delayed_total,rule=default"), Some(3.0));
    // Nobody is told of more than the burst.
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(
        refused.field("ratelimit").as_deref(),
        Some("\"default\";r=0;t=1")
    );
    harness.advance(Duration::from_millis(400));
    let outcome = harness.request(Request::get("/"));
    assert_eq!(outcome.delay_ms, 0, "{:?}", outcome.answer);
}

#[test]
fn rates_that_do_not_divide_wait_no_moment_too_many() {
    for rate in [3, 7, 333] {
        let mut harness = limit(json!({"rules": [{"rate": rate, "burst": 3, "delay": "1s"}]}));
        for _ in 0..3 {
            assert_eq!(harness.request(Request::get("/")).delay_ms, 0, "{rate}");
        }
        assert!(harness.request(Request::get("/")).delay_ms > 0, "{rate}");
    }
}

#[test]
fn requests_in_flight_are_bounded_and_given_back_when_they_end() {
    let mut harness = limit(json!({"rules": [
        {"name": "flying", "concurrent": 2, "key": "consumer", "quotas": [{"consumer": "ada", "concurrent": 3}]},
    ]}));
    let request = |name: &str| Request::get("/").property("consumer", name);
    let mut first = harness.request(request("bob"));
    assert!(first.answer.is_none());
    let response = harness.response(&mut first, 200, &[], b"");
    assert_eq!(
        response.field("ratelimit").as_deref(),
        Some("\"flying\";r=1")
    );
    assert_eq!(
        response.field("ratelimit-policy").as_deref(),
        Some("\"flying\";q=2;qu=\"concurrent-requests\"")
    );
    let second = harness.request(request("bob"));
    assert!(second.answer.is_none());
    let refused = answer(&mut harness, request("bob")).unwrap();
    assert_eq!(
        (refused.status, refused.field("retry-after").as_deref()),
        (429, Some("1"))
    );
    assert_eq!(
        refused.field("ratelimit").as_deref(),
        Some("\"flying\";r=0")
    );
    let ada: Vec<_> = (0..4).map(|_| harness.request(request("ada"))).collect();
    assert_eq!(
        ada.iter()
            .filter(|outcome| outcome.answer.is_none())
            .count(),
        3
    );
    harness.end(first);
    assert!(passes(&mut harness, request("bob")));
    harness.end(second);
    for outcome in ada {
        harness.end(outcome);
    }
}

#[test]
fn a_refusal_looks_as_configured() {
    let mut harness = limit(json!({
        "rules": [
            {"name": "a", "rate": 1, "per": "hour", "methods": ["GET"]},
            {"name": "b", "rate": 1, "per": "hour", "methods": ["POST"]},
        ],
        "answer": {
            "status": 503, "body": "{\"slow\":\"down\"}", "content-type": "application/json",
            "fields": {"X-Why": "too fast"},
        },
        "quota-fields": "both",
    }));
    assert!(passes(&mut harness, Request::get("/")));
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (503, "{\"slow\":\"down\"}")
    );
    assert_eq!(
        refused.field("content-type").as_deref(),
        Some("application/json")
    );
    assert_eq!(refused.field("x-why").as_deref(), Some("too fast"));
    assert_eq!(refused.field("x-ratelimit-limit").as_deref(), Some("1"));
    assert_eq!(refused.field("x-ratelimit-remaining").as_deref(), Some("0"));
    assert_eq!(refused.field("x-ratelimit-reset").as_deref(), Some("3600"));
}

#[test]
fn grpc_and_json_clients_are_answered_in_their_own_words() {
    let mut harness = limit(json!({"rate": 1, "per": "hour", "answer": {"status": 403}}));
    let call = || Request::post("/a.B/C", b"").field("content-type", "application/grpc+proto");
    assert!(passes(&mut harness, call()));
    let refused = answer(&mut harness, call()).unwrap();
    assert_eq!(refused.status, 200);
    assert_eq!(refused.field("grpc-status").as_deref(), Some("8"));
    assert_eq!(
        refused.field("content-type").as_deref(),
        Some("application/grpc")
    );
    assert!(refused.body.is_empty() && refused.field("retry-after").is_some());

    let refused = answer(
        &mut harness,
        Request::get("/").field("accept", "application/json, */*"),
    )
    .unwrap();
    assert_eq!(
        refused.field("content-type").as_deref(),
        Some("application/problem+json")
    );
    let problem: Value = tidegate_sdk::serde_json::from_str(&refused.text()).unwrap();
    assert_eq!(problem["status"], 403);
    assert_eq!(problem["violated-policies"], json!(["default"]));
}

#[test]
fn clients_are_told_what_the_operator_wants() {
    for (kinds, standard, older) in [
        ("ratelimit", true, false),
        ("x-ratelimit", false, true),
        ("both", true, true),
        ("none", false, false),
    ] {
        let mut harness = limit(json!({"rate": 5, "per": "minute", "quota-fields": kinds}));
        let mut outcome = harness.request(Request::get("/"));
        let response = harness.response(&mut outcome, 200, &[], b"");
        harness.end(outcome);
        assert_eq!(response.field("ratelimit").is_some(), standard, "{kinds}");
        assert_eq!(
            response.field("ratelimit-policy").is_some(),
            standard,
            "{kinds}"
        );
        assert_eq!(
            response.field("x-ratelimit-limit").as_deref(),
            older.then_some("5"),
            "{kinds}"
        );
        assert_eq!(
            response.field("x-ratelimit-remaining").as_deref(),
            older.then_some("4"),
            "{kinds}"
        );
        assert_eq!(
            response.field("x-ratelimit-reset").as_deref(),
            older.then_some("12"),
            "{kinds}"
        );
        let refused = (0..5)
            .find_map(|_| answer(&mut harness, Request::get("/")))
            .unwrap();
        assert_eq!(refused.field("ratelimit").is_some(), standard, "{kinds}");
        assert!(refused.field("retry-after").is_some(), "{kinds}");
    }
    // Another filter's share of the list stays.
    let mut harness = limit(json!({"rate": 5}));
    let mut outcome = harness.request(Request::get("/"));
    let response = harness.response(
        &mut outcome,
        200,
        &[("ratelimit", "\"inner\";r=1;t=1")],
        b"",
    );
    let all = response
        .fields
        .iter()
        .filter(|(name, _)| name == "ratelimit");
    assert_eq!(all.count(), 2);
}

#[test]
fn without_a_store_the_operators_choice_holds() {
    let config = |failure: &str| {
        limit(json!({
            "store-failure": failure,
            "rules": [
                {"name": "day", "rate": 2, "per": "day", "count-in": "store"},
                {"name": "fast", "rate": 100, "per": "hour"},
            ],
        }))
    };
    let mut harness = config("local");
    harness.limiter_down(true);
    assert_eq!(
        (0..5)
            .filter(|_| passes(&mut harness, Request::get("/")))
            .count(),
        2
    );
    assert_eq!(
        harness.metric("store_unavailable_total,rule=day"),
        Some(5.0)
    );
    // Back again, it counts there, where nothing was taken.
    harness.limiter_down(false);
    assert!(passes(&mut harness, Request::get("/")));

    let mut harness = config("open");
    harness.limiter_down(true);
    assert_eq!(
        (0..5)
            .filter(|_| passes(&mut harness, Request::get("/")))
            .count(),
        5
    );

    let mut harness = config("closed");
    harness.limiter_down(true);
    let refused = answer(&mut harness, Request::get("/")).unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.field("ratelimit"), None);
    // What the other rule had taken is given back.
    harness.limiter_down(false);
    let mut outcome = harness.request(Request::get("/"));
    let response = harness.response(&mut outcome, 200, &[], b"");
    assert!(
        response
            .field("ratelimit")
            .unwrap()
            .contains("\"fast\";r=99;"),
        "{response:?}"
    );
}

#[test]
fn a_refusal_in_the_store_gives_back_what_was_taken_here() {
    let mut harness = limit(json!({"rules": [
        {"name": "here", "rate": 100, "per": "hour"},
        {"name": "there", "rate": 2, "per": "day", "count-in": "store"},
    ]}));
    for _ in 0..2 {
        assert!(passes(&mut harness, Request::get("/")));
    }
    for _ in 0..5 {
        assert!(!passes(&mut harness, Request::get("/")));
    }
    harness.advance(Duration::from_secs(86_400 - 3_600));
    let mut outcome = harness.request(Request::get("/"));
    let response = harness.response(&mut outcome, 200, &[], b"");
    assert!(
        response
            .field("ratelimit")
            .unwrap()
            .contains("\"here\";r=99;"),
        "{response:?}"
    );
}
