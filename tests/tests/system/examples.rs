//! Each folder of `examples/`, run as its README says, before an upstream of the test's instead of the reader's.

use std::fs;
use std::path::{Path, PathBuf};

use http::StatusCode;
use tidegate_tests::client::{get, get_with, post, with};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Starts an example: its configuration, and its filters in the folder that it names.
async fn start(example: &str, filters: &[&str], upstream: &Upstream) -> Gateway {
    let path = folder().join(example).join("tidegate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let address = "http://127.0.0.1:9000";
    assert!(text.contains(address), "{}: {text}", path.display());
    let mut setup = Setup::new().file("tidegate.toml", text.replace(address, &upstream.url()));
    for filter in filters {
        let wasm = plugin(filter, Carrier::Core);
        setup = setup.file(&format!("filters/{filter}.wasm"), wasm);
    }
    let checked = setup.run(&["check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.said());
    setup
        .start_with(&["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .await
}

#[tokio::test]
async fn hello_greets_and_can_be_replaced() {
    let upstream = Upstream::echo().await;
    let gateway = start("hello", &["hello"], &upstream).await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.field("x-hello"), Some("from tidegate"));
    // Another text, as its README suggests.
    let file = gateway.folder().join("filters/hello.wasm");
    fs::write(
        file,
        tidegate_tests::guests::sets_header("x-hello", "from you"),
    )
    .unwrap();
    until("the new text", async || {
        gateway.get("/").await.field("x-hello") == Some("from you")
    })
    .await;
    let size = plugin("hello", Carrier::Core).len();
    assert!(size < 60 * 1024, "{size} bytes");
}

#[tokio::test]
async fn api_gateway_asks_for_a_key_and_limits_its_bearer() {
    let upstream = Upstream::echo().await;
    let gateway = start("api-gateway", &["auth", "limit", "headers"], &upstream).await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reply.field("x-served-by"),
        None,
        "headers stands behind auth"
    );
    let mut client = gateway.http1().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let reply = client.send(get_with("/", &[("x-api-key", "alpha")])).await;
        statuses.push(reply.status);
        if reply.status == StatusCode::OK {
            assert_eq!(reply.echo().field("x-route"), Some("all"));
            assert_eq!(reply.echo().field("x-consumer"), Some("alice"));
            assert_eq!(reply.field("x-served-by"), Some("tidegate"));
        }
    }
    assert_eq!(statuses[..5], [StatusCode::OK; 5]);
    assert!(
        statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn body_inspection_judges_before_anything_leaves() {
    let upstream = Upstream::echo().await;
    let gateway = start("body-inspection", &["body-inspection"], &upstream).await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let before = upstream.requests();
        let reply = client.send(post("/", "a harmless text")).await;
        assert_eq!(reply.echo().body, "a harmless text");
        let reply = client.send(post("/", "a secret text")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        let reply = client.send(post("/", "x".repeat(70_000))).await;
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(upstream.requests() - before, 1);
    }
}

#[tokio::test]
async fn c_filter_works_as_its_readme_says() {
    let upstream = Upstream::echo().await;
    let gateway = start("c-filter", &["c-filter"], &upstream).await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "no User-Agent");
    assert_eq!(upstream.requests(), 0);
    let reply = gateway.send(with(get("/"), &[("user-agent", "me")])).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.field("x-filtered-by"), Some("c"));
}

/// Every folder has a README of about ten lines, a configuration, and a test here.
#[test]
fn every_example_has_a_test() {
    let sources = include_str!("examples.rs");
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(sources.contains(&format!("start(\"{name}\"")), "{name}");
        let readme = fs::read_to_string(path.join("README.md")).unwrap();
        assert!(readme.lines().count() <= 25, "{name}");
        assert!(readme.contains("tidegate run"), "{name}");
    }
    assert!(count >= 4, "{count} examples");
}
