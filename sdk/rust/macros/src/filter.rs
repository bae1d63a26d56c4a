//! `#[filter(...)]`: sees which phases an author wrote, fills in what was left out, and adds the exports and the manifest.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{
    Error, Expr, ExprLit, ImplItem, ItemImpl, Lit, LitInt, LitStr, MetaNameValue, Result, Token,
    Type,
};

/// The methods of the trait that are phases, with the phase's name in the SDK.
const PHASES: [(&str, &str); 7] = [
    ("request_head", "RequestHead"),
    ("request_body", "RequestBody"),
    ("request_trailers", "RequestTrailers"),
    ("response_head", "ResponseHead"),
    ("response_body", "ResponseBody"),
    ("response_trailers", "ResponseTrailers"),
    ("log", "Log"),
];

#[derive(Default)]
struct Attributes {
    name: Option<LitStr>,
    description: Option<LitStr>,
    version: Option<LitStr>,
    /// Kind, reason, and whether the filter is of use without it.
    capabilities: Vec<(&'static str, LitStr, bool)>,
    request_body: Option<LitStr>,
    response_body: Option<LitStr>,
    overflow: Option<LitStr>,
    limit: Option<LitInt>,
    memory: Option<LitInt>,
    call_ms: Option<LitInt>,
}

impl Attributes {
    fn parse(tokens: TokenStream) -> Result<Self> {
        let mut attributes = Attributes::default();
        for pair in Punctuated::<MetaNameValue, Token![,]>::parse_terminated.parse2(tokens)? {
            let name = pair
                .path
                .get_ident()
                .map(ToString::to_string)
                .unwrap_or_default();
            let Expr::Lit(ExprLit { lit, .. }) = pair.value else {
                return Err(Error::new_spanned(pair.path, "the value must be a literal"));
            };
            match (name.as_str(), lit) {
                ("limit", Lit::Int(number)) => attributes.limit = Some(number),
                ("memory", Lit::Int(number)) => attributes.memory = Some(number),
                ("call_ms", Lit::Int(number)) => attributes.call_ms = Some(number),
                ("name", Lit::Str(text)) => attributes.name = Some(text),
                ("description", Lit::Str(text)) => attributes.description = Some(text),
                ("version", Lit::Str(text)) => attributes.version = Some(text),
                (
                    "store" | "http" | "env" | "optional_store" | "optional_http" | "optional_env",
                    Lit::Str(text),
                ) => {
                    let (optional, kind) = match name.strip_prefix("optional_") {
                        Some(kind) => (true, kind),
                        None => (false, name.as_str()),
                    };
                    let kinds = ["store", "http", "env"];
                    let kind = kinds.into_iter().find(|known| *known == kind);
                    attributes
                        .capabilities
                        .push((kind.unwrap_or_default(), text, optional));
                }
                ("request_body", Lit::Str(text)) => attributes.request_body = Some(text),
                ("response_body", Lit::Str(text)) => attributes.response_body = Some(text),
                ("overflow", Lit::Str(text)) => attributes.overflow = Some(text),
                _ => {
                    return Err(Error::new_spanned(
                        pair.path,
                        "there is name, version, description, store, http, env, optional_store, optional_http, \
                         optional_env, request_body, response_body, overflow (texts), limit, memory and call_ms \
                         (numbers)",
                    ));
                }
            }
        }
        Ok(attributes)
    }

    /// The bounds that the author suggests, as the manifest's last key.
    fn limits(&self) -> Result<String> {
        let mut limits = Vec::new();
        for (key, number) in [
            ("memory", &self.memory),
            ("call-ms", &self.call_ms),
            ("body", &self.limit),
        ] {
            if let Some(number) = number {
                limits.push(format!("\"{key}\":{}", number.base10_parse::<u64>()?));
            }
        }
        Ok(match limits.is_empty() {
            true => String::new(),
            false => format!(",\"limits\":{{{}}}", limits.join(",")),
        })
    }
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let attributes = Attributes::parse(attributes)?;
    let mut item: ItemImpl = syn::parse2(item)?;
    let this = (*item.self_ty).clone();
    let has = |name: &str| {
        item.items.iter().any(|member| match member {
            ImplItem::Fn(function) => function.sig.ident == name,
            ImplItem::Type(alias) => alias.ident == name,
            _ => false,
        })
    };
    check(&attributes, &item, &has)?;
    let mut missing = Vec::new();
    if !has("Config") {
        missing.push(syn::parse2(quote! { type Config = (); })?);
    }
    if !has("State") {
        missing.push(syn::parse2(quote! { type State = (); })?);
    }
    if !has("new") {
        let Type::Path(path) = &this else {
            return Err(Error::new_spanned(
                &this,
                "the filter must be a type with a name",
            ));
        };
        missing.push(syn::parse2(quote! {
            fn new(_: Self::Config) -> ::core::result::Result<Self, ::tidegate_sdk::ConfigError> {
                ::core::result::Result::Ok(#path)
            }
        })?);
    }
    let phases: Vec<_> = PHASES
        .iter()
        .filter(|(method, _)| has(method))
        .map(|(_, phase)| format_ident!("{phase}"))
        .collect();
    let request_wish = wish(&attributes.request_body, &attributes, has("request_body"))?;
    let response_wish = wish(&attributes.response_body, &attributes, has("response_body"))?;
    item.items.extend(missing);

    let name = match &attributes.name {
        Some(name) => quote! { #name },
        None => quote! { ::core::env!("CARGO_PKG_NAME") },
    };
    let version = match &attributes.version {
        Some(version) => quote! { #version },
        None => quote! { ::core::env!("CARGO_PKG_VERSION") },
    };
    let description = match &attributes.description {
        Some(description) => quote! { #description },
        None => quote! { ::core::env!("CARGO_PKG_DESCRIPTION") },
    };
    let mut capabilities = Vec::new();
    for (index, (kind, why, optional)) in attributes.capabilities.iter().enumerate() {
        let open = format!(
            "{}{{\"kind\":\"{kind}\",{}\"why\":",
            if index > 0 { "," } else { "" },
            if *optional { "\"optional\":true," } else { "" },
        );
        capabilities.push(quote! { #open, ::tidegate_sdk::schema::quote!(#why), "}", });
    }
    let end = format!("]{}}}", attributes.limits()?);
    Ok(quote! {
        #item

        const _: () = {
            impl ::tidegate_sdk::Exported for #this {
                const INTERESTS: ::tidegate_sdk::Interests = ::tidegate_sdk::Interests::new(
                    &[#(::tidegate_sdk::Phase::#phases),*],
                    #request_wish,
                    #response_wish,
                );

                const MANIFEST: &'static str = ::tidegate_sdk::schema::concat!(
                    "{\"name\":", ::tidegate_sdk::schema::quote!(#name),
                    ",\"version\":", ::tidegate_sdk::schema::quote!(#version),
                    ",\"description\":", ::tidegate_sdk::schema::quote!(#description),
                    ",\"contract\":\"0.1.0\",\"config-schema\":",
                    <<#this as ::tidegate_sdk::Filter>::Config as ::tidegate_sdk::ConfigSchema>::SCHEMA,
                    ",\"capabilities\":[", #(#capabilities)* #end,
                );
            }

            ::tidegate_sdk::export_filter!(#this);
        };
    })
}

/// Finds what would compile and do something else than its author thinks.
fn check(attributes: &Attributes, item: &ItemImpl, has: &dyn Fn(&str) -> bool) -> Result<()> {
    let of_trait = item
        .trait_
        .as_ref()
        .and_then(|(_, path, _)| path.segments.last());
    if of_trait.is_none_or(|last| last.ident != "Filter") {
        return Err(Error::new_spanned(
            &item.self_ty,
            "`#[filter]` stands over `impl Filter for ..`",
        ));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "a filter can't be generic: it is exported",
        ));
    }
    if has("Config") && !has("new") {
        return Err(Error::new_spanned(
            &item.self_ty,
            "a filter with a `Config` needs `fn new(config: Config) -> Result<Self, ConfigError>`",
        ));
    }
    for (phase, mode) in [
        ("request_body", &attributes.request_body),
        ("response_body", &attributes.response_body),
    ] {
        if mode.is_some() && !has(phase) {
            return Err(Error::new_spanned(
                mode,
                format!("there is no `fn {phase}` that would be called with the body"),
            ));
        }
    }
    let bounds = match (&attributes.limit, &attributes.overflow) {
        (Some(limit), _) => Some(limit.span()),
        (None, Some(overflow)) => Some(overflow.span()),
        (None, None) => None,
    };
    match bounds {
        Some(span) if !has("request_body") && !has("response_body") => Err(Error::new(
            span,
            "`limit` and `overflow` are about bodies: there is no `fn request_body` or `fn response_body`",
        )),
        _ => Ok(()),
    }
}

fn wish(mode: &Option<LitStr>, attributes: &Attributes, taken: bool) -> Result<TokenStream> {
    let mode = match mode.as_ref().map(LitStr::value).as_deref() {
        Some("stream") => quote! { Stream },
        Some("whole") => quote! { Whole },
        Some("on-hold") => quote! { OnHold },
        Some(_) => {
            return Err(Error::new_spanned(
                mode,
                "a body is taken as \"stream\", \"whole\" or \"on-hold\"",
            ));
        }
        None if taken => quote! { Stream },
        None => quote! { OnHold },
    };
    let overflow = match attributes.overflow.as_ref().map(LitStr::value).as_deref() {
        None | Some("refuse") => quote! { Refuse },
        Some("stream") => quote! { Stream },
        Some(_) => {
            return Err(Error::new_spanned(
                &attributes.overflow,
                "overflow is \"refuse\" or \"stream\"",
            ));
        }
    };
    let limit = match &attributes.limit {
        Some(limit) => limit.base10_parse::<u32>()?,
        None => 0,
    };
    Ok(quote! {
        ::tidegate_sdk::BodyWish {
            mode: ::tidegate_sdk::BodyMode::#mode,
            limit: #limit,
            overflow: ::tidegate_sdk::Overflow::#overflow,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(attributes: TokenStream, item: TokenStream) -> String {
        expand(attributes, item).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_told_in_the_authors_words() {
        let hello = quote! { impl Filter for Hello {} };
        for (attributes, item, word) in [
            (
                quote! { nam = "a" },
                hello.clone(),
                "there is name, version",
            ),
            (quote! { name = NAME }, hello.clone(), "must be a literal"),
            (quote! {}, quote! { impl Hello {} }, "impl Filter for"),
            (
                quote! {},
                quote! { impl<T> Filter for Hello<T> {} },
                "generic",
            ),
            (
                quote! {},
                quote! { impl Filter for Hello { type Config = Config; } },
                "fn new(config",
            ),
            (
                quote! { request_body = "whole" },
                hello.clone(),
                "no `fn request_body`",
            ),
            (quote! { limit = 5 }, hello.clone(), "about bodies"),
            (
                quote! { request_body = "all" },
                quote! { impl Filter for Hello { fn request_body(&self) {} } },
                "\"whole\"",
            ),
            (
                quote! { overflow = "cut" },
                quote! { impl Filter for Hello { fn request_body(&self) {} } },
                "\"refuse\"",
            ),
        ] {
            let message = refusal(attributes, item);
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let made = expand(quote! {}, quote! { impl Filter for Hello {} }).unwrap();
        let made = made.to_string();
        for part in [
            "type Config = ()",
            "type State = ()",
            "fn new",
            "CARGO_PKG_NAME",
        ] {
            assert!(made.contains(part), "{made}");
        }
    }
}
