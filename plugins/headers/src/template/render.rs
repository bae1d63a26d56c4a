//! Fills templates in. Whatever comes out of a place is made harmless for what it becomes part of, after its filters, so that
//! no value from outside can break a field, a path, a cookie or a page.

use super::filter::is_unreserved;
use super::parse::is_control;
use super::{Escape, Filter, Piece, Place, Source, Template};
use crate::facts::Facts;

/// The longest value that is rendered; the host takes no longer one.
const MAX_VALUE: usize = 64 * 1024;

impl Template {
    /// Writes the value behind what is in `out`.
    pub(crate) fn render(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        self.render_with(facts, &[], out);
    }

    /// The same, with what a pattern's groups found.
    pub(crate) fn render_with(
        &self,
        facts: &dyn Facts,
        captures: &[Option<&[u8]>],
        out: &mut Vec<u8>,
    ) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Place(place) if place.is_plain(self.escape) => {
                    let from = out.len();
                    write(&place.source, facts, captures, out);
                    without_controls(out, from);
                }
                Piece::Place(place) => place.render(self.escape, facts, captures, out),
            }
        }
    }
}

impl Place {
    /// Whether its source's own words can be written as they are, but for control characters.
    fn is_plain(&self, escape: Escape) -> bool {
        self.filters.is_empty()
            && match escape {
                Escape::Field => true,
                Escape::Url => self.source.is_encoded(),
                // What a pattern found in a cookie stands as it stood there.
                Escape::Cookie => matches!(self.source, Source::Capture(_)),
                Escape::Query | Escape::Html | Escape::Json => false,
            }
    }

    fn render(
        &self,
        escape: Escape,
        facts: &dyn Facts,
        captures: &[Option<&[u8]>],
        out: &mut Vec<u8>,
    ) {
        let mut value = Vec::new();
        write(&self.source, facts, captures, &mut value);
        let mut encoded = self.source.is_encoded();
        for filter in &self.filters {
            value.truncate(MAX_VALUE);
            match filter {
                Filter::Or(source) if value.is_empty() => {
                    write(source, facts, captures, &mut value);
                    encoded = source.is_encoded();
                }
                Filter::UrlDecode | Filter::Base64Decode => {
                    filter.apply(&mut value);
                    encoded = false;
                }
                Filter::UrlEncode => {
                    filter.apply(&mut value);
                    encoded = true;
                }
                // What the operator wrote stands as it was written.
                Filter::Fallback(_) if value.is_empty() => {
                    filter.apply(&mut value);
                    encoded = true;
                }
                filter => filter.apply(&mut value),
            }
        }
        let from = out.len();
        match escape {
            Escape::Field => out.extend_from_slice(&value),
            Escape::Url if encoded => out.extend_from_slice(&value),
            // A rest of a path has its slashes.
            Escape::Url if matches!(&self.source, Source::Parameter(name) if name == "*") => {
                percent_encode(&value, |byte| is_segment(byte) || byte == b'/', out);
            }
            Escape::Url => percent_encode(&value, is_segment, out),
            Escape::Query => percent_encode(&value, is_unreserved, out),
            Escape::Cookie => percent_encode(&value, is_cookie_octet, out),
            Escape::Html => html(&value, out),
            Escape::Json => json(&value, out),
        }
        if !matches!(escape, Escape::Html | Escape::Json) {
            without_controls(out, from);
        }
    }
}

fn write(source: &Source, facts: &dyn Facts, captures: &[Option<&[u8]>], out: &mut Vec<u8>) {
    if let Source::Capture(index) = source {
        out.extend_from_slice(captures.get(*index).copied().flatten().unwrap_or_default());
    } else {
        facts.write(source, out);
    }
}

/// Leaves out control characters behind `from`; there are none as a rule.
pub(crate) fn without_controls(out: &mut Vec<u8>, from: usize) {
    let added = out.get(from..).unwrap_or_default();
    if added.iter().any(|byte| is_control(*byte)) {
        let mut added = out.split_off(from);
        added.retain(|byte| !is_control(*byte));
        out.append(&mut added);
    }
}

/// Writes `value` with every byte percent-encoded that may not stand as it is.
pub(crate) fn percent_encode(value: &[u8], plain: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    for byte in value {
        if plain(*byte) {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.extend(super::filter::hex(&[*byte]).to_ascii_uppercase());
        }
    }
}

/// What may stand in one segment of a path (RFC 3986 section 3.3), less what servers take for a parameter's beginning.
fn is_segment(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte)
}

fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\%".contains(&byte)
}

fn html(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            byte => out.push(*byte),
        }
    }
}

fn json(value: &[u8], out: &mut Vec<u8>) {
    // JSON is UTF-8 (RFC 8259 section 8.1); a value need not be.
    for byte in String::from_utf8_lossy(value).bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend(super::filter::hex(&[byte]));
            }
            byte => out.push(byte),
        }
    }
}
