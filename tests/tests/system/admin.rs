//! What the proxy says of itself, and to whom.

use http::{Method, StatusCode};
use tidegate_tests::client::{Client, empty, full, get, get_with, request};
use tidegate_tests::gateway::{Setup, sum_of};
use tidegate_tests::guests::{Guest, sets_header};
use tidegate_tests::upstream::{DeadEnd, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::Wire;

#[tokio::test]
async fn it_is_alive_and_ready() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    assert_eq!(gateway.admin("/livez").await.status, StatusCode::OK);
    assert_eq!(gateway.admin("/readyz").await.status, StatusCode::OK);
    assert_eq!(gateway.admin("/other").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_and_attempts_are_counted() {
    let upstream = Upstream::echo().await;
    let nobody = DeadEnd::new();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .upstream("gone", &nobody.url())
        .toml("[[route]]\nname = \"good\"\npath = \"/good\"\nupstream = \"main\"")
        .toml("[[route]]\nname = \"bad\"\npath = \"/bad\"\nupstream = \"gone\"")
        .workers(2)
        .start()
        .await;
    for _ in 0..5 {
        gateway.get("/good").await;
    }
    for _ in 0..3 {
        gateway.get("/bad").await;
    }
    gateway.get("/nothing").await;
    let count = async |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels).await;
    until("all requests to be counted", async || {
        (count("tidegate_requests_total", &[]).await - 9.0).abs() < 0.1
    })
    .await;
    let text = gateway.admin("/metrics").await.text();
    let sum = |name: &str, labels: &[(&str, &str)]| sum_of(&text, name, labels);
    let is = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 0.1,
            "{found} is not {expected}\n{text}"
        )
    };
    is(
        sum(
            "tidegate_requests_total",
            &[("route", "good"), ("class", "2xx")],
        ),
        5.0,
    );
    is(
        sum(
            "tidegate_requests_total",
            &[("route", "bad"), ("class", "5xx")],
        ),
        3.0,
    );
    is(sum("tidegate_requests_total", &[("class", "4xx")]), 1.0);
    is(
        sum(
            "tidegate_request_duration_seconds_count",
            &[("route", "good")],
        ),
        5.0,
    );
    assert!(
        sum("tidegate_upstream_attempts_total", &[("upstream", "main")]) >= 5.0,
        "{text}"
    );
    assert!(
        sum("tidegate_upstream_failures_total", &[("upstream", "gone")]) >= 3.0,
        "{text}"
    );
    assert!(text.contains("tidegate_connections_open"), "{text}");
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("mark", sets_header("x-a", "b"))
        .route("/*", "main", &["mark"])
        .start()
        .await;
    gateway.get("/").await;
    let reply = gateway.admin("/metrics").await;
    let kind = reply.field("content-type").unwrap();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = reply.text();
    let mut typed = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!typed.contains(&name), "{name} twice");
            typed.push(name);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| {
                    name.strip_suffix(ending)
                        .filter(|base| typed.contains(base))
                })
                .unwrap_or(name);
            assert!(typed.contains(&family), "{line} has no type");
        }
    }
    for name in [
        "tidegate_requests_total",
        "tidegate_request_duration_seconds",
        "tidegate_filter_calls_total",
    ] {
        assert!(typed.contains(&name), "{name} is missing: {typed:?}");
    }
}

#[tokio::test]
async fn filters_are_counted() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("mark", sets_header("x-a", "b"))
        .filter("no", Guest::new().answers(403, "no").build())
        .filter("bad", Guest::new().traps_in("request-head").build())
        .route("/mark", "main", &["mark"])
        .route("/no", "main", &["no"])
        .route("/bad", "main", &["bad"])
        .start()
        .await;
    for path in ["/mark", "/mark", "/no", "/bad"] {
        gateway.get(path).await;
    }
    for (name, labels, expected) in [
        (
            "tidegate_filter_calls_total",
            [("filter", "mark")].as_slice(),
            2.0,
        ),
        ("tidegate_filter_answers_total", &[("filter", "no")], 1.0),
        ("tidegate_filter_failures_total", &[("filter", "bad")], 1.0),
    ] {
        until(&format!("{name} to be {expected}"), async || {
            (gateway.metric(name, labels).await - expected).abs() < 0.1
        })
        .await;
    }
}

#[tokio::test]
async fn plugins_are_listed_with_what_is_known_of_them() {
    let upstream = Upstream::echo().await;
    let wasm = sets_header("x-a", "b");
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("10-mark", &wasm)
        .route("/*", "main", &["mark"])
        .start()
        .await;
    let entry = gateway.plugin("mark").await;
    assert_eq!(entry["state"], "ok");
    assert!(
        entry["file"].as_str().unwrap().ends_with("10-mark.wasm"),
        "{entry}"
    );
    let digest: String = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(&wasm);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert!(
        entry["digest"].as_str().unwrap().contains(&digest),
        "{entry} {digest}"
    );
    assert_eq!(entry["phases"], serde_json::json!(["response-head"]));
    assert!(entry["kind"].as_str().unwrap().contains("core"), "{entry}");
    for key in ["since", "memory"] {
        assert!(!entry[key].is_null(), "{key}: {entry}");
    }
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .env("PASSWORD", "hunter2")
        .filter("mark", sets_header("x-a", "b"))
        .toml("[filter.mark.config]\npassword = \"${PASSWORD}\"\napi-key = \"s3cr3t\"\ncolor = \"blue\"")
        .toml("[[route]]\nname = \"all\"\nupstream = \"main\"\nfilters = [\"mark\"]")
        .start()
        .await;
    let text = gateway.admin("/config").await.text();
    for secret in ["hunter2", "s3cr3t"] {
        assert!(!text.contains(secret), "{text}");
    }
    for shown in ["\"all\"", "main", &upstream.address().to_string()] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    for line in gateway.log() {
        assert!(!line.text.contains("hunter2"), "{line:?}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed_here() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for path in ["/livez", "/config", "/plugins", "/metrics"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let sent = request(method, path).body(full("x")).unwrap();
            let reply = Client::http1(gateway.admin_address())
                .await
                .send(sent)
                .await;
            assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
    let head = request(Method::HEAD, "/livez").body(empty()).unwrap();
    let reply = Client::http1(gateway.admin_address())
        .await
        .send(head)
        .await;
    assert!(reply.status == StatusCode::OK || reply.status == StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_foreign_name_for_it_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let ask = async |host: &str| {
        let sent = get_with("/config", &[("host", host)]);
        Client::http1(gateway.admin_address())
            .await
            .send(sent)
            .await
            .status
    };
    for host in [
        "localhost",
        "localhost:9901",
        "127.0.0.1",
        "127.0.0.1:9901",
        "[::1]:9901",
    ] {
        assert_eq!(ask(host).await, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1x",
    ] {
        assert_eq!(ask(host).await, StatusCode::FORBIDDEN, "{host}");
    }
    let mut wire = Wire::connect(gateway.admin_address()).await;
    wire.send("GET /config HTTP/1.1\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn it_is_not_reached_from_where_traffic_comes() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/only", "main", &[])
        .start()
        .await;
    for path in ["/livez", "/readyz", "/metrics", "/plugins", "/config"] {
        assert_eq!(
            gateway.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    // The harness waits for admin, so this one looks by itself.
    let upstream = Upstream::echo().await;
    let setup = Setup::before(&upstream);
    let text = setup
        .configuration()
        .replace("admin = \"127.0.0.1:0\"", "admin = \"off\"");
    let setup = setup.file("tidegate.toml", text);
    let checked = setup.run(&["check", "--config", "tidegate.toml"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.said());
}

#[tokio::test]
async fn many_scrapes_at_once_are_answered() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let scrapes = (0..50).map(|_| async {
        Client::http1(gateway.admin_address())
            .await
            .send(get("/metrics"))
            .await
            .status
    });
    for status in futures_util::future::join_all(scrapes).await {
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn workers_tell_how_late_they_are() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).workers(2).start().await;
    for worker in ["0", "1"] {
        until(&format!("worker {worker} to beat"), async || {
            let labels = [("worker", worker)];
            gateway
                .metric("tidegate_worker_lag_seconds_count", &labels)
                .await
                > 1.5
        })
        .await;
    }
    assert!(gateway.metric("tidegate_worker_stalls_total", &[]).await < 0.5);
}
