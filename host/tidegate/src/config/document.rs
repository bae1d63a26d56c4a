//! A TOML text as a JSON value that still knows where each of its parts stands. Values from the environment are put
//! into strings here, after parsing, so that no value can add a key. It must not know what any key means.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{self, Environment};
use super::syntax;
use crate::diagnostic::{Mistake, Place, Source};

/// A text that was parsed. Paths into it are JSON pointers (RFC 6901).
#[derive(Debug)]
pub(crate) struct Document {
    source: Arc<Source>,
    value: Value,
    spans: BTreeMap<String, Spans>,
    substituted: BTreeSet<String>,
}

/// Where a value stands, and its key if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spans {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// A value of a document.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The text.
    pub(crate) document: Arc<Document>,
    /// The path to the value.
    pub(crate) pointer: String,
}

/// Turns parsed TOML into a value and remembers the places on the way.
struct Reader<'a> {
    source: &'a Arc<Source>,
    environment: &'a Environment,
    spans: BTreeMap<String, Spans>,
    substituted: BTreeSet<String>,
    mistakes: Vec<Mistake>,
}

impl Document {
    /// Parses a text and fills in what it takes from the environment. With mistakes in its syntax there is no
    /// document; a part with any other mistake is null.
    pub(crate) fn parse(
        source: Source,
        environment: &Environment,
    ) -> (Option<Arc<Document>>, Vec<Mistake>) {
        let source = Arc::new(source);
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            return (None, syntax::mistakes(&source, &errors));
        }
        let mut reader = Reader {
            source: &source,
            environment,
            spans: BTreeMap::new(),
            substituted: BTreeSet::new(),
            mistakes: Vec::new(),
        };
        let value = reader.table("", table.get_ref());
        let Reader {
            spans,
            substituted,
            mistakes,
            ..
        } = reader;
        let document = Document {
            source: Arc::clone(&source),
            value,
            spans,
            substituted,
        };
        (Some(Arc::new(document)), mistakes)
    }

    /// A text without any value in it.
    pub(crate) fn empty(source: Source) -> Document {
        Document {
            source: Arc::new(source),
            value: Value::Object(Map::new()),
            spans: BTreeMap::new(),
            substituted: BTreeSet::new(),
        }
    }

    /// All of it.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// The file's name, as the user would write it.
    pub(crate) fn name(&self) -> &str {
        &self.source.name
    }

    /// Whether something stands there.
    pub(crate) fn has(&self, pointer: &str) -> bool {
        self.spans.contains_key(pointer)
    }

    /// Whether a part of the string there came from the environment.
    pub(crate) fn is_substituted(&self, pointer: &str) -> bool {
        self.substituted.contains(pointer)
    }

    /// Where the value stands; a value that is not there has the place of what should hold it.
    pub(crate) fn place(&self, pointer: &str) -> Place {
        self.find(pointer, |spans| spans.value.clone())
    }

    /// Where the value's key stands; an array's item has its own place.
    pub(crate) fn key_place(&self, pointer: &str) -> Place {
        self.find(pointer, |spans| {
            spans.key.clone().unwrap_or_else(|| spans.value.clone())
        })
    }

    fn find(&self, pointer: &str, choose: impl Fn(&Spans) -> Range<usize>) -> Place {
        let mut at = pointer;
        let span = loop {
            if let Some(spans) = self.spans.get(at) {
                break choose(spans);
            }
            match at.rfind('/') {
                Some(end) => at = at.get(..end).unwrap_or_default(),
                None => break 0..0,
            }
        };
        Place {
            source: Arc::clone(&self.source),
            span,
        }
    }
}

impl Origin {
    /// The same document's value at a path below this one.
    pub(crate) fn below(&self, pointer: &str) -> Origin {
        Origin {
            document: Arc::clone(&self.document),
            pointer: format!("{}{pointer}", self.pointer),
        }
    }

    /// Whether the value is there.
    pub(crate) fn is_written(&self) -> bool {
        self.document.has(&self.pointer)
    }

    /// Where the value stands.
    pub(crate) fn place(&self) -> Place {
        self.document.place(&self.pointer)
    }

    /// Where its key stands.
    pub(crate) fn key_place(&self) -> Place {
        self.document.key_place(&self.pointer)
    }
}

impl Reader<'_> {
    fn table(&mut self, pointer: &str, table: &DeTable<'_>) -> Value {
        let mut map = Map::new();
        for (key, value) in table {
            let pointer = child(pointer, key.get_ref());
            let value = self.value(&pointer, Some(key.span()), value);
            map.insert(key.get_ref().to_string(), value);
        }
        Value::Object(map)
    }

    fn value(
        &mut self,
        pointer: &str,
        key: Option<Range<usize>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Value {
        let spans = Spans {
            key,
            value: value.span(),
        };
        self.spans.insert(pointer.to_owned(), spans);
        match value.get_ref() {
            DeValue::String(text) => self.string(pointer, text, value.span()),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(number) => Value::from(number),
                    Err(_) => self.refuse(value.span(), "the number is out of range", None),
                }
            }
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => self.refuse(value.span(), "the number is not a finite one", None),
            },
            DeValue::Boolean(boolean) => Value::Bool(*boolean),
            DeValue::Datetime(_) => self.refuse(
                value.span(),
                "no key takes a date",
                Some("put it in quotes to hand it to a filter as text"),
            ),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                Value::Array(
                    items
                        .map(|(index, item)| self.value(&format!("{pointer}/{index}"), None, item))
                        .collect(),
                )
            }
            DeValue::Table(table) => self.table(pointer, table),
        }
    }

    fn string(&mut self, pointer: &str, text: &str, span: Range<usize>) -> Value {
        match environment::substitute(text, self.environment) {
            Ok(substituted) => {
                if let Some(substituted) = substituted {
                    self.substituted.insert(pointer.to_owned());
                    Value::String(substituted)
                } else {
                    Value::String(text.to_owned())
                }
            }
            Err(error) => {
                let help = error.help();
                // The place is that of the reference, if the text is written without escapes.
                let written = self.source.text.get(span.clone()).unwrap_or_default();
                let span = match written.find(error.reference()) {
                    Some(at) => span.start + at..span.start + at + error.reference().len(),
                    None => span,
                };
                self.refuse(span, &error.to_string(), Some(&help))
            }
        }
    }

    fn refuse(&mut self, span: Range<usize>, message: &str, help: Option<&str>) -> Value {
        let place = Place {
            source: Arc::clone(self.source),
            span,
        };
        let mistake = Mistake::at(place, message);
        self.mistakes.push(match help {
            Some(help) => mistake.help(help),
            None => mistake,
        });
        Value::Null
    }
}

/// The pointer of a key below another pointer.
pub(crate) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<Arc<Document>>, Vec<Mistake>) {
        let source = Source {
            name: "t.toml".to_owned(),
            text: text.to_owned(),
        };
        let environment = Environment::fixed([("NAME", "va\"l\nx = 1")]);
        Document::parse(source, &environment)
    }

    fn written<'a>(text: &'a str, document: &Document, pointer: &str) -> &'a str {
        &text[document.place(pointer).span]
    }

    #[test]
    fn every_value_knows_its_place() {
        let text = "[server]\nlisten = [\n  \"a\", # one\n  \"b\",\n]\nlimits = { max-head = 1 }\n\
                    text = '''\nlong\n'''\n[[route]]\npath = '/'\n[[route]]\n\"a/b\".c = true\n";
        let (document, mistakes) = parse(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let document = document.unwrap();
        assert_eq!(written(text, &document, "/server/listen/1"), "\"b\"");
        assert_eq!(written(text, &document, "/server/limits/max-head"), "1");
        assert_eq!(written(text, &document, "/server/text"), "'''\nlong\n'''");
        assert_eq!(written(text, &document, "/route/1/a~1b/c"), "true");
        assert_eq!(written(text, &document, "/server"), "[server]");
        assert_eq!(written(text, &document, "/route/1"), "[[route]]");
        assert_eq!(document.place("/route/1").line(), 12);
        let key = document.key_place("/server/limits/max-head");
        assert_eq!(&text[key.span], "max-head");
        assert_eq!(document.value()["route"][1]["a/b"]["c"], true);
        // What is not there has the place of what should hold it.
        assert_eq!(
            document.place("/server/limits/x"),
            document.place("/server/limits")
        );
    }

    #[test]
    fn a_value_of_the_environment_stays_inside_its_string() {
        let (document, mistakes) = parse("a = \"<${NAME}>\"\nb = \"${NONE:-x}\"\n");
        assert!(mistakes.is_empty());
        let document = document.unwrap();
        assert_eq!(document.value()["a"], "<va\"l\nx = 1>");
        assert_eq!(document.value()["b"], "x");
        assert!(document.value().get("x").is_none());
        assert!(document.is_substituted("/a") && !document.is_substituted("/c"));
    }

    #[test]
    fn what_is_not_set_is_a_mistake_with_its_place() {
        let text = "a = 1\nb = [\"${NAME}\", \"see ${NONE}\"]\n";
        let (_, mistakes) = parse(text);
        assert_eq!(mistakes.len(), 1);
        let shown = mistakes[0].to_string();
        assert!(shown.starts_with("t.toml:2:22: "), "{shown}");
        assert!(shown.contains("`NONE`"), "{shown}");
    }

    #[test]
    fn numbers_that_json_has_not_are_refused() {
        let (_, mistakes) = parse("a = 9223372036854775808\nb = inf\nc = 2020-01-01\nd = 0xff\n");
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    }

    #[test]
    fn wrong_syntax_is_told_line_by_line() {
        let (document, mistakes) = parse("a = \nx = 1\ny = \"open\nz = [1\n");
        assert!(document.is_none());
        let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(lines.len() >= 2, "{lines:?}");
    }
}
