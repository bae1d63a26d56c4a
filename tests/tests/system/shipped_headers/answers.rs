//! What the filter says to clients by itself: redirects, fixed answers, CORS, and the fields that browsers ask for.

use http::{Method, Response, StatusCode};
use tidegate_tests::client::{Reply, empty, full, get_with, request};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;

use super::{options, page, started};

#[tokio::test]
async fn redirects_lead_elsewhere_and_never_round() {
    let upstream = Upstream::echo().await;
    let config = r#"
[[.redirect]]
when = { path = "/old/*" }
pattern = "^/old/(.*)$"
to = "/new/$1"
permanent = true
[[.redirect]]
when = { path = "/docs*" }
trailing-slash = "add"
status = 301
[[.redirect]]
when = { header = { "x-secure" = true } }
https = true
host = "www.example.com"
[[.redirect]]
when = { path = "/go" }
to = "/{query:to}"
keep-query = false
"#;
    let gateway = started(&upstream, config).await;
    for (target, fields, status, location) in [
        ("/old/a/b?c=d", vec![], 308, Some("/new/a/b?c=d")),
        ("/docs/x", vec![], 301, Some("/docs/x/")),
        ("/docs/x/", vec![], 200, None),
        (
            "/a?b",
            vec![("x-secure", "1")],
            307,
            Some("https://www.example.com/a?b"),
        ),
        (
            "/go?to=%2F%2Fevil.example",
            vec![],
            307,
            Some("/%2F%2Fevil.example"),
        ),
        (
            "/go?to=a%0d%0aset-cookie:b",
            vec![],
            307,
            Some("/a%0D%0Aset-cookie:b"),
        ),
        ("/go?to=go", vec![], 307, Some("/go")),
        ("/a", vec![], 200, None),
    ] {
        let reply = gateway.send(get_with(target, &fields)).await;
        assert_eq!(reply.status.as_u16(), status, "{target}");
        assert_eq!(reply.field("location"), location, "{target}");
        assert_eq!(reply.field("set-cookie"), None);
    }
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn a_maintenance_page_is_for_all_but_some() {
    let upstream = Upstream::echo().await;
    let config = r#"
[.respond]
when = { not = { any = [{ path = "/health" }, { header = { "x-operator" = "ada" } }] } }
status = 503
content-type = "text/html; charset=utf-8"
template = "<p>{path} is down for {header:x-name}</p><style>p {{ color: red }}</style>"
fields = { "retry-after" = "120" }
[.security]
csp = "default-src 'self'"
[.response]
set = { "x-served-by" = "edge {status}" }
"#;
    let gateway = started(&upstream, config).await;
    let sent = get_with("/a", &[("x-name", "<script>")]);
    let reply = gateway.send(sent).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        reply.text(),
        "<p>/a is down for &lt;script&gt;</p><style>p { color: red }</style>"
    );
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("retry-after", "120"),
        ("content-security-policy", "default-src 'self'"),
        ("x-served-by", "edge 503"),
    ] {
        assert_eq!(reply.field(name), Some(value), "{name}");
    }
    let head = request(Method::HEAD, "/a").body(empty()).unwrap();
    let reply = gateway.send(head).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.text(), "");
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.get("/health").await.echo().target, "/health");
    let sent = get_with("/a", &[("x-operator", "ada")]);
    assert_eq!(gateway.send(sent).await.status, StatusCode::OK);
}

#[tokio::test]
async fn cross_origin_requests_pass_or_not_as_configured() {
    let upstream = page(&[("access-control-allow-origin", "*"), ("x-total", "3")]).await;
    let config = r#"
[.cors]
origins = ["https://app.example", "https://*.example.com"]
methods = ["GET", "PUT"]
headers = ["x-token"]
expose = ["x-total"]
credentials = true
max-age = 600
private-network = true
"#;
    let gateway = started(&upstream, config).await;
    // Origin, method and fields that are asked for, and whether they are allowed.
    for (origin, method, fields, allowed) in [
        ("https://app.example", "PUT", "x-token", true),
        ("https://a.example.com", "GET", "", true),
        ("https://example.com", "GET", "", false),
        ("https://app.example.evil", "GET", "", false),
        ("null", "GET", "", false),
        ("https://app.example", "DELETE", "", false),
        ("https://app.example", "PUT", "x-token, x-other", false),
    ] {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", fields),
            ("access-control-request-private-network", "true"),
        ];
        let reply = gateway.send(options("/a", &asked)).await;
        let status = if allowed { 204 } else { 403 };
        assert_eq!(reply.status.as_u16(), status, "{asked:?}");
        let said = |name: &str| reply.field(name).map(str::to_owned);
        assert_eq!(
            said("access-control-allow-origin"),
            allowed.then(|| origin.to_owned())
        );
        assert_eq!(
            said("access-control-allow-credentials"),
            allowed.then(|| "true".to_owned())
        );
        assert_eq!(
            said("access-control-allow-private-network"),
            allowed.then(|| "true".to_owned())
        );
        assert_eq!(
            said("access-control-max-age"),
            allowed.then(|| "600".to_owned())
        );
        assert!(
            said("vary").is_some_and(|vary| vary.contains("origin")),
            "{reply:?}"
        );
    }
    assert_eq!(upstream.requests(), 0, "no preflight went on");
    for (origin, allowed) in [
        (Some("https://app.example"), true),
        (Some("https://evil.example"), false),
        (None, false),
    ] {
        let fields: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let reply = gateway.send(get_with("/a", &fields)).await;
        assert_eq!(reply.status, StatusCode::OK);
        let expected = origin.filter(|_| allowed);
        assert_eq!(
            reply.field("access-control-allow-origin"),
            expected,
            "{origin:?}"
        );
        assert_eq!(
            reply.field("access-control-expose-headers"),
            allowed.then_some("x-total")
        );
        assert_eq!(reply.field("vary"), Some("origin"), "{origin:?}");
    }
    let reply = gateway.send(options("/a", &[])).await;
    assert_eq!(reply.status, StatusCode::OK, "no preflight");
}

#[tokio::test]
async fn a_policys_nonce_is_the_pages_own() {
    let upstream = Upstream::serve(|seen| async move {
        let nonce = seen.field("x-csp-nonce").unwrap().to_owned();
        Response::new(full(format!("<script nonce=\"{nonce}\">")))
    })
    .await;
    let config = r#"
[.request]
set = { "x-csp-nonce" = "{nonce}" }
[.security]
csp = "script-src 'nonce-{nonce}'"
[.response]
set = { "x-again" = "{nonce}" }
"#;
    let gateway = started(&upstream, config).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        // A nonce that the client chooses is none.
        let reply = gateway
            .send(get_with("/", &[("x-csp-nonce", "mine")]))
            .await;
        let nonce = reply.field("x-again").unwrap().to_owned();
        assert_eq!(reply.text(), format!("<script nonce=\"{nonce}\">"));
        let policy = format!("script-src 'nonce-{nonce}'");
        assert_eq!(
            reply.field("content-security-policy"),
            Some(policy.as_str())
        );
        assert_eq!(nonce.len(), 24);
        assert!(!seen.contains(&nonce), "{seen:?}");
        seen.push(nonce);
    }
}

#[tokio::test]
async fn presets_set_what_browsers_ask_for() {
    let upstream = page(&[
        ("server", "nginx/1.22.1"),
        ("x-powered-by", "PHP/8.2"),
        ("content-type", "image/png"),
    ])
    .await;
    let config = r#"
hide-server = true
[.security]
hsts = { include-subdomains = true }
permissions = "camera=()"
[[.cache-control]]
when = { content-type = "image/*" }
public = true
max-age = 86400
"#;
    let gateway = started(&upstream, config).await;
    let reply = gateway.get("/").await;
    for (name, value) in [
        ("server", None),
        ("x-powered-by", None),
        ("x-content-type-options", Some("nosniff")),
        ("x-frame-options", Some("SAMEORIGIN")),
        ("referrer-policy", Some("strict-origin-when-cross-origin")),
        ("permissions-policy", Some("camera=()")),
        ("cache-control", Some("public, max-age=86400")),
        // Not in the clear.
        ("strict-transport-security", None),
    ] {
        assert_eq!(reply.field(name), value, "{name}");
    }
}

#[tokio::test]
async fn answers_of_the_proxy_and_of_other_filters_are_changed_too() {
    let upstream = Upstream::echo().await;
    let setup = Setup::with_upstream("main", &upstream.url())
        .upstream("nowhere", "http://127.0.0.1:1")
        .filter("headers", plugin("headers", Carrier::Core))
        .filter("limit", plugin("limit", Carrier::Core))
        .toml("[filter.limit.config]\nrate = 1\nper = \"hour\"\nburst = 1")
        .toml("[filter.headers.config.response]\nset = { \"x-served-by\" = \"edge {status}\" }")
        .toml("[[route]]\npath = \"/nowhere\"\nupstream = \"nowhere\"\nfilters = [\"headers\"]")
        .toml("[[route]]\npath = \"/limited\"\nupstream = \"main\"\nfilters = [\"headers\", \"limit\"]");
    let gateway = setup.start().await;
    let said = |reply: Reply| {
        (
            reply.status.as_u16(),
            reply.field("x-served-by").map(str::to_owned),
        )
    };
    let edge = |status: u16| (status, Some(format!("edge {status}")));
    assert_eq!(said(gateway.get("/nowhere").await), edge(502));
    assert_eq!(said(gateway.get("/limited").await), edge(200));
    assert_eq!(said(gateway.get("/limited").await), edge(429));
    // Without a route there are no filters.
    assert_eq!(said(gateway.get("/none").await), (404, None));
}
