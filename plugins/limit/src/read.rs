//! How configuration types read themselves. serde's derive would do, but makes several times as much code of them, and the
//! module has a bound. Knows no key.

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
                match text {
                    $($word => Ok($choice::$variant),)*
                    _ => Err(["`", text, "` is not known here: there is" $(, " ", $word)*].concat()),
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
                    _ => Err(serde::de::Error::custom(concat!(
                        "it must be from ",
                        $least,
                        " to ",
                        $most
                    ))),
                }
            }
        }
    };
}

pub(crate) use {from_number, from_text, table, words};
