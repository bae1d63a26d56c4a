//! What the host does for a filter besides the exchange, one module a service. What is not used is not imported by the
//! filter's module and needs no grant; only `log` always is, because a panic says its words there.

pub mod clock;
pub mod env;
pub mod http;
pub mod limiter;
pub mod log;
pub mod metrics;
pub mod random;
pub mod store;
