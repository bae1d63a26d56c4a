//! A neighbour: somebody whose requests go to the same worker as another's, at a constant pace, and who must not notice
//! what the other one does. It compares how long its requests take with a quiet time just before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::task::JoinHandle;

use crate::client::{Client, get};
use crate::gateway::Gateway;
use crate::wait::until;

/// Between two requests of one connection.
const PACE: Duration = Duration::from_millis(2);
/// Connections, each of which asks at that pace.
const CONNECTIONS: usize = 2;
/// Answers that a quiet time has at least.
const QUIET: usize = 300;
/// How much longer than a quiet time's an answer may take on a machine where other tests run at the same time.
const NOISE: Duration = Duration::from_millis(25);
/// How often a comparison is tried: what disturbed it once may have been somebody else.
const TRIES: usize = 8;

/// Requests at a constant pace.
#[derive(Debug)]
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    failures: Vec<String>,
}

impl Seen {
    /// Whether it goes on.
    fn note(&mut self, took: Duration, failure: Option<String>) -> bool {
        let good = failure.is_none();
        self.times.push(took);
        self.failures.extend(failure);
        good
    }
}

impl Neighbour {
    /// Begins to ask.
    pub async fn start(gateway: &Gateway, target: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = gateway.http1().await;
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            clients.push(tokio::spawn(ask(client, target, stop, seen)));
        }
        Neighbour {
            stop,
            seen,
            clients,
        }
    }

    /// How many answers came since the last look.
    fn count(&self) -> usize {
        self.seen.lock().unwrap().times.len()
    }

    /// The 99th percentile of what came since the last look.
    fn look(&self) -> Duration {
        let mut seen = self.seen.lock().unwrap();
        let mut times = std::mem::take(&mut seen.times);
        times.sort();
        let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    }

    /// Compares a quiet time with the time in which something is done that may hold a worker up for so long at once.
    ///
    /// # Panics
    /// If the neighbour's 99th percentile rose to more than twice the quiet time's, besides that and some noise,
    /// whenever it was tried; or if a request failed.
    pub async fn compare(&self, what: &str, bound: Duration, mut deed: impl AsyncFnMut()) {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            self.look();
            until("a quiet time", async || self.count() >= QUIET).await;
            let quiet = self.look();
            deed().await;
            let during = self.look();
            self.no_failure(what);
            if during <= quiet * 2 + bound + NOISE {
                return;
            }
            found.push((quiet, during));
        }
        panic!("a neighbour of {what}, quiet and then disturbed (bound {bound:?}): {found:?}");
    }

    fn no_failure(&self, what: &str) {
        let seen = self.seen.lock().unwrap();
        let failures = &seen.failures;
        assert!(failures.is_empty(), "beside {what}: {failures:?}");
    }

    /// Ends it.
    ///
    /// # Panics
    /// If any request failed.
    pub async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.await.unwrap();
        }
        self.no_failure("everything");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn ask(
    mut client: Client,
    target: &'static str,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let reply = client.try_send(get(target)).await;
        let took = begin.elapsed();
        let failure = match reply {
            Ok(reply) if reply.status == StatusCode::OK => None,
            Ok(reply) => Some(format!("{reply:?}")),
            Err(error) => Some(format!("{error:?}")),
        };
        if !seen.lock().unwrap().note(took, failure) {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}
