//! The targets, a file each.

pub mod auth_basic;
pub mod auth_keys;
pub mod auth_token;
pub mod configuration;
pub mod forwarding;
pub mod framing;
pub mod header_replace;
pub mod header_template;
pub mod host_calls;
pub mod route;

use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for what happened.
fn fingerprint(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
