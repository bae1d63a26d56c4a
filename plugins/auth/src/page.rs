//! The tables of `docs/filters/auth.md`, made from the schema that the manifest carries. `BLESS=1` writes them anew.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use tidegate_sdk::ConfigSchema as _;

use crate::Config;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/filters/auth.md");
const BEGIN: &str = "<!-- made from the schema -->\n";
const END: &str = "<!-- to here -->\n";

#[test]
fn the_page_names_every_key() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (found, behind) = rest.split_once(END).unwrap();
    let schema: Value = serde_json::from_str(Config::SCHEMA).unwrap();
    let mut made = String::new();
    table(&schema, "filter.auth.config", &mut made);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PAGE, [before, BEGIN, &made, END, behind].concat()).unwrap();
        return;
    }
    assert_eq!(
        found, made,
        "run `BLESS=1 cargo test -p tidegate-auth page`"
    );
}

/// A table of the configuration, and those inside of it.
fn table(schema: &Value, path: &str, out: &mut String) {
    let Some(properties) = properties(schema) else {
        return;
    };
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    writeln!(out, "\n### `[{path}]`\n\n| key | value | |\n|---|---|---|").unwrap();
    let mut inner = Vec::new();
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_unstable();
    for name in names {
        let property = &properties[name.as_str()];
        let described = property["description"].as_str().unwrap_or_default();
        let ty = property["allOf"].get(0).unwrap_or(property);
        let must = if required.contains(&name.as_str()) {
            " Must be given."
        } else {
            ""
        };
        writeln!(
            out,
            "| `{name}` | {} | {}{must} |",
            kind(ty),
            described.replace('\n', " ").replace('|', "\\|")
        )
        .unwrap();
        let element = if ty["type"] == "array" {
            &ty["items"]
        } else {
            ty
        };
        if self::properties(element).is_some() {
            let below = if ty["type"] == "array" {
                format!("[{path}.{name}]")
            } else {
                format!("{path}.{name}")
            };
            inner.push((element, below));
        }
    }
    for (schema, path) in inner {
        table(schema, &path, out);
    }
}

/// The keys that a table has by name.
fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// A value in a few words.
fn kind(ty: &Value) -> String {
    if let Some(values) = ty["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(", ");
    }
    if let Some(choices) = ty["oneOf"].as_array() {
        let keys = choices
            .iter()
            .filter_map(|choice| choice["properties"].as_object()?.keys().next());
        let keys: Vec<String> = keys.map(|key| format!("`{{ {key} = \"..\" }}`")).collect();
        return keys.join(" or ");
    }
    match ty["type"].as_str() {
        Some("array") if ty["items"]["properties"].is_object() => "list of tables".to_owned(),
        Some("array") => format!("list of {}", kind(&ty["items"])),
        Some("object") => "table".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer" | "number") => "number".to_owned(),
        Some(other) => other.to_owned(),
        None => "anything".to_owned(),
    }
}
