//! For the fuzz targets: templates and replacements by themselves, with one value for everything that could be asked of an
//! exchange. Not meant to be called by a filter.

use crate::facts::Facts;
use crate::regex::Regex;
use crate::template::{Escape, Grammar, Source, without_controls};

/// What a template's values become part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A field.
    Field,
    /// A path or an address.
    Url,
    /// A value in a query.
    Query,
    /// A cookie's value.
    Cookie,
    /// A page.
    Html,
    /// A string in JSON.
    Json,
}

struct Everything<'a>(&'a [u8]);

impl Facts for Everything<'_> {
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool {
        // These come from the proxy in their own form, never as somebody wrote them.
        let value: &[u8] = match source {
            Source::Path | Source::OriginalPath | Source::Uri => b"/a%20b/c",
            Source::Query => b"a=b&c=%20",
            Source::Host | Source::HostName => b"a.example",
            Source::Scheme => b"https",
            _ => self.0,
        };
        out.extend_from_slice(value);
        true
    }

    fn request_fields(&self, _: &str) -> Vec<Vec<u8>> {
        vec![self.0.to_vec()]
    }

    fn response_fields(&self, _: &str) -> Vec<Vec<u8>> {
        vec![self.0.to_vec()]
    }

    fn status(&self) -> u16 {
        200
    }
}

/// Reads a template and fills it in with a value.
///
/// # Errors
/// What is wrong with the template.
pub fn template(kind: Kind, text: &str, value: &[u8]) -> Result<Vec<u8>, String> {
    let escape = match kind {
        Kind::Field => Escape::Field,
        Kind::Url => Escape::Url,
        Kind::Query => Escape::Query,
        Kind::Cookie => Escape::Cookie,
        Kind::Html => Escape::Html,
        Kind::Json => Escape::Json,
    };
    let template = Grammar::fields(true).of(escape).parse(text)?;
    let mut out = Vec::new();
    template.render(&Everything(value), &mut out);
    Ok(out)
}

/// Replaces in a value what a pattern finds, as a rule on a field does.
///
/// # Errors
/// What is wrong with the pattern or with what stands in its place.
pub fn replace(pattern: &str, with: &str, value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let regex = Regex::new(pattern)?;
    let with = Grammar::fields(true).with(regex.groups()).parse(with)?;
    let facts = Everything(value);
    let replaced = regex.replace_all(value, |groups, out| with.render_with(&facts, groups, out));
    Ok(replaced.map(|mut replaced| {
        without_controls(&mut replaced, 0);
        replaced
    }))
}
