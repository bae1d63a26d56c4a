//! What a failing filter leads to besides its policy's answer: nothing of its own left behind, one event, a rest for those
//! that fail again and again, and a check before a new version takes traffic.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tidegate_tests::client::{Reply, get, get_with, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, Guest, guest, sets_header};
use tidegate_tests::upstream::{Scripted, Upstream};
use tidegate_tests::wait::{eventually, until};
use tokio::sync::Notify;

/// A guest that does what field `x-probe` of the request says, on everything before `main`.
fn probe(upstream: &Upstream, settings: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url())
        .filter("probe", guest("sync-probe", Carrier::Core))
        .toml(&format!(
            "[filter.probe]\nallow = {{ store = [\"space\"], env = [\"GRANTED\", \"UNSET\"] }}\n{settings}"
        ))
        .route("/*", "main", &["probe"])
}

const TRAPS: [(&str, &str); 1] = [("x-probe", "request-head trap")];

async fn quarantined(gateway: &Gateway, filter: &str) -> bool {
    gateway.plugin(filter).await["state"] == "quarantined"
}

/// Puts a file in place of a filter's in one step.
fn put(gateway: &Gateway, filter: &str, wasm: &[u8]) {
    let file = gateway.plugin_file(&format!("{filter}.wasm"));
    let beside = file.with_extension("new");
    fs::write(&beside, wasm).unwrap();
    fs::rename(beside, file).unwrap();
}

// --- Open failures ---

#[tokio::test]
async fn what_a_filter_changed_before_it_failed_open_is_taken_back() {
    let upstream = Upstream::echo().await;
    let gateway = probe(
        &upstream,
        "failure = \"open\"\nconfig = { request-body = \"whole\" }",
    )
    .start()
    .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let commands = "request-head set x-new 1; request-head remove x-old; request-head set-path /changed; \
                        request-head set-method DELETE; request-head trap";
        let fields = [("x-probe", commands), ("x-old", "kept")];
        let reply = client.send(get_with("/as/it/was?q", &fields)).await;
        assert_eq!(reply.status, StatusCode::OK);
        let echo = reply.echo();
        assert_eq!(
            (echo.method.as_str(), echo.target.as_str()),
            ("GET", "/as/it/was?q")
        );
        assert_eq!(echo.field("x-old"), Some("kept"));
        assert_eq!(echo.field("x-new"), None);
        // A trap on the way back, with the head still here.
        let commands =
            "response-head set x-new 1; response-head set-status 500; response-head trap";
        let reply = client.send(get_with("/", &[("x-probe", commands)])).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.field("x-new"), None);
        assert!(reply.all("x-probe").is_empty(), "{reply:?}");
    }
    let passed = gateway
        .metric("tidegate_filter_fail_open_total", &[("filter", "probe")])
        .await;
    assert!((passed - 4.0).abs() < 0.1, "{passed}");
}

/// A guest that traps at the piece of a response's body that has so many bytes.
fn traps_at_piece_of(bytes: usize) -> Vec<u8> {
    let trap =
        format!("(if (i32.eq (local.get $length) (i32.const {bytes})) (then (unreachable)))\n");
    Guest::new().runs_in("response-body", &trap).build()
}

/// Sends half of a body, and the rest when it may.
async fn in_halves(may: &Arc<Notify>) -> Scripted {
    let may = Arc::clone(may);
    Scripted::start(move |_, mut wire| {
        let may = Arc::clone(&may);
        async move {
            while wire.try_read_message().await.is_ok() {
                wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                    .await?;
                may.notified().await;
                wire.try_send("other").await?;
            }
            Ok(())
        }
    })
    .await
}

#[tokio::test]
async fn a_trap_when_half_of_the_body_has_left_breaks_it_off_or_is_passed_by() {
    let may = Arc::new(Notify::new());
    let upstream = in_halves(&may).await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", traps_at_piece_of(5))
        .toml("[filter.lenient]\nuse = \"bad\"\nfailure = \"open\"")
        .route("/closed", "main", &["bad"])
        .route("/open", "main", &["lenient"])
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET /closed HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let begun = wire.read_until("half\r\n").await;
    assert!(begun.starts_with("HTTP/1.1 200 OK\r\n"), "{begun}");
    may.notify_one();
    let rest = wire.rest().await;
    assert!(
        !rest.contains("0\r\n\r\n") && !rest.contains("HTTP/1.1"),
        "{rest:?}"
    );
    let line = gateway.logged(&["a filter failed", "response-body"]).await;
    assert_eq!(line.field("filter"), Some("bad"));
    // HTTP/2: the stream is reset, and the connection serves on.
    let mut client = gateway.http2().await;
    let response = client.start(get("/closed")).await.unwrap();
    may.notify_one();
    assert!(Reply::collect(response).await.is_err());
    // What the filter never changed goes on without it, on the same connection.
    let response = client.start(get("/open")).await.unwrap();
    may.notify_one();
    assert_eq!(Reply::collect(response).await.unwrap().text(), "halfother");
}

#[tokio::test]
async fn there_is_never_more_than_one_answer() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, "").start().await;
    for (commands, status) in [
        // The last one given counts, and only for a callback that asks for it.
        (
            "request-head give 403 x-a 1; request-head answer 404 text",
            404,
        ),
        ("request-head give 403 x-a 1; request-head continue", 200),
        ("request-head answer 403; response-head answer 404", 403),
        ("response-head answer 404; response-head answer 405", 405),
        // The head has left: what was begun is broken off.
        ("response-body answer 404", 200),
        ("log give 500 x-a 1", 200),
    ] {
        let mut wire = gateway.wire().await;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Probe: {commands}\r\n\r\n"
        );
        wire.send(request).await;
        let all = wire.rest().await;
        assert!(
            all.starts_with(&format!("HTTP/1.1 {status} ")),
            "{commands}: {all}"
        );
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{commands}: {all}");
        let whole = all.ends_with("0\r\n\r\n") || all.contains("content-length: ");
        assert_eq!(
            whole,
            !commands.starts_with("response-body"),
            "{commands}: {all}"
        );
        assert!(
            !all.to_lowercase().contains("\r\nx-a: "),
            "{commands}: {all}"
        );
    }
    gateway
        .logged(&["probe: log give 500 x-a 1 => TooLate"])
        .await;
}

// --- Events ---

#[tokio::test]
async fn each_failure_is_one_event_that_says_where_and_why() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, "[filter.probe.limits]\ntime = \"200ms\"")
        .start()
        .await;
    for (command, phase, reason) in [
        ("request-head trap", "request-head", "trap"),
        ("response-head spin", "response-head", "timeout"),
    ] {
        let fields = [("x-probe", command), ("x-request-id", phase)];
        let reply = gateway.send(get_with("/", &fields)).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reply.text().contains(phase), "the id is told: {reply:?}");
        let line = gateway.logged(&["a filter failed", phase]).await;
        assert_eq!(line.field("filter"), Some("probe"));
        assert_eq!(line.field("phase"), Some(phase));
        assert_eq!(line.field("reason"), Some(reason));
        assert_eq!(line.field("request_id"), Some(phase));
        assert!(line.field("route").is_some(), "{}", line.text);
        if reason == "timeout" {
            assert_eq!(line.number("bound"), Some(200_000), "{}", line.text);
            assert!(line.number("value").unwrap() >= 150_000);
        }
        let labels = [("filter", "probe"), ("phase", phase), ("reason", reason)];
        let count = gateway
            .metric("tidegate_filter_failures_total", &labels)
            .await;
        assert!((count - 1.0).abs() < 0.1, "{count}");
    }
}

#[tokio::test]
async fn a_flood_of_failures_is_no_flood_of_lines() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, "quarantine = { failures = 0 }")
        .start()
        .await;
    let mut client = gateway.http1().await;
    let begun = Instant::now();
    for _ in 0..200 {
        let reply = client.send(get_with("/", &TRAPS)).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let lines = |gateway: &Gateway| {
        let log = gateway.log();
        log.iter()
            .filter(|line| line.says("a filter failed"))
            .count()
    };
    assert!(lines(&gateway) <= 5 * (seconds + 1), "{}", lines(&gateway));
    // The next line says how many there were besides.
    let told = eventually("a line that tells of the others", async || {
        client.send(get_with("/", &TRAPS)).await;
        let log = gateway.log();
        log.iter()
            .find_map(|line| line.number("suppressed").filter(|it| *it > 0))
    })
    .await;
    assert!(told > 0);
}

// --- Quarantine ---

const SHORT: &str = "quarantine = { failures = 5, first = \"300ms\", longest = \"600ms\" }";

#[tokio::test]
async fn a_filter_that_always_fails_is_taken_out_and_comes_back_when_it_is_good() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, SHORT).workers(2).start().await;
    for _ in 0..5 {
        assert_eq!(gateway.send(get_with("/", &TRAPS)).await.status, 503);
    }
    let line = gateway
        .logged(&["a filter is in quarantine", "probe"])
        .await;
    assert!(
        line.field("why")
            .is_some_and(|why| why.starts_with("in request-head: it trapped")),
        "{}",
        line.text
    );
    let seen = upstream.requests();
    // Also those that it would serve well, on whichever worker: nobody is called.
    let calls = gateway
        .metric("tidegate_filter_calls_total", &[("filter", "probe")])
        .await;
    let entry = gateway.plugin("probe").await;
    if entry["state"] == "quarantined" {
        assert_eq!(entry["quarantine"]["times"], 1, "{entry}");
        assert!(
            entry["quarantine"]["why"]
                .as_str()
                .unwrap()
                .contains("it trapped")
        );
        assert!(entry["quarantine"]["since"].as_str() < entry["quarantine"]["until"].as_str());
    }
    assert!(calls >= 5.0);
    assert_eq!(upstream.requests(), seen);
    // A trial that fails too makes it longer.
    until("a failed trial", async || {
        gateway.send(get_with("/", &TRAPS)).await;
        gateway
            .metric("tidegate_filter_quarantines_total", &[("filter", "probe")])
            .await
            >= 2.0
    })
    .await;
    assert!(quarantined(&gateway, "probe").await);
    assert!(
        gateway
            .metric("tidegate_filter_quarantined", &[("filter", "probe")])
            .await
            > 0.5
    );
    until("a good trial", async || {
        gateway.get("/").await.status == StatusCode::OK
    })
    .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(gateway.plugin("probe").await["state"], "ok");
    assert!(
        gateway
            .metric("tidegate_filter_quarantined", &[("filter", "probe")])
            .await
            < 0.5
    );
    gateway
        .logged(&["a filter is back in service", "probe"])
        .await;
}

#[tokio::test]
async fn an_open_filter_in_quarantine_is_passed_by_and_that_is_counted() {
    let upstream = Upstream::echo().await;
    let settings =
        "failure = \"open\"\nquarantine = { failures = 5, first = \"1h\", longest = \"1h\" }";
    let gateway = probe(&upstream, settings).start().await;
    for _ in 0..30 {
        assert_eq!(
            gateway.send(get_with("/", &TRAPS)).await.status,
            StatusCode::OK
        );
    }
    assert!(quarantined(&gateway, "probe").await);
    let entry = gateway.plugin("probe").await;
    assert_eq!(entry["figures"]["fail-open"], 30, "{entry}");
    assert_eq!(entry["figures"]["calls"]["request-head"], 5, "{entry}");
    assert_eq!(entry["figures"]["quarantines"], 1, "{entry}");
}

#[tokio::test]
async fn a_filter_that_fails_now_and_then_stays() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, "quarantine = { failures = 5 }")
        .start()
        .await;
    let mut client = gateway.http1().await;
    for round in 0..100 {
        let (fields, expected): (&[(&str, &str)], u16) = match round % 10 {
            0 => (&TRAPS, 503),
            _ => (&[], 200),
        };
        assert_eq!(
            client.send(get_with("/", fields)).await.status,
            expected,
            "{round}"
        );
    }
    assert_eq!(gateway.plugin("probe").await["state"], "ok");
}

#[tokio::test]
async fn a_new_version_ends_the_quarantine() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", Guest::new().traps_in("request-head").build())
        .toml("[filter.bad]\nquarantine = { failures = 3, first = \"1h\", longest = \"1h\" }")
        .route("/*", "main", &["bad"])
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(
            gateway.get("/").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    assert!(quarantined(&gateway, "bad").await);
    // Another filter's new version changes nothing.
    put(&gateway, "other", &sets_header("x-other", "yes"));
    until("the other filter", async || {
        gateway.plugin("other").await["state"] == "ok"
    })
    .await;
    assert!(quarantined(&gateway, "bad").await);
    put(&gateway, "bad", &sets_header("x-good", "yes"));
    until("the new version", async || {
        gateway.get("/").await.field("x-good") == Some("yes")
    })
    .await;
    assert_eq!(gateway.plugin("bad").await["state"], "ok");
    assert!(
        gateway
            .metric("tidegate_filter_quarantined", &[("filter", "bad")])
            .await
            < 0.5
    );
}

// --- Self-check ---

const SELF_CHECK: &str = "[filter.guard]\nself-check = { method = \"POST\", path = \"/x?y\", \
    headers = { x-a = \"1\" }, body = \"hi\", expect = { status = 403 } }";

#[tokio::test]
async fn a_version_that_answers_its_self_check_wrongly_does_not_go_live() {
    let upstream = Upstream::echo().await;
    let no = |text: &str| Guest::new().answers(403, text).build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("guard", no("one"))
        .toml(SELF_CHECK)
        .route("/*", "main", &["guard"])
        .start()
        .await;
    assert_eq!(gateway.get("/").await.text(), "one");
    for (bad, why) in [
        (
            sets_header("x-open", "door"),
            "the answer has status 200, and 403 is expected",
        ),
        (
            Guest::new().traps_in("request-head").build(),
            "failed in request-head: it trapped",
        ),
    ] {
        put(&gateway, "guard", &bad);
        let entry = eventually("the new version to be refused", async || {
            let entry = gateway.plugin("guard").await;
            let reason = entry["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains(why).then_some(entry)
        })
        .await;
        assert!(
            entry["reason"]
                .as_str()
                .unwrap()
                .contains("self-check `POST /x`"),
            "{entry}"
        );
        assert_eq!(
            (&entry["state"], &entry["running"]),
            (&"failed".into(), &true.into())
        );
        assert_ne!(entry["digest"], entry["configured-digest"], "{entry}");
        gateway
            .logged(&["its last good version goes on", why])
            .await;
        assert_eq!(gateway.get("/").await.text(), "one");
    }
    let failed = gateway
        .metric(
            "tidegate_filter_reload_failures_total",
            &[("filter", "guard")],
        )
        .await;
    assert!((failed - 2.0).abs() < 0.1, "{failed}");
    put(&gateway, "guard", &no("two"));
    until("a good version", async || {
        gateway.get("/").await.text() == "two"
    })
    .await;
    let entry = gateway.plugin("guard").await;
    assert_eq!(entry["digest"], entry["configured-digest"], "{entry}");
}

#[tokio::test]
async fn a_start_with_a_failed_self_check_serves_what_it_can() {
    let upstream = Upstream::echo().await;
    let setup = Setup::with_upstream("main", &upstream.url())
        .filter("guard", sets_header("x-open", "door"))
        .toml(SELF_CHECK)
        .route("/guarded", "main", &["guard"])
        .route("/free", "main", &[]);
    let checked = setup.check().await;
    let said = checked.said();
    assert_eq!(checked.code, Some(1), "{said}");
    assert!(
        said.contains("self-check `POST /x`: the answer has status 200, and 403 is expected"),
        "{said}"
    );
    let gateway = setup.start().await;
    assert_eq!(gateway.get("/free").await.status, StatusCode::OK);
    assert_eq!(
        gateway.get("/guarded").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(gateway.admin("/readyz").await.status, StatusCode::OK);
    assert_eq!(gateway.plugin("guard").await["state"], "failed");
}

#[tokio::test]
async fn a_self_check_sees_the_whole_request_and_leaves_nothing_behind() {
    let upstream = Upstream::echo().await;
    for (name, carrier) in [
        ("rust-probe", Carrier::Core),
        ("rust-probe", Carrier::Component),
    ] {
        // It counts in the store, and answers in the last phase that can.
        let commands = "request-head store-increment space n 1 60000; \
                        request-head call main GET /called; request-body answer 418";
        let setup = Setup::with_upstream("main", &upstream.url())
            .filter("probe", guest(name, carrier))
            .toml(&format!(
                "[filter.probe]\nconfig = {{ request-body = \"whole\" }}\n\
                 allow = {{ http = [\"main\"], store = [\"space\"], env = [\"GRANTED\", \"UNSET\"] }}\n\
                 self-check = {{ method = \"POST\", body = \"hi\", headers = {{ x-probe = \"{commands}\" }}, \
                 expect = {{ status = 418 }} }}"
            ))
            .route("/*", "main", &["probe"]);
        let gateway = setup.start().await;
        assert_eq!(gateway.plugin("probe").await["state"], "ok", "{carrier:?}");
        let line = gateway.logged(&["probe: request-head call main"]).await;
        assert!(!line.text.contains("200"), "{}", line.text);
        assert!(!upstream.seen().iter().any(|seen| seen.target == "/called"));
        let asks = [("x-probe", "request-head store-get space n")];
        let reply = gateway.send(get_with("/", &asks)).await;
        let found = reply.field("x-probe");
        assert_eq!(
            found,
            Some("request-head store-get space n => none"),
            "{reply:?}"
        );
    }
}

// --- What is measured ---

#[tokio::test]
async fn each_filters_calls_bytes_and_times_are_counted() {
    let upstream = Upstream::echo().await;
    let gateway = probe(&upstream, "config = { request-body = \"stream\" }")
        .start()
        .await;
    let mut client = gateway.http1().await;
    for _ in 0..20 {
        assert_eq!(
            client.send(post("/", "0123456789")).await.status,
            StatusCode::OK
        );
    }
    let figure = async |name: &str, phase: &str| {
        gateway
            .metric(name, &[("filter", "probe"), ("phase", phase)])
            .await
    };
    for phase in ["request-head", "response-head"] {
        let calls = figure("tidegate_filter_calls_total", phase).await;
        assert!((calls - 20.0).abs() < 0.1, "{phase}: {calls}");
    }
    let bytes = figure("tidegate_filter_body_bytes_total", "request-body").await;
    assert!((bytes - 200.0).abs() < 0.1, "{bytes}");
    let timed = gateway
        .metric("tidegate_filter_call_seconds_count", &[("filter", "probe")])
        .await;
    assert!((3.0..=20.0).contains(&timed), "{timed}");
    let entry = gateway.plugin("probe").await;
    assert_eq!(entry["figures"]["calls"]["request-head"], 20, "{entry}");
    assert_eq!(
        entry["figures"]["body-bytes"]["request-body"], 200,
        "{entry}"
    );
}

#[tokio::test]
async fn a_route_may_tell_its_times() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("mark", sets_header("x-mark", "yes"))
        .toml("[[route]]\npath = \"/told\"\nupstream = \"main\"\nfilters = [\"mark\"]\nserver-timing = true")
        .route("/other", "main", &["mark"])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(get("/told")).await;
        let told = reply.field("server-timing").unwrap().to_owned();
        let (filter, upstream) = told.split_once(", ").unwrap();
        let millis =
            |text: &str, name: &str| -> f64 { text.strip_prefix(name).unwrap().parse().unwrap() };
        let (filter, upstream) = (
            millis(filter, "filter;dur="),
            millis(upstream, "upstream;dur="),
        );
        let most = Duration::from_secs(30).as_secs_f64() * 1000.0;
        assert!(
            (0.0..most).contains(&filter) && (0.0..most).contains(&upstream),
            "{told}"
        );
        assert_eq!(
            client.send(get("/other")).await.field("server-timing"),
            None
        );
    }
}
