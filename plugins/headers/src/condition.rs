//! When a rule applies: conditions over the request, the exchange's facts and the response, all of which must hold, with
//! `any`, `all` and `not` to combine them. Knows no rule.

use crate::named::Named;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use tidegate_sdk::ConfigSchema;

use crate::facts::Facts;
use crate::mistakes::{Mistakes, Place};
use crate::net::{self, Net};
use crate::one_or_many::OneOrMany;
use crate::pattern::Pattern;
use crate::shared_schema::by_reference;
use crate::template::Source;

by_reference!(
    /// When something is done: everything that is written must hold.
    When,
    Keys,
    "when"
);

/// What must hold. A text may hold `*` for anything; behind `~` it is a regular expression.
#[derive(Debug, Default, serde::Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Keys {
    /// The path as the client sent it, in normal form, without the query.
    path: OneOrMany<String>,
    /// The method.
    method: OneOrMany<String>,
    /// The host, without its port. Case does not count.
    host: OneOrMany<String>,
    /// `http` or `https`: how the client spoke.
    scheme: Option<String>,
    /// The route's name.
    route: OneOrMany<String>,
    /// The client's address: addresses, or ranges such as `10.0.0.0/8`.
    client: OneOrMany<String>,
    /// Fields of the request: `true` if it must be there, `false` if not, else what one of its values must be.
    header: Named<Test>,
    /// Cookies of the request, in the same way.
    cookie: Named<Test>,
    /// Parameters of the query, decoded, in the same way.
    query: Named<Test>,
    /// What earlier filters left, such as `consumer`, in the same way.
    property: Named<Test>,
    /// Fields of the response, in the same way. Not in rules on the request.
    response: Named<Test>,
    /// The response's status: a number, `"4xx"` or `"500-503"`. Not in rules on the request.
    status: OneOrMany<Statuses>,
    /// The media type without its parameters, of the response in rules on the response, else of the request. Case does not count.
    content_type: OneOrMany<String>,
    /// Each of these conditions must hold.
    all: Vec<When>,
    /// One of these conditions must hold.
    any: Vec<When>,
    /// This condition must not hold.
    not: Option<When>,
}

/// What is asked of a value that may be missing.
#[derive(Debug)]
pub(crate) enum Test {
    /// Whether it is there.
    Present(bool),
    /// Texts of which it must be one.
    One(Vec<String>),
}

/// A status or a range of them.
#[derive(Clone, Debug)]
pub(crate) struct Statuses(RangeInclusive<u16>);

/// A condition, ready to be asked.
#[derive(Debug)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The first value of a source must fit one of the patterns.
    Is(Source, Vec<Pattern>),
    /// One of a field's values must.
    Field(Part, String, Vec<Pattern>),
    Present(Source, bool),
    Client(Vec<Net>),
    Status(Vec<RangeInclusive<u16>>),
    ContentType(Part, Vec<Pattern>),
}

/// Whose fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    Response,
}

/// How deep conditions may be in conditions.
const MAX_DEPTH: usize = 16;

// === impl When ===

impl When {
    /// Reads a condition of something that is done in a part's phase.
    pub(crate) fn compile(self, part: Part, place: &Place, mistakes: &mut Mistakes) -> Condition {
        let path = match part {
            Part::Request => Source::Path,
            Part::Response => Source::OriginalPath,
        };
        compile(self.keys(), part, &path, place, mistakes, 0)
    }

    /// Reads a condition that is asked in both phases, about the request only.
    pub(crate) fn compile_for_both(self, place: &Place, mistakes: &mut Mistakes) -> Condition {
        compile(
            self.keys(),
            Part::Request,
            &Source::OriginalPath,
            place,
            mistakes,
            0,
        )
    }
}

fn compile(
    keys: Keys,
    part: Part,
    path: &Source,
    place: &Place,
    mistakes: &mut Mistakes,
    depth: usize,
) -> Condition {
    if depth > MAX_DEPTH {
        mistakes.add(place, "conditions are nested too deeply");
        return Condition::All(Vec::new());
    }
    let mut all = Vec::new();
    let mut texts = |key: &str, source: Source, texts: OneOrMany<String>, case: bool| {
        if !texts.is_empty() {
            let patterns = patterns(texts, case, &place.key(key), mistakes);
            all.push(Condition::Is(source, patterns));
        }
    };
    texts("path", path.clone(), keys.path, true);
    texts("method", Source::Method, keys.method, true);
    texts("host", Source::HostName, keys.host, false);
    texts("route", Source::Route, keys.route, true);
    if let Some(scheme) = keys.scheme {
        match Pattern::new(&scheme) {
            Ok(pattern) if matches!(scheme.as_str(), "http" | "https") => {
                all.push(Condition::Is(Source::Scheme, vec![pattern]));
            }
            _ => mistakes.add(
                &place.key("scheme"),
                &format!("`{scheme}` is neither `http` nor `https`"),
            ),
        }
    }
    if !keys.client.is_empty() {
        let nets = keys.client.each(&place.key("client"));
        let nets = nets.filter_map(|(place, text)| mistakes.take(&place, Net::parse(&text)));
        all.push(Condition::Client(nets.collect()));
    }
    type Tests = (&'static str, Named<Test>, fn(String) -> Source);
    let named: [Tests; 5] = [
        ("header", keys.header, Source::Header),
        ("cookie", keys.cookie, Source::Cookie),
        ("query", keys.query, Source::QueryParameter),
        ("property", keys.property, Source::Property),
        ("response", keys.response, Source::Response),
    ];
    for (key, tests, source) in named {
        let place = place.key(key);
        let is_field = matches!(key, "header" | "response");
        if key == "response" && part == Part::Request && !tests.is_empty() {
            mistakes.add(&place, "there is no response yet; write it in `response`");
        }
        for (name, test) in tests {
            let place = place.key(&name);
            let name = if is_field {
                name.to_ascii_lowercase()
            } else {
                name
            };
            all.push(match test {
                Test::Present(wanted) => Condition::Present(source(name), wanted),
                Test::One(texts) => {
                    let patterns = texts.iter().map(|text| Pattern::new(text));
                    let patterns = patterns
                        .filter_map(|pattern| mistakes.take(&place, pattern))
                        .collect();
                    match key {
                        "header" => Condition::Field(Part::Request, name, patterns),
                        "response" => Condition::Field(Part::Response, name, patterns),
                        _ => Condition::Is(source(name), patterns),
                    }
                }
            });
        }
    }
    if !keys.status.is_empty() {
        let place = place.key("status");
        if part == Part::Request {
            mistakes.add(&place, "there is no response yet; write it in `response`");
        }
        let ranges = keys.status.each(&place).map(|(_, statuses)| statuses.0);
        all.push(Condition::Status(ranges.collect()));
    }
    if !keys.content_type.is_empty() {
        let patterns = patterns(
            keys.content_type,
            false,
            &place.key("content-type"),
            mistakes,
        );
        all.push(Condition::ContentType(part, patterns));
    }
    let mut each = |key: &str, conditions: Vec<When>| -> Vec<Condition> {
        let place = place.key(key);
        let conditions = conditions.into_iter().enumerate();
        conditions
            .map(|(index, when)| {
                compile(
                    when.keys(),
                    part,
                    path,
                    &place.at(index),
                    mistakes,
                    depth + 1,
                )
            })
            .collect()
    };
    all.extend(each("all", keys.all));
    if !keys.any.is_empty() {
        all.push(Condition::Any(each("any", keys.any)));
    }
    if let Some(not) = keys.not {
        let not = compile(
            not.keys(),
            part,
            path,
            &place.key("not"),
            mistakes,
            depth + 1,
        );
        all.push(Condition::Not(Box::new(not)));
    }
    match all.len() {
        1 => all.pop().unwrap_or(Condition::All(Vec::new())),
        _ => Condition::All(all),
    }
}

fn patterns(
    texts: OneOrMany<String>,
    case: bool,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Vec<Pattern> {
    let read = if case {
        Pattern::new
    } else {
        Pattern::without_case
    };
    texts
        .each(place)
        .filter_map(|(place, text)| mistakes.take(&place, read(&text)))
        .collect()
}

// === impl Condition ===

impl Condition {
    /// Whether it holds now. The buffer is where values are put together; what is in it goes.
    pub(crate) fn holds(&self, facts: &dyn Facts, buffer: &mut Vec<u8>) -> bool {
        match self {
            Condition::All(conditions) => conditions.iter().all(|it| it.holds(facts, buffer)),
            Condition::Any(conditions) => conditions.iter().any(|it| it.holds(facts, buffer)),
            Condition::Not(condition) => !condition.holds(facts, buffer),
            Condition::Is(source, patterns) => {
                buffer.clear();
                facts.write(source, buffer) && fits(patterns, buffer)
            }
            Condition::Field(part, name, patterns) => values(*part, facts, name)
                .iter()
                .any(|value| fits(patterns, value)),
            Condition::Present(source, wanted) => {
                buffer.clear();
                facts.write(source, buffer) == *wanted
            }
            Condition::Client(nets) => {
                buffer.clear();
                facts.write(&Source::ClientAddress, buffer);
                net::address(buffer)
                    .is_some_and(|address| nets.iter().any(|net| net.holds(address)))
            }
            Condition::Status(ranges) => {
                let status = facts.status();
                ranges.iter().any(|range| range.contains(&status))
            }
            Condition::ContentType(part, patterns) => values(*part, facts, "content-type")
                .first()
                .is_some_and(|value| {
                    let mut parts = value.split(|byte| *byte == b';');
                    fits(patterns, parts.next().unwrap_or_default().trim_ascii())
                }),
        }
    }
}

fn fits(patterns: &[Pattern], value: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(value))
}

fn values(part: Part, facts: &dyn Facts, name: &str) -> Vec<Vec<u8>> {
    match part {
        Part::Request => facts.request_fields(name),
        Part::Response => facts.response_fields(name),
    }
}

// === impl Test ===

impl<'de> Deserialize<'de> for Test {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Test;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, a text or a list of texts")
            }

            fn visit_bool<E: Error>(self, wanted: bool) -> Result<Test, E> {
                Ok(Test::Present(wanted))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Test, E> {
                Ok(Test::One(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Test, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Test::One(texts))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl ConfigSchema for Test {
    const SCHEMA: &'static str = r#"{"anyOf":[{"type":"boolean"},{"type":"string"},{"type":"array","items":{"type":"string"}}]}"#;
}

// === impl Statuses ===

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status: a number from 100 to 599, `\"4xx\"` or `\"500-503\"`")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Statuses, E> {
                let status = u16::try_from(number).ok();
                status
                    .and_then(|status| Statuses::new(status, status))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                Statuses::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl Statuses {
    fn new(first: u16, last: u16) -> Option<Self> {
        let valid = (100..600).contains(&first) && (100..600).contains(&last) && first <= last;
        valid.then_some(Statuses(first..=last))
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            let class = class.parse::<u16>().ok()?.checked_mul(100)?;
            return Self::new(class, class.checked_add(99)?);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
    }
}

impl ConfigSchema for Statuses {
    const SCHEMA: &'static str = r#"{"anyOf":[{"type":"integer","minimum":100,"maximum":599},{"type":"string","pattern":"^([1-5]xx|[1-5][0-9][0-9](-[1-5][0-9][0-9])?)$"}]}"#;
}
