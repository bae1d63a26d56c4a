//! From the checked configuration to what the gateway takes: settings, upstreams, routes and the places of filters. It
//! opens nothing and loads nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tidegate_gateway::{
    Failure, FilterSlot, HostPattern, Limits, PathPattern, RouteSpec, Settings, Snapshot,
    Underscores,
};
use tidegate_upstream::{Endpoint, HeadBounds, Names, TlsOptions, Upstream, UpstreamConfig};

use crate::config::checked::{self, Checked, Filter, Route, Server};

/// What was checked can't be put together all the same, because the parts have stricter rules than the checks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BuildError(String);

/// What holds for all routes.
pub(crate) fn settings(server: &Server) -> Settings {
    let limits = &server.limits;
    Settings {
        trusted_proxies: server.trusted_proxies.clone(),
        underscores: match server.underscores {
            checked::Underscores::Drop => Underscores::Drop,
            checked::Underscores::Refuse => Underscores::Refuse,
            checked::Underscores::Allow => Underscores::Allow,
        },
        ambiguous_paths: server.ambiguous_paths,
        via: server.via.clone(),
        limits: Limits {
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            body_idle_timeout: limits.body_idle_timeout,
            max_head: limits.max_head,
            max_fields: limits.max_fields,
            max_target: limits.max_target,
            max_body: limits.max_body,
            max_concurrent_streams: limits.max_concurrent_streams,
            max_requests: limits.max_requests_per_connection,
            max_age: limits.max_connection_age,
            min_body_rate: limits.min_body_rate,
        },
    }
}

/// How a filter's failure is answered.
pub(crate) fn failure(filter: &Filter) -> Failure {
    match filter.failure {
        checked::Failure::Closed => Failure::Closed,
        checked::Failure::Open => Failure::Open,
    }
}

/// Puts a snapshot together. `slots` are those filters that stand in a chain, by their position in
/// [`Checked::filters`]; a route leaves out those that have none.
///
/// # Errors
/// An upstream's TLS settings, or a pattern, can't be used; two routes can't be told apart.
pub(crate) fn snapshot(
    checked: &Checked,
    slots: Vec<(usize, FilterSlot)>,
    names: &Names,
) -> Result<Snapshot, BuildError> {
    let upstreams = checked
        .upstreams
        .iter()
        .map(|it| upstream(it, names))
        .collect::<Result<Vec<_>, _>>()?;
    let mut positions = vec![None; checked.filters.len()];
    let mut filters = Vec::with_capacity(slots.len());
    for (index, slot) in slots {
        if let Some(position) = positions.get_mut(index) {
            *position = Some(filters.len());
        }
        filters.push(slot);
    }
    let routes = checked
        .routes
        .iter()
        .map(|it| route(it, &upstreams, &positions))
        .collect::<Result<Vec<_>, _>>()?;
    Snapshot::new(filters, routes, upstreams).map_err(|conflicts| {
        let conflicts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        BuildError(conflicts.join("; "))
    })
}

fn upstream(upstream: &checked::Upstream, names: &Names) -> Result<Arc<Upstream>, BuildError> {
    let endpoints = upstream
        .endpoints
        .iter()
        .map(|url| {
            url.parse::<Endpoint>()
                .map_err(|error| BuildError(format!("upstream {}: {error}", upstream.name)))
        })
        .collect::<Result<_, _>>()?;
    let config = UpstreamConfig {
        connect_timeout: upstream.connect_timeout,
        response_timeout: upstream.response_timeout,
        idle_timeout: upstream.idle_timeout,
        idle_connections: upstream.idle_connections,
        keep_alive: upstream.keep_alive,
        max_age: upstream.max_age,
        head: HeadBounds {
            bytes: u32::try_from(upstream.max_head).unwrap_or(u32::MAX),
            fields: upstream.max_fields,
        },
        tls: TlsOptions {
            ca: upstream.tls.authorities.clone().unwrap_or_default(),
            insecure: upstream.tls.insecure,
            server_name: upstream.tls.server_name.clone(),
        },
        ..UpstreamConfig::new(Arc::clone(&upstream.name), endpoints)
    };
    Upstream::new(config, names).map_err(|error| BuildError(error.to_string()))
}

fn route(
    route: &Route,
    upstreams: &[Arc<Upstream>],
    positions: &[Option<usize>],
) -> Result<RouteSpec, BuildError> {
    let wrong = |error| BuildError(format!("route {}: {error}", route.name));
    Ok(RouteSpec {
        name: Arc::clone(&route.name),
        host: match &route.host {
            None => HostPattern::Any,
            Some(host) => HostPattern::parse(host).map_err(wrong)?,
        },
        path: PathPattern::parse(&route.path).map_err(wrong)?,
        methods: route.methods.clone(),
        headers: route.headers.clone(),
        upstream: route
            .upstream
            .and_then(|index| upstreams.get(index))
            .cloned(),
        filters: route
            .filters
            .iter()
            .filter_map(|index| positions.get(*index).copied().flatten())
            .collect(),
        preserve_host: route.preserve_host,
        server_timing: route.server_timing,
    })
}

/// What tells one configuration from another, wherever it is written and however it is laid out.
pub(crate) fn fingerprint(checked: &Checked) -> [u8; 32] {
    let Checked {
        server,
        upstreams,
        routes,
        filters,
        files: _,
    } = checked;
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{:?}", without_keys(server));
    for listener in &server.tls {
        let _ = write!(text, "{}", listener.listen);
        for identity in &listener.identities {
            let _ = write!(text, "{:?}", identity.certified.cert);
        }
    }
    let _ = write!(text, "{upstreams:?}");
    for route in routes {
        let (route, implicit) = (
            Route {
                origin: None,
                ..route.clone()
            },
            route.origin.is_none(),
        );
        let _ = write!(text, "{route:?}{implicit}");
    }
    for filter in filters {
        text += &said(filter);
    }
    Sha256::digest(text.as_bytes()).into()
}

/// Whether two filters are configured alike, wherever that is written.
pub(crate) fn says_the_same(one: &Filter, other: &Filter) -> bool {
    said(one) == said(other)
}

fn said(filter: &Filter) -> String {
    let filter = Filter {
        config_origin: None,
        ..filter.clone()
    };
    format!("{filter:?}")
}

/// Private keys are not printed, not even into memory; the certificates stand for them.
fn without_keys(server: &Server) -> Server {
    Server {
        tls: Vec::new(),
        ..server.clone()
    }
}
