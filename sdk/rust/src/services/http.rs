//! HTTP calls to upstreams of the proxy's configuration that the operator's `allow = { http = [..] }` grants. A call looks as if
//! it waited; only its own exchange does.
//!
//! ```no_run
//! use tidegate_sdk::http::Call;
//! use tidegate_sdk::prelude::*;
//!
//! # fn request_head(request: &RequestHead) -> Flow {
//! let verdict = Call::new("POST", "/verdict").body(request.path()).timeout_ms(200).send("judge");
//! match verdict {
//!     Ok(response) if response.status == 204 => Flow::Continue,
//!     Ok(_) => Answer::new(403).text("no\n").send(),
//!     Err(error) => {
//!         log::warn!("the judge can't be asked: {error}");
//!         Answer::new(503).text("try again\n").send()
//!     }
//! }
//! # }
//! ```

use std::fmt;

/// A call in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: u32,
    pub(crate) max_response: u32,
}

/// An upstream's whole answer, whatever its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The fields in their order, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, collected.
    pub body: Vec<u8>,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The operator did not grant this upstream.
    NotGranted,
    /// The method, the path or a field is not one that could be sent.
    InvalidRequest,
    /// No endpoint of the upstream could be reached.
    Unreachable,
    /// The time was over before the whole answer was here.
    TimedOut,
    /// The answer is longer than [`Call::max_response`].
    ResponseTooLarge,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// In `new` or `log`, which must not wait.
    NotNow,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallError::NotGranted => "the upstream is not granted",
            CallError::InvalidRequest => "the call could not be sent as it was asked for",
            CallError::Unreachable => "no endpoint of the upstream could be reached",
            CallError::TimedOut => "the upstream did not answer in time",
            CallError::ResponseTooLarge => "the upstream's answer is too large",
            CallError::Broken => "the upstream broke the call off",
            CallError::NotNow => "a call can't be made in this phase",
        })
    }
}

impl std::error::Error for CallError {}

impl Call {
    /// A call of that method and path. The path begins with `/` and may have a query.
    pub fn new(method: &str, path: &str) -> Self {
        Call {
            method: method.to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            timeout_ms: 0,
            max_response: 0,
        }
    }

    /// Adds a field. Framing and Host are the host's.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body; the host says how long it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Bounds the whole call, in milliseconds; 5 s unless set, 60 s at most.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = milliseconds;
        self
    }

    /// Bounds the answer's body, in bytes; 1 MiB unless set, which is also the most.
    #[must_use]
    pub fn max_response(mut self, bytes: u32) -> Self {
        self.max_response = bytes;
        self
    }

    /// Sends it to an upstream, by its name in the configuration, and waits for the whole answer.
    ///
    /// # Errors
    /// See [`CallError`]. A status of any kind is an answer and no error.
    pub fn send(&self, upstream: &str) -> Result<CallResponse, CallError> {
        crate::host::call(upstream, self)
    }
}

impl CallResponse {
    /// The first value of a field. Names are compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }
}
