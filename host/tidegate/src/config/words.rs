//! Words and parts of sentences for messages: kinds of values, bounds, lists of names, and what was probably meant by a
//! word that is not known.

use jsonschema::error::ValidationErrorKind;
use jsonschema::types::JsonType;
use serde_json::Value;

/// The end of a sentence on a bound that is not kept.
pub(super) fn bound(kind: &ValidationErrorKind) -> Option<String> {
    let text = match kind {
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        ValidationErrorKind::MinItems { limit } => {
            format!("must have at least {limit} {}", plural(*limit, "item"))
        }
        ValidationErrorKind::MaxItems { limit } => {
            format!("must have at most {limit} {}", plural(*limit, "item"))
        }
        ValidationErrorKind::MinLength { limit } => {
            format!("must have at least {limit} {}", plural(*limit, "character"))
        }
        ValidationErrorKind::MaxLength { limit } => {
            format!("must have at most {limit} {}", plural(*limit, "character"))
        }
        ValidationErrorKind::MinProperties { limit } => {
            format!("must have at least {limit} {}", plural(*limit, "key"))
        }
        ValidationErrorKind::MaxProperties { limit } => {
            format!("must have at most {limit} {}", plural(*limit, "key"))
        }
        ValidationErrorKind::MultipleOf { multiple_of } => {
            format!("must be a multiple of {multiple_of}")
        }
        ValidationErrorKind::UniqueItems => "has an item twice".to_owned(),
        ValidationErrorKind::FalseSchema => "may not stand here".to_owned(),
        _ => return None,
    };
    Some(text)
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

pub(super) fn kind_word(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a table",
        JsonType::String => "a string",
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// A value as it would be written.
pub(super) fn toml_text(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_text).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

/// The known word that was most likely meant.
pub(super) fn similar<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace('_', "-");
    let word = plain(word);
    let score = |other: &str| {
        let other = plain(other);
        let begins = other.starts_with(&word) || word.starts_with(&other);
        let distance = strsim::damerau_levenshtein(&word, &other);
        // A third of the letters may be wrong, but never all of a short word.
        let allowed = (word.chars().count().max(3) / 3).max(1);
        if distance <= allowed {
            Some(distance)
        } else if begins && word.chars().count().min(other.chars().count()) >= 3 {
            Some(allowed + distance)
        } else {
            None
        }
    };
    known
        .into_iter()
        .filter_map(|other| Some((score(other)?, other)))
        .min_by_key(|(score, _)| *score)
        .map(|(_, other)| other)
}

/// Names in a sentence.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_what_was_meant() {
        let known = ["listen", "limits", "path", "host", "upstream"];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("Listen", Some("listen")),
            ("listening", Some("listen")),
            ("hots", Some("host")),
            ("upsteam", Some("upstream")),
            ("x", None),
            ("certificate", None),
            ("max_path", None),
        ] {
            assert_eq!(similar(word, known), meant, "{word}");
        }
        assert_eq!(
            similar("drain_timeout", ["drain-timeout"]),
            Some("drain-timeout")
        );
    }
}
