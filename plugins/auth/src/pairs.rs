//! A table of the configuration whose keys are the operator's: a list of pairs, because it is walked through far more often than
//! asked for a key, and because a map of its own for each type of value would be a tenth of the filter.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use tidegate_sdk::ConfigSchema;

/// Keys and values in the order in which they were written, each key once.
#[derive(Debug)]
pub struct Pairs<T>(Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Pairs(Vec::new())
    }
}

impl<T> Pairs<T> {
    /// Each key with its value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&T> {
        let mut pairs = self.iter();
        pairs
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }
}

impl ConfigSchema for Pairs<String> {
    const SCHEMA: &'static str = r#"{"type":"object","additionalProperties":{"type":"string"}}"#;
}

impl ConfigSchema for Pairs<Vec<String>> {
    const SCHEMA: &'static str =
        r#"{"type":"object","additionalProperties":{"type":"array","items":{"type":"string"}}}"#;
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pairs<T>, A::Error> {
        let mut pairs = Pairs::default();
        while let Some((key, value)) = members.next_entry::<String, T>()? {
            if pairs.get(&key).is_some() {
                return Err(A::Error::custom("a key stands there twice"));
            }
            pairs.0.push((key, value));
        }
        Ok(pairs)
    }
}
