//! Redirects through the filter, on the SDK's mock host.

use tidegate_sdk::TlsFacts;
use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Request};

use crate::Headers;

fn redirected(config: &Value, request: Request) -> Option<(u16, String)> {
    let mut harness = Harness::<Headers>::new(config.clone()).unwrap();
    let answer = harness.request(request).answer?;
    Some((answer.status, answer.field("location").unwrap_or_default()))
}

fn leads(redirect: &Value, target: &str) -> Option<String> {
    let request = Request::get(target).authority("a.example:8080");
    Some(redirected(&json!({"redirect": redirect}), request)?.1)
}

fn tls(target: &str) -> Request {
    Request::get(target).tls(TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
        server_name: None,
        alpn: None,
    })
}

#[test]
fn parts_of_an_address_are_changed_at_once() {
    for (redirect, asked, expected) in [
        (
            json!({"https": true}),
            "/a?b=c",
            Some("https://a.example/a?b=c"),
        ),
        (
            json!({"https": true, "https-port": 8443}),
            "/",
            Some("https://a.example:8443/"),
        ),
        (
            json!({"host": "www.a.example"}),
            "/a?b",
            Some("http://www.a.example/a?b"),
        ),
        (json!({"host": "a.example:8080"}), "/a", None),
        (json!({"host": "A.example:8080"}), "/a", None),
        (json!({"trailing-slash": "add"}), "/a/b?c", Some("/a/b/?c")),
        (json!({"trailing-slash": "add"}), "/a/b.css", None),
        (json!({"trailing-slash": "add"}), "/a/", None),
        (json!({"trailing-slash": "remove"}), "/a/", Some("/a")),
        (json!({"trailing-slash": "remove"}), "/", None),
        (
            json!({"https": true, "host": "b.example", "trailing-slash": "remove", "keep-query": false}),
            "/a/?x",
            Some("https://b.example/a"),
        ),
    ] {
        assert_eq!(
            leads(&redirect, asked).as_deref(),
            expected,
            "{redirect} {asked}"
        );
    }
    assert_eq!(
        redirected(&json!({"redirect": {"https": true}}), tls("/")),
        None
    );
}

#[test]
fn patterns_and_templates_say_where_to() {
    for (redirect, asked, expected) in [
        (
            json!({"pattern": "^/old/(.*)$", "to": "/new/$1"}),
            "/old/x/y?q",
            Some("/new/x/y?q"),
        ),
        (
            json!({"pattern": "^/old/(.*)$", "to": "/new/$1"}),
            "/older",
            None,
        ),
        (
            json!({"to": "https://b.example{path}?from=a"}),
            "/x?y",
            Some("https://b.example/x?from=a"),
        ),
        (
            json!({"to": "https://b.example{uri}"}),
            "/x?y",
            Some("https://b.example/x?y"),
        ),
        // Round and round.
        (json!({"to": "/"}), "/", None),
        (json!({"to": "/"}), "/?a", None),
        (json!({"to": "http://{host}/"}), "/", None),
        (json!({"to": "{uri}"}), "/a?b", None),
        // No way out to another host but the operator's own.
        (
            json!({"to": "/{query:next}"}),
            "/a?next=%2Fevil.example",
            Some("/%2Fevil.example?next=%2Fevil.example"),
        ),
        (
            json!({"to": "{query:next|url-decode}", "keep-query": false}),
            "/a?next=%2F%2Fevil",
            Some("%2F%2Fevil"),
        ),
        (
            json!({"pattern": "^/go(/.*)$", "to": "/$1"}),
            "/go/x",
            Some("/x"),
        ),
        (
            json!({"to": "//cdn.example{path}"}),
            "/x",
            Some("//cdn.example/x"),
        ),
        (json!({"to": "/a{header:x}"}), "/", Some("/a")),
    ] {
        assert_eq!(
            leads(&redirect, asked).as_deref(),
            expected,
            "{redirect} {asked}"
        );
    }
}

#[test]
fn a_status_says_how_long_it_holds() {
    for (more, status) in [
        (json!({}), 307),
        (json!({"permanent": true}), 308),
        (json!({"status": 301, "permanent": true}), 301),
        (json!({"status": 302}), 302),
        (json!({"status": 303}), 303),
    ] {
        let mut redirect = json!({"to": "/b"});
        redirect
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let config = json!({"redirect": redirect});
        assert_eq!(redirected(&config, Request::get("/")).unwrap().0, status);
    }
}

#[test]
fn the_first_that_applies_and_leads_elsewhere_counts() {
    let config = json!({"redirect": [
        {"when": {"path": "/a*"}, "to": "/a"},
        {"when": {"method": "GET"}, "to": "/b"},
    ], "response": {"set": {"x-by": "{status}"}}});
    let location = |target| redirected(&config, Request::get(target)).unwrap().1;
    assert_eq!(location("/ab"), "/a");
    assert_eq!(location("/a"), "/b");
    assert_eq!(redirected(&config, Request::post("/", b"")), None);
    // What this filter answers passes its rules on the response.
    let mut harness = Harness::<Headers>::new(config).unwrap();
    let answer = harness.request(Request::get("/ab")).answer.unwrap();
    assert_eq!(answer.field("x-by").as_deref(), Some("307"));
}

#[test]
fn mistakes_are_told_at_their_key() {
    for (redirect, words) in [
        (json!({}), "`redirect`: it leads nowhere"),
        (
            json!({"to": "/", "https": true}),
            "`redirect.to`: it is the whole address",
        ),
        (json!({"pattern": "a"}), "`redirect.pattern`: it needs `to`"),
        (
            json!({"to": "/", "status": 200}),
            "`redirect.status`: 200 is no redirect",
        ),
        (
            json!({"to": "/", "status": 302, "permanent": true}),
            "302 is not permanent",
        ),
        (json!({"to": "/$1"}), ""),
        (json!({"host": "a b"}), "`redirect.host`: `a b` is no host"),
        (
            json!({"to": "/", "https-port": 1}),
            "`redirect.https-port`: it needs",
        ),
        (
            json!({"https": true, "trailing-slash": "maybe"}),
            "`redirect.trailing-slash`: unknown variant `maybe`",
        ),
    ] {
        let result = Harness::<Headers>::new(json!({"redirect": redirect.clone()}));
        match result {
            Err(error) => assert!(error.to_string().contains(words), "{error}"),
            // Without a pattern, a dollar is a dollar.
            Ok(_) => assert!(words.is_empty(), "{redirect}"),
        }
    }
}
