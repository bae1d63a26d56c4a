//! A name and password with anything in them: they pass only if they are, letter by letter, those that are known.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tidegate_auth::Auth;
use tidegate_sdk::test::{Harness, Request};

use super::fingerprint;
use crate::Target;

pub const TARGET: Target = Target {
    name: "auth-basic",
    fuzz,
    dictionary: &[
        "YWRhOnBhc3N3b3Jk",
        "YWRh",
        "Og==",
        "OnBhc3N3b3Jk",
        "=",
        "Basic",
        " ",
    ],
};

/// argon2id of `password`, at little cost.
const HASH: &str =
    "ada:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

thread_local! {
    static AUTH: RefCell<Harness<Auth>> = RefCell::new(harness());
}

fn harness() -> Harness<Auth> {
    let bounds = u32::MAX;
    let basic = json!({"users": [HASH], "hashes-at-once": bounds, "hashes-per-second": bounds});
    Harness::new(json!({ "basic": basic })).expect("the configuration holds")
}

fn fuzz(input: &[u8]) -> u64 {
    AUTH.with(|auth| {
        let mut auth = auth.borrow_mut();
        let request = Request::get("/").field("authorization", [b"Basic ", input].concat());
        let outcome = auth.request(request);
        let status = outcome.answer.as_ref().map(|answer| answer.status);
        if status.is_none() {
            let pair = STANDARD.decode(input.trim_ascii_start()).ok();
            assert_eq!(pair.as_deref(), Some(&b"ada:password"[..]), "others pass");
        }
        fingerprint((status, input.len().min(64) / 8))
    })
}
