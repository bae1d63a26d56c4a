//! Cache-Control (RFC 9111 section 5.2, RFC 5861, RFC 8246), written as keys.

use tidegate_sdk::prelude::*;

use super::put;
use crate::condition::{Condition, Part, When};
use crate::facts::Fields;
use crate::mistakes::{Mistakes, Place};

/// How long answers may be kept, and by whom. The first of several that applies counts.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct CacheControl {
    /// When it is set; always, if it is missing.
    when: Option<When>,
    /// Whether it replaces what the upstream says; else it is set only where the upstream says nothing.
    replace: bool,
    /// Nobody keeps it.
    no_store: bool,
    /// Who keeps it asks before each use.
    no_cache: bool,
    /// Shared caches may keep it.
    public: bool,
    /// Only the client may.
    private: bool,
    /// Seconds that it is fresh.
    max_age: Option<u32>,
    /// The same for shared caches.
    s_maxage: Option<u32>,
    /// When it is no longer fresh, it must not be used without asking.
    must_revalidate: bool,
    /// It never changes while it is fresh.
    immutable: bool,
    /// Nobody on the way may change it.
    no_transform: bool,
    /// Seconds that it may be used while somebody asks.
    stale_while_revalidate: Option<u32>,
    /// Seconds that it may be used if asking fails.
    stale_if_error: Option<u32>,
}

/// The field, ready to be set.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    replace: bool,
    value: Vec<u8>,
}

impl CacheControl {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let when = self
            .when
            .map(|when| when.compile(Part::Response, &place.key("when"), mistakes));
        let mut words = Vec::new();
        for (word, wanted) in [
            ("no-store", self.no_store),
            ("no-cache", self.no_cache),
            ("public", self.public),
            ("private", self.private),
        ] {
            if wanted {
                words.push(word.to_owned());
            }
        }
        for (word, seconds) in [("max-age=", self.max_age), ("s-maxage=", self.s_maxage)] {
            words.extend(seconds.map(|seconds| [word, &seconds.to_string()].concat()));
        }
        for (word, wanted) in [
            ("must-revalidate", self.must_revalidate),
            ("immutable", self.immutable),
            ("no-transform", self.no_transform),
        ] {
            if wanted {
                words.push(word.to_owned());
            }
        }
        for (word, seconds) in [
            ("stale-while-revalidate=", self.stale_while_revalidate),
            ("stale-if-error=", self.stale_if_error),
        ] {
            words.extend(seconds.map(|seconds| [word, &seconds.to_string()].concat()));
        }
        if words.is_empty() {
            mistakes.add(
                place,
                "it says nothing; write `max-age`, `no-store` or another key",
            );
        }
        let keeps =
            self.public || self.max_age.is_some() || self.s_maxage.is_some() || self.immutable;
        if self.no_store && keeps {
            mistakes.add(
                &place.key("no-store"),
                "what nobody keeps has no age and no public; leave one of them out",
            );
        }
        if self.private && (self.public || self.s_maxage.is_some()) {
            mistakes.add(
                &place.key("private"),
                "shared caches may not keep it; leave out `public` and `s-maxage`",
            );
        }
        Compiled {
            when,
            replace: self.replace,
            value: words.join(", ").into_bytes(),
        }
    }
}

impl Compiled {
    /// Sets the field, if it applies. Says whether it does.
    pub(crate) fn apply(&self, fields: &mut dyn Fields, buffer: &mut Vec<u8>) -> bool {
        if let Some(when) = &self.when
            && !when.holds(fields.facts(), buffer)
        {
            return false;
        }
        put(fields, "cache-control", &self.value, !self.replace);
        true
    }
}
