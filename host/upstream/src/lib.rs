//! Turns an upstream's name into an answer: endpoints, balancing, connections and their reuse, TLS, time-outs and
//! the few retries that are safe.
//!
//! Knows no route, no filter and no client: it is given a request whose head is ready for the wire and hands an
//! answer back. It chooses no status code.
//!
//! Reading order: [`Endpoint`] (where), [`Upstream`] (which of them, and with what bounds), [`Client::send`] (the
//! whole way of a request), `pool` (connections at rest), `connect` (new ones), `body` (an answer's bytes).
#![forbid(unsafe_code)]

mod body;
mod client;
mod connect;
mod endpoint;
mod error;
mod exchange;
mod figures;
mod message;
mod pool;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;

pub use client::{Client, Sent};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use error::{SendError, SendErrorKind, UpstreamError};
pub use upstream::{TlsOptions, Upstream, UpstreamConfig};
