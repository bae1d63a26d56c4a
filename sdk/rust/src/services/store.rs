//! A key-value store, shared by all workers, bounded, and forgetting what was used least recently first. Its namespaces are
//! granted by the operator's `allow = { store = [..] }`; filters that were granted the same one share it.
//!
//! Keys have up to 512 bytes and values up to 64 KiB. A time to live is in milliseconds; 0 keeps a value until it is evicted.
//!
//! ```
//! use tidegate_sdk::store::{self, StoreError};
//!
//! # fn main() -> Result<(), StoreError> {
//! store::set("sessions", "ada", b"token", 60_000)?;
//! assert_eq!(store::get("sessions", "ada")?.as_deref(), Some(&b"token"[..]));
//! assert_eq!(store::increment("sessions", "logins", 1, 0)?, 1);
//! assert!(!store::compare_and_swap("sessions", "ada", None, b"another", 0)?);
//! assert!(store::delete("sessions", "ada")?);
//! # Ok(()) }
//! ```

use std::fmt;

use crate::host;

/// Why the store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The operator did not grant this namespace.
    NotGranted,
    /// A key over 512 bytes or a value over 64 KiB.
    TooLarge,
    /// [`increment`] of a value that is no decimal number, or past the range of 64 bits.
    NotANumber,
    /// The store can't be reached.
    Unavailable,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreError::NotGranted => "the namespace is not granted",
            StoreError::TooLarge => "the key or the value is too large",
            StoreError::NotANumber => "the value is not a number in range",
            StoreError::Unavailable => "the store can't be reached",
        })
    }
}

impl std::error::Error for StoreError {}

/// The value of a key that has not expired.
///
/// # Errors
/// See [`StoreError`].
pub fn get(namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    host::store_get(namespace, key)
}

/// Puts a value in place of whatever was there.
///
/// # Errors
/// See [`StoreError`].
pub fn set(namespace: &str, key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StoreError> {
    host::store_set(namespace, key, value, ttl_ms)
}

/// Removes a value and says whether there was one.
///
/// # Errors
/// See [`StoreError`].
pub fn delete(namespace: &str, key: &str) -> Result<bool, StoreError> {
    host::store_delete(namespace, key)
}

/// Sets a value only if the present one is `expected` (none: if there is none), in one step that no other worker comes between.
/// Says whether it did.
///
/// # Errors
/// See [`StoreError`].
pub fn compare_and_swap(
    namespace: &str,
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
    ttl_ms: u64,
) -> Result<bool, StoreError> {
    host::store_swap(namespace, key, expected, value, ttl_ms)
}

/// Adds to a decimal number, absent being 0, in one step, and says what it is now. The time to live counts from the first
/// increment and is not prolonged: a window of so many milliseconds.
///
/// # Errors
/// See [`StoreError`].
pub fn increment(namespace: &str, key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StoreError> {
    host::store_increment(namespace, key, delta, ttl_ms)
}
