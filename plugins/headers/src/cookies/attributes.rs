//! Which attributes a response's cookies get (RFC 6265 section 4.1.2). Knows no cookie but its name.

use crate::named::Named;

use tidegate_sdk::prelude::*;

use crate::mistakes::{Mistakes, Place};
use crate::table::Table;

/// Attributes that a cookie gets in place of its own; those that are not named stay as they are.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Attributes {
    /// Whether it is sent over TLS only.
    secure: Option<bool>,
    /// Whether scripts can't read it.
    http_only: Option<bool>,
    /// Whether it has a jar for each site that embeds yours.
    partitioned: Option<bool>,
    /// Which other sites' requests carry it; `"none"` needs `secure = true`.
    same_site: Option<SameSite>,
    /// The paths that it is sent to; `""` removes the attribute.
    path: Option<String>,
    /// The hosts that it is sent to; `""` removes the attribute, which leaves the host that set it.
    domain: Option<String>,
    /// Seconds that it lasts, in place of Expires too; 0 deletes it.
    max_age: Option<u32>,
    /// Whether it lasts as long as the browser runs: removes Max-Age and Expires.
    session: Option<bool>,
}

/// Which other sites' requests carry a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SameSite {
    /// None.
    Strict,
    /// Those that lead to yours.
    Lax,
    /// All.
    None,
}

/// One attribute.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(super) name: &'static str,
    /// As it is written; none removes it.
    pub(super) text: Option<String>,
}

/// Attributes by the cookies' names.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<(Name, Vec<Attribute>)>);

#[derive(Debug)]
enum Name {
    Exact(Vec<u8>),
    Beginning(Vec<u8>),
}

impl Rules {
    /// What a cookie of that name gets; later ones count.
    pub(super) fn of(&self, name: &[u8]) -> impl Iterator<Item = &Attribute> {
        let rules = self.0.iter().filter(move |(known, _)| match known {
            Name::Exact(known) => known == name,
            Name::Beginning(known) => name.starts_with(known),
        });
        rules.flat_map(|(_, attributes)| attributes)
    }
}

/// Reads attributes by names.
pub(crate) fn compile(
    rules: Named<Table<Attributes>>,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Rules {
    // Beginnings sort before what they begin, so that the exact name has the last word.
    let rules = rules.into_iter().map(|(name, Table(attributes))| {
        let place = place.key(&name);
        let name = match name.strip_suffix('*') {
            Some(beginning) => Name::Beginning(beginning.as_bytes().to_vec()),
            None => Name::Exact(name.into_bytes()),
        };
        (name, attributes.compile(&place, mistakes))
    });
    Rules(rules.collect())
}

impl Attributes {
    fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Vec<Attribute> {
        let mut all = Vec::new();
        let mut add = |name, text| all.push(Attribute { name, text });
        for (name, wanted) in [
            ("Secure", self.secure),
            ("HttpOnly", self.http_only),
            ("Partitioned", self.partitioned),
        ] {
            if let Some(wanted) = wanted {
                add(name, wanted.then(|| name.to_owned()));
            }
        }
        if let Some(same_site) = self.same_site {
            let word = match same_site {
                SameSite::Strict => "Strict",
                SameSite::Lax => "Lax",
                SameSite::None => "None",
            };
            if same_site == SameSite::None && self.secure != Some(true) {
                mistakes.add(
                    &place.key("same-site"),
                    "browsers refuse `none` without Secure; add `secure = true`",
                );
            }
            add("SameSite", Some(["SameSite=", word].concat()));
        }
        for (key, name, value) in [
            ("path", "Path", self.path),
            ("domain", "Domain", self.domain),
        ] {
            let Some(value) = value else { continue };
            if value
                .bytes()
                .any(|byte| byte.is_ascii_control() || byte == b';')
            {
                mistakes.add(
                    &place.key(key),
                    "an attribute can't hold a semicolon or a control character",
                );
            }
            if key == "path" && !value.is_empty() && !value.starts_with('/') {
                mistakes.add(&place.key(key), "a path begins with `/`");
            }
            let text = (!value.is_empty()).then(|| [name, "=", &value].concat());
            add(name, text);
        }
        if let Some(seconds) = self.max_age {
            add("Expires", None);
            add("Max-Age", Some(["Max-Age=", &seconds.to_string()].concat()));
        }
        if self.session == Some(true) {
            if self.max_age.is_some() {
                mistakes.add(
                    &place.key("session"),
                    "a cookie can't last both as long as the browser runs and `max-age` seconds",
                );
            }
            add("Expires", None);
            add("Max-Age", None);
        }
        all
    }
}
