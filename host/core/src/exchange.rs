//! One request and its response while they are here, and the rules on what a filter may change when. Every ABI
//! goes through these methods, so that no carrier can do what another can't. Knows no sockets and no guests.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Version};

use crate::certificate::ClientCertificate;
use crate::fields;
use crate::pace::Pace;
use crate::path::{self, Ambiguous};
use crate::phase::Phase;
use crate::undo::{Change, Journal};

/// The longest name of a property, in bytes.
pub const MAX_PROPERTY_NAME: usize = 64;
/// The longest value of a property, in bytes.
pub const MAX_PROPERTY_VALUE: usize = 4 * 1024;
/// The most properties of one exchange.
pub const MAX_PROPERTIES: usize = 64;

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token, method, status, scheme, authority or path.
    #[error("the name is not valid")]
    InvalidName,
    /// A byte that may not stand there.
    #[error("the value has a character that may not stand there")]
    InvalidValue,
    /// The host answers for this field.
    #[error("this field is the host's")]
    Forbidden,
    /// What would be changed has left already, or has not come yet.
    #[error("it has left already, or has not come yet")]
    TooLate,
    /// Over a bound.
    #[error("it is over the bound")]
    TooLarge,
    /// Not part of this exchange.
    #[error("there is no such thing in this exchange")]
    Absent,
}

/// The four places where fields stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The request's head.
    Request,
    /// The request's trailers.
    RequestTrailers,
    /// The response's head.
    Response,
    /// The response's trailers.
    ResponseTrailers,
}

/// A request's head, in the form that routes and filters see: path normalised, hop-by-hop fields and Host
/// removed (Host is the authority).
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// How the client spoke to us, or to the trusted proxy before us.
    pub scheme: Scheme,
    /// Host and port as the client named them; none only for HTTP/1.0 without Host.
    pub authority: Option<Authority>,
    /// Path in normal form, and query as it was written.
    pub target: PathAndQuery,
    /// The version in which the client spoke.
    pub version: Version,
    /// End-to-end fields.
    pub fields: HeaderMap,
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The final status.
    pub status: StatusCode,
    /// End-to-end fields.
    pub fields: HeaderMap,
}

/// A response that a filter, or the proxy itself, gives in place of an upstream.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Its fields, without framing.
    pub fields: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

/// What is known of a client's TLS connection.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The protocol that was negotiated (ALPN).
    pub alpn: Option<String>,
    /// The certificate that the client showed, if it was asked for one; it was verified.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// Who sent the request.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's address: the peer's, or what a trusted proxy says.
    pub address: std::net::IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The connection's TLS facts.
    pub tls: Option<Arc<TlsFacts>>,
}

/// What the route found in the path: name and percent-decoded value.
pub type PathParameters = Vec<(Arc<str>, String)>;

/// Where in its life an exchange stands; set by the gateway before each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The callback that runs.
    pub phase: Phase,
    /// Whether the head of the direction that `phase` belongs to is still here.
    pub head_open: bool,
}

/// The piece of a body that a body callback was called for.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Bytes,
    added: Vec<u8>,
    changed: bool,
}

impl Chunk {
    /// A piece as it came.
    pub fn new(bytes: Bytes) -> Self {
        Chunk {
            bytes,
            added: Vec::new(),
            changed: false,
        }
    }

    /// Up to `max` bytes from `offset` on.
    pub fn read(&self, offset: u32, max: u32) -> &[u8] {
        let whole: &[u8] = if self.changed {
            &self.added
        } else {
            &self.bytes
        };
        let from = whole.len().min(offset as usize);
        let to = whole.len().min(from.saturating_add(max as usize));
        whole.get(from..to).unwrap_or_default()
    }

    /// How many bytes are at hand.
    pub fn len(&self) -> usize {
        if self.changed {
            self.added.len()
        } else {
            self.bytes.len()
        }
    }

    /// Whether no byte is at hand.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes in place of the piece.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.changed = true;
        self.added.clear();
        self.added.extend_from_slice(bytes);
    }

    /// Adds bytes behind the piece.
    pub fn append(&mut self, bytes: &[u8]) {
        if !self.changed {
            self.changed = true;
            self.added.clear();
            self.added.extend_from_slice(&self.bytes);
        }
        self.added.extend_from_slice(bytes);
    }

    /// What the piece has become.
    pub fn into_bytes(self) -> Bytes {
        if self.changed {
            Bytes::from(self.added)
        } else {
            self.bytes
        }
    }
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// The guests' key for their own state; unique among the exchanges of a worker that are under way.
    pub id: u64,
    /// Where it stands.
    pub stage: Stage,
    /// The request's head. It stays here when a copy has gone to the upstream.
    pub request: RequestHead,
    /// The request's trailers, during their phase.
    pub request_trailers: Option<HeaderMap>,
    /// The response's head, from the moment it has come.
    pub response: Option<ResponseHead>,
    /// The response's trailers, during their phase.
    pub response_trailers: Option<HeaderMap>,
    /// The piece of a body at hand, during a body phase.
    pub chunk: Chunk,
    /// What a filter wants to answer with.
    pub answer: Option<Answer>,
    /// Who sent the request.
    pub client: Client,
    /// The route's name; empty before one is found.
    pub route: Arc<str>,
    /// What stands for the route's `{name}`s.
    pub parameters: PathParameters,
    /// The value of X-Request-Id.
    pub request_id: HeaderValue,
    /// What to do with ambiguous escapes in a path that a filter sets.
    pub ambiguous: Ambiguous,
    /// Whether a part of the response has left.
    pub response_begun: bool,
    /// How it stands in time.
    pub pace: Pace,
    properties: Vec<(String, Vec<u8>)>,
    journal: Journal,
}

/// What a filter may change at the moment, with what becomes of it if the filter fails.
struct Changeable<'a> {
    fields: &'a mut HeaderMap,
    journal: &'a mut Journal,
    name: HeaderName,
}

impl Exchange {
    /// An exchange at its beginning, with the request's head in.
    pub fn new(id: u64, request: RequestHead, client: Client, request_id: HeaderValue) -> Self {
        Exchange {
            id,
            stage: Stage {
                phase: Phase::RequestHead,
                head_open: true,
            },
            request,
            request_trailers: None,
            response: None,
            response_trailers: None,
            chunk: Chunk::default(),
            answer: None,
            client,
            route: Arc::from(""),
            parameters: Vec::new(),
            request_id,
            ambiguous: Ambiguous::Refuse,
            response_begun: false,
            pace: Pace::begin(),
            properties: Vec::new(),
            journal: Journal::default(),
        }
    }

    // --- Calls ---

    /// A call into a filter begins. With `undoable`, what it changes of the heads and properties can be taken back by
    /// [`Exchange::undo`]; that costs something only where something is changed. While a head is held back for its body,
    /// all calls of its filter count as one.
    pub fn begin_call(&mut self, stage: Stage, undoable: bool) {
        self.stage = stage;
        self.answer = None;
        self.pace.begin_call();
        let fresh = matches!(stage.phase, Phase::RequestHead | Phase::ResponseHead);
        self.journal.begin(undoable, fresh);
    }

    /// The call that runs ended well.
    pub fn end_call(&mut self) {
        if !self.stage.head_open {
            self.journal.keep();
        }
    }

    /// The call that runs failed: heads and properties become what they were before it, or, while a head is still here,
    /// before its filter was first called for it.
    pub fn undo(&mut self) {
        let all = self.stage.head_open;
        if all {
            self.journal
                .undo_heads(&mut self.request, &mut self.response);
        }
        while let Some((name, before)) = self.journal.pop_property(all) {
            let held = self.properties.iter_mut().find(|(known, _)| *known == name);
            match (held, before) {
                (Some((_, value)), Some(before)) => *value = before,
                (Some(_), None) => self.properties.retain(|(known, _)| *known != name),
                (None, _) => {}
            }
        }
    }

    /// Notes a change of the request line or the status that is about to be made.
    fn note(&mut self, change: impl FnOnce(&RequestHead) -> Change) {
        self.make_room_for_a_note();
        self.journal.note(|| change(&self.request));
    }

    fn make_room_for_a_note(&mut self) {
        if self.journal.is_full() {
            let (request, response) = (self.request.clone(), self.response.clone());
            self.journal
                .undo_heads(&mut self.request, &mut self.response);
            let before = std::mem::replace(&mut self.request, request);
            let response = std::mem::replace(&mut self.response, response);
            self.journal.keep_heads(before, response);
        }
    }

    // --- Fields ---

    /// The fields of a part, if it is here.
    pub fn fields(&self, part: Part) -> Option<&HeaderMap> {
        match part {
            Part::Request => Some(&self.request.fields),
            Part::RequestTrailers => self.request_trailers.as_ref(),
            Part::Response => self.response.as_ref().map(|response| &response.fields),
            Part::ResponseTrailers => self.response_trailers.as_ref(),
        }
    }

    /// The first value of a field. `host` of a request is its authority.
    pub fn get(&self, part: Part, name: &str) -> Option<&[u8]> {
        if part == Part::Request && name.eq_ignore_ascii_case("host") {
            return self
                .request
                .authority
                .as_ref()
                .map(|authority| authority.as_str().as_bytes());
        }
        fields::find(self.fields(part)?, name).map(HeaderValue::as_bytes)
    }

    /// Puts one value in place of all values of a field.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn set(&mut self, part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let Changeable {
            fields,
            journal,
            name,
        } = self.changeable(part, name)?;
        let value = fields::value(value)?;
        if fields::is_crowded(fields, &value)
            && (value.len() > fields::SHORT || !fields.contains_key(&name))
        {
            fields::room(fields, &name, &value)?;
        }
        journal.note_field(part, &name, fields);
        fields.insert(name, value);
        Ok(())
    }

    /// Adds a value behind those that a field has.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn append(&mut self, part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let Changeable {
            fields,
            journal,
            name,
        } = self.changeable(part, name)?;
        let value = fields::value(value)?;
        fields::room(fields, &name, &value)?;
        journal.note_field(part, &name, fields);
        fields.append(name, value);
        Ok(())
    }

    /// Removes all values of a field and says how many there were.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn remove(&mut self, part: Part, name: &str) -> Result<u32, Refusal> {
        let Changeable {
            fields,
            journal,
            name,
        } = self.changeable(part, name)?;
        if !fields.contains_key(&name) {
            return Ok(0);
        }
        journal.note_field(part, &name, fields);
        let mut removed = 0;
        if let http::header::Entry::Occupied(entry) = fields.entry(name) {
            removed = u32::try_from(entry.iter().count()).unwrap_or(u32::MAX);
            entry.remove_entry_mult();
        }
        Ok(removed)
    }

    /// The fields of a part that a filter may change now, and the name of one of them.
    fn changeable(&mut self, part: Part, name: &str) -> Result<Changeable<'_>, Refusal> {
        if !self.may_change(part) {
            return Err(Refusal::TooLate);
        }
        self.make_room_for_a_note();
        let name = fields::name(name)?;
        let fields = match part {
            Part::Request => Some(&mut self.request.fields),
            Part::RequestTrailers => self.request_trailers.as_mut(),
            Part::Response => self.response.as_mut().map(|response| &mut response.fields),
            Part::ResponseTrailers => self.response_trailers.as_mut(),
        };
        let forbidden = match part {
            Part::Request | Part::Response => fields::is_hosts(name.as_str()),
            Part::RequestTrailers | Part::ResponseTrailers => !fields::may_trail(name.as_str()),
        };
        if forbidden {
            return Err(Refusal::Forbidden);
        }
        Ok(Changeable {
            fields: fields.ok_or(Refusal::Absent)?,
            journal: &mut self.journal,
            name,
        })
    }

    /// Whether a part is here to be changed in the phase that runs.
    fn may_change(&self, part: Part) -> bool {
        let Stage { phase, head_open } = self.stage;
        match part {
            Part::Request => {
                phase == Phase::RequestHead || (phase == Phase::RequestBody && head_open)
            }
            Part::RequestTrailers => phase == Phase::RequestTrailers,
            Part::Response => {
                phase == Phase::ResponseHead || (phase == Phase::ResponseBody && head_open)
            }
            Part::ResponseTrailers => phase == Phase::ResponseTrailers,
        }
    }

    // --- The request line ---

    /// Sets the method.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for what is no token; `CONNECT` is [`Refusal::Forbidden`].
    pub fn set_method(&mut self, method: &str) -> Result<(), Refusal> {
        self.request_line_open()?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::InvalidName)?;
        if method == Method::CONNECT {
            return Err(Refusal::Forbidden);
        }
        self.note(|request| Change::Method(request.method.clone()));
        self.request.method = method;
        Ok(())
    }

    /// Sets the scheme that the upstream is told.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for anything but `http` and `https`.
    pub fn set_scheme(&mut self, scheme: &str) -> Result<(), Refusal> {
        self.request_line_open()?;
        let scheme = match scheme {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(Refusal::InvalidName),
        };
        self.note(|request| Change::Scheme(request.scheme.clone()));
        self.request.scheme = scheme;
        Ok(())
    }

    /// Sets host and port.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for no `host[:port]`, user information included.
    pub fn set_authority(&mut self, authority: &str) -> Result<(), Refusal> {
        self.request_line_open()?;
        if authority.contains('@') {
            return Err(Refusal::InvalidName);
        }
        let authority = authority
            .parse::<Authority>()
            .map_err(|_| Refusal::InvalidName)?;
        self.note(|request| Change::Authority(request.authority.clone()));
        self.request.authority = Some(authority);
        Ok(())
    }

    /// Sets the path, in normal form, and leaves the query.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for what has no normal form (see [`path::normalise`]).
    pub fn set_path(&mut self, path: &str) -> Result<(), Refusal> {
        self.request_line_open()?;
        if path.len() > fields::MAX_VALUE {
            return Err(Refusal::TooLarge);
        }
        let path = path::normalise(path, self.ambiguous).map_err(|_| Refusal::InvalidName)?;
        self.put_target(target(&path, self.request.target.query())?);
        Ok(())
    }

    /// Sets what stands behind the question mark, or removes it.
    ///
    /// # Errors
    /// [`Refusal::InvalidValue`] for characters that may not stand in a query.
    pub fn set_query(&mut self, query: Option<&str>) -> Result<(), Refusal> {
        self.request_line_open()?;
        if query.is_some_and(|query| query.len() > fields::MAX_VALUE) {
            return Err(Refusal::TooLarge);
        }
        // A fragment would be cut off in silence by the parser, everything else it refuses itself.
        if query.is_some_and(|query| {
            !query
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        }) {
            return Err(Refusal::InvalidValue);
        }
        self.put_target(target(self.request.target.path(), query)?);
        Ok(())
    }

    fn put_target(&mut self, target: PathAndQuery) {
        self.note(|request| Change::Target(request.target.clone()));
        self.request.target = target;
    }

    fn request_line_open(&self) -> Result<(), Refusal> {
        if self.may_change(Part::Request) {
            Ok(())
        } else {
            Err(Refusal::TooLate)
        }
    }

    // --- The response ---

    /// Sets the response's status, 200 to 599.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for another number, [`Refusal::TooLate`] outside of the response's head.
    pub fn set_status(&mut self, status: u16) -> Result<(), Refusal> {
        if !self.may_change(Part::Response) {
            return Err(Refusal::TooLate);
        }
        let status = final_status(status)?;
        let before = self.response.as_ref().ok_or(Refusal::Absent)?.status;
        self.note(|_| Change::Status(before));
        if let Some(head) = &mut self.response {
            head.status = status;
        }
        Ok(())
    }

    /// Keeps an answer that is sent when the filter's callback asks for it.
    ///
    /// # Errors
    /// [`Refusal::TooLate`] if a part of a response has left, else what its status or fields are refused for.
    pub fn give_answer<'a>(
        &mut self,
        status: u16,
        answer_fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let answerable = match self.stage.phase {
            Phase::RequestHead
            | Phase::RequestBody
            | Phase::RequestTrailers
            | Phase::ResponseHead => true,
            Phase::ResponseBody => self.stage.head_open,
            Phase::Configure | Phase::ResponseTrailers | Phase::Log => false,
        };
        if !answerable || self.response_begun {
            return Err(Refusal::TooLate);
        }
        let status = final_status(status)?;
        let mut kept = HeaderMap::new();
        for (name, value) in answer_fields {
            let name = fields::name(name)?;
            if fields::is_hosts(name.as_str()) {
                return Err(Refusal::Forbidden);
            }
            let value = fields::value(value)?;
            fields::room(&kept, &name, &value)?;
            kept.append(name, value);
        }
        self.answer = Some(Answer {
            status,
            fields: kept,
            body,
        });
        Ok(())
    }

    // --- Facts ---

    /// What stands for a `{name}` of the route's path.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| &**known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// Leaves a value for the filters behind.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for an empty name, [`Refusal::TooLarge`] over the bounds of this module.
    pub fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::InvalidName);
        }
        if name.len() > MAX_PROPERTY_NAME || value.len() > MAX_PROPERTY_VALUE {
            return Err(Refusal::TooLarge);
        }
        if let Some((_, held)) = self.properties.iter_mut().find(|(known, _)| known == name) {
            self.journal.note_property(name, Some(held));
            held.clear();
            held.extend_from_slice(value);
        } else if self.properties.len() == MAX_PROPERTIES {
            return Err(Refusal::TooLarge);
        } else {
            self.journal.note_property(name, None);
            self.properties.push((name.to_owned(), value.to_vec()));
        }
        Ok(())
    }
}

fn target(path: &str, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    match query {
        None => PathAndQuery::try_from(path),
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
    }
    .map_err(|_| Refusal::InvalidValue)
}

fn final_status(status: u16) -> Result<StatusCode, Refusal> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Ok(code),
        _ => Err(Refusal::InvalidName),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let request = RequestHead {
            method: Method::GET,
            scheme: Scheme::HTTP,
            authority: Some(Authority::from_static("a.example:81")),
            target: PathAndQuery::from_static("/a?b=c"),
            version: Version::HTTP_11,
            fields: HeaderMap::new(),
        };
        let client = Client {
            address: std::net::IpAddr::from([127, 0, 0, 1]),
            peer: SocketAddr::from(([127, 0, 0, 1], 4000)),
            tls: None,
        };
        Exchange::new(7, request, client, HeaderValue::from_static("id"))
    }

    #[test]
    fn fields_are_set_appended_and_removed_without_regard_to_case() {
        let mut exchange = exchange();
        exchange.append(Part::Request, "X-A", b"1").unwrap();
        exchange.append(Part::Request, "x-a", b"2").unwrap();
        assert_eq!(exchange.get(Part::Request, "x-A"), Some(&b"1"[..]));
        assert_eq!(exchange.remove(Part::Request, "X-a"), Ok(2));
        assert_eq!(exchange.remove(Part::Request, "X-a"), Ok(0));
        assert_eq!(
            exchange.get(Part::Request, "Host"),
            Some(&b"a.example:81"[..])
        );
    }

    #[test]
    fn what_is_the_hosts_or_has_left_is_refused_with_its_reason() {
        let mut exchange = exchange();
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "upgrade",
        ] {
            assert_eq!(
                exchange.set(Part::Request, name, b"1"),
                Err(Refusal::Forbidden),
                "{name}"
            );
        }
        assert_eq!(
            exchange.set(Part::Response, "x-a", b"1"),
            Err(Refusal::TooLate)
        );
        exchange.stage = Stage {
            phase: Phase::RequestBody,
            head_open: false,
        };
        assert_eq!(
            exchange.set(Part::Request, "x-a", b"1"),
            Err(Refusal::TooLate)
        );
        assert_eq!(exchange.set_path("/b"), Err(Refusal::TooLate));
        exchange.stage.head_open = true;
        assert_eq!(exchange.set(Part::Request, "x-a", b"1"), Ok(()));
        exchange.stage = Stage {
            phase: Phase::RequestTrailers,
            head_open: false,
        };
        assert_eq!(
            exchange.set(Part::RequestTrailers, "x-a", b"1"),
            Err(Refusal::Absent)
        );
        exchange.request_trailers = Some(HeaderMap::new());
        assert_eq!(
            exchange.set(Part::RequestTrailers, "authorization", b"1"),
            Err(Refusal::Forbidden)
        );
        assert_eq!(exchange.set(Part::RequestTrailers, "x-a", b"1"), Ok(()));
    }

    #[test]
    fn a_path_that_is_set_is_normalised_and_keeps_the_query() {
        let mut exchange = exchange();
        exchange.set_path("/x/../y%41").unwrap();
        assert_eq!(exchange.request.target, "/yA?b=c");
        exchange.set_query(None).unwrap();
        assert_eq!(exchange.request.target, "/yA");
        assert_eq!(exchange.set_path("/a\r\nb"), Err(Refusal::InvalidName));
        assert_eq!(exchange.set_path("/a?b"), Err(Refusal::InvalidName));
        assert_eq!(exchange.set_query(Some("a#b")), Err(Refusal::InvalidValue));
        assert_eq!(exchange.set_query(Some("a b")), Err(Refusal::InvalidValue));
    }

    #[test]
    fn an_answer_is_checked_as_a_whole() {
        let mut exchange = exchange();
        let refused = exchange.give_answer(200, [("content-length", &b"5"[..])], Bytes::new());
        assert_eq!(refused, Err(Refusal::Forbidden));
        assert!(exchange.answer.is_none());
        assert_eq!(
            exchange.give_answer(101, [], Bytes::new()),
            Err(Refusal::InvalidName)
        );
        exchange
            .give_answer(403, [("x-a", &b"1"[..])], Bytes::from_static(b"no"))
            .unwrap();
        exchange.stage = Stage {
            phase: Phase::ResponseBody,
            head_open: false,
        };
        assert_eq!(
            exchange.give_answer(200, [], Bytes::new()),
            Err(Refusal::TooLate)
        );
    }

    #[test]
    fn a_chunk_reads_as_it_was_changed() {
        let mut chunk = Chunk::new(Bytes::from_static(b"hello"));
        assert_eq!(chunk.read(1, 3), b"ell");
        assert_eq!(chunk.read(9, 3), b"");
        assert_eq!(chunk.read(3, u32::MAX), b"lo");
        chunk.append(b"!");
        assert_eq!(chunk.read(0, 9), b"hello!");
        chunk.replace(b"");
        assert!(chunk.is_empty());
        assert_eq!(chunk.into_bytes(), Bytes::new());
    }

    /// Calls in that phase, with what is changed to be taken back if need be.
    fn begin(exchange: &mut Exchange, phase: Phase, head_open: bool) {
        exchange.begin_call(Stage { phase, head_open }, true);
    }

    #[test]
    fn what_a_failed_call_changed_is_taken_back() {
        let mut exchange = exchange();
        for (name, value) in [("x-two", "1"), ("x-two", "2"), ("x-one", "1")] {
            let value = HeaderValue::from_static(value);
            exchange.request.fields.append(name, value);
        }
        exchange.set_property("kept", b"before").unwrap();
        let before = format!("{:?}", exchange.request);
        // Few changes are noted one by one; of many, the heads are kept.
        for rounds in [1, 40] {
            begin(&mut exchange, Phase::RequestHead, true);
            for _ in 0..rounds {
                exchange.set(Part::Request, "x-one", b"9").unwrap();
                exchange.append(Part::Request, "x-two", b"9").unwrap();
                exchange.append(Part::Request, "x-new", b"9").unwrap();
                exchange.remove(Part::Request, "x-none").unwrap();
                exchange.set_method("PUT").unwrap();
                exchange.set_scheme("https").unwrap();
                exchange.set_authority("b.example").unwrap();
                exchange.set_path("/b").unwrap();
                exchange.set_query(Some("d")).unwrap();
                exchange.set_property("kept", b"after").unwrap();
                exchange.set_property("new", b"after").unwrap();
            }
            exchange.remove(Part::Request, "x-two").unwrap();
            exchange.undo();
            assert_eq!(format!("{:?}", exchange.request), before, "{rounds}");
            assert_eq!(exchange.property("kept"), Some(&b"before"[..]));
            assert_eq!(exchange.property("new"), None);
        }
        assert!(format!("{:?}", exchange.journal).len() < 500);
    }

    #[test]
    fn calls_for_a_head_that_is_held_back_are_one() {
        let mut exchange = exchange();
        exchange.response = Some(ResponseHead {
            status: StatusCode::OK,
            fields: HeaderMap::new(),
        });
        begin(&mut exchange, Phase::ResponseHead, true);
        exchange.set_status(500).unwrap();
        exchange.set(Part::Response, "x-a", b"1").unwrap();
        exchange.end_call();
        // Meanwhile another filter sees a piece of a body; it fails too.
        begin(&mut exchange, Phase::RequestBody, false);
        exchange.set_property("other", b"1").unwrap();
        exchange.undo();
        assert_eq!(exchange.property("other"), None);
        assert_eq!(exchange.response.as_ref().unwrap().status, 500);
        begin(&mut exchange, Phase::ResponseBody, true);
        exchange.append(Part::Response, "x-a", b"2").unwrap();
        exchange.undo();
        let response = exchange.response.as_ref().unwrap();
        assert_eq!((response.status.as_u16(), response.fields.len()), (200, 0));
    }

    #[test]
    fn what_a_call_that_ended_well_changed_stays() {
        let mut exchange = exchange();
        begin(&mut exchange, Phase::RequestHead, true);
        exchange.set(Part::Request, "x-a", b"1").unwrap();
        exchange.end_call();
        begin(&mut exchange, Phase::RequestHead, true);
        exchange.set(Part::Request, "x-a", b"2").unwrap();
        exchange.undo();
        assert_eq!(exchange.get(Part::Request, "x-a"), Some(&b"1"[..]));
        // Without need, nothing is noted.
        let stage = exchange.stage;
        exchange.begin_call(stage, false);
        exchange.set(Part::Request, "x-a", b"3").unwrap();
        exchange.undo();
        assert_eq!(exchange.get(Part::Request, "x-a"), Some(&b"3"[..]));
    }

    #[test]
    fn properties_are_bounded() {
        let mut exchange = exchange();
        for n in 0..MAX_PROPERTIES {
            exchange.set_property(&format!("p{n}"), b"v").unwrap();
        }
        assert_eq!(exchange.set_property("more", b"v"), Err(Refusal::TooLarge));
        assert_eq!(exchange.set_property("p1", b"w"), Ok(()));
        assert_eq!(exchange.property("p1"), Some(&b"w"[..]));
    }
}
