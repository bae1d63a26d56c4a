//! Claims: where they stand, what they must be, and how they are passed on. Knows neither tokens nor keys.

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::config::RuleConfig;
use crate::identity::Identity;
use crate::json;
use crate::pairs::Pairs;
use crate::place::field_name;
use crate::refused::{Refused, Rejection};

/// Claims, as a token or a server says them.
pub(crate) type Claims = Map<String, Value>;

/// The longest text in which a regular expression is looked for, in bytes.
const MAX_SUBJECT: usize = 4096;
/// The most memory of a compiled regular expression, in bytes.
const MAX_REGEX: usize = 64 * 1024;

/// The way to a claim.
#[derive(Clone, Debug)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn new(name: &str) -> Self {
        Path(name.to_owned())
    }

    /// The claim of the whole name, else the one to which its parts between dots lead.
    pub(crate) fn find<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        if let Some(claim) = claims.get(&self.0) {
            return Some(claim);
        }
        let mut parts = self.0.split('.');
        let mut claim = claims.get(parts.next()?)?;
        for part in parts {
            claim = claim.get(part)?;
        }
        Some(claim)
    }
}

/// What a claim must be.
#[derive(Debug)]
struct Rule {
    path: Path,
    test: Test,
}

#[derive(Debug)]
enum Test {
    There,
    OneOf(Vec<Value>),
    Contains(Value),
    Scope(String),
    Regex(Regex),
}

/// What claims must be, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Use {
    scopes: Vec<String>,
    rules: Vec<Rule>,
    /// The claim, its name, and the field for it; none: as a property only.
    passed: Vec<(Path, String, Option<String>)>,
    consumer: Vec<Path>,
    roles: Path,
}

/// What a [`Use`] is made from: parts of a method's configuration.
pub(crate) struct UseConfig<'a> {
    /// The method's key, for messages.
    pub(crate) key: &'static str,
    pub(crate) scopes: &'a [String],
    pub(crate) rules: &'a [RuleConfig],
    pub(crate) claims: &'a Pairs<String>,
    pub(crate) properties: &'a [String],
    pub(crate) consumer: Option<&'a str>,
    /// The claims that are the consumer's name if none is configured, the first that is there.
    pub(crate) consumer_else: &'static [&'static str],
    pub(crate) roles: Option<&'a str>,
}

impl Use {
    /// # Errors
    /// Which rule or field is wrong, and how to put it right.
    pub(crate) fn new(config: &UseConfig<'_>) -> Result<Self, String> {
        let key = config.key;
        let rules = config.rules.iter().enumerate().map(|(index, rule)| {
            read(rule).map_err(|error| format!("`{key}.require[{index}]`: {error}"))
        });
        let mut passed = Vec::new();
        for (claim, field) in config.claims.iter() {
            let field = field_name(field, &format!("{key}.claims"))?;
            passed.push((Path::new(claim), claim.to_owned(), Some(field)));
        }
        for claim in config.properties {
            if config.claims.get(claim).is_none() {
                passed.push((Path::new(claim), claim.clone(), None));
            }
        }
        if let Some((_, name, _)) = passed.iter().find(|(_, name, _)| name.len() > 56) {
            return Err(format!(
                "`{key}`: the claim `{name}` has too long a name to be passed on: 56 bytes"
            ));
        }
        Ok(Use {
            scopes: config.scopes.to_vec(),
            rules: rules.collect::<Result<_, String>>()?,
            passed,
            consumer: match config.consumer {
                Some(claim) => vec![Path::new(claim)],
                None => config
                    .consumer_else
                    .iter()
                    .map(|claim| Path::new(claim))
                    .collect(),
            },
            roles: Path::new(config.roles.unwrap_or("roles")),
        })
    }

    /// The fields that it fills.
    pub(crate) fn fields(&self) -> impl Iterator<Item = String> + '_ {
        self.passed.iter().filter_map(|(.., field)| field.clone())
    }

    /// Who the claims are of.
    ///
    /// # Errors
    /// [`Refused::Scope`] and [`Refused::Claim`] for what they lack.
    pub(crate) fn identity(&self, claims: &Claims) -> Result<Identity, Refused> {
        let has = |scope: &String| {
            let held = |name| claims.get(name).is_some_and(|claim| words(claim, scope));
            held("scope") || held("scp")
        };
        if let Some(missing) = self.scopes.iter().find(|scope| !has(scope)) {
            return Err(Refused::Scope(missing.clone()));
        }
        if !self.rules.iter().all(|rule| rule.holds(claims)) {
            return Err(Refused::Claim);
        }
        let name = self
            .consumer
            .iter()
            .find_map(|path| text(path.find(claims)?));
        let roles = self.roles.find(claims).map(list).unwrap_or_default();
        let mut identity = Identity::new(name.unwrap_or_default(), roles);
        for (path, name, field) in &self.passed {
            let Some(value) = path.find(claims).and_then(text) else {
                continue;
            };
            if let Some(field) = field {
                identity.fields.push((field.clone(), value.clone()));
            }
            identity.properties.push((["claim.", name].concat(), value));
        }
        Ok(identity)
    }
}

fn read(rule: &RuleConfig) -> Result<Rule, String> {
    let mut tests = Vec::new();
    tests.extend(rule.equals.clone().map(|value| Test::OneOf(vec![value])));
    if !rule.one_of.is_empty() {
        tests.push(Test::OneOf(rule.one_of.clone()));
    }
    tests.extend(rule.contains.clone().map(Test::Contains));
    tests.extend(rule.scope.clone().map(Test::Scope));
    if let Some(regex) = &rule.regex {
        let made = RegexBuilder::new(regex).size_limit(MAX_REGEX).build();
        tests.push(Test::Regex(
            made.map_err(|error| format!("`regex`: {error}"))?,
        ));
    }
    let test = tests.pop().unwrap_or(Test::There);
    if !tests.is_empty() {
        return Err("one of `equals`, `one-of`, `contains`, `scope` and `regex` is enough; write a rule for each".to_owned());
    }
    Ok(Rule {
        path: Path::new(&rule.claim),
        test,
    })
}

impl Rule {
    fn holds(&self, claims: &Claims) -> bool {
        let Some(claim) = self.path.find(claims) else {
            return false;
        };
        match &self.test {
            Test::There => !claim.is_null(),
            Test::OneOf(values) => values.iter().any(|value| same(value, claim)),
            Test::Contains(value) => claim
                .as_array()
                .is_some_and(|list| list.iter().any(|held| same(value, held))),
            Test::Scope(word) => words(claim, word),
            Test::Regex(regex) => claim
                .as_str()
                .is_some_and(|text| text.len() <= MAX_SUBJECT && regex.is_match(text)),
        }
    }
}

/// Whether two values are the same; 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    a == b
        || (a.is_number()
            && b.is_number()
            && (a.is_f64() || b.is_f64())
            && a.as_f64() == b.as_f64())
}

/// Whether a text of words, or a list, has a word.
fn words(claim: &Value, word: &str) -> bool {
    match claim {
        Value::String(text) => text.split(' ').any(|held| held == word),
        Value::Array(list) => list.iter().any(|held| held.as_str() == Some(word)),
        _ => false,
    }
}

/// The texts of a list, or the words of a text.
fn list(claim: &Value) -> Vec<String> {
    match claim {
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Value::String(text) => text.split(' ').map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A claim as a field has it: a list of plain values with commas between them, anything else with structure as JSON.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.iter().all(|one| plain(one).is_some()) => {
            let texts: Vec<String> = list.iter().filter_map(plain).collect();
            Some(texts.join(","))
        }
        other => {
            let mut text = String::new();
            json::write(other, &mut text);
            Some(text)
        }
    }
}

/// An element that can stand between commas.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.contains(',') => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => {
            let mut text = String::new();
            json::write(value, &mut text);
            Some(text)
        }
        _ => None,
    }
}

/// Whether claims are of an accepted issuer, and for an accepted audience.
pub(crate) fn check_parties(
    claims: &Claims,
    issuer: Option<&str>,
    audience: &[String],
) -> Result<(), Rejection> {
    if let Some(issuer) = issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Rejection::Issuer);
    }
    if audience.is_empty() {
        return Ok(());
    }
    let accepted = |value: &Value| {
        value
            .as_str()
            .is_some_and(|name| audience.iter().any(|own| own == name))
    };
    let ours = match claims.get("aud") {
        Some(Value::Array(audiences)) => audiences.iter().any(accepted),
        Some(audience) => accepted(audience),
        None => false,
    };
    if ours {
        Ok(())
    } else {
        Err(Rejection::Audience)
    }
}

/// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction, which is cut.
pub(crate) fn time(claims: &Claims, name: &str) -> Result<Option<i64>, Rejection> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) if seconds >= 0 => Ok(Some(seconds)),
        // Far beyond any date and far within 64 bits.
        (None, Some(seconds)) if (0.0..1e15).contains(&seconds) => Ok(Some(seconds as i64)),
        _ => Err(Rejection::BadTime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims() -> Claims {
        let claims = json!({
            "sub": "ada", "scope": "read write", "level": 3, "admin": true,
            "groups": ["a", "b"], "odd": ["a,b", "c"], "https://x.example/tenant": "acme",
            "realm_access": {"roles": ["editor", "viewer"]}, "none": null,
        });
        claims.as_object().unwrap().clone()
    }

    fn holds(rule: Value) -> bool {
        let config: RuleConfig = serde_json::from_value(rule).unwrap();
        read(&config).unwrap().holds(&claims())
    }

    #[test]
    fn rules_judge_claims() {
        for (rule, expected) in [
            (json!({"claim": "sub"}), true),
            (json!({"claim": "none"}), false),
            (json!({"claim": "nowhere"}), false),
            (json!({"claim": "sub", "equals": "ada"}), true),
            (json!({"claim": "sub", "equals": "bob"}), false),
            (json!({"claim": "level", "equals": 3.0}), true),
            (json!({"claim": "level", "equals": "3"}), false),
            (json!({"claim": "admin", "equals": true}), true),
            (json!({"claim": "sub", "one-of": ["bob", "ada"]}), true),
            (json!({"claim": "groups", "contains": "b"}), true),
            (json!({"claim": "groups", "contains": "c"}), false),
            (json!({"claim": "scope", "contains": "read"}), false),
            (json!({"claim": "scope", "scope": "write"}), true),
            (json!({"claim": "scope", "scope": "writ"}), false),
            (
                json!({"claim": "https://x.example/tenant", "regex": "^ac"}),
                true,
            ),
            (json!({"claim": "sub", "regex": "^b"}), false),
            (
                json!({"claim": "realm_access.roles", "contains": "editor"}),
                true,
            ),
            (json!({"claim": "realm_access.nothing.at.all"}), false),
        ] {
            assert_eq!(holds(rule.clone()), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_has_one_test_and_a_small_regex() {
        for (rule, word) in [
            (
                json!({"claim": "a", "equals": 1, "scope": "b"}),
                "a rule for each",
            ),
            (json!({"claim": "a", "regex": "("}), "regex"),
            (json!({"claim": "a", "regex": "(a{1000}){1000}"}), "regex"),
        ] {
            let config: RuleConfig = serde_json::from_value(rule).unwrap();
            let error = read(&config).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn claims_become_text_that_says_what_they_say() {
        let claims = claims();
        for (name, expected) in [
            ("sub", Some("ada")),
            ("level", Some("3")),
            ("admin", Some("true")),
            ("groups", Some("a,b")),
            ("odd", Some(r#"["a,b","c"]"#)),
            ("realm_access", Some(r#"{"roles":["editor","viewer"]}"#)),
            ("none", None),
        ] {
            let found = Path::new(name).find(&claims).and_then(text);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
