//! What filters can do to an exchange, and what a broken one can't do to others. The filters are small and
//! written here; those that speak the whole contract are in [`crate::contract`].

use http::StatusCode;
use tidegate_tests::client::{get, post};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::{Guest, sets_header};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

#[tokio::test]
async fn requests_pass_filters_in_order_and_responses_backwards() {
    let upstream = Upstream::echo().await;
    let marking = |name: &str| {
        Guest::new()
            .appends_request_field("x-order", name)
            .appends_response_field("x-order", name)
            .build()
    };
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("a", marking("a"))
        .filter("b", marking("b"))
        .filter("c", marking("c"))
        .route("/*", "main", &["c", "a", "b"])
        .start()
        .await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.echo().all("x-order"), ["c", "a", "b"]);
    assert_eq!(reply.all("x-order"), ["b", "a", "c"]);
}

#[tokio::test]
async fn an_answer_turns_back_where_it_was_given() {
    let upstream = Upstream::echo().await;
    let marking = |name: &str| Guest::new().appends_response_field("x-order", name).build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("outer", marking("outer"))
        .filter("no", Guest::new().answers(403, "no way").build())
        .filter("inner", marking("inner"))
        .route("/*", "main", &["outer", "no", "inner"])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(post("/", "body")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert_eq!(reply.text(), "no way");
        assert_eq!(reply.field("content-length"), Some("6"));
        assert_eq!(reply.all("x-order"), ["outer"]);
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn what_the_proxy_answers_passes_the_filters_too() {
    let nobody = tidegate_tests::upstream::DeadEnd::new();
    let gateway = Setup::with_upstream("main", &nobody.url())
        .filter("mark", sets_header("x-mark", "yes"))
        .route("/*", "main", &["mark"])
        .start()
        .await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(reply.field("x-mark"), Some("yes"));
}

#[tokio::test]
async fn one_file_can_be_several_filters() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("mark", sets_header("x-mark", "yes"))
        .toml("[filter.left]\nuse = \"mark\"\n[filter.right]\nuse = \"mark\"\nfailure = \"open\"")
        .route("/left", "main", &["left"])
        .route("/right", "main", &["right"])
        .toml("[[route]]\npath = \"/inline\"\nupstream = \"main\"\nfilters = [{ use = \"mark\", config = { a = 1 } }]")
        .start()
        .await;
    for path in ["/left", "/right", "/inline"] {
        assert_eq!(
            gateway.get(path).await.field("x-mark"),
            Some("yes"),
            "{path}"
        );
    }
    let left = gateway.plugin("left").await;
    let right = gateway.plugin("right").await;
    assert_eq!(left["digest"], right["digest"]);
}

/// What becomes of a request when its filter traps there, by the filter's policy.
#[tokio::test]
async fn a_trap_harms_one_exchange_and_the_policy_decides() {
    let upstream = Upstream::echo().await;
    for phase in ["request-head", "response-head"] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("bad", Guest::new().traps_in(phase).build())
            .filter("good", sets_header("x-good", "yes"))
            .toml("[filter.lenient]\nuse = \"bad\"\nfailure = \"open\"")
            .route("/closed", "main", &["good", "bad"])
            .route("/open", "main", &["good", "lenient"])
            .route("/other", "main", &["good"])
            .start()
            .await;
        let before = upstream.requests();
        let mut client = gateway.http1().await;
        for _ in 0..5 {
            let reply = client.send(get("/closed")).await;
            assert!(reply.status.is_server_error(), "{phase}: {reply:?}");
            assert_eq!(reply.field("x-good"), Some("yes"), "{phase}");
            assert!(!reply.text().contains("unreachable"), "{reply:?}");
            let reply = client.send(get("/open")).await;
            assert_eq!(reply.status, StatusCode::OK, "{phase}");
            assert_eq!(reply.field("x-good"), Some("yes"), "{phase}");
            let reply = client.send(get("/other")).await;
            assert_eq!(reply.status, StatusCode::OK, "{phase}");
        }
        if phase == "request-head" {
            let closed = upstream.seen()[before..]
                .iter()
                .filter(|seen| seen.target == "/closed")
                .count();
            assert_eq!(closed, 0, "a refused request was forwarded");
        }
        gateway.logged(&["bad", phase]).await;
        assert!(
            gateway
                .metric("tidegate_filter_failures_total", &[("filter", "bad")])
                .await
                >= 5.0
        );
    }
}

#[tokio::test]
async fn a_trap_in_log_harms_nobody() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", Guest::new().traps_in("log").build())
        .route("/*", "main", &["bad"])
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    }
    until("the traps to be counted", async || {
        gateway
            .metric("tidegate_filter_failures_total", &[("filter", "bad")])
            .await
            >= 3.0
    })
    .await;
}

#[tokio::test]
async fn a_trap_in_a_streamed_body_never_looks_whole() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", Guest::new().traps_in("response-body").build())
        .route("/*", "main", &["bad"])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.try_send(get("/")).await;
        assert!(
            reply
                .as_ref()
                .map_or(true, |reply| reply.status.is_server_error()),
            "{reply:?}"
        );
    }
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", Guest::new().traps_in("request-body").build())
        .route("/*", "main", &["bad"])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(post("/upload", "body")).await;
        assert!(reply.status.is_server_error(), "{reply:?}");
    }
    assert!(
        !upstream
            .seen()
            .iter()
            .any(|seen| seen.target == "/upload" && seen.whole && seen.body == "body")
    );
}

#[tokio::test]
async fn a_loop_is_ended_at_its_bound_and_others_are_served() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter(
            "endless",
            Guest::new()
                .runs_in("request-head", "(loop (br 0))")
                .build(),
        )
        .toml("[filter.endless.limits]\ntime = \"50ms\"")
        .route("/endless", "main", &["endless"])
        .route("/good", "main", &[])
        .start()
        .await;
    for _ in 0..3 {
        let reply = gateway.get("/endless").await;
        assert!(reply.status.is_server_error(), "{reply:?}");
        assert_eq!(gateway.get("/good").await.status, StatusCode::OK);
    }
    gateway.logged(&["endless", "50 ms"]).await;
}

#[tokio::test]
async fn a_filter_can_not_take_more_memory_than_its_bound() {
    let upstream = Upstream::echo().await;
    // Grows until it is told no, then traps if it got beyond 4 MiB.
    let greedy = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))\n\
                  (if (i32.gt_u (memory.size) (i32.const 64)) (then (unreachable)))\n";
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter(
            "greedy",
            Guest::new().runs_in("request-head", greedy).build(),
        )
        .toml("[filter.greedy.limits]\nmemory = \"4MiB\"\ntime = \"5s\"")
        .route("/*", "main", &["greedy"])
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_stack_without_end_is_a_trap() {
    let upstream = Upstream::echo().await;
    // Calls itself through its own export.
    let deep = "(drop (call $deep (local.get $id)))";
    let mut guest = Guest::new().runs_in("request-head", deep);
    guest = guest.function(
        "(func $deep (param $id i64) (result i64) \
         (i64.add (i64.const 1) (call $deep (i64.add (local.get $id) (i64.const 1)))))",
    );
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("deep", guest.build())
        .toml("[filter.deep.limits]\ntime = \"5s\"")
        .route("/deep", "main", &["deep"])
        .route("/good", "main", &[])
        .start()
        .await;
    for _ in 0..3 {
        assert!(gateway.get("/deep").await.status.is_server_error());
        assert_eq!(gateway.get("/good").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn pointers_that_lead_nowhere_are_a_trap() {
    let upstream = Upstream::echo().await;
    for call in [
        // A name past the end of memory, a length that wraps round, a result past the end.
        "(call $set (i32.const 0) (i32.const 131000) (i32.const 4000) (i32.const 0) (i32.const 1) (i32.const 16))",
        "(call $set (i32.const 0) (i32.const 1024) (i32.const -1) (i32.const 0) (i32.const 1) (i32.const 16))",
        "(call $set (i32.const 0) (i32.const -16) (i32.const 32) (i32.const 0) (i32.const 1) (i32.const 16))",
        "(call $set (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 131072))",
        // A list of two thousand million fields; a part that there is not.
        "(call $answer (i32.const 200) (i32.const 0) (i32.const 0x7fffffff) (i32.const 0) (i32.const 0) (i32.const 16))",
        "(call $set (i32.const 9) (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 16))",
    ] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("wild", Guest::new().runs_in("request-head", call).build())
            .route("/wild", "main", &["wild"])
            .route("/good", "main", &[])
            .start()
            .await;
        let reply = gateway.get("/wild").await;
        assert!(reply.status.is_server_error(), "{call}: {reply:?}");
        assert_eq!(gateway.get("/good").await.status, StatusCode::OK, "{call}");
    }
}

#[tokio::test]
async fn an_answer_that_was_not_given_is_a_fault() {
    let upstream = Upstream::echo().await;
    for flow in [2, 1, 77] {
        // "answer" without one; "hold" for a body that the filter takes no part in is fine; no such flow.
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter(
                "odd",
                Guest::new()
                    .runs_in("request-head", &format!("(return (i32.const {flow}))"))
                    .build(),
            )
            .route("/*", "main", &["odd"])
            .start()
            .await;
        let reply = gateway.send(post("/", "body")).await;
        if flow == 1 {
            assert_eq!(reply.echo().body, "body");
        } else {
            assert!(reply.status.is_server_error(), "{flow}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn fields_that_are_the_hosts_stay_the_hosts() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter(
            "meddler",
            Guest::new()
                .sets_request_field("content-length", "1")
                .sets_request_field("transfer-encoding", "chunked")
                .sets_request_field("host", "evil.example")
                .sets_request_field("connection", "x-kept")
                .sets_request_field("x-bad", "a\r\nx-evil: 1")
                .sets_request_field("bad name", "1")
                .sets_request_field("x-kept", "1")
                .sets_response_field("content-length", "1")
                .sets_response_field("transfer-encoding", "gzip")
                .sets_response_field("x-kept", "2")
                .build(),
        )
        .route("/*", "main", &["meddler"])
        .start()
        .await;
    let reply = gateway.send(post("/", "body")).await;
    let seen = reply.echo();
    assert_eq!(seen.body, "body");
    assert_eq!(seen.all("content-length"), ["4"]);
    assert_eq!(seen.field("transfer-encoding"), None);
    assert_eq!(seen.host(), Some("localhost"));
    assert_eq!(seen.field("x-kept"), Some("1"));
    assert_eq!(seen.field("x-evil"), None);
    assert_eq!(seen.field("x-bad"), None);
    assert_eq!(reply.field("x-kept"), Some("2"));
    assert_eq!(reply.field("transfer-encoding"), None);
}

#[tokio::test]
async fn filters_work_alike_on_every_worker() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .workers(2)
        .filter("mark", sets_header("x-mark", "yes"))
        .route("/*", "main", &["mark"])
        .start()
        .await;
    let asks = (0..40).map(|_| gateway.get("/"));
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!(reply.field("x-mark"), Some("yes"));
    }
}

#[tokio::test]
async fn a_bad_filter_at_the_start_holds_the_others_up_for_nothing() {
    let upstream = Upstream::echo().await;
    // The folder's filters, without routes: the good ones work.
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("10-good", sets_header("x-good", "yes"))
        .filter("20-bad", "no wasm")
        .start()
        .await;
    let entry = gateway.plugin("bad").await;
    assert_eq!(entry["state"], "failed", "{entry}");
    let good = gateway.plugin("good").await;
    assert_eq!(good["state"], "ok", "{good}");
    gateway.logged(&["20-bad.wasm"]).await;
}

#[tokio::test]
async fn a_body_over_the_bound_goes_on_as_it_comes_if_the_filter_asked_for_that() {
    let upstream = Upstream::echo().await;
    let guest = Guest::new()
        .wants_request_body_up_to(1000)
        .sets_request_field_in_body("x-judged", "yes");
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("judge", guest.build())
        .route("/*", "main", &["judge"])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        for length in [0, 10, 1000, 1001, 500_000] {
            let seen = client.send(post("/", vec![b'x'; length])).await.echo();
            assert_eq!(seen.body.len(), length);
            assert_eq!(seen.field("x-judged"), Some("yes"), "{length}");
        }
    }
}

#[tokio::test]
async fn a_filter_that_never_loaded_stands_in_its_place_by_its_policy() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("bad", "no wasm")
        .toml("[filter.lenient]\nuse = \"bad\"\nfailure = \"open\"")
        .route("/closed", "main", &["bad"])
        .route("/open", "main", &["lenient"])
        .route("/other", "main", &[])
        .start()
        .await;
    assert!(gateway.get("/closed").await.status.is_server_error());
    assert_eq!(gateway.get("/open").await.status, StatusCode::OK);
    assert_eq!(gateway.get("/other").await.status, StatusCode::OK);
    assert_eq!(upstream.requests(), 2);
    // The file is put right while the proxy runs.
    std::fs::write(
        gateway.plugin_file("bad.wasm"),
        sets_header("x-mark", "yes"),
    )
    .unwrap();
    until("the filter", async || {
        gateway.get("/closed").await.field("x-mark") == Some("yes")
    })
    .await;
}
