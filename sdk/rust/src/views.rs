//! What a phase shows of an exchange: each view has what its phase may do and nothing else.

use crate::host::{self, Part};
use crate::phase::Refusal;

/// What is known of the client's TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite's IANA name.
    pub cipher: String,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// The protocol that was negotiated.
    pub alpn: Option<String>,
}

/// What a client's certificate says. Names in it are the issuer's word; the proxy has verified in the handshake that it issued
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The subject's distinguished name as RFC 4514 writes it, most specific part first; may be empty.
    pub subject: String,
    /// The issuer's, likewise.
    pub issuer: String,
    /// The serial number in lower-case hexadecimal digits, without leading zeros.
    pub serial: String,
    /// The first second in which it holds, counted from 1970-01-01T00:00:00Z.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
    /// SHA-256 of the whole certificate (DER), in 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Alternative names of the subject: host names.
    pub dns_names: Vec<String>,
    /// URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// IP addresses as text.
    pub ip_addresses: Vec<String>,
}

/// Facts that every phase shows.
macro_rules! facts {
    ($view:ident) => {
        impl $view {
            /// The request's method, such as `GET`.
            pub fn method(&self) -> String {
                host::method()
            }

            /// `http` or `https`.
            pub fn scheme(&self) -> String {
                host::scheme()
            }

            /// Host and port as the client named them.
            pub fn authority(&self) -> String {
                host::authority()
            }

            /// The path in its normal form, without the query.
            pub fn path(&self) -> String {
                host::path()
            }

            /// What stands behind the question mark, as it was written.
            pub fn query(&self) -> Option<String> {
                host::query()
            }

            /// The first value of a field of the request, as it stands now.
            pub fn request_field(&self, name: &str) -> Option<Vec<u8>> {
                host::get(Part::Request, name)
            }

            /// All values of a field of the request, as they stand now.
            pub fn request_fields(&self, name: &str) -> Vec<Vec<u8>> {
                host::get_all(Part::Request, name)
            }

            /// The client's IP address as text. Behind a trusted proxy it is the one that the proxy vouches for.
            pub fn client_address(&self) -> String {
                host::client_address()
            }

            /// The port at the other end of the connection, which may be a proxy's.
            pub fn client_port(&self) -> u16 {
                host::client_port()
            }

            /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
            pub fn protocol(&self) -> String {
                host::protocol()
            }

            /// The client's TLS connection; none if it speaks in the clear.
            pub fn tls(&self) -> Option<TlsFacts> {
                host::tls()
            }

            /// The certificate that the client showed on its connection, verified by the proxy; none if it was not asked for one
            /// or showed none. Behind another proxy it is that proxy's.
            pub fn client_certificate(&self) -> Option<CertificateFacts> {
                host::client_certificate()
            }

            /// Nanoseconds since the request's head was read.
            pub fn elapsed(&self) -> u64 {
                host::elapsed()
            }

            /// The name of the route that was chosen: its `name`, or its host and path as configured.
            pub fn route(&self) -> String {
                host::route()
            }

            /// What a `{name}` of the route's path stands for in this request, percent-decoded; `*` names the rest that a trailing `*`
            /// took.
            pub fn path_parameter(&self, name: &str) -> Option<String> {
                host::path_parameter(name)
            }

            /// The value of X-Request-Id: the client's own, if it sent one valid value, else one that the proxy made. It names
            /// the exchange in logs; it proves nothing about who sent it.
            pub fn request_id(&self) -> String {
                host::request_id()
            }

            /// A value that an earlier filter, or this one, left with `set_property`: the consumer's name, for one.
            pub fn property(&self, name: &str) -> Option<Vec<u8>> {
                host::property(name)
            }

            /// Leaves a value for this and the other filters of the exchange. No client and no upstream sees it.
            ///
            /// # Errors
            /// A name over 64 bytes, a value over 4 KiB, or too many of them.
            pub fn set_property(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refusal> {
                host::set_property(name, value.as_ref())
            }
        }
    };
}

/// Fields of one part.
macro_rules! fields {
    ($view:ident, $part:expr) => {
        impl $view {
            /// The first value of a field. Names are compared without regard to case.
            pub fn get(&self, name: &str) -> Option<Vec<u8>> {
                host::get($part, name)
            }

            /// The first value of a field, if it is UTF-8.
            pub fn get_str(&self, name: &str) -> Option<String> {
                String::from_utf8(host::get($part, name)?).ok()
            }

            /// All values of a field, in their order.
            pub fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
                host::get_all($part, name)
            }

            /// How many fields there are, each value counted.
            pub fn count(&self) -> u32 {
                host::count($part)
            }

            /// The field at a position from 0 to `count` - 1. Fields of one name stand together.
            pub fn at(&self, index: u32) -> Option<(String, Vec<u8>)> {
                host::at($part, index)
            }

            /// Every field in turn, one crossing each.
            pub fn iter(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
                (0..self.count()).filter_map(|index| host::at($part, index))
            }

            /// Puts one value in place of all values of a field.
            ///
            /// # Errors
            /// See [`Refusal`].
            pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refusal> {
                host::set($part, name, value.as_ref())
            }

            /// Adds a value behind those that a field has.
            ///
            /// # Errors
            /// See [`Refusal`].
            pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refusal> {
                host::append($part, name, value.as_ref())
            }

            /// Removes all values of a field and says how many there were.
            ///
            /// # Errors
            /// See [`Refusal`].
            pub fn remove(&mut self, name: &str) -> Result<u32, Refusal> {
                host::remove($part, name)
            }
        }
    };
}

/// The request line, as long as the head is here.
macro_rules! request_line {
    ($view:ident) => {
        impl $view {
            /// Sets the method that the upstream gets.
            ///
            /// # Errors
            /// [`Refusal::InvalidName`] for no token, [`Refusal::Forbidden`] for `CONNECT`.
            pub fn set_method(&mut self, method: &str) -> Result<(), Refusal> {
                host::set_method(method)
            }

            /// Sets the scheme that the upstream is told.
            ///
            /// # Errors
            /// [`Refusal::InvalidName`] for anything but `http` and `https`.
            pub fn set_scheme(&mut self, scheme: &str) -> Result<(), Refusal> {
                host::set_scheme(scheme)
            }

            /// Sets host and port, which is what becomes of the Host field. The route stays as it was chosen.
            ///
            /// # Errors
            /// [`Refusal::InvalidName`] for no host and port, such as one with user information in it.
            pub fn set_authority(&mut self, authority: &str) -> Result<(), Refusal> {
                host::set_authority(authority)
            }

            /// Sets the path, which is brought into normal form. The route stays as it was chosen.
            ///
            /// # Errors
            /// [`Refusal::InvalidName`] for no path, or one that servers read in different ways.
            pub fn set_path(&mut self, path: &str) -> Result<(), Refusal> {
                host::set_path(path)
            }

            /// Sets what stands behind the question mark, or removes it.
            ///
            /// # Errors
            /// [`Refusal::InvalidValue`] for a character that may not stand there.
            pub fn set_query(&mut self, query: Option<&str>) -> Result<(), Refusal> {
                host::set_query(query)
            }
        }
    };
}

/// Time, as long as the request is on its way in.
macro_rules! delay {
    ($view:ident) => {
        impl $view {
            /// Lets the exchange wait for so many milliseconds when this callback has returned, before what it decided is done.
            /// Other exchanges do not wait. A second call replaces the first, and 0 takes it back.
            ///
            /// # Errors
            /// [`Refusal::TooLarge`] over 60 s in all for one exchange and all of its filters; nothing waits then.
            pub fn delay(&mut self, milliseconds: u32) -> Result<(), Refusal> {
                host::delay(milliseconds)
            }
        }
    };
}

/// The piece of a body at hand.
macro_rules! piece {
    ($view:ident) => {
        impl $view {
            pub(crate) fn new(length: u32, end: bool) -> Self {
                $view { length, end }
            }

            /// How many bytes came with this callback.
            pub fn len(&self) -> usize {
                self.length as usize
            }

            /// Whether no byte came.
            pub fn is_empty(&self) -> bool {
                self.length == 0
            }

            /// Whether nothing follows.
            pub fn is_end(&self) -> bool {
                self.end
            }

            /// The whole piece, as this filter has changed it so far. It crosses into the filter's memory here and not before.
            pub fn read(&self) -> Vec<u8> {
                host::body_read(0, u32::MAX)
            }

            /// Up to `max` bytes from `offset` on; fewer at the piece's end, none behind it.
            pub fn read_at(&self, offset: u32, max: u32) -> Vec<u8> {
                host::body_read(offset, max)
            }

            /// Puts bytes in place of the piece; none drop it. The host makes Content-Length right.
            pub fn replace(&mut self, bytes: impl AsRef<[u8]>) {
                host::body_replace(bytes.as_ref());
            }

            /// Adds bytes behind the piece. The fields' `append` is `append_field`.
            pub fn append(&mut self, bytes: impl AsRef<[u8]>) {
                host::body_append(bytes.as_ref());
            }
        }
    };
}

/// Fields of the head, from a body's phase; they can be changed only if the body is taken whole.
macro_rules! head_of_body {
    ($view:ident, $part:expr) => {
        impl $view {
            /// The first value of a field of this direction's head.
            pub fn get(&self, name: &str) -> Option<Vec<u8>> {
                host::get($part, name)
            }

            /// Puts one value in place of all values of a field of the head.
            ///
            /// # Errors
            /// [`Refusal::TooLate`] if the body is not taken whole, else as everywhere.
            pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Refusal> {
                host::set($part, name, value.as_ref())
            }

            /// Adds a value to a field of the head.
            ///
            /// # Errors
            /// As for `set`.
            pub fn append_field(
                &mut self,
                name: &str,
                value: impl AsRef<[u8]>,
            ) -> Result<(), Refusal> {
                host::append($part, name, value.as_ref())
            }

            /// Removes a field of the head.
            ///
            /// # Errors
            /// As for `set`.
            pub fn remove(&mut self, name: &str) -> Result<u32, Refusal> {
                host::remove($part, name)
            }
        }
    };
}

macro_rules! status {
    ($view:ident) => {
        impl $view {
            /// The response's status, as it stands now.
            pub fn status(&self) -> u16 {
                host::status()
            }

            /// Sets the response's status, 200 to 599.
            ///
            /// # Errors
            /// [`Refusal::InvalidName`] for another number, [`Refusal::TooLate`] when the head has left.
            pub fn set_status(&mut self, status: u16) -> Result<(), Refusal> {
                host::set_status(status)
            }
        }
    };
}

/// The request's head: its line, its fields, and the facts around it. All of it can be changed here.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// fn tag(request: &mut RequestHead) -> Result<(), Refusal> {
///     if request.get("x-tag").is_none() {
///         request.set("x-tag", request.client_address())?;
///     }
///     let path = request.path();
///     if let Some(rest) = path.strip_prefix("/api") {
///         request.set_path(rest)?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct RequestHead {
    end: bool,
}

/// A piece of the request's body, or all of it. The fields are those of the head; they can be changed if the body was taken whole
/// or the head was held, because then the head has not left.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// fn shout(body: &mut RequestBody) -> Flow {
///     let upper = body.read().to_ascii_uppercase();
///     body.replace(upper);
///     Flow::Continue
/// }
/// ```
#[derive(Debug)]
pub struct RequestBody {
    length: u32,
    end: bool,
}

/// The request's trailers: fields behind the body. There are some, or their phase is not called.
#[derive(Debug)]
pub struct RequestTrailers(());

/// The response's head: the upstream's, or the answer of a filter further in or of the proxy. The request's fields can be read
/// with [`request_field`](ResponseHead::request_field).
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// fn hide(response: &mut ResponseHead) -> Result<(), Refusal> {
///     response.remove("server")?;
///     response.append("vary", "origin")?;
///     if response.status() == 500 {
///         response.set_status(503)?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct ResponseHead {
    end: bool,
}

/// A piece of the response's body, or all of it; otherwise as [`RequestBody`].
#[derive(Debug)]
pub struct ResponseBody {
    length: u32,
    end: bool,
}

/// The response's trailers: fields behind the body, such as `grpc-status`.
#[derive(Debug)]
pub struct ResponseTrailers(());

/// An exchange that is over; everything can be read and nothing changed.
#[derive(Debug)]
pub struct Ended(());

impl RequestHead {
    pub(crate) fn new(end: bool) -> Self {
        RequestHead { end }
    }

    /// Whether the request has no body.
    pub fn is_end(&self) -> bool {
        self.end
    }
}

impl ResponseHead {
    pub(crate) fn new(end: bool) -> Self {
        ResponseHead { end }
    }

    /// Whether the response has no body.
    pub fn is_end(&self) -> bool {
        self.end
    }
}

impl RequestTrailers {
    pub(crate) fn new() -> Self {
        RequestTrailers(())
    }
}

impl ResponseTrailers {
    pub(crate) fn new() -> Self {
        ResponseTrailers(())
    }
}

impl Ended {
    pub(crate) fn new() -> Self {
        Ended(())
    }

    /// The response's status; 0 if there never was one.
    pub fn status(&self) -> u16 {
        host::status()
    }

    /// The first value of a field of the response.
    pub fn response_field(&self, name: &str) -> Option<Vec<u8>> {
        host::get(Part::Response, name)
    }
}

facts!(RequestHead);
facts!(RequestBody);
facts!(RequestTrailers);
facts!(ResponseHead);
facts!(ResponseBody);
facts!(ResponseTrailers);
facts!(Ended);
fields!(RequestHead, Part::Request);
fields!(RequestTrailers, Part::RequestTrailers);
fields!(ResponseHead, Part::Response);
fields!(ResponseTrailers, Part::ResponseTrailers);
request_line!(RequestHead);
request_line!(RequestBody);
delay!(RequestHead);
delay!(RequestBody);
piece!(RequestBody);
piece!(ResponseBody);
head_of_body!(RequestBody, Part::Request);
head_of_body!(ResponseBody, Part::Response);
status!(ResponseHead);
status!(ResponseBody);
