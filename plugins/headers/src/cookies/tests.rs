//! Cookies through the filter, on the SDK's mock host.

use tidegate_sdk::serde_json::{Value, json};
use tidegate_sdk::test::{Harness, Request, Response};

use crate::Headers;

fn sent(cookies: Value, fields: &[(&str, &str)]) -> Vec<String> {
    let mut harness = Harness::<Headers>::new(json!({"request": {"cookies": cookies}})).unwrap();
    let mut request = Request::get("/a");
    for (name, value) in fields {
        request = request.field(name, value);
    }
    let outcome = harness.request(request);
    let cookies = outcome
        .request
        .fields
        .iter()
        .filter(|(name, _)| name == "cookie");
    cookies
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}

fn set(cookies: Value, lines: &[&str]) -> Vec<String> {
    let mut harness = Harness::<Headers>::new(json!({"response": {"cookies": cookies}})).unwrap();
    let mut outcome = harness.request(Request::get("/a"));
    let mut response = Response::new(200);
    for line in lines {
        response = response.field("set-cookie", line);
    }
    let response = harness.respond(&mut outcome, response);
    let cookies = response
        .fields
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    cookies
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}

#[test]
fn a_requests_cookies_are_changed_one_by_one() {
    let cookies = [("cookie", "a=1; b=\"2\";c"), ("cookie", "d=4=5")];
    for (rule, expected) in [
        (json!({"remove": ["x"]}), vec!["a=1; b=\"2\";c", "d=4=5"]),
        (json!({"remove": ["b"]}), vec!["a=1; c; d=4=5"]),
        (json!({"remove": ["*"]}), vec![]),
        (
            json!({"rename": {"a": "z"}}),
            vec!["b=\"2\"; c; d=4=5; z=1"],
        ),
        (
            json!({"copy": {"d": "a"}}),
            vec!["a=4=5; b=\"2\"; c; d=4=5"],
        ),
        (
            json!({"default": {"a": "9", "e": "{method}"}}),
            vec!["a=1; b=\"2\"; c; d=4=5; e=GET"],
        ),
        (
            json!({"replace": {"d": {"pattern": "([0-9])=([0-9])", "with": "$2.$1"}}}),
            vec!["a=1; b=\"2\"; c; d=5.4"],
        ),
    ] {
        assert_eq!(sent(rule.clone(), &cookies), expected, "{rule}");
    }
    assert_eq!(sent(json!({"set": {"a": "1"}}), &[]), ["a=1"]);
}

#[test]
fn a_value_from_outside_stays_one_cookie() {
    let rule = json!({"set": {"a": "{header:x}"}});
    let fields = [("x", "1; admin=true, \"\\ \u{e9}")];
    assert_eq!(
        sent(rule, &fields),
        ["a=1%3B%20admin=true%2C%20%22%5C%20%C3%A9"]
    );
}

#[test]
fn a_responses_cookies_keep_what_is_not_changed() {
    let lines = [
        "sid=1; Path=/; expires=Wed, 01 Jan 2030 00:00:00 GMT",
        "b=2; secure",
    ];
    for (rule, expected) in [
        (json!({"remove": ["x"]}), lines.to_vec()),
        (json!({"remove": ["s*"]}), vec!["b=2; secure"]),
        (json!({"set": {"b": "3"}}), vec![lines[0], "b=3; secure"]),
        (
            json!({"set": {"c": "{method}"}, "attributes": {"c": {"http-only": true}}}),
            vec![lines[0], lines[1], "c=GET; HttpOnly"],
        ),
        (
            json!({"attributes": {
                "*": {"secure": true, "http-only": true, "same-site": "lax"},
                "b": {"secure": false, "domain": "example.com"},
                "sid": {"max-age": 60, "path": "/app"},
            }}),
            vec![
                "sid=1; Path=/app; Secure; HttpOnly; SameSite=Lax; Max-Age=60",
                "b=2; HttpOnly; SameSite=Lax; Domain=example.com",
            ],
        ),
        (
            json!({"attributes": {"sid": {"session": true, "path": ""}}}),
            vec!["sid=1", lines[1]],
        ),
    ] {
        assert_eq!(set(rule.clone(), &lines), expected, "{rule}");
    }
}

#[test]
fn mistakes_are_told_at_their_key() {
    for (config, words) in [
        (
            json!({"request": {"cookies": {"attributes": {"a": {"secure": true}}}}}),
            "`request.cookies.attributes`: only a response's",
        ),
        (
            json!({"response": {"cookies": {"attributes": {"a": {"same-site": "none"}}}}}),
            "`response.cookies.attributes.a.same-site`: browsers refuse",
        ),
        (
            json!({"response": {"cookies": {"attributes": {"a": {"path": "/;x"}}}}}),
            "`response.cookies.attributes.a.path`: an attribute can't",
        ),
        (
            json!({"request": {"cookies": {"set": {"a": "1; b"}}}}),
            "`request.cookies.set.a`: a cookie's value can't hold `;`",
        ),
        (
            json!({"response": {"cookies": {"set": {"a b": "1"}}}}),
            "`response.cookies.set.a b`: `a b` is no cookie's name",
        ),
    ] {
        let error = Harness::<Headers>::new(config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
