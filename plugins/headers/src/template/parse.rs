//! Reads templates: text, `{source|filter:argument}`, doubled braces, and `$1` where a pattern's groups can be meant. Knows
//! no exchange.

use super::filter::Filter;
use super::filter::is_unreserved;
use super::render::percent_encode;
use super::{Escape, Piece, Place, Source, Template};

/// The longest template, in bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// The most filters at one place.
const MAX_FILTERS: usize = 16;

/// What may stand in a template, by where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grammar<'a> {
    /// What its values become part of.
    pub(crate) escape: Escape,
    /// Whether there is a response to speak of.
    pub(crate) response: bool,
    /// The names of a pattern's groups, the whole match first; none without a pattern.
    pub(crate) groups: Option<&'a [Option<String>]>,
}

impl<'a> Grammar<'a> {
    /// Values of fields.
    pub(crate) fn fields(response: bool) -> Self {
        Grammar {
            escape: Escape::Field,
            response,
            groups: None,
        }
    }

    /// The same for another kind of value.
    pub(crate) fn of(self, escape: Escape) -> Self {
        Grammar { escape, ..self }
    }

    /// The same with a pattern's groups.
    pub(crate) fn with(self, groups: &'a [Option<String>]) -> Self {
        Grammar {
            groups: Some(groups),
            ..self
        }
    }

    /// Reads a template of one line.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what may stand there.
    pub(crate) fn parse(&self, text: &str) -> Result<Template, String> {
        if text.bytes().any(is_control) {
            return Err("a value can't hold a control character".to_owned());
        }
        self.parse_body(text)
    }

    /// Reads a template of a body, which may have lines.
    ///
    /// # Errors
    /// As [`Grammar::parse`].
    pub(crate) fn parse_body(&self, text: &str) -> Result<Template, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("it is longer than {MAX_LENGTH} bytes"));
        }
        let mut reader = Reader {
            grammar: self,
            whole: text,
            pieces: Vec::new(),
            literal: String::new(),
        };
        reader.read()?;
        for piece in &mut reader.pieces {
            if let Piece::Text(text) = piece {
                self.own_text(text)?;
            }
        }
        Ok(Template {
            pieces: reader.pieces,
            escape: self.escape,
        })
    }

    /// What the operator wrote must fit as well. In a path or an address it stands as it was written.
    fn own_text(&self, text: &mut Vec<u8>) -> Result<(), String> {
        match self.escape {
            Escape::Query => {
                let written = std::mem::take(text);
                percent_encode(&written, is_unreserved, text);
            }
            Escape::Cookie => {
                let may_not = |byte: &&u8| !byte.is_ascii_graphic() || b"\",;\\".contains(byte);
                if let Some(byte) = text.iter().find(may_not) {
                    let letter = char::from(*byte);
                    return Err(format!(
                        "a cookie's value can't hold `{letter}`; write it percent-encoded"
                    ));
                }
            }
            Escape::Field | Escape::Url | Escape::Html | Escape::Json => {}
        }
        Ok(())
    }

    /// Text as it stands, without places.
    pub(crate) fn text(&self, text: &str) -> Template {
        Template {
            pieces: vec![Piece::Text(text.as_bytes().to_vec())],
            escape: self.escape,
        }
    }
}

pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

struct Reader<'a> {
    grammar: &'a Grammar<'a>,
    whole: &'a str,
    pieces: Vec<Piece>,
    literal: String,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        let marks: &[char] = if self.grammar.groups.is_some() {
            &['{', '}', '$']
        } else {
            &['{', '}']
        };
        let whole = self.whole;
        let mut rest = whole;
        while let Some(at) = rest.find(marks) {
            let (before, from) = rest.split_at(at);
            self.literal.push_str(before);
            rest = if let Some(after) = from.strip_prefix("{{") {
                self.literal.push('{');
                after
            } else if let Some(after) = from.strip_prefix("}}") {
                self.literal.push('}');
                after
            } else if let Some(after) = from.strip_prefix("$$") {
                self.literal.push('$');
                after
            } else if let Some(after) = from.strip_prefix('$') {
                self.group(after)?
            } else if let Some(after) = from.strip_prefix('{') {
                let (inside, after) = inside(after).ok_or_else(|| {
                    format!("`{whole}` has a `{{` without its `}}`; write `{{{{` for a brace")
                })?;
                let place = self.place(inside)?;
                self.push(place);
                after
            } else {
                return Err(format!(
                    "`{whole}` has a `}}` without its `{{`; write `}}}}` for a brace"
                ));
            };
        }
        self.literal.push_str(rest);
        self.end_literal();
        Ok(())
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            let text = std::mem::take(&mut self.literal);
            self.pieces.push(Piece::Text(text.into_bytes()));
        }
    }

    fn push(&mut self, place: Place) {
        self.end_literal();
        self.pieces.push(Piece::Place(place));
    }

    /// `$1` or `${name}`, behind the dollar. Gives what is left.
    fn group<'t>(&mut self, after: &'t str) -> Result<&'t str, String> {
        let (name, rest) = if let Some(inside) = after.strip_prefix('{') {
            inside
                .split_once('}')
                .ok_or_else(|| format!("`{}` has a `${{` without its `}}`", self.whole))?
        } else {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return Err(format!(
                    "`{}` has a `$` that names no group; write `$1`, `${{name}}`, or `$$` for a dollar",
                    self.whole
                ));
            }
            after.split_at(digits)
        };
        let source = self.capture(name)?;
        self.push(Place {
            source,
            filters: Vec::new(),
        });
        Ok(rest)
    }

    fn capture(&self, name: &str) -> Result<Source, String> {
        let groups = self
            .grammar
            .groups
            .ok_or_else(|| format!("`{{${name}}}` needs a pattern whose groups it can name"))?;
        let index = match name.parse::<usize>() {
            Ok(index) => (index < groups.len()).then_some(index),
            Err(_) => groups
                .iter()
                .position(|group| group.as_deref() == Some(name)),
        };
        index.map(Source::Capture).ok_or_else(|| {
            format!(
                "the pattern has no group `{name}`; it has {} numbered ones",
                groups.len().saturating_sub(1)
            )
        })
    }

    fn place(&self, inside: &str) -> Result<Place, String> {
        let mut parts = bars(inside);
        let source = self.source(parts.next().unwrap_or_default())?;
        let filters: Vec<Filter> = parts
            .map(|part| self.filter(part))
            .collect::<Result<_, String>>()?;
        if filters.len() > MAX_FILTERS {
            return Err(format!(
                "`{{{inside}}}` has more than {MAX_FILTERS} filters"
            ));
        }
        Ok(Place { source, filters })
    }

    fn source(&self, text: &str) -> Result<Source, String> {
        let text = text.trim_ascii();
        if let Some(name) = text.strip_prefix('$') {
            return self.capture(name);
        }
        let source = Source::parse(text)?;
        if source.is_of_response() && !self.grammar.response {
            return Err(format!(
                "`{{{text}}}` is not known here, because there is no response yet"
            ));
        }
        Ok(source)
    }

    fn filter(&self, text: &str) -> Result<Filter, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name.trim_ascii(), Some(unquoted(argument))),
            None => (text.trim_ascii(), None),
        };
        if name == "or" {
            let of = argument.ok_or("`or` needs a source behind a colon")?;
            return self.source(of).map(Filter::Or);
        }
        Filter::parse(name, argument)
    }
}

/// What stands before the closing brace, which is not one in quotes, and what stands behind it.
fn inside(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let end = text.bytes().position(|byte| {
        quoted ^= byte == b'\'';
        byte == b'}' && !quoted
    })?;
    let (inside, rest) = text.split_at(end);
    Some((inside, rest.strip_prefix('}')?))
}

/// The parts between bars that are not in quotes.
fn bars(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter| {
        quoted ^= letter == '\'';
        letter == '|' && !quoted
    })
}

fn unquoted(text: &str) -> &str {
    let trimmed = text.trim_ascii();
    trimmed
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap_or(trimmed)
}
