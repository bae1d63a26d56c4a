//! The harness of the system tests: the real binary, real sockets, upstreams and clients, filters to run. It
//! must not know how the proxy works inside: only what its users can see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't go on has failed, and says so on the terminal"
)]

pub mod certs;
pub mod client;
pub mod frames;
pub mod gateway;
pub mod guests;
pub mod hostile;
pub mod load;
pub mod neighbour;
pub mod recipes;
pub mod tap;
pub mod tokens;
pub mod upstream;
pub mod wait;
pub mod wire;
