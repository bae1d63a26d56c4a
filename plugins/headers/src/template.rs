//! Values with `{...}` in them, read once and filled in for each exchange. Knows where a value comes from only as a
//! [`Source`]; whoever renders says what it is.

/// What a `{...}` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `{client-address}`
    ClientAddress,
    /// `{route}`
    Route,
    /// `{request-id}`
    RequestId,
    /// `{method}`
    Method,
    /// `{path}`
    Path,
    /// `{query}`
    Query,
    /// `{host}`
    Host,
    /// `{scheme}`
    Scheme,
    /// `{param:NAME}`: what the route's path found.
    Parameter(String),
    /// `{header:NAME}`: a field of the request.
    Header(String),
    /// `{response:NAME}`: a field of the response; empty in rules on the request.
    Response(String),
    /// `{property:NAME}`: what an earlier filter left, such as `consumer`.
    Property(String),
}

/// A value, cut at its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Source),
}

impl Template {
    /// Reads a value. `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what may stand there.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(inside) = from.strip_prefix('{') {
                let (name, after) = inside.split_once('}').ok_or_else(|| {
                    format!("`{text}` has a `{{` without its `}}`; write `{{{{` for a brace")
                })?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Place(source(name)?));
                rest = after;
            } else {
                return Err(format!(
                    "`{text}` has a `}}` without its `{{`; write `}}}}` for a brace"
                ));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Template { pieces })
    }

    /// The value, with each place filled in by `fill`. What could end a line is left out of what is filled in, so
    /// that no value from outside can break a field.
    pub(crate) fn render(&self, mut fill: impl FnMut(&Source, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Place(source) => {
                    let from = out.len();
                    fill(source, &mut out);
                    let mut filled = out.split_off(from);
                    filled.retain(|byte| *byte == b'\t' || !byte.is_ascii_control());
                    out.append(&mut filled);
                }
            }
        }
        out
    }

    /// The value itself, if it has no places.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

fn source(name: &str) -> Result<Source, String> {
    const KNOWN: &str = "client-address, route, request-id, method, path, query, host, scheme, param:NAME, \
                         header:NAME, response:NAME, property:NAME";
    Ok(match name.split_once(':') {
        None => match name {
            "client-address" => Source::ClientAddress,
            "route" => Source::Route,
            "request-id" => Source::RequestId,
            "method" => Source::Method,
            "path" => Source::Path,
            "query" => Source::Query,
            "host" => Source::Host,
            "scheme" => Source::Scheme,
            _ => return Err(format!("`{{{name}}}` stands for nothing; there is {KNOWN}")),
        },
        Some((_, "")) => return Err(format!("`{{{name}}}` needs a name behind the colon")),
        Some(("param", of)) => Source::Parameter(of.to_owned()),
        Some(("header", of)) => Source::Header(of.to_ascii_lowercase()),
        Some(("response", of)) => Source::Response(of.to_ascii_lowercase()),
        Some(("property", of)) => Source::Property(of.to_owned()),
        Some(_) => return Err(format!("`{{{name}}}` stands for nothing; there is {KNOWN}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, value: &str) -> String {
        let template = Template::parse(text).unwrap();
        String::from_utf8(template.render(|_, out| out.extend_from_slice(value.as_bytes())))
            .unwrap()
    }

    #[test]
    fn places_are_filled_in_and_braces_can_be_written() {
        assert_eq!(render("a {route} b{path}", "X"), "a X bX");
        assert_eq!(render("{{route}} }}{{", "X"), "{route} }{");
        assert_eq!(render("", "X"), "");
        assert_eq!(Template::parse("plain").unwrap().literal(), Some("plain"));
        assert_eq!(Template::parse("{route}").unwrap().literal(), None);
    }

    #[test]
    fn a_value_from_outside_cannot_break_a_field() {
        assert_eq!(
            render("v={header:x}", "a\r\nset-cookie: b\0"),
            "v=aset-cookie: b"
        );
    }

    #[test]
    fn what_stands_for_nothing_is_named() {
        for (text, word) in [
            ("{clientip}", "`{clientip}`"),
            ("{header:}", "needs a name"),
            ("{cookie:a}", "`{cookie:a}`"),
            ("a{b", "without"),
            ("a}b", "without"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
