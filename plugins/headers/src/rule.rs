//! Changes of named values: of a head's fields, and of its cookies, which are changed by the same words. Knows where values
//! come from only as templates, and what is changed only as [`Fields`].

use crate::named::Named;

use tidegate_sdk::prelude::*;
use tidegate_sdk::{Refusal, log};

use crate::condition::{Condition, Part, When};
use crate::cookies;
use crate::facts::Fields;
use crate::mistakes::{Mistakes, Place};
use crate::names;
use crate::one_or_many::OneOrMany;
use crate::regex::Regex;
use crate::shared_schema::by_reference;
use crate::table::Table;
use crate::template::{Escape, Grammar, Template, without_controls};

by_reference!(
    /// Changes of one direction's fields.
    Rule,
    RuleKeys,
    "rule"
);

/// Changes of fields, done in this order: remove, rename, copy, replace, default, set, append, cookies. Those of one kind
/// are done in the order of their names.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct RuleKeys {
    /// When the rule applies; always, if it is missing.
    when: Option<When>,
    /// Fields that are removed, all values of each. A name that ends with `*` means all that begin so.
    remove: Vec<String>,
    /// Old names and new ones; every value moves, and what the new name had goes.
    rename: Named<String>,
    /// Names and those that get the same values in place of their own.
    copy: Named<String>,
    /// Fields of which parts are replaced, in every value.
    replace: Named<OneOrMany<Table<Replace>>>,
    /// Fields that get values if they have none. Values may hold `{...}`.
    default: Named<OneOrMany<String>>,
    /// Fields that get values in place of all they had. Values may hold `{...}`.
    set: Named<OneOrMany<String>>,
    /// Fields that get more values. Values may hold `{...}`.
    append: Named<OneOrMany<String>>,
    /// Whether a value that comes out empty is left out: `set` removes the field then, `append` and `default` do nothing.
    drop_empty: bool,
    /// The same for cookies.
    cookies: Option<Table<CookieRule>>,
}

/// Changes of cookies, done in the same order: of the Cookie field in the request, of Set-Cookie in the response.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct CookieRule {
    /// Cookies that are removed. A name that ends with `*` means all that begin so.
    remove: Vec<String>,
    /// Old names and new ones.
    rename: Named<String>,
    /// Names and those that get the same value.
    copy: Named<String>,
    /// Cookies of whose values parts are replaced.
    replace: Named<OneOrMany<Table<Replace>>>,
    /// Cookies that get a value if they have none. Values may hold `{...}`.
    default: Named<String>,
    /// Cookies that get a value. Values may hold `{...}`.
    set: Named<String>,
    /// Attributes of the cookies that a response sets, by name; a name that ends with `*` means all that begin so.
    attributes: Named<Table<cookies::Attributes>>,
}

/// What is replaced in a value, and by what.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Replace {
    /// A regular expression. All that it finds is replaced.
    pattern: String,
    /// What stands in its place: text with `$1` or `${name}` for groups, and `{...}`.
    with: String,
}

/// A rule, ready to be carried out.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    changes: Vec<Change>,
    drop_empty: bool,
    cookies: Option<cookies::Compiled>,
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    Remove(String),
    RemoveBeginning(String),
    Rename(String, String),
    Copy(String, String),
    Replace(String, Regex, Template),
    Default(String, Vec<Template>),
    Set(String, Vec<Template>),
    Append(String, Vec<Template>),
}

/// What a rule's names stand for.
type Name = fn(&str) -> Result<String, String>;

// === impl Rule ===

impl Rule {
    /// Reads a rule of a part's phase.
    pub(crate) fn compile(self, part: Part, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let keys = self.keys();
        let when = keys
            .when
            .map(|when| when.compile(part, &place.key("when"), mistakes));
        let mut builder = Builder {
            name: names::field,
            grammar: Grammar::fields(part == Part::Response),
            place,
            mistakes,
            changes: Vec::new(),
        };
        builder.remove(keys.remove);
        builder.pairs("rename", keys.rename, Change::Rename);
        builder.pairs("copy", keys.copy, Change::Copy);
        builder.replace(keys.replace);
        builder.values("default", keys.default, Change::Default);
        builder.values("set", keys.set, Change::Set);
        builder.values("append", keys.append, Change::Append);
        let changes = builder.changes;
        let cookies = keys
            .cookies
            .map(|cookies| cookies.0.compile(part, &place.key("cookies"), mistakes));
        Compiled {
            when,
            changes,
            drop_empty: keys.drop_empty,
            cookies,
        }
    }
}

impl CookieRule {
    fn compile(self, part: Part, place: &Place, mistakes: &mut Mistakes) -> cookies::Compiled {
        if part == Part::Request && !self.attributes.is_empty() {
            mistakes.add(
                &place.key("attributes"),
                "only a response's cookies have attributes; write it in `response`",
            );
        }
        let attributes = cookies::compile(self.attributes, &place.key("attributes"), mistakes);
        let mut builder = Builder {
            name: names::cookie,
            grammar: Grammar::fields(part == Part::Response).of(Escape::Cookie),
            place,
            mistakes,
            changes: Vec::new(),
        };
        builder.remove(self.remove);
        builder.pairs("rename", self.rename, Change::Rename);
        builder.pairs("copy", self.copy, Change::Copy);
        builder.replace(self.replace);
        builder.value("default", self.default, Change::Default);
        builder.value("set", self.set, Change::Set);
        cookies::Compiled {
            part,
            changes: builder.changes,
            attributes,
        }
    }
}

struct Builder<'a> {
    name: Name,
    grammar: Grammar<'a>,
    place: &'a Place,
    mistakes: &'a mut Mistakes,
    changes: Vec<Change>,
}

impl Builder<'_> {
    fn remove(&mut self, names: Vec<String>) {
        let place = self.place.key("remove");
        for (index, name) in names.iter().enumerate() {
            let place = place.at(index);
            let change = match name.strip_suffix('*') {
                Some(beginning) if name.len() > 1 => (self.name)(name)
                    .map(|name| {
                        name.strip_suffix('*')
                            .map(str::to_owned)
                            .unwrap_or_default()
                    })
                    .map(Change::RemoveBeginning)
                    .map_err(|_| format!("`{beginning}` is no beginning of a name")),
                Some(_) => Ok(Change::RemoveBeginning(String::new())),
                None => (self.name)(name).map(Change::Remove),
            };
            self.changes.extend(self.mistakes.take(&place, change));
        }
    }

    fn pairs(&mut self, key: &str, pairs: Named<String>, change: fn(String, String) -> Change) {
        for (from, to) in pairs {
            let place = self.place.key(key).key(&from);
            let from = self.mistakes.take(&place, (self.name)(&from));
            let to = self.mistakes.take(&place, (self.name)(&to));
            if let (Some(from), Some(to)) = (from, to) {
                if from == to {
                    self.mistakes.add(&place, "the two names are the same");
                }
                self.changes.push(change(from, to));
            }
        }
    }

    fn replace(&mut self, replace: Named<OneOrMany<Table<Replace>>>) {
        for (name, replacements) in replace {
            let place = self.place.key("replace").key(&name);
            let Some(name) = self.mistakes.take(&place, (self.name)(&name)) else {
                continue;
            };
            for (place, Table(replace)) in replacements.each(&place) {
                let regex = Regex::new(&replace.pattern);
                let Some(regex) = self.mistakes.take(&place.key("pattern"), regex) else {
                    continue;
                };
                let with = self.grammar.with(regex.groups()).parse(&replace.with);
                if let Some(with) = self.mistakes.take(&place.key("with"), with) {
                    self.changes
                        .push(Change::Replace(name.clone(), regex, with));
                }
            }
        }
    }

    fn values(
        &mut self,
        key: &str,
        values: Named<OneOrMany<String>>,
        change: fn(String, Vec<Template>) -> Change,
    ) {
        for (name, texts) in values {
            let place = self.place.key(key).key(&name);
            let name = self.mistakes.take(&place, (self.name)(&name));
            let templates: Vec<Template> = texts
                .each(&place)
                .filter_map(|(place, text)| self.mistakes.take(&place, self.grammar.parse(&text)))
                .collect();
            self.changes
                .extend(name.map(|name| change(name, templates)));
        }
    }

    fn value(
        &mut self,
        key: &str,
        values: Named<String>,
        change: fn(String, Vec<Template>) -> Change,
    ) {
        for (name, text) in values {
            let place = self.place.key(key).key(&name);
            let name = self.mistakes.take(&place, (self.name)(&name));
            let template = self.mistakes.take(&place, self.grammar.parse(&text));
            if let (Some(name), Some(template)) = (name, template) {
                self.changes.push(change(name, vec![template]));
            }
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// Carries the rule out, if it applies.
    pub(crate) fn apply(&self, fields: &mut dyn Fields, buffer: &mut Vec<u8>) {
        if let Some(when) = &self.when
            && !when.holds(fields.facts(), buffer)
        {
            return;
        }
        for change in &self.changes {
            change.apply(fields, self.drop_empty, buffer);
        }
        if let Some(cookies) = &self.cookies {
            cookies.apply(fields, self.drop_empty, buffer);
        }
    }
}

impl Change {
    pub(crate) fn apply(&self, fields: &mut dyn Fields, drop_empty: bool, buffer: &mut Vec<u8>) {
        match self {
            Change::Remove(name) => report(name, fields.remove(name)),
            Change::RemoveBeginning(beginning) => {
                let mut names = fields.names();
                names.retain(|name| name.starts_with(beginning));
                names.sort();
                names.dedup();
                for name in names {
                    report(&name, fields.remove(&name));
                }
            }
            Change::Rename(from, to) => {
                let values = fields.get_all(from);
                if !values.is_empty() {
                    report(from, fields.remove(from));
                    put(fields, to, &values);
                }
            }
            Change::Copy(from, to) => {
                let values = fields.get_all(from);
                if !values.is_empty() {
                    put(fields, to, &values);
                }
            }
            Change::Replace(name, regex, with) => replace(fields, name, regex, with),
            Change::Default(name, templates) => {
                if !fields.has(name) {
                    append(fields, name, templates, drop_empty, buffer);
                }
            }
            Change::Set(name, templates) => set(fields, name, templates, drop_empty, buffer),
            Change::Append(name, templates) => append(fields, name, templates, drop_empty, buffer),
        }
    }
}

/// Puts some values in place of those that a name has.
fn put(fields: &mut dyn Fields, name: &str, values: &[Vec<u8>]) {
    let Some((first, rest)) = values.split_first() else {
        report(name, fields.remove(name));
        return;
    };
    set_or_remove(fields, name, first);
    for value in rest {
        report(name, fields.append(name, value));
    }
}

/// A value that the host refuses must not leave what a client sent in its place.
fn set_or_remove(fields: &mut dyn Fields, name: &str, value: &[u8]) {
    let result = fields.set(name, value);
    if result.is_err() {
        let _left = fields.remove(name);
    }
    report(name, result);
}

fn set(
    fields: &mut dyn Fields,
    name: &str,
    templates: &[Template],
    drop_empty: bool,
    buffer: &mut Vec<u8>,
) {
    // All are rendered before anything changes: a value may be made from the field's own.
    if let [template] = templates {
        if let Some(value) = template.literal().filter(|value| !value.is_empty()) {
            return set_or_remove(fields, name, value);
        }
        buffer.clear();
        template.render(fields.facts(), buffer);
        if drop_empty && buffer.is_empty() {
            return report(name, fields.remove(name));
        }
        return set_or_remove(fields, name, buffer);
    }
    let mut values = Vec::with_capacity(templates.len());
    for template in templates {
        let mut value = Vec::new();
        template.render(fields.facts(), &mut value);
        if !(drop_empty && value.is_empty()) {
            values.push(value);
        }
    }
    put(fields, name, &values);
}

fn append(
    fields: &mut dyn Fields,
    name: &str,
    templates: &[Template],
    drop_empty: bool,
    buffer: &mut Vec<u8>,
) {
    for template in templates {
        buffer.clear();
        template.render(fields.facts(), buffer);
        if !(drop_empty && buffer.is_empty()) {
            report(name, fields.append(name, buffer));
        }
    }
}

fn replace(fields: &mut dyn Fields, name: &str, regex: &Regex, with: &Template) {
    let mut values = fields.get_all(name);
    let mut changed = false;
    for value in &mut values {
        let replaced = regex.replace_all(value, |groups, out| {
            with.render_with(fields.facts(), groups, out);
        });
        if let Some(mut replaced) = replaced {
            without_controls(&mut replaced, 0);
            *value = replaced;
            changed = true;
        }
    }
    if changed {
        put(fields, name, &values);
    }
}

fn report(name: &str, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        log::warn(&["could not change `", name, "`: ", &refusal.to_string()].concat());
    }
}
