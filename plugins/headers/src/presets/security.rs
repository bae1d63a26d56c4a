//! Fields that tell browsers to be careful: Strict-Transport-Security (RFC 6797), Content-Security-Policy with a nonce,
//! framing, sniffing, referrers, permissions and isolation.

use tidegate_sdk::prelude::*;

use super::put;
use crate::condition::{Condition, Part, When};
use crate::facts::Fields;
use crate::mistakes::{Mistakes, Place};
use crate::table::Table;
use crate::template::{Grammar, Source, Template};

/// Fields that tell browsers to be careful. Written as `{}`, it sets those that hurt nobody: HSTS over TLS, `nosniff`, no
/// framing by other sites, and a short referrer.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Security {
    /// When they are set; always, if it is missing.
    when: Option<When>,
    /// Whether a field that the upstream sets counts.
    keep: bool,
    /// Strict-Transport-Security, over TLS only: for how long.
    hsts: Table<Hsts>,
    /// Content-Security-Policy. `{nonce}` is a random value, the same all through the exchange.
    csp: Option<String>,
    /// Content-Security-Policy-Report-Only.
    csp_report_only: Option<String>,
    /// X-Frame-Options: `"deny"`, `"same-origin"` or `"off"`.
    frame: Frame,
    /// X-Content-Type-Options: nosniff.
    no_sniff: bool,
    /// Referrer-Policy; `""` for none.
    referrer: String,
    /// Permissions-Policy.
    permissions: Option<String>,
    /// Cross-Origin-Opener-Policy.
    opener: Option<String>,
    /// Cross-Origin-Embedder-Policy.
    embedder: Option<String>,
    /// Cross-Origin-Resource-Policy.
    resource: Option<String>,
}

impl Default for Security {
    fn default() -> Self {
        Security {
            when: None,
            keep: false,
            hsts: Table::default(),
            csp: None,
            csp_report_only: None,
            frame: Frame::SameOrigin,
            no_sniff: true,
            referrer: "strict-origin-when-cross-origin".to_owned(),
            permissions: None,
            opener: None,
            embedder: None,
            resource: None,
        }
    }
}

/// For how long browsers shall use TLS only.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Hsts {
    /// Whether the field is set.
    enabled: bool,
    /// Seconds; a year if it is missing.
    max_age: u32,
    /// Whether it holds for all hosts below this one.
    include_subdomains: bool,
    /// Whether browsers may ship with it; needs `include-subdomains` and a year.
    preload: bool,
}

/// A year, in seconds.
const YEAR: u32 = 31_536_000;

impl Default for Hsts {
    fn default() -> Self {
        Hsts {
            enabled: true,
            max_age: YEAR,
            include_subdomains: false,
            preload: false,
        }
    }
}

/// Who may show a page in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Frame {
    /// Nobody.
    Deny,
    /// Pages of the same origin.
    SameOrigin,
    /// The field is not set.
    Off,
}

/// The fields, ready to be set.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    keep: bool,
    hsts: Option<Vec<u8>>,
    fields: Vec<(&'static str, Template)>,
}

impl Security {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let when = self
            .when
            .map(|when| when.compile(Part::Response, &place.key("when"), mistakes));
        let hsts = self.hsts.0.compile(&place.key("hsts"), mistakes);
        let grammar = Grammar::fields(true);
        let mut fields = Vec::new();
        let frame = match self.frame {
            Frame::Deny => Some("DENY"),
            Frame::SameOrigin => Some("SAMEORIGIN"),
            Frame::Off => None,
        };
        for (name, value) in [
            ("x-frame-options", frame),
            ("x-content-type-options", self.no_sniff.then_some("nosniff")),
        ] {
            fields.extend(value.map(|value| (name, grammar.text(value))));
        }
        let referrer = Some(self.referrer).filter(|referrer| !referrer.is_empty());
        for (key, name, text) in [
            ("csp", "content-security-policy", self.csp),
            (
                "csp-report-only",
                "content-security-policy-report-only",
                self.csp_report_only,
            ),
            ("referrer", "referrer-policy", referrer),
            ("permissions", "permissions-policy", self.permissions),
            ("opener", "cross-origin-opener-policy", self.opener),
            ("embedder", "cross-origin-embedder-policy", self.embedder),
            ("resource", "cross-origin-resource-policy", self.resource),
        ] {
            let Some(text) = text else { continue };
            let place = place.key(key);
            // Policies are written over several lines; in a field they are one.
            let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            let Some(template) = mistakes.take(&place, grammar.parse(&text)) else {
                continue;
            };
            if key.starts_with("csp")
                && text.contains("'nonce-")
                && !template.names(|it| *it == Source::Nonce)
            {
                mistakes.add(
                    &place,
                    "a nonce that is always the same protects nobody; write `'nonce-{nonce}'`",
                );
            }
            fields.push((name, template));
        }
        Compiled {
            when,
            keep: self.keep,
            hsts,
            fields,
        }
    }
}

impl Hsts {
    fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Option<Vec<u8>> {
        if !self.enabled {
            return None;
        }
        if self.preload && !(self.include_subdomains && self.max_age >= YEAR) {
            mistakes.add(
                &place.key("preload"),
                "browsers' lists take it with `include-subdomains = true` and a `max-age` of 31536000 only",
            );
        }
        let mut value = ["max-age=", &self.max_age.to_string()].concat();
        if self.include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if self.preload {
            value.push_str("; preload");
        }
        Some(value.into_bytes())
    }
}

impl Compiled {
    pub(crate) fn apply(&self, fields: &mut dyn Fields, buffer: &mut Vec<u8>) {
        if let Some(when) = &self.when
            && !when.holds(fields.facts(), buffer)
        {
            return;
        }
        if let Some(hsts) = &self.hsts {
            buffer.clear();
            fields.facts().write(&Source::Scheme, buffer);
            // In the clear it means nothing, and must not be sent (RFC 6797 section 7.2).
            if buffer == b"https" {
                put(fields, "strict-transport-security", hsts, self.keep);
            }
        }
        for (name, template) in &self.fields {
            if let Some(value) = template.literal() {
                put(fields, name, value, self.keep);
            } else {
                buffer.clear();
                template.render(fields.facts(), buffer);
                put(fields, name, buffer, self.keep);
            }
        }
    }
}
