//! Signatures against the vector of RFC 9421 (appendix B.2.5), and what is no signature.

use serde_json::json;
use tidegate_sdk::test::{Harness, Outcome, Request};

use super::*;
use crate::Auth;

const SECRET: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
const CREATED: u64 = 1_618_884_473;

fn harness(components: &[&str]) -> Harness<Auth> {
    let harness = Harness::new(json!({"signature": {
        "keys": [{"id": "test-shared-secret", "secret-base64": SECRET, "consumer": "tester", "roles": ["r"]}],
        "components": components,
    }}))
    .unwrap();
    harness.set_wall(CREATED + 10);
    harness
}

fn status(outcome: &Outcome) -> u16 {
    outcome.answer.as_ref().map_or(200, |answer| answer.status)
}

/// A request with a signature over some components, made here.
fn signed(request: Request, base: &str, list: &str) -> Request {
    let parameters = format!("{list};created={CREATED};keyid=\"test-shared-secret\"");
    let text = format!("{base}\"@signature-params\": {parameters}");
    let secret = STANDARD.decode(SECRET).unwrap();
    let mac = ring::hmac::sign(
        &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret),
        text.as_bytes(),
    );
    request
        .field("signature-input", format!("sig={parameters}"))
        .field("signature", format!("sig=:{}:", STANDARD.encode(mac)))
}

#[test]
fn the_example_of_rfc_9421_holds_once_and_for_its_request_only() {
    let request = |content_type: &str| {
        Request::new("POST", "/foo?param=Value&Pet=dog")
            .authority("example.com")
            .field("date", "Tue, 20 Apr 2021 02:07:55 GMT")
            .field("content-type", content_type)
            .field(
                "signature-input",
                "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
            )
            .field("signature", "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:")
    };
    let mut auth = harness(&["date", "@authority"]);
    let outcome = auth.request(request("text/plain"));
    assert_eq!(status(&outcome), 401);
    let outcome = auth.request(request("application/json"));
    assert_eq!(status(&outcome), 200, "{:?}", outcome.answer);
    assert_eq!(outcome.field("x-consumer").as_deref(), Some("tester"));
    assert_eq!(outcome.property("auth-method"), Some(&b"signature"[..]));
    let again = auth.request(request("application/json"));
    let answer = again.answer.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("used before"), "{answer:?}");
    // Past the skew, it would not be known any more, and is too old.
    auth.advance(std::time::Duration::from_secs(700));
    assert_eq!(status(&auth.request(request("application/json"))), 401);
}

#[test]
fn a_body_is_held_against_its_digest() {
    let body = b"{\"hello\": \"world\"}";
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
    let base =
        format!("\"@method\": POST\n\"@path\": /a\n\"@query\": ?\n\"content-digest\": {digest}\n");
    let list = "(\"@method\" \"@path\" \"@query\" \"content-digest\")";
    let request = |sent: &[u8]| {
        let request = Request::post("/a", sent).field("content-digest", &digest);
        signed(request, &base, list)
    };
    let mut auth = harness(&[]);
    assert_eq!(
        status(&auth.request(request(b"{\"hello\": \"moon\"}"))),
        400
    );
    let mut auth = harness(&[]);
    let outcome = auth.request(request(body));
    assert_eq!(status(&outcome), 200, "{:?}", outcome.answer);
    // Without a digest, anybody could change the body on its way.
    let bare = "\"@method\": POST\n\"@path\": /a\n\"@query\": ?\n";
    let list = "(\"@method\" \"@path\" \"@query\")";
    let outcome = auth.request(signed(Request::post("/a", body), bare, list));
    assert_eq!(status(&outcome), 401);
    let outcome = auth.request(signed(Request::new("POST", "/a"), bare, list));
    assert_eq!(
        status(&outcome),
        200,
        "there is no body: {:?}",
        outcome.answer
    );
}

#[test]
fn what_does_not_hold_is_refused() {
    let base = "\"@method\": GET\n\"@path\": /a\n\"@query\": ?b\n";
    let list = "(\"@method\" \"@path\" \"@query\")";
    let good = || signed(Request::get("/a?b"), base, list);
    assert_eq!(status(&harness(&[]).request(good())), 200);
    for (what, request) in [
        ("another path", signed(Request::get("/b?b"), base, list)),
        ("another query", signed(Request::get("/a?c"), base, list)),
        (
            "less than must be",
            signed(Request::get("/a?b"), "\"@method\": GET\n", "(\"@method\")"),
        ),
        ("two signatures", good().field("signature", "sig=:AAAA:")),
        (
            "no input",
            Request::get("/a?b").field("signature", "sig=:AAAA:"),
        ),
        (
            "no signature",
            Request::get("/a?b").field("signature-input", "sig=()"),
        ),
    ] {
        assert_eq!(status(&harness(&[]).request(request)), 401, "{what}");
    }
    for moment in [CREATED - 301, CREATED + 301] {
        let mut auth = harness(&[]);
        auth.set_wall(moment);
        assert_eq!(status(&auth.request(good())), 401, "{moment}");
    }
}

#[test]
fn fields_are_read_to_the_letter() {
    let good = "sig=(\"@method\" \"a\");created=1;keyid=\"k\";alg=\"hmac-sha256\";nonce=\"n;\"";
    let read = input::read(good).unwrap();
    assert_eq!(read.components, ["@method", "a"]);
    assert_eq!((read.created, read.key.as_deref()), (Some(1), Some("k")));
    assert_eq!(read.parameters, &good[4..]);
    for bad in [
        "",
        "sig",
        "sig=",
        "sig=(\"a\"",
        "sig=(a)",
        "sig=(\"a\";sf)",
        "sig=(\"a\" \"a\")",
        "sig=(\"A\")",
        "sig=(\"a\");created=x",
        "sig=(\"a\");created=\"1\"",
        "sig=(\"a\");created=1;created=2",
        "sig=(\"a\");keyid=k",
        "sig=(\"a\"), other=(\"a\")",
        "Sig=(\"a\")",
        "sig=(\"a\");keyid=\"a\\\"b\"",
    ] {
        assert_eq!(input::read(bad), None, "{bad}");
    }
}

#[test]
fn the_digests_field_is_read() {
    let of = |body: &[u8]| STANDARD.encode(Sha256::digest(body));
    let check = |field: String, body: &[u8]| check_digest(Some(field.into_bytes()), body).is_ok();
    assert!(check(format!("sha-256=:{}:", of(b"x")), b"x"));
    assert!(check(format!("md5=:AAAA:, sha-256=:{}:", of(b"x")), b"x"));
    assert!(!check(format!("sha-256=:{}:", of(b"x")), b"y"));
    assert!(
        !check("md5=:AAAA:".to_owned(), b"x"),
        "nothing that is known here"
    );
    assert!(!check(String::new(), b""));
    assert!(check_digest(None, b"").is_err());
}
