//! Files under odd circumstances: wrong dates, very many of them, long exchanges meanwhile, two processes with one cache.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use http::{Response, StatusCode};
use tidegate_tests::client::{Reply, get, streamed};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::sets_header;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

async fn until_live(gateway: &Gateway, field: &'static str, value: &str) {
    until(&format!("{field}: {value}"), async || {
        gateway.get("/").await.field(field) == Some(value)
    })
    .await;
}

#[tokio::test]
async fn the_date_of_a_file_means_nothing() {
    let upstream = Upstream::echo().await;
    for watch in ["", "poll"] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .route("/*", "main", &["mark"])
            .filter("mark", sets_header("x-mark", "1"))
            .env("TIDEGATE_WATCH", watch)
            .start()
            .await;
        let file = gateway.plugin_file("mark.wasm");
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        let day = Duration::from_secs(86_400);
        for (number, date) in [
            (2, SystemTime::UNIX_EPOCH),
            (3, SystemTime::now() + 400 * day),
            (4, SystemTime::now() - day),
            // As the very first: same length, same date, other content.
            (5, first),
            (6, first),
        ] {
            let draft = gateway.folder().join("draft");
            fs::write(&draft, sets_header("x-mark", &number.to_string())).unwrap();
            let dated = File::options().write(true).open(&draft).unwrap();
            dated.set_modified(date).unwrap();
            drop(dated);
            fs::rename(&draft, &file).unwrap();
            until_live(&gateway, "x-mark", &number.to_string()).await;
        }
    }
}

#[tokio::test]
async fn hundreds_of_filters_are_all_there_when_it_is_ready() {
    const COUNT: usize = 300;
    let upstream = Upstream::echo().await;
    let mut setup = Setup::with_upstream("main", &upstream.url());
    for number in 0..COUNT {
        let name = format!("f{number}");
        setup = setup
            .filter(&name, sets_header("x-mark", &number.to_string()))
            .route(&format!("/{number}"), "main", &[&name]);
    }
    // The harness waits until `/readyz` says so.
    let gateway = setup.start().await;
    let mut client = gateway.http1().await;
    for number in 0..COUNT {
        let reply = client.send(get(&format!("/{number}"))).await;
        let expected = number.to_string();
        assert_eq!(reply.field("x-mark"), Some(&*expected), "{reply:?}");
    }
    // One of them changes alone.
    fs::write(gateway.plugin_file("f7.wasm"), sets_header("x-mark", "new")).unwrap();
    until("the new version", async || {
        gateway.get("/7").await.field("x-mark") == Some("new")
    })
    .await;
}

#[tokio::test]
async fn a_stream_goes_on_through_ten_versions_and_holds_only_its_own() {
    let (mut sender, body) = streamed();
    let shared = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::stream(move |_| {
        let body = shared.lock().unwrap().take();
        async move { Response::new(body.unwrap_or_else(tidegate_tests::client::empty)) }
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["mark"])
        .filter("mark", sets_header("x-mark", "1"))
        .start()
        .await;
    let mut client = gateway.http1().await;
    let response = client.start(get("/")).await.unwrap();
    sender.send_data("first ".into()).await.unwrap();
    for number in 2..=11 {
        let wasm = sets_header("x-mark", &number.to_string());
        fs::write(gateway.plugin_file("mark.wasm"), wasm).unwrap();
        until_live(&gateway, "x-mark", &number.to_string()).await;
    }
    until("all versions to be gone but two", async || {
        gateway.metric("tidegate_snapshots", &[]).await <= 2.0
    })
    .await;
    assert!(
        gateway
            .metric("tidegate_oldest_snapshot_seconds", &[])
            .await
            > 0.0
    );
    sender.send_data("last".into()).await.unwrap();
    drop(sender);
    let reply = Reply::collect(response).await.unwrap();
    assert_eq!(
        (reply.field("x-mark"), &*reply.text()),
        (Some("1"), "first last")
    );
    until("the first version to be gone", async || {
        gateway.metric("tidegate_snapshots", &[]).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn two_processes_share_a_cache() {
    let upstream = Upstream::echo().await;
    let cache = tempfile::tempdir().unwrap();
    let key = format!("cache = \"{}\"", cache.path().display());
    let start = async |number: usize| {
        let mut setup = Setup::with_upstream("main", &upstream.url()).server(&key);
        for filter in 0..20 {
            setup = setup.filter(
                &format!("f{filter}"),
                sets_header(&format!("x-{filter}"), "1"),
            );
        }
        let gateway = setup.start().await;
        let reply = gateway.get("/").await;
        assert_eq!(reply.field("x-19"), Some("1"), "{number}: {reply:?}");
        for line in gateway.log() {
            assert!(!line.text.contains("compile cache"), "{line:?}");
        }
        gateway
    };
    let (_one, _other) = tokio::join!(start(1), start(2));
    let _third = start(3).await;
    let left = fs::read_dir(cache.path()).unwrap();
    let names: Vec<String> = left
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        names.iter().all(|name| name.ends_with(".compiled")),
        "{names:?}"
    );
}
