//! One meaning for everything that a client can write in several ways: who somebody is, which host is meant, how far a
//! request may go.

use http::{Method, StatusCode};
use tidegate_tests::client::{empty, get_with, request};
use tidegate_tests::frames::{DATA, END_STREAM, Fate, Field, GET, Http2, POST, frame, headers};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::{Echo, Upstream};
use tidegate_tests::wait::until;

/// A route whose filter says that everybody is Ada.
async fn marked(endpoint: &str) -> Gateway {
    let filter = Guest::new()
        .sets_request_field("x-auth-user", "ada")
        .build();
    Setup::with_upstream("main", endpoint)
        .route("/*", "main", &["mark"])
        .filter("mark", filter)
        .start()
        .await
}

/// Everything that could be taken for a field, wherever it stands.
fn like(seen: &Echo, name: &str) -> Vec<String> {
    let all = seen.fields.iter().chain(&seen.trailers);
    all.filter(|(found, _)| found.replace('_', "-").eq_ignore_ascii_case(name))
        .map(|(_, value)| value.clone())
        .collect()
}

#[tokio::test]
async fn nobody_is_somebody_else_over_http_2_or_in_trailers() {
    let upstream = Upstream::echo().await;
    for endpoint in [upstream.url(), upstream.h2c()] {
        let gateway = marked(&endpoint).await;
        let mut client = Http2::connect(gateway.http()).await;
        let lies: [Field<'_>; 5] = [
            (b"x-auth-user", b"root"),
            (b"x_auth_user", b"root"),
            (b"x-auth_user", b"root"),
            (b"trailer", b"x-auth-user, x_auth_user, x-sum, x-request-id"),
            (b"te", b"trailers"),
        ];
        client
            .send(headers(0, 1, &[&POST[..], &lies].concat()))
            .await;
        client.send(frame(DATA, 0, 1, b"body")).await;
        let trailers: [Field<'_>; 5] = [
            (b"x-auth-user", b"root"),
            (b"x_auth_user", b"root"),
            (b"x-sum", b"1"),
            (b"x-request-id", b"root"),
            (b"x-unannounced", b"root"),
        ];
        client.send(headers(END_STREAM, 1, &trailers)).await;
        assert_eq!(client.fate(1).await, Fate::Answered(200));
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(like(&seen, "x-auth-user"), ["ada"], "{seen:?}");
        assert_eq!(like(&seen, "x-request-id").len(), 1, "{seen:?}");
        assert_eq!(like(&seen, "x-unannounced"), [""; 0], "{seen:?}");
        assert_eq!(seen.trailer("x-sum"), Some("1"), "{seen:?}");

        let mut wire = gateway.wire().await;
        wire.send(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Auth-User, X-Sum\r\n\r\n\
             1\r\na\r\n0\r\nX-Auth-User: root\r\nX-Sum: 1\r\n\r\n",
        )
        .await;
        assert_eq!(wire.read_message().await.status(), 200);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(like(&seen, "x-auth-user"), ["ada"], "{seen:?}");
        assert_eq!(seen.trailer("x-sum"), Some("1"), "{seen:?}");
    }
}

#[tokio::test]
async fn no_parameter_and_no_dot_makes_another_path() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/public/*", "main", &[])
        .route("/admin", "main", &["no"])
        .route("/admin/*", "main", &["no"])
        .filter("no", Guest::new().answers(403, "no").build())
        .start()
        .await;
    for (target, status) in [
        ("/admin", 403),
        ("/admin/", 403),
        ("/admin/x", 403),
        ("/public/../admin", 403),
        ("/public/%2e%2e/admin/x", 403),
        ("/public/./../admin", 403),
        ("/%61dmin", 403),
        ("//admin", 403),
        // A parameter makes a path that no route knows, here and at servers that would take it off.
        ("/admin;x=1", 404),
        ("/ADMIN", 404),
        ("/admin.", 404),
        ("/admin%2e", 404),
        ("/admin%20", 404),
        ("/public/..%2fadmin", 400),
        // Servers that take parameters off first would go up here.
        ("/public/..;/admin", 400),
        ("/public/..;x=1/admin", 400),
        ("/public/%2e%2e;/admin", 400),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        assert_eq!(wire.read_message().await.status(), status, "{target}");
    }
    let seen: Vec<String> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert_eq!(seen, [""; 0]);
}

#[tokio::test]
async fn a_host_is_one_however_it_is_written_and_however_many_there_are() {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::with_upstream("main", &upstream.url());
    for number in 0..150 {
        setup = setup.toml(&format!(
            "[[route]]\nhost = \"h{number}.example\"\nupstream = \"main\"\nfilters = [\"mark\"]"
        ));
    }
    let mark = Guest::new().sets_request_field("x-mark", "1").build();
    let gateway = setup.filter("mark", mark).start().await;
    for host in [
        "h77.example",
        "H77.Example",
        "h77.example.",
        "h77.example:80",
        "h77.example:",
        "H77.EXAMPLE.:8080",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(wire.read_message().await.status(), 200, "{host}");
        let mut client = Http2::connect(gateway.http()).await;
        let fields = GET.map(|(name, value)| {
            let value = if name == b":authority" {
                host.as_bytes()
            } else {
                value
            };
            (name, value)
        });
        client.send(headers(END_STREAM, 1, &fields)).await;
        assert_eq!(client.fate(1).await, Fate::Answered(200), "{host}");
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.field("x-mark") == Some("1"))
    );
    for host in ["h150.example", "xh77.example", "h77.example.evil", "h77"] {
        let reply = gateway.send(get_with("/", &[("host", host)])).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{host}");
    }
}

#[tokio::test]
async fn an_old_client_without_a_host_is_served() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send("GET /old HTTP/1.0\r\n\r\n").await;
    assert!(wire.rest().await.contains(" 200 "));
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(seen.all("host").len(), 1);
    assert_eq!(seen.field("x-forwarded-host"), None);
}

#[tokio::test]
async fn a_request_goes_no_further_than_it_may() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let ask = async |method: Method, hops: &str| {
        let sent = request(method, "/")
            .header("max-forwards", hops)
            .body(empty())
            .unwrap();
        gateway.send(sent).await
    };
    let here = ask(Method::OPTIONS, "0").await;
    assert_eq!(here.status, StatusCode::OK);
    assert!(
        here.field("allow")
            .is_some_and(|allow| allow.contains("GET"))
    );
    assert_eq!(upstream.requests(), 0);
    for (sent, arrived) in [
        ("1", Some("0")),
        ("10", Some("9")),
        ("many", None),
        ("-1", None),
    ] {
        let seen = ask(Method::OPTIONS, sent).await.echo();
        assert_eq!(seen.field("max-forwards"), arrived, "{sent}");
    }
    // Other methods have nothing to do with it.
    let seen = ask(Method::GET, "0").await.echo();
    assert_eq!(seen.field("max-forwards"), Some("0"));
    assert_eq!(
        ask(Method::TRACE, "0").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    // The server as a whole is its root.
    let mut wire = gateway.wire().await;
    wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let reply = wire.read_message().await;
    let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("OPTIONS", "/")
    );
}

#[tokio::test]
async fn who_a_client_is_survives_what_proxies_write() {
    let upstream = Upstream::echo().await;
    let log = "access-log = { format = \"json\", path = \"-\" }";
    let gateway = Setup::before(&upstream)
        .server("trusted-proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]")
        .server(log)
        .start()
        .await;
    // The rightmost that is not trusted; what is no address ends the search.
    for (told, client) in [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("garbage, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, garbage", "127.0.0.1"),
        ("fe80::1%eth0", "127.0.0.1"),
        ("", "127.0.0.1"),
        (",,,", "127.0.0.1"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
    ] {
        let before = gateway.stdout().len();
        let reply = gateway
            .send(get_with("/", &[("x-forwarded-for", told)]))
            .await;
        assert_eq!(reply.status, StatusCode::OK);
        until("the line in the log", async || {
            gateway.stdout().len() > before
        })
        .await;
        let line = gateway.stdout().pop().unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["client"], client, "{told:?}");
    }
    // Strangers are not asked, whatever they send.
    let gateway = Setup::before(&upstream).start().await;
    let lies = [
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-for", "\"<script>\""),
        ("x-real-ip", "1.2.3.4"),
    ];
    let seen = gateway.send(get_with("/", &lies)).await.echo();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    for name in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_whole_is_none() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for head in [
        // With a body, on another method, twice, to nothing.
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "DELETE / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: other\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(head).await;
        assert_eq!(wire.read_message().await.status(), 200, "{head:?}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.field("upgrade"), None, "{head:?}");
        assert_eq!(seen.field("connection"), None, "{head:?}");
        // What follows is the next request.
        wire.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(wire.read_message().await.status(), 200, "{head:?}");
        assert_eq!(upstream.seen().pop().unwrap().target, "/next");
    }
}

#[tokio::test]
async fn every_way_to_be_refused_has_a_reason_of_its_own() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml(
            "[server.limits]\nmax-body = \"10B\"\nheader-timeout = \"300ms\"\nbody-idle-timeout = \"300ms\"\n\
             max-target = \"64B\"\nmax-head = \"1KiB\"",
        )
        .server("underscores = \"refuse\"")
        .start()
        .await;
    let long = "a".repeat(2000);
    let many = "X: a\r\n".repeat(101);
    for (bytes, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_host"),
        (
            "GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            400,
            "bad_path",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n".to_owned(),
            400,
            "bad_head",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n".to_owned(),
            400,
            "framing",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            501,
            "coding",
        ),
        (
            "GET / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned(),
            505,
            "version",
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            405,
            "method",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nExpect: gold\r\n\r\n".to_owned(),
            417,
            "expectation",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nx_a: 1\r\n\r\n".to_owned(),
            400,
            "field_name",
        ),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
            414,
            "uri_too_long",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"),
            431,
            "header_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"),
            431,
            "header_too_large",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n".to_owned(),
            408,
            "timeout_header",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n".to_owned(),
            413,
            "body_too_large",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab".to_owned(),
            408,
            "timeout_body",
        ),
    ] {
        let labels = [("reason", reason)];
        let name = "tidegate_client_errors_total";
        let before = gateway.metric(name, &labels).await;
        let all = gateway.metric(name, &[]).await;
        let mut wire = gateway.wire().await;
        wire.send(&bytes).await;
        let answer = wire.rest_or_open().await;
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{reason}: {answer:?}");
        until(&format!("{reason} to be counted"), async || {
            gateway.metric(name, &labels).await > before + 0.5
        })
        .await;
        let now = gateway.metric(name, &[]).await;
        assert!(
            (now - all - 1.0).abs() < 0.1,
            "{reason}: counted {}",
            now - all
        );
    }
    // None of them was an upstream's fault.
    assert!(gateway.metric("tidegate_failures_total", &[]).await < 0.5);
}

#[tokio::test]
async fn a_client_that_leaves_is_nobodys_failure() {
    let upstream = Upstream::serve(async |_| std::future::pending().await).await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { format = \"json\", path = \"-\" }")
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET /left HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("the request to arrive", async || upstream.requests() == 1).await;
    wire.reset();
    until("it to be counted", async || {
        gateway.metric("tidegate_client_aborts_total", &[]).await > 0.5
    })
    .await;
    until("the line in the log", async || gateway.stdout().len() == 1).await;
    let line: serde_json::Value = serde_json::from_str(&gateway.stdout()[0]).unwrap();
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&499.into(), &"client_abort".into())
    );
    for name in ["tidegate_failures_total", "tidegate_client_errors_total"] {
        assert!(gateway.metric(name, &[]).await < 0.5, "{name}");
    }
}
