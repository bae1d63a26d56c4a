//! Answers that are the same for all, such as a maintenance page.

use crate::named::Named;

use tidegate_sdk::prelude::*;

use crate::condition::{Condition, Part, When};
use crate::facts::{Fields as _, Own};
use crate::mistakes::{Mistakes, Place};
use crate::names;
use crate::template::{Escape, Grammar, Template};

/// A fixed answer. The first that applies is given, and the upstream is not asked.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Respond {
    /// When it is given; always, if it is missing.
    when: Option<When>,
    /// The status, 200 to 599.
    status: u16,
    /// The body, as it stands.
    body: Option<String>,
    /// The body, with `{...}` in it: values are escaped as the content type asks, HTML or JSON.
    template: Option<String>,
    /// What the body is; `text/plain; charset=utf-8` if it is missing.
    content_type: Option<String>,
    /// Fields of the answer. Values may hold `{...}`.
    #[serde(default)]
    fields: Named<String>,
}

/// An answer, ready to be given.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) when: Option<Condition>,
    pub(crate) status: u16,
    body: Option<Template>,
    fields: Vec<(String, Template)>,
}

impl Respond {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let when = self
            .when
            .map(|when| when.compile(Part::Request, &place.key("when"), mistakes));
        if !(200..600).contains(&self.status) {
            mistakes.add(&place.key("status"), "a status is a number from 200 to 599");
        }
        let content_type = self
            .content_type
            .unwrap_or_else(|| "text/plain; charset=utf-8".to_owned());
        let grammar = Grammar::fields(false);
        let of_body = grammar.of(match content_type.as_str() {
            text if text.starts_with("application/json") || text.contains("+json") => Escape::Json,
            text if text.starts_with("text/plain") => Escape::Field,
            _ => Escape::Html,
        });
        let body = match (self.body, self.template) {
            (Some(_), Some(_)) => {
                mistakes.add(
                    &place.key("template"),
                    "there is a `body` already; leave one of them out",
                );
                None
            }
            (Some(body), None) => Some(of_body.text(&body)),
            (None, Some(text)) => mistakes.take(&place.key("template"), of_body.parse_body(&text)),
            (None, None) => None,
        };
        let mut fields = Vec::new();
        let has_type = self
            .fields
            .0
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if body.is_some() && !has_type {
            let value = mistakes.take(&place.key("content-type"), grammar.parse(&content_type));
            fields.extend(value.map(|value| ("content-type".to_owned(), value)));
        }
        for (name, text) in self.fields {
            let place = place.key("fields").key(&name);
            let name = mistakes.take(&place, names::field(&name));
            let value = mistakes.take(&place, grammar.parse(&text));
            fields.extend(name.zip(value));
        }
        Compiled {
            when,
            status: self.status,
            body,
            fields,
        }
    }
}

impl Compiled {
    /// Writes the fields and gives the body.
    pub(crate) fn fill(&self, own: &mut Own<'_>) -> Vec<u8> {
        for (name, template) in &self.fields {
            let mut value = Vec::new();
            template.render(own.facts(), &mut value);
            // Its own fields refuse nothing.
            let _set = own.set(name, &value);
        }
        let mut body = Vec::new();
        if let Some(template) = &self.body {
            template.render(own.facts(), &mut body);
        }
        body
    }
}
