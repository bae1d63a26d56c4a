//! What can go wrong between a request and its answer. Maps nothing to a status code: that is the gateway's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::body::BodyError;

use crate::retry::Loss;

/// Why an upstream can't be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A certificate of its authority is none.
    #[error("upstream {name}: a certificate of `ca` can't be used: {detail}")]
    Ca {
        /// The upstream.
        name: Arc<str>,
        /// What the TLS library said.
        detail: String,
    },
    /// The name to verify is neither a DNS name nor an address.
    #[error("upstream {name}: {server_name:?} is no name that a certificate can have")]
    ServerName {
        /// The upstream.
        name: Arc<str>,
        /// What was given.
        server_name: String,
    },
    /// The TLS library refuses the settings.
    #[error("upstream {name}: TLS can't be set up: {detail}")]
    Tls {
        /// The upstream.
        name: Arc<str>,
        /// What the TLS library said.
        detail: String,
    },
}

/// What kept an answer from coming.
#[derive(Clone, Debug)]
pub enum SendErrorKind {
    /// The upstream has no endpoints.
    NoEndpoint,
    /// No connection: mostly refused, else no route or out of descriptors.
    Connect,
    /// No connection, TLS included, within the bound.
    ConnectTimedOut,
    /// The endpoint's name does not resolve.
    Dns,
    /// The handshake failed: mostly a certificate that does not verify.
    Tls,
    /// The connection ended before a whole response head was there.
    ResetBeforeHead,
    /// No response head within the bound.
    HeadTimedOut,
    /// What came is no HTTP, too large, framed in two ways at once, or an upgrade that nobody asked for. Also a
    /// request that can't be put into the endpoint's protocol.
    InvalidResponse,
    /// The request's body broke off before its end; the fault is not the upstream's.
    RequestBody(BodyError),
}

impl SendErrorKind {
    /// The kind as one word for logs and figures.
    pub fn reason(&self) -> &'static str {
        match self {
            SendErrorKind::NoEndpoint => "no_endpoint",
            SendErrorKind::Connect => "connect_refused",
            SendErrorKind::ConnectTimedOut => "connect_timeout",
            SendErrorKind::Dns => "dns",
            SendErrorKind::Tls => "tls",
            SendErrorKind::ResetBeforeHead => "reset_before_head",
            SendErrorKind::HeadTimedOut => "head_timeout",
            SendErrorKind::InvalidResponse => "invalid_response",
            SendErrorKind::RequestBody(_) => "request_body",
        }
    }
}

/// No answer: why, from where, and after how many attempts.
#[derive(Clone, Debug)]
pub struct SendError {
    /// What went wrong in the last attempt.
    pub kind: SendErrorKind,
    /// The endpoint of the last attempt, as it was configured.
    pub endpoint: Option<Arc<str>>,
    /// How often an endpoint was tried.
    pub attempts: u32,
    /// The underlying error's own words, for the log only.
    pub detail: String,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            SendErrorKind::NoEndpoint => "the upstream has no endpoints",
            SendErrorKind::Connect => "no connection could be made",
            SendErrorKind::ConnectTimedOut => "no connection was made in time",
            SendErrorKind::Dns => "the endpoint's name does not resolve",
            SendErrorKind::Tls => "the TLS handshake failed",
            SendErrorKind::ResetBeforeHead => "the connection ended before a response came",
            SendErrorKind::HeadTimedOut => "no response head came in time",
            SendErrorKind::InvalidResponse => "the response is not valid",
            SendErrorKind::RequestBody(_) => "the request's body broke off",
        };
        f.write_str(what)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " ({endpoint}, attempt {})", self.attempts)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for SendError {}

/// What went wrong in an attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: SendErrorKind,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(kind: SendErrorKind, detail: impl fmt::Display) -> Self {
        Failure {
            kind,
            detail: detail.to_string(),
        }
    }
}

/// An attempt that brought no response.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) failure: Failure,
    pub(crate) loss: Loss,
    /// Whether the request is as it was before.
    pub(crate) at_hand: bool,
}

impl Lost {
    pub(crate) fn new(failure: Failure, loss: Loss) -> Self {
        Lost {
            failure,
            loss,
            at_hand: false,
        }
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        let bound = format!("the bound is {limit:?}");
        Lost::new(
            Failure::new(SendErrorKind::HeadTimedOut, bound),
            Loss::Final,
        )
    }
}

/// An error with its causes, since hyper's prints its own level only.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
