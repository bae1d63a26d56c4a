//! The trait that authors write.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::phase::{Flow, Interests, Refusal};
use crate::schema::ConfigSchema;
use crate::views::{
    Ended, RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead, ResponseTrailers,
};

/// Why a filter can't run with its configuration; shown to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl From<String> for ConfigError {
    fn from(text: String) -> Self {
        ConfigError(text)
    }
}

impl From<Refusal> for ConfigError {
    fn from(refusal: Refusal) -> Self {
        ConfigError(refusal.to_string())
    }
}

impl From<&str> for ConfigError {
    fn from(text: &str) -> Self {
        ConfigError(text.to_owned())
    }
}

/// A filter. Write the phases that you need and put [`#[filter]`](macro@crate::filter) over the block: what is not written is
/// never called and costs nothing. `Config` and `State` are `()` and `new` is not needed unless you write them.
pub trait Filter: Sized + 'static {
    /// The configuration, read from JSON.
    type Config: DeserializeOwned + ConfigSchema;
    /// What is kept for each exchange, from its request's head to its end.
    type State: Default + 'static;

    /// Makes the filter; once for each instance.
    ///
    /// # Errors
    /// A sentence for the operator: which key, what is wrong, what to do.
    fn new(config: Self::Config) -> Result<Self, ConfigError>;

    /// Narrows or widens what the filter is called for, now that the configuration is known.
    fn interests(&self, interests: &mut Interests) {
        let _ = interests;
    }

    /// The request's head is here.
    fn request_head(&self, request: &mut RequestHead, state: &mut Self::State) -> Flow {
        let _ = (request, state);
        Flow::Continue
    }

    /// A piece of the request's body is here, or all of it.
    fn request_body(&self, body: &mut RequestBody, state: &mut Self::State) -> Flow {
        let _ = (body, state);
        Flow::Continue
    }

    /// The request's trailers are here.
    fn request_trailers(&self, trailers: &mut RequestTrailers, state: &mut Self::State) -> Flow {
        let _ = (trailers, state);
        Flow::Continue
    }

    /// The response's head is here.
    fn response_head(&self, response: &mut ResponseHead, state: &mut Self::State) -> Flow {
        let _ = (response, state);
        Flow::Continue
    }

    /// A piece of the response's body is here, or all of it.
    fn response_body(&self, body: &mut ResponseBody, state: &mut Self::State) -> Flow {
        let _ = (body, state);
        Flow::Continue
    }

    /// The response's trailers are here.
    fn response_trailers(&self, trailers: &mut ResponseTrailers, state: &mut Self::State) -> Flow {
        let _ = (trailers, state);
        Flow::Continue
    }

    /// The exchange is over, however it ended.
    fn log(&self, ended: &Ended, state: &mut Self::State) {
        let _ = (ended, state);
    }
}

/// What [`#[filter]`](macro@crate::filter) finds out about a filter; not written by hand.
pub trait Exported: Filter {
    /// The phases that were written, and how bodies are taken.
    const INTERESTS: Interests;
    /// What the filter says of itself, as JSON: the custom section `tidegate:manifest` of its module.
    const MANIFEST: &'static str;
}
