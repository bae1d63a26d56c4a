//! JSON Schemas as constants, so that a filter's manifest can carry the schema of its configuration, and the proxy can check a
//! configuration against it, without running the filter.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64};

use crate::text::Buffer;

#[doc(hidden)]
pub use crate::{__concat as concat, __quote as quote};

/// A type with a JSON Schema. Derive it for configuration types; documentation comments become descriptions.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Deserialize, ConfigSchema)]
/// #[serde(rename_all = "kebab-case", deny_unknown_fields)]
/// struct Config {
///     /// What to say.
///     greeting: String,
///     /// To whom; to everybody if it is missing.
///     to: Option<Whom>,
/// }
///
/// #[derive(Deserialize, ConfigSchema)]
/// #[serde(untagged)]
/// enum Whom {
///     /// One of them.
///     One(String),
///     /// Some of them.
///     Some(Vec<String>),
/// }
/// assert!(Config::SCHEMA.contains("What to say."));
/// ```
///
/// The derive reads serde's `rename`, `rename_all`, `rename_all_fields`, `default`, `skip`, `tag`, `untagged`, `transparent` and
/// `deny_unknown_fields`, and refuses to compile for any other, such as `flatten`: the schema would say something else than
/// serde does.
///
/// ```compile_fail
/// # use tidegate_sdk::prelude::*;
/// # #[derive(Deserialize, ConfigSchema)]
/// # struct Common {}
/// #[derive(Deserialize, ConfigSchema)]
/// struct Config {
///     #[serde(flatten)]
///     common: Common,
/// }
/// ```
///
/// For a type that needs one, write the `impl`:
///
/// ```
/// use tidegate_sdk::ConfigSchema;
///
/// struct Percent(u8);
///
/// impl ConfigSchema for Percent {
///     const SCHEMA: &'static str = r#"{"type":"integer","minimum":0,"maximum":100}"#;
/// }
/// # let _ = Percent(1).0;
/// ```
pub trait ConfigSchema {
    /// The schema, as JSON.
    const SCHEMA: &'static str;

    /// Whether this is the type of a filter that takes no configuration.
    #[doc(hidden)]
    const TAKES_NOTHING: bool = false;
}

impl ConfigSchema for () {
    const SCHEMA: &'static str = r#"{"type":"object","additionalProperties":false}"#;
    const TAKES_NOTHING: bool = true;
}

macro_rules! plain {
    ($($ty:ty => $schema:literal),* $(,)?) => {
        $(impl ConfigSchema for $ty { const SCHEMA: &'static str = $schema; })*
    };
}

plain! {
    bool => r#"{"type":"boolean"}"#,
    String => r#"{"type":"string"}"#,
    Box<str> => r#"{"type":"string"}"#,
    char => r#"{"type":"string","minLength":1,"maxLength":1}"#,
    f32 => r#"{"type":"number"}"#,
    f64 => r#"{"type":"number"}"#,
    u8 => r#"{"type":"integer","minimum":0,"maximum":255}"#,
    u16 => r#"{"type":"integer","minimum":0,"maximum":65535}"#,
    u32 => r#"{"type":"integer","minimum":0,"maximum":4294967295}"#,
    u64 => r#"{"type":"integer","minimum":0}"#,
    usize => r#"{"type":"integer","minimum":0,"maximum":4294967295}"#,
    i8 => r#"{"type":"integer","minimum":-128,"maximum":127}"#,
    i16 => r#"{"type":"integer","minimum":-32768,"maximum":32767}"#,
    i32 => r#"{"type":"integer","minimum":-2147483648,"maximum":2147483647}"#,
    i64 => r#"{"type":"integer"}"#,
    isize => r#"{"type":"integer","minimum":-2147483648,"maximum":2147483647}"#,
    NonZeroU8 => r#"{"type":"integer","minimum":1,"maximum":255}"#,
    NonZeroU16 => r#"{"type":"integer","minimum":1,"maximum":65535}"#,
    NonZeroU32 => r#"{"type":"integer","minimum":1,"maximum":4294967295}"#,
    NonZeroU64 => r#"{"type":"integer","minimum":1}"#,
    IpAddr => r#"{"type":"string"}"#,
    Ipv4Addr => r#"{"type":"string","format":"ipv4"}"#,
    Ipv6Addr => r#"{"type":"string","format":"ipv6"}"#,
    serde_json::Value => "{}",
    serde_json::Map<String, serde_json::Value> => r#"{"type":"object"}"#,
}

/// A key that may be missing has the schema of its value: TOML has no null.
impl<T: ConfigSchema> ConfigSchema for Option<T> {
    const SCHEMA: &'static str = T::SCHEMA;
}

impl<T: ConfigSchema> ConfigSchema for Box<T> {
    const SCHEMA: &'static str = T::SCHEMA;
}

impl<T: ConfigSchema> ConfigSchema for Vec<T> {
    const SCHEMA: &'static str =
        Buffer::concat(&[r#"{"type":"array","items":"#, T::SCHEMA, "}"]).as_str();
}

impl<T: ConfigSchema> ConfigSchema for BTreeSet<T> {
    const SCHEMA: &'static str = <Vec<T> as ConfigSchema>::SCHEMA;
}

impl<T: ConfigSchema, S> ConfigSchema for HashSet<T, S> {
    const SCHEMA: &'static str = <Vec<T> as ConfigSchema>::SCHEMA;
}

impl<T: ConfigSchema> ConfigSchema for BTreeMap<String, T> {
    const SCHEMA: &'static str = Buffer::concat(&[
        r#"{"type":"object","additionalProperties":"#,
        T::SCHEMA,
        "}",
    ])
    .as_str();
}

impl<T: ConfigSchema, S> ConfigSchema for HashMap<String, T, S> {
    const SCHEMA: &'static str = <BTreeMap<String, T> as ConfigSchema>::SCHEMA;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn schema<T: ConfigSchema>() -> Value {
        serde_json::from_str(T::SCHEMA).unwrap()
    }

    #[test]
    fn types_in_types_are_put_together() {
        let schema = schema::<Vec<Option<BTreeMap<String, Box<u8>>>>>();
        assert_eq!(
            schema,
            json!({"type": "array", "items": {
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 255},
            }})
        );
    }
}
