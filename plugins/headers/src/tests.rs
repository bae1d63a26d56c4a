//! The filter as a whole, on the SDK's mock host.

use crate::Headers;
use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Request};

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
