//! The configuration's JSON Schema, generated from the types of [`written`](super::written). TOML has no null, so
//! none is left in it.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::written::{Filter, Written};

/// The schema of the configuration file.
pub(crate) fn configuration() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(generate::<Written>)
}

/// The schema of a `NAME.toml` beside a plugin.
pub(crate) fn filter() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(generate::<Filter>)
}

fn generate<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>();
    RecursiveTransform(without_null).transform(&mut schema);
    RecursiveTransform(one_line_descriptions).transform(&mut schema);
    schema.to_value()
}

/// An optional value is one that may be absent, not one that may be null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("format");
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [single] = types.as_slice() {
            let single = single.clone();
            object.insert("type".to_owned(), single);
        }
    }
    if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
        alternatives.retain(|alternative| *alternative != json!({ "type": "null" }));
        if let [Value::Object(single)] = alternatives.as_slice() {
            let single = single.clone();
            object.remove("anyOf");
            for (key, value) in single {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// Line ends of the source are none of the text.
fn one_line_descriptions(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema
        .as_object_mut()
        .and_then(|object| object.get_mut("description"))
    {
        *description = description.replace('\n', " ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_be_null_and_no_key_lacks_a_description() {
        fn walk(at: &str, value: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                        for (name, property) in properties {
                            assert!(property.get("description").is_some(), "{at}/{name}");
                        }
                    }
                    for (key, value) in object {
                        walk(&format!("{at}/{key}"), value);
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| walk(at, item)),
                Value::String(text) => assert_ne!(text, "null", "{at}"),
                Value::Null => panic!("{at} is null"),
                _ => {}
            }
        }
        walk("", configuration());
        walk("", filter());
    }

    #[test]
    fn it_is_a_valid_schema() {
        for schema in [configuration(), filter()] {
            jsonschema::validator_for(schema).unwrap();
            assert_eq!(
                schema["$schema"],
                "https://json-schema.org/draft/2020-12/schema"
            );
        }
    }
}
