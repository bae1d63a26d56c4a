//! Cross-origin requests through the filter, on the SDK's mock host: the whole matrix.

use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Answered, Harness, Request, Responded, Response};

use crate::Headers;

const APP: &str = "https://app.example";

fn harness(cors: &Value) -> Harness<Headers> {
    Harness::new(json!({"cors": cors})).unwrap()
}

fn preflight(cors: &Value, fields: &[(&str, &str)]) -> Option<Answered> {
    let mut request = Request::new("OPTIONS", "/a");
    for (name, value) in fields {
        request = request.field(name, value);
    }
    harness(cors).request(request).answer
}

fn response(cors: &Value, origin: Option<&str>, upstream: Response) -> Responded {
    let mut request = Request::get("/a");
    if let Some(origin) = origin {
        request = request.field("origin", origin);
    }
    let mut harness = harness(cors);
    let mut outcome = harness.request(request);
    assert_eq!(outcome.answer, None);
    harness.respond(&mut outcome, upstream)
}

fn allowed(origins: Value, origin: &str) -> bool {
    let responded = response(
        &json!({"origins": origins}),
        Some(origin),
        Response::new(200),
    );
    let said = responded.field("access-control-allow-origin");
    assert!(
        said.as_deref()
            .is_none_or(|said| said == origin || said == "*")
    );
    said.is_some()
}

#[test]
fn origins_are_whole_ones_or_patterns() {
    for (origins, yes, no) in [
        (
            json!([APP, "http://localhost:*"]),
            vec![APP, "http://localhost:3000", "http://localhost:1"],
            vec![
                "http://app.example",
                "https://app.example:444",
                "https://app.example.evil",
                "null",
                "http://localhost:1.evil.example",
                "http://localhost",
            ],
        ),
        (
            json!("https://*.example.com"),
            vec!["https://a.example.com", "https://a.b.example.com"],
            vec![
                "https://example.com",
                "https://evil.com/.example.com",
                "https://evil.com?.example.com",
                "https://evil.com:80.example.com",
                "https://u@.example.com",
                "https://evil.com#a.example.com",
                "http://a.example.com",
                "https://*.example.com",
            ],
        ),
        (
            json!(["~https://(a|b)\\.example"]),
            vec!["https://a.example", "https://b.example"],
            vec![
                "https://a.example.evil",
                "https://c.example",
                "xhttps://a.example",
            ],
        ),
        (
            json!("*"),
            vec![APP, "null", "https://anything.example"],
            vec![],
        ),
        (json!(["null"]), vec!["null"], vec![APP, "NULL"]),
        (
            json!("http://[::1]:8080"),
            vec!["http://[::1]:8080"],
            vec!["http://[::1]"],
        ),
    ] {
        for origin in yes {
            assert!(allowed(origins.clone(), origin), "{origins} {origin}");
        }
        for origin in no {
            assert!(!allowed(origins.clone(), origin), "{origins} {origin}");
        }
    }
}

#[test]
fn a_preflight_is_answered_for_what_is_allowed_only() {
    let cors = json!({
        "origins": [APP], "methods": ["GET", "PUT"], "headers": ["X-Token", "content-type"], "max-age": 600,
    });
    let ask = |method: &str, headers: &str| {
        preflight(
            &cors,
            &[
                ("origin", APP),
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ],
        )
        .unwrap()
    };
    let answer = ask("PUT", "x-token,content-type");
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", Some(APP)),
        ("access-control-allow-methods", Some("GET, PUT")),
        (
            "access-control-allow-headers",
            Some("X-Token, content-type"),
        ),
        ("access-control-max-age", Some("600")),
        ("access-control-allow-credentials", None),
        ("access-control-allow-private-network", None),
    ] {
        assert_eq!(answer.field(name).as_deref(), value, "{name}");
    }
    let vary = answer.field("vary").unwrap();
    for word in [
        "origin",
        "request-method",
        "request-headers",
        "private-network",
    ] {
        assert!(vary.contains(word), "{vary}");
    }
    for (method, headers) in [
        ("DELETE", ""),
        ("put", ""),
        ("PUT", "x-other"),
        ("PUT", "x-token, x-other"),
    ] {
        let answer = ask(method, headers);
        assert_eq!(answer.status, 403, "{method} {headers}");
        assert_eq!(answer.field("access-control-allow-origin"), None);
        assert!(answer.field("vary").is_some());
    }
    let foreign = [
        ("origin", "https://evil.example"),
        ("access-control-request-method", "GET"),
    ];
    assert_eq!(preflight(&cors, &foreign).unwrap().status, 403);
    // An OPTIONS request that is no preflight is the upstream's.
    assert_eq!(preflight(&cors, &[("origin", APP)]), None);
    assert_eq!(
        preflight(&cors, &[("access-control-request-method", "GET")]),
        None
    );
    let passed = json!({"origins": [APP], "pass-preflight": true});
    assert_eq!(
        preflight(
            &passed,
            &[("origin", APP), ("access-control-request-method", "GET")]
        ),
        None
    );
}

#[test]
fn stars_become_what_was_asked() {
    let cors = json!({"origins": [APP], "methods": ["*"], "headers": ["*"], "credentials": true, "private-network": true});
    let answer = preflight(
        &cors,
        &[
            ("origin", APP),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "x-a, x-b"),
            ("access-control-request-private-network", "true"),
        ],
    )
    .unwrap();
    for (name, value) in [
        ("access-control-allow-methods", "PATCH"),
        ("access-control-allow-headers", "x-a, x-b"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-private-network", "true"),
    ] {
        assert_eq!(answer.field(name).as_deref(), Some(value), "{name}");
    }
    let closed = json!({"origins": [APP]});
    let private = preflight(
        &closed,
        &[
            ("origin", APP),
            ("access-control-request-method", "GET"),
            ("access-control-request-private-network", "true"),
        ],
    );
    assert_eq!(private.unwrap().status, 403);
}

#[test]
fn what_the_upstream_says_is_replaced_and_caches_are_told() {
    let cors = json!({"origins": [APP], "credentials": true, "expose": ["x-total"]});
    let upstream = || {
        Response::new(200)
            .field("access-control-allow-origin", "*")
            .field("access-control-allow-methods", "TRACE")
            .field("vary", "accept-encoding")
    };
    let good = response(&cors, Some(APP), upstream());
    assert_eq!(
        good.field("access-control-allow-origin").as_deref(),
        Some(APP)
    );
    assert_eq!(
        good.field("access-control-allow-credentials").as_deref(),
        Some("true")
    );
    assert_eq!(
        good.field("access-control-expose-headers").as_deref(),
        Some("x-total")
    );
    assert_eq!(good.field("access-control-allow-methods"), None);
    for origin in [Some(APP), Some("https://evil.example"), None] {
        let said = response(&cors, origin, upstream());
        let vary: Vec<_> = said
            .fields
            .iter()
            .filter(|(name, _)| name == "vary")
            .collect();
        assert_eq!(vary.len(), 2, "{vary:?}");
        let own = said.field("access-control-allow-origin");
        assert_eq!(own.is_some(), origin == Some(APP), "{own:?}");
    }
    for line in ["Origin", "*", "accept, ORIGIN"] {
        let said = response(&cors, Some(APP), Response::new(200).field("vary", line));
        assert_eq!(
            said.fields
                .iter()
                .filter(|(name, _)| name == "vary")
                .count(),
            1
        );
    }
    // The answer for all is the same for all.
    let open = response(&json!({"origins": ["*"]}), Some(APP), Response::new(200));
    assert_eq!(
        open.field("access-control-allow-origin").as_deref(),
        Some("*")
    );
    assert_eq!(open.field("vary"), None);
}

#[test]
fn foreign_requests_can_be_refused() {
    let mut harness = harness(&json!({"origins": [APP], "refuse": true}));
    let mut status = |origins: &[&str]| {
        let mut request = Request::post("/a", b"x");
        for origin in origins {
            request = request.field("origin", origin);
        }
        harness.request(request).answer.map(|answer| answer.status)
    };
    assert_eq!(status(&[]), None);
    assert_eq!(status(&[APP]), None);
    assert_eq!(status(&["https://evil.example"]), Some(403));
    assert_eq!(status(&[APP, APP]), Some(403));
}

#[test]
fn a_condition_on_the_path_holds_in_both_phases() {
    let mut harness = Harness::<Headers>::new(json!({
        "cors": {"when": {"path": "/api/*"}, "origins": [APP]},
        "path": {"strip-prefix": "/api"},
    }))
    .unwrap();
    for (path, expected) in [("/api/a", true), ("/a", false)] {
        let mut outcome = harness.request(Request::get(path).field("origin", APP));
        let said = harness.response(&mut outcome, 200, &[], b"");
        assert_eq!(
            said.field("access-control-allow-origin").is_some(),
            expected,
            "{path}"
        );
    }
}

#[test]
fn mistakes_are_told_at_their_key() {
    for (cors, words) in [
        (json!({}), "`cors.origins`: there is none"),
        (
            json!({"origins": ["*"], "credentials": true}),
            "any page could act as its visitor",
        ),
        (
            json!({"origins": ["app.example"]}),
            "`cors.origins[0]`: `app.example` is no origin",
        ),
        (
            json!({"origins": "https://app.example/"}),
            "`cors.origins`: `https://app.example/` is no origin",
        ),
        (json!({"origins": ["https://App.example"]}), "is no origin"),
        (
            json!({"origins": [APP], "methods": ["GE T"]}),
            "`cors.methods[0]`",
        ),
        (
            json!({"origins": [APP], "expose": ["*"], "credentials": true}),
            "`cors.expose`: with `credentials`",
        ),
        (json!({"origins": ["~("]}), "is no pattern"),
        (
            json!({"origins": [APP], "when": {"status": 200}}),
            "`cors.when.status`",
        ),
    ] {
        let error = Harness::<Headers>::new(json!({"cors": cors}))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}
