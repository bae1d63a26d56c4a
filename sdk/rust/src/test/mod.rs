//! Runs a filter natively, in an ordinary `cargo test`, against a mock of the host: a clock that stands still, a store, exact
//! token buckets, scripted answers to HTTP calls, and the host's own rules on what may be changed when.
//!
//! ```
//! use tidegate_sdk::prelude::*;
//! use tidegate_sdk::serde_json::json;
//! use tidegate_sdk::test::{Harness, Request};
//!
//! struct Hello;
//!
//! #[filter(name = "hello")]
//! impl Filter for Hello {
//!     fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
//!         let _ = request.set("x-hello", "world");
//!         Flow::Continue
//!     }
//! }
//!
//! # fn main() {
//! let mut harness = Harness::<Hello>::new(json!({})).unwrap();
//! let outcome = harness.request(Request::get("/"));
//! assert_eq!(outcome.field("x-hello").as_deref(), Some("world"));
//! # }
//! ```

mod message;
mod outcome;
mod run;

pub use message::{Request, Response};
pub use outcome::{Answered, Outcome, Responded, Sent};

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use crate::filter::{ConfigError, Exported};
use crate::host::mock::{self, Exchange, Host};
use crate::phase::{Interests, Phase};
use crate::runtime::Slot;
use crate::services::http::{Call, CallError, CallResponse};
use crate::services::log::Level;

/// A filter with a host of its own around it.
///
/// A filter that breaks the contract (holds what can't be held, answers without an answer) makes the test fail.
pub struct Harness<F: Exported> {
    slot: Slot<F>,
    interests: Interests,
    host: RefCell<Host>,
    last: u64,
}

impl<F: Exported> fmt::Debug for Harness<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Harness");
        debug
            .field("interests", &self.interests)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl<F: Exported> Harness<F> {
    /// A filter with that configuration, as `config = ..` in the proxy's file would give it.
    ///
    /// # Errors
    /// The filter's own words.
    pub fn new(config: serde_json::Value) -> Result<Self, ConfigError> {
        Self::with_env(config, &[])
    }

    /// As [`Harness::new`], with values of the environment that the filter is granted while it is made.
    ///
    /// # Errors
    /// The filter's own words.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "`json!` makes values, and a test reads better without `&`"
    )]
    pub fn with_env(config: serde_json::Value, env: &[(&str, &str)]) -> Result<Self, ConfigError> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let host = RefCell::new(Host {
            env: env.collect(),
            ..Host::default()
        });
        let slot = Slot::new();
        let interests = mock::inside(&host, || slot.configure(&config.to_string()))?;
        Ok(Harness {
            slot,
            interests,
            host,
            last: 0,
        })
    }

    /// What the filter says of itself, as the proxy reads it from the module.
    ///
    /// # Panics
    /// If it is no JSON, which only a mistake in the SDK can cause.
    #[expect(clippy::expect_used, reason = "a test harness fails tests")]
    pub fn manifest(&self) -> serde_json::Value {
        serde_json::from_str(F::MANIFEST).expect("a manifest is JSON")
    }

    /// What the filter asked to be called for, now that it knows its configuration.
    pub fn interests(&self) -> Interests {
        self.interests
    }

    // --- The host around it ---

    /// Moves both clocks forward; nothing else does.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let mut host = self.host.borrow_mut();
        host.monotonic = host.monotonic.saturating_add(by);
        host.wall = host.wall.saturating_add(by);
    }

    /// Sets the clock on the wall, in seconds since 1970. It begins at 2026-01-01T00:00:00Z.
    pub fn set_wall(&self, seconds: u64) {
        self.host.borrow_mut().wall = seconds.saturating_mul(1_000_000_000);
    }

    /// Gives the filter a value of the environment from now on.
    pub fn set_env(&self, name: &str, value: &str) {
        self.host
            .borrow_mut()
            .env
            .insert(name.to_owned(), value.to_owned());
    }

    /// What an upstream says to the next call that is not answered yet, and grants the upstream. A call to one that was never
    /// named here is not granted; one for which nothing is left to say is unreachable.
    pub fn reply(&self, upstream: &str, reply: Result<CallResponse, CallError>) {
        let mut host = self.host.borrow_mut();
        host.replies
            .entry(upstream.to_owned())
            .or_default()
            .push_back(reply);
    }

    /// The calls that were made: upstream, method, path.
    pub fn calls(&self) -> Vec<(String, String, String)> {
        let host = self.host.borrow();
        let calls = host.calls.iter();
        calls
            .map(|(upstream, call)| (upstream.clone(), call.method.clone(), call.path.clone()))
            .collect()
    }

    /// The calls that were made, whole, as they would be built with [`Call::new`].
    pub fn whole_calls(&self) -> Vec<(String, Call)> {
        self.host.borrow().calls.clone()
    }

    /// The texts that were logged, in their order.
    pub fn lines(&self) -> Vec<String> {
        self.host
            .borrow()
            .lines
            .iter()
            .map(|(_, line)| line.clone())
            .collect()
    }

    /// The texts that were logged at one level.
    pub fn lines_at(&self, level: Level) -> Vec<String> {
        let host = self.host.borrow();
        let lines = host.lines.iter().filter(|(at, _)| *at == level);
        lines.map(|(_, line)| line.clone()).collect()
    }

    /// A figure's value, by its name with `,label=value` behind it for each label; of a histogram the sum. None if the filter
    /// did not define it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let host = self.host.borrow();
        let found: Vec<f64> = host
            .figures
            .iter()
            .filter(|figure| format!("{}{}", figure.name, figure.labels) == name)
            .map(|figure| figure.value)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// A value of the store that has not expired.
    pub fn stored(&self, namespace: &str, key: &str) -> Option<Vec<u8>> {
        mock::inside(&self.host, || crate::host::store_get(namespace, key))
            .ok()
            .flatten()
    }

    /// Puts a value into the store, as another filter or worker would.
    pub fn store(&self, namespace: &str, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let _ = mock::inside(&self.host, || {
            crate::host::store_set(namespace, key, value, 0)
        });
    }

    /// Whether the store is out of reach from now on.
    pub fn store_down(&self, down: bool) {
        self.host.borrow_mut().store_down = down;
    }

    /// Whether buckets in the shared place are out of reach from now on.
    pub fn limiter_down(&self, down: bool) {
        self.host.borrow_mut().limiter_down = down;
    }

    /// How many exchanges are in flight under a key, in both places. One is until [`Harness::end`].
    pub fn in_flight(&self, key: &str) -> u32 {
        let host = self.host.borrow();
        let entered = host.entered.iter().filter(|entered| entered.key == key);
        u32::try_from(entered.count()).unwrap_or(u32::MAX)
    }

    /// Takes the grant of a namespace of the store away; all others are granted.
    pub fn refuse_store(&self, namespace: &str) {
        self.host.borrow_mut().refused.push(namespace.to_owned());
    }

    // --- An exchange ---

    /// Takes a request through the filter, as the proxy would.
    pub fn request(&mut self, request: Request) -> Outcome {
        self.last += 1;
        let id = self.last;
        {
            let mut host = self.host.borrow_mut();
            host.exchange = request.exchange;
            host.exchange.began = host.monotonic;
        }
        let (body, trailers) =
            self.direction(id, Phase::RequestHead, request.pieces, request.trailers);
        Outcome::new(id, self.host.borrow().exchange.clone(), body, trailers)
    }

    /// Takes an upstream's response through the filter, for a request that it has seen.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # use tidegate_sdk::serde_json::json;
    /// # use tidegate_sdk::test::{Harness, Request, Response};
    /// # struct Quiet;
    /// # #[filter(name = "quiet")]
    /// # impl Filter for Quiet {
    /// #     fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
    /// #         let _ = response.remove("server");
    /// #         Flow::Continue
    /// #     }
    /// # }
    /// # fn main() {
    /// let mut harness = Harness::<Quiet>::new(json!({})).unwrap();
    /// let mut outcome = harness.request(Request::get("/"));
    /// let response = harness.respond(&mut outcome, Response::new(200).field("server", "x").body("hi"));
    /// assert_eq!(response.field("server"), None);
    /// assert_eq!(response.body, b"hi");
    /// # }
    /// ```
    pub fn respond(&mut self, outcome: &mut Outcome, response: Response) -> Responded {
        self.host.borrow_mut().exchange = Exchange {
            status: response.status,
            response: Some(response.fields),
            ..outcome.exchange.clone()
        };
        let (body, trailers) = self.direction(
            outcome.id,
            Phase::ResponseHead,
            response.pieces,
            response.trailers,
        );
        outcome.exchange = self.host.borrow().exchange.clone();
        Responded::new(&outcome.exchange, body, trailers)
    }

    /// [`Harness::respond`] for a response in one line; an empty body is none.
    pub fn response(
        &mut self,
        outcome: &mut Outcome,
        status: u16,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Responded {
        let mut response = Response::new(status).body(body);
        for (name, value) in fields {
            response = response.field(name, value);
        }
        self.respond(outcome, response)
    }

    /// Ends the exchange, as every one ends, in whatever way: the filter's `log` runs if it has one, and its state is freed.
    pub fn end(&mut self, outcome: Outcome) {
        self.host.borrow_mut().exchange = Exchange {
            phase: Some(Phase::Log),
            ..outcome.exchange
        };
        if self.interests.has(Phase::Log) {
            mock::inside(&self.host, || self.slot.log(outcome.id));
        }
        let mut host = self.host.borrow_mut();
        host.entered.retain(|entered| entered.id != outcome.id);
    }

    /// How many exchanges the filter keeps state for: 0 when all that began have ended.
    pub fn exchanges(&self) -> usize {
        self.slot.exchanges()
    }
}
