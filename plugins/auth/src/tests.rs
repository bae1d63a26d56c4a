//! The filter as a whole, on the SDK's mock host.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use serde_json::json;
use tidegate_sdk::test::{Harness, Outcome, Request};

// printf %s alpha | sha256sum
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const SECRET: &str = "a secret of thirty-two bytes, or more";

fn keys(more: &[(&str, Value)]) -> Harness<Auth> {
    let mut config = json!({
        "api-key": { "header": "x-api-key", "query": "key", "cookie": "key",
                     "consumers": [{ "name": "alice", "sha256": ALPHA, "roles": ["reader"] }] }
    });
    for (name, value) in more {
        config[*name] = value.clone();
    }
    Harness::new(config).unwrap()
}

fn tokens() -> Harness<Auth> {
    let harness = Harness::new(json!({
        "jwt": {
            "keys": [{ "algorithm": "HS256", "secret": SECRET }],
            "issuer": "me",
            "require-scopes": ["read"],
            "claims": { "sub": "x-user", "groups": "x-groups", "age": "x-age" }
        }
    }))
    .unwrap();
    harness.set_wall(1_800_000_000);
    harness
}

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes())
        .unwrap()
        .chain_update(&message);
    format!(
        "Bearer {message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

fn status(outcome: &Outcome) -> u16 {
    outcome.answer.as_ref().map_or(200, |answer| answer.status)
}

#[test]
fn a_known_key_passes_wherever_it_may_stand() {
    let mut auth = keys(&[]);
    for request in [
        Request::get("/").field("X-Api-Key", "alpha"),
        Request::get("/?a=b&key=%61lpha"),
        Request::get("/").field("cookie", "a=b; key=alpha"),
    ] {
        let outcome = auth.request(request);
        assert_eq!(status(&outcome), 200);
        assert_eq!(outcome.field("x-consumer").as_deref(), Some("alice"));
        assert_eq!(outcome.field("x-roles").as_deref(), Some("reader"));
        assert_eq!(outcome.property("consumer"), Some(&b"alice"[..]));
    }
}

#[test]
fn everyone_else_is_told_what_is_asked_for() {
    let mut auth = keys(&[]);
    for (request, expected, challenge) in [
        (Request::get("/"), 401, Some("ApiKey realm=\"api\"")),
        (
            Request::get("/").field("x-api-key", "beta"),
            401,
            Some("ApiKey realm=\"api\""),
        ),
        (
            Request::get("/?key=alpha").field("x-api-key", "alpha"),
            400,
            None,
        ),
        (Request::get("/?key=alpha&key=alpha"), 400, None),
    ] {
        let answer = auth.request(request).answer.unwrap();
        assert_eq!(answer.status, expected);
        assert_eq!(answer.field("www-authenticate").as_deref(), challenge);
    }
}

#[test]
fn identity_from_outside_is_removed_in_every_spelling() {
    let mut auth = keys(&[("optional", json!(true))]);
    let outcome = auth.request(
        Request::get("/")
            .field("X-Consumer", "root")
            .field("x_consumer", "root")
            .field("X-Roles", "admin")
            .field("x-other", "1"),
    );
    assert_eq!(status(&outcome), 200);
    let names: Vec<_> = outcome
        .request
        .fields
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["x-other"]);
    assert_eq!(outcome.property("consumer"), None);
}

#[test]
fn optional_lets_nobody_in_but_no_wrong_key() {
    let mut auth = keys(&[("optional", json!(true))]);
    assert_eq!(status(&auth.request(Request::get("/"))), 200);
    assert_eq!(
        status(&auth.request(Request::get("/").field("x-api-key", "beta"))),
        401
    );
}

#[test]
fn a_missing_role_is_forbidden() {
    let mut auth = keys(&[("require-roles", json!(["admin", "writer"]))]);
    let answer = auth
        .request(Request::get("/").field("x-api-key", "alpha"))
        .answer
        .unwrap();
    assert_eq!(
        (answer.status, answer.field("www-authenticate")),
        (403, None)
    );
    let mut auth = keys(&[("require-roles", json!(["admin", "reader"]))]);
    assert_eq!(
        status(&auth.request(Request::get("/").field("x-api-key", "alpha"))),
        200
    );
}

#[test]
fn claims_are_passed_on_as_fields() {
    let mut auth = tokens();
    let claims = json!({"iss": "me", "exp": 1_800_000_100, "scope": "write read", "sub": "u1",
                        "groups": ["a", "b"], "age": 7, "roles": ["x"]});
    let outcome = auth.request(
        Request::get("/")
            .field("authorization", token(&claims))
            .field("x-age", "99"),
    );
    assert_eq!(status(&outcome), 200);
    for (name, value) in [
        ("x-consumer", "u1"),
        ("x-user", "u1"),
        ("x-groups", "a,b"),
        ("x-age", "7"),
        ("x-roles", "x"),
    ] {
        assert_eq!(outcome.field(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn tokens_that_do_not_hold_are_challenged() {
    let mut auth = tokens();
    let good = json!({"iss": "me", "exp": 1_800_000_100, "scope": "read"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(&claims)
    };
    for (value, expected, word) in [
        (with("exp", json!(1_799_999_000)), 401, "invalid_token"),
        (with("iss", json!("you")), 401, "invalid_token"),
        (with("scope", json!("write")), 403, "insufficient_scope"),
        ("Bearer nonsense".to_owned(), 401, "invalid_token"),
        ("Basic YTpi".to_owned(), 401, "Bearer realm"),
        ("Bearer".to_owned(), 401, "Bearer realm"),
    ] {
        let answer = auth
            .request(Request::get("/").field("authorization", &value))
            .answer
            .unwrap();
        assert_eq!(answer.status, expected, "{value}");
        assert!(
            answer.field("www-authenticate").unwrap().contains(word),
            "{value}"
        );
    }
    let twice = Request::get("/")
        .field("authorization", token(&good))
        .field("authorization", token(&good));
    assert_eq!(status(&auth.request(twice)), 400);
    assert_eq!(
        status(&auth.request(
            Request::get("/").field("authorization", format!("{}, Bearer b", token(&good)))
        )),
        400
    );
}

#[test]
fn mistakes_are_told_at_load() {
    for (config, word) in [
        (json!({}), "api-key"),
        (json!({"jwt": {"keys": []}}), "jwt.keys"),
        (
            json!({"realm": "a\"b", "jwt": {"keys": [{"algorithm": "HS256", "secret": SECRET}]}}),
            "realm",
        ),
        (
            json!({"api-key": {"consumers": [{"name": "bob", "sha256": "12"}]}}),
            "`bob`",
        ),
        (
            json!({"api-key": {"consumers": []}, "unknown": 1}),
            "unknown",
        ),
    ] {
        let error = match Harness::<Auth>::new(config.clone()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{config} was accepted"),
        };
        assert!(error.contains(word), "{error}");
    }
}
