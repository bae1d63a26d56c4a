//! `#[derive(ConfigSchema)]`: a type's JSON Schema as a constant, from its fields, its documentation and serde's attributes. The
//! schemas of the fields' types are put in by the compiler, so nothing is known of them here.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DataEnum, DeriveInput, Error, Fields, FieldsNamed, Result, Type, Variant};

use crate::serde::{Case, Serde, documentation, field_name, variant_name};

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "ConfigSchema can't be derived for a generic type",
        ));
    }
    let serde = Serde::parse(&input.attrs)?;
    let mut schema = Pieces::default();
    match &input.data {
        Data::Struct(data) => {
            let description = documentation(&input.attrs);
            match &data.fields {
                Fields::Named(fields) => {
                    let object = Object {
                        description: &description,
                        tag: None,
                        case: serde.rename_all,
                    };
                    schema.object(fields, &serde, &object)?;
                }
                Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                    fields
                        .unnamed
                        .iter()
                        .for_each(|field| schema.of(&field.ty, &description));
                }
                fields => {
                    return Err(Error::new_spanned(
                        fields,
                        "ConfigSchema takes a struct with named fields, or with one value",
                    ));
                }
            }
        }
        Data::Enum(data) => schema.choice(data, &serde)?,
        Data::Union(_) => return Err(Error::new_spanned(&input, "serde reads no unions")),
    }
    let name = &input.ident;
    let pieces = schema.finish();
    Ok(quote! {
        impl ::tidegate_sdk::ConfigSchema for #name {
            const SCHEMA: &'static str = ::tidegate_sdk::schema::concat!(#(#pieces,)*);
        }
    })
}

/// What is said of an object besides its fields.
struct Object<'a> {
    description: &'a str,
    /// Key and value of the tag that it is known by.
    tag: Option<(&'a str, &'a str)>,
    case: Option<Case>,
}

/// A schema in the making: texts, and types whose schemas stand between them.
#[derive(Default)]
struct Pieces {
    done: Vec<TokenStream>,
    text: String,
}

impl Pieces {
    fn finish(mut self) -> Vec<TokenStream> {
        self.flush();
        self.done
    }

    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            self.done.push(quote! { #text });
        }
    }

    /// The schema of a type, with what is said of it where it is used.
    fn of(&mut self, ty: &Type, description: &str) {
        if !description.is_empty() {
            self.text += &format!("{{\"description\":{},\"allOf\":[", json(description));
        }
        self.flush();
        self.done
            .push(quote! { <#ty as ::tidegate_sdk::ConfigSchema>::SCHEMA });
        if !description.is_empty() {
            self.text += "]}";
        }
    }

    fn object(&mut self, fields: &FieldsNamed, serde: &Serde, object: &Object<'_>) -> Result<()> {
        let mut required = Vec::new();
        self.text += "{\"type\":\"object\"";
        if !object.description.is_empty() {
            self.text += &format!(",\"description\":{}", json(object.description));
        }
        if serde.deny_unknown {
            self.text += ",\"additionalProperties\":false";
        }
        self.text += ",\"properties\":{";
        let mut comma = "";
        if let Some((key, value)) = object.tag {
            self.text += &format!("{}:{{\"const\":{}}}", json(key), json(value));
            required.push(json(key));
            comma = ",";
        }
        for field in &fields.named {
            let attributes = Serde::parse(&field.attrs)?;
            let Some(own) = field.ident.as_ref().filter(|_| !attributes.skip) else {
                continue;
            };
            let name = json(&field_name(own, &attributes, object.case));
            self.text += &format!("{comma}{name}:");
            self.of(&field.ty, &documentation(&field.attrs));
            if !attributes.default && !serde.default && !is_option(&field.ty) {
                required.push(name);
            }
            comma = ",";
        }
        self.text += &format!("}},\"required\":[{}]}}", required.join(","));
        Ok(())
    }

    fn choice(&mut self, data: &DataEnum, serde: &Serde) -> Result<()> {
        let mut variants = Vec::new();
        for variant in &data.variants {
            let attributes = Serde::parse(&variant.attrs)?;
            if !attributes.skip {
                let name = variant_name(&variant.ident, &attributes, serde.rename_all);
                variants.push((variant, attributes, name));
            }
        }
        let plain = serde.tag.is_none() && !serde.untagged;
        if plain
            && variants
                .iter()
                .all(|(variant, ..)| matches!(variant.fields, Fields::Unit))
        {
            let names: Vec<String> = variants.iter().map(|(.., name)| json(name)).collect();
            self.text += &format!("{{\"type\":\"string\",\"enum\":[{}]}}", names.join(","));
            return Ok(());
        }
        self.text += if serde.untagged {
            "{\"anyOf\":["
        } else {
            "{\"oneOf\":["
        };
        for (index, (variant, attributes, name)) in variants.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            let attributes = Serde {
                deny_unknown: serde.deny_unknown || attributes.deny_unknown,
                rename_all: attributes.rename_all.or(serde.rename_all_fields),
                ..Serde::default()
            };
            if serde.untagged {
                self.untagged(variant, &attributes)?;
            } else if let Some(tag) = &serde.tag {
                self.tagged(variant, &attributes, tag, name)?;
            } else {
                self.keyed(variant, &attributes, name)?;
            }
        }
        self.text += "]}";
        Ok(())
    }

    /// A variant that is known by its shape.
    fn untagged(&mut self, variant: &Variant, serde: &Serde) -> Result<()> {
        let description = documentation(&variant.attrs);
        match &variant.fields {
            Fields::Unit => self.text += "{\"type\":\"null\"}",
            Fields::Named(fields) => {
                let object = Object {
                    description: &description,
                    tag: None,
                    case: serde.rename_all,
                };
                self.object(fields, serde, &object)?;
            }
            fields => self.of(one(variant, fields)?, &description),
        }
        Ok(())
    }

    /// A variant that is known by the value of a key among its own.
    fn tagged(&mut self, variant: &Variant, serde: &Serde, tag: &str, name: &str) -> Result<()> {
        let description = documentation(&variant.attrs);
        let none = FieldsNamed {
            brace_token: syn::token::Brace::default(),
            named: Default::default(),
        };
        let fields = match &variant.fields {
            Fields::Named(fields) => fields,
            Fields::Unit => &none,
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(
                    variant,
                    "ConfigSchema can't see into the value of a tagged variant: write its fields here",
                ));
            }
        };
        let object = Object {
            description: &description,
            tag: Some((tag, name)),
            case: serde.rename_all,
        };
        self.object(fields, serde, &object)
    }

    /// A variant that is its name, or an object with its name as the only key.
    fn keyed(&mut self, variant: &Variant, serde: &Serde, name: &str) -> Result<()> {
        let description = documentation(&variant.attrs);
        if matches!(variant.fields, Fields::Unit) {
            self.text += &format!("{{\"const\":{}}}", json(name));
            return Ok(());
        }
        let name = json(name);
        self.text += &format!(
            "{{\"type\":\"object\",\"additionalProperties\":false,\"required\":[{name}],\"properties\":{{{name}:"
        );
        match &variant.fields {
            Fields::Named(fields) => {
                let object = Object {
                    description: &description,
                    tag: None,
                    case: serde.rename_all,
                };
                self.object(fields, serde, &object)?;
            }
            fields => self.of(one(variant, fields)?, &description),
        }
        self.text += "}}";
        Ok(())
    }
}

/// The type of a variant's only value.
fn one<'a>(variant: &Variant, fields: &'a Fields) -> Result<&'a Type> {
    let mut types = fields.iter().map(|field| &field.ty);
    match (types.next(), types.next()) {
        (Some(ty), None) => Ok(ty),
        _ => Err(Error::new_spanned(
            variant,
            "ConfigSchema takes variants with one value, or with named fields",
        )),
    }
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

/// A text as JSON has it.
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            letter if u32::from(letter) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)))
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
