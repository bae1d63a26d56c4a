//! A key set with anything in it: a token passes only by the key that signed it.

use serde_json::json;
use tidegate_auth::Auth;
use tidegate_sdk::http::CallResponse;
use tidegate_sdk::test::{Harness, Request};

use super::fingerprint;
use crate::Target;

pub const TARGET: Target = Target {
    name: "auth-keys",
    fuzz,
    dictionary: &[
        "{\"keys\":[",
        "\"kty\":\"RSA\"",
        "\"kty\":\"EC\"",
        "\"kty\":\"OKP\"",
        "\"kty\":\"oct\"",
        "\"crv\":\"P-256\"",
        "\"crv\":\"P-384\"",
        "\"crv\":\"Ed25519\"",
        "\"n\":\"",
        "\"e\":\"AQAB\"",
        "\"x\":\"",
        "\"y\":\"",
        "\"kid\":\"2026-11\"",
        "\"alg\":\"EdDSA\"",
        "\"use\":\"enc\"",
        KEY,
    ],
};

/// The key of [`TOKEN`], and the token.
const KEY: &str = "oy-2PnizC_MgKEyL3T5wMdE4oiJIesaPnSyTpfOX_K0";
const TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6IjIwMjYtMTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUvcmVhbG1zL21haW4iLCJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.z2I85eVqUbEKFG6UEkrI_Y_b2wl7NAR7G1nE3SwIIieLgeTNzKQetJkxlaTJLZVfLUgse_ngkPsnFNqf-RC2Dw";

fn fuzz(input: &[u8]) -> u64 {
    let config = json!({"jwt": {"jwks": {"upstream": "issuer", "path": "/keys"}}});
    let mut auth = Harness::<Auth>::new(config).expect("the configuration holds");
    auth.reply(
        "issuer",
        Ok(CallResponse {
            status: 200,
            fields: Vec::new(),
            body: input.to_vec(),
        }),
    );
    let outcome = auth.request(Request::get("/").field("authorization", format!("Bearer {TOKEN}")));
    let status = outcome.answer.map(|answer| answer.status);
    if status.is_none() {
        let there = input.windows(KEY.len()).any(|part| part == KEY.as_bytes());
        // Letters may be written as escapes.
        assert!(
            there || input.contains(&b'\\'),
            "a token passes by another's key"
        );
    }
    fingerprint((status, auth.lines()))
}
