//! Holds `docs/configuration.md` against the schema: its tables of keys are made from it, and its examples fit it.
//!
//! `BLESS=1 cargo test -p tidegate --test documentation` writes the tables anew.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const BEGIN: &str = "<!-- keys of ";
const END: &str = "<!-- end of keys -->";

fn schema(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("schema")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

#[test]
fn the_page_names_every_key() {
    let schema = schema(&[]);
    let text = fs::read_to_string(page()).unwrap();
    let mut made = String::new();
    let mut shown = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        made.push_str(line);
        made.push('\n');
        let Some(definition) = line.strip_prefix(BEGIN) else {
            continue;
        };
        let definition = definition.strip_suffix(" -->").unwrap();
        shown.push(definition.to_owned());
        made.push('\n');
        made.push_str(&table(&schema, definition));
        made.push('\n');
        let end = lines.find(|line| *line == END).unwrap();
        made.push_str(end);
        made.push('\n');
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(page(), &made).unwrap();
    } else {
        assert!(
            made == text,
            "docs/configuration.md is not as the schema says; run this test with BLESS=1"
        );
    }
    for (definition, value) in schema["$defs"].as_object().unwrap() {
        if value.get("properties").is_some() {
            assert!(shown.contains(definition), "no table for {definition}");
        }
    }
}

#[test]
fn the_examples_of_the_page_fit_the_schema() {
    let configuration = jsonschema::validator_for(&schema(&[])).unwrap();
    let filter = jsonschema::validator_for(&schema(&["--filter"])).unwrap();
    let text = fs::read_to_string(page()).unwrap();
    let mut examples = 0;
    for part in text.split("```toml\n").skip(1) {
        let example = part.split("```").next().unwrap();
        let value: toml::Table = toml::from_str(example).unwrap();
        let value = serde_json::to_value(value).unwrap();
        let validator = if example.starts_with("# plugins/") {
            &filter
        } else {
            &configuration
        };
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|it| it.to_string())
            .collect();
        assert!(errors.is_empty(), "{example}\n{errors:?}");
        examples += 1;
    }
    assert!(examples >= 5, "only {examples} examples were found");
}

/// A table of all keys of a definition.
fn table(schema: &Value, definition: &str) -> String {
    let properties = schema["$defs"][definition]["properties"]
        .as_object()
        .unwrap_or_else(|| panic!("the schema has no {definition}"));
    let required: Vec<&str> = schema["$defs"][definition]["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut table = "| key | value | default | what it does |\n|---|---|---|---|\n".to_owned();
    for (key, property) in properties {
        let (text, default) = description(property, required.contains(&key.as_str()));
        let kind = kind(schema, property);
        table.push_str(&format!("| `{key}` | {kind} | {default} | {text} |\n"));
    }
    table
}

/// What a key does, and its default: the schema's, or what its description says behind `Default:`.
fn description(property: &Value, required: bool) -> (String, String) {
    let text = property["description"].as_str().unwrap();
    let (text, said) = match text.split_once("Default: ") {
        Some((before, after)) => {
            let (default, rest) = after
                .split_once(". ")
                .unwrap_or((after.trim_end_matches('.'), ""));
            let rest = rest.trim();
            (
                format!(
                    "{}{}{rest}",
                    before.trim(),
                    if rest.is_empty() { "" } else { " " }
                ),
                Some(default),
            )
        }
        None => (text.to_owned(), None),
    };
    let bounds = match (property.get("minimum"), property.get("maximum")) {
        (Some(min), Some(max)) => format!(" From {min} to {max}."),
        _ => String::new(),
    };
    let default = match (said, property.get("default")) {
        (Some(said), _) => said.to_owned(),
        (None, Some(default)) if default.is_object() => "the defaults below".to_owned(),
        (None, Some(default)) => format!("`{default}`"),
        (None, None) if required => "none: must be given".to_owned(),
        (None, None) => String::new(),
    };
    (format!("{text}{bounds}").replace('|', "\\|"), default)
}

/// What may stand there, in a word or two.
fn kind(schema: &Value, property: &Value) -> String {
    if let Some(reference) = property["$ref"].as_str() {
        let target = schema.pointer(reference.trim_start_matches('#')).unwrap();
        return match target.get("properties") {
            Some(_) => "table".to_owned(),
            None => kind(schema, target),
        };
    }
    if let Some(title) = property["title"].as_str() {
        return title.to_owned();
    }
    if let Some(values) = property["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(", ");
    }
    let alternatives = property["anyOf"].as_array();
    if let Some(alternatives) = alternatives {
        let kinds: Vec<String> = alternatives.iter().map(|it| kind(schema, it)).collect();
        return kinds.join(" or ");
    }
    let word = |kind: &Value| match kind.as_str() {
        Some("array") => format!("list of {}s", kind_of_items(schema, property)),
        Some("object") => "table".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
    };
    match &property["type"] {
        Value::Array(kinds) => kinds.iter().map(word).collect::<Vec<_>>().join(" or "),
        single => word(single),
    }
}

fn kind_of_items(schema: &Value, property: &Value) -> String {
    kind(schema, &property["items"])
}
