//! The filters that ship, through the real binary, configured as their READMEs say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rsa::pkcs8::EncodePublicKey as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tests::client::{Reply, get_with, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;

/// One shipped filter on everything, with the tables of its configuration.
fn shipped(upstream: &Upstream, name: &str, config: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url())
        .filter(name, plugin(name, Carrier::Core))
        .toml(config)
        .toml(&format!(
            "[[route]]\nname = \"all\"\nupstream = \"main\"\nfilters = [\"{name}\"]"
        ))
}

async fn ask(gateway: &Gateway, fields: &[(&str, &str)]) -> Reply {
    gateway.send(get_with("/", fields)).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(key: &str) -> String {
    hex(&Sha256::digest(key))
}

// --- auth ---

fn with_keys(rest: &str) -> String {
    format!(
        "[filter.auth.config]\n{rest}\n[filter.auth.config.api-key]\nconsumers = [\n\
         {{ name = \"ada\", sha256 = \"{}\", roles = [\"admin\", \"dev\"] }},\n\
         {{ name = \"bob\", sha256 = \"{}\" }},\n]",
        digest("key-of-ada"),
        digest("key-of-bob")
    )
}

#[tokio::test]
async fn auth_lets_in_who_has_a_key_and_says_who_it_is() {
    let upstream = Upstream::echo().await;
    let gateway = shipped(&upstream, "auth", &with_keys("")).start().await;
    let reply = ask(&gateway, &[]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(reply.field("www-authenticate").is_some(), "{reply:?}");
    let reply = ask(&gateway, &[("x-api-key", "key-of-nobody")]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(upstream.requests(), 0);

    let lies = [
        ("x-api-key", "key-of-ada"),
        ("x-consumer", "root"),
        ("X-Consumer", "root"),
        ("x-roles", "god"),
    ];
    let seen = ask(&gateway, &lies).await.echo();
    assert_eq!(seen.all("x-consumer"), ["ada"]);
    assert_eq!(seen.all("x-roles"), ["admin,dev"]);
    let seen = ask(&gateway, &[("x-api-key", "key-of-bob"), ("x-roles", "god")])
        .await
        .echo();
    assert_eq!(seen.all("x-consumer"), ["bob"]);
    assert_eq!(seen.field("x-roles"), None);
    // Two keys: nobody can say which one counts.
    let two = [("x-api-key", "key-of-ada"), ("x-api-key", "key-of-bob")];
    let reply = ask(&gateway, &two).await;
    assert!(reply.status.is_client_error(), "{reply:?}");
}

#[tokio::test]
async fn auth_finds_a_key_in_query_or_cookie() {
    let upstream = Upstream::echo().await;
    for (place, target, cookie) in [
        ("query = \"key\"", "/?a=b&key=key-of-ada", "x=y"),
        ("cookie = \"key\"", "/?a=b", "x=y; key=key-of-ada"),
    ] {
        let config = format!(
            "[filter.auth.config.api-key]\n{place}\nconsumers = [{{ name = \"ada\", sha256 = \"{}\" }}]",
            digest("key-of-ada")
        );
        let gateway = shipped(&upstream, "auth", &config).start().await;
        let reply = gateway.send(get_with(target, &[("cookie", cookie)])).await;
        assert_eq!(reply.echo().field("x-consumer"), Some("ada"), "{place}");
        let reply = gateway.get("/?a=b").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{place}");
    }
}

#[tokio::test]
async fn auth_asks_for_a_role() {
    let upstream = Upstream::echo().await;
    let config = with_keys("require-roles = [\"admin\"]");
    let gateway = shipped(&upstream, "auth", &config).start().await;
    let reply = ask(&gateway, &[("x-api-key", "key-of-ada")]).await;
    assert_eq!(reply.status, StatusCode::OK);
    let reply = ask(&gateway, &[("x-api-key", "key-of-bob")]).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let reply = ask(&gateway, &[]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn auth_shows_no_key_anywhere() {
    let upstream = Upstream::echo().await;
    let gateway = shipped(&upstream, "auth", &with_keys("")).start().await;
    ask(&gateway, &[("x-api-key", "key-of-ada")]).await;
    ask(&gateway, &[("x-api-key", "wrong-key-of-eve")]).await;
    let mut shown = String::new();
    for page in ["/config", "/plugins", "/metrics"] {
        shown += &gateway.admin(page).await.text();
    }
    for line in gateway.log() {
        shown += &line.text;
    }
    for secret in ["key-of-ada", "wrong-key-of-eve"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

const SECRET: &str = "a secret of more than thirty-two bytes";

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap()
}

/// What is signed of a token.
fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn hs256(header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whom a token makes its bearer, or the status of the refusal.
async fn bearer(gateway: &Gateway, token: &str) -> Result<String, u16> {
    let reply = ask(gateway, &[("authorization", &format!("Bearer {token}"))]).await;
    if reply.status == StatusCode::OK {
        return Ok(reply.echo().field("x-user").unwrap_or_default().to_owned());
    }
    if reply.status == StatusCode::UNAUTHORIZED {
        let challenge = reply.field("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer "), "{challenge}");
    }
    Err(reply.status.as_u16())
}

#[tokio::test]
async fn auth_takes_tokens_and_passes_claims_on() {
    let upstream = Upstream::echo().await;
    let config = format!(
        "[filter.auth.config.jwt]\nkeys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n\
         issuer = \"https://issuer.example\"\naudience = [\"api\"]\nrequire-scopes = [\"read\"]\n\
         claims = {{ sub = \"x-user\" }}"
    );
    let gateway = shipped(&upstream, "auth", &config).start().await;
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let claims = |change: Value| {
        let mut claims = json!({
            "sub": "ada", "iss": "https://issuer.example", "aud": ["other", "api"],
            "exp": now() + 60, "nbf": now() - 60, "scope": "read write",
        });
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    };
    let good = hs256(&header, &claims(json!({})));
    assert_eq!(bearer(&gateway, &good).await, Ok("ada".to_owned()));
    for (what, change) in [
        ("expired", json!({"exp": now() - 3600})),
        ("without expiry", json!({"exp": null})),
        ("an expiry that is text", json!({"exp": "tomorrow"})),
        ("not valid yet", json!({"nbf": now() + 3600})),
        ("of another issuer", json!({"iss": "https://evil.example"})),
        ("without an issuer", json!({"iss": null})),
        ("for another audience", json!({"aud": "other"})),
        ("without an audience", json!({"aud": null})),
    ] {
        let token = hs256(&header, &claims(change));
        assert_eq!(bearer(&gateway, &token).await, Err(401), "{what}");
    }
    let token = hs256(&header, &claims(json!({"scope": "write"})));
    assert_eq!(bearer(&gateway, &token).await, Err(403));

    // Tampering, and tokens that choose their own algorithm.
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = message(&header, &claims(json!({"sub": "root"})));
    let none = message(&json!({"alg": "none"}), &claims(json!({})));
    for token in [
        format!("{other}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        format!("{none}."),
        format!("{none}.{signature}"),
        hs256(&json!({"alg": "RS256"}), &claims(json!({}))),
        hs256(&json!({"alg": "HS256", "crit": ["x"]}), &claims(json!({}))),
        "nonsense".to_owned(),
        ".".repeat(1000),
        String::new(),
    ] {
        let refused = bearer(&gateway, &token).await;
        assert!(refused.is_err(), "{token}");
    }
    let basic = ask(&gateway, &[("authorization", "Basic YTpi")]).await;
    assert_eq!(basic.status, StatusCode::UNAUTHORIZED);
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn auth_checks_signatures_of_public_keys() {
    let upstream = Upstream::echo().await;
    let rsa = rsa::RsaPrivateKey::new(&mut rand_core::OsRng, 2048).unwrap();
    let rsa_pem = rsa
        .to_public_key()
        .to_public_key_pem(rsa::pkcs8::LineEnding::LF)
        .unwrap();
    let ec = rcgen::KeyPair::generate().unwrap();
    let config = format!(
        "[[filter.auth.config.jwt.keys]]\nalgorithm = \"RS256\"\nkid = \"r\"\npublic-key = '''\n{rsa_pem}'''\n\
         [[filter.auth.config.jwt.keys]]\nalgorithm = \"ES256\"\nkid = \"e\"\npublic-key = '''\n{}'''\n\
         [filter.auth.config.jwt.claims]\nsub = \"x-user\"",
        ec.public_key_pem()
    );
    let gateway = shipped(&upstream, "auth", &config).start().await;
    let claims = json!({"sub": "ada", "exp": now() + 60});
    let signer = rsa::pkcs1v15::SigningKey::<Sha256>::new(rsa);
    let text = message(&json!({"alg": "RS256", "kid": "r"}), &claims);
    let signature = signer.sign(text.as_bytes()).to_vec();
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(&signature));
    assert_eq!(bearer(&gateway, &token).await, Ok("ada".to_owned()));

    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &ec.serialize_der(),
        &random,
    )
    .unwrap();
    let text = message(&json!({"alg": "ES256", "kid": "e"}), &claims);
    let signature = pair.sign(&random, text.as_bytes()).unwrap();
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(bearer(&gateway, &token).await, Ok("ada".to_owned()));

    // A signature over something else, and the public key used as a secret.
    let other = message(
        &json!({"alg": "ES256", "kid": "e"}),
        &json!({"sub": "root", "exp": now() + 60}),
    );
    let token = format!("{other}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(bearer(&gateway, &token).await, Err(401));
    let zeros = format!("{text}.{}", URL_SAFE_NO_PAD.encode([0; 64]));
    assert_eq!(bearer(&gateway, &zeros).await, Err(401));
    let text = message(&json!({"alg": "HS256", "kid": "r"}), &claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, rsa_pem.as_bytes());
    let signature = ring::hmac::sign(&key, text.as_bytes());
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(bearer(&gateway, &token).await, Err(401));
}

// --- headers ---

#[tokio::test]
async fn headers_are_rewritten_in_both_directions() {
    let upstream = Upstream::echo().await;
    let config = r#"
[filter.headers.config.request]
remove = ["x-debug"]
rename = { "x-old" = "x-new" }
set = { "x-route" = "{route}", "x-user" = "{param:id}", "x-client" = "{client-address}", "x-both" = "{method} {path}?{query} {header:x-in}{{}}" }
append = { "x-seen-by" = "edge" }

[filter.headers.config.response]
remove = ["x-upstream"]
set = { "x-request-id" = "{request-id}", "x-was" = "{response:content-type}" }

[filter.headers.config.path]
strip-prefix = "/api"
add-prefix = "/v1"
"#;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("headers", plugin("headers", Carrier::Core))
        .toml(config)
        .toml("[[route]]\nname = \"users\"\npath = \"/api/users/{id}\"\nupstream = \"main\"\nfilters = [\"headers\"]")
        .toml("[[route]]\nname = \"rest\"\npath = \"/*\"\nupstream = \"main\"\nfilters = [\"headers\"]")
        .start()
        .await;
    let sent = get_with(
        "/api/users/7?q=1",
        &[
            ("x-debug", "1"),
            ("X-Debug", "2"),
            ("x-old", "a"),
            ("x-old", "b"),
            ("x-seen-by", "client"),
            ("x-in", "in"),
            ("x-route", "a lie"),
        ],
    );
    let reply = gateway.send(sent).await;
    let seen = reply.echo();
    assert_eq!(seen.target, "/v1/users/7?q=1");
    assert_eq!(seen.field("x-debug"), None);
    assert_eq!(seen.field("x-old"), None);
    assert_eq!(seen.all("x-new"), ["a", "b"]);
    assert_eq!(seen.all("x-route"), ["users"]);
    assert_eq!(seen.all("x-user"), ["7"]);
    assert_eq!(seen.all("x-client"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-seen-by"), ["client", "edge"]);
    let both = seen.field("x-both").unwrap();
    assert!(both.contains("?q=1 in{}"), "{both}");
    assert_eq!(reply.field("x-upstream"), None);
    assert_eq!(reply.field("x-was"), Some("application/json"));
    assert_eq!(
        reply.field("x-request-id"),
        seen.field("x-request-id"),
        "{reply:?}"
    );
    // A prefix is whole segments; where it does not stand, the path stays.
    let seen = gateway.get("/apiary").await.echo();
    assert_eq!(seen.target, "/apiary");
}

// --- Together ---

#[tokio::test]
async fn all_three_stand_in_one_chain_in_either_form() {
    let upstream = Upstream::echo().await;
    for carrier in [Carrier::Core, Carrier::Component] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("10-auth", plugin("auth", carrier))
            .filter("20-limit", plugin("limit", carrier))
            .filter("30-headers", plugin("headers", carrier))
            .toml(&with_keys(""))
            .toml("[filter.limit.config]\nrate = 1\nper = \"hour\"\nburst = 5\nkey = \"consumer\"")
            .toml("[filter.headers.config.request]\nset = { \"x-who\" = \"{property:consumer}\" }")
            .start()
            .await;
        let with_key = |key: &'static str| get_with("/", &[("x-api-key", key)]);
        for _ in 0..5 {
            let reply = gateway.send(with_key("key-of-ada")).await;
            assert_eq!(reply.echo().field("x-who"), Some("ada"));
        }
        let reply = gateway.send(with_key("key-of-ada")).await;
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        // Another consumer from the same address has a bucket of its own; nobody's key takes nothing.
        assert_eq!(
            gateway.send(with_key("wrong")).await.status,
            StatusCode::UNAUTHORIZED
        );
        let reply = gateway.send(with_key("key-of-bob")).await;
        assert_eq!(reply.echo().field("x-who"), Some("bob"));
        let reply = gateway.send(post("/", "no key")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
}

// --- Their configuration ---

#[tokio::test]
async fn a_mistake_in_their_configuration_is_told_at_its_place() {
    for (name, config, words) in [
        ("auth", "[filter.auth.config]\nrealm = 7", vec!["realm"]),
        ("auth", "[filter.auth.config]\nreelm = \"a\"", vec!["reelm"]),
        (
            "auth",
            "[filter.auth.config.api-key]\nconsumers = [{ name = \"ada\", sha256 = \"short\" }]",
            vec!["ada", "64 hexadecimal digits"],
        ),
        (
            "limit",
            "[filter.limit.config]\nper = \"second\"",
            vec!["rate"],
        ),
        (
            "limit",
            "[filter.limit.config]\nrate = 1\nper = \"fortnight\"",
            vec!["fortnight"],
        ),
        (
            "headers",
            "[filter.headers.config.request]\nset = { \"host\" = \"evil\" }",
            vec!["host"],
        ),
        (
            "headers",
            "[filter.headers.config.request]\nset = { \"x-a\" = \"{nonsense}\" }",
            vec!["nonsense"],
        ),
    ] {
        let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
            .filter(name, plugin(name, Carrier::Core))
            .toml(config)
            .route("/*", "main", &[name]);
        let checked = setup.check().await;
        let said = checked.said();
        assert_eq!(checked.code, Some(1), "{config}: {said}");
        for word in words {
            assert!(said.contains(word), "{config}: no {word} in\n{said}");
        }
        assert!(
            said.contains("tidegate.toml:") || said.contains(&format!("{name}.wasm")),
            "{said}"
        );
    }
    // What the manifest's schema can tell is told at line and column.
    let setup = Setup::new()
        .filter("auth", plugin("auth", Carrier::Core))
        .file("tidegate.toml", "[filter.auth.config]\nrealm = 7\n");
    let checked = setup.run(&["check", "--config", "tidegate.toml"]).await;
    assert!(
        checked.said().contains("tidegate.toml:2:9"),
        "{}",
        checked.said()
    );
}

#[tokio::test]
async fn inspect_shows_their_manifests() {
    for name in ["auth", "limit", "headers"] {
        let setup = Setup::new().filter(name, plugin(name, Carrier::Core));
        let seen = setup
            .run(&["inspect", &format!("plugins/{name}.wasm")])
            .await;
        assert_eq!(seen.code, Some(0), "{}", seen.said());
        for word in ["native core", name, "0.1.0", "request-head"] {
            assert!(seen.stdout.contains(word), "no {word} in {}", seen.stdout);
        }
    }
}
