//! Write filters for tidegate.
//!
//! A filter is a type with an `impl` of [`Filter`], of which only the phases that matter are written, under one macro line:
//!
//! ```
//! use tidegate_sdk::prelude::*;
//!
//! struct Hello;
//!
//! #[filter(name = "hello")]
//! impl Filter for Hello {
//!     fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
//!         let _ = response.set("x-hello", "world");
//!         Flow::Continue
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Built for `wasm32-unknown-unknown` as a `cdylib`, the file is a filter. On any other target the same code runs against a mock
//! of the host: see [`mod@test`].
//!
//! What the contract means, call by call, is said in `sdk/wit/filter.wit`; this crate adds Rust's habits to it and nothing else.

mod answer;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unsafe_code,
    unused_qualifications,
    unreachable_pub,
    reason = "generated from the WIT"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "filter",
        pub_export_macro: true,
        export_macro_name: "export_callbacks",
        default_bindings_module: "tidegate_sdk::bindings",
    });
}
mod config;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod export;
mod filter;
mod host;
mod phase;
#[doc(hidden)]
pub mod runtime;
pub mod schema;
mod services;
#[cfg(not(target_arch = "wasm32"))]
pub mod test;
mod views;

pub use answer::Answer;
pub use filter::{ConfigError, Exported, Filter};
pub use phase::{BodyMode, BodyWish, Flow, Interests, Overflow, Phase, Refusal};
pub use schema::ConfigSchema;
pub use serde_json;
pub use services::{clock, env, http, limiter, log, metrics, random, store};
pub use tidegate_sdk_macros::{ConfigSchema, filter};
pub use views::{
    Ended, RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead, ResponseTrailers,
    TlsFacts,
};

/// What nearly every filter needs.
pub mod prelude {
    pub use crate::{
        Answer, ConfigError, ConfigSchema, Ended, Filter, Flow, Interests, Phase, Refusal,
        RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead, ResponseTrailers,
        filter, log,
    };
    pub use serde::Deserialize;
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_filter {
    ($filter:ty) => {
        #[cfg(target_arch = "wasm32")]
        $crate::__export_filter!($filter);
        // Elsewhere the manifest is made all the same, so that a mistake in it is found wherever the filter is built.
        #[cfg(not(target_arch = "wasm32"))]
        const _: &str = <$filter as $crate::Exported>::MANIFEST;
    };
}
