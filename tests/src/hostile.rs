//! The guests of `tests/guests/hostile`, and what must hold whatever they do: their exchanges get their policy's
//! answer, the neighbours on the same worker notice nothing, and the proxy's memory returns to where it was.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};

use crate::client::{Body, Reply};
use crate::gateway::{Gateway, Setup};
use crate::neighbour::Neighbour;
use crate::upstream::Upstream;
use crate::wait::{settled, until};

/// The phases by the number that a guest's configuration begins with.
pub const PHASES: [&str; 8] = [
    "configure",
    "request-head",
    "request-body",
    "request-trailers",
    "response-head",
    "response-body",
    "response-trailers",
    "log",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("guests/hostile")
}

fn read(name: &str) -> String {
    let path = folder().join(name).with_extension("wat");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all hostile guests.
pub fn all() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".wat").map(str::to_owned))
        .filter(|name| !matches!(name.as_str(), "frame" | "allocator"))
        .collect();
    names.sort();
    names
}

/// A hostile guest as a module.
///
/// # Panics
/// If there is none of this name, or its text is no module.
pub fn guest(name: &str) -> Vec<u8> {
    let text = read(name);
    let text = if text.starts_with("(module") {
        text
    } else {
        let allocator = if text.contains("(func $allocate") {
            String::new()
        } else {
            read("allocator")
        };
        format!("(module\n{text}{}{allocator})", read("frame"))
    };
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a hostile guest's exchange must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The policy's answer: 503 with a request id if it is `closed`, as though there were no filter if it is `open`.
    Policy,
    /// It is an error if a response has begun that can't be taken back, and never a whole one; the policy's answer
    /// otherwise.
    PolicyOrCut,
    /// Nobody notices: the phase comes after everything that a client sees, or what the guest did was only refused.
    Served,
}

/// One guest, put to the test.
#[derive(Clone, Debug)]
pub struct Trial {
    name: String,
    config: String,
    limits: String,
    allow: String,
    outcome: Outcome,
    /// The time of a call.
    time: Duration,
    /// What the guest may hold its worker up for beyond that.
    beyond: Duration,
    rounds: usize,
    /// Parts of the line that the log must have.
    told: Vec<String>,
}

impl Trial {
    /// A guest with the phase and the variant that it is configured for.
    pub fn new(name: &str, phase: usize, case: char, outcome: Outcome) -> Self {
        Trial {
            name: name.to_owned(),
            config: format!("{phase}{case}"),
            limits: String::new(),
            allow: String::new(),
            outcome,
            time: Duration::from_millis(20),
            beyond: Duration::ZERO,
            rounds: 6,
            told: vec!["bad".to_owned(), PHASES[phase].to_owned()],
        }
    }

    /// Keys of its `limits`, besides the time of a call.
    #[must_use]
    pub fn limits(mut self, text: &str) -> Self {
        self.limits = text.to_owned();
        self
    }

    /// The time of a call; without it, 20 ms.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// How much longer than its time it may hold its worker up, because the machine works for it in pieces that are not
    /// interrupted: pages of memory that are made, filled and given back.
    #[must_use]
    pub fn beyond(mut self, time: Duration) -> Self {
        self.beyond = time;
        self
    }

    /// What it is granted.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allow = text.to_owned();
        self
    }

    /// What the log must say of it, besides its name.
    #[must_use]
    pub fn told(mut self, parts: &[&str]) -> Self {
        self.told = vec!["bad".to_owned()];
        self.told
            .extend(parts.iter().map(|part| (*part).to_owned()));
        self
    }

    /// A proxy with one worker, the guest on `/closed` and `/open` by its two policies, and neighbours on `/neighbour`
    /// with a good filter.
    pub async fn start(&self, upstream: &Upstream, more: Setup) -> Gateway {
        let millis = self.time.as_millis();
        let limits = format!("limits = {{ time = \"{millis}ms\"{} }}", self.limits);
        let allow = if self.allow.is_empty() {
            String::new()
        } else {
            format!("allow = {{ {} }}\n", self.allow)
        };
        let config = &self.config;
        more.upstream("main", &upstream.url())
            .filter("bad", guest(&self.name))
            .filter("good", crate::guests::sets_header("x-good", "yes"))
            .toml(&format!(
                "[filter.bad]\nconfig = \"{config}\"\n{allow}{limits}\n\
                 [filter.lenient]\nuse = \"bad\"\nfailure = \"open\"\nconfig = \"{config}\"\n{allow}{limits}"
            ))
            .route("/closed", "main", &["good", "bad"])
            .route("/open", "main", &["good", "lenient"])
            .route("/neighbour", "main", &["good"])
            .start()
            .await
    }

    /// Runs it: under the load of a neighbour, the request goes to the guest again and again.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub async fn run(&self, upstream: &Upstream, request: impl Fn(&str) -> Request<Body>) {
        let gateway = self.start(upstream, Setup::new()).await;
        self.run_on(&gateway, request).await;
    }

    /// As [`run`](Self::run), on a proxy that runs.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub async fn run_on(&self, gateway: &Gateway, request: impl Fn(&str) -> Request<Body>) {
        let neighbour = Neighbour::start(gateway, "/neighbour").await;
        // Whatever is made at the first use is there before the memory is looked at.
        self.ask(gateway, "/closed", &request).await;
        self.ask(gateway, "/open", &request).await;
        let memory = settled("the memory", || gateway.memory() / 256).await * 256;
        neighbour
            .compare(
                &format!("{} {}", self.name, self.config),
                self.time + self.beyond,
                async || {
                    for _ in 0..self.rounds {
                        self.ask(gateway, "/closed", &request).await;
                        self.ask(gateway, "/open", &request).await;
                    }
                },
            )
            .await;
        neighbour.finish().await;
        let what = format!("{} {}", self.name, self.config);
        until(
            &format!("the memory after {what} to be {memory} KiB"),
            async || gateway.memory() <= memory + memory / 20 + 4096,
        )
        .await;
        if self.outcome != Outcome::Served {
            let parts: Vec<&str> = self.told.iter().map(String::as_str).collect();
            gateway.logged(&parts).await;
            let failures = [("filter", "bad")];
            until("a failure to be counted", async || {
                gateway
                    .metric("tidegate_filter_failures_total", &failures)
                    .await
                    > 0.0
            })
            .await;
        }
    }

    async fn ask(&self, gateway: &Gateway, path: &str, request: impl Fn(&str) -> Request<Body>) {
        let what = format!("{} {} on {path}", self.name, self.config);
        let begin = Instant::now();
        let reply = gateway.http1().await.try_send(request(path)).await;
        let answered = |reply: &Reply| {
            let served = reply.status == StatusCode::OK;
            let refused = reply.status == StatusCode::SERVICE_UNAVAILABLE
                && reply.field("x-request-id").is_some_and(|id| !id.is_empty());
            assert!(!reply.text().contains("trap"), "{what}: {reply:?}");
            match (self.outcome, path) {
                (Outcome::Served, _) | (_, "/open") => assert!(served, "{what}: {reply:?}"),
                (Outcome::Policy, _) => assert!(refused, "{what}: {reply:?}"),
                (Outcome::PolicyOrCut, _) => assert!(!served, "{what}: {reply:?}"),
            }
        };
        match reply {
            Ok(reply) => answered(&reply),
            Err(error) => assert_eq!(self.outcome, Outcome::PolicyOrCut, "{what}: {error}"),
        }
        let patience = crate::wait::patience();
        assert!(
            begin.elapsed() < patience,
            "{what} took {:?}",
            begin.elapsed()
        );
    }
}
