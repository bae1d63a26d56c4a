//! What a `{...}` may stand for, and how it is written. Knows no exchange.

/// What a `{...}` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    ClientAddress,
    ClientPort,
    Protocol,
    TlsVersion,
    TlsCipher,
    TlsServerName,
    TlsAlpn,
    /// A fact of the client's certificate, which the listener has verified.
    Certificate(CertificatePart),
    Route,
    RequestId,
    Method,
    /// The path as it stands.
    Path,
    /// The path as it was before any filter rewrote it.
    OriginalPath,
    Query,
    /// Path and query.
    Uri,
    /// Host and port as the client named them.
    Host,
    /// The host without its port.
    HostName,
    Scheme,
    /// What the route's path found.
    Parameter(String),
    /// One parameter of the query, decoded.
    QueryParameter(String),
    /// The first value of a field of the request.
    Header(String),
    /// All values of a field of the request, joined.
    Headers(String),
    /// A cookie of the request.
    Cookie(String),
    /// The first value of a field of the response.
    Response(String),
    /// What an earlier filter left, such as `consumer`.
    Property(String),
    Status,
    /// Since the request's head came.
    Duration(Unit),
    Time(TimeFormat),
    /// Random, the same all through an exchange.
    Nonce,
    /// Random, another one at each place.
    Uuid,
    /// A group of the pattern that goes with the template.
    Capture(usize),
}

/// What is known of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificatePart {
    Subject,
    Issuer,
    Serial,
    Sha256,
    Dns,
    Uri,
    Email,
    Ip,
}

/// How long is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
}

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// RFC 3339, in UTC.
    Rfc3339,
    /// HTTP's own (RFC 9110 section 5.6.7).
    Http,
}

const KNOWN: &str = "client-address, client-port, protocol, tls-version, tls-cipher, tls-server-name, tls-alpn, \
                     certificate:PART, route, request-id, method, path, original-path, query, uri, host, hostname, \
                     scheme, param:NAME, query:NAME, header:NAME, headers:NAME, cookie:NAME, property:NAME, \
                     claim:NAME, response:NAME, status, duration, duration:s, duration:us, time, time:ms, \
                     time:rfc3339, time:http, nonce, uuid";

impl Source {
    /// Reads a source.
    ///
    /// # Errors
    /// What may stand there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{{{text}}}` stands for nothing; there is {KNOWN}");
        let Some((kind, of)) = text.split_once(':') else {
            return Self::plain(text).ok_or_else(unknown);
        };
        if of.is_empty() {
            return Err(format!("`{{{text}}}` needs a name behind the colon"));
        }
        let own = of.to_owned();
        let lower = || of.to_ascii_lowercase();
        Ok(match (kind, of) {
            ("param", _) => Source::Parameter(own),
            ("query", _) => Source::QueryParameter(own),
            ("header", _) => Source::Header(lower()),
            ("headers", _) => Source::Headers(lower()),
            ("cookie", _) => Source::Cookie(own),
            ("response", _) => Source::Response(lower()),
            ("property", _) => Source::Property(own),
            ("claim", _) => Source::Property(["claim.", of].concat()),
            ("certificate", "subject") => Source::Certificate(CertificatePart::Subject),
            ("certificate", "issuer") => Source::Certificate(CertificatePart::Issuer),
            ("certificate", "serial") => Source::Certificate(CertificatePart::Serial),
            ("certificate", "sha256") => Source::Certificate(CertificatePart::Sha256),
            ("certificate", "dns") => Source::Certificate(CertificatePart::Dns),
            ("certificate", "uri") => Source::Certificate(CertificatePart::Uri),
            ("certificate", "email") => Source::Certificate(CertificatePart::Email),
            ("certificate", "ip") => Source::Certificate(CertificatePart::Ip),
            ("certificate", _) => {
                return Err(format!(
                    "a certificate has no `{of}`; there is subject, issuer, serial, sha256, dns, uri, email, ip"
                ));
            }
            ("duration", "s") => Source::Duration(Unit::Seconds),
            ("duration", "ms") => Source::Duration(Unit::Milliseconds),
            ("duration", "us") => Source::Duration(Unit::Microseconds),
            ("time", "s") => Source::Time(TimeFormat::Seconds),
            ("time", "ms") => Source::Time(TimeFormat::Milliseconds),
            ("time", "rfc3339") => Source::Time(TimeFormat::Rfc3339),
            ("time", "http") => Source::Time(TimeFormat::Http),
            _ => return Err(unknown()),
        })
    }

    fn plain(text: &str) -> Option<Self> {
        Some(match text {
            "client-address" => Source::ClientAddress,
            "client-port" => Source::ClientPort,
            "protocol" => Source::Protocol,
            "tls-version" => Source::TlsVersion,
            "tls-cipher" => Source::TlsCipher,
            "tls-server-name" => Source::TlsServerName,
            "tls-alpn" => Source::TlsAlpn,
            "route" => Source::Route,
            "request-id" => Source::RequestId,
            "method" => Source::Method,
            "path" => Source::Path,
            "original-path" => Source::OriginalPath,
            "query" => Source::Query,
            "uri" => Source::Uri,
            "host" => Source::Host,
            "hostname" => Source::HostName,
            "scheme" => Source::Scheme,
            "status" => Source::Status,
            "duration" => Source::Duration(Unit::Milliseconds),
            "time" => Source::Time(TimeFormat::Seconds),
            "nonce" => Source::Nonce,
            "uuid" => Source::Uuid,
            _ => return None,
        })
    }

    /// Whether it is known only when there is a response.
    pub(crate) fn is_of_response(&self) -> bool {
        matches!(self, Source::Response(_) | Source::Status)
    }

    /// Whether it is in the form of a path or an address already.
    pub(super) fn is_encoded(&self) -> bool {
        matches!(
            self,
            Source::Path
                | Source::OriginalPath
                | Source::Query
                | Source::Uri
                | Source::Host
                | Source::HostName
                | Source::Scheme
                | Source::Capture(_)
        )
    }
}
