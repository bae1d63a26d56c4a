//! The configuration: read ([`document`]), held against the schema ([`validate`]), given types ([`written`]), resolved
//! ([`resolve`]) to what the program uses ([`checked`]). Reading it changes nothing and opens no socket; it must not
//! know how the proxy runs.

pub(crate) mod checked;
pub(crate) mod document;
pub(crate) mod environment;
mod notes;
mod resolve;
pub(crate) mod schema;
mod syntax;
pub(crate) mod units;
pub(crate) mod validate;
pub(crate) mod view;
mod words;
mod written;

pub(crate) use self::resolve::address_help;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::checked::Checked;
use self::document::{Document, Origin};
use self::environment::Environment;
use self::notes::Notes;
use self::validate::Values;
use self::written::Written;
use crate::diagnostic::{Mistake, Site, Source};
use crate::plugins::{self, MAX_SETTINGS};

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "tidegate.toml";

/// What the command line says about the configuration. It comes before what the file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The configuration file; none: `tidegate.toml`, if it is there.
    pub(crate) config: Option<PathBuf>,
    /// The folder of plugins.
    pub(crate) plugins: Option<PathBuf>,
    /// Addresses to listen on without TLS; empty: those of the file.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where the admin pages are.
    pub(crate) admin: Option<Admin>,
    /// Endpoints of the upstream `default`; empty: what the file says.
    pub(crate) upstream: Vec<String>,
}

/// Where the admin pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// What came of reading the configuration.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The configuration, unless a mistake concerns all of it. Filters that a mistake concerns have a `fault`.
    pub(crate) checked: Option<Checked>,
    /// Everything that has to be put right.
    pub(crate) mistakes: Vec<Mistake>,
    /// What had better be known.
    pub(crate) warnings: Vec<Mistake>,
    /// The configuration file that was read or looked for, even if it is not there.
    pub(crate) file: PathBuf,
}

/// A settings file beside a plugin.
#[derive(Debug)]
struct Settings {
    document: Arc<Document>,
    filter: written::Filter,
}

/// Reads the configuration and looks at the folder of plugins, both anew. Takes milliseconds, and opens no plugin.
pub(crate) fn load(options: &Options, environment: &Environment) -> Outcome {
    let file = options
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let mut notes = Notes::default();
    let checked = match main_document(options, &file, environment, &mut notes) {
        Read::Nothing => Some((Written::default(), None)),
        Read::Document(document) => {
            parse(&document, schema::configuration(), &mut notes).map(|it| (it, Some(document)))
        }
        Read::Failed => None,
    };
    let checked = checked.and_then(|(written, document)| {
        resolve::resolve(written, document, options, environment, &file, &mut notes)
    });
    let Notes {
        mut mistakes,
        mut warnings,
        ..
    } = notes;
    for list in [&mut mistakes, &mut warnings] {
        list.sort_by_cached_key(|mistake| mistake.order(&file.display().to_string()));
    }
    Outcome {
        checked,
        mistakes,
        warnings,
        file,
    }
}

enum Read {
    /// There is no file, and none was asked for.
    Nothing,
    Document(Arc<Document>),
    Failed,
}

fn main_document(
    options: &Options,
    file: &Path,
    environment: &Environment,
    notes: &mut Notes,
) -> Read {
    match read_document(file, environment, notes) {
        Ok(Some(document)) => Read::Document(document),
        Ok(None) => Read::Failed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && options.config.is_none() => {
            Read::Nothing
        }
        Err(error) => {
            let message = format!("the configuration can't be read: {error}");
            notes.mistake(Mistake::of(file.display(), &message));
            Read::Failed
        }
    }
}

/// Reads and parses a TOML file. None: it has mistakes, which are noted.
fn read_document(
    file: &Path,
    environment: &Environment,
    notes: &mut Notes,
) -> std::io::Result<Option<Arc<Document>>> {
    let bytes = plugins::read(file, MAX_SETTINGS)?;
    let name = file.display().to_string();
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = error
                .as_bytes()
                .get(..error.utf8_error().valid_up_to())
                .map_or(1, |valid| {
                    valid.iter().filter(|byte| **byte == b'\n').count() + 1
                });
            notes.mistake(
                Mistake::of(format!("{name}:{line}:1"), "the line is not valid UTF-8")
                    .help("save the file as UTF-8"),
            );
            return Ok(None);
        }
    };
    // Some editors begin a file with a mark; it is no part of the text.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    let (document, mistakes) = Document::parse(Source { name, text }, environment);
    notes.mistakes.extend(mistakes);
    Ok(document)
}

/// Holds a document against its schema and gives it its type. What does not fit is noted and left out, so that the
/// rest can be looked at; none: too little is left.
fn parse<T: DeserializeOwned>(
    document: &Arc<Document>,
    schema: &Value,
    notes: &mut Notes,
) -> Option<T> {
    let origin = Origin {
        document: Arc::clone(document),
        pointer: String::new(),
    };
    let mut value = document.value().clone();
    // Null is where a mistake was noted before.
    for pointer in nulls("", &value) {
        leave_out(&mut value, &pointer, notes);
    }
    // Leaving something out can only make a table incomplete, table by table: few rounds are enough.
    for round in 0..4 {
        let findings = match validate::validate(&value, schema, &origin, Values::Shown) {
            Ok(findings) => findings,
            Err(error) => {
                notes.mistake(Mistake::of(document.name(), &error));
                return None;
            }
        };
        if findings.is_empty() {
            break;
        }
        for finding in findings {
            // What is missing after something was left out is no mistake of its own.
            if round == 0 {
                notes.mistake(finding.mistake);
            }
            leave_out(&mut value, &finding.pointer, notes);
        }
    }
    match serde_json::from_value(value) {
        Ok(written) => Some(written),
        // Only after a mistake that was noted; else the schema and the types differ.
        Err(_) if !notes.mistakes.is_empty() => None,
        Err(error) => {
            notes.mistake(Mistake::of(document.name(), &error.to_string()));
            None
        }
    }
}

/// Pointers to all values that are null.
fn nulls(pointer: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![pointer.to_owned()],
        Value::Object(table) => table
            .iter()
            .flat_map(|(key, value)| nulls(&document::child(pointer, key), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, value)| nulls(&format!("{pointer}/{index}"), value))
            .collect(),
        _ => Vec::new(),
    }
}

/// Removes a value; an item takes its whole list with it, so that no other item changes its place.
fn leave_out(value: &mut Value, pointer: &str, notes: &mut Notes) {
    let mut at = pointer;
    while let Some((parent, key)) = at.rsplit_once('/') {
        if let Some(Value::Object(table)) = value.pointer_mut(parent) {
            table.remove(&key.replace("~1", "/").replace("~0", "~"));
            break;
        }
        at = parent;
    }
    notes.leave_out(at);
}

/// Reads the settings files of the folder. The mistakes of each concern one filter.
fn read_settings(
    files: &BTreeMap<String, PathBuf>,
    environment: &Environment,
    notes: &mut Notes,
) -> BTreeMap<String, Settings> {
    let mut all = BTreeMap::new();
    for (name, file) in files {
        let mut own = Notes::default();
        let read = read_document(file, environment, &mut own);
        let document = read.unwrap_or_else(|error| {
            let message = format!("the settings can't be read: {error}");
            own.mistake(Mistake::of(file.display(), &message));
            None
        });
        if let Some(document) = document {
            let filter = parse(&document, schema::filter(), &mut own).unwrap_or_default();
            all.insert(name.clone(), Settings { document, filter });
        }
        let mistakes = own.mistakes.into_iter();
        notes
            .mistakes
            .extend(mistakes.map(|mistake| mistake.only(name)));
    }
    all
}

/// Holds a filter's configuration against the schema that the filter brings with it. A filter without a schema, or
/// with one that is no valid schema, accepts everything here and answers for itself when it is loaded.
pub(crate) fn config_mistakes(filter: &checked::Filter, schema: &Value) -> Vec<Mistake> {
    if filter.config_value.is_string() {
        // Handed over as it is; only the filter knows what it means.
        return Vec::new();
    }
    let origin = filter.config_origin.clone().unwrap_or_else(|| {
        // Nothing is written anywhere: an empty text with the file's name stands for that.
        let source = Source {
            name: filter.file.display().to_string(),
            text: String::new(),
        };
        Origin {
            document: Arc::new(Document::empty(source)),
            pointer: format!("/filter/{}/config", filter.name),
        }
    });
    let findings = validate::validate(&filter.config_value, schema, &origin, Values::Hidden);
    let findings = findings.unwrap_or_else(|error| {
        tracing::warn!(
            filter = &*filter.name,
            error,
            "the filter's own schema is not valid"
        );
        Vec::new()
    });
    findings
        .into_iter()
        .map(|finding| {
            let mut mistake = finding.mistake.only(&filter.name);
            if filter.config_origin.is_none() {
                mistake.site = Site::Name(filter.file.display().to_string());
            }
            mistake
        })
        .collect()
}

#[cfg(test)]
mod tests;
