//! Tokens as an issuer makes them: every algorithm of JSON Web Tokens, signed by ring, which shares no code with the filters.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};

/// Makes a signature of bytes.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// One who signs.
pub struct Signer {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// The key that verifies, as a JWK without an id.
    pub jwk: Value,
    sign: Sign,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm)
    }
}

/// Bytes as tokens have them.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap()
}

impl Signer {
    /// HS256 with a secret.
    pub fn hs256(secret: &[u8]) -> Self {
        Self::hmac("HS256", ring::hmac::HMAC_SHA256, secret)
    }

    fn hmac(algorithm: &'static str, hash: ring::hmac::Algorithm, secret: &[u8]) -> Self {
        let mac = ring::hmac::Key::new(hash, secret);
        Signer {
            algorithm,
            jwk: json!({"kty": "oct", "alg": algorithm, "k": encode(secret)}),
            sign: Box::new(move |message| ring::hmac::sign(&mac, message).as_ref().to_vec()),
        }
    }

    /// ES256 with a new key.
    pub fn es256() -> Self {
        let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        Self::ecdsa("ES256", kind, "P-256")
    }

    fn ecdsa(
        algorithm: &'static str,
        kind: &'static signature::EcdsaSigningAlgorithm,
        curve: &str,
    ) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        Signer {
            algorithm,
            jwk: json!({"kty": "EC", "alg": algorithm, "crv": curve, "x": encode(x), "y": encode(y)}),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }),
        }
    }

    fn rsa(algorithm: &'static str, padding: &'static dyn RsaEncoding, der: &[u8]) -> Self {
        let pair = RsaKeyPair::from_pkcs8(der).unwrap();
        let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
        Signer {
            algorithm,
            jwk: json!({"kty": "RSA", "alg": algorithm, "n": encode(parts.n), "e": encode(parts.e)}),
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }),
        }
    }

    /// One for each algorithm. The six of RSA share one key.
    pub fn all() -> Vec<Self> {
        let secret = [7; 64];
        let rsa = rsa::RsaPrivateKey::new(&mut rand_core::OsRng, 2048).unwrap();
        let rsa = rsa.to_pkcs8_der().unwrap();
        let rsa = rsa.as_bytes();
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        vec![
            Self::hmac("HS256", ring::hmac::HMAC_SHA256, &secret),
            Self::hmac("HS384", ring::hmac::HMAC_SHA384, &secret),
            Self::hmac("HS512", ring::hmac::HMAC_SHA512, &secret),
            Self::rsa("RS256", &signature::RSA_PKCS1_SHA256, rsa),
            Self::rsa("RS384", &signature::RSA_PKCS1_SHA384, rsa),
            Self::rsa("RS512", &signature::RSA_PKCS1_SHA512, rsa),
            Self::rsa("PS256", &signature::RSA_PSS_SHA256, rsa),
            Self::rsa("PS384", &signature::RSA_PSS_SHA384, rsa),
            Self::rsa("PS512", &signature::RSA_PSS_SHA512, rsa),
            Self::es256(),
            Self::ecdsa(
                "ES384",
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                "P-384",
            ),
            Signer {
                algorithm: "EdDSA",
                jwk: json!({"kty": "OKP", "alg": "EdDSA", "crv": "Ed25519", "x": encode(pair.public_key())}),
                sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
            },
        ]
    }

    /// The key with an id.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(id);
        jwk
    }

    /// A token with this header and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        format!("{message}.{}", encode((self.sign)(message.as_bytes())))
    }

    /// A token that names its algorithm and its key.
    pub fn named(&self, id: &str, claims: &Value) -> String {
        self.token(&json!({"alg": self.algorithm, "kid": id}), claims)
    }
}
