//! The demo's story: real requests through the real proxy, one line for what each showed. It knows only
//! what a client can see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::proxy::Proxy;
use super::{BURST, KEY, Stage, edit};
use crate::client::{Client, Response, get_once};

/// How many clients ask at the same time while a filter is replaced.
const CLIENTS: usize = 4;

/// How many answers the load must have seen before and after.
const ENOUGH: u64 = 200;

const PATIENCE: Duration = Duration::from_secs(20);

/// Tells the story to its end, whatever happens in it. Says whether all held.
pub(super) fn tell(proxy: &Proxy, stage: &Stage) -> Result<bool> {
    let mut telling = Telling { held: true };
    stranger(proxy, &mut telling)?;
    guest(proxy, &mut telling)?;
    replacement(proxy, stage, &mut telling)?;
    if !telling.held {
        println!("the proxy's log:\n{}", proxy.last_words());
    }
    Ok(telling.held)
}

/// Prints what was seen and remembers whether it was right.
#[derive(Debug)]
struct Telling {
    held: bool,
}

impl Telling {
    fn saw(&mut self, right: bool, what: &str) {
        println!("{}  {what}", if right { "ok    " } else { "WRONG " });
        self.held &= right;
    }
}

/// Who has no key is turned away by the filter `auth`.
fn stranger(proxy: &Proxy, telling: &mut Telling) -> Result<()> {
    let response = get_once(proxy.listen, "/api/users", &[])?;
    let challenge = response.field("www-authenticate").unwrap_or("nothing");
    telling.saw(
        response.status == 401 && response.field("www-authenticate").is_some(),
        &format!(
            "GET /api/users without a key: {}, WWW-Authenticate: {challenge}",
            response.status
        ),
    );
    Ok(())
}

/// Who has one gets through, with the fields that the filter `headers` writes, until the filter `limit`
/// has enough.
fn guest(proxy: &Proxy, telling: &mut Telling) -> Result<()> {
    let mut client = Client::connect(proxy.listen)?;
    let mut ask = || {
        client.get(
            "/api/users",
            &[("x-api-key", KEY), ("x-internal", "forged")],
        )
    };

    let response = ask()?;
    let seen: Value = serde_json::from_str(&response.body).unwrap_or_default();
    let upstream_saw = |name: &str| {
        seen.pointer(&format!("/headers/{name}"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    telling.saw(
        response.status == 200,
        &format!("GET /api/users with a key: {}", response.status),
    );
    telling.saw(
        upstream_saw("x-route").as_deref() == Some("api"),
        &format!(
            "the upstream saw X-Route: {}, written by the proxy",
            upstream_saw("x-route").unwrap_or_else(|| "nothing".to_owned())
        ),
    );
    telling.saw(
        upstream_saw("x-internal").is_none(),
        &format!(
            "the upstream saw X-Internal: {}, which the client had forged",
            upstream_saw("x-internal").unwrap_or_else(|| "nothing".to_owned())
        ),
    );
    telling.saw(
        response.field("x-served-by") == Some("tidegate"),
        &format!(
            "the client saw X-Served-By: {}",
            response.field("x-served-by").unwrap_or("nothing")
        ),
    );

    for number in 2..=BURST {
        let response = ask()?;
        telling.saw(
            response.status == 200,
            &format!("request {number}: {}", response.status),
        );
    }
    let response = ask()?;
    telling.saw(
        response.status == 429 && response.field("retry-after").is_some(),
        &format!(
            "request {}: {}, Retry-After: {}",
            BURST + 1,
            response.status,
            response.field("retry-after").unwrap_or("nothing")
        ),
    );
    Ok(())
}

/// What the clients of a load saw, added up.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    first: AtomicU64,
    second: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Asks again and again on one connection until told to stop.
    fn ask(&self, proxy: &Proxy) {
        let mut client = Client::connect(proxy.listen);
        while !self.stop.load(Ordering::Relaxed) {
            let response = match &mut client {
                Ok(connected) => connected.get("/hello", &[]).ok(),
                Err(_) => None,
            };
            match response.as_ref().and_then(greeting) {
                Some(edit::FIRST) => self.first.fetch_add(1, Ordering::Relaxed),
                Some(edit::SECOND) => self.second.fetch_add(1, Ordering::Relaxed),
                _ => {
                    client = Client::connect(proxy.listen);
                    self.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }

    /// Waits for a number of answers; says whether they came.
    fn reaches(counter: &AtomicU64, enough: u64) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while counter.load(Ordering::Relaxed) < enough {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// What the filter `hello` greeted with, if the request was answered well.
fn greeting(response: &Response) -> Option<&str> {
    (response.status == 200)
        .then(|| response.field(edit::FIELD))
        .flatten()
}

/// A filter's file is replaced under load: the new one takes over, and nobody's request fails.
fn replacement(proxy: &Proxy, stage: &Stage, telling: &mut Telling) -> Result<()> {
    let load = Load::default();
    let (before, after, took) = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.ask(proxy));
        }
        let before = Load::reaches(&load.first, ENOUGH);
        let replaced = stage.replace_hello();
        let written = Instant::now();
        let live = Load::reaches(&load.second, 1);
        let took = written.elapsed();
        let after = live && Load::reaches(&load.second, ENOUGH);
        load.stop.store(true, Ordering::Relaxed);
        replaced.map(|()| (before, after, took))
    })?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    telling.saw(
        before,
        &format!(
            "{CLIENTS} clients under way, {} answers with {}: {}",
            count(&load.first),
            edit::FIELD,
            edit::FIRST
        ),
    );
    telling.saw(
        after,
        &format!(
            "filter file replaced; live after {} ms, {} answers with {}: {}",
            took.as_millis(),
            count(&load.second),
            edit::FIELD,
            edit::SECOND
        ),
    );
    telling.saw(
        count(&load.failed) == 0,
        &format!("{} requests failed meanwhile", count(&load.failed)),
    );
    let late = get_once(proxy.listen, "/hello", &[])?;
    telling.saw(
        greeting(&late) == Some(edit::SECOND),
        &format!(
            "a new connection gets {}: {}",
            edit::FIELD,
            greeting(&late).unwrap_or("nothing")
        ),
    );
    Ok(())
}
