//! The host's functions in Rust's words: the real ones on wasm, a mock everywhere else. Both have the same names and types.

#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod mock;

#[cfg(target_arch = "wasm32")]
pub(crate) use guest::*;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use mock::{calls::*, limiter::*, services::*};

/// Where fields stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    RequestTrailers,
    Response,
    ResponseTrailers,
}
