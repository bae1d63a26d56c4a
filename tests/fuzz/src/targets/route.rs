//! Paths and routes: a normal form is its own, however a path was spelled it finds the same route, the order of routes
//! does not matter, and what is found is what a plain reading of the patterns finds.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method};
use tidegate_core::path::{Ambiguous, normalise};
use tidegate_gateway::probe::{Routes, parameters};
use tidegate_gateway::{HostPattern, PathPattern, RouteSpec};

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// Lines: the path, the host, then a pattern each, with a host before it or not.
pub const TARGET: Target = Target {
    name: "route",
    fuzz,
    dictionary: &[
        "/",
        "//",
        "/.",
        "/..",
        "/../",
        "/./",
        "%2e",
        "%2E%2e",
        "%2f",
        "%2F",
        "%5c",
        "%00",
        "%25",
        "%252e",
        "%C3%A9",
        "é",
        "%zz",
        "%",
        ";",
        "?",
        "#",
        "\\",
        "*",
        "{a}",
        "{b}",
        "{",
        "}",
        "/a",
        "/b",
        "/{x}/",
        "/*",
        "/a*",
        "\n",
        "a.example",
        "*.example",
        "%61",
        "|",
        "^",
        " ",
        "\n/a/{x}\n",
        "\n*.b.example/a/*\n",
    ],
};

/// The most routes of one input.
const ROUTES: usize = 24;

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let path = String::from_utf8_lossy(source.line());
    let host = String::from_utf8_lossy(source.line()).to_ascii_lowercase();
    let strict = normal(&path, Ambiguous::Refuse);
    let lenient = normal(&path, Ambiguous::Keep);
    if let Some(strict) = &strict {
        assert_eq!(
            lenient.as_ref(),
            Some(strict),
            "what is not ambiguous has one normal form"
        );
    }
    let Some(path) = lenient else {
        return fingerprint(format!("{:?}", normalise(&path, Ambiguous::Keep).err()));
    };
    let specs = specs(&mut source);
    let mut reversed = specs.clone();
    reversed.reverse();
    let (routes, other) = match (Routes::new(specs.clone()), Routes::new(reversed)) {
        (Ok(routes), Ok(other)) => (routes, other),
        (Err(one), Err(two)) => {
            assert_eq!(one, two, "conflicts depend on the order");
            return fingerprint((one.len(), 1));
        }
        _ => panic!("whether routes conflict depends on their order"),
    };
    let found = find(&routes, &host, &path);
    assert_eq!(
        found,
        find(&other, &host, &path),
        "the route depends on the order"
    );
    for spelled in spellings(&path) {
        let again = normal(&spelled, Ambiguous::Keep);
        assert_eq!(again.as_ref(), Some(&path), "the normal form of {spelled}");
    }
    let fits: Vec<&RouteSpec> = specs
        .iter()
        .filter(|spec| takes(spec, &host, &path))
        .collect();
    match &found {
        None => assert!(
            fits.is_empty(),
            "{path} fits {} and is not found",
            fits.len()
        ),
        Some(name) => assert!(
            fits.iter().any(|spec| spec.name == *name),
            "{path} does not fit {name}"
        ),
    }
    for spec in fits {
        for (name, _) in parameters(&spec.path, &path) {
            assert!(!name.is_empty(), "a parameter without a name");
        }
    }
    fingerprint((found.map(|name| name.len()), strict.is_some(), specs.len()))
}

fn find(routes: &Routes, host: &str, path: &str) -> Option<Arc<str>> {
    let found = routes.find(host, path, &Method::GET, &HeaderMap::new());
    found.map(|spec| Arc::clone(&spec.name))
}

/// The normal form, held against what one must be.
fn normal(path: &str, ambiguous: Ambiguous) -> Option<String> {
    let found = normalise(path, ambiguous).ok()?;
    if let Cow::Borrowed(same) = found {
        assert_eq!(same, path, "a part of the path");
    }
    let found = found.into_owned();
    assert!(
        found.starts_with('/') && found.is_ascii() && !found.contains("//"),
        "{found}"
    );
    assert!(
        found
            .split('/')
            .all(|segment| segment != "." && segment != ".."),
        "{found}"
    );
    assert!(
        found
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)),
        "{found}"
    );
    assert_eq!(
        normalise(&found, ambiguous).as_deref(),
        Ok(found.as_str()),
        "its own normal form"
    );
    Some(found)
}

/// Other spellings of a path in normal form, each different at one place.
fn spellings(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, letter) in path.char_indices().take(64) {
        let (before, after) = path.split_at(at);
        if letter == '/' {
            for more in ["/", "/.", "/x/..", "/%2e", "/x/%2E%2e"] {
                found.push(format!("{before}{more}{after}"));
            }
        } else if letter.is_ascii_alphanumeric() || "-._~".contains(letter) {
            // Not within an escape.
            let escaped = before.ends_with('%')
                || before
                    .get(..at.saturating_sub(1))
                    .is_some_and(|before| before.ends_with('%'));
            if !escaped {
                let after = after.get(1..).unwrap_or_default();
                found.push(format!("{before}%{:02x}{after}", u32::from(letter)));
            }
        }
    }
    found
}

fn specs(source: &mut Source<'_>) -> Vec<RouteSpec> {
    let mut specs: Vec<RouteSpec> = Vec::new();
    while !source.is_empty() && specs.len() < ROUTES {
        let line = String::from_utf8_lossy(source.line()).into_owned();
        let (host, path) = line.split_at(line.find('/').unwrap_or(0));
        let host = if host.is_empty() {
            Ok(HostPattern::Any)
        } else {
            HostPattern::parse(host)
        };
        let (Ok(host), Ok(path)) = (host, PathPattern::parse(path)) else {
            continue;
        };
        specs.push(RouteSpec {
            name: format!("{}:{line}", specs.len()).into(),
            host,
            path,
            methods: Vec::new(),
            headers: Vec::new(),
            upstream: None,
            filters: Vec::new(),
            preserve_host: true,
            server_timing: false,
        });
    }
    specs
}

/// Whether a route takes a request, read off its pattern as a person would.
fn takes(spec: &RouteSpec, host: &str, path: &str) -> bool {
    let host_fits = match &spec.host {
        HostPattern::Any => true,
        HostPattern::Exact(name) => name == host,
        HostPattern::Suffix(end) => host.len() > end.len() && host.ends_with(end.as_str()),
    };
    let pattern = spec.path.to_string();
    let mut rest = path;
    let pieces = pattern.split('/').skip(1);
    for piece in pieces {
        let Some(tail) = rest.strip_prefix('/') else {
            return false;
        };
        if let Some(literal) = piece.strip_suffix('*') {
            return host_fits && tail.starts_with(&literal_form(literal));
        }
        let (segment, more) = tail.split_at(tail.find('/').unwrap_or(tail.len()));
        let fits = if piece.starts_with('{') {
            !segment.is_empty()
        } else {
            segment == literal_form(piece)
        };
        if !fits {
            return false;
        }
        rest = more;
    }
    host_fits && rest.is_empty()
}

/// A pattern's literal text as it stands in normal forms.
fn literal_form(text: &str) -> String {
    let form = normalise(&format!("/{text}"), Ambiguous::Keep).map(Cow::into_owned);
    form.expect("patterns are checked").split_off(1)
}
