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
//! # Configuration and state
//!
//! A filter's configuration is a type that serde reads. A mistake in it is told with the path of its key, by `tidegate check`
//! already where the type's schema finds it. What is kept for one exchange is a type too, made when the exchange begins and
//! dropped when it ends:
//!
//! ```
//! use tidegate_sdk::{clock, prelude::*};
//!
//! #[derive(Deserialize, ConfigSchema)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! struct Config {
//!     /// The field that tells how long the upstream took, in milliseconds.
//!     field_name: String,
//! }
//!
//! struct Timing {
//!     config: Config,
//! }
//!
//! #[derive(Default)]
//! struct Began(u64);
//!
//! #[filter(name = "timing", description = "Tells how long the upstream took.")]
//! impl Filter for Timing {
//!     type Config = Config;
//!     type State = Began;
//!
//!     fn new(config: Config) -> Result<Self, ConfigError> {
//!         Ok(Timing { config })
//!     }
//!
//!     fn request_head(&self, _: &mut RequestHead, began: &mut Began) -> Flow {
//!         began.0 = clock::monotonic();
//!         Flow::Continue
//!     }
//!
//!     fn response_head(&self, response: &mut ResponseHead, began: &mut Began) -> Flow {
//!         let milliseconds = (clock::monotonic() - began.0) / 1_000_000;
//!         if let Err(refusal) = response.set(&self.config.field_name, milliseconds.to_string()) {
//!             log::warn!("can't tell the time: {refusal}");
//!         }
//!         Flow::Continue
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! # Bodies
//!
//! A body comes piece by piece, and its head has gone on before it. A filter that must see all of it before it decides on the
//! head says so in [`filter`](macro@filter), or returns [`Flow::Hold`] from the head's phase.
//!
//! # Panics
//!
//! A panic ends the instance and with it the exchanges that it was in; its words are in the proxy's log. Return an [`Answer`]
//! for what clients do wrong and a [`ConfigError`] for what operators do wrong.
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
        ownership: Borrowing { duplicate_if_necessary: false },
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
mod tables;
#[cfg(not(target_arch = "wasm32"))]
pub mod test;
#[doc(hidden)]
pub mod text;
mod views;

pub use answer::Answer;
pub use filter::{ConfigError, Exported, Filter};
pub use phase::{BodyMode, BodyWish, Flow, Interests, Overflow, Phase, Refusal};
pub use schema::ConfigSchema;
pub use serde_json;
pub use services::{clock, env, http, limiter, log, metrics, random, store};
#[doc(inline)]
pub use tidegate_sdk_macros::ConfigSchema;
/// ```
/// use tidegate_sdk::prelude::*;
///
/// struct Guard;
///
/// #[filter(name = "guard", description = "Keeps a word out.", request_body = "whole", limit = 65536)]
/// impl Filter for Guard {
///     fn request_body(&self, body: &mut RequestBody, _: &mut ()) -> Flow {
///         match body.read().windows(4).any(|word| word == b"evil") {
///             true => Answer::new(403).text("not here\n").send(),
///             false => Flow::Continue,
///         }
///     }
/// }
/// # fn main() {}
/// ```
///
#[doc(inline)]
pub use tidegate_sdk_macros::filter;
pub use views::{
    CertificateFacts, Ended, RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead,
    ResponseTrailers, TlsFacts,
};

/// What nearly every filter needs: `use tidegate_sdk::prelude::*;`. Services other than `log` are named where they are used.
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
