//! What a filter says of itself: the custom section `tidegate:manifest`, made by the SDK. It is a claim to show
//! and to check a configuration against, and grants nothing.

use serde::{Deserialize, Serialize};

/// The custom section's name.
pub(crate) const SECTION: &str = "tidegate:manifest";
/// The longest manifest that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// A filter's manifest. Keys that this version does not know are passed over, so that a newer SDK's filters load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Manifest {
    /// The filter's own name; the operator's name for it may be another.
    pub name: String,
    /// The filter's version.
    pub version: String,
    /// What it does, in a sentence.
    pub description: String,
    /// JSON Schema of its configuration.
    #[serde(alias = "config_schema", skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<serde_json::Value>,
    /// What it wants to reach, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// Bounds that its author suggests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<SuggestedLimits>,
}

/// Something that a filter wants to reach outside of its exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Capability {
    /// The key under `allow`: `http`, `store` or `env`.
    pub kind: String,
    /// The author's reason.
    pub why: String,
    /// Whether the filter is of use without it. It then loads without a grant, and is told so where it asks.
    #[serde(skip_serializing_if = "is_false")]
    pub optional: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Bounds that a filter's author suggests. The operator's are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SuggestedLimits {
    /// Bytes of linear memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Milliseconds for one call.
    #[serde(alias = "call_ms", skip_serializing_if = "Option::is_none")]
    pub call_ms: Option<u64>,
    /// Bytes of a body that it wants collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
}

/// Reads a manifest.
pub(crate) fn read(json: &[u8]) -> Result<Manifest, String> {
    if json.len() > MAX_BYTES {
        return Err(format!(
            "its manifest has {} bytes, more than the {MAX_BYTES} that are read",
            json.len()
        ));
    }
    serde_json::from_slice(json).map_err(|error| {
        format!("its manifest (custom section `{SECTION}`) can't be read: {error}")
    })
}
