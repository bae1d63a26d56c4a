//! Rewrites through the filter, on the SDK's mock host.

use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Outcome, Request};

use super::prefixed;
use crate::Headers;

fn rewritten(config: Value, request: Request) -> Outcome {
    let mut harness = Harness::<Headers>::new(config).unwrap();
    harness.request(request)
}

fn target(config: Value, target: &str) -> String {
    let sent = rewritten(
        config,
        Request::get(target)
            .param("id", "a/../b")
            .param("*", "x/y z"),
    );
    if let Some(answer) = sent.answer {
        return answer.status.to_string();
    }
    match sent.request.query {
        Some(query) => format!("{}?{query}", sent.request.path),
        None => sent.request.path,
    }
}

#[test]
fn a_prefix_is_rewritten_at_a_segments_end_only() {
    for (path, strip, add, expected) in [
        ("/api/users", Some("/api"), None, Some("/users")),
        ("/api", Some("/api"), None, Some("/")),
        ("/apiary", Some("/api"), None, None),
        ("/users", None, Some("/v1"), Some("/v1/users")),
        ("/api/users", Some("/api"), Some("/v2"), Some("/v2/users")),
        ("/", None, Some("/v1"), Some("/v1/")),
    ] {
        assert_eq!(
            prefixed(path, strip, add).as_deref(),
            expected,
            "{path} {strip:?} {add:?}"
        );
    }
    let config = json!({"path": {"strip-prefix": "/api/"}});
    assert_eq!(target(config, "/api/users?x=1"), "/users?x=1");
}

#[test]
fn paths_are_rewritten_by_pattern_and_template() {
    for (rewrite, asked, expected) in [
        (
            json!({"pattern": "^/u/([0-9]+)(/.*)?$", "path": "/users/$1/profile$2"}),
            "/u/7/x?q",
            "/users/7/profile/x?q",
        ),
        (
            json!({"pattern": "^/u/([0-9]+)$", "path": "/$1"}),
            "/u/x",
            "/u/x",
        ),
        (json!({"path": "/base{path}"}), "/a%20b", "/base/a%20b"),
        (json!({"path": "/files/{param:*}"}), "/a", "/files/x/y%20z"),
        // What a value would make of the path is not what was meant.
        (json!({"path": "/files/{param:id}"}), "/a", "400"),
        (json!({"path": "/files/{query:f}"}), "/a?f=..", "400"),
        (json!({"path": "/files/{query:f}/x"}), "/a?f=%2e%2e", "400"),
        (
            json!({"path": "/files/{query:f}"}),
            "/a?f=b%20c",
            "/files/b%20c?f=b%20c",
        ),
        (json!({"path": "/files/{query:f}"}), "/a?f=b%3fc", "400"),
    ] {
        assert_eq!(
            target(json!({"rewrite": rewrite.clone()}), asked),
            expected,
            "{rewrite} {asked}"
        );
    }
}

#[test]
fn rewrites_are_done_in_their_order_under_conditions_on_what_came() {
    let config = json!({"rewrite": [
        {"when": {"path": "/a/*"}, "strip-prefix": "/a"},
        {"when": {"path": "/a/*"}, "add-prefix": "/b"},
        {"when": {"path": "/b/*"}, "add-prefix": "/c"},
    ]});
    assert_eq!(target(config.clone(), "/a/x"), "/b/x");
    assert_eq!(target(config, "/b/x"), "/c/b/x");
}

#[test]
fn a_querys_parameters_are_changed_one_by_one() {
    for (query, asked, expected) in [
        (
            json!({"remove": ["utm_*", "b"]}),
            "/?a=1&utm_x=2&b&c=%20",
            "/?a=1&c=%20",
        ),
        (
            json!({"keep": ["a"]}),
            "/?a=1&b=2&a=3&%61=4",
            "/?a=1&a=3&%61=4",
        ),
        (json!({"remove": ["*"]}), "/?a=1", "/"),
        (
            json!({"set": {"a": "{header:x}", "n w": "1"}}),
            "/?b=1&a=2&a=3",
            "/?b=1&a=&n%20w=1",
        ),
        (
            json!({"set": {"host": "{host}&x"}}),
            "/",
            "/?host=test.example%26x",
        ),
        (
            json!({"set": {"p": "{path}"}}),
            "/a%20b",
            "/a%20b?p=%2Fa%2520b",
        ),
        (json!({"set": {"a": "1"}}), "/?a=1", "/?a=1"),
        (json!({"remove": ["x"]}), "/?", "/?"),
    ] {
        let config = json!({"rewrite": {"query": query.clone()}});
        assert_eq!(target(config, asked), expected, "{query} {asked}");
    }
}

#[test]
fn host_and_method_are_rewritten() {
    let config = json!({"rewrite": {
        "when": {"header": {"x-http-method-override": ["PUT", "DELETE"]}, "method": "POST"},
        "method": "{header:x-http-method-override}",
        "host": "{route}.internal:8080",
    }});
    let post = || Request::post("/", b"x");
    let sent = rewritten(
        config.clone(),
        post().field("x-http-method-override", "DELETE"),
    );
    assert_eq!(sent.request.method, "DELETE");
    assert_eq!(sent.request.authority, "test.internal:8080");
    let sent = rewritten(config, post().field("x-http-method-override", "TRACE"));
    assert_eq!(sent.request.method, "POST");
    let config = json!({"rewrite": {"host": "{header:x}"}});
    for bad in ["a b", "a/b", "u@h", ""] {
        let sent = rewritten(config.clone(), Request::get("/").field("x", bad));
        assert_eq!(sent.answer.unwrap().status, 400, "{bad}");
    }
}

#[test]
fn the_path_that_came_is_kept_for_the_response() {
    let config = json!({
        "path": {"strip-prefix": "/api"},
        "response": [
            {"when": {"path": "/api/*"}, "set": {"x-path": "{path} {original-path}"}},
            {"when": {"path": "/users"}, "set": {"x-wrong": "1"}},
        ],
    });
    let mut harness = Harness::<Headers>::new(config).unwrap();
    let mut outcome = harness.request(Request::get("/api/users"));
    let response = harness.response(&mut outcome, 200, &[], b"");
    assert_eq!(
        response.field("x-path").as_deref(),
        Some("/users /api/users")
    );
    assert_eq!(response.field("x-wrong"), None);
}

#[test]
fn mistakes_are_told_at_their_key() {
    for (rewrite, words) in [
        (
            json!({"path": "users"}),
            "`rewrite.path`: `users` must begin with `/`",
        ),
        (json!({"path": "/a?b"}), "change the query with `query`"),
        (
            json!({"path": "/a", "add-prefix": "/b"}),
            "write two rewrites",
        ),
        (
            json!({"pattern": "("}),
            "`rewrite.pattern`: `(` is no pattern",
        ),
        (json!({"pattern": "a", "path": "/$1"}), "no group `1`"),
        (json!({"method": "GE T"}), "`rewrite.method`"),
        (json!({"method": "CONNECT"}), "no method that can be sent"),
        (json!({"host": "http://a/"}), "no host such as"),
        (
            json!({"strip-prefix": "api"}),
            "`rewrite.strip-prefix`: `api` must be a path",
        ),
        (
            json!({"query": {"set": {"a": "{b}"}}}),
            "`rewrite.query.set.a`",
        ),
        (
            json!({"when": {"status": 200}, "path": "/a"}),
            "`rewrite.when.status`: there is no response yet",
        ),
        (json!([{}, {"path": "x"}]), "`rewrite[1].path`"),
    ] {
        let error = Harness::<Headers>::new(json!({"rewrite": rewrite})).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
