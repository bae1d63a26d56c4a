//! Changes of the request line: path, query, host and method. The route stays as it was chosen, because filters run behind
//! routing. What the host refuses ends the request with 400: an upstream that got it as it came would be asked for something
//! else than the operator meant.

use crate::named::Named;

use tidegate_sdk::prelude::*;
use tidegate_sdk::{Refusal, log};

use crate::condition::{Condition, Part, When};
use crate::facts::{Incoming, ORIGINAL_PATH};
use crate::mistakes::{Mistakes, Place};
use crate::names;
use crate::pattern::Pattern;
use crate::query;
use crate::regex::Regex;
use crate::table::Table;
use crate::template::{Escape, Grammar, Template};

/// A change of the request line. Several are done in their order, each on what those before it left; their conditions see
/// the request as it came.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Rewrite {
    /// When it is done; always, if it is missing.
    when: Option<When>,
    /// The method that the upstream gets. It may hold `{...}`.
    method: Option<String>,
    /// Host and port that the upstream gets. It may hold `{...}`.
    host: Option<String>,
    /// The beginning that is taken away, at a segment's end. Other paths stay as they are.
    strip_prefix: Option<String>,
    /// The beginning that is put before.
    add_prefix: Option<String>,
    /// A regular expression that the path must fit for anything of this to be done; its groups are `$1` in `path`.
    pattern: Option<String>,
    /// The path. It may hold `{...}` and groups of `pattern`.
    path: Option<String>,
    /// Changes of the query.
    query: Option<Table<QueryChanges>>,
}

/// How the path's beginning is rewritten: short for `rewrite`.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct PathRule {
    /// The beginning that is taken away, at a segment's end. Other paths stay as they are.
    pub(crate) strip_prefix: Option<String>,
    /// The beginning that is put before.
    pub(crate) add_prefix: Option<String>,
}

/// Changes of the query's parameters, in this order: keep, remove, set.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct QueryChanges {
    /// The only parameters that stay; `*` stands for anything. All stay if it is missing.
    keep: Option<Vec<String>>,
    /// Parameters that go; `*` stands for anything.
    remove: Vec<String>,
    /// Parameters that get one value in place of all they had. Values may hold `{...}`.
    set: Named<String>,
}

impl From<PathRule> for Rewrite {
    fn from(rule: PathRule) -> Self {
        Rewrite {
            strip_prefix: rule.strip_prefix,
            add_prefix: rule.add_prefix,
            ..Rewrite::default()
        }
    }
}

/// A rewrite, ready to be carried out.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    method: Option<Template>,
    host: Option<Template>,
    path: PathChange,
    query: Option<CompiledQuery>,
}

#[derive(Debug)]
struct PathChange {
    strip: Option<String>,
    add: Option<String>,
    pattern: Option<Regex>,
    template: Option<Template>,
}

#[derive(Debug)]
struct CompiledQuery {
    keep: Option<Vec<Pattern>>,
    remove: Vec<Pattern>,
    /// Names as they are written in a query, and as they are.
    set: Vec<(String, String, Template)>,
}

/// A request that can't go on, because the host refused what became of it.
#[derive(Debug)]
pub(crate) struct Impossible;

// === impl Rewrite ===

impl Rewrite {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let grammar = Grammar::fields(false);
        let when = self
            .when
            .map(|when| when.compile(Part::Request, &place.key("when"), mistakes));
        let method = self.method.and_then(|text| {
            let place = place.key("method");
            let method = mistakes.take(&place, grammar.parse(&text))?;
            let valid = |method: &[u8]| {
                core::str::from_utf8(method).is_ok_and(names::is_token) && method != b"CONNECT"
            };
            if method.literal().is_some_and(|method| !valid(method)) {
                mistakes.add(&place, &format!("`{text}` is no method that can be sent"));
            }
            Some(method)
        });
        let host = self.host.and_then(|text| {
            let place = place.key("host");
            let host = mistakes.take(&place, grammar.parse(&text))?;
            if host.literal().is_some_and(|host| !is_authority(host)) {
                let what = format!("`{text}` is no host such as `api.internal` or `10.0.0.7:8080`");
                mistakes.add(&place, &what);
            }
            Some(host)
        });
        let path = path_change(
            PathParts {
                strip: self.strip_prefix,
                add: self.add_prefix,
                pattern: self.pattern,
                path: self.path,
            },
            place,
            mistakes,
        );
        let query = self
            .query
            .map(|query| query.0.compile(&place.key("query"), mistakes));
        Compiled {
            when,
            method,
            host,
            path,
            query,
        }
    }
}

struct PathParts {
    strip: Option<String>,
    add: Option<String>,
    pattern: Option<String>,
    path: Option<String>,
}

fn path_change(parts: PathParts, place: &Place, mistakes: &mut Mistakes) -> PathChange {
    let mut prefix =
        |key: &str, prefix: Option<String>| mistakes.take(&place.key(key), prefix_of(&prefix?));
    let strip = prefix("strip-prefix", parts.strip);
    let add = prefix("add-prefix", parts.add);
    let pattern = parts
        .pattern
        .and_then(|text| mistakes.take(&place.key("pattern"), Regex::new(&text)));
    let template = parts.path.and_then(|text| {
        let place = place.key("path");
        let mut grammar = Grammar::fields(false).of(Escape::Url);
        if let Some(pattern) = &pattern {
            grammar = grammar.with(pattern.groups());
        }
        let template = mistakes.take(&place, grammar.parse(&text))?;
        if template.beginning().contains(&b'?') {
            mistakes.add(&place, "a path has no `?`; change the query with `query`");
        }
        if template
            .literal()
            .is_some_and(|path| !path.starts_with(b"/"))
        {
            mistakes.add(&place, &format!("`{text}` must begin with `/`"));
        }
        Some(template)
    });
    if template.is_some() && (strip.is_some() || add.is_some()) {
        mistakes.add(
            &place.key("path"),
            "the whole path can't be set and its beginning changed; write two rewrites",
        );
    }
    PathChange {
        strip,
        add,
        pattern,
        template,
    }
}

/// A prefix without the slash at its end.
fn prefix_of(prefix: &str) -> Result<String, String> {
    if !prefix.starts_with('/') || prefix.contains(['?', '#']) {
        return Err(format!("`{prefix}` must be a path that begins with `/`"));
    }
    Ok(prefix.trim_end_matches('/').to_owned())
}

/// Whether a text can be host and port.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

impl QueryChanges {
    fn compile(self, place: &Place, mistakes: &mut Mistakes) -> CompiledQuery {
        let mut patterns = |key: &str, texts: Vec<String>| {
            let place = place.key(key);
            let texts = texts.iter().enumerate();
            texts
                .filter_map(|(index, text)| mistakes.take(&place.at(index), Pattern::new(text)))
                .collect::<Vec<_>>()
        };
        let keep = self.keep.map(|keep| patterns("keep", keep));
        let remove = patterns("remove", self.remove);
        let grammar = Grammar::fields(false).of(Escape::Query);
        let set = self.set.into_iter().filter_map(|(name, text)| {
            let template = mistakes.take(&place.key("set").key(&name), grammar.parse(&text))?;
            Some((query::encode(name.as_bytes()), name, template))
        });
        CompiledQuery {
            keep,
            remove,
            set: set.collect(),
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// Changes the request line, if it applies.
    ///
    /// # Errors
    /// What came out can't be sent.
    pub(crate) fn apply(
        &self,
        incoming: &mut Incoming<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Impossible> {
        if let Some(when) = &self.when
            && !when.holds(incoming, buffer)
        {
            return Ok(());
        }
        let path = incoming.head.path();
        let rewritten = match self.path.of(&path, incoming, buffer) {
            PathResult::Unfit => return Ok(()),
            PathResult::Same => None,
            PathResult::New(path) => Some(path),
        };
        if let Some(method) = &self.method {
            let text = text(method, incoming, buffer, "method")?;
            refused("method", incoming.head.set_method(&text))?;
        }
        if let Some(host) = &self.host {
            let text = text(host, incoming, buffer, "host")?;
            refused("host", incoming.head.set_authority(&text))?;
        }
        if let Some(query) = &self.query {
            query.apply(incoming, buffer)?;
        }
        if let Some(rewritten) = rewritten {
            set_path(incoming, &path, &rewritten)?;
        }
        Ok(())
    }
}

/// Sets a path. One that goes upwards comes from a value that was put into it, and leads where nobody meant it to.
fn set_path(incoming: &mut Incoming<'_>, before: &str, path: &str) -> Result<(), Impossible> {
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return refused("path", Err(Refusal::InvalidName));
    }
    if path == before {
        return Ok(());
    }
    refused("path", incoming.head.set_path(path))?;
    if incoming.head.property(ORIGINAL_PATH).is_none() {
        // Without room for it, conditions on the response see the new path.
        let _kept = incoming.head.set_property(ORIGINAL_PATH, before);
    }
    Ok(())
}

fn text(
    template: &Template,
    incoming: &Incoming<'_>,
    buffer: &mut Vec<u8>,
    what: &'static str,
) -> Result<String, Impossible> {
    buffer.clear();
    template.render(incoming, buffer);
    String::from_utf8(buffer.clone()).or_else(|_| {
        refused(what, Err(Refusal::InvalidValue))?;
        Ok(String::new())
    })
}

fn refused(what: &'static str, result: Result<(), Refusal>) -> Result<(), Impossible> {
    result.map_err(|refusal| {
        log::warn(
            &[
                "the rewritten ",
                what,
                " can't be sent: ",
                &refusal.to_string(),
            ]
            .concat(),
        );
        Impossible
    })
}

enum PathResult {
    /// The path is not one that this is about.
    Unfit,
    Same,
    New(String),
}

impl PathChange {
    fn of(&self, path: &str, incoming: &Incoming<'_>, buffer: &mut Vec<u8>) -> PathResult {
        let groups = match &self.pattern {
            None => Vec::new(),
            Some(pattern) => match pattern.captures(path.as_bytes()) {
                Some(groups) => groups,
                None => return PathResult::Unfit,
            },
        };
        if let Some(template) = &self.template {
            buffer.clear();
            template.render_with(incoming, &groups, buffer);
            return PathResult::New(String::from_utf8_lossy(buffer).into_owned());
        }
        if self.strip.is_none() && self.add.is_none() {
            return PathResult::Same;
        }
        match prefixed(path, self.strip.as_deref(), self.add.as_deref()) {
            Some(path) => PathResult::New(path),
            None => PathResult::Unfit,
        }
    }
}

/// The path with its beginning changed, or none if it has not that beginning.
pub(crate) fn prefixed(path: &str, strip: Option<&str>, add: Option<&str>) -> Option<String> {
    let rest = match strip {
        None => path,
        Some(prefix) => {
            let rest = path.strip_prefix(prefix)?;
            if !rest.is_empty() && !rest.starts_with('/') {
                return None;
            }
            rest
        }
    };
    let changed = [add.unwrap_or_default(), rest].concat();
    Some(if changed.is_empty() {
        "/".to_owned()
    } else {
        changed
    })
}

impl CompiledQuery {
    fn apply(&self, incoming: &mut Incoming<'_>, buffer: &mut Vec<u8>) -> Result<(), Impossible> {
        let before = incoming.head.query();
        let mut rendered = Vec::with_capacity(self.set.len());
        for (written, name, template) in &self.set {
            buffer.clear();
            template.render(incoming, buffer);
            let value = String::from_utf8_lossy(buffer).into_owned();
            rendered.push((written.as_str(), name.as_str(), value));
        }
        let after = self.of(before.as_deref().unwrap_or_default(), &rendered);
        if before.as_deref().unwrap_or_default() == after {
            return Ok(());
        }
        let after = (!after.is_empty()).then_some(after.as_str());
        refused("query", incoming.head.set_query(after))
    }

    /// The query with its parameters changed. The first of a name that is set keeps its place.
    fn of(&self, query: &str, set: &[(&str, &str, String)]) -> String {
        let mut out = String::with_capacity(query.len());
        let mut add = |name: &str, value: Option<&str>| {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            if let Some(value) = value {
                out.push('=');
                out.push_str(value);
            }
        };
        let mut done = vec![false; set.len()];
        for (written, value) in query::pairs(query) {
            let found = set
                .iter()
                .zip(&mut done)
                .find(|((_, name, _), _)| query::is(written, name));
            match found {
                Some((_, done)) if *done => {}
                Some(((written, _, value), done)) => {
                    *done = true;
                    add(written, Some(value));
                }
                None if self.stays(written) => add(written, value),
                None => {}
            }
        }
        for ((written, _, value), _) in set.iter().zip(&done).filter(|(_, done)| !**done) {
            add(written, Some(value));
        }
        out
    }

    fn stays(&self, written: &str) -> bool {
        let decoded = query::decode(written);
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.is_match(&decoded));
        self.keep.as_ref().is_none_or(|keep| fits(keep)) && !fits(&self.remove)
    }
}

#[cfg(test)]
mod tests;
