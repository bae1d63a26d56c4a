//! The configuration in force as it may be shown to whoever looks at the admin pages: complete, but without secrets.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_core::usage::Isolation;

use super::checked::{
    AccessFormat, Checked, Failure, Filter, Route, Server, Underscores, Upstream,
};
use super::document::child;
use super::units::{Size, Time};

/// What stands in place of a secret.
const BLANK: &str = "(hidden)";

/// Parts of names whose values are nobody's business.
const SECRET_NAMES: [&str; 11] = [
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "key",
    "credential",
    "digest",
    "sha256",
    "auth",
    "private",
];

/// The configuration as JSON. In a filter's `config` and a route's `headers` everything is hidden that came from the
/// environment or stands under a name that sounds like a secret, and a `config` that is a text is hidden whole.
pub(crate) fn view(checked: &Checked) -> Value {
    json!({
        "server": server(&checked.server),
        "upstreams": checked.upstreams.iter().map(upstream).collect::<Vec<_>>(),
        "routes": checked.routes.iter().map(|it| route(it, checked)).collect::<Vec<_>>(),
        "filters": checked.filters.iter().map(filter).collect::<Vec<_>>(),
    })
}

fn server(server: &Server) -> Value {
    let limits = &server.limits;
    json!({
        "listen": server.listen,
        "tls": server.tls.iter().map(|listener| json!({
            "listen": listener.listen,
            "certificates": listener.identities.iter().map(|it| json!({
                "file": it.certificate,
                "expires": it.expires.and_then(|expires| Timestamp::from_second(expires).ok()).map(|it| it.to_string()),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "tls-unknown-names": if server.refuse_unknown_names { "refuse" } else { "first" },
        "admin": server.admin,
        "workers": server.workers,
        "plugins": server.plugins,
        "cache": server.cache,
        "drain-timeout": Time(server.drain_timeout),
        "dns-refresh": Time(server.dns_refresh),
        "trusted-proxies": server.trusted_proxies,
        "proxy-protocol": server.proxy_protocol,
        "access-log": server.access_log.as_ref().map(|log| json!({
            "format": match log.format { AccessFormat::Text => "text", AccessFormat::Json => "json" },
            "path": log.path.as_ref().map_or("-".into(), |path| path.display().to_string()),
        })),
        "underscores": match server.underscores {
            Underscores::Drop => "drop",
            Underscores::Refuse => "refuse",
            Underscores::Allow => "allow",
        },
        "ambiguous-paths": match server.ambiguous_paths {
            tidegate_core::path::Ambiguous::Refuse => "refuse",
            tidegate_core::path::Ambiguous::Keep => "keep",
        },
        "via": server.via,
        "limits": {
            "header-timeout": Time(limits.header_timeout),
            "idle-timeout": Time(limits.idle_timeout),
            "body-idle-timeout": Time(limits.body_idle_timeout),
            "handshake-timeout": Time(limits.handshake_timeout),
            "max-head": Size(limits.max_head as u64),
            "max-fields": limits.max_fields,
            "max-target": Size(limits.max_target as u64),
            "max-body": limits.max_body.map(Size),
            "max-connections": limits.max_connections,
            "max-connections-per-source": limits.max_connections_per_source,
            "max-requests-per-connection": limits.max_requests_per_connection,
            "max-connection-age": limits.max_connection_age.map(Time),
            "min-body-rate": Size(limits.min_body_rate),
            "max-concurrent-streams": limits.max_concurrent_streams,
        },
        "filter-pool": {
            "instances": server.filter_pool.instances,
            "stack": Size(server.filter_pool.stack as u64),
        },
    })
}

fn upstream(upstream: &Upstream) -> Value {
    json!({
        "name": &*upstream.name,
        "endpoints": upstream.endpoints,
        "connect-timeout": Time(upstream.connect_timeout),
        "response-timeout": Time(upstream.response_timeout),
        "idle-timeout": Time(upstream.idle_timeout),
        "idle-connections": upstream.idle_connections,
        "keep-alive": Time(upstream.keep_alive),
        "max-age": Time(upstream.max_age),
        "max-head": Size(upstream.max_head as u64),
        "max-fields": upstream.max_fields,
        "tls": {
            "own-authorities": upstream.tls.authorities.as_ref().map(Vec::len),
            "server-name": upstream.tls.server_name,
            "insecure": upstream.tls.insecure,
        },
    })
}

fn route(route: &Route, checked: &Checked) -> Value {
    let filters: Vec<&str> = route
        .filters
        .iter()
        .filter_map(|index| checked.filters.get(*index))
        .map(|filter| &*filter.name)
        .collect();
    let headers: Map<String, Value> = route
        .headers
        .iter()
        .map(|(name, value)| {
            let shown = match value.to_str() {
                Ok(text) if !is_secret_name(name.as_str()) && !value.is_sensitive() => text,
                _ => BLANK,
            };
            (name.to_string(), Value::from(shown))
        })
        .collect();
    json!({
        "name": &*route.name,
        "host": route.host,
        "path": route.path,
        "methods": route.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "headers": headers,
        "upstream": route.upstream.and_then(|index| checked.upstreams.get(index)).map(|it| &*it.name),
        "filters": filters,
        "preserve-host": route.preserve_host,
        "server-timing": route.server_timing,
    })
}

fn filter(filter: &Filter) -> Value {
    let config = match &filter.config_value {
        Value::String(_) => Value::from(BLANK),
        value => hide(value, filter, ""),
    };
    let env: Vec<&String> = filter.allow.env.keys().collect();
    json!({
        "name": &*filter.name,
        "file": filter.file,
        "config": config,
        "failure": match filter.failure { Failure::Closed => "closed", Failure::Open => "open" },
        "allow": { "http": filter.allow.http, "store": filter.allow.store, "env": env },
        "isolation": filter.isolation.map(Isolation::name),
        "limits": {
            "memory": Size(filter.limits.memory as u64),
            "table": filter.limits.table,
            "time": Time(filter.limits.time),
            "wall-time": Time(filter.limits.wall_time),
            "configure-time": Time(filter.limits.configure_time),
            "configure-wall-time": Time(filter.limits.configure_wall_time),
            "body": Size(u64::from(filter.limits.body)),
            "instances": filter.limits.instances,
            "calls": filter.limits.calls,
            "calls-at-once": filter.limits.calls_at_once,
            "log-rate": filter.limits.log_rate,
            "series": filter.limits.series,
            "store": Size(filter.limits.store),
        },
        "quarantine": filter.quarantine.map(|it| json!({
            "failures": it.failures,
            "window": Time(it.window),
            "first": Time(it.first),
            "longest": Time(it.longest),
        })),
        "self-check": filter.self_check.as_ref().map(|it| json!({
            "method": it.method.as_str(),
            "path": it.target.path(),
            "expect": { "status": it.status.as_u16() },
        })),
        "used": filter.used,
        "fault": filter.fault,
    })
}

/// A value of a filter's configuration without what may be a secret.
fn hide(value: &Value, filter: &Filter, pointer: &str) -> Value {
    match value {
        Value::Object(table) => {
            let shown = table.iter().map(|(key, value)| {
                let value = match value {
                    Value::String(_) | Value::Number(_) if is_secret_name(key) => {
                        Value::from(BLANK)
                    }
                    Value::Array(items) if is_secret_name(key) => Value::Array(
                        items
                            .iter()
                            .enumerate()
                            .map(|(index, item)| match item {
                                Value::Object(_) => {
                                    hide(item, filter, &format!("{}/{index}", child(pointer, key)))
                                }
                                _ => Value::from(BLANK),
                            })
                            .collect(),
                    ),
                    value => hide(value, filter, &child(pointer, key)),
                };
                (key.clone(), value)
            });
            Value::Object(shown.collect())
        }
        Value::Array(items) => {
            let shown = items.iter().enumerate();
            Value::Array(
                shown
                    .map(|(index, item)| hide(item, filter, &format!("{pointer}/{index}")))
                    .collect(),
            )
        }
        Value::String(_) => {
            let substituted = filter.config_origin.as_ref().is_some_and(|origin| {
                let origin = origin.below(pointer);
                origin.document.is_substituted(&origin.pointer)
            });
            if substituted {
                Value::from(BLANK)
            } else {
                value.clone()
            }
        }
        value => value.clone(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}
