//! How configuration types read themselves. serde's derive would do, but makes several times as much code of them, and the
//! module has a bound. Knows no key.

use std::fmt;

use tidegate_sdk::prelude::*;

/// A table whose keys may all be missing: each field stands with its key.
macro_rules! table {
    (
        $(#[$about:meta])*
        $vis:vis struct $table:ident {
            $($(#[$of_field:meta])* $key:literal => $field:ident: $ty:ty,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Default, ConfigSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        $vis struct $table {
            $($(#[$of_field])* pub(crate) $field: $ty,)*
        }

        impl<'de> serde::Deserialize<'de> for $table {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $table;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a table")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$table, A::Error> {
                        let mut table = $table::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $($key => table.$field = map.next_value()?,)*
                                unknown => return Err(serde::de::Error::unknown_field(unknown, &[$($key),*])),
                            }
                        }
                        Ok(table)
                    }
                }

                deserializer.deserialize_map(Visitor)
            }
        }
    };
}

/// A choice between words.
macro_rules! words {
    (
        $(#[$about:meta])*
        $vis:vis enum $choice:ident {
            $($(#[$of_word:meta])* $word:literal => $variant:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ConfigSchema)]
        #[serde(rename_all = "kebab-case")]
        $vis enum $choice {
            $($(#[$of_word])* $variant,)*
        }

        impl $choice {
            fn parse(text: &str) -> Result<Self, String> {
                const WORDS: &[(&str, $choice)] = &[$(($word, $choice::$variant),)*];
                match WORDS.iter().find(|(word, _)| *word == text) {
                    Some((_, choice)) => Ok(*choice),
                    None => Err($crate::read::unknown(text, &[$($word),*])),
                }
            }
        }

        $crate::read::from_text!($choice);
    };
}

/// A type that is read from a text by its `parse`.
macro_rules! from_text {
    ($ty:ty) => {
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                <$ty>::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A number between bounds.
macro_rules! from_number {
    ($ty:ident, $inner:ty, $least:literal, $most:literal, $schema:literal) => {
        impl ConfigSchema for $ty {
            const SCHEMA: &'static str = $schema;
        }

        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = <u64 as serde::Deserialize>::deserialize(deserializer)?;
                match <$inner>::try_from(number) {
                    Ok(number @ $least..=$most) => Ok($ty(number)),
                    _ => Err(serde::de::Error::custom($crate::read::outside(
                        $least, $most,
                    ))),
                }
            }
        }
    };
}

/// What is said of a word that is not among those known.
#[inline(never)]
pub(crate) fn unknown(text: &str, known: &[&str]) -> String {
    [
        "`",
        text,
        "` is not known here: there is ",
        &known.join(", "),
    ]
    .concat()
}

/// What is said of a number that is out of bounds.
#[inline(never)]
pub(crate) fn outside(least: u64, most: u64) -> String {
    let (mut low, mut high) = (itoa::Buffer::new(), itoa::Buffer::new());
    [
        "it must be from ",
        low.format(least),
        " to ",
        high.format(most),
    ]
    .concat()
}

/// A value that may be written in several ways.
#[derive(Debug)]
pub(crate) enum Loose {
    /// A whole number.
    Number(u64),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a string or a list of strings")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Loose, E> {
                Ok(Loose::Number(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Loose, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Loose::List(texts))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A type that is read from a [`Loose`] value by its `read`.
macro_rules! from_loose {
    ($ty:ty) => {
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let loose = <$crate::read::Loose as serde::Deserialize>::deserialize(deserializer)?;
                <$ty>::read(loose).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {from_loose, from_number, from_text, table, words};
