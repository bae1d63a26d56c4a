//! Compiled modules on disk: a restart does not compile what is known, and a damaged entry harms nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::Upstream;

/// Twenty filters of 50 KiB each, with a cache of their own.
fn twenty(upstream: &Upstream, mut setup: Setup) -> Setup {
    for number in 0..20 {
        let guest = Guest::new().sets_response_field(&format!("x-{number}"), "here");
        let wasm = guest.padded(48).build();
        setup = setup.filter(&format!("{number:02}-f{number}"), wasm);
    }
    setup
        .server("cache = \"cache\"")
        .upstream("main", &upstream.url())
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

async fn start(upstream: &Upstream, setup: Setup) -> (tidegate_tests::gateway::Gateway, Duration) {
    let setup = twenty(upstream, setup);
    let begin = Instant::now();
    let gateway = setup.start().await;
    let took = begin.elapsed();
    let reply = gateway.get("/").await;
    for number in 0..20 {
        assert_eq!(reply.field(&format!("x-{number}")), Some("here"));
    }
    (gateway, took)
}

#[tokio::test]
async fn a_restart_with_twenty_known_filters_is_quick() {
    let upstream = Upstream::echo().await;
    let (gateway, first) = start(&upstream, Setup::new()).await;
    let entries = files(&gateway.folder().join("cache"));
    assert!(entries.len() >= 20, "{entries:?}");
    let mut times = Vec::new();
    let mut setup = gateway.stop().await;
    // The machine may be busy with other tests: a good one among many is enough.
    let bound = (first / 2).min(Duration::from_secs(1));
    for _ in 0..10 {
        let (gateway, took) = start(&upstream, setup).await;
        times.push(took);
        setup = gateway.stop().await;
        if times.len() >= 3 && times.iter().any(|time| *time < bound) {
            break;
        }
    }
    times.sort();
    eprintln!("ready with 20 filters: {first:?} at first, then {times:?}");
    assert!(times[0] < bound, "{first:?} {times:?}");
    assert_eq!(files(&setup.folder().join("cache")).len(), entries.len());
}

#[tokio::test]
async fn a_damaged_entry_is_made_anew_without_a_word() {
    let upstream = Upstream::echo().await;
    let (gateway, _) = start(&upstream, Setup::new()).await;
    let setup = gateway.stop().await;
    let entries = files(&setup.folder().join("cache"));
    for (number, path) in entries.iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        match number % 4 {
            0 => bytes.truncate(middle),
            1 => bytes[middle] ^= 0x40,
            2 => bytes.clear(),
            _ => bytes = b"not what was here".to_vec(),
        }
        fs::write(path, bytes).unwrap();
    }
    let (gateway, _) = start(&upstream, setup).await;
    for line in gateway.log() {
        let level = line.field("level").unwrap_or_default().to_owned();
        assert!(level != "ERROR", "{line:?}");
    }
    // They are good again.
    let setup = gateway.stop().await;
    start(&upstream, setup).await;
}

#[tokio::test]
async fn a_cache_that_can_not_be_written_is_done_without() {
    let upstream = Upstream::echo().await;
    // A file stands where the folder should be.
    let setup = Setup::new().file("cache", "in the way");
    let (_gateway, _) = start(&upstream, setup).await;
}
