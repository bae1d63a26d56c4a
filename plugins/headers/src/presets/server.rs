//! Removes what tells which software made a response, and which version: it helps nobody but who looks for holes.

use crate::facts::Fields;

/// Fields that servers and frameworks sign with.
const SIGNATURES: [&str; 12] = [
    "server",
    "x-powered-by",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-generator",
    "x-drupal-cache",
    "x-drupal-dynamic-cache",
    "x-runtime",
    "x-version",
    "x-backend-server",
    "x-server",
    "x-php-version",
];

/// Removes them.
pub(crate) fn hide(fields: &mut dyn Fields) {
    for name in SIGNATURES {
        // What the host refuses to remove is the host's own to answer for; these never are.
        let _removed = fields.remove(name);
    }
}
