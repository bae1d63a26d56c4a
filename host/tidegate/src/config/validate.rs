//! Holds a document against a JSON Schema and says in plain sentences what does not fit, with places and remedies. It
//! works for our own schema and for those of filters, and must not know what a key means.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::types::JsonType;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::document::{Origin, child};
use super::words::{bound, kind_of, kind_word, list, similar, toml_text};
use crate::diagnostic::{Mistake, Place};

/// What does not fit, and where.
#[derive(Debug)]
pub(crate) struct Finding {
    /// For the user.
    pub(crate) mistake: Mistake,
    /// The value to leave out so that the rest can be looked at.
    pub(crate) pointer: String,
    /// The key that is missing there, or was probably meant.
    key: Option<(Wanted, String)>,
}

/// Why a key should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Missing,
    Meant,
}

/// How values may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// A value may stand in a sentence.
    Shown,
    /// It may be a secret.
    Hidden,
}

/// One look at one value.
struct Check<'a> {
    schema: &'a Value,
    origin: &'a Origin,
    values: Values,
    findings: Vec<Finding>,
}

/// Holds a value against a schema. `origin` is where the value stands. Null is passed over: a document has it only in
/// place of what was found wrong before.
///
/// # Errors
/// The schema itself is no valid one; the text says why.
pub(crate) fn validate(
    value: &Value,
    schema: &Value,
    origin: &Origin,
    values: Values,
) -> Result<Vec<Finding>, String> {
    let validator: Validator = jsonschema::options()
        .build(schema)
        .map_err(|error| error.to_string())?;
    let mut check = Check {
        schema,
        origin,
        values,
        findings: Vec::new(),
    };
    for error in validator.iter_errors(value) {
        check.error(&error);
    }
    let document = |finding: &Finding| match &finding.mistake.site {
        crate::diagnostic::Site::Text(place) => place.span.start,
        crate::diagnostic::Site::Name(_) => 0,
    };
    check.findings.sort_by_key(document);
    check
        .findings
        .dedup_by(|a, b| a.mistake == b.mistake && a.pointer == b.pointer);
    check.pass_over_misspelt();
    Ok(check.findings)
}

impl Check<'_> {
    fn error(&mut self, error: &ValidationError<'_>) {
        if error.instance().is_null() {
            return;
        }
        let pointer = error.instance_path().as_str();
        let holder = self.holder(error);
        let name = self.name(pointer);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                for key in unexpected {
                    self.unknown_key(pointer, key, holder.as_ref());
                }
            }
            ValidationErrorKind::PropertyNames { error } => {
                let key = error.instance().as_str().unwrap_or_default().to_owned();
                self.unknown_key(pointer, &key, None);
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let inside = self.inside(pointer);
                let table = match inside.strip_prefix(" in ") {
                    Some(table) => format!("{table} has no `{key}`"),
                    None => format!("the file has no `{key}`"),
                };
                let help = self.example(pointer, key, holder.as_ref());
                let place = self.origin.below(pointer).place();
                let mistake = Mistake::at(place, &table).help(help);
                self.findings.push(Finding {
                    mistake,
                    pointer: pointer.to_owned(),
                    key: Some((Wanted::Missing, child(pointer, key))),
                });
            }
            ValidationErrorKind::Type { kind } => self.wrong_type(pointer, error, kind, holder),
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&Value> = options.as_array().into_iter().flatten().collect();
                self.one_of(pointer, error.instance(), &options);
            }
            ValidationErrorKind::Constant { expected_value } => {
                self.one_of(pointer, error.instance(), &[expected_value.as_ref()]);
            }
            ValidationErrorKind::Pattern { pattern } => {
                let mistake = match expected(holder.as_ref()) {
                    Some((title, help)) => self
                        .at(pointer, &format!("{name} is not a {title}"))
                        .help(help),
                    None => self.at(pointer, &format!("{name} does not match `{pattern}`")),
                };
                self.add(mistake, pointer);
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                self.alternatives(pointer, error, context, holder.as_ref());
            }
            kind => {
                let message = match bound(kind) {
                    Some(bound) => format!("{name} {bound}"),
                    // The library's words, without the value.
                    None => format!("{name} is not valid: {}", error.masked_with("it")),
                };
                let mistake = self.at(pointer, &message);
                self.add(mistake, pointer);
            }
        }
    }

    /// The part of the schema whose keyword failed.
    fn holder(&self, error: &ValidationError<'_>) -> Option<Value> {
        let path = error.schema_path().as_str();
        let end = path.rfind('/')?;
        self.schema.pointer(path.get(..end)?).cloned()
    }

    fn unknown_key(&mut self, pointer: &str, key: &str, holder: Option<&Value>) {
        let known: Vec<&str> = holder
            .and_then(|holder| holder.get("properties"))
            .and_then(Value::as_object)
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let at = child(pointer, key);
        let place = self.origin.below(&at).key_place();
        let inside = self.inside(pointer);
        let message = format!("unknown key `{key}`{inside}");
        let meant = similar(key, known.iter().copied());
        let help = match meant {
            Some(similar) => Some(format!("did you mean `{similar}`?")),
            None if known.is_empty() => None,
            None => Some(format!("the keys here are {}", list(&known))),
        };
        self.findings.push(Finding {
            mistake: Mistake::at(place, &message).maybe_help(help),
            pointer: at,
            key: meant.map(|meant| (Wanted::Meant, child(pointer, meant))),
        });
    }

    fn wrong_type(
        &mut self,
        pointer: &str,
        error: &ValidationError<'_>,
        kind: &TypeKind,
        holder: Option<Value>,
    ) {
        let wanted: Vec<JsonType> = match kind {
            TypeKind::Single(single) => vec![*single],
            TypeKind::Multiple(several) => several.iter().collect(),
        };
        let name = self.name(pointer);
        let found = kind_of(error.instance());
        let expected = expected(holder.as_ref());
        let message = match &expected {
            Some((title, _)) => format!("{name} must be a {title}, not {found}"),
            None => {
                let words: Vec<&str> = wanted.iter().map(|kind| kind_word(*kind)).collect();
                format!("{name} must be {}, not {found}", words.join(" or "))
            }
        };
        let place = self.origin.below(pointer).place();
        let example = holder
            .as_ref()
            .and_then(|holder| holder.get("examples")?.get(0));
        let help = match (expected, example) {
            (Some((_, help)), _) => Some(help),
            (None, Some(example)) if !error.instance().is_string() => {
                Some(format!("write it as {}", toml_text(example)))
            }
            (None, _) => self.type_help(pointer, error.instance(), &wanted, &place),
        };
        self.add(Mistake::at(place, &message).maybe_help(help), pointer);
    }

    fn type_help(
        &self,
        pointer: &str,
        found: &Value,
        wanted: &[JsonType],
        place: &Place,
    ) -> Option<String> {
        let written = place.source.text.get(place.span.clone())?;
        let key = last(pointer)?;
        if written.contains('\n') || found.is_object() {
            return None;
        }
        match wanted {
            [JsonType::Array] => Some(format!("put it in brackets: `{key} = [{written}]`")),
            [JsonType::String] if is_item(pointer) => {
                Some(format!("put it in quotes: `\"{written}\"`"))
            }
            [JsonType::String] if !found.is_array() => {
                Some(format!("put it in quotes: `{key} = \"{written}\"`"))
            }
            [JsonType::Integer | JsonType::Number | JsonType::Boolean] => {
                let bare = found.as_str()?;
                let fits = match wanted {
                    [JsonType::Boolean] => bare == "true" || bare == "false",
                    _ => bare.parse::<i64>().is_ok(),
                };
                fits.then(|| format!("leave the quotes away: `{key} = {bare}`"))
            }
            _ => None,
        }
    }

    fn one_of(&mut self, pointer: &str, found: &Value, options: &[&Value]) {
        let texts: Vec<&str> = options
            .iter()
            .filter_map(|option| option.as_str())
            .collect();
        let name = self.name(pointer);
        let all: Vec<String> = options.iter().map(ToString::to_string).collect();
        let message = match found.as_str() {
            Some(found) if self.may_show(pointer) => {
                format!("{name} can't be \"{found}\"")
            }
            _ => format!("{name} has a value that is not known"),
        };
        let near = found
            .as_str()
            .and_then(|found| similar(found, texts.iter().copied()));
        let help = match near {
            Some(near) => format!("did you mean \"{near}\"? The values are {}", all.join(", ")),
            None => format!("the values are {}", all.join(", ")),
        };
        let mistake = self.at(pointer, &message).help(help);
        self.add(mistake, pointer);
    }

    /// None of several alternatives fits: the one of the right type is what was meant.
    fn alternatives(
        &mut self,
        pointer: &str,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
        holder: Option<&Value>,
    ) {
        let constants: Vec<&Value> = holder
            .and_then(|holder| holder.get("oneOf").or_else(|| holder.get("anyOf")))
            .and_then(Value::as_array)
            .map(|alternatives| {
                alternatives
                    .iter()
                    .filter_map(|one| one.get("const"))
                    .collect()
            })
            .unwrap_or_default();
        if !constants.is_empty() && constants.len() == context.len() {
            return self.one_of(pointer, error.instance(), &constants);
        }
        let mut meant = context.iter().filter(|errors| {
            let wrong_type = |error: &ValidationError<'_>| {
                error.instance_path().as_str() == pointer
                    && matches!(error.kind(), ValidationErrorKind::Type { .. })
            };
            !errors.iter().any(wrong_type)
        });
        if let (Some(errors), None) = (meant.next(), meant.next()) {
            for error in errors {
                self.error(error);
            }
            return;
        }
        let mut words: Vec<&str> = Vec::new();
        for error in context.iter().flatten() {
            if let ValidationErrorKind::Type {
                kind: TypeKind::Single(single),
            } = error.kind()
                && error.instance_path().as_str() == pointer
            {
                words.push(kind_word(*single));
            }
        }
        let name = self.name(pointer);
        let message = if words.len() == context.len() {
            let found = kind_of(error.instance());
            format!("{name} must be {}, not {found}", words.join(" or "))
        } else {
            format!("{name} fits none of the forms that are possible here")
        };
        let mistake = self.at(pointer, &message);
        self.add(mistake, pointer);
    }

    fn add(&mut self, mistake: Mistake, pointer: &str) {
        self.findings.push(Finding {
            mistake,
            pointer: pointer.to_owned(),
            key: None,
        });
    }

    /// A key that is there under a wrong name is not missing as well; but what should hold it is not whole.
    fn pass_over_misspelt(&mut self) {
        let meant: Vec<String> = self
            .findings
            .iter()
            .filter_map(|finding| match &finding.key {
                Some((Wanted::Meant, key)) => Some(key.clone()),
                _ => None,
            })
            .collect();
        self.findings.retain(|finding| match &finding.key {
            Some((Wanted::Missing, key)) => !meant.contains(key),
            _ => true,
        });
    }

    fn at(&self, pointer: &str, message: &str) -> Mistake {
        Mistake::at(self.origin.below(pointer).place(), message)
    }

    fn may_show(&self, pointer: &str) -> bool {
        let origin = self.origin.below(pointer);
        self.values == Values::Shown && !origin.document.is_substituted(&origin.pointer)
    }

    /// What a remedy for a missing key can be.
    fn example(&self, pointer: &str, key: &str, holder: Option<&Value>) -> String {
        let property = holder.and_then(|holder| holder.get("properties")?.get(key));
        let example = property
            .and_then(|property| property.get("examples"))
            .and_then(|examples| examples.get(0));
        let inside = self.inside(pointer);
        match example {
            Some(example) => format!("add `{key} = {}`{inside}", toml_text(example)),
            None => format!("add `{key}`{inside}"),
        }
    }

    /// ` in [TABLE]`, or nothing at the document's top.
    fn inside(&self, pointer: &str) -> String {
        let whole = format!("{}{pointer}", self.origin.pointer);
        let keys: Vec<String> = whole.split('/').skip(1).map(unescape).collect();
        // An index says nothing to the reader; the line does.
        let keys: Vec<&str> = keys
            .iter()
            .map(String::as_str)
            .filter(|key| key.parse::<usize>().is_err())
            .collect();
        match (keys.is_empty(), is_item(&whole)) {
            (true, _) => String::new(),
            (false, true) => format!(" in [[{}]]", keys.join(".")),
            (false, false) => format!(" in [{}]", keys.join(".")),
        }
    }

    /// What a value is called: its key, and whether it is an item of it.
    fn name(&self, pointer: &str) -> String {
        let whole = format!("{}{pointer}", self.origin.pointer);
        match last(&whole) {
            None => "the file".to_owned(),
            Some(key) if is_item(&whole) => format!("an item of `{key}`"),
            Some(key) => format!("`{key}`"),
        }
    }
}

/// What a schema with a title and examples expects: the title, and a remedy.
fn expected(holder: Option<&Value>) -> Option<(String, String)> {
    let holder = holder?;
    let title = holder.get("title")?.as_str()?.to_owned();
    let examples = holder.get("examples")?.as_array()?;
    let examples: Vec<String> = examples.iter().map(ToString::to_string).collect();
    Some((title, format!("write it as {}", examples.join(" or "))))
}

/// The last key of a pointer that is no index.
fn last(pointer: &str) -> Option<String> {
    pointer
        .rsplit('/')
        .filter(|key| !key.is_empty())
        .find(|key| key.parse::<usize>().is_err())
        .map(unescape)
}

fn is_item(pointer: &str) -> bool {
    let last = pointer.rsplit('/').next();
    last.is_some_and(|last| last.parse::<usize>().is_ok())
}

fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}
