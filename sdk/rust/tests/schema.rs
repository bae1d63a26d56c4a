//! What `#[derive(ConfigSchema)]` says is what serde does: each sample is judged by both.

use std::collections::BTreeMap;

use tidegate_sdk::prelude::*;
use tidegate_sdk::serde_json::{self, Value, json};

/// Everything that a filter
/// may take.
///
/// In two paragraphs.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape only")]
struct Config {
    /// The `rate`, "quoted".
    rate: u8,
    #[serde(default)]
    some_list: Vec<Rule>,
    #[serde(default = "five")]
    five: i64,
    #[serde(rename = "Type", default)]
    kind: Kind,
    target: Option<Target>,
    #[serde(default)]
    who: Option<Whom>,
    #[serde(default)]
    fields: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    tree: Option<Box<Tree>>,
    #[serde(skip)]
    inner: u32,
    #[serde(default)]
    name: Name,
}

fn five() -> i64 {
    5
}

#[derive(Debug, Deserialize, ConfigSchema)]
#[expect(dead_code, reason = "read for its shape only")]
struct Rule {
    r#match: String,
}

#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// The first.
    #[default]
    VeryFirst,
    #[serde(rename = "2nd")]
    Second,
}

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(
    tag = "to",
    rename_all = "lowercase",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
#[expect(dead_code, reason = "read for its shape only")]
enum Target {
    Nowhere,
    /// Somebody else's server.
    Upstream {
        /// Its name.
        the_name: String,
        port: Option<u16>,
    },
}

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read for its shape only")]
enum Whom {
    /// One of them.
    One(String),
    Many(Vec<String>),
    #[serde(rename_all = "UPPERCASE")]
    Described {
        role: bool,
    },
}

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its shape only")]
enum Tree {
    BareLeaf,
    TwoOf(Vec<Rule>),
    Pair { left: u8, right: u8 },
}

#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "read for its shape only")]
struct Name(String);

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn schema() -> Value {
    serde_json::from_str(Config::SCHEMA).unwrap()
}

#[test]
fn serde_and_the_schema_take_and_refuse_the_same() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let cases = [
        (true, json!({"rate": 5})),
        (false, json!({})),
        (false, json!({"rate": 256})),
        (false, json!({"rate": -1})),
        (false, json!({"rate": "5"})),
        (false, json!({"rate": 5, "rates": 5})),
        (
            true,
            json!({"rate": 5, "some-list": [{"match": "a"}, {"match": "b", "more": 1}]}),
        ),
        (false, json!({"rate": 5, "some_list": []})),
        (false, json!({"rate": 5, "some-list": [{"r#match": "a"}]})),
        (false, json!({"rate": 5, "some-list": {}})),
        (true, json!({"rate": 5, "five": -7})),
        (true, json!({"rate": 5, "Type": "very-first"})),
        (true, json!({"rate": 5, "Type": "2nd"})),
        (false, json!({"rate": 5, "Type": "second"})),
        (true, json!({"rate": 5, "target": {"to": "nowhere"}})),
        (
            true,
            json!({"rate": 5, "target": {"to": "upstream", "the-name": "a", "port": 80}}),
        ),
        (false, json!({"rate": 5, "target": {"to": "upstream"}})),
        (
            false,
            json!({"rate": 5, "target": {"to": "upstream", "the-name": "a", "port": 65536}}),
        ),
        (
            false,
            json!({"rate": 5, "target": {"to": "upstream", "the-name": "a", "x": 1}}),
        ),
        (false, json!({"rate": 5, "target": {"to": "elsewhere"}})),
        (false, json!({"rate": 5, "target": {}})),
        (true, json!({"rate": 5, "who": "ada"})),
        (true, json!({"rate": 5, "who": ["ada", "bob"]})),
        (true, json!({"rate": 5, "who": {"ROLE": true}})),
        (false, json!({"rate": 5, "who": {"role": true}})),
        (false, json!({"rate": 5, "who": 7})),
        (true, json!({"rate": 5, "fields": {"a": 1.5, "b": 2}})),
        (false, json!({"rate": 5, "fields": {"a": "b"}})),
        (true, json!({"rate": 5, "tree": "bareLeaf"})),
        (true, json!({"rate": 5, "tree": {"twoOf": [{"match": ""}]}})),
        (
            true,
            json!({"rate": 5, "tree": {"pair": {"left": 1, "right": 2}}}),
        ),
        (false, json!({"rate": 5, "tree": {"pair": {"left": 1}}})),
        (
            false,
            json!({"rate": 5, "tree": {"pair": {"left": 1, "right": 2}, "twoOf": []}}),
        ),
        (false, json!({"rate": 5, "tree": "twoOf"})),
        (true, json!({"rate": 5, "name": "n"})),
        (false, json!({"rate": 5, "name": ["n"]})),
        (false, json!({"rate": 5, "inner": 5})),
    ];
    for (good, sample) in cases {
        let read = serde_json::from_value::<Config>(sample.clone());
        assert_eq!(read.is_ok(), good, "serde: {sample}: {read:?}");
        assert_eq!(validator.is_valid(&sample), good, "schema: {sample}");
    }
}

#[test]
fn documentation_becomes_descriptions() {
    let schema = schema();
    assert_eq!(
        schema["description"],
        "Everything that a filter may take.\n\nIn two paragraphs."
    );
    assert_eq!(
        schema["properties"]["rate"]["description"],
        "The `rate`, \"quoted\"."
    );
    let target = &schema["properties"]["target"]["oneOf"][1];
    assert_eq!(target["description"], "Somebody else's server.");
    assert_eq!(target["properties"]["the-name"]["description"], "Its name.");
    assert_eq!(
        schema["properties"]["who"]["anyOf"][0]["description"],
        "One of them."
    );
}
