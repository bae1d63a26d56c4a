//! Filters: those of the folder, of `[filter.NAME]` and of the settings files, and what a route makes of them. It
//! opens no plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tidegate_core::usage::Isolation;

use super::super::Settings;
use super::super::checked::{Allow, Failure, Filter, Upstream};
use super::super::document::{Origin, child};
use super::super::words::{list, similar};
use super::super::written;
use super::Resolver;
use super::server::Resolved;
use crate::diagnostic::Mistake;
use crate::plugins::{NAME_RULE, is_name};

/// The filters so far; a route may add some.
pub(super) struct FilterSet {
    filters: Vec<Filter>,
    by_name: BTreeMap<String, usize>,
    /// Those that are nowhere but in a route.
    pub(super) unknown: BTreeSet<usize>,
}

impl FilterSet {
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Filter> {
        self.filters.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Filter> {
        self.filters.iter()
    }

    /// Marks a filter as used by a route.
    pub(super) fn used(&mut self, index: usize) {
        if let Some(filter) = self.filters.get_mut(index) {
            filter.used = true;
        }
    }

    pub(super) fn finish(self) -> Vec<Filter> {
        self.filters
    }

    pub(super) fn add(&mut self, filter: Filter) -> usize {
        let index = self.filters.len();
        self.by_name.insert(filter.name.to_string(), index);
        self.filters.push(filter);
        index
    }
}

/// The keys of a filter's limits.
const LIMITS: [&str; 13] = [
    "memory",
    "table",
    "time",
    "wall-time",
    "configure-time",
    "configure-wall-time",
    "body",
    "instances",
    "calls",
    "calls-at-once",
    "log-rate",
    "series",
    "store",
];

impl Resolver<'_> {
    /// All filters that have a name without any route.
    pub(super) fn filters(&mut self, upstreams: &[Upstream], server: &Resolved) -> FilterSet {
        let mut set = FilterSet {
            filters: Vec::new(),
            by_name: BTreeMap::new(),
            unknown: BTreeSet::new(),
        };
        let mut names: Vec<&str> = self
            .folder
            .plugins
            .iter()
            .map(|plugin| plugin.name.as_str())
            .collect();
        let further: BTreeSet<&str> = self
            .written
            .filter
            .keys()
            .chain(self.settings.keys())
            .map(String::as_str)
            .collect();
        names.extend(further.into_iter().filter(|name| !self.has_plugin(name)));
        for name in names {
            let filter = self.filter(name, upstreams, server);
            set.add(filter);
        }
        set
    }

    pub(super) fn has_plugin(&self, name: &str) -> bool {
        self.folder.plugins.iter().any(|plugin| plugin.name == name)
    }

    fn filter(&mut self, name: &str, upstreams: &[Upstream], server: &Resolved) -> Filter {
        let pointer = child("/filter", name);
        let empty = written::Filter::default();
        let main = self.written.filter.get(name);
        let settings = self.settings.get(name);
        if main.is_some() && !is_name(name) {
            let message = format!("`{name}` can't be the name of a filter");
            let mistake = self.at_key(&pointer, &message).help(NAME_RULE);
            self.notes.mistake(mistake);
        }
        if main.is_some()
            && let Some(settings) = settings
        {
            self.twice(name, &pointer, settings);
        }
        let main_or_empty = main.unwrap_or(&empty);
        let beside = settings.map_or(&empty, |settings| &settings.filter);
        let plugin = main_or_empty
            .plugin
            .as_deref()
            .or(beside.plugin.as_deref())
            .unwrap_or(name)
            .to_owned();
        let config = written::Filter::config_or_empty(
            main_or_empty.config.as_ref().or(beside.config.as_ref()),
        );
        let config_origin = self
            .where_is(name, "/config")
            .or_else(|| self.where_is(name, ""));
        let config_origin = config_origin.map(|origin| {
            if origin.pointer.ends_with("/config") {
                origin
            } else {
                origin.below("/config")
            }
        });
        let defaults = server.filter_defaults;
        let quarantine = main_or_empty.quarantine.or(beside.quarantine);
        let failure = main_or_empty.failure.or(beside.failure);
        let isolation = main_or_empty.isolation.or(beside.isolation);
        let change = main_or_empty.limits.or(beside.limits);
        let limits = defaults.limits.changed(change);
        Filter {
            name: Arc::from(name),
            file: self.plugin_file(&plugin),
            plugin,
            config: config_text(&config),
            config_value: config,
            config_origin,
            failure: checked_failure(failure.unwrap_or(defaults.failure)),
            isolation: isolation.or(defaults.isolation).map(checked_isolation),
            allow: self.allow(name, &main_or_empty.allow, &beside.allow, upstreams),
            limits: self.own_limits(name, limits),
            quarantine: self.quarantine(name, defaults.quarantine.changed(quarantine)),
            self_check: self.self_check(
                name,
                main_or_empty
                    .self_check
                    .as_ref()
                    .or(beside.self_check.as_ref()),
            ),
            used: false,
            fault: None,
        }
    }

    /// The file of a plugin; of one that is not there, the file that is missing.
    pub(super) fn plugin_file(&self, plugin: &str) -> PathBuf {
        let found = self
            .folder
            .plugins
            .iter()
            .find(|found| found.name == plugin);
        match found {
            Some(found) => found.file.clone(),
            None => self.folder_path().join(format!("{plugin}.wasm")),
        }
    }

    pub(super) fn folder_path(&self) -> PathBuf {
        super::plugins_folder(self.written, self.options, self.base)
    }

    pub(super) fn in_main(&self, name: &str, below: &str) -> bool {
        let pointer = format!("{}{below}", child("/filter", name));
        self.document.is_some_and(|document| document.has(&pointer))
    }

    /// Where a setting of a filter is written: in the configuration file or beside the plugin.
    pub(super) fn where_is(&self, name: &str, below: &str) -> Option<Origin> {
        if self.in_main(name, below) {
            return self.origin(&format!("{}{below}", child("/filter", name)));
        }
        let settings = self.settings.get(name)?;
        let there = below.is_empty() || settings.document.has(below);
        there.then(|| Origin {
            document: Arc::clone(&settings.document),
            pointer: below.to_owned(),
        })
    }

    /// A mistake in a setting of a filter, which concerns only that filter if it is written beside the plugin.
    pub(super) fn at_setting(&self, name: &str, below: &str, message: &str) -> Mistake {
        match self.where_is(name, below) {
            Some(origin) => {
                let mistake = Mistake::at(origin.place(), message);
                if self.in_main(name, below) {
                    mistake
                } else {
                    mistake.only(name)
                }
            }
            None => Mistake::of(format!("filter `{name}`"), message),
        }
    }

    /// Notes each key that stands in both places.
    fn twice(&mut self, name: &str, pointer: &str, settings: &Settings) {
        let Some(main) = self.document else {
            return;
        };
        let beside = &settings.document;
        for key in [
            "use",
            "config",
            "failure",
            "isolation",
            "allow/http",
            "allow/store",
            "allow/env",
            "quarantine/failures",
            "quarantine/window",
            "quarantine/first",
            "quarantine/longest",
            "self-check",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(LIMITS.iter().map(|key| format!("limits/{key}")))
        {
            let here = format!("{pointer}/{key}");
            let there = format!("/{key}");
            if main.has(&here) && beside.has(&there) {
                let message = format!(
                    "`{}` of the filter `{name}` is set in two places",
                    key.replace('/', ".")
                );
                self.notes.mistake(
                    Mistake::at(main.key_place(&here), &message)
                        .other(beside.key_place(&there), "it is set here too")
                        .help("keep one of both")
                        .only(name),
                );
            }
        }
    }

    fn allow(
        &mut self,
        name: &str,
        main: &written::Allow,
        beside: &written::Allow,
        upstreams: &[Upstream],
    ) -> Allow {
        fn choose<'a>(main: &'a [String], beside: &'a [String]) -> &'a [String] {
            if main.is_empty() { beside } else { main }
        }
        let http = choose(&main.http, &beside.http);
        for (index, upstream) in http.iter().enumerate() {
            let known: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
            if known.contains(&upstream.as_str())
                || self.is_uncertain(&child("/upstream", upstream))
            {
                continue;
            }
            let mistake = self
                .at_setting(
                    name,
                    &format!("/allow/http/{index}"),
                    &format!("there is no upstream `{upstream}`"),
                )
                .help(unknown_help(upstream, &known, "upstreams"));
            self.notes.mistake(mistake);
        }
        let mut env = BTreeMap::new();
        for (index, variable) in choose(&main.env, &beside.env).iter().enumerate() {
            let value = self.environment.get(variable).unwrap_or_else(|()| {
                let message = format!("the environment variable `{variable}` is not valid UTF-8");
                let mistake = self.at_setting(name, &format!("/allow/env/{index}"), &message);
                self.notes.mistake(mistake);
                None
            });
            env.insert(variable.clone(), value);
        }
        Allow {
            http: http.to_vec(),
            store: choose(&main.store, &beside.store).to_vec(),
            env,
        }
    }

    /// The bounds of one filter, whose mistakes are told where they are written.
    pub(super) fn own_limits(
        &mut self,
        name: &str,
        limits: written::FilterLimits,
    ) -> tidegate_wasm::Limits {
        let before = self.notes.mistakes.len();
        let checked = self.filter_limits("", limits);
        for mistake in self.notes.mistakes.split_off(before) {
            let key = LIMITS
                .into_iter()
                .find(|key| mistake.message.starts_with(&format!("`{key}`")))
                .unwrap_or_default();
            // One that is not its own was told at [server.filter-defaults].
            let below = format!("/limits/{key}");
            if self.where_is(name, &below).is_some() {
                let mistake = self.at_setting(name, &below, &mistake.message);
                self.notes.mistake(mistake);
            }
        }
        checked
    }
}

/// A name that is still free: as it is, or with a number.
pub(super) fn free_name(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = wanted.to_owned();
    let mut number = 1;
    while taken(&name) {
        number += 1;
        name = format!("{wanted}#{number}");
    }
    name
}

/// What to do about a name that is not known.
pub(super) fn unknown_help(name: &str, known: &[&str], kind: &str) -> String {
    match similar(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there are no {kind}"),
        None => format!("the {kind} are {}", list(known)),
    }
}

/// What the guest gets to read: a text as it is, everything else as JSON.
pub(super) fn config_text(config: &Value) -> String {
    match config {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

pub(super) fn checked_failure(failure: written::Failure) -> Failure {
    match failure {
        written::Failure::Closed => Failure::Closed,
        written::Failure::Open => Failure::Open,
    }
}

pub(super) fn checked_isolation(isolation: written::Isolation) -> Isolation {
    match isolation {
        written::Isolation::Shared => Isolation::Shared,
        written::Isolation::Exclusive => Isolation::Exclusive,
        written::Isolation::Fresh => Isolation::Fresh,
    }
}
