//! Tokens made here and verified there, right ones and the wrong ones of RFC 8725.

use super::*;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey as _;
use p256::pkcs8::LineEnding;
use rand_core::OsRng;
use serde_json::json;

const SECRET: &str = "a secret of thirty-two bytes, or more";
const NOW: i64 = 1_800_000_000;

fn hs256_keys() -> Verifiers {
    Verifiers::new(&[key(Algorithm::HS256, Some(SECRET), None, None)]).unwrap()
}

fn key(
    algorithm: Algorithm,
    secret: Option<&str>,
    pem: Option<&str>,
    kid: Option<&str>,
) -> KeyConfig {
    KeyConfig {
        algorithm,
        secret: secret.map(str::to_owned),
        public_key: pem.map(str::to_owned),
        kid: kid.map(str::to_owned),
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn hmac(message: &str, secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .unwrap()
        .chain_update(message);
    format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

fn hs256(claims: &Value) -> String {
    hmac(&message(&json!({"alg": "HS256"}), claims), SECRET)
}

fn verify(token: &str, rules: &Rules) -> Result<Map<String, Value>, Rejection> {
    hs256_keys().verify(token, rules, NOW)
}

#[test]
fn the_example_of_rfc_7515_appendix_a_1_verifies() {
    // The key of the example is given as base64url; it is no text, so it is put in by hand.
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let keys = Verifiers {
        keys: vec![Key {
            id: None,
            material: Material::Secret(secret),
        }],
    };
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let claims = keys
        .verify(token, &Rules::default(), 1_300_819_000)
        .unwrap();
    assert_eq!(claims.get("iss"), Some(&json!("joe")));
    assert_eq!(
        keys.verify(token, &Rules::default(), NOW),
        Err(Rejection::Expired)
    );
}

#[test]
fn rs256_and_es256_tokens_verify_and_changed_ones_do_not() {
    let rsa = rsa::RsaPrivateKey::new(&mut OsRng, 2048).unwrap();
    let rsa_pem = rsa
        .to_public_key()
        .to_public_key_pem(LineEnding::LF)
        .unwrap();
    let p256 = p256::ecdsa::SigningKey::random(&mut OsRng);
    let p256_pem = p256
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .unwrap();
    let keys = Verifiers::new(&[
        key(Algorithm::RS256, None, Some(&rsa_pem), Some("r")),
        key(Algorithm::ES256, None, Some(&p256_pem), Some("e")),
    ])
    .unwrap();
    let claims = json!({"sub": "u", "exp": NOW + 10});

    let text = message(&json!({"alg": "RS256", "kid": "r"}), &claims);
    let signature: rsa::pkcs1v15::Signature =
        rsa::pkcs1v15::SigningKey::<Sha256>::new(rsa).sign(text.as_bytes());
    let signature: Box<[u8]> = signature.into();
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(&signature));
    assert!(keys.verify(&token, &Rules::default(), NOW).is_ok());

    let other = message(
        &json!({"alg": "RS256", "kid": "r"}),
        &json!({"sub": "root", "exp": NOW + 10}),
    );
    let forged = format!("{other}.{}", URL_SAFE_NO_PAD.encode(&signature));
    assert_eq!(
        keys.verify(&forged, &Rules::default(), NOW),
        Err(Rejection::Signature)
    );

    let text = message(&json!({"alg": "ES256", "kid": "e"}), &claims);
    let signature: p256::ecdsa::Signature = p256.sign(text.as_bytes());
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()));
    assert!(keys.verify(&token, &Rules::default(), NOW).is_ok());
    let zeros = format!("{text}.{}", URL_SAFE_NO_PAD.encode([0u8; 64]));
    assert_eq!(
        keys.verify(&zeros, &Rules::default(), NOW),
        Err(Rejection::Signature)
    );

    // The public key taken for an HMAC secret.
    let text = message(&json!({"alg": "HS256", "kid": "r"}), &claims);
    assert_eq!(
        keys.verify(&hmac(&text, &rsa_pem), &Rules::default(), NOW),
        Err(Rejection::Algorithm)
    );
}

#[test]
fn the_algorithm_is_the_keys() {
    let claims = json!({"exp": NOW + 10});
    for algorithm in ["none", "None", "RS256", "HS512", ""] {
        let text = message(&json!({"alg": algorithm}), &claims);
        assert_eq!(
            verify(&hmac(&text, SECRET), &Rules::default()),
            Err(Rejection::Algorithm),
            "{algorithm}"
        );
        assert!(verify(&format!("{text}."), &Rules::default()).is_err());
    }
    let text = message(&json!({"typ": "JWT"}), &claims);
    assert_eq!(
        verify(&hmac(&text, SECRET), &Rules::default()),
        Err(Rejection::Algorithm)
    );
}

#[test]
fn an_id_only_looks_a_key_up() {
    let keys = Verifiers::new(&[key(Algorithm::HS256, Some(SECRET), None, Some("a"))]).unwrap();
    let claims = json!({"exp": NOW + 10});
    for (header, expected) in [
        (json!({"alg": "HS256", "kid": "a"}), None),
        (json!({"alg": "HS256"}), None),
        (
            json!({"alg": "HS256", "kid": "../../dev/null"}),
            Some(Rejection::UnknownKey),
        ),
        (
            json!({"alg": "HS256", "kid": 1}),
            Some(Rejection::Malformed),
        ),
        (
            json!({"alg": "HS256", "kid": "a", "crit": ["b64"], "b64": false}),
            Some(Rejection::Critical),
        ),
        (
            json!({"alg": "HS256", "kid": "a", "jku": "http://evil.example/"}),
            None,
        ),
    ] {
        let token = hmac(&message(&header, &claims), SECRET);
        assert_eq!(
            keys.verify(&token, &Rules::default(), NOW).err(),
            expected,
            "{header}"
        );
    }
}

#[test]
fn times_hold_to_the_second_with_leeway() {
    let rules = Rules {
        leeway: 60,
        ..Rules::default()
    };
    for (claims, expected) in [
        (json!({"exp": NOW - 59}), None),
        (json!({"exp": NOW - 60}), Some(Rejection::Expired)),
        (json!({"exp": NOW + 1, "nbf": NOW + 60}), None),
        (
            json!({"exp": NOW + 1, "nbf": NOW + 61}),
            Some(Rejection::NotYetValid),
        ),
        (
            json!({"exp": NOW + 1, "iat": NOW + 61}),
            Some(Rejection::NotYetValid),
        ),
        (json!({"exp": NOW as f64 + 0.5}), None),
        (json!({"sub": "u"}), Some(Rejection::NoExpiry)),
        (json!({"exp": "tomorrow"}), Some(Rejection::BadTime)),
        (json!({"exp": -1}), Some(Rejection::BadTime)),
        (json!({"exp": 1e300}), Some(Rejection::BadTime)),
        (json!({"exp": u64::MAX}), Some(Rejection::BadTime)),
    ] {
        assert_eq!(verify(&hs256(&claims), &rules).err(), expected, "{claims}");
    }
    let lenient = Rules {
        allow_without_expiry: true,
        ..Rules::default()
    };
    assert!(verify(&hs256(&json!({})), &lenient).is_ok());
}

#[test]
fn issuer_and_audience_must_match() {
    let rules = Rules {
        issuer: Some("me".to_owned()),
        audience: vec!["api".to_owned(), "web".to_owned()],
        ..Rules::default()
    };
    for (claims, expected) in [
        (json!({"exp": NOW + 1, "iss": "me", "aud": "web"}), None),
        (
            json!({"exp": NOW + 1, "iss": "me", "aud": ["x", "api"]}),
            None,
        ),
        (
            json!({"exp": NOW + 1, "iss": "you", "aud": "web"}),
            Some(Rejection::Issuer),
        ),
        (
            json!({"exp": NOW + 1, "iss": ["me"], "aud": "web"}),
            Some(Rejection::Issuer),
        ),
        (
            json!({"exp": NOW + 1, "iss": "me"}),
            Some(Rejection::Audience),
        ),
        (
            json!({"exp": NOW + 1, "iss": "me", "aud": ["x", 1]}),
            Some(Rejection::Audience),
        ),
    ] {
        assert_eq!(verify(&hs256(&claims), &rules).err(), expected, "{claims}");
    }
}

#[test]
fn what_is_no_token_is_refused_without_looking_far() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{deep}}}"));
    for token in [
        String::new(),
        "a".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        "a.b.c.d.e".to_owned(),
        ".".repeat(10_000),
        hs256(&json!({"exp": NOW + 1})) + "=",
        hmac(
            &format!("{}.{deep}", URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}")),
            SECRET,
        ),
    ] {
        assert!(verify(&token, &Rules::default()).is_err(), "{:.40}", token);
    }
    assert_eq!(
        verify(&"a".repeat(100_000), &Rules::default()),
        Err(Rejection::TooLong)
    );
}

#[test]
fn weak_or_misplaced_keys_are_refused_at_load() {
    for (config, word) in [
        (key(Algorithm::HS256, Some("short"), None, None), "32 bytes"),
        (
            key(Algorithm::HS256, None, Some("x"), None),
            "takes a `secret`",
        ),
        (
            key(Algorithm::RS256, Some(SECRET), None, None),
            "`public-key`",
        ),
        (
            key(Algorithm::RS256, None, Some("x"), None),
            "RSA public key",
        ),
        (
            key(Algorithm::ES256, None, Some("x"), None),
            "P-256 public key",
        ),
    ] {
        let error = Verifiers::new(&[config]).unwrap_err();
        assert!(
            error.contains("jwt.keys[0]") && error.contains(word),
            "{error}"
        );
    }
}
