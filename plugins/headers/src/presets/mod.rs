//! Fields that many want and few remember: ready-made, each in a file of its own. Knows no rule.

pub(crate) mod cache;
pub(crate) mod security;
pub(crate) mod server;

use tidegate_sdk::log;

use crate::facts::Fields;

/// Sets a field, unless the upstream's shall count and there is one.
fn put(fields: &mut dyn Fields, name: &str, value: &[u8], keep: bool) {
    if keep && fields.has(name) {
        return;
    }
    if let Err(refusal) = fields.set(name, value) {
        log::warn(&["could not set `", name, "`: ", &refusal.to_string()].concat());
    }
}

#[cfg(test)]
mod tests;
