//! Who hears of the responses that come before the final one. Knows neither protocol.

use http::{HeaderMap, StatusCode};

/// Hears of a request's interim responses (RFC 9110 section 15.2), as they come.
pub trait Interim: Send + Sync {
    /// One has come, with its fields as the upstream sent them.
    fn came(&self, status: StatusCode, fields: &HeaderMap);
}
