//! Presets through the filter, on the SDK's mock host.

use tidegate_sdk::TlsFacts;
use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Request, Responded, Response};

use crate::Headers;

fn respond(config: Value, request: Request, response: Response) -> Responded {
    let mut harness = Harness::<Headers>::new(config).unwrap();
    let mut outcome = harness.request(request);
    harness.respond(&mut outcome, response)
}

fn tls() -> Request {
    Request::get("/a").tls(TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
        server_name: None,
        alpn: None,
    })
}

#[test]
fn an_empty_preset_sets_what_hurts_nobody() {
    let said = respond(json!({"security": {}}), tls(), Response::new(200));
    for (name, value) in [
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
    ] {
        assert_eq!(said.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(said.fields.len(), 4);
    let clear = respond(
        json!({"security": {}}),
        Request::get("/"),
        Response::new(200),
    );
    assert_eq!(
        clear.field("strict-transport-security"),
        None,
        "RFC 6797 section 7.2"
    );
}

#[test]
fn every_field_can_be_chosen() {
    let security = json!({
        "hsts": {"max-age": 63_072_000, "include-subdomains": true, "preload": true},
        "csp": "default-src 'self';\n  object-src 'none'",
        "csp-report-only": "default-src 'none'",
        "frame": "deny", "no-sniff": false, "referrer": "no-referrer",
        "permissions": "camera=(), geolocation=()",
        "opener": "same-origin", "embedder": "require-corp", "resource": "same-site",
    });
    let said = respond(
        json!({"security": security}),
        tls(),
        Response::new(200).field("x-frame-options", "ALLOWALL"),
    );
    for (name, value) in [
        (
            "strict-transport-security",
            "max-age=63072000; includeSubDomains; preload",
        ),
        (
            "content-security-policy",
            "default-src 'self'; object-src 'none'",
        ),
        ("content-security-policy-report-only", "default-src 'none'"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("permissions-policy", "camera=(), geolocation=()"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-resource-policy", "same-site"),
    ] {
        assert_eq!(said.field(name).as_deref(), Some(value), "{name}");
    }
    let off =
        json!({"hsts": {"enabled": false}, "frame": "off", "no-sniff": false, "referrer": ""});
    assert_eq!(
        respond(json!({"security": off}), tls(), Response::new(200)).fields,
        []
    );
    let kept = respond(
        json!({"security": {"keep": true}}),
        tls(),
        Response::new(200).field("x-frame-options", "DENY"),
    );
    assert_eq!(kept.field("x-frame-options").as_deref(), Some("DENY"));
}

#[test]
fn a_nonce_is_one_in_an_exchange_and_another_in_the_next() {
    let mut harness = Harness::<Headers>::new(json!({
        "request": {"set": {"x-nonce": "{nonce}"}},
        "security": {"csp": "script-src 'nonce-{nonce}'"},
    }))
    .unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut outcome = harness.request(Request::get("/"));
        let nonce = outcome.field("x-nonce").unwrap();
        assert_eq!(nonce.len(), 24, "{nonce}");
        let said = harness.response(&mut outcome, 200, &[], b"");
        let policy = format!("script-src 'nonce-{nonce}'");
        assert_eq!(said.field("content-security-policy"), Some(policy));
        assert!(!seen.contains(&nonce));
        seen.push(nonce);
    }
}

#[test]
fn caching_is_set_where_nothing_is_said_or_in_place_of_it() {
    let config = json!({"cache-control": [
        {"when": {"status": ["4xx", "5xx"]}, "no-store": true, "replace": true},
        {"when": {"content-type": ["image/*", "font/*"]}, "public": true, "max-age": 86400, "immutable": true},
        {"private": true, "no-cache": true},
    ]});
    for (status, kind, upstream, expected) in [
        (404, "image/png", Some("max-age=5"), "no-store"),
        (200, "image/png", None, "public, max-age=86400, immutable"),
        (
            200,
            "IMAGE/svg+xml; charset=utf-8",
            None,
            "public, max-age=86400, immutable",
        ),
        (200, "image/png", Some("max-age=5"), "max-age=5"),
        (200, "text/html", None, "no-cache, private"),
    ] {
        let mut response = Response::new(status).field("content-type", kind);
        if let Some(upstream) = upstream {
            response = response.field("cache-control", upstream);
        }
        let said = respond(config.clone(), Request::get("/"), response);
        assert_eq!(
            said.field("cache-control").as_deref(),
            Some(expected),
            "{status} {kind}"
        );
    }
}

#[test]
fn signatures_are_removed() {
    let response = Response::new(200)
        .field("Server", "nginx/1.22.1")
        .field("X-Powered-By", "PHP/8")
        .field("x-kept", "1");
    let said = respond(json!({"hide-server": true}), Request::get("/"), response);
    assert_eq!(said.fields, [("x-kept".to_owned(), b"1".to_vec())]);
}

#[test]
fn mistakes_are_told_at_their_key() {
    for (config, words) in [
        (
            json!({"security": {"hsts": {"preload": true}}}),
            "`security.hsts.preload`: browsers' lists",
        ),
        (
            json!({"security": {"csp": "script-src 'nonce-abc'"}}),
            "`security.csp`: a nonce that is always the same",
        ),
        (
            json!({"security": {"csp": "{nonsense}"}}),
            "`security.csp`: `{nonsense}`",
        ),
        (
            json!({"security": {"frame": "allow"}}),
            "`security.frame`: unknown variant",
        ),
        (
            json!({"security": {"hsts": true}}),
            "`security.hsts`: invalid type: boolean `true`, expected a table",
        ),
        (
            json!({"cache-control": {}}),
            "`cache-control`: it says nothing",
        ),
        (
            json!({"cache-control": [{"no-store": true, "max-age": 1}]}),
            "`cache-control[0].no-store`",
        ),
        (
            json!({"cache-control": {"private": true, "public": true}}),
            "`cache-control.private`",
        ),
    ] {
        let error = Harness::<Headers>::new(config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
