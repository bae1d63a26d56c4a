//! Which request goes where. Routes are compiled once into an order of specificity, so that the order in which they
//! are written never matters. Knows nothing of what stands behind a route.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate_core::exchange::PathParameters;
use tidegate_core::path::{self, Ambiguous};
use tidegate_upstream::Upstream;

/// Why a pattern can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No host, and no `*.` with a host.
    #[error("`{0}` is no host; write a name, or `*.` and a name")]
    Host(String),
    /// No path that could be matched.
    #[error(
        "`{0}` is no path pattern; write literal segments, `{{name}}` for one segment, `*` at the end for the rest"
    )]
    Path(String),
}

/// The hosts that a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This one, in lower case.
    Exact(String),
    /// Every host that ends so (`.example.com`), with at least one label before.
    Suffix(String),
}

impl HostPattern {
    /// Reads a host or `*.host`.
    ///
    /// # Errors
    /// [`PatternError::Host`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        let valid = !name.is_empty()
            && name.bytes().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
            });
        match (valid, wildcard) {
            (false, _) => Err(PatternError::Host(text.to_owned())),
            (true, true) => Ok(HostPattern::Suffix(format!(".{name}"))),
            (true, false) => Ok(HostPattern::Exact(name.to_owned())),
        }
    }
}

/// One piece of a path's pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// This very segment.
    Literal(String),
    /// Any one segment that is not empty.
    Parameter(Arc<str>),
    /// Literal text and then everything; only at the end.
    Rest(String),
}

/// The paths that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

impl PathPattern {
    /// Reads a pattern: `/v1/users/{id}`, `/static/*`, `/*`.
    ///
    /// # Errors
    /// [`PatternError::Path`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError::Path(text.to_owned());
        let inner = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments = Vec::new();
        let mut pieces = inner.split('/').peekable();
        while let Some(piece) = pieces.next() {
            if let Some(name) = piece
                .strip_prefix('{')
                .and_then(|piece| piece.strip_suffix('}'))
            {
                let known = segments
                    .iter()
                    .any(|s| matches!(s, Segment::Parameter(n) if &**n == name));
                if name.is_empty() || name.contains(['{', '}', '*']) || known {
                    return Err(wrong());
                }
                segments.push(Segment::Parameter(Arc::from(name)));
            } else if let Some(literal) = piece.strip_suffix('*') {
                if pieces.peek().is_some() || literal.contains(['*', '{', '}']) {
                    return Err(wrong());
                }
                segments.push(Segment::Rest(normal_segment(literal).ok_or_else(wrong)?));
            } else if piece.contains(['{', '}', '*'])
                || (piece.is_empty() && pieces.peek().is_some())
            {
                return Err(wrong());
            } else {
                segments.push(Segment::Literal(normal_segment(piece).ok_or_else(wrong)?));
            }
        }
        Ok(PathPattern {
            text: text.to_owned(),
            segments,
        })
    }

    /// What the pattern finds in a path in normal form.
    fn find(&self, path: &str, found: &mut PathParameters) -> bool {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for (index, segment) in self.segments.iter().enumerate() {
            if let Segment::Rest(literal) = segment {
                let Some(tail) = rest.strip_prefix(literal.as_str()) else {
                    return false;
                };
                found.push((Arc::from("*"), decoded(tail)));
                return true;
            }
            let last = index + 1 == self.segments.len();
            let (piece, more) = match rest.split_once('/') {
                Some((piece, more)) => (piece, Some(more)),
                None => (rest, None),
            };
            match segment {
                Segment::Literal(literal) if literal == piece => {}
                Segment::Parameter(name) if !piece.is_empty() => {
                    found.push((name.clone(), decoded(piece)))
                }
                _ => return false,
            }
            match (last, more) {
                (true, None) => return true,
                (false, Some(more)) => rest = more,
                _ => return false,
            }
        }
        false
    }

    /// How specific each segment is: a literal before a longer beginning before a shorter before a parameter.
    fn rank(&self) -> Vec<(u8, usize)> {
        let mut rank: Vec<(u8, usize)> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(_) => (3, 0),
                Segment::Parameter(_) => (2, 0),
                Segment::Rest(literal) => (1, literal.len()),
            })
            .collect();
        // A pattern that ends is more specific than one that goes on with anything.
        rank.push((2, 1));
        rank
    }

    /// The pattern without its names: two patterns of one shape match the same paths.
    fn shape(&self) -> Vec<Segment> {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Parameter(_) => Segment::Parameter(Arc::from("")),
                other => other.clone(),
            })
            .collect()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn normal_segment(text: &str) -> Option<String> {
    let normal = path::normalise(&format!("/{text}"), Ambiguous::Keep)
        .ok()?
        .into_owned();
    normal
        .strip_prefix('/')
        .map(str::to_owned)
        .filter(|segment| !segment.contains('/'))
}

/// A value with its escapes decoded; bytes that are no UTF-8 become U+FFFD.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escape = match (first, tail) {
            (b'%', [high, low, ..]) => char::from(*high)
                .to_digit(16)
                .zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

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

/// All routes, most specific first.
#[derive(Debug, Default)]
pub(crate) struct Router {
    routes: Vec<RouteSpec>,
    exact: HashMap<String, Vec<usize>>,
    /// Longest suffix first.
    suffixes: Vec<(String, Vec<usize>)>,
    any: Vec<usize>,
}

impl Router {
    /// Sorts routes by specificity.
    pub(crate) fn new(mut routes: Vec<RouteSpec>) -> Result<Self, Vec<Conflict>> {
        routes.sort_by(|a, b| {
            b.path
                .rank()
                .cmp(&a.path.rank())
                .then(b.conditions().cmp(&a.conditions()))
                .then(a.name.cmp(&b.name))
        });
        let mut conflicts = Vec::new();
        for (index, one) in routes.iter().enumerate() {
            for other in routes.iter().skip(index + 1) {
                if one.host == other.host
                    && one.conditions() == other.conditions()
                    && one.path.shape() == other.path.shape()
                    && one.overlaps(other)
                {
                    conflicts.push(Conflict(one.name.clone(), other.name.clone()));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut router = Router::default();
        let mut suffixes: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            match &route.host {
                HostPattern::Any => router.any.push(index),
                HostPattern::Exact(host) => {
                    router.exact.entry(host.clone()).or_default().push(index)
                }
                HostPattern::Suffix(suffix) => {
                    suffixes.entry(suffix.clone()).or_default().push(index)
                }
            }
        }
        router.suffixes = suffixes.into_iter().collect();
        router
            .suffixes
            .sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.0.cmp(&b.0)));
        router.routes = routes;
        Ok(router)
    }

    /// The routes, most specific first.
    pub(crate) fn routes(&self) -> &[RouteSpec] {
        &self.routes
    }

    /// The position of the most specific route that takes a request, and what it found in the path. `host` is in
    /// lower case, without port and trailing dot.
    pub(crate) fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        fields: &HeaderMap,
    ) -> Option<(usize, PathParameters)> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(host)
        };
        let suffixes = self
            .suffixes
            .iter()
            .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
            .map(|(_, routes)| routes);
        for candidates in exact.into_iter().chain(suffixes).chain([&self.any]) {
            for &index in candidates {
                let Some(route) = self.routes.get(index) else {
                    continue;
                };
                let mut found = PathParameters::new();
                if route.path.find(path, &mut found) && route.takes(method, fields) {
                    return Some((index, found));
                }
            }
        }
        None
    }
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
        }
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<(String, PathParameters)> {
        let (index, found) = router.find(host, path, &Method::GET, &HeaderMap::new())?;
        Some((router.routes()[index].name.to_string(), found))
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
                assert_eq!(find(&router, "h", path).unwrap().0, expected, "{path}");
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
            find(&router, "a.example.com", "/a").unwrap().0,
            "a.example.com/*"
        );
        assert_eq!(
            find(&router, "x.example.com", "/a").unwrap().0,
            "*.example.com/*"
        );
        assert_eq!(
            find(&router, "x.b.example.com", "/a").unwrap().0,
            "*.b.example.com/*"
        );
        assert_eq!(find(&router, "example.com", "/a").unwrap().0, "/a");
        assert!(find(&router, "example.com", "/b").is_none());
    }

    #[test]
    fn parameters_are_decoded() {
        let router = Router::new(vec![spec("", "/u/{id}/f/*")]).unwrap();
        let (_, found) = find(&router, "", "/u/a%20b/f/x/y").unwrap();
        assert_eq!(
            found,
            vec![
                (Arc::from("id"), "a b".to_owned()),
                (Arc::from("*"), "x/y".to_owned())
            ]
        );
        assert!(find(&router, "", "/u//f/x").is_none());
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
        let (index, _) = router.find("", "/a", &Method::GET, &fields).unwrap();
        assert_eq!(&*router.routes()[index].name, "beta");
        assert_eq!(find(&router, "", "/a").unwrap().0, "/a");
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
    fn bad_patterns_are_refused() {
        for bad in [
            "", "a", "/a//b", "/*/a", "/{a}/{a}", "/{}", "/a{b}", "/{a*}",
        ] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "*", "*.", "a b", "a/b"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
