//! A table whose keys are names that the operator chooses. A sorted list rather than a tree, which would be in the filter once
//! for each type of value.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use tidegate_sdk::ConfigSchema;
use tidegate_sdk::schema::concat;

use crate::condition::Test;
use crate::cookies::Attributes;
use crate::one_or_many::OneOrMany;
use crate::rule::Replace;
use crate::table::Table;

/// Values by names, in the order of the names.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T> Named<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> IntoIterator for Named<T> {
    type Item = (String, T);
    type IntoIter = std::vec::IntoIter<(String, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut named: Vec<(String, T)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value()?;
            let at = named.partition_point(|(known, _)| *known < name);
            named.insert(at, (name, value));
        }
        Ok(Named(named))
    }
}

/// Schemas of the values that there are.
macro_rules! schemas {
    ($($ty:ty),* $(,)?) => {
        $(impl ConfigSchema for Named<$ty> {
            const SCHEMA: &'static str = concat!(
                r#"{"type":"object","additionalProperties":"#,
                <$ty as ConfigSchema>::SCHEMA,
                "}"
            );
        })*
    };
}

schemas!(
    String,
    Test,
    OneOrMany<String>,
    OneOrMany<Table<Replace>>,
    Table<Attributes>,
);
