//! Mistakes in TOML itself, in words for whoever wrote it. The parser finds them; here they only get a sentence and a
//! remedy.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::diagnostic::{Mistake, Place, Source};

/// What the parser found. One mistake a line, because what follows in the same line is mostly the first one's
/// consequence; and of a table that stands twice, not each of its keys too.
pub(super) fn mistakes(source: &Arc<Source>, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let mut lines = BTreeSet::new();
    let mut tables = BTreeSet::new();
    let mut mistakes = Vec::new();
    for error in errors {
        let place = Place {
            source: Arc::clone(source),
            span: error.span().unwrap_or_default(),
        };
        let line = place.line();
        if !lines.insert(line) {
            continue;
        }
        if error.message() == "duplicate key" {
            let table = table_of(&source.text, line);
            if tables.contains(&table) && table != line {
                continue;
            }
            if table == line {
                tables.insert(table);
            }
        }
        mistakes.push(mistake(place, error.message()));
    }
    mistakes
}

/// The line of the header above a line, or its own if it is one; 0: there is none.
fn table_of(text: &str, line: usize) -> usize {
    let above = text.lines().take(line).enumerate();
    above
        .filter(|(_, text)| text.trim_start().starts_with('['))
        .map(|(index, _)| index + 1)
        .last()
        .unwrap_or(0)
}

fn mistake(place: Place, message: &str) -> Mistake {
    let written = place.source.text.get(place.span.clone());
    let written = written.unwrap_or_default().to_owned();
    let line = place.line();
    let line = place.source.text.lines().nth(line - 1).unwrap_or_default();
    let (before, value) = line.split_once('=').unwrap_or((line, ""));
    let key = before.trim().to_owned();
    let value = value
        .split(" #")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let bare = value.starts_with(|char: char| char.is_alphanumeric() || "./:_-".contains(char));
    let behind = place.column() > before.chars().count() + 1;
    if message == "duplicate key" {
        return Mistake::at(place, &format!("`{written}` stands twice"))
            .help("keep one; a list of tables has two brackets: `[[route]]`");
    }
    if message.starts_with("key with no value") {
        let colon = line
            .split_once(':')
            .filter(|(key, _)| !key.contains(['"', '\'', '=']));
        let help = match colon {
            Some((key, value)) => format!("write `{} = {}`", key.trim(), value.trim()),
            None => "write `key = value`".to_owned(),
        };
        return Mistake::at(place, "a key has no `=` and no value").help(help);
    }
    if behind && bare && !value.contains(['"', '\'']) {
        return Mistake::at(place, &format!("`{value}` is not a value"))
            .help(format!("put text in quotes: `{key} = \"{value}\"`"));
    }
    let message: Vec<&str> = message.lines().collect();
    Mistake::at(place, &message.join("; "))
}
