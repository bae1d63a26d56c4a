//! Which request goes where. Routes are compiled once into trees of path segments by host, so that the order in which they
//! are written never matters, and finding one costs as much as the path is long. Knows nothing of what stands behind a
//! route.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate_upstream::Upstream;

use crate::pattern::{HostPattern, PathPattern, Segment};

/// The longest host that can be a name (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 255;

/// One route as it is configured.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name in logs, metrics and the contract.
    pub name: Arc<str>,
    /// Hosts.
    pub host: HostPattern,
    /// Paths.
    pub path: PathPattern,
    /// Methods; empty: all.
    pub methods: Vec<Method>,
    /// Fields that must stand in the request with this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where its requests go; none: only a filter can answer.
    pub upstream: Option<Arc<Upstream>>,
    /// Positions in the snapshot's filters, in the order of the request's way.
    pub filters: Vec<usize>,
    /// Whether the upstream sees the client's Host or its own.
    pub preserve_host: bool,
    /// Whether the response tells how long filters and upstream took.
    pub server_timing: bool,
}

impl RouteSpec {
    fn conditions(&self) -> usize {
        self.headers.len() + usize::from(!self.methods.is_empty())
    }

    fn takes(&self, method: &Method, fields: &HeaderMap) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && self
                .headers
                .iter()
                .all(|(name, value)| fields.get_all(name).iter().any(|held| held == value))
    }

    fn overlaps(&self, other: &RouteSpec) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| other.methods.contains(method));
        let headers = self.headers.iter().all(|(name, value)| {
            other
                .headers
                .iter()
                .all(|(other_name, other_value)| name != other_name || value == other_value)
        });
        methods && headers
    }
}

/// Two routes that no request can tell apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the routes `{0}` and `{1}` take the same requests")]
pub struct Conflict(pub Arc<str>, pub Arc<str>);

/// All routes, and how to find one.
#[derive(Debug, Default)]
pub(crate) struct Router {
    routes: Vec<RouteSpec>,
    exact: HashMap<String, Node>,
    /// By what a host ends with, beginning with a dot.
    suffixes: HashMap<String, Node>,
    any: Node,
}

/// The routes whose paths begin alike.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that take anything from here on, behind some text; the longest text first.
    rests: Vec<(Box<str>, Vec<usize>)>,
    /// Routes whose path ends here. Of several, here and above, those with more conditions come first.
    ends: Vec<usize>,
}

impl Node {
    fn insert(&mut self, segments: &[Segment], route: usize) {
        match segments {
            [] => self.ends.push(route),
            [Segment::Rest(text), ..] => {
                match self.rests.iter_mut().find(|(held, _)| held == text) {
                    Some((_, routes)) => routes.push(route),
                    None => self.rests.push((text.clone(), vec![route])),
                }
                self.rests.sort_by_key(|(text, _)| Reverse(text.len()));
            }
            [Segment::Literal(text), more @ ..] => {
                let node = self.literals.entry(text.clone()).or_default();
                node.insert(more, route);
            }
            [Segment::Parameter(_), more @ ..] => {
                self.parameter.get_or_insert_default().insert(more, route);
            }
        }
    }

    /// The first route, in the order of specificity, that takes what is left of a path.
    fn find(&self, rest: &str, takes: &impl Fn(usize) -> bool) -> Option<usize> {
        let (piece, more) = match rest.split_once('/') {
            Some((piece, more)) => (piece, Some(more)),
            None => (rest, None),
        };
        let below = |node: &Node| match more {
            Some(more) => node.find(more, takes),
            None => first(&node.ends, takes),
        };
        let literal = self.literals.get(piece).and_then(below);
        literal
            .or_else(|| {
                let parameter = self.parameter.as_ref().filter(|_| !piece.is_empty())?;
                below(parameter)
            })
            .or_else(|| {
                let mut behind = self.rests.iter();
                behind.find_map(|(text, routes)| {
                    let routes = rest.starts_with(&**text).then_some(routes)?;
                    first(routes, takes)
                })
            })
    }
}

fn first(routes: &[usize], takes: &impl Fn(usize) -> bool) -> Option<usize> {
    routes.iter().copied().find(|route| takes(*route))
}

impl Router {
    /// Sorts routes by specificity: host, then literal before pattern from the left, then more conditions.
    pub(crate) fn new(mut routes: Vec<RouteSpec>) -> Result<Self, Vec<Conflict>> {
        routes.sort_by(|a, b| {
            let conditions = b.conditions().cmp(&a.conditions());
            conditions.then(a.name.cmp(&b.name))
        });
        let conflicts = conflicts(&routes);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut router = Router::default();
        for (index, route) in routes.iter().enumerate() {
            let node = match &route.host {
                HostPattern::Any => &mut router.any,
                HostPattern::Exact(host) => router.exact.entry(host.clone()).or_default(),
                HostPattern::Suffix(suffix) => router.suffixes.entry(suffix.clone()).or_default(),
            };
            node.insert(route.path.segments(), index);
        }
        router.routes = routes;
        Ok(router)
    }

    /// All routes, by position.
    pub(crate) fn routes(&self) -> &[RouteSpec] {
        &self.routes
    }

    /// Whether any route asks for a host.
    pub(crate) fn has_hosts(&self) -> bool {
        !(self.exact.is_empty() && self.suffixes.is_empty())
    }

    /// The position of the most specific route that takes a request. `host` is in lower case, without port and trailing
    /// dot; `path` is in normal form.
    pub(crate) fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        fields: &HeaderMap,
    ) -> Option<usize> {
        let rest = path.strip_prefix('/')?;
        let takes = |index: usize| {
            let route = self.routes.get(index);
            route.is_some_and(|route| route.takes(method, fields))
        };
        let named = if host.len() <= MAX_HOST { host } else { "" };
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(named)
        };
        // What a host ends with, the longest first, always with a label before it.
        let dots = if self.suffixes.is_empty() { "" } else { named };
        let suffixes = dots
            .match_indices('.')
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| self.suffixes.get(named.get(at..)?));
        exact
            .into_iter()
            .chain(suffixes)
            .chain([&self.any])
            .find_map(|node| node.find(rest, &takes))
    }
}

/// Routes that no request can tell apart: same hosts, same paths, as many conditions, and none that excludes the other.
fn conflicts(routes: &[RouteSpec]) -> Vec<Conflict> {
    let mut alike: HashMap<_, Vec<&RouteSpec>> = HashMap::new();
    for route in routes {
        let key = (&route.host, route.path.shape(), route.conditions());
        alike.entry(key).or_default().push(route);
    }
    let mut conflicts = Vec::new();
    for routes in alike.values() {
        for (index, one) in routes.iter().enumerate() {
            for other in routes.iter().skip(index + 1) {
                if one.overlaps(other) {
                    conflicts.push(Conflict(one.name.clone(), other.name.clone()));
                }
            }
        }
    }
    conflicts.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    conflicts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: &str, path: &str) -> RouteSpec {
        RouteSpec {
            name: Arc::from(format!("{host}{path}")),
            host: if host.is_empty() {
                HostPattern::Any
            } else {
                HostPattern::parse(host).unwrap()
            },
            path: PathPattern::parse(path).unwrap(),
            methods: Vec::new(),
            headers: Vec::new(),
            upstream: None,
            filters: Vec::new(),
            preserve_host: true,
            server_timing: false,
        }
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<String> {
        let index = router.find(host, path, &Method::GET, &HeaderMap::new())?;
        Some(router.routes()[index].name.to_string())
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let mut specs: Vec<_> = [
            "/*", "/a/{x}", "/a/b", "/a/*", "/a/b/*", "/a/{x}/c", "/ab*", "/",
        ]
        .iter()
        .map(|p| spec("", p))
        .collect();
        for _ in 0..specs.len() {
            specs.rotate_left(1);
            let router = Router::new(specs.clone()).unwrap();
            for (path, expected) in [
                ("/a/b", "/a/b"),
                ("/a/z", "/a/{x}"),
                ("/a/z/c", "/a/{x}/c"),
                ("/a/z/d", "/a/*"),
                ("/a/b/c", "/a/b/*"),
                ("/abc/d", "/ab*"),
                ("/", "/"),
                ("/q", "/*"),
                ("/a/", "/a/*"),
            ] {
                assert_eq!(find(&router, "h", path).unwrap(), expected, "{path}");
            }
        }
    }

    #[test]
    fn hosts_go_before_paths() {
        let router = Router::new(vec![
            spec("", "/a"),
            spec("*.example.com", "/*"),
            spec("*.b.example.com", "/*"),
            spec("a.example.com", "/*"),
        ])
        .unwrap();
        assert_eq!(
            find(&router, "a.example.com", "/a").unwrap(),
            "a.example.com/*"
        );
        assert_eq!(
            find(&router, "x.example.com", "/a").unwrap(),
            "*.example.com/*"
        );
        assert_eq!(
            find(&router, "x.b.example.com", "/a").unwrap(),
            "*.b.example.com/*"
        );
        assert_eq!(find(&router, "example.com", "/a").unwrap(), "/a");
        assert!(find(&router, "example.com", "/b").is_none());
    }

    #[test]
    fn conditions_choose_and_fall_through() {
        let mut beta = spec("", "/a");
        beta.name = Arc::from("beta");
        beta.headers = vec![(
            HeaderName::from_static("x-beta"),
            HeaderValue::from_static("yes"),
        )];
        let router = Router::new(vec![spec("", "/a"), beta]).unwrap();
        let mut fields = HeaderMap::new();
        fields.insert("x-beta", HeaderValue::from_static("yes"));
        let index = router.find("", "/a", &Method::GET, &fields).unwrap();
        assert_eq!(&*router.routes()[index].name, "beta");
        assert_eq!(find(&router, "", "/a").unwrap(), "/a");
    }

    #[test]
    fn routes_that_nothing_tells_apart_are_named() {
        let (mut one, mut two) = (spec("", "/u/{a}"), spec("", "/u/{b}"));
        assert_eq!(
            Router::new(vec![one.clone(), two.clone()])
                .unwrap_err()
                .len(),
            1
        );
        one.methods = vec![Method::GET];
        two.methods = vec![Method::PUT];
        assert!(Router::new(vec![one, two]).is_ok());
    }

    #[test]
    fn a_dead_end_is_left_for_the_next_best_route() {
        let router = Router::new(vec![
            spec("", "/a/b/c"),
            spec("", "/a/{x}/d"),
            spec("", "/{x}/b/e"),
            spec("", "/a/*"),
        ])
        .unwrap();
        for (path, expected) in [
            ("/a/b/c", Some("/a/b/c")),
            ("/a/b/d", Some("/a/{x}/d")),
            // A literal before a pattern, from the left: what begins alike is left only if nothing of it fits.
            ("/a/b/e", Some("/a/*")),
            ("/z/b/e", Some("/{x}/b/e")),
            ("/z/b/f", None),
            ("/a", None),
            ("/a//", Some("/a/*")),
        ] {
            assert_eq!(find(&router, "h", path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn hosts_are_bounded_and_names_of_their_own() {
        let router = Router::new(vec![spec("*.a", "/*"), spec("", "/any")]).unwrap();
        let long = format!("{}a", "x.".repeat(200));
        assert_eq!(find(&router, "x.a", "/any").unwrap(), "*.a/*");
        assert_eq!(find(&router, &long, "/any").unwrap(), "/any");
        for host in ["a", ".a", "xa", ""] {
            assert_eq!(find(&router, host, "/any").unwrap(), "/any", "{host}");
        }
    }

    #[test]
    fn a_thousand_routes_are_found_at_once() {
        let hosts = ["", "a.example", "*.example"];
        let mut specs = Vec::new();
        for number in 0..400 {
            for host in hosts {
                specs.push(spec(host, &format!("/api/r{number}/{{id}}/x")));
            }
        }
        let router = Router::new(specs).unwrap();
        assert_eq!(
            find(&router, "a.example", "/api/r399/7/x").unwrap(),
            "a.example/api/r399/{id}/x"
        );
        assert_eq!(
            find(&router, "b.example", "/api/r0/7/x").unwrap(),
            "*.example/api/r0/{id}/x"
        );
        assert!(find(&router, "b.example", "/api/r400/7/x").is_none());
    }
}
