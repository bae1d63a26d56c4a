//! What a filter's calls changed of an exchange, kept so that it can be taken back when one of them fails and the exchange
//! goes on without the filter. Notes what was there before, and only of what is changed; knows no filter and no policy.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode};

use crate::exchange::{Part, RequestHead, ResponseHead};

/// So many changes of heads are noted one by one. At the next one the heads are kept whole, so that a guest that changes
/// a field for ever takes no more memory.
const ONE_BY_ONE: usize = 16;

/// What was there before.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    on: bool,
    changes: Vec<Change>,
    /// The heads as they were before all of it, once there were too many changes.
    heads: Option<Box<(RequestHead, Option<ResponseHead>)>>,
    properties: Vec<(String, Option<Vec<u8>>)>,
    /// The first property of the call that runs.
    since: usize,
}

/// One thing as it was before it was changed.
#[derive(Debug)]
pub(crate) enum Change {
    Field {
        part: Part,
        name: HeaderName,
        first: Option<HeaderValue>,
        more: Vec<HeaderValue>,
    },
    Method(Method),
    Scheme(Scheme),
    Authority(Option<Authority>),
    Target(PathAndQuery),
    Status(StatusCode),
}

impl Journal {
    /// A call begins. `fresh` says that a head has come to a filter: what was noted before is settled.
    pub(crate) fn begin(&mut self, on: bool, fresh: bool) {
        self.on = on;
        if fresh {
            self.changes.clear();
            self.heads = None;
            self.properties.clear();
        }
        self.since = self.properties.len();
    }

    /// A call that could change no head ended well: its properties stay.
    pub(crate) fn keep(&mut self) {
        self.properties.truncate(self.since);
    }

    /// Whether the heads should be kept whole before the next change.
    pub(crate) fn is_full(&self) -> bool {
        self.on && self.heads.is_none() && self.changes.len() >= ONE_BY_ONE
    }

    /// Keeps the heads whole, as they were.
    pub(crate) fn keep_heads(&mut self, request: RequestHead, response: Option<ResponseHead>) {
        self.heads = Some(Box::new((request, response)));
    }

    /// Notes a change that is about to be made.
    pub(crate) fn note(&mut self, change: impl FnOnce() -> Change) {
        if self.on && self.heads.is_none() {
            self.changes.push(change());
        }
    }

    /// Notes a field that is about to be changed. Trailers are not noted: whoever shows them keeps a copy.
    pub(crate) fn note_field(&mut self, part: Part, name: &HeaderName, fields: &HeaderMap) {
        if !matches!(part, Part::Request | Part::Response) {
            return;
        }
        self.note(|| {
            let mut values = fields.get_all(name).iter().cloned();
            Change::Field {
                part,
                name: name.clone(),
                first: values.next(),
                more: values.collect(),
            }
        });
    }

    /// Notes a property that is about to be changed; only its first change of a call matters. There are never more than
    /// an exchange may have.
    pub(crate) fn note_property(&mut self, name: &str, before: Option<&[u8]>) {
        let here = self.properties.get(self.since..).unwrap_or_default();
        if self.on && !here.iter().any(|(known, _)| known == name) {
            let before = before.map(<[u8]>::to_vec);
            self.properties.push((name.to_owned(), before));
        }
    }

    /// Takes back what was changed of the heads.
    pub(crate) fn undo_heads(
        &mut self,
        request: &mut RequestHead,
        response: &mut Option<ResponseHead>,
    ) {
        if let Some(heads) = self.heads.take() {
            self.changes.clear();
            (*request, *response) = *heads;
            return;
        }
        while let Some(change) = self.changes.pop() {
            change.undo(request, response.as_mut());
        }
    }

    /// The next property to take back, the last one first: of everything noted, or of the call that runs.
    pub(crate) fn pop_property(&mut self, all: bool) -> Option<(String, Option<Vec<u8>>)> {
        if all || self.properties.len() > self.since {
            self.properties.pop()
        } else {
            None
        }
    }
}

impl Change {
    fn undo(self, request: &mut RequestHead, response: Option<&mut ResponseHead>) {
        match self {
            Change::Field {
                part,
                name,
                first,
                more,
            } => {
                let fields = match part {
                    Part::Request => Some(&mut request.fields),
                    _ => response.map(|head| &mut head.fields),
                };
                if let Some(fields) = fields {
                    put_back(fields, name, first, more);
                }
            }
            Change::Method(method) => request.method = method,
            Change::Scheme(scheme) => request.scheme = scheme,
            Change::Authority(authority) => request.authority = authority,
            Change::Target(target) => request.target = target,
            Change::Status(status) => {
                if let Some(head) = response {
                    head.status = status;
                }
            }
        }
    }
}

fn put_back(
    fields: &mut HeaderMap,
    name: HeaderName,
    first: Option<HeaderValue>,
    more: Vec<HeaderValue>,
) {
    let Some(first) = first else {
        if let Entry::Occupied(entry) = fields.entry(name) {
            entry.remove_entry_mult();
        }
        return;
    };
    if more.is_empty() {
        fields.insert(name, first);
        return;
    }
    fields.insert(name.clone(), first);
    for value in more {
        fields.append(name.clone(), value);
    }
}
