//! `#[derive(ConfigSchema)]`: a type's JSON Schema as a constant, from its fields, its documentation and its serde attributes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Expr, ExprLit, Fields, Lit, Meta, Result};

/// The serde attributes that are understood.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<String>,
    default: bool,
    deny_unknown: bool,
    untagged: bool,
}

impl Serde {
    fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut serde = Serde::default();
        for attribute in attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("serde"))
        {
            attribute.parse_nested_meta(|meta| {
                let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
                let text = || -> Result<String> { Ok(meta.value()?.parse::<syn::LitStr>()?.value()) };
                match name.as_str() {
                    "rename" => serde.rename = Some(text()?),
                    "rename_all" => serde.rename_all = Some(text()?),
                    "default" => {
                        serde.default = true;
                        if meta.input.peek(syn::Token![=]) {
                            text()?;
                        }
                    }
                    "deny_unknown_fields" => serde.deny_unknown = true,
                    "untagged" => serde.untagged = true,
                    _ => {
                        return Err(meta.error(
                            "ConfigSchema understands rename, rename_all, default, deny_unknown_fields and untagged",
                        ));
                    }
                }
                Ok(())
            })?;
        }
        Ok(serde)
    }

    fn name(&self, own: &str, container: &Serde) -> Result<String> {
        if let Some(name) = &self.rename {
            return Ok(name.clone());
        }
        Ok(match container.rename_all.as_deref() {
            None => own.to_owned(),
            Some("kebab-case") => words(own).join("-"),
            Some("snake_case") => words(own).join("_"),
            Some("lowercase") => words(own).concat(),
            Some("UPPERCASE") => words(own).concat().to_uppercase(),
            Some(other) => {
                return Err(Error::new(
                    proc_macro2::Span::call_site(),
                    format!("ConfigSchema does not know rename_all = \"{other}\""),
                ));
            }
        })
    }
}

/// The words of a name in snake case or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut fresh = true;
    for c in name.trim_start_matches("r#").chars() {
        if c == '_' {
            fresh = true;
        } else {
            if fresh || c.is_uppercase() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(c.to_lowercase());
            }
            fresh = false;
        }
    }
    words
}

/// The documentation as one text.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "ConfigSchema can't be derived for a generic type",
        ));
    }
    let container = Serde::parse(&input.attrs)?;
    let description = documentation(&input.attrs);
    let pieces = match &input.data {
        Data::Struct(data) => structure(&data.fields, &container, &description)?,
        Data::Enum(data) if container.untagged => {
            let mut pieces = vec![quote! { "{\"anyOf\":[" }];
            for (index, variant) in data.variants.iter().enumerate() {
                if index > 0 {
                    pieces.push(quote! { "," });
                }
                match &variant.fields {
                    Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                        let inner = fields.unnamed.iter().map(|field| &field.ty);
                        pieces
                            .push(quote! { #(<#inner as ::tidegate_sdk::ConfigSchema>::SCHEMA)* });
                    }
                    fields @ Fields::Named(_) => pieces.extend(structure(fields, &container, "")?),
                    _ => {
                        return Err(Error::new_spanned(
                            variant,
                            "an untagged variant has one value, or fields with names",
                        ));
                    }
                }
            }
            pieces.push(quote! { "]}" });
            pieces
        }
        Data::Enum(data) => {
            let mut names = Vec::new();
            for variant in &data.variants {
                if !matches!(variant.fields, Fields::Unit) {
                    return Err(Error::new_spanned(
                        variant,
                        "only untagged enums may hold values",
                    ));
                }
                let name =
                    Serde::parse(&variant.attrs)?.name(&variant.ident.to_string(), &container)?;
                names.push(json(&name));
            }
            let text = format!("{{\"type\":\"string\",\"enum\":[{}]}}", names.join(","));
            vec![quote! { #text }]
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &input,
                "ConfigSchema can't be derived for a union",
            ));
        }
    };
    let name = &input.ident;
    Ok(quote! {
        impl ::tidegate_sdk::ConfigSchema for #name {
            const SCHEMA: &'static str = ::tidegate_sdk::schema::concat!(#(#pieces,)*);
        }
    })
}

fn structure(fields: &Fields, container: &Serde, description: &str) -> Result<Vec<TokenStream>> {
    let Fields::Named(fields) = fields else {
        return Err(Error::new_spanned(
            fields,
            "ConfigSchema takes a struct whose fields have names",
        ));
    };
    let mut head = String::from("{\"type\":\"object\"");
    if !description.is_empty() {
        head.push_str(&format!(",\"description\":{}", json(description)));
    }
    if container.deny_unknown {
        head.push_str(",\"additionalProperties\":false");
    }
    head.push_str(",\"properties\":{");
    let mut pieces = vec![quote! { #head }];
    let mut required = Vec::new();
    for (index, field) in fields.named.iter().enumerate() {
        let serde = Serde::parse(&field.attrs)?;
        let own = field
            .ident
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let name = json(&serde.name(&own, container)?);
        let comma = if index > 0 { "," } else { "" };
        let text = documentation(&field.attrs);
        let open = if text.is_empty() {
            format!("{comma}{name}:{{\"allOf\":[")
        } else {
            format!(
                "{comma}{name}:{{\"description\":{},\"allOf\":[",
                json(&text)
            )
        };
        let ty = &field.ty;
        pieces.push(quote! { #open, <#ty as ::tidegate_sdk::ConfigSchema>::SCHEMA, "]}" });
        if !serde.default && !container.default && !is_option(ty) {
            required.push(name);
        }
    }
    let tail = format!("}},\"required\":[{}]}}", required.join(","));
    pieces.push(quote! { #tail });
    Ok(pieces)
}

fn is_option(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}
