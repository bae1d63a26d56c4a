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

mod request;

pub use request::{Answered, Outcome, Request, Responded, Sent};

use std::time::Duration;

use crate::filter::{ConfigError, Exported};
use crate::host::mock::{self, Exchange, Host};
use crate::phase::{BodyMode, BodyWish, Flow, Interests, Overflow, Phase};
use crate::runtime::Slot;
use crate::services::http::{CallError, CallResponse};

/// A filter with a host around it. Each harness starts with a fresh host; use one at a time in a thread.
pub struct Harness<F: Exported> {
    slot: Slot<F>,
    interests: Interests,
    last: u64,
}

impl<F: Exported> Harness<F> {
    /// A filter with that configuration.
    ///
    /// # Errors
    /// The filter's own words.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "`json!` makes values, and a test reads better without `&`"
    )]
    pub fn new(config: serde_json::Value) -> Result<Self, ConfigError> {
        mock::with(|host| {
            *host = Host {
                wall: 1_800_000_000_000_000_000,
                monotonic: 1,
                ..Host::default()
            }
        });
        let slot = Slot::new();
        let interests = slot.configure(&config.to_string())?;
        Ok(Harness {
            slot,
            interests,
            last: 0,
        })
    }

    /// What the filter asked to be called for.
    pub fn interests(&self) -> Interests {
        self.interests
    }

    /// Moves both clocks.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        mock::with(|host| {
            host.monotonic = host.monotonic.saturating_add(by);
            host.wall = host.wall.saturating_add(by);
        });
    }

    /// Sets the clock on the wall, in seconds since 1970.
    pub fn set_wall(&self, seconds: u64) {
        mock::with(|host| host.wall = seconds.saturating_mul(1_000_000_000));
    }

    /// Gives the filter a value of the environment.
    pub fn set_env(&self, name: &str, value: &str) {
        mock::with(|host| host.env.insert(name.to_owned(), value.to_owned()));
    }

    /// What an upstream says to the next call that is not answered yet. Without one, a call is refused as not granted.
    pub fn reply(&self, upstream: &str, reply: Result<CallResponse, CallError>) {
        mock::with(|host| {
            host.replies
                .entry(upstream.to_owned())
                .or_default()
                .push_back(reply)
        });
    }

    /// The calls that were made: upstream, method, path.
    pub fn calls(&self) -> Vec<(String, String, String)> {
        mock::with(|host| host.calls.clone())
    }

    /// The lines that were logged.
    pub fn lines(&self) -> Vec<String> {
        mock::with(|host| host.lines.clone())
    }

    /// A figure's value, by its name (with `,label=value` for each label); of a histogram the sum.
    pub fn metric(&self, name: &str) -> Option<f64> {
        mock::with(|host| {
            host.metrics
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| *value)
        })
    }

    /// A value of the store.
    pub fn stored(&self, namespace: &str, key: &str) -> Option<Vec<u8>> {
        crate::host::store_get(namespace, key).ok().flatten()
    }

    /// Takes a request through the filter, as the proxy would.
    pub fn request(&mut self, request: Request) -> Outcome {
        self.last += 1;
        let id = self.last;
        let Request {
            exchange,
            pieces,
            trailers,
        } = request;
        mock::with(|host| host.exchange = exchange);
        let end = pieces.is_empty() && trailers.is_none();
        let body = self.direction(id, Phase::RequestHead, end, pieces, trailers);
        let exchange = mock::with(|host| host.exchange.clone());
        Outcome::new(id, exchange, body)
    }

    /// Takes an upstream's response (or anybody's) through the filter, for a request that it has seen.
    pub fn response(
        &mut self,
        outcome: &mut Outcome,
        status: u16,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Responded {
        let pieces = if body.is_empty() {
            Vec::new()
        } else {
            vec![body.to_vec()]
        };
        self.response_pieces(outcome, status, fields, pieces)
    }

    /// As [`Harness::response`], with the body cut into pieces.
    pub fn response_pieces(
        &mut self,
        outcome: &mut Outcome,
        status: u16,
        fields: &[(&str, &str)],
        pieces: Vec<Vec<u8>>,
    ) -> Responded {
        let mut exchange = outcome.exchange.clone();
        exchange.status = status;
        exchange.response = Some(
            fields
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()))
                .collect(),
        );
        exchange.answer = None;
        mock::with(|host| host.exchange = exchange);
        let body = self.direction(
            outcome.id,
            Phase::ResponseHead,
            pieces.is_empty(),
            pieces,
            None,
        );
        let exchange = mock::with(|host| host.exchange.clone());
        outcome.exchange = exchange.clone();
        Responded::new(exchange, body)
    }

    /// Ends the exchange: the filter's `log` runs and its state is freed.
    pub fn end(&mut self, outcome: Outcome) {
        mock::with(|host| {
            host.exchange = Exchange {
                phase: Some(Phase::Log),
                ..outcome.exchange
            }
        });
        self.slot.log(outcome.id);
    }

    /// How many exchanges have state in the filter.
    pub fn exchanges(&self) -> usize {
        self.slot.exchanges()
    }

    /// One direction: the head, the body in pieces or whole, the trailers. Returns the body that goes on.
    fn direction(
        &self,
        id: u64,
        head: Phase,
        end: bool,
        pieces: Vec<Vec<u8>>,
        trailers: Option<mock::Fields>,
    ) -> Vec<u8> {
        let request = head == Phase::RequestHead;
        let (body_phase, trailer_phase, wish) = if request {
            (
                Phase::RequestBody,
                Phase::RequestTrailers,
                self.interests.request_body,
            )
        } else {
            (
                Phase::ResponseBody,
                Phase::ResponseTrailers,
                self.interests.response_body,
            )
        };
        let enter = |phase, head_open| {
            mock::with(|host| {
                host.exchange.phase = Some(phase);
                host.exchange.head_open = head_open;
            });
        };
        let mut flow = Flow::Continue;
        if self.interests.has(head) {
            enter(head, true);
            flow = if request {
                self.slot.request_head(id, end)
            } else {
                self.slot.response_head(id, end)
            };
        }
        if flow == Flow::Answer {
            return Vec::new();
        }
        let whole =
            flow == Flow::Hold || (self.interests.has(body_phase) && wish.mode == BodyMode::Whole);
        let (pieces, head_open, last) = match self.cut(pieces, whole, wish) {
            Ok(cut) => cut,
            Err(status) => {
                mock::with(|host| host.exchange.answer = Some((status, Vec::new(), Vec::new())));
                return Vec::new();
            }
        };
        let called =
            whole || (self.interests.has(body_phase) && wish.mode == BodyMode::Stream && !end);
        let mut out = Vec::new();
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            mock::with(|host| host.exchange.piece = piece);
            if called {
                enter(body_phase, head_open && index == 0);
                let end = last && index + 1 == count;
                let flow = if request {
                    self.slot.request_body(id, length, end)
                } else {
                    self.slot.response_body(id, length, end)
                };
                if flow == Flow::Answer {
                    return out;
                }
            }
            mock::with(|host| out.append(&mut host.exchange.piece));
        }
        if trailers.is_some() && self.interests.has(trailer_phase) {
            mock::with(|host| {
                if request {
                    host.exchange.request_trailers = trailers;
                } else {
                    host.exchange.response_trailers = trailers;
                }
            });
            enter(trailer_phase, false);
            if request {
                self.slot.request_trailers(id);
            } else {
                self.slot.response_trailers(id);
            }
        }
        out
    }

    /// The pieces as the filter gets them, whether the head is open at the first, and whether the last is told to be the last.
    fn cut(
        &self,
        pieces: Vec<Vec<u8>>,
        whole: bool,
        wish: BodyWish,
    ) -> Result<(Vec<Vec<u8>>, bool, bool), u16> {
        if !whole {
            return Ok((pieces, false, true));
        }
        let limit = if wish.limit == 0 {
            1024 * 1024
        } else {
            wish.limit as usize
        };
        let total: usize = pieces.iter().map(Vec::len).sum();
        if total <= limit {
            return Ok((vec![pieces.concat()], true, true));
        }
        match wish.overflow {
            Overflow::Refuse => Err(413),
            Overflow::Stream => {
                let all = pieces.concat();
                let (first, rest) = all.split_at(limit);
                Ok((vec![first.to_vec(), rest.to_vec()], true, true))
            }
        }
    }
}
