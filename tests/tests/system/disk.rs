//! Disks that are full, files that may not grow, pipes without a reader: what the proxy can't write costs lines and time,
//! never a request.

use std::fs;
use std::path::Path;

use http::StatusCode;
use rustix::process::Signal;
use tidegate_tests::client::get;
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::sets_header;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

const DROPPED: &str = "tidegate_access_log_dropped_total";

/// Requests that must not feel anything.
async fn served(gateway: &Gateway, count: usize) {
    let mut client = gateway.http1().await;
    for _ in 0..count {
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
    }
}

async fn until_dropped(gateway: &Gateway, least: f64) {
    until("lines to be dropped and counted", async || {
        gateway.metric(DROPPED, &[]).await >= least
    })
    .await;
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn an_access_log_on_a_full_disk_costs_lines_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { path = \"/dev/full\" }")
        .start()
        .await;
    served(&gateway, 50).await;
    until_dropped(&gateway, 50.0).await;
}

#[tokio::test]
async fn an_access_log_that_may_not_grow_costs_lines_only() {
    let upstream = Upstream::echo().await;
    let mut gateway = Setup::before(&upstream)
        .server("access-log = { path = \"access.log\" }")
        .server("cache = \"off\"")
        // Past this size the system sends a signal that ends most programs.
        .beforehand("ulimit -f 8")
        .start()
        .await;
    served(&gateway, 200).await;
    until_dropped(&gateway, 1.0).await;
    assert!(gateway.ended().is_none());
    // A new file has room again.
    let log = gateway.folder().join("access.log");
    fs::rename(&log, gateway.folder().join("access.log.1")).unwrap();
    gateway.signal(Signal::USR1);
    until("lines in the new file", async || {
        served(&gateway, 1).await;
        lines(&log) > 0
    })
    .await;
}

#[tokio::test]
async fn standard_output_without_a_reader_costs_lines_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { path = \"-\" }")
        // The reader leaves after a line.
        .beforehand("mkfifo out; { head -n 1 < out > first; } & exec 1> out")
        .start()
        .await;
    served(&gateway, 1).await;
    let first = gateway.folder().join("first");
    until("the first line", async || lines(&first) == 1).await;
    until("the end of the reader", async || {
        served(&gateway, 1).await;
        gateway.metric(DROPPED, &[]).await >= 1.0
    })
    .await;
    served(&gateway, 100).await;
    until_dropped(&gateway, 100.0).await;
    assert_eq!(gateway.metric("tidegate_panics_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_log_without_a_reader_costs_lines_only() {
    let upstream = Upstream::echo().await;
    let mut gateway = Setup::before(&upstream)
        // The reader leaves when the proxy is ready.
        .beforehand("mkfifo err; { sed -u '/\"message\":\"ready\"/q' < err >&2; } & exec 2> err")
        .start()
        .await;
    let name = "tidegate_log_dropped_total";
    // Every reload is a line or two.
    until("lines to be dropped and counted", async || {
        gateway.signal(Signal::HUP);
        served(&gateway, 1).await;
        gateway.metric(name, &[]).await >= 3.0
    })
    .await;
    assert_eq!(gateway.metric("tidegate_panics_total", &[]).await, 0.0);
    gateway.signal(Signal::TERM);
    assert!(gateway.end().await.success());
}

#[tokio::test]
async fn nothing_to_write_to_at_all_is_fine_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { path = \"-\" }")
        .beforehand("exec 0<&- 1>&-")
        .start()
        .await;
    served(&gateway, 20).await;
    assert_eq!(gateway.metric("tidegate_panics_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_renamed_log_goes_on_in_a_new_file() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { path = \"access.log\" }")
        .start()
        .await;
    let log = gateway.folder().join("access.log");
    for (number, signal) in [(1, Signal::USR1), (2, Signal::HUP)] {
        until("lines", async || {
            served(&gateway, 1).await;
            lines(&log) > 0
        })
        .await;
        let old = gateway.folder().join(format!("access.log.{number}"));
        fs::rename(&log, &old).unwrap();
        // Without a word, the old file goes on.
        let before = lines(&old);
        until("lines in the old file", async || {
            served(&gateway, 1).await;
            lines(&old) > before
        })
        .await;
        assert!(!log.exists());
        gateway.signal(signal);
        until("the new file", async || {
            served(&gateway, 1).await;
            log.exists()
        })
        .await;
    }
    assert_eq!(gateway.metric(DROPPED, &[]).await, 0.0);
}

#[tokio::test]
async fn a_full_disk_under_the_cache_costs_time_only() {
    let upstream = Upstream::echo().await;
    let setup = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["mark"])
        .filter("mark", sets_header("x-mark", "1"))
        .server("cache = \"small\"")
        .file("small/.keep", "");
    let script = "mount -t tmpfs -o size=16k,mode=700 none small; head -c 64k /dev/zero > small/stuffing 2> /dev/null || true";
    let Some(setup) = setup.with_own_mounts(script) else {
        return;
    };
    let gateway = setup.start().await;
    assert_eq!(gateway.get("/").await.field("x-mark"), Some("1"));
    gateway.logged(&["WARN", "compile cache", "small"]).await;
    // New versions are compiled and go live as ever, and nobody is told again and again.
    for number in 2..5 {
        let wasm = sets_header("x-mark", &number.to_string());
        fs::write(gateway.plugin_file("mark.wasm"), wasm).unwrap();
        until("the new version", async || {
            gateway.get("/").await.field("x-mark") == Some(&number.to_string())
        })
        .await;
    }
    let told = gateway.log();
    let told = told
        .iter()
        .filter(|line| line.text.contains("compile cache"));
    assert_eq!(told.count(), 1);
}
