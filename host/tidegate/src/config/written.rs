//! The configuration as it is written: the TOML's shape, its defaults and its documentation, which `tidegate schema`
//! and `docs/configuration.md` show. It resolves nothing and reads no file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::units::{Size, Time};

/// The configuration of tidegate: one TOML file. Inside strings, `${NAME}` stands for an environment variable,
/// `${NAME:-default}` has a default, and `$${` stands for `${` itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "Configuration")]
pub(crate) struct Written {
    /// What holds for the whole process.
    pub(crate) server: Server,
    /// Where requests go: groups of endpoints that answer alike, by name. A name has letters, digits, `-`, `_` and `.`.
    pub(crate) upstream: BTreeMap<String, Upstream>,
    /// Which requests go where, through which filters. The most specific route that fits is taken, whatever the order:
    /// an exact host before `*.` before any, literal segments before patterns, longer paths before shorter ones, more
    /// conditions before fewer. Without any route, there is one for everything, with every filter of the folder in
    /// the order of the file names, to the only upstream or the one that is called `default`.
    pub(crate) route: Vec<Route>,
    /// Settings of filters, by name. The same keys may stand in `NAME.toml` beside the plugin, but each in only one
    /// of both places.
    pub(crate) filter: BTreeMap<String, Filter>,
}

/// What holds for the whole process. Relative paths are taken from the folder of the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Server {
    /// Addresses with ports for HTTP/1.1 and HTTP/2 (prior knowledge) without TLS. `0.0.0.0` and `[::]` are all
    /// addresses of the machine; port 0 lets the system choose. Default: `["127.0.0.1:8080"]`, or none if there is a
    /// `[[server.tls]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [["127.0.0.1:8080"]]))]
    pub(crate) listen: Option<Vec<String>>,
    /// Address with port of the admin pages (`/livez`, `/readyz`, `/metrics`, `/plugins`, `/config`), or `"off"`.
    #[schemars(extend("examples" = ["127.0.0.1:9901"]))]
    pub(crate) admin: String,
    /// Worker threads; 0: one a core.
    #[schemars(range(max = 1024))]
    pub(crate) workers: usize,
    /// The folder of filters: `NAME.wasm`, or `10-NAME.wasm` to order them. It need not exist. Default: `"plugins"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugins: Option<String>,
    /// The folder where compiled filters are kept for the next start, or `"off"`. Default: `tidegate` in the user's
    /// cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<String>,
    /// How long running exchanges may take to end after SIGTERM or SIGINT. At most 1 day; 0 ends them at once.
    pub(crate) drain_timeout: Time,
    /// How often the names in endpoints are asked for again, in the background. New addresses are used for the next
    /// connection, and connections to addresses that went are given up; while there is no good answer, the last one
    /// stays in use. How long an answer is said to hold (its TTL) does not count. From 1 s to 1 day.
    pub(crate) dns_refresh: Time,
    /// Networks of the proxies in front whose word on the client is believed and added to: `X-Forwarded-*`, `Forwarded`,
    /// `X-Real-IP`, and fields of certificates (`X-Client-Cert*`, `Client-Cert`, `X-SSL-Client-*`). Those of any other
    /// peer are taken out, however they are spelled.
    #[schemars(extend("examples" = [["10.0.0.0/8", "fd00::/8"]]))]
    pub(crate) trusted_proxies: Vec<String>,
    /// Networks of the balancers in front that speak the PROXY protocol (version 1 or 2): their connections must begin
    /// with its head, on every listener and before TLS, and the client is whom it names. One that does not is closed,
    /// and so is one whose head takes longer than `handshake-timeout`. From any other peer, such a head is a bad request.
    #[schemars(extend("examples" = [["10.0.0.0/8"]]))]
    pub(crate) proxy_protocol: Vec<String>,
    /// One line a request. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_log: Option<AccessLog>,
    /// What happens to a request's fields whose names have an underscore, which many servers read as a hyphen:
    /// `drop` removes them, `refuse` answers with 400, `allow` lets them pass.
    pub(crate) underscores: Underscores,
    /// What happens to a path with a part that servers read in different ways (`%2F`, `%5C`, `%23`, `%3B`, `%3F`, and
    /// `..;x`): `refuse` answers with 400, `keep` passes it on as it is.
    pub(crate) ambiguous_paths: AmbiguousPaths,
    /// The name that is added to `Via`. A request that has it already has come round in a circle and is answered with
    /// 508. Default: no `Via` and no such check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<String>,
    /// TLS listeners, for TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN. Entries with the same address are
    /// chosen by the name that the client asks for (SNI); the first one is for clients that ask for none or another.
    pub(crate) tls: Vec<Tls>,
    /// What a handshake gets that asks for a name for which no certificate of its address holds: `first` shows the
    /// first certificate, `refuse` ends it with an alert. Who asks for no name gets the first one.
    pub(crate) tls_unknown_names: UnknownNames,
    /// Bounds on what clients may do.
    pub(crate) limits: Limits,
    /// What holds for every filter that does not say otherwise.
    pub(crate) filter_defaults: FilterDefaults,
    /// The room that all filters' instances share. A change needs a restart.
    pub(crate) filter_pool: FilterPool,
    /// Bounds on the compiling of filters, which happens in a process of its own for each file.
    pub(crate) compile: Compile,
}

/// One certificate on some addresses.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Tls {
    /// Addresses with ports, as in `server.listen`.
    #[schemars(length(min = 1), extend("examples" = [["127.0.0.1:8443"]]))]
    pub(crate) listen: Vec<String>,
    /// A PEM file: the certificate, followed by those that lead to its authority.
    pub(crate) certificate: String,
    /// A PEM file: the certificate's private key.
    pub(crate) key: String,
}

/// Where one line a request goes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AccessLog {
    /// `text` is the combined format of web servers, `json` an object a line.
    pub(crate) format: AccessFormat,
    /// The file that is appended to; `"-"` is standard output.
    pub(crate) path: String,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccessFormat {
    Text,
    Json,
}

/// What happens to fields with an underscore in their names.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Underscores {
    Drop,
    Refuse,
    Allow,
}

/// What a TLS handshake for an unknown name gets.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnknownNames {
    First,
    Refuse,
}

/// What happens to paths that servers read in different ways.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AmbiguousPaths {
    Refuse,
    Keep,
}

/// Bounds on what clients may do. Durations are at least 1 ms and at most 1 day.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Limits {
    /// How long a request's head may take, from the connection's or the request's beginning on. Past it: 408.
    pub(crate) header_timeout: Time,
    /// How long a connection may rest between two requests. Past it, it is closed.
    pub(crate) idle_timeout: Time,
    /// How long nothing may come of a request's body (past it: 408), or a client may take nothing of a response (past
    /// it: the connection is closed).
    pub(crate) body_idle_timeout: Time,
    /// How long a TLS handshake may take, or the head of the PROXY protocol before it.
    pub(crate) handshake_timeout: Time,
    /// Bytes of a request's head. Past it: 431. From 1KiB to 1MiB.
    pub(crate) max_head: Size,
    /// Fields of a request's head. Past it: 431.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_fields: usize,
    /// Bytes of a request's target (path and query). Past it: 414. From 64B to 64KiB.
    pub(crate) max_target: Size,
    /// Bytes of a request's body. Past it: 413. Default: any number; bodies stream and are never collected unless a
    /// filter asks, and then its own bound holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_body: Option<Size>,
    /// Client connections that are open at the same time, over all workers. Past it, new ones are refused: with 503, or
    /// closed on a TLS listener.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_connections: usize,
    /// The same for the connections of one source: an IPv4 address, or the /64 of an IPv6 address. Those of
    /// `trusted-proxies` are not counted. Default: three quarters of `max-connections`, so that no source takes them
    /// all; any number for addresses of the machine itself (loopback).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_connections_per_source: Option<usize>,
    /// Requests on one connection. The last one is answered with `Connection: close`, or GOAWAY over HTTP/2. Default: any
    /// number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) max_requests_per_connection: Option<u64>,
    /// How old a connection may become. The first response behind that says `Connection: close`; over HTTP/2, GOAWAY
    /// comes at once, and what runs is finished. Default: any age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_connection_age: Option<Time>,
    /// Bytes a second of a request's body, until its response begins: on the average of the time that the body was
    /// waited for, once that is `body-idle-timeout`. Below it: 408. gRPC streams are not held to it. `"0B"`: no such
    /// bound. Up to 1GiB.
    pub(crate) min_body_rate: Size,
    /// Requests at the same time on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) max_concurrent_streams: u32,
}

/// A group of endpoints that answer alike; requests take turns.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Upstream {
    /// URLs without a path: `http://` (HTTP/1.1), `https://` (HTTP/2 or HTTP/1.1 over TLS) and `h2c://` (HTTP/2
    /// without TLS).
    #[schemars(length(min = 1), extend("examples" = [["http://127.0.0.1:9000"]]))]
    pub(crate) endpoints: Vec<String>,
    /// How long a connection may take to be there, TLS included. Past it, the next endpoint is tried.
    #[serde(default = "Upstream::connect_timeout")]
    pub(crate) connect_timeout: Time,
    /// How long the head of the response may take once the request has left. Past it: 504.
    #[serde(default = "Upstream::response_timeout")]
    pub(crate) response_timeout: Time,
    /// How long nothing may come of a response's body. Past it, the client's response is broken off.
    #[serde(default = "Upstream::idle_timeout")]
    pub(crate) idle_timeout: Time,
    /// Idle connections that each worker keeps to each endpoint; 0 keeps none.
    #[serde(default = "Upstream::idle_connections")]
    #[schemars(range(max = 10_000))]
    pub(crate) idle_connections: usize,
    /// How long an idle connection is kept. Best below the endpoint's own time-out.
    #[serde(default = "Upstream::keep_alive")]
    pub(crate) keep_alive: Time,
    /// How long a connection is used for further requests after it was made, whether it rests in between or not.
    #[serde(default = "Upstream::max_age")]
    pub(crate) max_age: Time,
    /// Bytes of a response's head. Past it: 502. From 4KiB to 1MiB.
    #[serde(default = "Upstream::max_head")]
    pub(crate) max_head: Size,
    /// Fields of a response's head. Past it: 502. From 1 to 1000.
    #[serde(default = "Upstream::max_fields")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_fields: usize,
    /// How the certificates of `https` endpoints are checked.
    #[serde(default)]
    pub(crate) tls: UpstreamTls,
}

/// How the certificates of an upstream are checked.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct UpstreamTls {
    /// A PEM file with the authorities to believe. Default: those that browsers believe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// The name to ask for and to check. Default: the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// Whether any certificate will do. For trials only: whoever sits in between can read and change everything.
    pub(crate) insecure: bool,
}

/// Which requests go where, through what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Route {
    /// Its name in logs and metrics, unique. Default: host and path.
    pub(crate) name: Option<String>,
    /// A host (`api.example.com`), or `*.` and a host for all names below it. Default: any.
    pub(crate) host: Option<String>,
    /// The path: literal, with `{name}` for one segment, and a trailing `*` for the rest.
    #[schemars(extend("examples" = ["/v1/users/{id}", "/static/*"]))]
    pub(crate) path: String,
    /// The methods. Default: all.
    #[schemars(extend("examples" = [["GET", "POST"]]))]
    pub(crate) methods: Vec<String>,
    /// Header fields that the request must have, with exactly this value.
    pub(crate) headers: BTreeMap<String, String>,
    /// The upstream's name. Default: the only upstream, or the one that is called `default`. Where there is none, the
    /// filters answer, or 502 is answered.
    pub(crate) upstream: Option<String>,
    /// The filters, in the order in which they see a request; a response passes them backwards.
    pub(crate) filters: Vec<FilterUse>,
    /// Whether the upstream sees the Host that the client sent, or that of its own endpoint.
    pub(crate) preserve_host: bool,
    /// Whether a response has a field `Server-Timing` that tells how many milliseconds the filters took up to its head,
    /// and how many the upstream took to its head. It tells clients something of what stands behind.
    pub(crate) server_timing: bool,
}

/// A filter on a route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum FilterUse {
    /// A filter's name: that of its file, without number and ending, or of its `[filter.NAME]`.
    Name(String),
    /// A filter with a configuration of its own for this route.
    Inline(Inline),
}

/// A filter with a configuration of its own for this route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Inline {
    /// The filter's name. Its other settings hold here too.
    #[serde(rename = "use")]
    pub(crate) base: String,
    /// The configuration in place of the filter's own.
    #[serde(default)]
    #[schemars(schema_with = "config_schema")]
    pub(crate) config: Option<Value>,
    /// Its name in logs and metrics, unique. Default: the filter's name, `@` and the route's name.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// Settings of a filter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Filter {
    /// The plugin that it runs: a file's name in the folder, without number and ending. Default: the filter's name.
    /// Several filters may run the same plugin.
    #[serde(rename = "use")]
    pub(crate) plugin: Option<String>,
    /// What the filter reads at its start: a table is handed over as JSON, a string as it is. Default: an empty table.
    #[schemars(schema_with = "config_schema")]
    pub(crate) config: Option<Value>,
    /// What happens to a request when the filter fails: `closed` answers with an error, `open` goes on without it.
    /// Default: that of `[server.filter-defaults]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    /// How requests share the filter's instances. Default: that of `[server.filter-defaults]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
    /// What the filter may reach outside. Default: nothing.
    pub(crate) allow: Allow,
    /// Bounds for the filter, in place of those of `[server.filter-defaults]`.
    pub(crate) limits: FilterLimitsChange,
    /// When the filter is taken out of service because it fails again and again, and for how long.
    pub(crate) quarantine: QuarantineChange,
    /// A request that a new version must answer as expected before it takes traffic. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) self_check: Option<SelfCheck>,
}

/// When a filter is taken out of service because it fails again and again, and for how long. Meanwhile its policy
/// (`failure`) answers for it at once; at the end of each period, one request is let in and decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Quarantine {
    /// So many failed requests take it out: within `window` when they are at least half of its requests, or one after
    /// the other without one that goes well, however long that takes. 0: never.
    #[schemars(range(max = 1000))]
    pub(crate) failures: u32,
    /// See `failures`. From 1 ms to 1 hour.
    pub(crate) window: Time,
    /// How long it is out at first; each time that it fails again, twice as long, and up to a tenth more by chance. From
    /// 1 ms to 1 day.
    pub(crate) first: Time,
    /// The longest that it is out. From 1 ms to 1 day, and no less than `first`.
    pub(crate) longest: Time,
}

/// When a filter is taken out of service; what is not given is that of `[server.filter-defaults]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct QuarantineChange {
    /// So many failed requests take it out: within `window` when they are at least half of its requests, or one after
    /// the other without one that goes well, however long that takes. 0: never.
    #[schemars(range(max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failures: Option<u32>,
    /// See `failures`. From 1 ms to 1 hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<Time>,
    /// How long it is out at first; each time that it fails again, twice as long, and up to a tenth more by chance. From
    /// 1 ms to 1 day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<Time>,
    /// The longest that it is out. From 1 ms to 1 day, and no less than `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) longest: Option<Time>,
}

impl Default for Quarantine {
    fn default() -> Self {
        Quarantine {
            failures: 20,
            window: Time::secs(10),
            first: Time::secs(1),
            longest: Time::secs(60),
        }
    }
}

impl Quarantine {
    /// This one with another filter's changes.
    pub(crate) fn changed(self, change: QuarantineChange) -> Quarantine {
        Quarantine {
            failures: change.failures.unwrap_or(self.failures),
            window: change.window.unwrap_or(self.window),
            first: change.first.unwrap_or(self.first),
            longest: change.longest.unwrap_or(self.longest),
        }
    }
}

impl QuarantineChange {
    /// What is given here, else what is given there.
    pub(crate) fn or(self, other: QuarantineChange) -> QuarantineChange {
        QuarantineChange {
            failures: self.failures.or(other.failures),
            window: self.window.or(other.window),
            first: self.first.or(other.first),
            longest: self.longest.or(other.longest),
        }
    }
}

/// A request that a new version must answer as expected before it takes traffic. It passes this filter only, off the
/// workers; what the filter lets through is answered with an empty 200. The store is empty, limits are never reached,
/// no upstream is called, and nothing of it is left behind. It may take 5 seconds.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SelfCheck {
    /// The method.
    #[serde(default = "SelfCheck::method")]
    pub(crate) method: String,
    /// Path and query.
    #[serde(default = "SelfCheck::path")]
    #[schemars(extend("examples" = ["/v1/users?page=2"]))]
    pub(crate) path: String,
    /// Header fields; `host` is `localhost` unless it is here. Default: no other ones.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// What the answer must be.
    pub(crate) expect: Expect,
}

/// What the answer to a self-check must be.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Expect {
    /// Its status.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: u16,
    /// Header fields that it must have, with exactly this value. Default: none.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

impl SelfCheck {
    fn method() -> String {
        "GET".to_owned()
    }

    fn path() -> String {
        "/".to_owned()
    }
}

/// What holds for every filter that does not say otherwise.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FilterDefaults {
    /// What happens to a request when a filter fails: `closed` answers with an error, `open` goes on without it.
    pub(crate) failure: Failure,
    /// How requests share a filter's instances: `shared`, one instance of a worker serves all; `exclusive`, one request
    /// at a time; `fresh`, one request and no other. Default: `exclusive` for filters that make HTTP calls or may run
    /// for more than 50 ms, which can't be `shared`; `shared` for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
    /// Bounds. Each over-run is logged and counted; what it leads to stands in limits.md.
    pub(crate) limits: FilterLimits,
    /// When a filter is taken out of service because it fails again and again, and for how long.
    pub(crate) quarantine: Quarantine,
}

/// The room that all filters' instances share.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FilterPool {
    /// Instances of all filters and workers at the same time. 4 GiB of address space are reserved for each, and no
    /// memory.
    #[schemars(range(min = 16, max = 20_000))]
    pub(crate) instances: u32,
    /// Stack of one call. From 64KiB to 1MiB.
    pub(crate) stack: Size,
}

/// How requests share a filter's instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Isolation {
    Shared,
    Exclusive,
    Fresh,
}

/// What happens to a request when a filter fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    #[default]
    Closed,
    Open,
}

/// What a filter may reach outside.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Allow {
    /// Names of upstreams that it may call.
    pub(crate) http: Vec<String>,
    /// Namespaces of the store that it may read and write.
    pub(crate) store: Vec<String>,
    /// Environment variables that it may read.
    pub(crate) env: Vec<String>,
}

/// Bounds on the compiling of one file. Past any of them, the file can't be used, and what runs stays.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Compile {
    /// Bytes of a file. From 1KiB to 256MiB.
    pub(crate) max_file: Size,
    /// How long it may take. From 1 ms to 10 minutes.
    pub(crate) time: Time,
    /// Memory that it may take, which is never the proxy's own. From 256MiB to 64GiB.
    pub(crate) memory: Size,
    /// Files that are compiled at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) at_once: usize,
}

/// Bounds for filters.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FilterLimits {
    /// Memory of one instance. From 64KiB to 4GiB.
    pub(crate) memory: Size,
    /// Elements of the tables of one instance.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) table: u32,
    /// Processor time of one call. From 1 ms to 1 minute.
    pub(crate) time: Time,
    /// Time of one call by the clock, for a machine that has no processor time to give. From 1 ms to 10 minutes.
    /// Default: ten times `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wall_time: Option<Time>,
    /// Processor time of its start and the reading of its configuration. From 1 ms to 5 minutes.
    pub(crate) configure_time: Time,
    /// The same by the clock. From 1 ms to 30 minutes. Default: five times `configure-time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configure_wall_time: Option<Time>,
    /// Bytes of a body that are collected for it, and that it may make in one go. Up to 1GiB.
    pub(crate) body: Size,
    /// Instances that are at work on one worker at the same time, where requests do not share one.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) instances: u32,
    /// HTTP calls of one request.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) calls: u32,
    /// HTTP calls that wait at the same time, on all workers together.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) calls_at_once: u32,
    /// Lines that it may log a second, on all workers together.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) log_rate: u32,
    /// Series of its own figures.
    #[schemars(range(min = 0, max = 100_000))]
    pub(crate) series: u32,
    /// Bytes that each of its namespaces of the store may hold. From 4MiB to 1TiB.
    pub(crate) store: Size,
}

/// Bounds of one filter; those that are not given are those of `[server.filter-defaults]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FilterLimitsChange {
    /// Memory of one instance. From 64KiB to 4GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Size>,
    /// Elements of the tables of one instance.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    /// Processor time of one call. From 1 ms to 1 minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<Time>,
    /// Time of one call by the clock, for a machine that has no processor time to give. From 1 ms to 10 minutes.
    /// Default: ten times `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wall_time: Option<Time>,
    /// Processor time of its start and the reading of its configuration. From 1 ms to 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configure_time: Option<Time>,
    /// The same by the clock. From 1 ms to 30 minutes. Default: five times `configure-time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configure_wall_time: Option<Time>,
    /// Bytes of a body that are collected for it, and that it may make in one go. Up to 1GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Size>,
    /// Instances that are at work on one worker at the same time, where requests do not share one.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instances: Option<u32>,
    /// HTTP calls of one request.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls: Option<u32>,
    /// HTTP calls that wait at the same time, on all workers together.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls_at_once: Option<u32>,
    /// Lines that it may log a second, on all workers together.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_rate: Option<u32>,
    /// Series of its own figures.
    #[schemars(range(min = 0, max = 100_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) series: Option<u32>,
    /// Bytes that each of its namespaces of the store may hold. From 4MiB to 1TiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<Size>,
}

/// `config` is a table or a string.
fn config_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["object", "string"] })
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: None,
            admin: "127.0.0.1:9901".to_owned(),
            workers: 0,
            plugins: None,
            cache: None,
            drain_timeout: Time::secs(30),
            dns_refresh: Time::secs(5),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            access_log: None,
            underscores: Underscores::Drop,
            ambiguous_paths: AmbiguousPaths::Refuse,
            via: None,
            tls: Vec::new(),
            tls_unknown_names: UnknownNames::First,
            limits: Limits::default(),
            filter_defaults: FilterDefaults::default(),
            filter_pool: FilterPool::default(),
            compile: Compile::default(),
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        AccessLog {
            format: AccessFormat::Text,
            path: "-".to_owned(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_timeout: Time::secs(10),
            idle_timeout: Time::secs(60),
            body_idle_timeout: Time::secs(60),
            handshake_timeout: Time::secs(10),
            max_head: Size(64 << 10),
            max_fields: 100,
            max_target: Size(8 << 10),
            max_body: None,
            max_connections: 16_384,
            max_connections_per_source: None,
            max_requests_per_connection: None,
            max_connection_age: None,
            min_body_rate: Size(16),
            max_concurrent_streams: 100,
        }
    }
}

impl Upstream {
    /// An upstream with defaults for everything but its endpoints.
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Upstream {
            endpoints,
            connect_timeout: Self::connect_timeout(),
            response_timeout: Self::response_timeout(),
            idle_timeout: Self::idle_timeout(),
            idle_connections: Self::idle_connections(),
            keep_alive: Self::keep_alive(),
            max_age: Self::max_age(),
            max_head: Self::max_head(),
            max_fields: Self::max_fields(),
            tls: UpstreamTls::default(),
        }
    }

    fn connect_timeout() -> Time {
        Time::secs(1)
    }

    fn response_timeout() -> Time {
        Time::secs(30)
    }

    fn idle_timeout() -> Time {
        Time::secs(60)
    }

    fn idle_connections() -> usize {
        64
    }

    fn keep_alive() -> Time {
        Time::secs(55)
    }

    fn max_age() -> Time {
        Time::secs(3600)
    }

    fn max_head() -> Size {
        Size(128 << 10)
    }

    fn max_fields() -> usize {
        256
    }
}

impl Default for Route {
    fn default() -> Self {
        Route {
            name: None,
            host: None,
            path: "/*".to_owned(),
            methods: Vec::new(),
            headers: BTreeMap::new(),
            upstream: None,
            filters: Vec::new(),
            preserve_host: true,
            server_timing: false,
        }
    }
}

impl Default for FilterPool {
    fn default() -> Self {
        FilterPool {
            instances: 1000,
            stack: Size(512 << 10),
        }
    }
}

impl Default for Compile {
    fn default() -> Self {
        Compile {
            max_file: Size(64 << 20),
            time: Time::secs(30),
            memory: Size(1 << 30),
            at_once: 2,
        }
    }
}

impl Default for FilterLimits {
    fn default() -> Self {
        FilterLimits {
            memory: Size(64 << 20),
            table: 100_000,
            time: Time::millis(20),
            wall_time: None,
            configure_time: Time::secs(2),
            configure_wall_time: None,
            body: Size(1 << 20),
            instances: 256,
            calls: 100,
            calls_at_once: 1000,
            log_rate: 100,
            series: 100,
            store: Size(8 << 20),
        }
    }
}

impl FilterLimits {
    /// These bounds with another filter's changes.
    pub(crate) fn changed(self, change: FilterLimitsChange) -> FilterLimits {
        FilterLimits {
            memory: change.memory.unwrap_or(self.memory),
            table: change.table.unwrap_or(self.table),
            time: change.time.unwrap_or(self.time),
            wall_time: change.wall_time.or(self.wall_time),
            configure_time: change.configure_time.unwrap_or(self.configure_time),
            configure_wall_time: change.configure_wall_time.or(self.configure_wall_time),
            body: change.body.unwrap_or(self.body),
            instances: change.instances.unwrap_or(self.instances),
            calls: change.calls.unwrap_or(self.calls),
            calls_at_once: change.calls_at_once.unwrap_or(self.calls_at_once),
            log_rate: change.log_rate.unwrap_or(self.log_rate),
            series: change.series.unwrap_or(self.series),
            store: change.store.unwrap_or(self.store),
        }
    }
}

impl FilterLimitsChange {
    /// These changes, and where there is none, another's.
    pub(crate) fn or(self, other: FilterLimitsChange) -> FilterLimitsChange {
        FilterLimitsChange {
            memory: self.memory.or(other.memory),
            table: self.table.or(other.table),
            time: self.time.or(other.time),
            wall_time: self.wall_time.or(other.wall_time),
            configure_time: self.configure_time.or(other.configure_time),
            configure_wall_time: self.configure_wall_time.or(other.configure_wall_time),
            body: self.body.or(other.body),
            instances: self.instances.or(other.instances),
            calls: self.calls.or(other.calls),
            calls_at_once: self.calls_at_once.or(other.calls_at_once),
            log_rate: self.log_rate.or(other.log_rate),
            series: self.series.or(other.series),
            store: self.store.or(other.store),
        }
    }
}

impl Filter {
    /// The configuration, an empty table if none is given.
    pub(crate) fn config_or_empty(config: Option<&Value>) -> Value {
        config.cloned().unwrap_or_else(|| Value::Object(Map::new()))
    }
}
