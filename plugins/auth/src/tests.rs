//! The filter as a whole, on the SDK's mock host.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sdk::http::{CallError, CallResponse};
use tidegate_sdk::test::{Harness, Outcome, Request};

use super::*;
use crate::refused::Rejection;

// printf %s alpha | sha256sum
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const SECRET: &str = "a secret of thirty-two bytes, or more";
const NOW: i64 = 1_800_000_000;

fn with(mut config: Value, more: &[(&str, Value)]) -> Harness<Auth> {
    for (name, value) in more {
        config[*name] = value.clone();
    }
    let harness = Harness::new(config).unwrap();
    harness.set_wall(NOW.unsigned_abs());
    harness
}

fn keys(more: &[(&str, Value)]) -> Harness<Auth> {
    let config = json!({
        "api-key": { "header": "x-api-key", "query": "key", "cookie": "key",
                     "consumers": [{ "name": "alice", "sha256": ALPHA, "roles": ["reader"] }] }
    });
    with(config, more)
}

fn tokens(more: &[(&str, Value)]) -> Harness<Auth> {
    let mut jwt = json!({
        "keys": [{ "algorithm": "HS256", "secret": SECRET }],
        "issuer": "me",
        "require-scopes": ["read"],
        "claims": { "sub": "x-user", "groups": "x-groups", "age": "x-age" }
    });
    for (name, value) in more {
        jwt[*name] = value.clone();
    }
    with(json!({ "jwt": jwt }), &[])
}

fn encode(text: impl AsRef<[u8]>) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

fn signed(header: &Value, claims: &Value) -> String {
    let message = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let mac = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(mac))
}

fn token(claims: &Value) -> String {
    format!("Bearer {}", signed(&json!({"alg": "HS256"}), claims))
}

fn good() -> Value {
    json!({"iss": "me", "exp": NOW + 100, "scope": "write read", "sub": "u1"})
}

fn status(outcome: &Outcome) -> u16 {
    outcome.answer.as_ref().map_or(200, |answer| answer.status)
}

fn names(outcome: &Outcome) -> Vec<&str> {
    let fields = outcome.request.fields.iter();
    fields.map(|(name, _)| name.as_str()).collect()
}

fn refusal(config: Value) -> String {
    match Harness::<Auth>::new(config.clone()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{config} was accepted"),
    }
}

// --- API keys ---

#[test]
fn a_known_key_passes_wherever_it_may_stand() {
    let mut auth = keys(&[]);
    // Twice each: what was found is remembered.
    for _ in 0..2 {
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
            assert_eq!(outcome.property("roles"), Some(&b"reader"[..]));
            assert_eq!(outcome.property("auth-method"), Some(&b"api-key"[..]));
        }
    }
}

#[test]
fn everyone_else_is_told_what_is_asked_for() {
    let mut auth = keys(&[]);
    let challenge = Some("ApiKey realm=\"api\"");
    for (request, expected, challenge) in [
        (Request::get("/"), 401, challenge),
        (Request::get("/").field("x-api-key", "beta"), 401, challenge),
        (Request::get("/").field("x-api-key", ""), 401, challenge),
        (
            Request::get("/").field("x-api-key", "x".repeat(5000)),
            401,
            challenge,
        ),
        (
            Request::get("/?key=alpha").field("x-api-key", "alpha"),
            400,
            None,
        ),
        (Request::get("/?key=alpha&key=alpha"), 400, None),
        (Request::get("/?key=alpha&k%65y=beta"), 400, None),
        (
            Request::get("/")
                .field("x-api-key", "alpha")
                .field("x-api-key", "beta"),
            400,
            None,
        ),
    ] {
        let answer = auth.request(request).answer.unwrap();
        assert_eq!(answer.status, expected);
        assert_eq!(answer.field("www-authenticate").as_deref(), challenge);
    }
}

#[test]
fn a_key_is_hidden_from_the_upstream_where_that_was_asked_for() {
    let consumers = json!([{ "name": "alice", "sha256": ALPHA }]);
    let config = json!({"api-key": {"header": "x-api-key", "query": "key", "cookie": "key", "hide": true, "consumers": consumers}});
    let mut auth = with(config, &[]);
    let outcome = auth.request(Request::get("/?a=1&key=alpha&b=2"));
    assert_eq!(outcome.request.query.as_deref(), Some("a=1&b=2"));
    let outcome = auth.request(Request::get("/?k%65y=alpha"));
    assert_eq!(outcome.request.query, None);
    let outcome = auth.request(Request::get("/").field("cookie", "a=1; key=alpha; b=2"));
    assert_eq!(outcome.field("cookie").as_deref(), Some("a=1; b=2"));
    let outcome = auth.request(Request::get("/").field("cookie", "key=alpha"));
    assert_eq!(outcome.field("cookie"), None);
    let outcome = auth.request(Request::get("/").field("x-api-key", "alpha"));
    assert_eq!(outcome.field("x-api-key"), None);
    assert!(auth.lines().iter().all(|line| !line.contains("alpha")));
}

#[test]
fn a_key_ends_when_it_expires() {
    let consumers =
        json!([{ "name": "alice", "sha256": ALPHA, "expires": "2027-01-15T08:00:00Z" }]);
    let mut auth = with(json!({"api-key": {"consumers": consumers}}), &[]);
    let request = || Request::get("/").field("x-api-key", "alpha");
    auth.set_wall(1_799_999_999);
    assert_eq!(status(&auth.request(request())), 200);
    auth.set_wall(1_800_000_000);
    assert_eq!(status(&auth.request(request())), 401);
}

#[test]
fn keys_of_the_store_are_found_until_they_are_gone() {
    let mut auth = with(
        json!({"api-key": {"in-store": true, "remember-seconds": 60}}),
        &[],
    );
    let request = || Request::get("/").field("x-api-key", "alpha");
    assert_eq!(status(&auth.request(request())), 401);
    let record = json!({"name": "bob", "roles": ["admin"], "expires": "2030-01-01"});
    auth.store("auth", &format!("key/{ALPHA}"), record.to_string());
    let outcome = auth.request(request());
    assert_eq!(outcome.field("x-consumer").as_deref(), Some("bob"));
    assert_eq!(outcome.field("x-roles").as_deref(), Some("admin"));
    auth.store("auth", &format!("key/{ALPHA}"), "withdrawn");
    assert_eq!(status(&auth.request(request())), 200, "remembered");
    auth.advance(Duration::from_secs(61));
    assert_eq!(status(&auth.request(request())), 401);
}

// --- Identity ---

#[test]
fn identity_from_outside_is_removed_in_every_spelling() {
    let lies = || {
        Request::get("/public/x")
            .field("X-Consumer", "root")
            .field("x_consumer", "root")
            .field("X-Roles", "admin")
            .field("x-who-it-was-really", "root")
            .field("x_who-it_was_really", "root")
            .field("x-other", "1")
    };
    let headers = json!({"method": "x-who-it-was-really"});
    let mut auth = keys(&[("optional", json!(true)), ("headers", headers.clone())]);
    let outcome = auth.request(lies());
    assert_eq!(names(&outcome), ["x-other", "x-who-it-was-really"]);
    assert_eq!(
        outcome.field("x-who-it-was-really").as_deref(),
        Some("anonymous")
    );
    assert_eq!(outcome.property("consumer"), None);
    assert_eq!(outcome.property("auth-method"), Some(&b"anonymous"[..]));
    // Also where nobody is asked.
    let skip = json!([{"path": "/public/*"}]);
    let mut auth = keys(&[("skip", skip), ("headers", headers)]);
    assert_eq!(
        names(&auth.request(lies())),
        ["x-other", "x-who-it-was-really"]
    );
}

#[test]
fn fields_are_named_as_the_operator_wants() {
    let headers = json!({"consumer": "X-Auth-User", "roles": "", "method": "x-auth-method"});
    let mut auth = keys(&[("headers", headers)]);
    let outcome = auth.request(
        Request::get("/")
            .field("x-api-key", "alpha")
            .field("x-auth_user", "root"),
    );
    assert_eq!(
        names(&outcome),
        ["x-api-key", "x-auth-user", "x-auth-method"]
    );
    assert_eq!(outcome.field("x-auth-user").as_deref(), Some("alice"));
    assert!(
        refusal(json!({"headers": {"consumer": "x_y"}, "ip": {"deny": ["::1"]}}))
            .contains("headers.consumer")
    );
}

#[test]
fn optional_lets_nobody_in_but_no_wrong_key() {
    let mut auth = keys(&[("optional", json!(true))]);
    assert_eq!(status(&auth.request(Request::get("/"))), 200);
    let wrong = Request::get("/").field("x-api-key", "beta");
    assert_eq!(status(&auth.request(wrong)), 401);
}

#[test]
fn a_missing_role_is_forbidden() {
    let request = || Request::get("/").field("x-api-key", "alpha");
    let mut auth = keys(&[("require-roles", json!(["admin", "writer"]))]);
    let answer = auth.request(request()).answer.unwrap();
    assert_eq!(
        (answer.status, answer.field("www-authenticate")),
        (403, None)
    );
    let mut auth = keys(&[("require-roles", json!(["admin", "reader"]))]);
    assert_eq!(status(&auth.request(request())), 200);
}

#[test]
fn paths_and_preflights_are_passed_over_as_configured() {
    let skip = json!([{"path": "/health", "methods": ["GET"]}, {"path": "/public/*"}]);
    let preflight = || {
        Request::new("OPTIONS", "/x")
            .field("origin", "https://a.example")
            .field("access-control-request-method", "PUT")
    };
    let mut auth = keys(&[("skip", skip), ("preflight", json!(true))]);
    for (request, expected) in [
        (Request::get("/health"), 200),
        (Request::new("POST", "/health"), 401),
        (Request::get("/health/x"), 401),
        (Request::get("/public/a/b"), 200),
        (Request::get("/publi"), 401),
        (preflight(), 200),
        (Request::new("OPTIONS", "/x"), 401),
    ] {
        assert_eq!(status(&auth.request(request)), expected);
    }
    assert_eq!(status(&keys(&[]).request(preflight())), 401);
}

// --- Tokens ---

#[test]
fn claims_are_passed_on_as_fields_and_properties() {
    let mut auth = tokens(&[("properties", json!(["iss"]))]);
    let mut claims = good();
    claims["groups"] = json!(["a", "b"]);
    claims["age"] = json!(7);
    claims["roles"] = json!(["x"]);
    for _ in 0..2 {
        let request = Request::get("/")
            .field("authorization", token(&claims))
            .field("x-age", "99");
        let outcome = auth.request(request);
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
        assert_eq!(outcome.property("claim.groups"), Some(&b"a,b"[..]));
        assert_eq!(outcome.property("claim.iss"), Some(&b"me"[..]));
        assert_eq!(outcome.field("authorization"), Some(token(&claims)));
    }
}

#[test]
fn a_claim_can_not_break_a_field() {
    let mut auth = tokens(&[]);
    let mut claims = good();
    claims["sub"] = json!("a\r\nx-admin: 1");
    let outcome = auth.request(Request::get("/").field("authorization", token(&claims)));
    assert_eq!(outcome.field("x-user"), None);
    assert_eq!(outcome.field("x-admin"), None);
}

#[test]
fn tokens_that_do_not_hold_are_challenged() {
    let mut auth = tokens(&[]);
    let changed = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        token(&claims)
    };
    for (value, expected, word) in [
        (changed("exp", json!(NOW - 1000)), 401, "invalid_token"),
        (changed("iss", json!("you")), 401, "invalid_token"),
        (changed("scope", json!("write")), 403, "insufficient_scope"),
        ("Bearer nonsense".to_owned(), 401, "invalid_token"),
        ("Bearer ".to_owned(), 401, "invalid_token"),
        ("Bearer".to_owned(), 401, "invalid_token"),
        ("Basic YTpi".to_owned(), 401, "Bearer realm"),
        ("Bearerx y".to_owned(), 401, "Bearer realm"),
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
        .field("authorization", token(&good()))
        .field("authorization", "Basic YTpi");
    assert_eq!(status(&auth.request(twice)), 400);
    let listed = format!("{}, Bearer b", token(&good()));
    assert_eq!(
        status(&auth.request(Request::get("/").field("authorization", listed))),
        400
    );
}

#[test]
fn a_token_that_was_remembered_still_expires() {
    let mut auth = tokens(&[]);
    let request = || Request::get("/").field("authorization", token(&good()));
    for _ in 0..2 {
        assert_eq!(status(&auth.request(request())), 200);
    }
    auth.advance(Duration::from_secs(131));
    assert_eq!(status(&auth.request(request())), 401);
}

#[test]
fn tokens_stand_in_one_place_only() {
    let from = json!([{"header": "authorization"}, {"header": "x-token"}, {"query": "access_token"}, {"cookie": "session"}]);
    let mut auth = tokens(&[("from", from), ("hide", json!(true))]);
    let bare = signed(&json!({"alg": "HS256"}), &good());
    for request in [
        Request::get("/").field("authorization", format!("bearer  {bare}")),
        Request::get("/").field("x-token", &bare),
        Request::get(&format!("/?access_token={bare}")),
        Request::get("/").field("cookie", format!("session={bare}")),
    ] {
        let outcome = auth.request(request);
        assert_eq!(status(&outcome), 200, "{:?}", outcome.answer);
        for name in ["authorization", "x-token", "cookie"] {
            assert_eq!(outcome.field(name), None, "hidden");
        }
        assert_eq!(outcome.request.query, None);
    }
    let both = Request::get(&format!("/?access_token={bare}")).field("x-token", &bare);
    assert_eq!(status(&auth.request(both)), 400);
}

#[test]
fn a_token_on_the_deny_list_is_withdrawn() {
    let mut auth = tokens(&[("deny-list", json!(true))]);
    let mut claims = good();
    claims["jti"] = json!("t1");
    let request = || Request::get("/").field("authorization", token(&claims));
    assert_eq!(status(&auth.request(request())), 200);
    auth.store("auth", "jti/t1", "1");
    let answer = auth.request(request()).answer.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains(Rejection::Denied.reason()));
}

#[test]
fn rules_forbid_whom_they_do_not_fit() {
    let rules = json!([{"claim": "tenant", "equals": "acme"}, {"claim": "realm.roles", "contains": "editor"}]);
    let mut auth = tokens(&[("require", rules)]);
    let mut claims = good();
    claims["tenant"] = json!("acme");
    let ask = |auth: &mut Harness<Auth>, claims: &Value| {
        status(&auth.request(Request::get("/").field("authorization", token(claims))))
    };
    assert_eq!(ask(&mut auth, &claims), 403);
    claims["realm"] = json!({"roles": ["editor"]});
    assert_eq!(ask(&mut auth, &claims), 200);
}

// --- Keys that are fetched ---

const SECONDS: Duration = Duration::from_secs(1);

/// A P-256 key that signs, with an id.
struct Issuer {
    pair: ring::signature::EcdsaKeyPair,
    id: String,
}

impl Issuer {
    fn new(id: &str) -> Self {
        let kind = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = ring::rand::SystemRandom::new();
        let document = ring::signature::EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Issuer {
            pair: ring::signature::EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random)
                .unwrap(),
            id: id.to_owned(),
        }
    }

    fn jwk(&self) -> Value {
        use ring::signature::KeyPair as _;
        let point = &self.pair.public_key().as_ref()[1..];
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": encode(&point[..32]), "y": encode(&point[32..])})
    }

    fn request(&self, kid: &str) -> Request {
        let claims = json!({"iss": "https://login.example", "exp": NOW + 100_000, "sub": "u1"});
        let header = json!({"alg": "ES256", "kid": kid});
        let message = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let random = ring::rand::SystemRandom::new();
        let signature = self.pair.sign(&random, message.as_bytes()).unwrap();
        Request::get("/").field(
            "authorization",
            format!("Bearer {message}.{}", encode(signature)),
        )
    }
}

fn set(keys: &[&Issuer]) -> Result<CallResponse, CallError> {
    let keys: Vec<Value> = keys.iter().map(|issuer| issuer.jwk()).collect();
    Ok(CallResponse {
        status: 200,
        fields: vec![],
        body: json!({"keys": keys}).to_string().into_bytes(),
    })
}

fn fetching() -> Harness<Auth> {
    let jwks = json!({"upstream": "issuer", "path": "/keys", "fetch": {"fresh-seconds": 100, "stale-seconds": 1000}});
    with(json!({"jwt": {"jwks": jwks}}), &[])
}

#[test]
fn keys_are_fetched_once_and_anew_before_they_are_stale() {
    let issuer = Issuer::new("a");
    let mut auth = fetching();
    auth.reply("issuer", set(&[&issuer]));
    for _ in 0..3 {
        let outcome = auth.request(issuer.request("a"));
        assert_eq!(
            status(&outcome),
            200,
            "{:?} {:?}",
            outcome.answer,
            auth.lines()
        );
    }
    auth.advance(79 * SECONDS);
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    assert_eq!(auth.calls().len(), 1);
    auth.advance(SECONDS);
    auth.reply("issuer", set(&[&issuer]));
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    assert_eq!(auth.calls().len(), 2);
}

#[test]
fn an_issuer_that_is_down_is_not_asked_again_at_once() {
    let issuer = Issuer::new("a");
    let mut auth = fetching();
    auth.reply("issuer", Err(CallError::Unreachable));
    for _ in 0..10 {
        let answer = auth.request(issuer.request("a")).answer.unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.field("retry-after").is_some());
    }
    assert_eq!(auth.calls().len(), 1);
    auth.advance(2 * SECONDS);
    auth.reply("issuer", set(&[&issuer]));
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    // Down again, the keys are used for as long as they may be.
    auth.advance(101 * SECONDS);
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    assert_eq!(auth.calls().len(), 3);
    auth.advance(998 * SECONDS);
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    auth.advance(2 * SECONDS);
    assert_eq!(status(&auth.request(issuer.request("a"))), 503);
}

#[test]
fn an_unknown_id_asks_the_issuer_once_in_a_while() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let mut auth = fetching();
    auth.reply("issuer", set(&[&old]));
    assert_eq!(status(&auth.request(old.request("old"))), 200);
    auth.reply("issuer", set(&[&old, &new]));
    assert_eq!(status(&auth.request(new.request("new"))), 200, "rotated");
    for number in 0..1000 {
        let outcome = auth.request(new.request(&format!("random-{number}")));
        assert_eq!(status(&outcome), 401);
    }
    assert_eq!(status(&auth.request(old.request("old"))), 200);
    assert_eq!(auth.calls().len(), 2);
}

#[test]
fn a_key_that_was_withdrawn_counts_no_more_for_remembered_tokens() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let mut auth = fetching();
    auth.reply("issuer", set(&[&old]));
    let request = old.request("old");
    assert_eq!(status(&auth.request(request.clone())), 200);
    auth.advance(81 * SECONDS);
    auth.reply("issuer", set(&[&new]));
    assert_eq!(status(&auth.request(request)), 401);
}

#[test]
fn answers_that_are_no_key_sets_keep_what_there_is() {
    let issuer = Issuer::new("a");
    let answer = |status: u16, body: &str| {
        Ok(CallResponse {
            status,
            fields: vec![("location".to_owned(), b"https://evil.example/keys".to_vec())],
            body: body.as_bytes().to_vec(),
        })
    };
    for bad in [
        answer(200, "<html>"),
        answer(200, "{\"keys\":[]}"),
        answer(302, ""),
        answer(500, ""),
        answer(200, &"x".repeat(10 << 20)),
        Err(CallError::TimedOut),
    ] {
        let mut auth = fetching();
        auth.reply("issuer", bad);
        assert_eq!(status(&auth.request(issuer.request("a"))), 503);
        assert!(
            auth.lines()
                .iter()
                .any(|line| line.contains("can't be fetched"))
        );
    }
}

#[test]
fn an_issuer_says_where_its_keys_are() {
    let issuer = Issuer::new("a");
    let document = |name: &str, address: &str| {
        Ok(CallResponse {
            status: 200,
            fields: vec![],
            body: json!({"issuer": name, "jwks_uri": address})
                .to_string()
                .into_bytes(),
        })
    };
    let oidc = |more: Value| {
        let mut oidc = json!({"issuer": "https://login.example", "upstream": "issuer"});
        for (name, value) in more.as_object().unwrap() {
            oidc[name] = value.clone();
        }
        with(json!({"jwt": {"oidc": oidc}}), &[])
    };
    let mut auth = oidc(json!({}));
    auth.reply(
        "issuer",
        document("https://login.example", "https://login.example/k?x=1"),
    );
    auth.reply("issuer", set(&[&issuer]));
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
    let paths: Vec<String> = auth.calls().into_iter().map(|(.., path)| path).collect();
    assert_eq!(paths, ["/.well-known/openid-configuration", "/k?x=1"]);

    for (name, address, word) in [
        (
            "https://evil.example",
            "https://login.example/k",
            "not `https://login.example`",
        ),
        (
            "https://login.example",
            "https://keys.example/k",
            "keys-upstream",
        ),
        ("https://login.example", "nonsense", "jwks_uri"),
    ] {
        let mut auth = oidc(json!({}));
        auth.reply("issuer", document(name, address));
        assert_eq!(status(&auth.request(issuer.request("a"))), 503);
        assert!(
            auth.lines().iter().any(|line| line.contains(word)),
            "{:?}",
            auth.lines()
        );
    }
    let mut auth = oidc(json!({"keys-upstream": "keys"}));
    auth.reply(
        "issuer",
        document("https://login.example", "https://keys.example/k"),
    );
    auth.reply("keys", set(&[&issuer]));
    assert_eq!(status(&auth.request(issuer.request("a"))), 200);
}

// --- Introspection ---

fn asking(more: &[(&str, Value)]) -> Harness<Auth> {
    let mut config = json!({"upstream": "idp", "path": "/introspect", "client-id": "a b", "client-secret-env": "SECRET",
                            "claims": {"tenant": "x-tenant"}, "require-scopes": ["read"]});
    for (name, value) in more {
        config[*name] = value.clone();
    }
    let harness =
        Harness::with_env(json!({"introspection": config}), &[("SECRET", "p:w")]).unwrap();
    harness.set_wall(NOW.unsigned_abs());
    harness
}

fn says(body: &Value) -> Result<CallResponse, CallError> {
    Ok(CallResponse {
        status: 200,
        fields: vec![],
        body: body.to_string().into_bytes(),
    })
}

fn opaque() -> Request {
    Request::get("/").field("authorization", "Bearer a+b/c")
}

#[test]
fn a_server_is_asked_and_its_answer_remembered() {
    let mut auth = asking(&[]);
    auth.reply("idp", says(&json!({"active": true, "username": "ada", "scope": "read", "tenant": "acme", "exp": NOW + 30})));
    for _ in 0..3 {
        let outcome = auth.request(opaque());
        assert_eq!(status(&outcome), 200, "{:?}", outcome.answer);
        assert_eq!(outcome.field("x-consumer").as_deref(), Some("ada"));
        assert_eq!(outcome.field("x-tenant").as_deref(), Some("acme"));
    }
    let calls = auth.whole_calls();
    assert_eq!(calls.len(), 1);
    let shown = format!("{:?}", calls[0]);
    for part in ["POST", "/introspect", "Basic YSUyMGI6cCUzQXc="] {
        let bytes = format!("{:?}", part.as_bytes());
        assert!(
            shown.contains(part) || shown.contains(bytes.trim_matches(['[', ']'])),
            "{part} in {shown}"
        );
    }
    // Past its own end, whatever is remembered.
    auth.advance(31 * SECONDS);
    assert_eq!(status(&auth.request(opaque())), 401);
}

#[test]
fn a_bad_answer_is_remembered_for_a_shorter_time() {
    let mut auth = asking(&[]);
    auth.reply("idp", says(&json!({"active": false})));
    for _ in 0..3 {
        assert_eq!(status(&auth.request(opaque())), 401);
    }
    assert_eq!(auth.calls().len(), 1);
    auth.advance(11 * SECONDS);
    auth.reply("idp", says(&json!({"active": true, "sub": "ada"})));
    assert_eq!(status(&auth.request(opaque())), 403, "without the scope");
    assert_eq!(auth.calls().len(), 2);
}

#[test]
fn the_operator_says_what_happens_while_the_server_is_down() {
    for (when, cold, warm) in [
        ("refuse", 503, 503),
        ("stale", 503, 200),
        ("anonymous", 200, 200),
    ] {
        let mut auth = asking(&[
            ("when-down", json!(when)),
            ("remember-seconds", json!(10)),
            ("stale-seconds", json!(100)),
        ]);
        auth.reply("idp", Err(CallError::Unreachable));
        let outcome = auth.request(opaque());
        assert_eq!(status(&outcome), cold, "{when}");
        assert_eq!(outcome.field("x-consumer"), None);
        auth.reply(
            "idp",
            says(&json!({"active": true, "sub": "ada", "scope": "read"})),
        );
        assert_eq!(status(&auth.request(opaque())), 200, "{when}");
        auth.advance(11 * SECONDS);
        assert_eq!(status(&auth.request(opaque())), warm, "{when}");
        auth.advance(100 * SECONDS);
        let late = if when == "anonymous" { 200 } else { 503 };
        assert_eq!(status(&auth.request(opaque())), late, "{when}");
    }
}

#[test]
fn tokens_of_two_kinds_find_their_method() {
    let config = json!({
        "jwt": {"keys": [{"algorithm": "HS256", "secret": SECRET}]},
        "introspection": {"upstream": "idp", "path": "/i", "client-id": "a"},
    });
    let mut auth = with(config, &[]);
    auth.reply("idp", says(&json!({"active": true, "sub": "opaque"})));
    let outcome = auth.request(Request::get("/").field("authorization", token(&good())));
    assert_eq!(outcome.property("auth-method"), Some(&b"jwt"[..]));
    let outcome = auth.request(opaque());
    assert_eq!(outcome.property("auth-method"), Some(&b"introspection"[..]));
}

// --- Passwords ---

/// bcrypt of `U*U`, at the least cost that there is a vector for.
const BCRYPT: &str = "ada:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn passwords(more: &[(&str, Value)]) -> Harness<Auth> {
    let mut basic = json!({"users": [BCRYPT], "roles": {"ada": ["admin"]}});
    for (name, value) in more {
        basic[*name] = value.clone();
    }
    with(json!({"basic": basic}), &[])
}

fn login(name: &str, password: &str) -> Request {
    use ::base64::Engine as _;
    let pair = ::base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    Request::get("/").field("authorization", format!("Basic {pair}"))
}

#[test]
fn a_right_password_passes_and_others_are_challenged() {
    let mut auth = passwords(&[("hide", json!(true))]);
    let outcome = auth.request(login("ada", "U*U"));
    assert_eq!(outcome.field("x-consumer").as_deref(), Some("ada"));
    assert_eq!(outcome.field("x-roles").as_deref(), Some("admin"));
    assert_eq!(outcome.field("authorization"), None);
    for request in [
        login("ada", "u*u"),
        login("Ada", "U*U"),
        login("", ""),
        Request::get("/").field("authorization", "Basic !"),
        Request::get("/").field("authorization", "Basic"),
        Request::get("/"),
    ] {
        let answer = auth.request(request).answer.unwrap();
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.field("www-authenticate").as_deref(),
            Some("Basic realm=\"api\", charset=\"UTF-8\"")
        );
    }
}

#[test]
fn instances_share_what_is_right_and_no_more() {
    let mut auth = passwords(&[]);
    assert_eq!(status(&auth.request(login("ada", "U*U"))), 200);
    let mut other = passwords(&[("hashes-at-once", json!(2))]);
    for guess in ["a", "b", "c"] {
        assert_ne!(status(&other.request(login("ada", guess))), 200);
    }
    assert_eq!(
        status(&other.request(login("ada", "U*U"))),
        429,
        "a host of its own"
    );
    // What the first one noted, by the same name as any instance would.
    let mac = ring::hmac::Key::new(
        ring::hmac::HMAC_SHA256,
        ring::digest::digest(&ring::digest::SHA256, &BCRYPT.as_bytes()[4..]).as_ref(),
    );
    let tag = ring::hmac::sign(&mac, b"ada\0U*U");
    let note: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(auth.stored("auth", &format!("basic/{note}")).is_some());
    other.store("auth", &format!("basic/{note}"), "1");
    assert_eq!(status(&other.request(login("ada", "U*U"))), 200);
    assert_eq!(status(&other.request(login("bob", "U*U"))), 429);
}

#[test]
fn guessing_is_bounded_and_what_is_remembered_is_not() {
    let mut auth = passwords(&[
        ("hashes-at-once", json!(4)),
        ("hashes-per-second", json!(2)),
    ]);
    assert_eq!(status(&auth.request(login("ada", "U*U"))), 200);
    let guesses: Vec<u16> = (0..6)
        .map(|number| status(&auth.request(login("ada", &number.to_string()))))
        .collect();
    // Two of the four go to one address.
    assert_eq!(guesses, [401, 429, 429, 429, 429, 429]);
    assert_eq!(
        status(&auth.request(login("ada", "U*U"))),
        200,
        "remembered"
    );
    let other = |number: u8| login("ada", "x").client(&format!("192.0.2.{number}"));
    let others: Vec<u16> = (10..14)
        .map(|number| status(&auth.request(other(number))))
        .collect();
    assert_eq!(others, [401, 401, 429, 429]);
    auth.advance(SECONDS);
    assert_eq!(status(&auth.request(login("ada", "again"))), 401);
    let busy = auth.request(login("ada", "and again")).answer.unwrap();
    assert_eq!(busy.field("retry-after").as_deref(), Some("1"));
    // And no longer than that.
    auth.advance(Duration::from_secs(400));
    let count = auth.request(login("ada", "U*U"));
    assert_eq!(status(&count), 200);
}

// --- Addresses ---

#[test]
fn addresses_are_judged_before_anything_else() {
    let ip = json!({"allow": ["192.0.2.0/24"], "deny": ["192.0.2.7"]});
    let mut auth = keys(&[("ip", ip.clone())]);
    let request = |address: &str| {
        Request::get("/")
            .field("x-api-key", "alpha")
            .client(address)
    };
    for (address, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.7", 403),
        ("198.51.100.1", 403),
        ("2001:db8::1", 403),
    ] {
        assert_eq!(
            status(&auth.request(request(address))),
            expected,
            "{address}"
        );
    }
    // Alone, without any method.
    let mut auth = with(json!({"ip": ip}), &[]);
    assert_eq!(
        status(&auth.request(Request::get("/").client("192.0.2.1"))),
        200
    );
    assert_eq!(
        status(&auth.request(Request::get("/").client("192.0.2.7"))),
        403
    );
}

// --- Several methods, and answers ---

#[test]
fn the_first_method_that_finds_its_credential_decides() {
    let config = json!({
        "methods": ["basic", "api-key"],
        "basic": {"users": [BCRYPT]},
        "api-key": {"consumers": [{"name": "alice", "sha256": ALPHA}]},
    });
    let mut auth = with(config.clone(), &[]);
    let outcome = auth.request(login("ada", "U*U").field("x-api-key", "wrong"));
    assert_eq!(outcome.field("x-consumer").as_deref(), Some("ada"));
    let outcome = auth.request(login("ada", "wrong").field("x-api-key", "alpha"));
    assert_eq!(status(&outcome), 401);
    let answer = auth.request(Request::get("/")).answer.unwrap();
    let challenges: Vec<_> = answer
        .fields
        .iter()
        .filter(|(name, _)| name == "www-authenticate")
        .collect();
    assert_eq!(challenges.len(), 2);
    let mut other = with(config, &[("methods", json!(["api-key", "basic"]))]);
    let outcome = other.request(login("ada", "wrong").field("x-api-key", "alpha"));
    assert_eq!(outcome.field("x-consumer").as_deref(), Some("alice"));
}

#[test]
fn answers_are_in_the_clients_words() {
    let answers =
        json!({"login": "https://login.example/?to={url}&x=1", "forbidden": "ask the admin"});
    let mut auth = keys(&[("answers", answers), ("require-roles", json!(["admin"]))]);
    let answer = auth
        .request(Request::get("/").field("accept", "application/json"))
        .answer
        .unwrap();
    assert_eq!(
        answer.field("content-type").as_deref(),
        Some("application/json")
    );
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["status"], 401);

    let page = || Request::get("/a b?c=d&e").field("accept", "text/html,*/*");
    let answer = auth.request(page()).answer.unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(
        answer.field("location").as_deref(),
        Some("https://login.example/?to=http%3A%2F%2Ftest.example%2Fa%20b%3Fc%3Dd%26e&x=1")
    );
    let answer = auth
        .request(page().field("x-api-key", "wrong"))
        .answer
        .unwrap();
    assert_eq!(
        answer.status, 401,
        "no way to put a wrong key right by a login"
    );
    let post = Request::post("/", b"x").field("accept", "text/html");
    assert_eq!(status(&auth.request(post)), 401);
    let answer = auth
        .request(page().field("x-api-key", "alpha"))
        .answer
        .unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (403, "ask the admin\n")
    );
}

#[test]
fn grpc_is_answered_with_its_own_status() {
    let mut auth = keys(&[("require-roles", json!(["admin"]))]);
    for (request, expected) in [
        (Request::new("POST", "/s/M"), "16"),
        (
            Request::new("POST", "/s/M").field("x-api-key", "alpha"),
            "7",
        ),
    ] {
        let request = request.field("content-type", "application/grpc+proto");
        let answer = auth.request(request).answer.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("grpc-status").as_deref(), Some(expected));
        assert_eq!(
            answer.field("content-type").as_deref(),
            Some("application/grpc")
        );
    }
}

// --- Mistakes ---

#[test]
fn mistakes_are_told_at_load() {
    let jwt = |more: Value| {
        let mut jwt = json!({"keys": [{"algorithm": "HS256", "secret": SECRET}]});
        for (name, value) in more.as_object().unwrap() {
            jwt[name] = value.clone();
        }
        json!({ "jwt": jwt })
    };
    let key = json!({"consumers": [{"name": "a", "sha256": ALPHA}]});
    for (config, word) in [
        (json!({}), "api-key"),
        (json!({"jwt": {}}), "`keys`, `jwks` or `oidc`"),
        (json!({"realm": "a\"b", "api-key": key}), "realm"),
        (
            json!({"api-key": {"consumers": [{"name": "bob", "sha256": "12"}]}}),
            "`bob`",
        ),
        (
            json!({"api-key": {"consumers": [{"name": "bob", "sha256": ALPHA, "expires": "soon"}]}}),
            "2027-01-31",
        ),
        (
            json!({"api-key": {"consumers": []}, "unknown": 1}),
            "unknown",
        ),
        (json!({"api-key": {}}), "in-store"),
        (json!({"api-key": key, "methods": ["jwt"]}), "names `jwt`"),
        (
            json!({"api-key": key, "methods": ["api-key", "api-key"]}),
            "twice",
        ),
        (
            json!({"api-key": key, "basic": {"users": [BCRYPT]}, "methods": ["basic"]}),
            "leaves out `api-key`",
        ),
        (
            json!({"api-key": key, "methods": ["api-key", "basic"]}),
            "not configured",
        ),
        (json!({"api-key": key, "skip": [{"path": "x"}]}), "skip[0]"),
        (
            json!({"api-key": key, "answers": {"login": "nowhere"}}),
            "answers.login",
        ),
        (json!({"basic": {}}), "htpasswd"),
        (json!({"basic": {"users": ["ada"]}}), "basic.users[0]"),
        (
            json!({"basic": {"htpasswd": "# x\n\nada:plain"}}),
            "basic.htpasswd, line 3",
        ),
        (json!({"basic": {"users": [BCRYPT, BCRYPT]}}), "twice"),
        (
            json!({"basic": {"users": [BCRYPT], "roles": {"bob": []}}}),
            "`bob`",
        ),
        (
            jwt(json!({"require": [{"claim": "a", "regex": "("}]})),
            "jwt.require[0]",
        ),
        (jwt(json!({"claims": {"sub": "x user"}})), "jwt.claims"),
        (jwt(json!({"from": [{"header": "x y"}]})), "jwt.from"),
        (
            jwt(json!({"jwks": {"upstream": "a", "path": "keys"}})),
            "jwt.jwks.path",
        ),
        (
            jwt(json!({"jwks": {"upstream": "a", "path": "/", "fetch": {"cooldown-seconds": 1}}})),
            "at least 10",
        ),
        (
            jwt(json!({"oidc": {"upstream": "a", "issuer": "login"}})),
            "jwt.oidc.issuer",
        ),
        (
            json!({"introspection": {"upstream": "a", "path": "/", "client-id": "b", "client-secret-env": "NO"}}),
            "allow = { env",
        ),
        (json!({"signature": {"keys": []}}), "signature.keys"),
        (
            json!({"signature": {"keys": [{"id": "a", "secret": "b"}]}}),
            "32 bytes",
        ),
        (
            json!({"signature": {"keys": [{"id": "a", "secret": SECRET}], "components": ["@foo"]}}),
            "@foo",
        ),
        (json!({"ip": {"allow": ["x"]}}), "ip.allow[0]"),
    ] {
        let error = refusal(config.clone());
        assert!(error.contains(word), "{config}: {error}");
    }
}
