//! Answers that send the client to another address. Never to the one that it asked for, which would go round for ever.

use tidegate_sdk::prelude::*;

use crate::condition::{Condition, Part, When};
use crate::facts::{Incoming, host_name};
use crate::mistakes::{Mistakes, Place};
use crate::regex::Regex;
use crate::rewrite::is_authority;
use crate::template::{Escape, Grammar, Template};

/// A redirect. The first that applies and leads elsewhere is answered.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Redirect {
    /// When it is done; always, if it is missing.
    when: Option<When>,
    /// Whether plain HTTP is sent to HTTPS.
    https: bool,
    /// The port of HTTPS, where it is not 443.
    https_port: Option<u16>,
    /// The host that clients are sent to. It may hold `{...}`.
    host: Option<String>,
    /// What becomes of the slash at a path's end: `"add"` puts one behind a last segment without a dot, `"remove"` takes it away.
    trailing_slash: Option<TrailingSlash>,
    /// A regular expression that the path must fit; its groups are `$1` in `to`.
    pattern: Option<String>,
    /// A path or a whole address. It may hold `{...}` and groups of `pattern`.
    to: Option<String>,
    /// Whether clients may remember it: 308 in place of 307.
    permanent: bool,
    /// The status, if it shall be another one: 301, 302, 303, 307 or 308.
    status: Option<u16>,
    /// Whether the query goes along, unless `to` has one; `true` if it is missing.
    keep_query: Option<bool>,
}

/// What becomes of the slash at a path's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrailingSlash {
    /// It is added.
    Add,
    /// It is taken away.
    Remove,
}

/// A redirect, ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    https: Option<u16>,
    host: Option<Template>,
    slash: Option<TrailingSlash>,
    pattern: Option<Regex>,
    to: Option<Template>,
    status: u16,
    keep_query: bool,
}

impl Redirect {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let when = self
            .when
            .map(|when| when.compile(Part::Request, &place.key("when"), mistakes));
        let grammar = Grammar::fields(false).of(Escape::Url);
        let host = self.host.and_then(|text| {
            let place = place.key("host");
            let host = mistakes.take(&place, grammar.parse(&text))?;
            if host.literal().is_some_and(|host| !is_authority(host)) {
                mistakes.add(
                    &place,
                    &format!("`{text}` is no host such as `www.example.com`"),
                );
            }
            Some(host)
        });
        let pattern = self
            .pattern
            .and_then(|text| mistakes.take(&place.key("pattern"), Regex::new(&text)));
        let to = self.to.and_then(|text| {
            let mut grammar = grammar;
            if let Some(pattern) = &pattern {
                grammar = grammar.with(pattern.groups());
            }
            mistakes.take(&place.key("to"), grammar.parse(&text))
        });
        let parts = self.https || host.is_some() || self.trailing_slash.is_some();
        if to.is_some() && parts {
            mistakes.add(
                &place.key("to"),
                "it is the whole address; leave out `https`, `host` and `trailing-slash`, or write two redirects",
            );
        }
        if pattern.is_some() && to.is_none() {
            mistakes.add(&place.key("pattern"), "it needs `to`, which says where to");
        }
        if to.is_none() && !parts {
            mistakes.add(
                place,
                "it leads nowhere; write `to`, `https`, `host` or `trailing-slash`",
            );
        }
        if self.https_port.is_some() && !self.https {
            mistakes.add(&place.key("https-port"), "it needs `https = true`");
        }
        let status = match self.status {
            None if self.permanent => 308,
            None => 307,
            Some(status) => {
                if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                    let what =
                        format!("{status} is no redirect; there is 301, 302, 303, 307 and 308");
                    mistakes.add(&place.key("status"), &what);
                }
                if self.permanent && !matches!(status, 301 | 308) {
                    let what =
                        format!("{status} is not permanent; write 301 or 308, or leave it out");
                    mistakes.add(&place.key("status"), &what);
                }
                status
            }
        };
        Compiled {
            when,
            https: self.https.then(|| self.https_port.unwrap_or(443)),
            host,
            slash: self.trailing_slash,
            pattern,
            to,
            status,
            keep_query: self.keep_query != Some(false),
        }
    }
}

impl Compiled {
    /// The status and the address, if it applies.
    pub(crate) fn of(
        &self,
        incoming: &Incoming<'_>,
        buffer: &mut Vec<u8>,
    ) -> Option<(u16, Vec<u8>)> {
        if let Some(when) = &self.when
            && !when.holds(incoming, buffer)
        {
            return None;
        }
        let location = match &self.to {
            Some(to) => self.whole(to, incoming)?,
            None => self.parts(incoming, buffer)?,
        };
        Some((self.status, location))
    }

    fn whole(&self, to: &Template, incoming: &Incoming<'_>) -> Option<Vec<u8>> {
        let path = incoming.path();
        let groups = match &self.pattern {
            None => Vec::new(),
            Some(pattern) => pattern.captures(path.as_bytes())?,
        };
        let mut location = Vec::new();
        to.render_with(incoming, &groups, &mut location);
        // Two slashes at the beginning are another host: only the operator may mean that.
        if !to.beginning().starts_with(b"//") {
            while let [b'/', b'/' | b'\\', ..] = location.as_slice() {
                location.remove(1);
            }
        }
        let mut query = None;
        if self.keep_query && !location.contains(&b'?') {
            query = incoming.head.query();
            add_query(&mut location, query.as_deref());
        }
        (!self.is_here(&location, path, query.as_deref(), incoming)).then_some(location)
    }

    /// Whether an address is the one that was asked for.
    fn is_here(
        &self,
        location: &[u8],
        path: &str,
        query: Option<&str>,
        incoming: &Incoming<'_>,
    ) -> bool {
        let mut here = Vec::new();
        if !location.starts_with(b"/") {
            here.extend_from_slice(incoming.head.scheme().as_bytes());
            here.extend_from_slice(b"://");
            here.extend_from_slice(incoming.head.authority().as_bytes());
        }
        here.extend_from_slice(path.as_bytes());
        let asked = match query {
            Some(query) => Some(query.to_owned()),
            None => incoming.head.query(),
        };
        add_query(&mut here, asked.as_deref());
        location == here
    }

    fn parts(&self, incoming: &Incoming<'_>, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        let scheme = incoming.head.scheme();
        let to_https = self.https.filter(|_| scheme == "http");
        let authority = incoming.head.authority();
        let host = self.host.as_ref().and_then(|host| {
            buffer.clear();
            host.render(incoming, buffer);
            // Without a host there is nowhere to go.
            let is_other = !buffer.eq_ignore_ascii_case(authority.as_bytes());
            (is_other && is_authority(buffer)).then(|| String::from_utf8_lossy(buffer).into_owned())
        });
        let path = incoming.path();
        let changed = self.slash.and_then(|slash| slashed(path, slash));
        if to_https.is_none() && host.is_none() && changed.is_none() {
            return None;
        }
        let mut location = Vec::new();
        if to_https.is_some() || host.is_some() {
            let scheme = if to_https.is_some() { "https" } else { &scheme };
            location.extend_from_slice(scheme.as_bytes());
            location.extend_from_slice(b"://");
            let host = host.as_deref().unwrap_or(&authority);
            match to_https {
                // The port was that of plain HTTP.
                Some(port) => {
                    location.extend_from_slice(host_name(host).as_bytes());
                    if port != 443 {
                        location.push(b':');
                        crate::number::write(u64::from(port), &mut location);
                    }
                }
                None => location.extend_from_slice(host.as_bytes()),
            }
        }
        location.extend_from_slice(changed.as_deref().unwrap_or(path).as_bytes());
        if self.keep_query {
            add_query(&mut location, incoming.head.query().as_deref());
        }
        Some(location)
    }
}

fn add_query(location: &mut Vec<u8>, query: Option<&str>) {
    if let Some(query) = query {
        location.push(b'?');
        location.extend_from_slice(query.as_bytes());
    }
}

/// The path with its end changed; none if it stays.
fn slashed(path: &str, slash: TrailingSlash) -> Option<String> {
    match slash {
        TrailingSlash::Remove if path.len() > 1 => {
            let bare = path.trim_end_matches('/');
            (bare.len() < path.len()).then(|| if bare.is_empty() { "/" } else { bare }.to_owned())
        }
        TrailingSlash::Add if !path.ends_with('/') => {
            let last = path.rsplit('/').next().unwrap_or_default();
            (!last.contains('.')).then(|| [path, "/"].concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
