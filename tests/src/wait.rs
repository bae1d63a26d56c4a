//! Waiting for what must come true: the only place where a test lets time pass, and the one that knows how much
//! of it is too much.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. `TIDEGATE_TEST_PATIENCE` multiplies it on slow machines.
pub fn patience() -> Duration {
    let factor = std::env::var("TIDEGATE_TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0_f64);
    Duration::from_secs(60).mul_f64(factor.clamp(0.1, 100.0))
}

/// Asks again and again until there is something. `what` completes "gave up waiting for".
///
/// # Panics
/// If there is nothing when [`patience`] ends.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(
            start.elapsed() < patience(),
            "gave up waiting for {what} after {:?}",
            start.elapsed()
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// As [`eventually`], for a condition that is only true or false.
///
/// # Panics
/// If it is not true when [`patience`] ends.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, async || condition().await.then_some(())).await;
}

/// Waits for a future's end. `what` completes "gave up waiting for".
///
/// # Panics
/// If it has not ended when [`patience`] ends.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience(), future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what} after {:?}", patience()),
    }
}

/// Waits until a value stays the same for a while, and gives it: the end of something that may only slow down.
pub async fn settled<T: PartialEq>(what: &str, mut value: impl FnMut() -> T) -> T {
    let mut last = value();
    let mut since = Instant::now();
    eventually(what, async || {
        let now = value();
        if now != last {
            last = now;
            since = Instant::now();
        }
        (since.elapsed() > Duration::from_millis(300)).then_some(())
    })
    .await;
    last
}
