//! Filters as routes name them: found, missing, or with a configuration of their own.

use std::sync::Arc;

use super::super::checked::{Allow, Filter};
use super::super::words::{list, similar};
use super::super::written::{self, Inline};
use super::Resolver;
use super::filters::{
    FilterSet, checked_failure, checked_isolation, config_text, free_name, unknown_help,
};
use crate::diagnostic::{Mistake, Place, Scope};
use crate::plugins::{NAME_RULE, is_name};

impl Resolver<'_> {
    /// A filter as a route names it. One that is not there is noted, and stands in the set with a fault: its file
    /// may have been removed while a version of it runs.
    pub(super) fn named_filter(&mut self, pointer: &str, name: &str, set: &mut FilterSet) -> usize {
        if let Some(index) = set.find(name) {
            self.require_plugin(pointer, index, set);
            return index;
        }
        let mistake = self.unknown_filter(pointer, name, set);
        self.notes.mistake(mistake);
        let defaults = self.written.server.filter_defaults;
        let index = set.add(Filter {
            name: Arc::from(name),
            plugin: name.to_owned(),
            file: self.plugin_file(name),
            config: "{}".to_owned(),
            config_value: written::Filter::config_or_empty(None),
            config_origin: None,
            failure: checked_failure(defaults.failure),
            isolation: defaults.isolation.map(checked_isolation),
            allow: Allow::default(),
            limits: self.own_limits(name, defaults.limits),
            quarantine: self.quarantine(name, defaults.quarantine),
            self_check: None,
            used: false,
            fault: None,
        });
        set.unknown.insert(index);
        index
    }

    fn unknown_filter(&self, pointer: &str, name: &str, set: &FilterSet) -> Mistake {
        let message = format!("there is no filter `{name}`");
        let file = name.strip_suffix(".wasm").unwrap_or(name);
        let known = set.iter().enumerate();
        let known: Vec<&str> = known
            .filter(|(index, _)| !set.unknown.contains(index))
            .map(|(_, filter)| &*filter.name)
            .collect();
        let present = set.iter().filter(|filter| self.has_plugin(&filter.plugin));
        let present: Vec<&str> = present.map(|filter| &*filter.name).collect();
        let without_number = file
            .trim_start_matches(|char: char| char.is_ascii_digit())
            .trim_start_matches(['-', '_']);
        let same = known
            .iter()
            .find(|known| **known == file || **known == without_number);
        let help = match (same, similar(name, known.iter().copied())) {
            (Some(same), _) => format!(
                "did you mean `{same}`? A filter is called by its file's name without number and ending"
            ),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if present.is_empty() => {
                format!("put `{file}.wasm` into {}", self.folder_path().display())
            }
            (None, None) => format!("the filters are {}", list(&present)),
        };
        self.at(pointer, &message).help(help).only(name)
    }

    /// Notes that the plugin of a filter is not in the folder, once for each filter.
    fn require_plugin(&mut self, pointer: &str, index: usize, set: &FilterSet) {
        let Some(filter) = set.get(index) else {
            return;
        };
        let (name, plugin) = (filter.name.to_string(), filter.plugin.clone());
        // A file that is there but can't be taken was told already.
        let told = self
            .notes
            .mistakes
            .iter()
            .any(|mistake| mistake.scope == Scope::Plugin(plugin.clone()));
        if self.has_plugin(&plugin) || filter.used || told {
            return;
        }
        let known: Vec<&str> = self
            .folder
            .plugins
            .iter()
            .map(|plugin| plugin.name.as_str())
            .collect();
        let message = format!(
            "there is no plugin `{plugin}` in {}",
            self.folder_path().display()
        );
        let mistake = match self.where_is(&name, "/use") {
            Some(origin) => Mistake::at(origin.place(), &message),
            None => self.at(pointer, &message),
        };
        let help = if known.is_empty() {
            format!("put `{plugin}.wasm` there")
        } else {
            unknown_help(&plugin, &known, "plugins")
        };
        self.notes.mistake(mistake.help(help).only(&name));
    }

    /// A filter that a route configures itself.
    pub(super) fn inline_filter(
        &mut self,
        pointer: &str,
        inline: &Inline,
        route: &str,
        set: &mut FilterSet,
    ) -> usize {
        let base = self.named_filter(&format!("{pointer}/use"), &inline.base, set);
        if inline.config.is_none() && inline.name.is_none() {
            return base;
        }
        let Some(filter) = set.get(base) else {
            return base;
        };
        let mut filter = Filter {
            used: false,
            ..filter.clone()
        };
        if let Some(config) = &inline.config {
            filter.config = config_text(config);
            filter.config_value = config.clone();
            filter.config_origin = self.origin(&format!("{pointer}/config"));
        }
        let name = match &inline.name {
            Some(name) => {
                self.own_name(pointer, name, set);
                name.clone()
            }
            None => free_name(&format!("{}@{route}", inline.base), |name| {
                set.find(name).is_some()
            }),
        };
        // What keeps its base from being loaded keeps it too.
        for mistake in self.notes.mistakes.clone() {
            if mistake.scope == Scope::Filter(inline.base.clone()) {
                filter.fault.get_or_insert_with(|| mistake.in_a_line());
            }
        }
        filter.name = Arc::from(name);
        set.add(filter)
    }

    fn own_name(&mut self, pointer: &str, name: &str, set: &FilterSet) {
        let at = format!("{pointer}/name");
        if !is_name(name) {
            let mistake = self
                .at(&at, &format!("`{name}` can't be the name of a filter"))
                .help(NAME_RULE);
            self.notes.mistake(mistake);
        } else if set.find(name).is_some() {
            let mut mistake = self.at(&at, &format!("there is a filter `{name}` already"));
            if let Some(place) = self.first_place(name) {
                mistake = mistake.other(place, "it is named here");
            }
            self.notes.mistake(mistake.help("choose another name"));
        }
    }

    fn first_place(&self, name: &str) -> Option<Place> {
        self.where_is(name, "").map(|origin| origin.key_place())
    }
}
