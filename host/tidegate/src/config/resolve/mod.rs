//! Turns what is written into what is used: names found, numbers held to their bounds, files read. Every mistake is
//! noted, not only the first. It must not know how a text is parsed.

mod filters;
mod listeners;
mod on_route;
mod pattern;
mod policy;
mod routes;
mod server;
mod tls;
mod upstreams;
mod validity;

pub(crate) use self::listeners::address_help;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::checked::Checked;
use super::document::{Document, Origin};
use super::environment::Environment;
use super::notes::Notes;
use super::units::{Size, Time};
use super::written::Written;
use super::{Options, Settings, read_settings};
use crate::diagnostic::{Mistake, Scope};
use crate::plugins::{self, Folder};

/// The longest duration of any key but those with a bound of their own.
const DAY: Duration = Duration::from_secs(86_400);
/// The folder of plugins, if none is named.
const DEFAULT_PLUGINS: &str = "plugins";

/// Everything that is at hand while names are resolved.
struct Resolver<'a> {
    written: &'a Written,
    /// The configuration file; none: there is none.
    document: Option<&'a Arc<Document>>,
    options: &'a Options,
    environment: &'a Environment,
    /// Where relative paths of the configuration file begin.
    base: &'a Path,
    folder: &'a Folder,
    settings: &'a BTreeMap<String, Settings>,
    notes: &'a mut Notes,
}

/// Resolves a configuration; none: a mistake concerns all of it.
pub(super) fn resolve(
    mut written: Written,
    document: Option<Arc<Document>>,
    options: &Options,
    environment: &Environment,
    file: &Path,
    notes: &mut Notes,
) -> Option<Checked> {
    upstreams::add_default(&mut written, options);
    let base = match &document {
        Some(_) => file.parent().unwrap_or(Path::new("")),
        None => Path::new(""),
    };
    let folder_path = plugins_folder(&written, options, base);
    let mut folder = plugins::scan(&folder_path);
    notes.mistakes.append(&mut folder.mistakes);
    let settings = read_settings(&folder.settings, environment, notes);
    let mut resolver = Resolver {
        written: &written,
        document: document.as_ref(),
        options,
        environment,
        base,
        folder: &folder,
        settings: &settings,
        notes,
    };
    let (server, mut files) = resolver.server(folder_path);
    let (upstreams, authorities) = resolver.upstreams();
    let mut set = resolver.filters(&upstreams, &server);
    let routes = resolver.routes(&upstreams, &mut set);
    if resolver.notes.mistakes.is_empty() {
        resolver.unused(&upstreams, &routes, &set);
    }
    let mut filters = set.finish();

    files.push(file.to_owned());
    files.extend(authorities);
    for mistake in &notes.mistakes {
        for filter in &mut filters {
            let concerned = match &mistake.scope {
                Scope::Whole => false,
                Scope::Filter(name) => *name == *filter.name,
                Scope::Plugin(plugin) => *plugin == filter.plugin,
            };
            if concerned {
                filter.fault.get_or_insert_with(|| mistake.in_a_line());
            }
        }
    }
    let whole = |mistake: &Mistake| mistake.scope == Scope::Whole;
    if notes.mistakes.iter().any(whole) {
        return None;
    }
    Some(Checked {
        server: server.server?,
        upstreams,
        routes,
        filters,
        files,
    })
}

/// The folder of plugins: from the command line as it is, else from the file's folder on.
fn plugins_folder(written: &Written, options: &Options, base: &Path) -> PathBuf {
    match (&options.plugins, &written.server.plugins) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => base.join(folder),
        (None, None) => base.join(DEFAULT_PLUGINS),
    }
}

impl Resolver<'_> {
    /// A mistake at a value of the configuration file. Without a file it is the command line's.
    fn at(&self, pointer: &str, message: &str) -> Mistake {
        match self.document {
            Some(document) => Mistake::at(document.place(pointer), message),
            None => Mistake::of("command line", message),
        }
    }

    /// A mistake at a key of the configuration file.
    fn at_key(&self, pointer: &str, message: &str) -> Mistake {
        match self.document {
            Some(document) => Mistake::at(document.key_place(pointer), message),
            None => Mistake::of("command line", message),
        }
    }

    /// A place of the configuration file; none: there is no file.
    fn origin(&self, pointer: &str) -> Option<Origin> {
        self.document.map(|document| Origin {
            document: Arc::clone(document),
            pointer: pointer.to_owned(),
        })
    }

    /// A text for a sentence, unless it came from the environment, where secrets are.
    fn quoted(&self, pointer: &str, text: &str) -> String {
        let short = text.len() <= 100 && !text.contains(char::is_control);
        if short && !self.is_hidden(pointer) {
            format!("`{text}`")
        } else {
            "the value".to_owned()
        }
    }

    /// Whether a text came from the environment.
    fn is_hidden(&self, pointer: &str) -> bool {
        self.document
            .is_some_and(|document| document.is_substituted(pointer))
    }

    /// A mistake in a text, which is shown unless it came from the environment; nor is a remedy then, which may hold a
    /// part of it.
    fn wrong_text(&self, pointer: &str, text: &str, wrong: &str, help: &str) -> Mistake {
        let shown = self.quoted(pointer, text);
        let mistake = self.at(pointer, &format!("{shown} {wrong}"));
        if self.is_hidden(pointer) {
            mistake
        } else {
            mistake.help(help)
        }
    }

    /// A duration that is not 0 and not over a bound.
    fn time(&mut self, pointer: &str, time: Time, most: Duration) -> Duration {
        let bounds = Duration::from_millis(1)..=most;
        if !bounds.contains(&time.0) {
            let key = pointer.rsplit('/').next().unwrap_or_default();
            let message = format!("`{key}` must be between 1ms and {}", Time(most));
            let mistake = self.at(pointer, &message);
            self.notes.mistake(mistake);
        }
        time.0
    }

    /// A size between two bounds.
    fn size(&mut self, pointer: &str, size: Size, bounds: RangeInclusive<u64>) -> u64 {
        if !bounds.contains(&size.0) {
            let key = pointer.rsplit('/').next().unwrap_or_default();
            let message = format!(
                "`{key}` must be between {} and {}",
                Size(*bounds.start()),
                Size(*bounds.end())
            );
            let mistake = self.at(pointer, &message);
            self.notes.mistake(mistake);
        }
        size.0
    }

    /// Whether something at a place was left out because of a mistake, so that what follows from it is none.
    fn is_uncertain(&self, pointer: &str) -> bool {
        self.notes.is_uncertain(pointer)
    }
}
