//! What a configuration comes to. What is said of mistakes is another test's, `tests/messages.rs`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::checked::{Checked, Failure, Route};
use super::environment::Environment;
use super::*;

/// A folder with a configuration, if one is given, and files below `plugins`.
fn folder(config: &str, plugins: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if !config.is_empty() {
        fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    }
    fs::create_dir(dir.path().join("plugins")).unwrap();
    for (name, text) in plugins {
        fs::write(dir.path().join("plugins").join(name), text).unwrap();
    }
    dir
}

fn options(dir: &Path) -> Options {
    Options {
        config: Some(dir.join("tidegate.toml")),
        ..Options::default()
    }
}

fn read(config: &str, plugins: &[(&str, &str)]) -> Outcome {
    let dir = folder(config, plugins);
    let environment = Environment::fixed([("TOKEN", "s3cr3t"), ("WORD", "shown")]);
    load(&options(dir.path()), &environment)
}

fn checked(config: &str, plugins: &[(&str, &str)]) -> Checked {
    let outcome = read(config, plugins);
    assert!(outcome.mistakes.is_empty(), "{:?}", outcome.mistakes);
    outcome.checked.unwrap()
}

fn filters<'a>(checked: &'a Checked, route: &Route) -> Vec<&'a str> {
    let names = route
        .filters
        .iter()
        .map(|index| &*checked.filters[*index].name);
    names.collect()
}

const UPSTREAM: &str = "[upstream.users]\nendpoints = ['http://127.0.0.1:9000']\n";

#[test]
fn nothing_at_all_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        plugins: Some(dir.path().join("none")),
        upstream: vec!["http://127.0.0.1:9000".to_owned()],
        ..Options::default()
    };
    // The working directory of the tests has no tidegate.toml.
    let outcome = load(&options, &Environment::fixed([]));
    assert!(outcome.mistakes.is_empty() && outcome.warnings.is_empty());
    let checked = outcome.checked.unwrap();
    assert_eq!(checked.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(checked.server.admin, "127.0.0.1:9901".parse().ok());
    assert!(checked.server.workers >= 1);
    assert_eq!(checked.server.limits.max_head, 64 << 10);
    let [route] = checked.routes.as_slice() else {
        panic!("not one route");
    };
    assert_eq!((&*route.name, &*route.path), ("default", "/*"));
    assert_eq!(route.upstream, Some(0));
    assert_eq!(&*checked.upstreams[0].name, "default");
    assert!(checked.filters.is_empty());
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = load(&options(dir.path()), &Environment::fixed([]));
    assert!(outcome.checked.is_none());
    assert_eq!(outcome.mistakes.len(), 1);
}

#[test]
fn without_routes_every_filter_runs_in_the_order_of_the_files() {
    let checked = checked(
        UPSTREAM,
        &[
            ("20-b.wasm", ""),
            ("3-c.wasm", ""),
            ("a.wasm", ""),
            ("b.toml", "failure = 'open'"),
        ],
    );
    assert_eq!(filters(&checked, &checked.routes[0]), ["c", "b", "a"]);
    let b = checked
        .filters
        .iter()
        .find(|filter| &*filter.name == "b")
        .unwrap();
    assert!(b.used && b.file.ends_with("plugins/20-b.wasm"));
    assert_eq!(b.failure, Failure::Open);
    assert_eq!(b.config, "{}");
}

#[test]
fn the_command_line_comes_first() {
    let dir = folder(
        &format!(
            "[server]\nlisten = ['127.0.0.1:1']\nadmin = '127.0.0.1:2'\n{UPSTREAM}[[route]]\nupstream = 'users'\n"
        ),
        &[],
    );
    let options = Options {
        plugins: Some("elsewhere".into()),
        listen: vec!["127.0.0.1:3".parse().unwrap()],
        admin: Some(Admin::Off),
        upstream: vec!["h2c://127.0.0.1:4".to_owned()],
        ..options(dir.path())
    };
    let checked = load(&options, &Environment::fixed([])).checked.unwrap();
    assert_eq!(checked.server.listen, options.listen);
    assert_eq!(checked.server.admin, None);
    assert_eq!(checked.server.plugins, Path::new("elsewhere"));
    assert_eq!(checked.upstreams.len(), 2);
    // A route that names its upstream keeps it.
    let upstream = checked.routes[0].upstream.unwrap();
    assert_eq!(&*checked.upstreams[upstream].name, "users");
}

#[test]
fn one_file_can_be_several_filters() {
    let checked = checked(
        &format!(
            "{UPSTREAM}[[route]]\nname = 'r'\npath = '/a'\nfilters = ['auth', 'inner', {{ use = 'auth', config = 'text' }}]\n\
             [[route]]\npath = '/b'\nfilters = [{{ use = 'auth' }}, {{ use = 'auth', name = 'own', config.x = 1 }}]\n\
             [filter.auth]\nfailure = 'open'\nlimits.time = '5ms'\n[filter.inner]\nuse = 'auth'\n"
        ),
        &[("auth.wasm", "")],
    );
    assert_eq!(
        filters(&checked, &checked.routes[0]),
        ["auth", "inner", "auth@r"]
    );
    assert_eq!(filters(&checked, &checked.routes[1]), ["auth", "own"]);
    assert_eq!(checked.filters.len(), 4);
    assert!(checked.filters.iter().all(|filter| filter.plugin == "auth"));
    let own = checked
        .filters
        .iter()
        .find(|filter| &*filter.name == "own")
        .unwrap();
    assert_eq!(
        (own.config.as_str(), own.failure),
        (r#"{"x":1}"#, Failure::Open)
    );
    assert_eq!(own.limits.time, Duration::from_millis(5));
    let inline = checked
        .filters
        .iter()
        .find(|filter| &*filter.name == "auth@r")
        .unwrap();
    assert_eq!(inline.config, "text");
    let inner = checked
        .filters
        .iter()
        .find(|filter| &*filter.name == "inner")
        .unwrap();
    assert_eq!(
        (inner.failure, inner.limits.time),
        (Failure::Closed, Duration::from_millis(20))
    );
}

#[test]
fn settings_may_be_divided_between_both_places() {
    let checked = checked(
        &format!("{UPSTREAM}[filter.auth]\nallow.http = ['users']\nlimits.time = '1ms'\n"),
        &[
            ("10-auth.wasm", ""),
            (
                "auth.toml",
                "config = { a = 1 }\nallow.env = ['WORD', 'UNSET']\nlimits.body = '2KiB'\n",
            ),
        ],
    );
    let auth = &checked.filters[0];
    assert_eq!(auth.config, r#"{"a":1}"#);
    assert_eq!(auth.allow.http, ["users"]);
    assert_eq!(auth.allow.env["WORD"].as_deref(), Some("shown"));
    assert_eq!(auth.allow.env["UNSET"], None);
    assert_eq!(
        (auth.limits.time, auth.limits.body),
        (Duration::from_millis(1), 2048)
    );
}

#[test]
fn a_mistake_of_one_filter_leaves_the_rest() {
    let outcome = read(
        &format!("{UPSTREAM}[[route]]\nfilters = ['auth', 'limit', 'gone']\n"),
        &[
            ("auth.wasm", ""),
            ("auth.toml", "failre = 'open'"),
            ("limit.wasm", ""),
        ],
    );
    assert_eq!(outcome.mistakes.len(), 2);
    let checked = outcome.checked.unwrap();
    let fault = |name: &str| {
        let found = checked.filters.iter().find(|filter| &*filter.name == name);
        found.unwrap().fault.clone()
    };
    assert!(
        fault("auth")
            .unwrap()
            .contains("auth.toml:1:1: unknown key `failre`")
    );
    assert!(fault("gone").unwrap().contains("there is no filter `gone`"));
    assert_eq!(fault("limit"), None);
    assert_eq!(
        filters(&checked, &checked.routes[0]),
        ["auth", "limit", "gone"]
    );
}

#[test]
fn a_removed_file_takes_its_filter_along_where_no_route_names_it() {
    let config = format!("{UPSTREAM}[filter.auth]\nfailure = 'open'\n");
    let outcome = read(&config, &[("limit.wasm", "")]);
    assert!(outcome.mistakes.is_empty(), "{:?}", outcome.mistakes);
    assert_eq!(outcome.warnings.len(), 1);
    let checked = outcome.checked.unwrap();
    assert_eq!(filters(&checked, &checked.routes[0]), ["limit"]);
}

#[test]
fn routes_get_names_of_their_own() {
    let checked = checked(
        &format!(
            "{UPSTREAM}[[route]]\nhost = 'A.example'\npath = '/x'\nmethods = ['GET']\n\
             [[route]]\nhost = 'a.example'\npath = '/x'\nmethods = ['PUT']\n[[route]]\n"
        ),
        &[],
    );
    let names: Vec<&str> = checked.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["a.example/x", "a.example/x#2", "/*"]);
    assert_eq!(checked.routes[0].host.as_deref(), Some("a.example"));
}

#[test]
fn tls_listeners_are_gathered_by_address() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = folder(
        "[[server.tls]]\nlisten = ['127.0.0.1:1', '127.0.0.1:2']\ncertificate = 'c.pem'\nkey = 'k.pem'\n\
         [[server.tls]]\nlisten = ['127.0.0.1:2']\ncertificate = 'c.pem'\nkey = 'k.pem'\n",
        &[],
    );
    fs::write(dir.path().join("c.pem"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("k.pem"), made.signing_key.serialize_pem()).unwrap();
    let outcome = load(&options(dir.path()), &Environment::fixed([]));
    let checked = outcome.checked.unwrap();
    assert!(checked.server.listen.is_empty());
    let counts: Vec<_> = checked
        .server
        .tls
        .iter()
        .map(|it| (it.listen.port(), it.identities.len()))
        .collect();
    assert_eq!(counts, [(1, 1), (2, 2)]);
    assert!(checked.files.contains(&dir.path().join("k.pem")));
    assert!(checked.files.contains(&dir.path().join("tidegate.toml")));
}

#[test]
fn the_view_shows_what_is_in_force_but_no_secret() {
    let config = format!(
        "{UPSTREAM}[filter.auth.config]\nissuer = 'https://login'\nanything = '${{TOKEN}}'\nclient-secret = 'planted-1'\n\
         keys = [{{ name = 'ada', sha256 = 'planted-2' }}]\ntokens = ['planted-3']\n[filter.raw]\nconfig = 'planted-4'\n\
         [filter.env]\nallow.env = ['TOKEN']\n\
         [[route]]\nheaders = {{ x-gate = '${{TOKEN}}', authorization = 'planted-5', x-beta = 'yes' }}\n"
    );
    let checked = checked(
        &config,
        &[("auth.wasm", ""), ("raw.wasm", ""), ("env.wasm", "")],
    );
    let shown = view::view(&checked).to_string();
    for secret in ["s3cr3t", "planted"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for plain in [
        "https://login",
        "\"ada\"",
        "http://127.0.0.1:9000",
        "\"30s\"",
        "\"x-beta\":\"yes\"",
    ] {
        assert!(shown.contains(plain), "{plain} in {shown}");
    }
}

#[test]
fn a_whole_file_is_right() {
    let config = r#"
[server]
listen = ["127.0.0.1:8080"]
admin = "127.0.0.1:9901"
workers = 0
plugins = "plugins"
drain-timeout = "30s"
trusted-proxies = ["10.0.0.0/8"]
access-log = { format = "json", path = "-" }

[upstream.users]
endpoints = ["http://127.0.0.1:9000", "http://127.0.0.1:9001"]
connect-timeout = "1s"
response-timeout = "30s"
idle-connections = 64

[[route]]
host = "api.example.com"
path = "/v1/users/{id}"
methods = ["GET", "POST"]
headers = { "x-beta" = "yes" }
upstream = "users"
filters = ["auth", "limit", { use = "headers", config = { request = { set = { "x-route" = "users" } } } }]

[filter.auth]
config = { }
failure = "closed"
allow = { http = ["users"], store = ["sessions"], env = ["JWKS_URL"] }
"#;
    let checked = checked(
        config,
        &[("auth.wasm", ""), ("limit.wasm", ""), ("headers.wasm", "")],
    );
    let route = &checked.routes[0];
    assert_eq!(
        filters(&checked, route),
        ["auth", "limit", "headers@api.example.com/v1/users/{id}"]
    );
}
