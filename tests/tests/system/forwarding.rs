//! What a proxy changes on a request and a response (RFC 9110 section 7.6), and what it leaves alone.

use http::{Method, Response, StatusCode};
use tidegate_tests::client::{empty, full, get, get_with, post, request, with};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::{Echo, Scripted, Upstream};
use tidegate_tests::wire::Wire;

/// Sends raw bytes and reads the echoing upstream's answer.
async fn echo_of(wire: &mut Wire, bytes: &str) -> Echo {
    wire.send(bytes).await;
    let reply = wire.read_message().await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn a_request_reaches_the_upstream_as_it_was_sent() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        let method: Method = method.parse().unwrap();
        let sent = request(method.clone(), "/a/b?c=d&e")
            .header("x-own", "one")
            .header("x-own", "two")
            .header("host", "shop.example:8080")
            .body(full("some bytes"))
            .unwrap();
        let seen = client.send(sent).await.echo();
        assert_eq!(seen.method, method.as_str());
        assert_eq!(seen.target, "/a/b?c=d&e");
        assert_eq!(seen.all("x-own"), ["one", "two"]);
        assert_eq!(seen.field("host"), Some("shop.example:8080"));
        assert_eq!(seen.body, "some bytes");
        assert_eq!(seen.field("content-length"), Some("10"));
    }
    assert_eq!(upstream.requests(), 7);
}

#[tokio::test]
async fn a_response_reaches_the_client_as_it_was_sent() {
    let upstream = Upstream::serve(async |_| {
        let mut response = Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("content-type", "text/x-own; charset=latin1")
            .header("etag", "\"7\"")
            .header(
                "x-bytes",
                http::HeaderValue::from_bytes(b"caf\xe9").unwrap(),
            );
        for number in 0..20 {
            response = response.header("set-cookie", format!("c{number}=v"));
        }
        response.body(full("short and stout")).unwrap()
    })
    .await;
    let gateway = Setup::before(&upstream).start().await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(
        reply.field("content-type"),
        Some("text/x-own; charset=latin1")
    );
    assert_eq!(reply.field("content-length"), Some("15"));
    assert_eq!(reply.fields["x-bytes"].as_bytes(), b"caf\xe9");
    let cookies: Vec<String> = (0..20).map(|number| format!("c{number}=v")).collect();
    assert_eq!(reply.all("set-cookie"), cookies);
    assert_eq!(reply.text(), "short and stout");
}

#[tokio::test]
async fn fields_of_one_hop_stay_there() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    let seen = echo_of(
        &mut wire,
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
         Proxy-Authorization: Basic eDp5\r\nX-Kept: 1\r\n\r\n",
    )
    .await;
    for name in [
        "x-named",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_ne!(seen.field("te"), Some("trailers, gzip"));
    assert_eq!(seen.field("x-kept"), Some("1"));

    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: x\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let reply = gateway.get("/").await;
    for name in ["x-named", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(reply.field(name), None, "{name}");
    }
    assert_eq!(reply.field("x-kept"), Some("1"));
}

#[tokio::test]
async fn connection_can_not_erase_what_the_proxy_and_its_filters_say() {
    let upstream = Upstream::echo().await;
    let filter = Guest::new()
        .sets_request_field("x-auth-user", "ada")
        .build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["mark"])
        .filter("mark", filter)
        .start()
        .await;
    let mut wire = gateway.wire().await;
    let seen = echo_of(
        &mut wire,
        "GET / HTTP/1.1\r\nHost: h\r\nX-Auth-User: root\r\n\
         Connection: close, X-Auth-User, X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Host\r\n\r\n",
    )
    .await;
    assert_eq!(seen.all("x-auth-user"), ["ada"]);
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert!(seen.field("x-request-id").is_some());
    assert_eq!(seen.all("host"), ["h"]);
}

#[tokio::test]
async fn no_spelling_of_a_field_stands_in_for_what_a_filter_sets() {
    let upstream = Upstream::echo().await;
    let filter = Guest::new()
        .sets_request_field("x-auth-user", "ada")
        .build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["mark"])
        .filter("mark", filter)
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX_Auth_User: root\r\nx_auth-user: root\r\nX-AUTH-USER: root\r\n\
         X-Auth-User: root\r\n\r\n",
    )
    .await;
    let reply = wire.read_message().await;
    // Refused or dropped: either is safe.
    if reply.status() == 200 {
        let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
        let values: Vec<&str> = seen
            .fields
            .iter()
            .filter(|(name, _)| name.replace('_', "-") == "x-auth-user")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(values, ["ada"]);
    } else {
        assert_eq!(reply.status(), 400);
    }
}

#[tokio::test]
async fn strangers_do_not_say_who_they_are() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let lies = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-real-ip", "1.2.3.4"),
        (
            "forwarded",
            "for=1.2.3.4;proto=https;host=bank.example, for=5.6.7.8",
        ),
        ("host", "shop.example"),
    ];
    let seen = gateway.send(get_with("/", &lies)).await.echo();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example"]);
    assert_ne!(seen.field("x-real-ip"), Some("1.2.3.4"));
    let forwarded = seen.all("forwarded").join(", ");
    for lie in ["1.2.3.4", "5.6.7.8", "bank", "https"] {
        assert!(!forwarded.contains(lie), "{forwarded}");
    }
    assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");
    assert!(forwarded.contains("proto=http"), "{forwarded}");
}

/// A certificate that somebody else looked at: whoever is not trusted can't speak of one, in whatever spelling, over
/// either protocol, in the head or behind the body; a trusted proxy can.
#[tokio::test]
async fn strangers_do_not_show_certificates_of_others() {
    let upstream = Upstream::echo().await;
    let lies = [
        ("x-client-cert", "MIIB"),
        ("X-Client-Cert-Subject", "CN=root"),
        ("X_Client_Cert_Verified", "SUCCESS"),
        ("x-client_cert", "MIIB"),
        ("x-forwarded-client-cert", "Hash=00;Subject=root"),
        ("x_forwarded_client_cert", "Hash=00;Subject=root"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("ssl_client_s_dn", "CN=root"),
        ("client-cert", ":MIIB:"),
        ("client-cert-chain", ":MIIB:"),
    ];
    let told = |seen: &Echo| {
        let names = seen.fields.iter().map(|(name, _)| name.replace('_', "-"));
        names
            .filter(|name| name.contains("cert") || name.contains("ssl"))
            .count()
    };
    for spelling in ["drop", "allow"] {
        let server = format!("underscores = \"{spelling}\"");
        let gateway = Setup::before(&upstream).server(&server).start().await;
        let seen = gateway.send(get_with("/", &lies)).await.echo();
        assert_eq!(told(&seen), 0, "{spelling}: {seen:?}");
        let mut http2 = gateway.http2().await;
        let seen = http2.send(get_with("/", &lies)).await.echo();
        assert_eq!(told(&seen), 0, "{spelling}: {seen:?}");
        let mut wire = gateway.wire().await;
        let seen = echo_of(
            &mut wire,
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Trailer: X-Client-Cert, X_Client_Cert, X-Own\r\n\r\n\
             0\r\nX-Client-Cert: MIIB\r\nX_Client_Cert: MIIB\r\nX-Own: 1\r\n\r\n",
        )
        .await;
        let trailers = format!("{:?}", seen.trailers);
        assert!(trailers.contains("x-own"), "{spelling}: {trailers}");
        assert!(!trailers.contains("cert"), "{spelling}: {trailers}");
    }
    let gateway = Setup::before(&upstream)
        .server("trusted-proxies = [\"127.0.0.0/8\"]")
        .start()
        .await;
    let seen = gateway.send(get_with("/", &lies)).await.echo();
    assert_eq!(seen.field("x-client-cert"), Some("MIIB"));
    assert_eq!(told(&seen), 6, "{seen:?}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("trusted-proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
        .start()
        .await;
    let fields = [
        ("x-forwarded-for", "203.0.113.9, 10.0.0.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-request-id", "given-by-the-edge"),
        ("host", "inner.example"),
    ];
    let seen = gateway.send(get_with("/", &fields)).await.echo();
    let chain = seen.all("x-forwarded-for").join(", ");
    assert_eq!(chain, "203.0.113.9, 10.0.0.7, 127.0.0.1");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(seen.all("x-request-id"), ["given-by-the-edge"]);
}

#[tokio::test]
async fn every_request_has_an_id_of_its_own() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..5 {
        let reply = gateway.get("/").await;
        let id = reply.echo().field("x-request-id").unwrap().to_owned();
        assert!(id.len() >= 16, "{id}");
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn a_route_may_put_the_upstreams_name_in_host() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .toml("[[route]]\nupstream = \"main\"\npreserve-host = false")
        .start()
        .await;
    let reply = gateway
        .send(get_with("/", &[("host", "shop.example")]))
        .await;
    let address = upstream.address().to_string();
    assert_eq!(reply.echo().all("host"), [address.as_str()]);
    assert_eq!(reply.echo().field("x-forwarded-host"), Some("shop.example"));
}

#[tokio::test]
async fn one_host_decides_wherever_it_is_named() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send("GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    let reply = wire.read_message().await;
    if reply.status() == 200 {
        let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(seen.target, "/x");
        assert_eq!(seen.all("host"), ["b.example"]);
        assert_eq!(seen.field("x-forwarded-host"), Some("b.example"));
    } else {
        assert_eq!(reply.status(), 400);
    }
}

#[tokio::test]
async fn endpoints_take_turns() {
    let first = Upstream::echo().await;
    let second = Upstream::echo().await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.both]\nendpoints = [\"{}\", \"{}\"]",
            first.url(),
            second.url()
        ))
        .route("/*", "both", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    for _ in 0..10 {
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
    }
    assert_eq!((first.requests(), second.requests()), (5, 5));
}

#[tokio::test]
async fn connections_to_an_upstream_are_used_again() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for _ in 0..10 {
        let reply = gateway.send(post("/", "body")).await;
        assert_eq!(reply.echo().body, "body");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_client_connection_carries_many_requests() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    let mut all = String::new();
    for number in 0..20 {
        all += &format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // All in one segment; the answers come in order.
    wire.send(all).await;
    for number in 0..20 {
        let reply = wire.read_message().await;
        let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(seen.target, format!("/{number}"));
    }
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let all = wire.rest().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1."), "{head}");
    assert!(head.contains(" 200 "), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    let seen: Echo = serde_json::from_str(body).unwrap();
    assert_eq!(seen.target, "/old");
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let upstream =
        Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\n\r\n").await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let mut wire = gateway.wire().await;
    for _ in 0..2 {
        wire.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let reply = wire.read_bare().await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.field("content-length"), Some("1234"));
        assert_eq!(reply.field("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (status, line) in [(204, "204 No Content"), (304, "304 Not Modified")] {
        let upstream = Scripted::answering(format!("HTTP/1.1 {line}\r\nETag: \"x\"\r\n\r\n")).await;
        let gateway = Setup::with_upstream("main", &upstream.url())
            .route("/*", "main", &[])
            .start()
            .await;
        let mut wire = gateway.wire().await;
        for _ in 0..2 {
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            let reply = wire.read_bare().await;
            assert_eq!(reply.status(), status);
            assert_eq!(reply.field("etag"), Some("\"x\""));
            assert_eq!(reply.field("transfer-encoding"), None);
            if status == 204 {
                assert_eq!(reply.field("content-length"), None);
            }
        }
    }
}

#[tokio::test]
async fn early_hints_go_through_to_clients_that_know_them() {
    let upstream = Scripted::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let first = wire.read_bare().await;
    if first.status() == 103 {
        assert_eq!(first.field("link"), Some("</a.css>; rel=preload"));
        let last = wire.read_message().await;
        assert_eq!((last.status(), last.text().as_str()), (200, "ok"));
    } else {
        // A proxy may leave an interim response out (RFC 9110 section 15.2); ours says where it does.
        panic!("no early hints came: {first:?}");
    }

    let mut old = gateway.wire().await;
    old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let all = old.rest().await;
    assert!(!all.contains("103"), "{all}");
    assert!(all.contains(" 200 "), "{all}");
}

#[tokio::test]
async fn who_expects_100_gets_it_before_sending_the_body() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let interim = wire.read_bare().await;
    assert_eq!(interim.status(), 100);
    wire.send("body").await;
    let reply = wire.read_message().await;
    assert_eq!(reply.status(), 200);
    let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(seen.body, "body");
    // The connection is still in step.
    let seen = echo_of(&mut wire, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(seen.target, "/next");
}

#[tokio::test]
async fn who_expects_100_and_is_refused_gets_no_100() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["no"])
        .filter("no", Guest::new().answers(403, "no").build())
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let reply = wire.read_message().await;
    assert_eq!(reply.status(), 403);
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn an_unknown_expectation_is_417() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let sent = with(get("/"), &[("expect", "a-miracle")]);
    let reply = gateway.send(sent).await;
    assert_eq!(reply.status, StatusCode::EXPECTATION_FAILED);
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        .await;
    assert_eq!(wire.read_message().await.status(), 405);
    let trace = request(Method::TRACE, "/")
        .header("cookie", "secret=1")
        .body(empty())
        .unwrap();
    let reply = gateway.send(trace).await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!reply.text().contains("secret"), "{reply:?}");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_request_that_went_in_a_circle_is_508() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("via = \"edge-1\"")
        .start()
        .await;
    let sent = get_with("/", &[("via", "1.1 other")]);
    let seen = gateway.send(sent).await.echo();
    let via = seen.all("via").join(", ");
    assert_eq!(via, "1.1 other, 1.1 edge-1");
    for via in ["1.1 other, 1.1 edge-1", "2.0 edge-1 (a comment), 1.1 other"] {
        let reply = gateway.send(get_with("/", &[("via", via)])).await;
        assert_eq!(reply.status, StatusCode::LOOP_DETECTED, "{via}");
    }
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn fields_with_underscores_are_as_the_operator_wants() {
    let upstream = Upstream::echo().await;
    for (policy, status, seen) in [
        ("drop", 200, None),
        ("allow", 200, Some("1")),
        ("refuse", 400, None),
    ] {
        let gateway = Setup::before(&upstream)
            .server(&format!("underscores = \"{policy}\""))
            .start()
            .await;
        let reply = gateway.send(get_with("/", &[("x_own", "1")])).await;
        assert_eq!(reply.status, status, "{policy}");
        if status == 200 {
            assert_eq!(reply.echo().field("x_own"), seen, "{policy}");
        }
    }
}
