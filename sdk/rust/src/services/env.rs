//! Values from the proxy's environment, for what should not stand in a configuration file. A filter gets those that the
//! operator's `allow = { env = [..] }` names, and no other.

/// The value of a variable; none if it is not granted or not set.
///
/// ```no_run
/// # use tidegate_sdk::prelude::*;
/// # fn new() -> Result<String, ConfigError> {
/// use tidegate_sdk::env;
///
/// let secret = env::get("SIGNING_SECRET").ok_or("SIGNING_SECRET is not set or not granted")?;
/// # Ok(secret) }
/// ```
pub fn get(name: &str) -> Option<String> {
    crate::host::env_get(name)
}
