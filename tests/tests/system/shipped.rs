//! The filters that ship, the examples, and guests on the SDK and on plain bindings, through the real binary and in both
//! carriers of the contract.

use http::StatusCode;
use tidegate_tests::client::{get, get_with, post, with};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::{Carrier, guest, plugin};
use tidegate_tests::upstream::Upstream;

const CARRIERS: [Carrier; 2] = [Carrier::Core, Carrier::Component];

/// auth, limit and headers on one route, as the example for a gateway has them.
const GATEWAY: &str = r#"
[filter.auth.config.api-key]
consumers = [
    # printf %s alpha | sha256sum
    { name = "alice", sha256 = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8", roles = ["reader"] },
]
[filter.limit.config]
key = "consumer"
rate = 1
per = "hour"
burst = 5
[filter.headers.config]
request = { set = { x-route = "{route}" }, remove = ["x-internal"] }
response = { set = { x-served-by = "tidegate" } }
"#;

#[tokio::test]
async fn keys_limits_and_headers_work_together_exactly_across_workers() {
    for carrier in CARRIERS {
        let upstream = Upstream::echo().await;
        let gateway = Setup::with_upstream("main", &upstream.url())
            .workers(2)
            .filter("auth", plugin("auth", carrier))
            .filter("limit", plugin("limit", carrier))
            .filter("headers", plugin("headers", carrier))
            .route("/*", "main", &["auth", "limit", "headers"])
            .toml(GATEWAY)
            .start()
            .await;
        let refused = gateway.get("/").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            refused.field("www-authenticate"),
            Some("ApiKey realm=\"api\"")
        );
        assert_eq!(upstream.requests(), 0);

        let mut passed = 0;
        for _ in 0..12 {
            // A connection each, so that both workers take part.
            let request = get_with(
                "/",
                &[
                    ("x-api-key", "alpha"),
                    ("x-consumer", "root"),
                    ("x-internal", "1"),
                ],
            );
            let reply = gateway.send(request).await;
            if reply.status == StatusCode::OK {
                passed += 1;
                assert_eq!(reply.field("x-served-by"), Some("tidegate"));
                let echo = reply.echo();
                assert_eq!(echo.all("x-consumer"), ["alice"]);
                assert_eq!(echo.all("x-roles"), ["reader"]);
                assert!(echo.all("x-internal").is_empty());
                assert_eq!(echo.all("x-route").len(), 1);
            } else {
                assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
                assert!(reply.field("retry-after").is_some());
                assert_eq!(
                    reply.field("ratelimit-policy"),
                    Some("\"default\";q=5;w=18000")
                );
            }
        }
        assert_eq!(passed, 5);
    }
}

#[tokio::test]
async fn guests_on_the_sdk_and_on_plain_bindings_mix_in_one_chain() {
    for carrier in CARRIERS {
        let upstream = Upstream::echo().await;
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("tag", guest("tag", carrier))
            .filter("raw", guest("wit-raw", carrier))
            .route("/*", "main", &["one", "raw", "two"])
            .toml("[filter.one]\nuse = \"tag\"\nconfig = { value = \"1\" }\n[filter.two]\nuse = \"tag\"\nconfig = { value = \"2\" }")
            .start()
            .await;
        let reply = gateway.get("/").await;
        assert_eq!(reply.all("x-tag"), ["2", "1"]);
        let echo = reply.echo();
        assert_eq!(echo.all("x-tag"), ["1", "2"]);
        assert_eq!(echo.all("x-raw"), ["seen"]);
    }
}

#[tokio::test]
async fn a_verdict_on_a_body_is_a_real_403() {
    for carrier in CARRIERS {
        let upstream = Upstream::echo().await;
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("inspect", plugin("body-inspection", carrier))
            .route("/*", "main", &["inspect"])
            .toml("[filter.inspect.config]\nforbidden = [\"secret\"]")
            .start()
            .await;
        assert_eq!(
            gateway.send(post("/", "harmless")).await.status,
            StatusCode::OK
        );
        assert_eq!(upstream.requests(), 1);
        let refused = gateway.send(post("/", "a secret text")).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let large = gateway.send(post("/", "x".repeat(70_000))).await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(upstream.requests(), 1);
    }
}

#[tokio::test]
async fn a_filter_in_c_and_the_ten_line_filter_run() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("c", plugin("c-filter", Carrier::Core))
        .filter("hello", plugin("hello", Carrier::Core))
        .route("/*", "main", &["c", "hello"])
        .start()
        .await;
    let nameless = gateway.send(get("/")).await;
    assert_eq!(nameless.status, StatusCode::BAD_REQUEST);
    let named = gateway
        .send(with(get("/"), &[("user-agent", "test")]))
        .await;
    assert_eq!(named.status, StatusCode::OK);
    assert_eq!(named.field("x-filtered-by"), Some("c"));
    assert_eq!(named.field("x-hello"), Some("from tidegate"));
}

#[test]
fn the_ten_line_filter_stays_small() {
    let size = plugin("hello", Carrier::Core).len();
    assert!(size < 60 * 1024, "{size} bytes");
}
