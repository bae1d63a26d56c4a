//! A key that takes one value or a list of them. Knows nothing of what the values mean.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tidegate_sdk::ConfigSchema;
use tidegate_sdk::schema::concat;

use crate::condition::Statuses;
use crate::mistakes::Place;
use crate::presets::cache::CacheControl;
use crate::redirect::Redirect;
use crate::respond::Respond;
use crate::rewrite::Rewrite;
use crate::rule::{Replace, Rule};
use crate::table::Table;

/// One value or many. A hand-written reader rather than an untagged choice, so that a mistake inside is told at its key.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T> {
    values: Vec<T>,
    is_list: bool,
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany {
            values: Vec::new(),
            is_list: true,
        }
    }
}

impl<T> OneOrMany<T> {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each of them with its place.
    pub(crate) fn each(self, place: &Place) -> impl Iterator<Item = (Place, T)> + use<T> {
        let is_list = self.is_list;
        let place = place.clone();
        self.values
            .into_iter()
            .enumerate()
            .map(move |(index, value)| {
                let place = if is_list {
                    place.at(index)
                } else {
                    place.clone()
                };
                (place, value)
            })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

struct Reader<T>(PhantomData<T>);

impl<T> Reader<T> {
    fn one(value: T) -> OneOrMany<T> {
        OneOrMany {
            values: vec![value],
            is_list: false,
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(StrDeserializer::new(text)).map(Self::one)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(serde::de::value::U64Deserializer::new(number)).map(Self::one)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Self::one)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let values = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(OneOrMany {
            values,
            is_list: true,
        })
    }
}

/// Schemas of what is written one or many times.
macro_rules! schemas {
    ($($ty:ty),* $(,)?) => {
        $(impl ConfigSchema for OneOrMany<$ty> {
            const SCHEMA: &'static str = concat!(
                r#"{"anyOf":["#,
                <$ty as ConfigSchema>::SCHEMA,
                r#",{"type":"array","items":"#,
                <$ty as ConfigSchema>::SCHEMA,
                "}]}"
            );
        })*
    };
}

schemas!(
    String,
    Statuses,
    Rule,
    Table<Replace>,
    Table<Redirect>,
    Table<Respond>,
    Table<Rewrite>,
    Table<CacheControl>,
);
