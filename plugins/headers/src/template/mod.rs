//! Values with `{...}` in them, read once and filled in for each exchange. Knows where a value comes from only as a
//! [`Source`]; [`Facts`](crate::facts::Facts) says what it is.

mod filter;
mod parse;
mod render;
mod source;

pub(crate) use parse::Grammar;
pub(crate) use source::{CertificatePart, Source, TimeFormat, Unit};

pub(crate) use filter::{Filter, is_unreserved, url_decode};
pub(crate) use render::{percent_encode, without_controls};

/// What a rendered value becomes part of, and so what may not come out of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// A field's value: no control characters.
    Field,
    /// A path or an address: what has a meaning there is percent-encoded.
    Url,
    /// A parameter's value in a query.
    Query,
    /// A cookie's value (RFC 6265 section 4.1.1): what may not stand there is percent-encoded.
    Cookie,
    /// Text in HTML.
    Html,
    /// Inside of a string in JSON.
    Json,
}

/// A value, cut at its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
    escape: Escape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(Vec<u8>),
    Place(Place),
}

/// What stands between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: Source,
    pub(crate) filters: Vec<Filter>,
}

impl Template {
    /// The value itself, if it has no places.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(&[]),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What stands before the first place.
    pub(crate) fn beginning(&self) -> &[u8] {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => &[],
        }
    }

    /// Whether a source is named anywhere in it.
    pub(crate) fn names(&self, which: impl Fn(&Source) -> bool) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Text(_) => false,
            Piece::Place(place) => {
                which(&place.source)
                    || place
                        .filters
                        .iter()
                        .any(|filter| matches!(filter, Filter::Or(source) if which(source)))
            }
        })
    }
}

#[cfg(test)]
mod tests;
