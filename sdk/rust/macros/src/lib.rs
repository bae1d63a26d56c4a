//! The macros of `tidegate-sdk`: `#[filter]`, which makes a filter of an `impl` block, and `#[derive(ConfigSchema)]`, which makes
//! a JSON Schema of a type. Use them through the SDK.

mod filter;
mod schema;

use proc_macro::TokenStream;

/// Makes a wasm filter of an `impl Filter for ...` block: see `tidegate_sdk::filter`.
#[proc_macro_attribute]
pub fn filter(attributes: TokenStream, item: TokenStream) -> TokenStream {
    filter::expand(attributes.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a JSON Schema of a configuration type: see `tidegate_sdk::ConfigSchema`.
#[proc_macro_derive(ConfigSchema, attributes(serde))]
pub fn config_schema(item: TokenStream) -> TokenStream {
    schema::expand(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
