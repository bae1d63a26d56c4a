//! What an upstream does wrong, told apart where operators look and kept from clients; and that a bad upstream is not made
//! worse by asking it more often.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;
use tidegate_tests::certs::Authority;
use tidegate_tests::client::{Reply, get, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{DeadEnd, Scripted, Upstream};
use tidegate_tests::wait::{eventually, until};
use tidegate_tests::wire::Wire;

/// Reads a request and then says this, closing the connection at the end or never.
async fn saying(words: &'static str, closes: bool) -> Scripted {
    Scripted::start(move |_, mut wire: Wire| async move {
        wire.try_read_message().await?;
        wire.try_send(words).await?;
        if closes {
            wire.finish().await;
        }
        wire.read_to_end().await;
        Ok(())
    })
    .await
}

/// The first line of the access log about a route.
async fn line(gateway: &Gateway, route: &str) -> Value {
    let path = gateway.folder().join("access.log");
    eventually(&format!("a line about {route}"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["route"] == route)
    })
    .await
}

#[tokio::test]
async fn every_fault_has_a_reason_in_figures_and_log_and_none_in_the_answer() {
    let authority = Authority::new();
    let nobody = DeadEnd::new();
    // A socket that is open and says nothing: no handshake of TLS ends.
    let mute = Scripted::start(async |_, mut wire: Wire| {
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let stranger = Upstream::echo_tls(&Authority::new().issue(&["127.0.0.1"])).await;
    let closing = saying("", true).await;
    let silent = saying("", false).await;
    let garbled = saying("SSH-2.0-\x1b[31msecret\r\n", true).await;
    let cut = saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", true).await;
    let stalling = saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", false).await;
    let mute_url = mute.url().replace("http:", "https:");
    let cases: [(&str, String, u16); 9] = [
        ("connect_refused", nobody.url(), 502),
        ("connect_timeout", mute_url, 504),
        ("dns", "http://nowhere.invalid:1".to_owned(), 502),
        ("tls", stranger.url(), 502),
        ("reset_before_head", closing.url(), 502),
        ("head_timeout", silent.url(), 504),
        ("invalid_response", garbled.url(), 502),
        ("truncated", cut.url(), 200),
        ("idle_timeout", stalling.url(), 200),
    ];
    let mut text = String::new();
    for (reason, url, _) in &cases {
        let tls = if reason.starts_with("tls") {
            "tls = { ca = \"ca.pem\" }"
        } else {
            ""
        };
        write!(
            text,
            "[upstream.{reason}]\nendpoints = [\"{url}\"]\nconnect-timeout = \"2s\"\nresponse-timeout = \"500ms\"\n\
             idle-timeout = \"500ms\"\n{tls}\n[[route]]\nname = \"{reason}\"\npath = \"/{reason}\"\nupstream = \"{reason}\"\n"
        )
        .unwrap();
    }
    let gateway = Setup::new()
        .server("access-log = { format = \"json\", path = \"access.log\" }")
        .file("ca.pem", authority.pem())
        .toml(&text)
        .start()
        .await;
    for (reason, url, status) in &cases {
        let mut client = gateway.http1().await;
        let path = format!("/{reason}");
        if *status == 200 {
            // The head came, and the body's end never does.
            let response = client.start(get(&path)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{reason}");
            assert!(Reply::collect(response).await.is_err(), "{reason}");
        } else {
            let reply = client.send(get(&path)).await;
            assert_eq!(reply.status.as_u16(), *status, "{reason}");
            let text = reply.text();
            for internal in [*reason, "127.0.0.1", "nowhere", "SSH", "tidegate", "secret"] {
                assert!(!text.contains(internal), "{reason}: {text}");
            }
            assert!(
                text.contains(reply.field("x-request-id").unwrap()),
                "{text}"
            );
        }
        let labels = [("upstream", *reason), ("reason", *reason)];
        until(&format!("the figure of {reason}"), async || {
            gateway
                .metric("tidegate_upstream_failures_total", &labels)
                .await
                == 1.0
        })
        .await;
        let line = line(&gateway, reason).await;
        // What breaks in mid-body may be the client's fault as well: there the log says whose it was.
        let logged = match *reason {
            "truncated" => "upstream_truncated",
            "idle_timeout" => "upstream_idle",
            reason => reason,
        };
        assert_eq!(line["reason"], logged, "{line}");
        assert_eq!(line["upstream"], *reason, "{line}");
        let endpoint = line["endpoint"].as_str().unwrap_or_default();
        assert!(endpoint.starts_with(url), "{line}");
        assert_eq!(line["attempts"], 1, "{line}");
        let labels = [("upstream", *reason)];
        let retries = gateway
            .metric("tidegate_upstream_retries_total", &labels)
            .await;
        assert_eq!(retries, 0.0, "{reason}");
    }
    // What a stranger said is never written as it came.
    for line in gateway.log() {
        assert!(!line.text.contains('\x1b'), "{line:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_fails_always_is_asked_once_for_each_request() {
    // It reads each request and closes, as a server does that falls over.
    let failing = saying("", true).await;
    let inner = Setup::with_upstream("main", &failing.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let outer = Setup::with_upstream("main", &format!("http://{}", inner.http()))
        .route("/*", "main", &[])
        .start()
        .await;
    for number in 1..=40 {
        let request = if number % 2 == 0 {
            get("/")
        } else {
            post("/", "x")
        };
        let reply = outer.send(request).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        // Neither of two proxies in a row multiplies it.
        assert_eq!(failing.connections(), number);
    }
}

#[tokio::test]
async fn with_every_endpoint_gone_the_answer_is_quick_and_bounded_and_comes_back_by_itself() {
    let gone: Vec<DeadEnd> = (0..5).map(|_| DeadEnd::new()).collect();
    let urls: Vec<String> = gone.iter().map(DeadEnd::url).collect();
    let gateway = Setup::new()
        .toml(&format!("[upstream.main]\nendpoints = {urls:?}"))
        .route("/*", "main", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    for _ in 0..20 {
        let reply = client.send(get("/")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    }
    // Three endpoints are tried for a request, not all.
    let attempts = gateway
        .metric("tidegate_upstream_attempts_total", &[])
        .await;
    assert_eq!(attempts, 60.0);
    // One of them comes back.
    let address = urls[3].strip_prefix("http://").unwrap().to_owned();
    drop(gone);
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut wire = Wire::over(stream);
            tokio::spawn(async move {
                while wire.try_read_message().await.is_ok() {
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
            });
        }
    });
    until("the first good answer", async || {
        client.send(get("/")).await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn an_upstreams_certificate_is_for_the_configured_name_and_still_holds() {
    let authority = Authority::new();
    let expired =
        Upstream::echo_tls(&authority.issue_until(&["localhost", "127.0.0.1"], 2020)).await;
    let good = Upstream::echo_tls(&authority.issue(&["inside.example"])).await;
    let gateway = Setup::new()
        .file("ca.pem", authority.pem())
        .toml(&format!(
            "[upstream.expired]\nendpoints = [\"{}\"]\ntls.ca = \"ca.pem\"",
            expired.url()
        ))
        .toml(&format!(
            "[upstream.good]\nendpoints = [\"{}\"]\ntls = {{ ca = \"ca.pem\", server-name = \"inside.example\" }}",
            good.url()
        ))
        .toml(&format!(
            "[upstream.careless]\nendpoints = [\"{}\"]\ntls.insecure = true",
            expired.url()
        ))
        .route("/expired", "expired", &[])
        .route("/good", "good", &[])
        .route("/careless", "careless", &[])
        .start()
        .await;
    assert_eq!(
        gateway.get("/expired").await.status,
        StatusCode::BAD_GATEWAY
    );
    let labels = [("upstream", "expired"), ("reason", "tls")];
    assert_eq!(
        gateway
            .metric("tidegate_upstream_failures_total", &labels)
            .await,
        1.0
    );
    // What the client calls the host changes neither the name that is asked for nor the one that is checked.
    for host in ["other.example", "localhost"] {
        let request = tidegate_tests::client::get_with("/good", &[("host", host)]);
        assert_eq!(gateway.send(request).await.status, StatusCode::OK, "{host}");
    }
    assert_eq!(gateway.get("/careless").await.status, StatusCode::OK);
    // Whoever checks nothing is told so, at the start and on the admin pages.
    gateway
        .logged(&["WARN", "of this upstream are not checked"])
        .await;
    let shown = gateway.admin("/config").await.json();
    let upstreams = shown["upstreams"].as_array().unwrap();
    for upstream in upstreams {
        let careless = upstream["name"] == "careless";
        assert_eq!(upstream["tls"]["insecure"], careless, "{upstream}");
    }
}
