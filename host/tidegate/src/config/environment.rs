//! The process's environment as the configuration sees it: `${NAME}` and `${NAME:-default}` inside a text. It reads
//! variables and must not know where the text came from.

use std::collections::BTreeMap;

/// Where variables are looked up.
#[derive(Clone, Debug)]
pub(crate) enum Environment {
    /// The process's.
    Process,
    /// Only these; for tests and trials.
    Fixed(BTreeMap<String, String>),
}

/// Why a text could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubstituteError {
    /// The variable is not set, and there is no default.
    #[error("the environment variable `{name}` is not set")]
    Unset {
        /// Its name.
        name: String,
        /// The reference as it is written.
        reference: String,
    },
    /// It is set to bytes that are no text.
    #[error("the environment variable `{name}` is not valid UTF-8")]
    NotText {
        /// Its name.
        name: String,
        /// The reference as it is written.
        reference: String,
    },
    /// No closing brace, or nothing that could be a name.
    #[error("`{reference}` does not name an environment variable")]
    Malformed {
        /// The reference as it is written.
        reference: String,
    },
}

impl Environment {
    /// An environment of only these variables.
    pub(crate) fn fixed<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter();
        Environment::Fixed(
            variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// A variable's value, if it is set; the error: it is no text.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, ()> {
        match self {
            Environment::Process => match std::env::var(name) {
                Ok(value) => Ok(Some(value)),
                Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => Err(()),
            },
            Environment::Fixed(variables) => Ok(variables.get(name).cloned()),
        }
    }
}

impl SubstituteError {
    /// The reference as it is written.
    pub(crate) fn reference(&self) -> &str {
        match self {
            SubstituteError::Unset { reference, .. }
            | SubstituteError::NotText { reference, .. }
            | SubstituteError::Malformed { reference } => reference,
        }
    }

    /// What to do.
    pub(crate) fn help(&self) -> String {
        match self {
            SubstituteError::Unset { name, .. } => {
                format!("set it, or write `${{{name}:-default}}`; `$${{` stands for `${{` itself")
            }
            SubstituteError::NotText { .. } => "set it to text".to_owned(),
            SubstituteError::Malformed { .. } => {
                "write `${NAME}` or `${NAME:-default}`; `$${` stands for `${` itself".to_owned()
            }
        }
    }
}

/// Fills in the variables of a text; none if there was nothing to fill in. A default is taken as it stands: it holds
/// no reference itself and ends at the first `}`. As in a shell, it also stands in for a variable that is empty.
pub(crate) fn substitute(
    text: &str,
    environment: &Environment,
) -> Result<Option<String>, SubstituteError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, behind)) = after.split_once('}') else {
            return Err(SubstituteError::Malformed {
                reference: "${".to_owned(),
            });
        };
        out.push_str(&value(inside, environment)?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// What stands for one reference.
fn value(inside: &str, environment: &Environment) -> Result<String, SubstituteError> {
    let reference = format!("${{{inside}}}");
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(SubstituteError::Malformed { reference });
    }
    let name = name.to_owned();
    match (environment.get(&name), default) {
        (Err(()), _) => Err(SubstituteError::NotText { name, reference }),
        (Ok(Some(value)), None) => Ok(value),
        (Ok(Some(value)), Some(_)) if !value.is_empty() => Ok(value),
        (Ok(_), Some(default)) => Ok(default.to_owned()),
        (Ok(None), None) => Err(SubstituteError::Unset { name, reference }),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Option<String>, SubstituteError> {
        substitute(text, &Environment::fixed([("A", "1"), ("EMPTY", "")]))
    }

    #[test]
    fn references_are_replaced_and_other_dollars_stay() {
        assert_eq!(filled("a $A $ {A} }").unwrap(), None);
        assert_eq!(filled("<${A}${A}>").unwrap().unwrap(), "<11>");
        assert_eq!(filled("${B:-x:-y}").unwrap().unwrap(), "x:-y");
        assert_eq!(filled("${B:-}").unwrap().unwrap(), "");
        assert_eq!(filled("${EMPTY:-x}${EMPTY}").unwrap().unwrap(), "x");
        assert_eq!(filled("$${A} ${A}").unwrap().unwrap(), "${A} 1");
    }

    #[test]
    fn what_can_not_be_filled_in_is_told() {
        assert!(matches!(filled("${B}"), Err(SubstituteError::Unset { name, .. }) if name == "B"));
        for text in ["${", "${A", "${}", "${1A}", "${A-B}", "${A B}", "${:-x}"] {
            assert!(
                matches!(filled(text), Err(SubstituteError::Malformed { .. })),
                "{text}"
            );
        }
    }
}
