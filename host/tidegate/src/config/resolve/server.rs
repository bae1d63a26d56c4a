//! `[server]`: what holds for the whole process.

use std::env;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use tidegate_core::path::Ambiguous;

use super::super::checked::{self, AccessFormat, AccessLog, FilterPool, Server, Underscores};
use super::super::units::Size;
use super::super::written;
use super::{DAY, Resolver};
use crate::plugins::MAX_PLUGIN;

/// What `[server]` came to.
pub(super) struct Resolved {
    /// None: it has mistakes.
    pub(super) server: Option<Server>,
    /// What holds for filters that do not say otherwise.
    pub(super) filter_defaults: written::FilterDefaults,
}

const SECOND: Duration = Duration::from_secs(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Resolver<'_> {
    /// Resolves `[server]`, and names the files that it reads.
    pub(super) fn server(&mut self, plugins: PathBuf) -> (Resolved, Vec<PathBuf>) {
        let written = &self.written.server;
        let before = self.notes.mistakes.len();
        let (listen, tls, admin, files) = self.listeners();
        if written.drain_timeout.0 > DAY {
            let mistake = self.at(
                "/server/drain-timeout",
                "`drain-timeout` must be at most 1 day",
            );
            self.notes.mistake(mistake);
        }
        if !(SECOND..=DAY).contains(&written.dns_refresh.0) {
            let mistake = self.at(
                "/server/dns-refresh",
                "`dns-refresh` must be between 1s and 1 day",
            );
            self.notes.mistake(mistake);
        }
        let server = Server {
            listen,
            tls,
            refuse_unknown_names: matches!(
                written.tls_unknown_names,
                written::UnknownNames::Refuse
            ),
            admin,
            workers: workers(written.workers),
            plugins,
            cache: self.cache(),
            drain_timeout: written.drain_timeout.0,
            dns_refresh: written.dns_refresh.0,
            trusted_proxies: self.networks("trusted-proxies", &self.written.server.trusted_proxies),
            proxy_protocol: self.networks("proxy-protocol", &self.written.server.proxy_protocol),
            access_log: self.access_log(),
            underscores: match written.underscores {
                written::Underscores::Drop => Underscores::Drop,
                written::Underscores::Refuse => Underscores::Refuse,
                written::Underscores::Allow => Underscores::Allow,
            },
            ambiguous_paths: match written.ambiguous_paths {
                written::AmbiguousPaths::Refuse => Ambiguous::Refuse,
                written::AmbiguousPaths::Keep => Ambiguous::Keep,
            },
            via: self.via(),
            limits: self.limits(),
            compile: self.compile(),
            filter_pool: self.filter_pool(),
        };
        self.filter_limits(
            "/server/filter-defaults/limits",
            written.filter_defaults.limits,
        );
        self.quarantine_of_all(written.filter_defaults.quarantine);
        let resolved = Resolved {
            server: (self.notes.mistakes.len() == before).then_some(server),
            filter_defaults: written.filter_defaults,
        };
        (resolved, files)
    }

    /// The bounds of filters as numbers.
    pub(super) fn filter_limits(
        &mut self,
        pointer: &str,
        limits: written::FilterLimits,
    ) -> tidegate_wasm::Limits {
        let at = |key: &str| format!("{pointer}/{key}");
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let memory = self.size(&at("memory"), limits.memory, 64 * KIB..=4 * GIB);
        let body = self.size(&at("body"), limits.body, 0..=GIB);
        let time = self.time(&at("time"), limits.time, minutes(1));
        let configure_time = self.time(&at("configure-time"), limits.configure_time, minutes(5));
        tidegate_wasm::Limits {
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            table: limits.table,
            time,
            wall_time: match limits.wall_time {
                Some(wall) => self.time(&at("wall-time"), wall, minutes(10)),
                None => time.saturating_mul(10),
            },
            configure_time,
            configure_wall_time: match limits.configure_wall_time {
                Some(wall) => self.time(&at("configure-wall-time"), wall, minutes(30)),
                None => configure_time.saturating_mul(5),
            },
            body: u32::try_from(body).unwrap_or(u32::MAX),
            instances: limits.instances,
            calls: limits.calls,
            calls_at_once: limits.calls_at_once,
            log_rate: limits.log_rate,
            series: limits.series,
            store: self.size(&at("store"), limits.store, 4 * MIB..=1024 * GIB),
        }
    }

    fn filter_pool(&mut self) -> FilterPool {
        let pool = self.written.server.filter_pool;
        let stack = self.size("/server/filter-pool/stack", pool.stack, 64 * KIB..=MIB);
        FilterPool {
            instances: pool.instances,
            stack: usize::try_from(stack).unwrap_or(usize::MAX),
        }
    }

    fn limits(&mut self) -> checked::Limits {
        let written = self.written.server.limits.clone();
        let at = |key: &str| format!("/server/limits/{key}");
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        if let Some(body) = written.max_body {
            self.size(&at("max-body"), body, 0..=Size(1 << 50).0);
        }
        checked::Limits {
            header_timeout: self.time(&at("header-timeout"), written.header_timeout, DAY),
            idle_timeout: self.time(&at("idle-timeout"), written.idle_timeout, DAY),
            body_idle_timeout: self.time(&at("body-idle-timeout"), written.body_idle_timeout, DAY),
            handshake_timeout: self.time(&at("handshake-timeout"), written.handshake_timeout, DAY),
            max_head: bytes(self.size(&at("max-head"), written.max_head, KIB..=MIB)),
            max_fields: written.max_fields,
            max_target: bytes(self.size(&at("max-target"), written.max_target, 64..=64 * KIB)),
            max_body: written.max_body.map(|size| size.0),
            max_connections: written.max_connections,
            max_connections_per_source: written.max_connections_per_source,
            max_requests_per_connection: written.max_requests_per_connection,
            max_connection_age: written
                .max_connection_age
                .map(|age| self.time(&at("max-connection-age"), age, DAY)),
            min_body_rate: self.size(&at("min-body-rate"), written.min_body_rate, 0..=GIB),
            max_concurrent_streams: written.max_concurrent_streams,
        }
    }

    fn compile(&mut self) -> checked::Compile {
        let written = self.written.server.compile;
        let at = |key: &str| format!("/server/compile/{key}");
        let max_file = self.size(&at("max-file"), written.max_file, KIB..=MAX_PLUGIN);
        checked::Compile {
            max_file: usize::try_from(max_file).unwrap_or(usize::MAX),
            time: self.time(&at("time"), written.time, Duration::from_secs(600)),
            memory: self.size(&at("memory"), written.memory, 256 * MIB..=64 * GIB),
            at_once: written.at_once,
        }
    }

    fn cache(&self) -> Option<PathBuf> {
        match self.written.server.cache.as_deref() {
            Some("off") => None,
            Some(folder) => Some(self.base.join(folder)),
            None => {
                let absolute = |name: &str| {
                    let folder = env::var_os(name).map(PathBuf::from);
                    folder.filter(|folder| folder.is_absolute())
                };
                let cache = absolute("XDG_CACHE_HOME")
                    .or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
                Some(cache.join("tidegate"))
            }
        }
    }

    fn networks(&mut self, key: &str, written: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let pointer = format!("/server/{key}/{index}");
            let address = text.parse::<IpAddr>().map(IpNet::from);
            match text.parse::<IpNet>().ok().or(address.ok()) {
                Some(network) if network.trunc() == network => networks.push(network),
                Some(network) => {
                    let help = format!(
                        "write the network, \"{}\", or the address alone, \"{}\"",
                        network.trunc(),
                        network.addr()
                    );
                    let wrong = "is an address inside of a network";
                    let mistake = self.wrong_text(&pointer, text, wrong, &help);
                    self.notes.mistake(mistake);
                }
                None => {
                    let help = "write it as \"10.0.0.0/8\" or \"fd00::/8\", or a single address";
                    let wrong = "is not a network of addresses";
                    let mistake = self.wrong_text(&pointer, text, wrong, help);
                    self.notes.mistake(mistake);
                }
            }
        }
        networks
    }

    fn access_log(&self) -> Option<AccessLog> {
        let written = self.written.server.access_log.as_ref()?;
        Some(AccessLog {
            format: match written.format {
                written::AccessFormat::Text => AccessFormat::Text,
                written::AccessFormat::Json => AccessFormat::Json,
            },
            path: (written.path != "-").then(|| self.base.join(&written.path)),
        })
    }

    fn via(&mut self) -> Option<String> {
        let name = self.written.server.via.as_ref()?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let valid = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(is_token)
            && HeaderValue::from_str(name).is_ok();
        if !valid {
            let shown = self.quoted("/server/via", name);
            let mistake = self
                .at("/server/via", &format!("{shown} can't be a name in `Via`"))
                .help("up to 64 letters, digits, `-`, `.` and `_`");
            self.notes.mistake(mistake);
        }
        Some(name.clone())
    }
}

/// The number of worker threads: as written, or one a core.
fn workers(written: usize) -> usize {
    match written {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    }
}
