//! Tokens against the vectors of the RFCs and against ring, which signs what is verified here.

use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self as ring_signature, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(config: Value) -> Result<Key, String> {
    let config: KeyConfig = serde_json::from_value(config).unwrap();
    read(&config)
}

/// What a key says of a token; with the claims that it accepts, "".
fn verdict(keys: &[Key], token: &str, rules: &Rules, now: i64) -> &'static str {
    let judge = || {
        let token = Token::read(token.as_bytes(), rules)?;
        check_signature(keys, &token)?;
        token.claims(rules, now)
    };
    match judge() {
        Ok(_) => "",
        Err(rejection) => rejection.reason(),
    }
}

// --- RFC 7515, appendix A ---

const HS256: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
    BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
    hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[test]
fn the_examples_of_rfc_7515_hold_until_they_expire() {
    let hs256 = json!({"jwk": {"kty": "oct", "alg": "HS256",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}});
    let rs256 = json!({"algorithm": "RS256", "jwk": {"kty": "RSA", "e": "AQAB",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs\
              D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV\
              MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}});
    let es256 = json!({"jwk": {"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}});
    let before = 1_300_819_379;
    for (config, token) in [(hs256, HS256), (rs256, RS256), (es256, ES256)] {
        let keys = [key(config).unwrap()];
        let rules = Rules::default();
        assert_eq!(verdict(&keys, token, &rules, before), "");
        assert_eq!(
            verdict(&keys, token, &rules, before + 1),
            Rejection::Expired.reason()
        );
        // A signature with one bit changed.
        let last = token.len() - 10;
        let other = if token.as_bytes()[last] == b'A' {
            "B"
        } else {
            "A"
        };
        let mut forged = token.to_owned();
        forged.replace_range(last..=last, other);
        assert_eq!(
            verdict(&keys, &forged, &rules, before),
            Rejection::Signature.reason()
        );
    }
}

/// RFC 8037, appendix A.4: its payload is no JSON, which is found out once the signature holds.
#[test]
fn the_example_of_rfc_8037_holds() {
    let keys = [key(json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}})).unwrap()];
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
        hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let rules = Rules::default();
    assert_eq!(
        verdict(&keys, token, &rules, NOW),
        Rejection::Malformed.reason()
    );
    let forged = token.replace("RXhh", "RXhi");
    assert_eq!(
        verdict(&keys, &forged, &rules, NOW),
        Rejection::Signature.reason()
    );
}

// --- Every algorithm, signed by ring ---

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// Signs with one of ring's keys, and tells the public key as a JWK.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Box<Sign>,
}

fn signers() -> Vec<Signer> {
    let mut all = Vec::new();
    for (algorithm, hash) in [
        ("HS256", ring::hmac::HMAC_SHA256),
        ("HS384", ring::hmac::HMAC_SHA384),
        ("HS512", ring::hmac::HMAC_SHA512),
    ] {
        let secret = [7; 64];
        let mac = ring::hmac::Key::new(hash, &secret);
        all.push(Signer {
            algorithm,
            jwk: json!({"kty": "oct", "k": encode(secret)}),
            sign: Box::new(move |message| ring::hmac::sign(&mac, message).as_ref().to_vec()),
        });
    }
    let der = include_bytes!("../../tests/rsa2048.pk8.der");
    for (algorithm, padding) in [
        (
            "RS256",
            &ring_signature::RSA_PKCS1_SHA256 as &'static dyn ring_signature::RsaEncoding,
        ),
        ("RS384", &ring_signature::RSA_PKCS1_SHA384),
        ("RS512", &ring_signature::RSA_PKCS1_SHA512),
        ("PS256", &ring_signature::RSA_PSS_SHA256),
        ("PS384", &ring_signature::RSA_PSS_SHA384),
        ("PS512", &ring_signature::RSA_PSS_SHA512),
    ] {
        let pair = ring_signature::RsaKeyPair::from_pkcs8(der).unwrap();
        let parts = ring_signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
        all.push(Signer {
            algorithm,
            jwk: json!({"kty": "RSA", "n": encode(parts.n), "e": encode(parts.e)}),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }),
        });
    }
    let random = SystemRandom::new();
    for (algorithm, kind, curve, length) in [
        (
            "ES256",
            &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-256",
            32,
        ),
        (
            "ES384",
            &ring_signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            "P-384",
            48,
        ),
    ] {
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref()[1..].to_vec();
        all.push(Signer {
            algorithm,
            jwk: json!({"kty": "EC", "crv": curve, "x": encode(&point[..length]), "y": encode(&point[length..])}),
            sign: Box::new(move |message| {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }),
        });
    }
    let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    all.push(Signer {
        algorithm: "EdDSA",
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    });
    all
}

impl Signer {
    fn token_with(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims));
        format!("{message}.{}", encode((self.sign)(message.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm}), &claims.to_string())
    }

    fn key(&self) -> Key {
        key(json!({"algorithm": self.algorithm, "jwk": self.jwk})).unwrap()
    }
}

#[test]
fn every_algorithm_verifies_what_ring_signed_and_no_other_does() {
    let signers = signers();
    let claims = json!({"exp": NOW + 60});
    for signer in &signers {
        let token = signer.token(&claims);
        for other in &signers {
            let found = verdict(&[other.key()], &token, &Rules::default(), NOW);
            let own = signer.algorithm == other.algorithm;
            assert_eq!(
                found,
                if own {
                    ""
                } else {
                    Rejection::Algorithm.reason()
                },
                "{} by {}",
                signer.algorithm,
                other.algorithm
            );
        }
        // The same key under another algorithm's name.
        for other in &signers {
            if other.algorithm != signer.algorithm {
                let header = json!({"alg": other.algorithm});
                let token = signer.token_with(&header, &claims.to_string());
                let found = verdict(&[signer.key()], &token, &Rules::default(), NOW);
                assert_eq!(found, Rejection::Algorithm.reason(), "{}", other.algorithm);
            }
        }
    }
}

#[test]
fn what_a_token_says_of_its_key_is_a_name_and_no_more() {
    let signer = &signers()[0];
    let claims = json!({"exp": NOW + 60}).to_string();
    let keys = || {
        let mut known = signer.key();
        known.id = Some("a".to_owned());
        [known]
    };
    let rules = Rules::default();
    for (header, expected) in [
        (json!({"alg": "HS256", "kid": "a"}), ""),
        (json!({"alg": "HS256"}), ""),
        (
            json!({"alg": "HS256", "kid": "b"}),
            Rejection::UnknownKey.reason(),
        ),
        (
            json!({"alg": "HS256", "kid": "../../dev/null"}),
            Rejection::UnknownKey.reason(),
        ),
        (
            json!({"alg": "HS256", "kid": "' OR 1=1 --"}),
            Rejection::UnknownKey.reason(),
        ),
        (
            json!({"alg": "HS256", "kid": "k".repeat(300)}),
            Rejection::UnknownKey.reason(),
        ),
        (
            json!({"alg": "HS256", "kid": "k".repeat(10_240)}),
            Rejection::TooLong.reason(),
        ),
        (
            json!({"alg": "HS256", "kid": 1}),
            Rejection::Malformed.reason(),
        ),
        (
            json!({"alg": "HS256", "jwk": signer.jwk, "jku": "https://evil.example/", "x5u": "https://evil.example/"}),
            "",
        ),
        (
            json!({"alg": "HS256", "crit": ["exp"]}),
            Rejection::Critical.reason(),
        ),
        (
            json!({"alg": "HS256", "crit": []}),
            Rejection::Critical.reason(),
        ),
        (
            json!({"alg": "HS256", "b64": false, "crit": ["b64"]}),
            Rejection::Critical.reason(),
        ),
        (json!({"alg": "none"}), Rejection::Algorithm.reason()),
        (json!({"alg": "None"}), Rejection::Algorithm.reason()),
        (json!({"alg": "hs256"}), Rejection::Algorithm.reason()),
        (json!({"alg": ""}), Rejection::Algorithm.reason()),
        (json!({}), Rejection::Algorithm.reason()),
    ] {
        let token = signer.token_with(&header, &claims);
        assert_eq!(verdict(&keys(), &token, &rules, NOW), expected, "{header}");
    }
    let typed = Rules {
        typ: Some("at+jwt".to_owned()),
        ..Rules::default()
    };
    for (typ, expected) in [
        (json!("at+jwt"), ""),
        (json!("application/AT+JWT"), ""),
        (json!("JWT"), Rejection::Type.reason()),
        (json!(1), Rejection::Malformed.reason()),
    ] {
        let token = signer.token_with(&json!({"alg": "HS256", "typ": typ}), &claims);
        assert_eq!(verdict(&keys(), &token, &typed, NOW), expected, "{typ}");
    }
}

#[test]
fn times_are_held_at_both_edges() {
    let signer = &signers()[0];
    let keys = [signer.key()];
    let rules = Rules {
        leeway: 60,
        max_age: Some(3600),
        ..Rules::default()
    };
    let base = |change: Value| {
        let mut claims = json!({"exp": NOW + 600, "iat": NOW});
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    };
    for (change, expected) in [
        (json!({}), ""),
        (json!({"exp": NOW - 59}), ""),
        (json!({"exp": NOW - 60}), Rejection::Expired.reason()),
        (json!({"exp": NOW as f64 - 58.5}), ""),
        (json!({"nbf": NOW + 60}), ""),
        (json!({"nbf": NOW + 61}), Rejection::NotYetValid.reason()),
        (json!({"iat": NOW + 60}), ""),
        (json!({"iat": NOW + 61}), Rejection::NotYetValid.reason()),
        (json!({"iat": NOW - 3660}), ""),
        (json!({"iat": NOW - 3661}), Rejection::TooOld.reason()),
        (json!({"iat": null}), Rejection::TooOld.reason()),
        (json!({"exp": null}), Rejection::NoExpiry.reason()),
        (json!({"exp": "tomorrow"}), Rejection::BadTime.reason()),
        (json!({"exp": 1e300}), Rejection::BadTime.reason()),
        (json!({"exp": -1}), Rejection::BadTime.reason()),
        (json!({"exp": [NOW + 60]}), Rejection::BadTime.reason()),
        (json!({"nbf": "x"}), Rejection::BadTime.reason()),
    ] {
        let token = signer.token(&base(change.clone()));
        assert_eq!(verdict(&keys, &token, &rules, NOW), expected, "{change}");
    }
    let lax = Rules {
        allow_without_expiry: true,
        ..Rules::default()
    };
    assert_eq!(verdict(&keys, &signer.token(&json!({})), &lax, NOW), "");
}

#[test]
fn what_is_no_token_is_refused_at_once() {
    let signer = &signers()[0];
    let keys = [signer.key()];
    let header = json!({"alg": "HS256"});
    let good = signer.token(&json!({"exp": NOW + 60}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let double = signer.token_with(&header, &format!("{{\"exp\":{0},\"exp\":{0}}}", NOW + 60));
    let deep = signer.token_with(
        &header,
        &format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)),
    );
    for token in [
        String::new(),
        ".".repeat(100_000),
        "..".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.{signature}="),
        format!("{signed}.{signature}.x"),
        format!("a.{good}.b"),
        signer.token_with(&header, "[]"),
        signer.token_with(&header, "null"),
        double,
        deep,
    ] {
        assert_ne!(
            verdict(&keys, &token, &Rules::default(), NOW),
            "",
            "{token}"
        );
    }
}

#[test]
fn forged_signatures_of_the_known_kinds_do_not_hold() {
    for signer in signers() {
        let good = signer.token(&json!({"exp": NOW + 60}));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let length = URL_SAFE_NO_PAD.decode(signature).unwrap().len();
        let half = length / 2;
        let one_in_each = {
            let mut bytes = vec![0; length];
            bytes[half - 1] = 1;
            bytes[length - 1] = 1;
            bytes
        };
        for forged in [
            vec![],
            vec![0; length],
            vec![0xff; length],
            one_in_each,
            vec![0; length + 1],
            vec![0; length - 1],
        ] {
            let token = format!("{signed}.{}", encode(forged));
            let found = verdict(&[signer.key()], &token, &Rules::default(), NOW);
            assert_eq!(found, Rejection::Signature.reason(), "{}", signer.algorithm);
        }
    }
}

#[test]
fn mistakes_in_keys_are_told_with_a_remedy() {
    let rsa = include_str!("../../tests/rsa2048.pub.pem");
    let private = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----";
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";
    for (config, word) in [
        (json!({}), "one of `secret`"),
        (json!({"secret": "a", "jwk": {}}), "one of `secret`"),
        (json!({"secret": "a"}), "algorithm"),
        (json!({"secret": "short", "algorithm": "HS256"}), "32 bytes"),
        (
            json!({"secret": "x".repeat(63), "algorithm": "HS512"}),
            "openssl rand -base64 64",
        ),
        (
            json!({"secret": "x".repeat(64), "algorithm": "RS256"}),
            "HS256",
        ),
        (
            json!({"secret-base64": "?", "algorithm": "HS256"}),
            "base64",
        ),
        (json!({"public-key": rsa}), "RS256 is what most"),
        (
            json!({"public-key": rsa, "algorithm": "ES256"}),
            "does not go with",
        ),
        (
            json!({"public-key": rsa, "algorithm": "HS256"}),
            "does not go with",
        ),
        (
            json!({"public-key": private, "algorithm": "RS256"}),
            "private key",
        ),
        (
            json!({"public-key": certificate, "algorithm": "RS256"}),
            "openssl x509",
        ),
        (
            json!({"public-key": "nonsense", "algorithm": "RS256"}),
            "PEM",
        ),
        (
            json!({"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}),
            "no public key",
        ),
        (
            json!({"jwk": {"kty": "EC", "crv": "secp256k1"}}),
            "secp256k1",
        ),
        (
            json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": encode([0; 32])}}),
            "no public key",
        ),
        (
            json!({"jwk": {"kty": "RSA", "n": encode([0xff; 128]), "e": "AQAB"}, "algorithm": "RS256"}),
            "2048",
        ),
        (
            json!({"jwk": {"kty": "oct", "k": "AA", "alg": "HS256"}}),
            "32 bytes",
        ),
        (
            json!({"jwk": {"kty": "oct", "k": "AA", "use": "enc"}}),
            "use",
        ),
        (json!({"jwk": "{"}), "no JSON"),
    ] {
        let error = match key(config.clone()) {
            Err(error) => error,
            Ok(_) => panic!("{config} was accepted"),
        };
        assert!(error.contains(word), "{config}: {error}");
    }
    key(json!({"public-key": rsa, "algorithm": "PS512"})).unwrap();
}

#[test]
fn a_fetched_set_gives_the_keys_that_can_be_used() {
    let signers = signers();
    let mut keys: Vec<Value> = signers.iter().map(|signer| signer.jwk.clone()).collect();
    keys.push(json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}));
    keys.push(json!("nonsense"));
    let set = json!({"keys": keys}).to_string();
    // Nine of ten that are public; the three secrets are none that anybody could fetch.
    assert_eq!(remote::read(set.as_bytes()).unwrap().len(), 9);
    for bad in [
        "",
        "<html>",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
    ] {
        assert!(remote::read(bad.as_bytes()).is_err(), "{bad}");
    }
}
