//! How requests share the instances of a filter, and what happens when there are no more.

use std::sync::Arc;

use http::{Response, StatusCode};
use tidegate_tests::client::{full, get};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::{Guest, sets_header};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;
use tokio::sync::Semaphore;

/// Holds every request until it is let go.
async fn slow() -> (Upstream, Arc<Semaphore>) {
    let release = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&release);
    let upstream = Upstream::serve(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Response::new(full("done"))
        }
    })
    .await;
    (upstream, release)
}

#[tokio::test]
async fn when_all_instances_are_at_work_the_next_request_is_told_at_once() {
    let (upstream, release) = slow().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .workers(1)
        .server("access-log = { format = \"json\", path = \"access.log\" }")
        .filter(
            "mark",
            Guest::new().sets_request_field("x-mark", "yes").build(),
        )
        .toml("[filter.mark]\nisolation = \"fresh\"\nlimits = { instances = 2 }")
        .route("/*", "main", &["mark"])
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.http1().await;
        held.push(tokio::spawn(async move { client.send(get("/")).await }));
    }
    until("both are with the upstream", async || {
        upstream.requests() == 2
    })
    .await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.field("x-request-id").is_some());
    let line = gateway.logged(&["a filter failed"]).await;
    assert_eq!(line.field("limit"), Some("instances"));
    assert_eq!(
        (line.number("bound"), line.number("value")),
        (Some(2), Some(3))
    );
    release.add_permits(10);
    for reply in held {
        assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    }
    // There is room again.
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    let path = gateway.folder().join("access.log");
    until(
        "the refused request is logged with its reason",
        async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().any(|line| line.contains("\"instances\""))
        },
    )
    .await;
}

#[tokio::test]
async fn a_changed_isolation_takes_effect_while_requests_run() {
    let upstream = Upstream::echo().await;
    let setup = Setup::with_upstream("main", &upstream.url())
        .filter("mark", sets_header("x-mark", "yes"))
        .route("/*", "main", &["mark"])
        .toml("[filter.mark]\nfailure = \"open\"");
    let gateway = setup.start().await;
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    let file = gateway.folder().join("tidegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(
        "failure = \"open\"",
        "failure = \"open\"\nisolation = \"fresh\"",
    );
    std::fs::write(&file, text).unwrap();
    // Each request then has an instance of its own.
    until("instances are spent", async || {
        gateway.get("/").await;
        let spent = [("filter", "mark"), ("reason", "spent")];
        gateway
            .metric("tidegate_filter_instances_discarded_total", &spent)
            .await
            > 2.0
    })
    .await;
}
