//! Turns an upstream's name into an answer: endpoints, balancing, connections and their reuse, TLS, time-outs and
//! the few retries that are safe.
//!
//! Knows no route, no filter and no client: it is given a request whose head is ready for the wire and hands an
//! answer back. It chooses no status code.
//!
//! Reading order: [`Endpoint`] (where), [`Upstream`] (which of them, and with what bounds), [`Client::send`] (the
//! whole way of a request), `retry` (whether there is a second attempt), `pool` (connections at rest), `connect` (new
//! ones), `names` and `resolve` (what addresses they lead to), `http1` and `http2` (what is done with them), `body` (an answer's bytes).
#![forbid(unsafe_code)]

mod body;
mod client;
mod connect;
mod endpoint;
mod error;
mod head;
mod http1;
mod http2;
mod interim;
mod message;
mod metrics;
mod names;
mod pool;
pub mod resolve;
mod retry;
#[cfg(test)]
mod tests;
mod timer;
mod tls;
mod upgraded;
mod upload;
mod upstream;
mod wire;

pub use client::{Client, Sent};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use error::{SendError, SendErrorKind, UpstreamError};
pub use interim::Interim;
pub use names::Names;
pub use upgraded::Upgraded;
pub use upstream::{HeadBounds, TlsOptions, Upstream, UpstreamConfig};
