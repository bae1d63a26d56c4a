//! A load of requests that runs beside a test, to see what clients see while something changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinHandle;

use crate::client::{Client, get};
use crate::gateway::Gateway;
use crate::wait::until;

/// Clients that ask again and again: two connections of HTTP/1.1, one of HTTP/2, and one that connects anew for
/// every request.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many good answers came.
    pub good: usize,
    /// What went wrong, in words.
    pub failures: Vec<String>,
    /// The values that the marks had, each once, in the order in which they came up.
    pub marks: Vec<String>,
}

impl Tally {
    fn see(&mut self, reply: Result<crate::client::Reply, hyper::Error>, fields: &[&str]) {
        match reply {
            Ok(reply) if reply.status == StatusCode::OK => {
                self.good += 1;
                let values: Vec<&str> = fields
                    .iter()
                    .map(|name| reply.field(name).unwrap_or("none"))
                    .collect();
                let mark = values.join("/");
                if !self.marks.contains(&mark) {
                    self.marks.push(mark);
                }
            }
            Ok(reply) => self.failures.push(format!("{reply:?}")),
            Err(error) => self.failures.push(format!("{error:?}")),
        }
    }
}

impl Load {
    /// Begins to ask for `/`, noting the values of some fields of the answers, joined by slashes.
    pub async fn start(gateway: &Gateway, fields: &'static [&'static str]) -> Self {
        Self::paced(gateway, fields, Duration::ZERO).await
    }

    /// As [`start`](Self::start), with a pause behind each answer: a load that goes on for long and leaves the machine to
    /// others.
    pub async fn paced(
        gateway: &Gateway,
        fields: &'static [&'static str],
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for client in [
            Some(gateway.http1().await),
            Some(gateway.http1().await),
            Some(gateway.http2().await),
            None,
        ] {
            let address = gateway.http();
            let stop = Arc::clone(&stop);
            let answers = Arc::clone(&answers);
            clients.push(tokio::spawn(async move {
                let mut client = client;
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let reply = match &mut client {
                        Some(client) => client.try_send(get("/")).await,
                        None => Client::http1(address).await.try_send(get("/")).await,
                    };
                    tally.see(reply, fields);
                    if !tally.failures.is_empty() {
                        break;
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                tally
            }));
        }
        let load = Load {
            stop,
            answers,
            clients,
        };
        load.some_more().await;
        load
    }

    /// Whether a client has given up because its request failed.
    fn has_failed(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Waits until each client has been answered a few times more, on the average.
    pub async fn some_more(&self) {
        let goal = self.answers.load(Ordering::Relaxed) + 40;
        until("answers under load", async || {
            self.has_failed() || self.answers.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Ends it.
    ///
    /// # Panics
    /// If any request failed.
    pub async fn finish(mut self) -> Tally {
        self.some_more().await;
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            let tally = client.await.unwrap();
            sum.good += tally.good;
            sum.failures.extend(tally.failures);
            for mark in tally.marks {
                if !sum.marks.contains(&mark) {
                    sum.marks.push(mark);
                }
            }
        }
        assert!(
            sum.failures.is_empty(),
            "after {} good answers: {}",
            sum.good,
            sum.failures.join("\n")
        );
        sum
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
