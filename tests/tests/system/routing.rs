//! Which route takes a request, and that no spelling of a path walks around one.

use http::{Method, StatusCode};
use tidegate_tests::client::{empty, full, get, get_with, request};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::Upstream;

/// Routes that each answer with their own name, so that an answer tells which one was taken.
struct Routes {
    setup: Setup,
    count: usize,
}

impl Routes {
    fn before(upstream: &Upstream) -> Self {
        Routes {
            setup: Setup::with_upstream("main", &upstream.url()),
            count: 0,
        }
    }

    /// One route more, called `name`, with these conditions.
    fn with(mut self, name: &str, conditions: &str) -> Self {
        let file = format!("mark{}", self.count);
        self.count += 1;
        let wasm = Guest::new().sets_request_field("x-taken", name).build();
        self.setup = self.setup.filter(&file, wasm).toml(&format!(
            "[[route]]\nname = \"{name}\"\nupstream = \"main\"\nfilters = [\"{file}\"]\n{conditions}"
        ));
        self
    }

    async fn start(self) -> Gateway {
        self.setup.start().await
    }
}

/// The name of the route that took a request; its status if none did.
async fn taken(gateway: &Gateway, host: &str, path: &str) -> String {
    let reply = gateway.send(get_with(path, &[("host", host)])).await;
    if reply.status != StatusCode::OK {
        return reply.status.as_str().to_owned();
    }
    reply.echo().field("x-taken").unwrap().to_owned()
}

#[tokio::test]
async fn a_host_wins_over_a_wildcard_and_a_wildcard_over_any() {
    let upstream = Upstream::echo().await;
    let gateway = Routes::before(&upstream)
        .with("any", "path = \"/*\"")
        .with("wild", "host = \"*.example.com\"\npath = \"/*\"")
        .with("exact", "host = \"api.example.com\"\npath = \"/*\"")
        .start()
        .await;
    for (host, expected) in [
        ("api.example.com", "exact"),
        ("API.Example.COM", "exact"),
        ("api.example.com:8080", "exact"),
        ("api.example.com.", "exact"),
        ("www.example.com", "wild"),
        ("example.com", "any"),
        ("example.org", "any"),
    ] {
        assert_eq!(taken(&gateway, host, "/x").await, expected, "{host}");
    }
}

#[tokio::test]
async fn the_more_specific_path_wins_in_whatever_order_they_stand() {
    let upstream = Upstream::echo().await;
    let forward = [
        ("root", "path = \"/*\""),
        ("users", "path = \"/users/*\""),
        ("user", "path = \"/users/{id}\""),
        ("me", "path = \"/users/me\""),
        ("posts", "path = \"/users/{id}/posts\""),
    ];
    let mut backward = forward;
    backward.reverse();
    for order in [forward, backward] {
        let mut routes = Routes::before(&upstream);
        for (name, path) in order {
            routes = routes.with(name, path);
        }
        let gateway = routes.start().await;
        for (path, expected) in [
            ("/", "root"),
            ("/other", "root"),
            ("/users/me", "me"),
            ("/users/7", "user"),
            ("/users/7/posts", "posts"),
            ("/users/7/posts/1", "users"),
        ] {
            assert_eq!(taken(&gateway, "h", path).await, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn more_conditions_win_over_fewer() {
    let upstream = Upstream::echo().await;
    let gateway = Routes::before(&upstream)
        .with("plain", "path = \"/x\"")
        .with("posted", "path = \"/x\"\nmethods = [\"POST\"]")
        .with(
            "beta",
            "path = \"/x\"\nmethods = [\"POST\"]\nheaders = { \"x-beta\" = \"yes\" }",
        )
        .start()
        .await;
    assert_eq!(taken(&gateway, "h", "/x").await, "plain");
    let post = || request(Method::POST, "/x");
    let reply = gateway.send(post().body(full("")).unwrap()).await;
    assert_eq!(reply.echo().field("x-taken"), Some("posted"));
    let beta = post().header("x-beta", "yes").body(full("")).unwrap();
    assert_eq!(
        gateway.send(beta).await.echo().field("x-taken"),
        Some("beta")
    );
    let other = post().header("x-beta", "no").body(full("")).unwrap();
    assert_eq!(
        gateway.send(other).await.echo().field("x-taken"),
        Some("posted")
    );
}

#[tokio::test]
async fn what_no_route_takes_is_404() {
    let upstream = Upstream::echo().await;
    let gateway = Routes::before(&upstream)
        .with(
            "one",
            "host = \"a.example\"\npath = \"/only/{x}\"\nmethods = [\"GET\"]",
        )
        .start()
        .await;
    assert_eq!(taken(&gateway, "a.example", "/only/1").await, "one");
    for (host, path) in [
        ("a.example", "/"),
        ("a.example", "/only"),
        ("a.example", "/only/"),
        ("a.example", "/only/1/2"),
        ("b.example", "/only/1"),
    ] {
        assert_eq!(taken(&gateway, host, path).await, "404", "{host}{path}");
    }
    let put = request(Method::PUT, "/only/1").header("host", "a.example");
    let reply = gateway.send(put.body(empty()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn an_answer_of_the_proxy_is_small_and_tells_no_internals() {
    let upstream = Upstream::echo().await;
    let gateway = Routes::before(&upstream)
        .with("one", "path = \"/only\"")
        .start()
        .await;
    let reply = gateway.get("/nothing").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(
        reply
            .field("content-type")
            .unwrap()
            .starts_with("text/plain"),
        "{reply:?}"
    );
    let id = reply.field("x-request-id").unwrap();
    assert!(reply.text().contains(id), "{reply:?}");
    assert!(reply.body.len() < 512);

    let accept = ("accept", "application/json");
    let reply = gateway.send(get_with("/nothing", &[accept])).await;
    assert!(
        reply
            .field("content-type")
            .unwrap()
            .starts_with("application/json"),
        "{reply:?}"
    );
    assert!(
        reply.text().contains(reply.field("x-request-id").unwrap()),
        "{reply:?}"
    );
    assert!(reply.json().is_object());
    for telltale in ["tidegate", "hyper", "127.0.0.1", "upstream"] {
        assert!(
            !reply.text().to_lowercase().contains(telltale),
            "{telltale}: {reply:?}"
        );
    }
}

/// Every spelling of a path is either refused or taken by the same route and forwarded in the same form.
#[tokio::test]
async fn no_spelling_of_a_path_walks_around_its_filters() {
    let upstream = Upstream::echo().await;
    let gateway = Routes::before(&upstream)
        .with("public", "path = \"/public/*\"")
        .with("admin", "path = \"/admin\"")
        .with("below", "path = \"/admin/*\"")
        .start()
        .await;
    for target in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/x/../../admin",
        "//admin",
        "/./admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/../admin",
        "/public/..//admin",
        "http://h/public/../admin",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        let reply = wire.read_message().await;
        assert_eq!(reply.status(), 200, "{target}");
        let echo: tidegate_tests::upstream::Echo = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (echo.field("x-taken"), echo.target.as_str()),
            (Some("admin"), "/admin"),
            "{target}"
        );
    }
    let before = upstream.requests();
    for target in [
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/admin%2f",
        "/admin%2Fx",
        "/admin%00",
        "/public/..%5cadmin",
        "/public\\..\\admin",
        "/admin%3bx",
        "/admin%23",
        "/admin%3f",
        "/admin#x",
        "/%zz",
        "/%",
        "/%4",
        "/a%0d%0ab",
        "/a\u{7f}",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        let reply = wire.read_message().await;
        assert_eq!(reply.status(), 400, "{target}: {reply:?}");
    }
    assert_eq!(upstream.requests(), before);
}

#[tokio::test]
async fn what_was_matched_is_what_is_forwarded() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for (sent, arrived) in [
        ("/a/./b/../c?x=/../y", "/a/c?x=/../y"),
        ("/%7Euser/%c3%a9", "/~user/%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a;x=1?b=%zz;c&c", "/a;x=1?b=%zz;c&c"),
        ("/?", "/?"),
        ("/a//b///c", "/a/b/c"),
        ("/%25%32%65", "/%252e"),
    ] {
        let reply = gateway.send(get(sent)).await;
        assert_eq!(reply.echo().target, arrived, "{sent}");
    }
}

#[tokio::test]
async fn ambiguous_escapes_can_be_kept() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("ambiguous-paths = \"keep\"")
        .start()
        .await;
    let seen = gateway.get("/a%2fb/../c%2f..%2fd").await.echo();
    assert_eq!(seen.target, "/c%2F..%2Fd");
    assert_eq!(gateway.get("/a%00").await.status, StatusCode::BAD_REQUEST);
}
