//! Types whose schema stands once in the manifest and is referred to wherever they are used: conditions, because they hold
//! conditions, and what would make the manifest long. Knows nothing of what they mean.

/// A type of its own around another, with the same configuration and a schema by reference.
macro_rules! by_reference {
    ($(#[$attribute:meta])* $name:ident, $inner:ty, $reference:literal) => {
        $(#[$attribute])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(Box<crate::table::Table<$inner>>);

        impl tidegate_sdk::ConfigSchema for $name {
            const SCHEMA: &'static str =
                concat!("{\"$ref\":\"#/$defs/", $reference, "\"}");
        }

        impl $name {
            /// What is written in it.
            fn keys(self) -> $inner {
                self.0.0
            }

            /// The schema itself, for the place that is referred to.
            pub(crate) const DEFINITION: &'static str =
                tidegate_sdk::schema::concat!("\"", $reference, "\":", <$inner as tidegate_sdk::ConfigSchema>::SCHEMA);
        }
    };
}

pub(crate) use by_reference;
