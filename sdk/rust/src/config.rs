//! Reads a configuration and says where in it a mistake is. Knows JSON's brackets and keys; what may stand in them is serde's.

use serde::de::DeserializeOwned;
use serde::de::value::UnitDeserializer;

use crate::filter::ConfigError;
use crate::schema::ConfigSchema;
use crate::tables::Tables;

/// Reads a configuration. None at all is `{}`.
pub(crate) fn read<T: DeserializeOwned + ConfigSchema>(text: &str) -> Result<T, ConfigError> {
    let text = text.trim_ascii();
    if T::TAKES_NOTHING {
        // Without a word of JSON, so that a filter which takes nothing does not carry a parser.
        if !is_nothing(text) {
            return Err("it takes no configuration: remove `config`".into());
        }
        return T::deserialize(UnitDeserializer::<serde::de::value::Error>::new())
            .map_err(|error| error.to_string().into());
    }
    let text = if text.is_empty() { "{}" } else { text };
    let mut json = serde_json::Deserializer::from_str(text);
    T::deserialize(Tables(&mut json))
        .and_then(|config| json.end().map(|()| config))
        .map_err(|error| explain(text, &error).into())
}

/// Whether there is nothing in a configuration: no text, `{}` or `null`.
fn is_nothing(text: &str) -> bool {
    let inside = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    text.is_empty() || text == "null" || inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// The error with the path of the key that it is about, in place of line and column: the host writes the text in one line.
fn explain(text: &str, error: &serde_json::Error) -> String {
    let whole = error.to_string();
    if !error.is_data() {
        return format!("the configuration is no JSON: {whole}");
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&place).unwrap_or(&whole);
    let path = path_at(text, offset(text, error.line(), error.column()));
    // A value that is read in full before it is tried is told of when the object or list around it has ended; what is about
    // that object or list itself is told of there too.
    let about_whole = what.starts_with("missing field") || what.starts_with("invalid length");
    let path = if about_whole || path.closed.is_empty() {
        path.open
    } else {
        path.closed
    };
    if path.is_empty() {
        what.to_owned()
    } else {
        format!("`{path}`: {what}")
    }
}

/// The byte at which a line's column stands. There is no line 0: such an error has no place.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let Some(before) = line.checked_sub(1) else {
        return 0;
    };
    text.split_inclusive('\n')
        .take(before)
        .map(str::len)
        .sum::<usize>()
        + column
}

/// Where a byte stands: the path of the value there and, if an object or list has just ended, that of its last value.
#[derive(Debug, Default, PartialEq, Eq)]
struct Path {
    open: String,
    closed: String,
}

/// One object or list around a byte.
enum Step<'a> {
    /// In an object, behind this key's colon.
    Key(&'a str),
    /// In an object, before a colon.
    Keyless,
    /// In a list.
    Index(usize),
}

/// Walks through JSON up to a byte. What is not JSON leads to a wrong path and to nothing worse.
fn path_at(text: &str, end: usize) -> Path {
    let text = text.get(..end).unwrap_or(text);
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut word = "";
    let mut closed = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (_, after) = rest.split_at(first.len_utf8());
        rest = after;
        if !first.is_ascii_whitespace() {
            closed.clear();
        }
        match first {
            '"' => {
                word = string(rest);
                rest = rest.get(word.len() + 1..).unwrap_or_default();
            }
            '{' => steps.push(Step::Keyless),
            '[' => steps.push(Step::Index(0)),
            '}' | ']' => {
                closed = render(&steps);
                steps.pop();
            }
            ':' => {
                if let Some(step) = steps.last_mut() {
                    *step = Step::Key(word);
                }
            }
            ',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(step) => *step = Step::Keyless,
                None => {}
            },
            _ => {}
        }
    }
    Path {
        open: render(&steps),
        closed,
    }
}

/// What stands before a string's closing quote.
fn string(text: &str) -> &str {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

fn render(steps: &[Step<'_>]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Index(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
            Step::Keyless => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its mistakes only")]
    struct Rules {
        #[serde(default)]
        set: BTreeMap<String, String>,
        #[serde(default)]
        list: Vec<Entry>,
        #[serde(default)]
        either: Option<Either>,
        some_number: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its mistakes only")]
    struct Entry {
        name: String,
        inner: Option<Box<Rules>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "read for its mistakes only")]
    enum Either {
        Text(String),
        Table(Entry),
    }

    impl ConfigSchema for Rules {
        const SCHEMA: &'static str = "{}";
    }

    fn refusal(text: &str) -> String {
        read::<Rules>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_told_with_the_path_of_its_key() {
        for (text, beginning) in [
            (
                r#"{"set":{"x-a":1}}"#,
                "`set.x-a`: invalid type: integer `1`",
            ),
            (
                r#"{"set":{"x-a":"b","x-c":[1]}}"#,
                "`set.x-c`: invalid type: sequence",
            ),
            (
                r#"{ "set" : { "x-a" : true , "x-b" : "" } }"#,
                "`set.x-a`: invalid type: boolean",
            ),
            (
                r#"{"list":[{"name":"a"},{"name":7}]}"#,
                "`list[1].name`: invalid type: integer",
            ),
            (
                r#"{"list":[{"name":"a"},{}]}"#,
                "`list[1]`: missing field `name`",
            ),
            (
                r#"{"list":[{"name":"a","nam":1}]}"#,
                "`list[0]`: unknown field `nam`",
            ),
            (
                r#"{"list":[{"name":"a","inner":{"some-number":300}}]}"#,
                "`list[0].inner.some-number`: invalid value",
            ),
            (r#"{"either":{"name":1}}"#, "`either`: data did not match"),
            (r#"{"either":5,"set":{}}"#, "`either`: data did not match"),
            (
                "{\"set\":\n{\"a\\\"]b\":\n\"c\", \"d\":\n null}}",
                "`set.d`: invalid type: null",
            ),
            (r#"{"sett":{}}"#, "unknown field `sett`, expected one of"),
            ("{}x", "the configuration is no JSON"),
            (
                r#""text""#,
                "invalid type: string \"text\", expected struct",
            ),
            (r#"{"set":{}"#, "the configuration is no JSON: EOF"),
        ] {
            let error = refusal(text);
            assert!(error.starts_with(beginning), "{text}: {error}");
        }
        assert!(!refusal(r#"{"set":{"x-a":1}}"#).contains("column"));
    }

    #[test]
    fn no_configuration_is_an_empty_one() {
        for text in ["", "  \n", "{}"] {
            assert!(read::<Rules>(text).unwrap().set.is_empty());
            read::<()>(text).unwrap();
        }
        read::<()>("null").unwrap();
        read::<()>("{ }").unwrap();
        for text in [r#"{"a":1}"#, "x", "[]", "\"\""] {
            let error = read::<()>(text).unwrap_err().to_string();
            assert!(error.contains("takes no configuration"), "{error}");
        }
    }

    #[test]
    fn what_is_no_json_harms_nobody() {
        for text in ["}}}]]", "{\"a", "{\"a\\", "[,,,:", "\"\"\"", "{\"é\":é"] {
            for end in 0..text.len() + 2 {
                let _: Path = path_at(text, end);
            }
        }
    }
}
