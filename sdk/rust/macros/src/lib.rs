//! The macros of `tidegate-sdk`: `#[filter]`, which makes a filter of an `impl` block, and `#[derive(ConfigSchema)]`, which makes
//! a JSON Schema of a type. Use them through the SDK.

mod filter;
mod schema;
mod serde;

use proc_macro::TokenStream;

/// Makes a filter of an `impl Filter for ..` block: sees which phases are written, fills in what is left out, and adds the
/// module's exports and its manifest. A crate has one.
///
/// `type Config`, `type State` and `new` may be left out: they are then `()`, `()` and, for a struct without fields, the struct.
///
/// What it takes, all of it optional:
///
/// | key | value |
/// |---|---|
/// | `name`, `version`, `description` | for the manifest; the package's own unless given |
/// | `store`, `http`, `env` | that the filter wants this capability, and why; the operator grants it or not |
/// | `request_body`, `response_body` | `"stream"` (each piece as it comes), `"whole"` (all at once, with the head still here) or `"on-hold"` (whole, but only if the head's phase returned `Flow::Hold`); `"stream"` if the phase is written |
/// | `limit` | the most bytes that may be collected, up to the operator's bound, which is the default (1 MiB unless configured) |
/// | `overflow` | what becomes of a longer body: `"refuse"` (413, or 502 for a response) or `"stream"` (piece by piece from there on) |
/// | `memory`, `call_ms` | suggested bounds on memory, in bytes, and on the time of one call, in milliseconds |
#[proc_macro_attribute]
pub fn filter(attributes: TokenStream, item: TokenStream) -> TokenStream {
    filter::expand(attributes.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a JSON Schema of a configuration type, as the trait `ConfigSchema` says.
#[proc_macro_derive(ConfigSchema, attributes(serde))]
pub fn config_schema(item: TokenStream) -> TokenStream {
    schema::expand(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
