//! A token with anything in it: it passes only if it is, byte for byte, the one that was signed.

use std::cell::RefCell;

use serde_json::json;
use tidegate_auth::Auth;
use tidegate_sdk::test::{Harness, Request};

use super::fingerprint;
use crate::Target;

pub const TARGET: Target = Target {
    name: "auth-token",
    fuzz,
    dictionary: &[
        ".",
        "=",
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "eyJleHAiOjF9",
        "e30",
        " ",
        ",",
        GOOD,
    ],
};

/// HS256 with [`SECRET`], good until 2100.
const GOOD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJzdWIiOiJhZGEiLCJhdWQiOiJvcmRlcnMiLCJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoib3JkZXJzOnJlYWQiLCJ0ZW5hbnQiOiJhY21lIiwicmVhbG0iOnsicm9sZXMiOlsiZWRpdG9yIiwidmlld2VyIl19fQ.KarUZ7FBEUNmjVdnJkgM7afa-iJvuqizAidRrQG9Hdc";
const SECRET: &str = "a secret of at least thirty-two bytes";

thread_local! {
    static AUTH: RefCell<Harness<Auth>> = RefCell::new(harness());
}

fn harness() -> Harness<Auth> {
    let jwt = json!({
        "keys": [
            {"algorithm": "HS256", "secret": SECRET},
            {"jwk": {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "oy-2PnizC_MgKEyL3T5wMdE4oiJIesaPnSyTpfOX_K0"}},
        ],
        "require": [{"claim": "realm.roles", "contains": "editor"}],
    });
    Harness::new(json!({ "jwt": jwt })).expect("the configuration holds")
}

fn fuzz(input: &[u8]) -> u64 {
    AUTH.with(|auth| {
        let mut auth = auth.borrow_mut();
        let request = Request::get("/").field("authorization", [b"Bearer ", input].concat());
        let outcome = auth.request(request);
        if outcome.answer.is_none() {
            let token = input.trim_ascii_start();
            assert_eq!(token, GOOD.as_bytes(), "a token passes that nobody signed");
            assert_eq!(outcome.field("x-consumer").as_deref(), Some("ada"));
        }
        let said = outcome.answer.map(|answer| (answer.status, answer.body));
        fingerprint(said)
    })
}
