//! The filter `headers` in all its parts, over real connections: what reaches the upstream, and what reaches the client.

use http::{Method, Response, StatusCode};
use tidegate_tests::certs::Authority;
use tidegate_tests::client::{
    Body, Client, Reply, empty, full, get, get_with, post, request, with,
};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;

/// The filter before an upstream, with the tables of its configuration below `filter.headers.config`.
fn before(upstream: &Upstream, config: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url())
        .filter("headers", plugin("headers", Carrier::Core))
        .toml(&below(config))
        .toml("[[route]]\nname = \"users\"\npath = \"/users/{id}\"\nupstream = \"main\"\nfilters = [\"headers\"]")
        .toml("[[route]]\nname = \"all\"\npath = \"/*\"\nupstream = \"main\"\nfilters = [\"headers\"]")
}

/// Tables whose names begin with a dot stand below the filter's configuration.
fn below(config: &str) -> String {
    let config = config.replace("[[.", "[[filter.headers.config.");
    format!(
        "[filter.headers.config]\n{}",
        config.replace("[.", "[filter.headers.config.")
    )
}

async fn started(upstream: &Upstream, config: &str) -> Gateway {
    before(upstream, config).start().await
}

/// An upstream that answers as a page would.
async fn page(fields: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::serve(move |_| async move {
        let mut response = Response::builder().status(200);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(full("page")).unwrap()
    })
    .await
}

fn options(target: &str, fields: &[(&str, &str)]) -> http::Request<Body> {
    with(
        request(Method::OPTIONS, target).body(empty()).unwrap(),
        fields,
    )
}

#[tokio::test]
async fn fields_are_changed_by_every_verb_in_the_stated_order() {
    let upstream = Upstream::echo().await;
    let config = r#"
[.request]
remove = ["x-internal-*", "x-secret"]
rename = { "x-old" = "x-new" }
copy = { "x-new" = "x-copy" }
replace = { "x-copy" = { pattern = "([a-z])([0-9])", with = "$2$1" } }
default = { "x-default" = "d", "x-there" = "d" }
set = { "x-set" = ["{header:x-new|upper}", "two"], "x-none" = "{header:missing}" }
append = { "x-there" = "more" }
"#;
    let gateway = started(&upstream, config).await;
    let sent = get_with(
        "/",
        &[
            ("X-Internal-A", "1"),
            ("x-internal-b", "1"),
            ("X-Secret", "1"),
            ("x-secret", "2"),
            ("x-old", "a1"),
            ("x-old", "b2"),
            ("x-new", "client"),
            ("x-copy", "client"),
            ("x-set", "client"),
            ("x-there", "client"),
            ("x-none", "client"),
        ],
    );
    let seen = gateway.send(sent).await.echo();
    for (name, expected) in [
        ("x-internal-a", vec![]),
        ("x-internal-b", vec![]),
        ("x-secret", vec![]),
        ("x-old", vec![]),
        ("x-new", vec!["a1", "b2"]),
        ("x-copy", vec!["1a", "2b"]),
        ("x-default", vec!["d"]),
        ("x-set", vec!["A1", "two"]),
        ("x-there", vec!["client", "more"]),
        ("x-none", vec![""]),
    ] {
        assert_eq!(seen.all(name), expected, "{name}");
    }
}

#[tokio::test]
async fn templates_tell_facts_of_the_exchange() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::echo().await;
    let config = r#"
[.request.set]
x-client = "{client-address} {protocol} {scheme} {method}"
x-tls = "{tls-version} {tls-server-name} {tls-alpn}"
x-route = "{route} {param:id|url-encode} {hostname}"
x-target = "{path} {query:a b} {uri}"
x-cookie = "{cookie:sid|sha256|truncate:8}"
x-list = "{headers:x-list} {header:x-list|first}"
x-else = "{header:none|or:cookie:none|fallback:nobody}"
x-time = "{time:rfc3339}"
x-id = "{request-id}"
[.response.set]
x-status = "{status} {path}"
"#;
    let gateway = before(&upstream, config)
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key)
        .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
        .start()
        .await;
    let fields = [
        ("cookie", "a=b; sid=secret"),
        ("x-list", "1, 2"),
        ("x-list", "3"),
    ];
    let mut client = Client::tls(gateway.https(), "localhost", authority.client(&["h2"]))
        .await
        .unwrap();
    let reply = client
        .send(get_with("/users/a%20b?a+b=c%20d", &fields))
        .await;
    assert_eq!(reply.field("x-status"), Some("200 /users/a%20b"));
    let seen = reply.echo();
    // printf secret | sha256sum
    for (name, expected) in [
        ("x-client", "127.0.0.1 HTTP/2 https GET"),
        ("x-tls", "TLSv1.3 localhost h2"),
        ("x-route", "users a%20b localhost"),
        ("x-target", "/users/a%20b c d /users/a%20b?a+b=c%20d"),
        ("x-cookie", "2bb80d53"),
        ("x-list", "1, 2, 3 1"),
        ("x-else", "nobody"),
    ] {
        assert_eq!(seen.field(name), Some(expected), "{name}");
    }
    assert_eq!(seen.field("x-id"), seen.field("x-request-id"));
    let time = seen.field("x-time").unwrap();
    assert!(
        time.len() == 20 && time.starts_with("20") && time.ends_with('Z'),
        "{time}"
    );
    // In the clear there are no facts of TLS.
    let seen = gateway.get("/").await.echo();
    assert_eq!(seen.field("x-tls").map(str::trim), Some(""));
}

#[tokio::test]
async fn no_value_from_outside_breaks_a_field() {
    let upstream = Upstream::echo().await;
    let config = r#"
[.request]
set = { "x-a" = "{query:v}", "x-b" = "{query:v|base64-decode}", "x-c" = "{param:id}" }
[.request.cookies]
set = { "c" = "{query:v}" }
[.response]
set = { "x-a" = "{query:v}" }
[.response.cookies]
set = { "c" = "{query:v}" }
"#;
    let gateway = started(&upstream, config).await;
    // `a CR LF x-evil: 1 NUL b`, by two ways.
    for value in ["a%0d%0ax-evil:%201%00b", "YQ0KeC1ldmlsOiAxAGI="] {
        let reply = gateway.get(&format!("/?v={value}")).await;
        assert_eq!(reply.field("x-evil"), None, "{reply:?}");
        let seen = reply.echo();
        assert_eq!(seen.field("x-evil"), None, "{seen:?}");
        if value.starts_with("a%") {
            assert_eq!(reply.field("x-a"), Some("ax-evil: 1b"));
            assert_eq!(seen.field("x-a"), Some("ax-evil: 1b"));
            assert_eq!(seen.field("cookie"), Some("c=a%0D%0Ax-evil:%201%00b"));
            assert_eq!(reply.field("set-cookie"), Some("c=a%0D%0Ax-evil:%201%00b"));
        } else {
            assert_eq!(seen.field("x-b"), Some("ax-evil: 1b"));
        }
    }
}

#[tokio::test]
async fn a_rule_applies_under_its_conditions_only() {
    let upstream = Upstream::serve(|seen| async move {
        let status = if seen.target.starts_with("/bad") {
            503
        } else {
            200
        };
        Response::builder()
            .status(status)
            .header("content-type", "text/html; charset=utf-8")
            .body(full(serde_json::to_string(&seen).unwrap()))
            .unwrap()
    })
    .await;
    let config = r#"
[[.request]]
when = { path = ["/users/*", "~^/v[0-9]+/"], method = ["GET", "HEAD"], not = { header = { "x-skip" = true } } }
set = { "x-one" = "1" }
[[.request]]
when = { any = [{ query = { "debug" = "1" } }, { cookie = { "beta" = ["a*", "b"] } }], client = "127.0.0.0/8" }
set = { "x-two" = "1" }
[[.request]]
when = { client = ["10.0.0.0/8", "::1"] }
set = { "x-three" = "1" }
[[.response]]
when = { status = ["5xx", 404], content-type = "text/*" }
set = { "x-bad" = "{status}" }
[[.response]]
when = { path = "/users/*", response = { "content-type" = true, "x-none" = false } }
set = { "x-users" = "1" }
"#;
    let gateway = started(&upstream, config).await;
    for (target, fields, one, two) in [
        ("/users/7", vec![], true, false),
        ("/v12/x", vec![], true, false),
        ("/v/x", vec![], false, false),
        ("/users/7", vec![("x-skip", "")], false, false),
        ("/?debug=1", vec![], false, true),
        ("/?debug=2", vec![], false, false),
        ("/", vec![("cookie", "x=1; beta=abc")], false, true),
        ("/", vec![("cookie", "beta=cab")], false, false),
    ] {
        let seen = gateway.send(get_with(target, &fields)).await.echo();
        assert_eq!(seen.field("x-one").is_some(), one, "{target} {fields:?}");
        assert_eq!(seen.field("x-two").is_some(), two, "{target} {fields:?}");
        assert_eq!(seen.field("x-three"), None);
    }
    assert_eq!(
        gateway
            .send(post("/users/7", ""))
            .await
            .echo()
            .field("x-one"),
        None
    );
    let bad = gateway.get("/bad").await;
    assert_eq!(bad.field("x-bad"), Some("503"));
    assert_eq!(bad.field("x-users"), None);
    let good = gateway.get("/users/7").await;
    assert_eq!(good.field("x-bad"), None);
    assert_eq!(good.field("x-users"), Some("1"));
}

#[tokio::test]
async fn a_rewrite_changes_what_the_upstream_is_asked_and_not_the_route() {
    let upstream = Upstream::echo().await;
    let config = r#"
[[.rewrite]]
pattern = "^/old/([0-9]+)(/.*)?$"
path = "/users/$1$2"
query = { remove = ["utm_*"], set = { "by" = "{route}&{client-address}" } }
host = "internal.example:8080"
[[.rewrite]]
when = { header = { "x-http-method-override" = "DELETE" }, method = "POST" }
method = "DELETE"
[[.rewrite]]
when = { path = "/files" }
path = "/files/{query:name}"
"#;
    let gateway = started(&upstream, config).await;
    let seen = gateway.get("/old/7/x?utm_a=1&q=2").await.echo();
    assert_eq!(seen.target, "/users/7/x?q=2&by=all%26127.0.0.1");
    assert_eq!(seen.host(), Some("internal.example:8080"));
    let seen = gateway.get("/older?utm_a=1").await.echo();
    assert_eq!(seen.target, "/older?utm_a=1");
    let sent = with(post("/a", "x"), &[("x-http-method-override", "DELETE")]);
    let seen = gateway.send(sent).await.echo();
    assert_eq!((seen.method.as_str(), seen.body.as_str()), ("DELETE", "x"));
    let asked = upstream.requests();
    for name in ["..%2f..%2fetc", "..", "%2e%2e", "a%2fb", "a%00b"] {
        let reply = gateway.get(&format!("/files?name={name}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(upstream.requests(), asked, "nothing of it went on");
    let seen = gateway.get("/files?name=a%20b.txt").await.echo();
    assert_eq!(seen.target, "/files/a%20b.txt?name=a%20b.txt");
}

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
async fn cookies_are_changed_in_both_directions() {
    let upstream = Upstream::serve(|seen| async move {
        Response::builder()
            .status(200)
            .header(
                "set-cookie",
                "sid=1; Path=/; Expires=Wed, 01 Jan 2031 00:00:00 GMT",
            )
            .header("set-cookie", "track=2; Domain=.example.com")
            .body(full(serde_json::to_string(&seen).unwrap()))
            .unwrap()
    })
    .await;
    let config = r#"
[.request.cookies]
remove = ["_ga*"]
rename = { "session" = "sid" }
[.response.cookies]
remove = ["track"]
set = { "seen" = "{request-id|truncate:4}" }
attributes = { "*" = { secure = true, http-only = true, same-site = "lax" }, "seen" = { path = "/", max-age = 60 } }
"#;
    let gateway = started(&upstream, config).await;
    let sent = get_with(
        "/",
        &[
            ("cookie", "_ga=1; session=x; a=b; _gat=2"),
            ("x-request-id", "abcdefgh"),
        ],
    );
    let reply = gateway.send(sent).await;
    assert_eq!(reply.echo().all("cookie"), ["a=b; sid=x"]);
    assert_eq!(
        reply.all("set-cookie"),
        [
            "sid=1; Path=/; Expires=Wed, 01 Jan 2031 00:00:00 GMT; Secure; HttpOnly; SameSite=Lax",
            "seen=abcd; Secure; HttpOnly; SameSite=Lax; Path=/; Max-Age=60",
        ]
    );
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

#[tokio::test]
async fn all_its_mistakes_are_told_at_once_with_their_keys() {
    let config = r#"
[[.request]]
set = { "x-a" = "{nonsense}", "connection" = "close" }
[[.request]]
replace = { "x-b" = { pattern = "(", with = "" } }
[.rewrite]
path = "users"
[.cors]
origins = ["*"]
credentials = true
"#;
    let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
        .filter("headers", plugin("headers", Carrier::Core))
        .toml(&below(config))
        .route("/*", "main", &["headers"]);
    let checked = setup.check().await;
    let said = checked.said();
    assert_eq!(checked.code, Some(1), "{said}");
    for words in [
        "`request[0].set.x-a`: `{nonsense}` stands for nothing; there is client-address",
        "`request[0].set.connection`: `connection` is the proxy's own",
        "`request[1].replace.x-b.pattern`: `(` is no pattern",
        "`rewrite.path`: `users` must begin with `/`",
        "`cors.origins[0]`: with `credentials`, any page could act",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    // What the schema can tell is told at its line, also inside of conditions.
    let wrong = "[filter.headers.config.request]\nwhen = { not = { pth = \"/a\" } }\n";
    let setup = Setup::new()
        .filter("headers", plugin("headers", Carrier::Core))
        .file("tidegate.toml", wrong);
    let checked = setup.run(&["check", "--config", "tidegate.toml"]).await;
    assert!(
        checked.said().contains("tidegate.toml:2:"),
        "{}",
        checked.said()
    );
    assert!(checked.said().contains("pth"), "{}", checked.said());
}

#[tokio::test]
async fn as_a_component_it_does_the_same() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("headers", plugin("headers", Carrier::Component))
        .toml("[filter.headers.config]\nrequest = { set = { \"x-n\" = \"{nonce}\" } }\nsecurity = { csp = \"'nonce-{nonce}'\" }")
        .route("/*", "main", &["headers"])
        .start()
        .await;
    let reply = gateway.send(get("/a")).await;
    let nonce = reply.echo().field("x-n").unwrap().to_owned();
    let policy = format!("'nonce-{nonce}'");
    assert_eq!(
        reply.field("content-security-policy"),
        Some(policy.as_str())
    );
}
