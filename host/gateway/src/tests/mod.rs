//! The whole way of a request over real sockets, with filters made of closures and upstreams made of scripts. No wasm, no
//! sleep: everything waits for what it needs.

mod alone;
mod bodies;
mod chain;
mod connections;
mod failures;
mod forwarding;
mod guests;
mod harness;
mod http2;
mod smuggling;
mod turns;
