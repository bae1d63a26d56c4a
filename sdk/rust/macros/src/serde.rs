//! What serde's attributes and the documentation say of a type, a variant or a field. Knows no schema.

use syn::{Attribute, Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Result, Token};

/// The attributes that are understood. One that is not would make the schema differ from what serde takes, so it is refused.
#[derive(Default)]
pub(crate) struct Serde {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<Case>,
    pub(crate) rename_all_fields: Option<Case>,
    pub(crate) default: bool,
    pub(crate) deny_unknown: bool,
    pub(crate) skip: bool,
    pub(crate) tag: Option<String>,
    pub(crate) untagged: bool,
}

impl Serde {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut serde = Serde::default();
        for attribute in attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("serde"))
        {
            attribute.parse_nested_meta(|meta| {
                let name = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
                let text = || meta.value()?.parse::<LitStr>();
                match name.as_str() {
                    "rename" if !meta.input.peek(syn::token::Paren) => serde.rename = Some(text()?.value()),
                    "rename_all" if !meta.input.peek(syn::token::Paren) => {
                        serde.rename_all = Some(Case::parse(&text()?)?);
                    }
                    "rename_all_fields" => serde.rename_all_fields = Some(Case::parse(&text()?)?),
                    "default" => {
                        serde.default = true;
                        if meta.input.peek(Token![=]) {
                            text()?;
                        }
                    }
                    "deny_unknown_fields" => serde.deny_unknown = true,
                    "skip" | "skip_deserializing" => serde.skip = true,
                    "tag" => serde.tag = Some(text()?.value()),
                    "untagged" => serde.untagged = true,
                    "transparent" => {}
                    "crate" | "expecting" => {
                        text()?;
                    }
                    "flatten" => {
                        return Err(meta.error(
                            "ConfigSchema can't see into a flattened type: write its fields here, or give it a key of its own",
                        ));
                    }
                    _ => {
                        return Err(meta.error(
                            "ConfigSchema understands rename, rename_all, rename_all_fields, default, skip, tag, \
                             untagged, transparent and deny_unknown_fields; implement it by hand for anything else",
                        ));
                    }
                }
                Ok(())
            })?;
        }
        Ok(serde)
    }
}

/// The ways of writing a name that serde knows.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    fn parse(text: &LitStr) -> Result<Self> {
        Ok(match text.value().as_str() {
            "lowercase" => Case::Lower,
            "UPPERCASE" => Case::Upper,
            "PascalCase" => Case::Pascal,
            "camelCase" => Case::Camel,
            "snake_case" => Case::Snake,
            "SCREAMING_SNAKE_CASE" => Case::ScreamingSnake,
            "kebab-case" => Case::Kebab,
            "SCREAMING-KEBAB-CASE" => Case::ScreamingKebab,
            _ => return Err(Error::new_spanned(text, "serde knows no such case")),
        })
    }

    /// A variant's name, which is written in Pascal case.
    fn of_variant(self, name: &str) -> String {
        match self {
            Case::Pascal => name.to_owned(),
            Case::Lower => name.to_ascii_lowercase(),
            Case::Upper => name.to_ascii_uppercase(),
            Case::Camel => with_first(name, char::to_ascii_lowercase),
            Case::Snake => {
                let mut snake = String::new();
                for (index, letter) in name.char_indices() {
                    if index > 0 && letter.is_uppercase() {
                        snake.push('_');
                    }
                    snake.push(letter.to_ascii_lowercase());
                }
                snake
            }
            Case::ScreamingSnake => Case::Snake.of_variant(name).to_ascii_uppercase(),
            Case::Kebab => Case::Snake.of_variant(name).replace('_', "-"),
            Case::ScreamingKebab => Case::ScreamingSnake.of_variant(name).replace('_', "-"),
        }
    }

    /// A field's name, which is written in snake case.
    fn of_field(self, name: &str) -> String {
        match self {
            Case::Lower | Case::Snake => name.to_owned(),
            Case::Upper | Case::ScreamingSnake => name.to_ascii_uppercase(),
            Case::Pascal => name
                .split('_')
                .map(|word| with_first(word, char::to_ascii_uppercase))
                .collect(),
            Case::Camel => with_first(&Case::Pascal.of_field(name), char::to_ascii_lowercase),
            Case::Kebab => name.replace('_', "-"),
            Case::ScreamingKebab => name.to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn with_first(name: &str, change: fn(&char) -> char) -> String {
    let mut letters = name.chars();
    letters.next().iter().map(change).chain(letters).collect()
}

/// The name that serde reads for a field.
pub(crate) fn field_name(own: &Ident, serde: &Serde, case: Option<Case>) -> String {
    named(
        own,
        serde,
        case.map(|case| move |name: &str| case.of_field(name)),
    )
}

/// The name that serde reads for a variant.
pub(crate) fn variant_name(own: &Ident, serde: &Serde, case: Option<Case>) -> String {
    named(
        own,
        serde,
        case.map(|case| move |name: &str| case.of_variant(name)),
    )
}

fn named(own: &Ident, serde: &Serde, case: Option<impl Fn(&str) -> String>) -> String {
    let own = own.to_string();
    let own = own.trim_start_matches("r#");
    match (&serde.rename, case) {
        (Some(name), _) => name.clone(),
        (None, Some(case)) => case(own),
        (None, None) => own.to_owned(),
    }
}

/// The documentation as one text, its lines joined and its paragraphs kept.
pub(crate) fn documentation(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
    {
        let Meta::NameValue(pair) = &attribute.meta else {
            continue;
        };
        let Expr::Lit(ExprLit {
            lit: Lit::Str(line),
            ..
        }) = &pair.value
        else {
            continue;
        };
        let line = line.value();
        let line = line.trim();
        if line.is_empty() {
            text.push_str("\n\n");
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_serde_writes_them() {
        for (case, variant, field) in [
            (Case::Lower, "hs256key", "some_key"),
            (Case::Upper, "HS256KEY", "SOME_KEY"),
            (Case::Pascal, "Hs256Key", "SomeKey"),
            (Case::Camel, "hs256Key", "someKey"),
            (Case::Snake, "hs256_key", "some_key"),
            (Case::ScreamingSnake, "HS256_KEY", "SOME_KEY"),
            (Case::Kebab, "hs256-key", "some-key"),
            (Case::ScreamingKebab, "HS256-KEY", "SOME-KEY"),
        ] {
            assert_eq!(case.of_variant("Hs256Key"), variant);
            assert_eq!(case.of_field("some_key"), field);
        }
    }
}
