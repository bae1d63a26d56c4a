//! What is an endpoint and what is none.

use super::*;

fn shown(text: &str) -> String {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => endpoint.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn names_and_addresses_get_their_ports() {
    for (text, expected, authority) in [
        (
            "http://Example.test",
            "http://example.test:80",
            "example.test",
        ),
        ("https://a.b/", "https://a.b:443", "a.b"),
        (
            "h2c://127.0.0.1:9000",
            "h2c://127.0.0.1:9000",
            "127.0.0.1:9000",
        ),
        ("HTTP://[0:0::1]:81", "http://[::1]:81", "[::1]:81"),
        ("https://[::1]", "https://[::1]:443", "[::1]"),
        ("http://app_1:8080", "http://app_1:8080", "app_1:8080"),
    ] {
        assert_eq!(shown(text), expected);
        assert_eq!(text.parse::<Endpoint>().unwrap().authority(), authority);
    }
}

#[test]
fn what_is_no_endpoint_says_what_is_wrong() {
    for (text, word) in [
        ("example.test:80", "must begin with"),
        ("ftp://x", "must begin with"),
        ("http://x/path", "must end after"),
        ("http://u:p@x", "must end after"),
        ("http://x?y", "must end after"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("http://[::1", "names no host"),
        ("http://[::1]x", "names no host"),
        ("http://a..b", "names no host"),
        ("http://1.2.3", "names no host"),
        ("http://a b", "names no host"),
        ("http://x:", "no port"),
        ("http://x:0", "no port"),
        ("http://x:+1", "no port"),
        ("http://x:65536", "no port"),
    ] {
        let error = shown(text);
        assert!(error.contains(word) && error.contains(text), "{error}");
    }
}
