//! `[[route]]`: conditions, upstream and filters, and whether any two can't be told apart.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::super::checked::{Route, Upstream};
use super::super::document::child;
use super::super::written::{self, FilterUse};
use super::filters::{FilterSet, free_name, unknown_help};
use super::upstreams::DEFAULT;
use super::{Resolver, pattern};
use crate::diagnostic::Mistake;

impl Resolver<'_> {
    /// All routes; without any, one for everything with every filter of the folder.
    pub(super) fn routes(&mut self, upstreams: &[Upstream], set: &mut FilterSet) -> Vec<Route> {
        if self.written.route.is_empty() {
            let route = self.everything(upstreams, set);
            return vec![route];
        }
        let mut names = HashSet::new();
        let mut routes = Vec::new();
        for (index, written) in self.written.route.iter().enumerate() {
            let pointer = format!("/route/{index}");
            let name = self.route_name(&pointer, written, &mut names);
            let filters = self.route_filters(&pointer, written, &name, set);
            routes.push(Route {
                host: self.host(&pointer, written),
                path: self.path(&pointer, written),
                methods: self.methods(&pointer, written),
                headers: self.headers(&pointer, written),
                upstream: self.upstream(&pointer, written, upstreams),
                filters,
                preserve_host: written.preserve_host,
                server_timing: written.server_timing,
                origin: self.origin(&pointer),
                name,
            });
        }
        self.conflicts(&routes);
        routes
    }

    fn everything(&mut self, upstreams: &[Upstream], set: &mut FilterSet) -> Route {
        let filters: Vec<usize> = self
            .folder
            .plugins
            .iter()
            .filter_map(|plugin| set.find(&plugin.name))
            .collect();
        for index in &filters {
            set.used(*index);
        }
        let upstream = the_only(upstreams);
        if upstream.is_none() && !upstreams.is_empty() {
            let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
            let mistake = self
                .at_key(
                    &child("/upstream", names.first().copied().unwrap_or_default()),
                    "there is no route, and more than one upstream to choose from",
                )
                .help(
                    "add a `[[route]]` with `upstream = \"...\"`, or call one upstream `default`",
                );
            self.notes.mistake(mistake);
        }
        if upstreams.is_empty() && !self.is_uncertain("/upstream") {
            let warning = Mistake::of(
                self.file_name(),
                "no upstream is configured: what no filter answers is answered with 502",
            );
            self.notes
                .warn(warning.help("name one: `--upstream http://127.0.0.1:9000`"));
        }
        Route {
            name: Arc::from("default"),
            host: None,
            path: "/*".to_owned(),
            methods: Vec::new(),
            headers: Vec::new(),
            upstream,
            filters,
            preserve_host: true,
            server_timing: false,
            origin: None,
        }
    }

    fn file_name(&self) -> String {
        match self.document {
            Some(document) => document.name().to_owned(),
            None => "no configuration file".to_owned(),
        }
    }

    fn route_name(
        &mut self,
        pointer: &str,
        written: &written::Route,
        names: &mut HashSet<String>,
    ) -> Arc<str> {
        let name = match &written.name {
            Some(name) => {
                let at = format!("{pointer}/name");
                let plain =
                    !name.is_empty() && name.len() <= 128 && !name.contains(char::is_control);
                if !plain {
                    let mistake = self
                        .at(&at, "this can't be the name of a route")
                        .help("a name has 1 to 128 printable characters");
                    self.notes.mistake(mistake);
                } else if names.contains(name) {
                    let mut mistake = self.at(
                        &at,
                        &format!("there is a route {} already", self.quoted(&at, name)),
                    );
                    if let (Some(document), Some(first)) = (self.document, self.named_route(name)) {
                        mistake = mistake.other(
                            document.place(&format!("/route/{first}/name")),
                            "it is named here",
                        );
                    }
                    self.notes.mistake(mistake.help("choose another name"));
                }
                name.clone()
            }
            None => {
                let host = written.host.as_deref().unwrap_or_default();
                let wanted = format!("{}{}", host.to_lowercase(), written.path);
                free_name(&wanted, |name| {
                    names.contains(name) || self.named_route(name).is_some()
                })
            }
        };
        names.insert(name.clone());
        Arc::from(name)
    }

    /// The first route of that written name.
    fn named_route(&self, name: &str) -> Option<usize> {
        let mut routes = self.written.route.iter();
        routes.position(|route| route.name.as_deref() == Some(name))
    }

    fn host(&mut self, pointer: &str, written: &written::Route) -> Option<String> {
        let host = written.host.as_ref()?;
        match pattern::host(host) {
            Ok(host) => Some(host),
            Err(wrong) => {
                self.wrong_pattern(&format!("{pointer}/host"), host, &wrong);
                None
            }
        }
    }

    fn path(&mut self, pointer: &str, written: &written::Route) -> String {
        if let Err(wrong) = pattern::path(&written.path) {
            self.wrong_pattern(&format!("{pointer}/path"), &written.path, &wrong);
        }
        written.path.clone()
    }

    fn wrong_pattern(&mut self, pointer: &str, text: &str, wrong: &pattern::Wrong) {
        let mistake = if self.is_hidden(pointer) {
            self.at(pointer, "the value can't match any request")
        } else {
            self.wrong_text(pointer, text, &wrong.message, &wrong.help)
        };
        self.notes.mistake(mistake);
        // What can't match can't be in another route's way.
        self.notes.leave_out(pointer);
    }

    fn methods(&mut self, pointer: &str, written: &written::Route) -> Vec<Method> {
        let mut methods = Vec::new();
        for (index, text) in written.methods.iter().enumerate() {
            let at = format!("{pointer}/methods/{index}");
            let upper = text.to_uppercase();
            let shown = self.quoted(&at, text);
            match Method::from_bytes(text.as_bytes()) {
                Ok(method) if methods.contains(&method) => {
                    let mistake = self.at(&at, &format!("{shown} stands twice"));
                    self.notes.mistake(mistake);
                }
                Ok(_) if *text != upper && Method::from_bytes(upper.as_bytes()).is_ok() => {
                    let mistake = self
                        .at(&at, &format!("{shown} is not a method that clients send"))
                        .help(format!("methods are case-sensitive: write \"{upper}\""));
                    self.notes.mistake(mistake);
                }
                Ok(method) => methods.push(method),
                Err(_) => {
                    let mistake = self
                        .at(&at, &format!("{shown} is not a method"))
                        .help("write it as \"GET\"");
                    self.notes.mistake(mistake);
                }
            }
        }
        methods
    }

    fn headers(
        &mut self,
        pointer: &str,
        written: &written::Route,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in &written.headers {
            let at = child(&format!("{pointer}/headers"), name);
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                let message = format!("`{name}` is not the name of a header field");
                let mistake = self.at_key(&at, &message);
                self.notes.mistake(mistake);
                continue;
            };
            if parsed == http::header::HOST {
                let mistake = self
                    .at_key(&at, "`host` is no header field here")
                    .help("use `host = \"...\"` of the route");
                self.notes.mistake(mistake);
                continue;
            }
            if headers.iter().any(|(known, _)| *known == parsed) {
                let message = format!("`{name}` stands twice: names of header fields have no case");
                let mistake = self.at_key(&at, &message);
                self.notes.mistake(mistake);
                continue;
            }
            match HeaderValue::from_str(value) {
                Ok(mut value) => {
                    value.set_sensitive(self.is_hidden(&at));
                    headers.push((parsed, value));
                }
                Err(_) => {
                    let mistake = self
                        .at(&at, "a header field can't have this value")
                        .help("it may hold no line ends and no other control characters");
                    self.notes.mistake(mistake);
                }
            }
        }
        headers
    }

    fn upstream(
        &mut self,
        pointer: &str,
        written: &written::Route,
        upstreams: &[Upstream],
    ) -> Option<usize> {
        let at = format!("{pointer}/upstream");
        let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
        let Some(name) = &written.upstream else {
            let found = the_only(upstreams);
            if found.is_none() && !self.is_uncertain(pointer) && !self.is_uncertain("/upstream") {
                let help = unknown_help("", &names, "upstreams");
                if names.is_empty() {
                    let message = "no upstream is configured: what no filter of this route answers is answered with 502";
                    let warning = self
                        .at(pointer, message)
                        .help("add an `[upstream.NAME]`, or `--upstream URL` on the command line");
                    self.notes.warn(warning);
                } else {
                    let message = "the route does not say to which upstream it leads";
                    let mistake = self
                        .at(pointer, message)
                        .help(format!("add `upstream = \"...\"`; {help}"));
                    self.notes.mistake(mistake);
                }
            }
            return found;
        };
        let found = names.iter().position(|known| known == name);
        if found.is_none() && !self.is_uncertain(&child("/upstream", name)) {
            let shown = self.quoted(&at, name);
            let message = format!("there is no upstream {shown}");
            let help = match unknown_help(name, &names, "upstreams") {
                _ if names.is_empty() => {
                    format!(
                        "add `[upstream.{name}]` with `endpoints = [\"http://127.0.0.1:9000\"]`"
                    )
                }
                help => help,
            };
            let mistake = self.at(&at, &message).help(help);
            self.notes.mistake(mistake);
        }
        found
    }

    fn route_filters(
        &mut self,
        pointer: &str,
        written: &written::Route,
        route: &str,
        set: &mut FilterSet,
    ) -> Vec<usize> {
        let mut filters = Vec::new();
        for (position, filter) in written.filters.iter().enumerate() {
            let at = format!("{pointer}/filters/{position}");
            let index = match filter {
                FilterUse::Name(name) => self.named_filter(&at, name, set),
                FilterUse::Inline(inline) => self.inline_filter(&at, inline, route, set),
            };
            if filters.contains(&index) {
                let name = set.get(index).map_or("", |filter| &*filter.name);
                let message = format!("the filter `{name}` stands twice on this route");
                let help = format!(
                    "give the second one a name: `{{ use = \"{name}\", name = \"{name}-2\" }}`"
                );
                let mistake = self.at(&at, &message).help(help);
                self.notes.mistake(mistake);
            } else {
                filters.push(index);
            }
            set.used(index);
        }
        filters
    }

    /// Notes each pair of routes for which there is a request that fits both equally well.
    fn conflicts(&mut self, routes: &[Route]) {
        for (index, route) in routes.iter().enumerate() {
            let pointer = format!("/route/{index}");
            if self.is_uncertain(&pointer) {
                continue;
            }
            let earlier = routes.iter().take(index).enumerate();
            let twin = earlier
                .filter(|(other, _)| !self.is_uncertain(&format!("/route/{other}")))
                .find(|(_, other)| same_rank(route, other) && overlap(route, other));
            if let Some((other, _)) = twin {
                let mut mistake = self.at(&pointer, "this route can't be told from another one");
                if let Some(document) = self.document {
                    mistake =
                        mistake.other(document.place(&format!("/route/{other}")), "the other one");
                }
                let help = "a request can fit both equally well: change host, path, methods or headers of one";
                self.notes.mistake(mistake.help(help));
            }
        }
    }

    /// Warns of what is written and never used. Only where there are no mistakes: what is left out uses nothing.
    pub(super) fn unused(&mut self, upstreams: &[Upstream], routes: &[Route], set: &FilterSet) {
        for (index, upstream) in upstreams.iter().enumerate() {
            let by_route = routes.iter().any(|route| route.upstream == Some(index));
            let by_filter = set.iter().any(|filter| {
                filter
                    .allow
                    .http
                    .iter()
                    .any(|name| **name == *upstream.name)
            });
            if !by_route && !by_filter {
                let message = format!("no route leads to the upstream `{}`", upstream.name);
                let warning = self.at_key(&child("/upstream", &upstream.name), &message);
                self.notes.warn(warning);
            }
        }
        for name in self.written.filter.keys() {
            let unused = set
                .find(name)
                .and_then(|index| set.get(index))
                .is_some_and(|filter| !filter.used);
            // A filter that routes only change is used as well.
            let changed = set
                .iter()
                .any(|other| other.name.starts_with(&format!("{name}@")));
            if unused && !changed {
                let message = format!("no route uses the filter `{name}`");
                let warning = self.at_key(&child("/filter", name), &message);
                let known: Vec<&str> = self.folder.plugins.iter().map(|it| &*it.name).collect();
                let near = super::super::words::similar(
                    name,
                    known.into_iter().filter(|known| known != name),
                );
                let help = near.map(|near| format!("did you mean `{near}`?"));
                self.notes.warn(warning.maybe_help(help));
            }
        }
    }
}

/// The upstream of a route that names none.
fn the_only(upstreams: &[Upstream]) -> Option<usize> {
    match upstreams {
        [_] => Some(0),
        several => several
            .iter()
            .position(|upstream| &*upstream.name == DEFAULT),
    }
}

/// Whether neither of two routes is more specific than the other.
fn same_rank(a: &Route, b: &Route) -> bool {
    let conditions = |route: &Route| usize::from(!route.methods.is_empty()) + route.headers.len();
    a.host == b.host
        && pattern::shape(&a.path) == pattern::shape(&b.path)
        && conditions(a) == conditions(b)
}

/// Whether a request can fulfil the conditions of both.
fn overlap(a: &Route, b: &Route) -> bool {
    let methods = a.methods.is_empty()
        || b.methods.is_empty()
        || a.methods.iter().any(|method| b.methods.contains(method));
    let contradict = a.headers.iter().any(|(name, value)| {
        b.headers
            .iter()
            .any(|(other, its)| name == other && value != its)
    });
    methods && !contradict
}
