//! The filter as a whole, on the SDK's mock host.

use crate::Headers;
use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Request};
use tidegate_sdk::{CertificateFacts, Phase};

fn headers(config: Value) -> Harness<Headers> {
    Harness::new(config).unwrap()
}

#[test]
fn the_request_is_changed_in_the_stated_order() {
    let mut harness = headers(json!({"request": {
        "remove": ["X-Secret"],
        "rename": {"x-old": "x-new"},
        "set": {"X-Route": "{route}/{param:id}", "x-new2": "{header:x-new}"},
        "append": {"x-new": "more"},
    }}));
    let outcome = harness.request(
        Request::get("/u/7")
            .route("users")
            .param("id", "7")
            .field("x-secret", "1")
            .field("x-secret", "2")
            .field("x-old", "a")
            .field("x-old", "b"),
    );
    assert!(outcome.answer.is_none());
    assert_eq!(outcome.field("x-secret"), None);
    assert_eq!(outcome.field("x-old"), None);
    assert_eq!(outcome.field("x-route").as_deref(), Some("users/7"));
    assert_eq!(outcome.field("x-new2").as_deref(), Some("a"));
    let new: Vec<_> = outcome
        .request
        .fields
        .iter()
        .filter(|(n, _)| n == "x-new")
        .map(|(_, v)| v.as_slice())
        .collect();
    assert_eq!(new, [&b"a"[..], b"b", b"more"]);
}

#[test]
fn the_response_is_changed_with_facts_of_the_request() {
    let mut harness = headers(json!({"response": {
        "remove": ["server"],
        "set": {"x-from": "{client-address}", "x-origin": "{header:origin}", "x-was": "{response:x-is}"},
    }}));
    let mut outcome = harness.request(
        Request::get("/")
            .client("192.0.2.9")
            .field("origin", "https://a.example"),
    );
    let response = harness.response(&mut outcome, 200, &[("server", "x"), ("x-is", "y")], b"");
    let get = |name: &str| {
        response
            .fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    assert_eq!(get("server"), None);
    assert_eq!(get("x-from").as_deref(), Some(&b"192.0.2.9"[..]));
    assert_eq!(get("x-origin").as_deref(), Some(&b"https://a.example"[..]));
    assert_eq!(get("x-was").as_deref(), Some(&b"y"[..]));
}

#[test]
fn mistakes_are_told_at_load() {
    for (config, word) in [
        (json!({"request": {"set": {"host": "a"}}}), "`host`"),
        (
            json!({"response": {"remove": ["Content-Length"]}}),
            "`Content-Length`",
        ),
        (json!({"request": {"set": {"a b": "c"}}}), "`a b`"),
        (
            json!({"request": {"set": {"x": "{nothing}"}}}),
            "`{nothing}`",
        ),
        (
            json!({"request": {"set": {"x": "a\r\nb"}}}),
            "control character",
        ),
        (json!({"path": {"strip-prefix": "api"}}), "`api`"),
        (json!({"requests": {}}), "requests"),
    ] {
        let error = match Harness::<Headers>::new(config.clone()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{config} was accepted"),
        };
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn time_and_the_clients_certificate_are_told() {
    let mut harness = headers(json!({"response": {"set": {
        "x-took": "{duration} {duration:s} {duration:us}",
        "x-who": "{certificate:subject}; {certificate:uri}; {certificate:email|fallback:none}",
        "x-when": "{time} {time:http}",
    }}}));
    let facts = CertificateFacts {
        subject: "CN=ada".to_owned(),
        issuer: "CN=authority".to_owned(),
        serial: "1f".to_owned(),
        not_before: 0,
        not_after: 0,
        sha256: "00".repeat(32),
        dns_names: Vec::new(),
        uris: vec!["spiffe://example/ada".to_owned(), "other".to_owned()],
        emails: Vec::new(),
        ip_addresses: Vec::new(),
    };
    let mut outcome = harness.request(Request::get("/").client_certificate(facts));
    harness.set_wall(1_767_225_599);
    harness.advance(std::time::Duration::from_micros(1_234_567));
    let response = harness.response(&mut outcome, 200, &[], b"");
    for (name, value) in [
        ("x-took", "1234 1.234 1234567"),
        ("x-who", "CN=ada; spiffe://example/ada; none"),
        ("x-when", "1767225600 Thu, 01 Jan 2026 00:00:00 GMT"),
    ] {
        assert_eq!(response.field(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn phases_that_nothing_is_done_in_are_not_asked_for() {
    for (config, request, response) in [
        (json!({}), false, false),
        (json!({"request": {"remove": ["x"]}}), true, false),
        (json!({"path": {"add-prefix": "/a"}}), true, false),
        (json!({"redirect": {"https": true}}), true, false),
        (json!({"respond": {"status": 404}}), true, false),
        (json!({"response": {"remove": ["x"]}}), false, true),
        (json!({"security": {}}), false, true),
        (json!({"hide-server": true}), false, true),
        (json!({"cache-control": {"no-store": true}}), false, true),
        (json!({"cors": {"origins": "*"}}), true, true),
        (
            json!({"cors": {"origins": "*", "pass-preflight": true}}),
            false,
            true,
        ),
    ] {
        let interests = headers(config.clone()).interests();
        assert_eq!(interests.has(Phase::RequestHead), request, "{config}");
        assert_eq!(interests.has(Phase::ResponseHead), response, "{config}");
        assert!(!interests.has(Phase::Log), "{config}");
    }
}

/// Every key of the schema stands in the documentation, and every mistake of a name is told by the schema already.
#[test]
fn every_key_is_documented() {
    const PAGE: &str = include_str!("../../../docs/filters/headers.md");
    fn keys(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                    assert_eq!(
                        object.get("additionalProperties"),
                        Some(&json!(false)),
                        "{properties:?}"
                    );
                }
                object.values().for_each(|value| keys(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let manifest = headers(json!({})).manifest();
    let mut found = Vec::new();
    keys(&manifest["config-schema"], &mut found);
    assert!(found.len() > 80, "{found:?}");
    for key in found {
        let named = [
            format!("`{key}`"),
            format!("{key} ="),
            format!("{key}, "),
            format!(", {key}"),
            format!("{key} }}"),
        ];
        assert!(
            named.iter().any(|named| PAGE.contains(named)),
            "`{key}` is not documented"
        );
    }
}
