//! Asks for the addresses of names, again and again, for as long as upstreams use them. Runs on one thread that is no
//! worker's. Whom it asks is its caller's choice: mostly the system, which knows hosts files, search lists and caches.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::metrics::{Counter, Owner, Registry};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::names::{Lesson, Name, Names};

/// Names that are asked for at the same time. A name server that does not answer holds one for seconds.
const AT_A_TIME: usize = 16;

/// Asks the system for a name's addresses, by `getaddrinfo` on a thread of its own.
///
/// # Errors
/// The name is not known, or whoever knows does not answer.
pub async fn system(host: Arc<str>) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((&*host, 0)).await?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

struct Figures {
    good: Counter,
    bad: Counter,
}

impl Figures {
    fn new(registry: &Registry) -> Self {
        let counter = |result| {
            let help = "Answers to questions for the addresses of endpoints' names, by result.";
            let name = "tidegate_dns_lookups_total";
            let made = registry.counter(Owner::Process, name, help, &[("result", result)]);
            made.unwrap_or_default()
        };
        Figures {
            good: counter("ok"),
            bad: counter("failed"),
        }
    }
}

/// What is known of a name's asking.
struct Asked {
    /// When to ask again; none: an answer is awaited.
    next: Option<Instant>,
    failing: bool,
}

impl Names {
    /// Keeps all names up to date by asking `lookup`; never ends. A name is asked for when an upstream begins to use it,
    /// and then at the pace of [`Names::refresh_every`], however long an answer is said to hold.
    pub async fn keep<F>(&self, registry: &Registry, lookup: impl Fn(Arc<str>) -> F)
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + 'static,
    {
        let figures = Figures::new(registry);
        let room = Rc::new(Semaphore::new(AT_A_TIME));
        let mut asked: HashMap<Arc<str>, Asked> = HashMap::new();
        let mut answers: JoinSet<(Arc<str>, io::Result<Vec<IpAddr>>)> = JoinSet::new();
        loop {
            let now = Instant::now();
            let names = self.all();
            asked.retain(|host, asked| {
                let stays = asked.next.is_none() || names.iter().any(|name| name.host() == host);
                if !stays {
                    registry.forget("host", host);
                }
                stays
            });
            let mut soonest = None;
            for name in &names {
                let entry = asked.entry(name.host().clone()).or_insert(Asked {
                    next: Some(now),
                    failing: false,
                });
                match entry.next {
                    Some(next) if next <= now => {
                        entry.next = None;
                        let (room, host) = (room.clone(), name.host().clone());
                        let answer = lookup(host.clone());
                        answers.spawn_local(async move {
                            // It is never closed.
                            let _place = room.acquire().await;
                            (host, answer.await)
                        });
                    }
                    next => soonest = soonest.into_iter().chain(next).min(),
                }
            }
            drop(names);
            tokio::select! {
                Some(answer) = answers.join_next(), if !answers.is_empty() => {
                    // A lookup that panicked ended the process, or this name's questions.
                    if let Ok((host, answer)) = answer
                        && let Some(entry) = asked.get_mut(&host)
                    {
                        entry.next = Some(Instant::now() + self.refresh());
                        let counter = if answer.is_ok() { &figures.good } else { &figures.bad };
                        counter.increment();
                        if let Some(name) = self.find(&host) {
                            let lesson = name.learn(answer.map_err(|error| error.to_string()));
                            show(registry, &host, &lesson);
                            tell(&name, entry, lesson);
                        }
                    }
                }
                () = self.news() => {
                    // Another pace holds for all at once.
                    let latest = Instant::now() + self.refresh();
                    for entry in asked.values_mut() {
                        entry.next = entry.next.map(|next| next.min(latest));
                    }
                }
                () = sleep_until(soonest) => {}
            }
        }
    }
}

/// Shows whether a name resolves now.
fn show(registry: &Registry, host: &str, lesson: &Lesson) {
    let help = "Whether the name of an endpoint resolved when it was last asked for; its last addresses stay in use.";
    if let Ok(up) = registry.gauge("tidegate_dns_up", help, &[("host", host)]) {
        let failed = matches!(lesson, Lesson::Failed { .. });
        up.set(if failed { 0.0 } else { 1.0 });
    }
}

/// Says once what changed.
fn tell(name: &Name, entry: &mut Asked, lesson: Lesson) {
    let host = &**name.host();
    let failed = matches!(lesson, Lesson::Failed { .. });
    let was_failing = std::mem::replace(&mut entry.failing, failed);
    match lesson {
        Lesson::Failed { .. } if was_failing => {}
        Lesson::Failed { reason, kept: 0 } => {
            tracing::error!(
                host,
                reason,
                "an endpoint's name does not resolve; requests to it fail until it does"
            );
        }
        Lesson::Failed { reason, kept } => {
            tracing::warn!(
                host,
                reason,
                addresses = kept,
                "an endpoint's name does not resolve any more; its last addresses stay in use"
            );
        }
        Lesson::Changed(addresses) => {
            tracing::info!(host, addresses, "an endpoint's name has other addresses");
        }
        Lesson::Same if was_failing => {
            tracing::info!(
                host,
                "an endpoint's name resolves again, to the same addresses"
            );
        }
        Lesson::Same => {}
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
