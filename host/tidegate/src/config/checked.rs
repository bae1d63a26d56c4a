//! The configuration as the program uses it: every name resolved, every default filled in, every number a number,
//! every certificate read. Plain data; it must not know how it was written, and it does nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tidegate_core::usage::Isolation;
use tidegate_gateway::QuarantineSettings;

use super::document::Origin;

/// Everything that is configured.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Listeners, limits and what else holds for all routes.
    pub(crate) server: Server,
    /// Where requests go, by name.
    pub(crate) upstreams: Vec<Upstream>,
    /// Which request goes where, in the order in which they are written. Never empty.
    pub(crate) routes: Vec<Route>,
    /// All filters, those that no route uses included. [`Route::filters`] are indices into this.
    pub(crate) filters: Vec<Filter>,
    /// Every file and folder whose change may change this, whether it is there or not: the configuration file, the
    /// folder of plugins, certificates and keys. Absolute or from the working directory.
    pub(crate) files: Vec<PathBuf>,
}

/// What holds for the whole process.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Addresses for clear HTTP/1.1 and HTTP/2. No two are the same, unless their port is 0.
    pub(crate) listen: Vec<SocketAddr>,
    /// Addresses for TLS with what to show there. No address stands twice, and none is in `listen`.
    pub(crate) tls: Vec<TlsListener>,
    /// Whether a TLS handshake is refused that asks for a name for which no certificate holds.
    pub(crate) refuse_unknown_names: bool,
    /// Address of the admin pages; none: off.
    pub(crate) admin: Option<SocketAddr>,
    /// Worker threads, at least 1.
    pub(crate) workers: usize,
    /// The folder of filters. It need not exist.
    pub(crate) plugins: PathBuf,
    /// Where compiled modules are kept; none: nowhere.
    pub(crate) cache: Option<PathBuf>,
    /// How long running exchanges may take when the process ends.
    pub(crate) drain_timeout: Duration,
    /// How often the names of endpoints are asked for.
    pub(crate) dns_refresh: Duration,
    /// Peers whose forwarding fields are believed.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Peers whose connections begin with a head of the PROXY protocol.
    pub(crate) proxy_protocol: Vec<IpNet>,
    /// Where a line a request goes; none: nowhere.
    pub(crate) access_log: Option<AccessLog>,
    /// What to do with field names that have an underscore.
    pub(crate) underscores: Underscores,
    /// What to do with paths that servers read in different ways.
    pub(crate) ambiguous_paths: tidegate_core::path::Ambiguous,
    /// The name in `Via` by which a request that comes round again is known; none: no `Via`, no such check.
    pub(crate) via: Option<String>,
    /// Bounds on what clients may do.
    pub(crate) limits: Limits,
    /// The room that all filters' instances share.
    pub(crate) filter_pool: FilterPool,
    /// Bounds on the compiling of filters.
    pub(crate) compile: Compile,
}

/// Bounds on the compiling of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compile {
    /// Bytes of the file.
    pub(crate) max_file: usize,
    /// From start to end.
    pub(crate) time: Duration,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Files at the same time, at least 1.
    pub(crate) at_once: usize,
}

impl Default for Compile {
    /// What holds where the configuration says nothing.
    fn default() -> Self {
        let written = super::written::Compile::default();
        Compile {
            max_file: usize::try_from(written.max_file.0).unwrap_or(usize::MAX),
            time: written.time.0,
            memory: written.memory.0,
            at_once: written.at_once,
        }
    }
}

/// The room that all filters' instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterPool {
    /// Instances of all filters and workers together.
    pub(crate) instances: u32,
    /// Bytes of stack of one call.
    pub(crate) stack: usize,
}

/// One address on which TLS is spoken.
#[derive(Clone, Debug)]
pub(crate) struct TlsListener {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What to show, in the order in which it is written; never empty. The first whose certificate holds for the
    /// name that the client asks for is chosen, else the first of all.
    pub(crate) identities: Vec<Identity>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The file of the chain.
    pub(crate) certificate: PathBuf,
    /// The file of the key.
    #[allow(
        dead_code,
        reason = "printed with the rest when a configuration is debugged"
    )]
    pub(crate) key: PathBuf,
    /// Both, read and found to belong together.
    pub(crate) certified: Arc<CertifiedKey>,
    /// When the first certificate of the chain ends to hold, in seconds since 1970; none: it has no end, or
    /// none that can be read.
    pub(crate) expires: Option<i64>,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessLog {
    /// How a line looks.
    pub(crate) format: AccessFormat,
    /// The file that is appended to; none: standard output.
    pub(crate) path: Option<PathBuf>,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessFormat {
    /// The combined format that web servers share.
    Text,
    /// One JSON object a line.
    Json,
}

/// What happens to a request field whose name has an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// It is removed.
    Drop,
    /// The request is answered with 400.
    Refuse,
    /// It passes.
    Allow,
}

/// Bounds on what clients may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From a connection's first byte, or the end of the exchange before, to the end of a request's head.
    pub(crate) header_timeout: Duration,
    /// How long a connection may rest between two exchanges.
    pub(crate) idle_timeout: Duration,
    /// How long a request's body, or a client that reads a response, may stand still.
    pub(crate) body_idle_timeout: Duration,
    /// How long a TLS handshake may take.
    pub(crate) handshake_timeout: Duration,
    /// Bytes of a request's head.
    pub(crate) max_head: usize,
    /// Fields of a request's head.
    pub(crate) max_fields: usize,
    /// Bytes of a request's target.
    pub(crate) max_target: usize,
    /// Bytes of a request's body; none: any.
    pub(crate) max_body: Option<u64>,
    /// Open client connections, over all workers.
    pub(crate) max_connections: usize,
    /// The same of one source; none: three quarters of them, and any number for this machine's own.
    pub(crate) max_connections_per_source: Option<usize>,
    /// Requests on one connection; none: any number.
    pub(crate) max_requests_per_connection: Option<u64>,
    /// How old a connection may become; none: any age.
    pub(crate) max_connection_age: Option<Duration>,
    /// Bytes a second of a request's body before its response begins.
    pub(crate) min_body_rate: u64,
    /// Exchanges at the same time on one HTTP/2 connection.
    pub(crate) max_concurrent_streams: u32,
}

/// A group of endpoints that answer alike.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Its name, unique.
    pub(crate) name: Arc<str>,
    /// Its URLs, each found to be one that `tidegate_upstream::Endpoint` can read. Never empty.
    pub(crate) endpoints: Vec<String>,
    /// How long a connection may take to be there.
    pub(crate) connect_timeout: Duration,
    /// From the end of the request to the response's head.
    pub(crate) response_timeout: Duration,
    /// How long a response's body may stand still.
    pub(crate) idle_timeout: Duration,
    /// Idle connections that a worker keeps to an endpoint.
    pub(crate) idle_connections: usize,
    /// How long an idle connection is kept.
    pub(crate) keep_alive: Duration,
    /// How long a connection is used in all.
    pub(crate) max_age: Duration,
    /// Bytes and fields of a response's head.
    pub(crate) max_head: usize,
    pub(crate) max_fields: usize,
    /// How `https` endpoints are checked.
    pub(crate) tls: UpstreamTls,
}

/// How the certificates of an upstream are checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamTls {
    /// The authorities to believe; none: those that browsers believe.
    pub(crate) authorities: Option<Vec<CertificateDer<'static>>>,
    /// The name to ask for and to check, in place of the endpoint's host.
    pub(crate) server_name: Option<String>,
    /// Whether any certificate will do.
    pub(crate) insecure: bool,
}

/// Which requests go where, through what.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its name, unique: the written one, or one made of host and path.
    pub(crate) name: Arc<str>,
    /// A host or `*.` and a host, in lower case; none: any.
    pub(crate) host: Option<String>,
    /// The path's pattern.
    pub(crate) path: String,
    /// The methods; empty: all.
    pub(crate) methods: Vec<Method>,
    /// Fields that must stand in the request with this value.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// An index into [`Checked::upstreams`]; none: there is no upstream, and only a filter can answer.
    pub(crate) upstream: Option<usize>,
    /// Indices into [`Checked::filters`], in the order of the request's way.
    pub(crate) filters: Vec<usize>,
    /// Whether the upstream sees the Host that the client sent, or its own.
    pub(crate) preserve_host: bool,
    /// Whether a response tells how long filters and upstream took.
    pub(crate) server_timing: bool,
    /// Where the route is written; none: nowhere.
    pub(crate) origin: Option<Origin>,
}

/// One configured filter. Several may run the same file.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Its name, unique: the plugin's, that of its `[filter.NAME]`, or `PLUGIN@ROUTE` for one written in a route.
    pub(crate) name: Arc<str>,
    /// The plugin that it runs: a file's name without number and ending.
    pub(crate) plugin: String,
    /// That file. It was there when the configuration was read, unless there is a `fault`.
    pub(crate) file: PathBuf,
    /// What the guest gets to read: JSON, or the text as it was written.
    pub(crate) config: String,
    /// The same as a value; a text is a string.
    pub(crate) config_value: serde_json::Value,
    /// Where `config` is written; none: nowhere.
    pub(crate) config_origin: Option<Origin>,
    /// What happens to a request when the filter fails.
    pub(crate) failure: Failure,
    /// How exchanges share its instances; none: as is best for what it is.
    pub(crate) isolation: Option<Isolation>,
    /// What it may reach.
    pub(crate) allow: Allow,
    /// What it may use.
    pub(crate) limits: tidegate_wasm::Limits,
    /// When it is taken out of service for a while; none: never.
    pub(crate) quarantine: Option<QuarantineSettings>,
    /// What a new version must answer before it takes traffic; none: nothing.
    pub(crate) self_check: Option<SelfCheck>,
    /// Whether a route uses it.
    pub(crate) used: bool,
    /// Why it can't be loaded as it is configured now, if only this filter is concerned: its settings file has a
    /// mistake, or its .wasm file is gone. A version that runs already stays in force.
    pub(crate) fault: Option<String>,
}

/// What happens to a request when a filter fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is answered with an error.
    Closed,
    /// It goes on as if the filter were not there.
    Open,
}

/// A request that a new version of a filter must answer as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelfCheck {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: PathAndQuery,
    /// Fields of the head, among them `host`.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty: none.
    pub(crate) body: Bytes,
    /// The status that is expected.
    pub(crate) status: StatusCode,
    /// Fields that are expected.
    pub(crate) expected: Vec<(HeaderName, HeaderValue)>,
}

/// What a filter may reach outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allow {
    /// Upstreams that it may call; each exists.
    pub(crate) http: Vec<String>,
    /// Namespaces of the store.
    pub(crate) store: Vec<String>,
    /// Variables of the environment with their values; none: not set.
    pub(crate) env: BTreeMap<String, Option<String>>,
}
