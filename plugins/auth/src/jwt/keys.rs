//! Keys that verify signatures: from PEM, from a JWK (RFC 7517, 7518, 8037), from a secret. A key knows the one algorithm that it
//! is used with, or, from a key set that names none, those of its kind; a token never chooses (RFC 8725 section 3.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss, PublicKey};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::der::{self, BIT_STRING, Der, INTEGER, OID, SEQUENCE};
use crate::config::Algorithm;

/// The longest modulus, in bits: what a verification costs grows with its square.
const MAX_RSA: usize = 4096;

/// A key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// The one algorithm; none: any of its kind.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Secret(Vec<u8>),
    Rsa(Box<PublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl Algorithm {
    pub(crate) const ALL: [(Algorithm, &'static str); 12] = [
        (Algorithm::HS256, "HS256"),
        (Algorithm::HS384, "HS384"),
        (Algorithm::HS512, "HS512"),
        (Algorithm::RS256, "RS256"),
        (Algorithm::RS384, "RS384"),
        (Algorithm::RS512, "RS512"),
        (Algorithm::PS256, "PS256"),
        (Algorithm::PS384, "PS384"),
        (Algorithm::PS512, "PS512"),
        (Algorithm::ES256, "ES256"),
        (Algorithm::ES384, "ES384"),
        (Algorithm::EdDSA, "EdDSA"),
    ];

    /// The algorithm of a name, letter by letter. `Ed25519` (RFC 9864) is what EdDSA is here.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Algorithm::EdDSA);
        }
        let found = Algorithm::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(algorithm, _)| *algorithm)
    }

    fn name(self) -> &'static str {
        let found = Algorithm::ALL.iter().find(|(known, _)| *known == self);
        found.map_or("", |(_, name)| name)
    }

    /// The least secret, in bytes (RFC 7518 section 3.2); none for what has no secret.
    fn secret(self) -> Option<usize> {
        match self {
            Algorithm::HS256 => Some(32),
            Algorithm::HS384 => Some(48),
            Algorithm::HS512 => Some(64),
            _ => None,
        }
    }
}

impl Key {
    /// A key of a secret.
    ///
    /// # Errors
    /// An algorithm that takes no secret, or a secret that is too short.
    pub(crate) fn secret(
        algorithm: Option<Algorithm>,
        secret: Vec<u8>,
        id: Option<String>,
    ) -> Result<Self, String> {
        let Some((algorithm, least)) = algorithm.and_then(|it| Some((it, it.secret()?))) else {
            return Err("a secret goes with `algorithm` HS256, HS384 or HS512".to_owned());
        };
        if secret.len() < least {
            return Err(format!(
                "a secret of {} needs at least {least} bytes (RFC 7518 section 3.2) and has {}; `openssl rand -base64 {least}` makes one",
                algorithm.name(),
                secret.len()
            ));
        }
        Ok(Key {
            id,
            algorithm: Some(algorithm),
            material: Material::Secret(secret),
        })
    }

    /// A key from PEM.
    ///
    /// # Errors
    /// What it is instead of a public key, and how to get one.
    pub(crate) fn pem(
        algorithm: Option<Algorithm>,
        pem: &str,
        id: Option<String>,
    ) -> Result<Self, String> {
        let pem = pem.trim();
        if pem.contains("BEGIN CERTIFICATE") {
            return Err(
                "this is a certificate; `openssl x509 -pubkey -noout` prints its public key"
                    .to_owned(),
            );
        }
        if pem.contains("PRIVATE KEY") {
            return Err("this is a private key, which does not belong here; `openssl pkey -pubout` prints its public key".to_owned());
        }
        let material = if pem.contains("BEGIN RSA PUBLIC KEY") {
            der::pem(pem, "RSA PUBLIC KEY").and_then(|der| rsa_key(&der))
        } else {
            der::pem(pem, "PUBLIC KEY").and_then(|der| spki(&der))
        };
        let Some(material) = material else {
            return Err(
                "no RSA, P-256, P-384 or Ed25519 public key in PEM form (`BEGIN PUBLIC KEY`)"
                    .to_owned(),
            );
        };
        Key::of(material, algorithm, id)
    }

    /// A key from a JWK that stands in a configuration: what is wrong with it is a mistake.
    ///
    /// # Errors
    /// The member that is missing or wrong.
    pub(crate) fn jwk(
        algorithm: Option<Algorithm>,
        jwk: &Map<String, Value>,
        id: Option<String>,
    ) -> Result<Self, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            text(name)
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
                .ok_or_else(|| format!("its member `{name}` must be base64url without padding"))
        };
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return Err("it is not for signatures (`use`)".to_owned());
        }
        if jwk.contains_key("d") {
            return Err("it is a private key (`d`), which does not belong here".to_owned());
        }
        let id = id.or_else(|| text("kid").map(str::to_owned));
        let own = match text("alg") {
            None => None,
            Some(name) => Some(
                Algorithm::named(name)
                    .ok_or_else(|| format!("its `alg` `{name}` is not known here"))?,
            ),
        };
        if let (Some(own), Some(wanted)) = (own, algorithm)
            && own != wanted
        {
            return Err(format!(
                "its `alg` is {} and the `algorithm` {}",
                own.name(),
                wanted.name()
            ));
        }
        let algorithm = algorithm.or(own);
        let material = match (text("kty"), text("crv")) {
            (Some("oct"), _) => return Key::secret(algorithm, bytes("k")?, id),
            (Some("RSA"), _) => {
                let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
                let (n, e) = (bytes("n")?, bytes("e")?);
                PublicKey::new(number(&n), number(&e))
                    .ok()
                    .map(Material::rsa)
            }
            (Some("EC"), Some("P-256")) => {
                let point = point(&bytes("x")?, &bytes("y")?, 32);
                let key =
                    point.and_then(|point| p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok());
                key.map(|key| Material::P256(Box::new(key)))
            }
            (Some("EC"), Some("P-384")) => {
                let point = point(&bytes("x")?, &bytes("y")?, 48);
                let key =
                    point.and_then(|point| p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok());
                key.map(|key| Material::P384(Box::new(key)))
            }
            (Some("OKP"), Some("Ed25519")) => {
                let bytes: Option<[u8; 32]> = bytes("x")?.try_into().ok();
                bytes.and_then(|bytes| ed25519(&bytes))
            }
            (kind, curve) => {
                return Err(format!(
                    "a key of the kind `{}` `{}` is not known here; there are RSA, EC with P-256 and P-384, OKP with Ed25519, and oct",
                    kind.unwrap_or_default(),
                    curve.unwrap_or_default()
                ));
            }
        };
        Key::of(
            material.ok_or("its numbers are no public key")?,
            algorithm,
            id,
        )
    }

    fn of(
        material: Material,
        algorithm: Option<Algorithm>,
        id: Option<String>,
    ) -> Result<Self, String> {
        if let Material::Rsa(key) = &material {
            let bits = key.n_bits_precision() as usize;
            if !(2048..=MAX_RSA).contains(&bits) {
                return Err(format!(
                    "an RSA key must have from 2048 (RFC 7518 section 3.3) to {MAX_RSA} bits and has {bits}"
                ));
            }
        }
        let key = Key {
            id,
            algorithm,
            material,
        };
        match algorithm {
            Some(algorithm) if !key.material.may(algorithm) => Err(format!(
                "{} does not go with a key of this kind",
                algorithm.name()
            )),
            _ => Ok(key),
        }
    }

    /// Whether the operator must say which of its kind's algorithms is meant.
    pub(crate) fn is_open(&self) -> bool {
        self.algorithm.is_none() && matches!(self.material, Material::Rsa(_))
    }

    /// Whether tokens of an algorithm may be verified with it.
    pub(crate) fn takes(&self, algorithm: Algorithm) -> bool {
        match self.algorithm {
            Some(own) => own == algorithm,
            None => self.material.may(algorithm),
        }
    }

    /// Whether a signature is this key's, by an algorithm that it [takes](Key::takes).
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Secret(secret), Algorithm::HS256) => Hmac::<Sha256>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok()),
            (Material::Secret(secret), Algorithm::HS384) => Hmac::<Sha384>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok()),
            (Material::Secret(secret), Algorithm::HS512) => Hmac::<Sha512>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok()),
            (Material::Rsa(key), _) => rsa(key, algorithm, message, signature),
            (Material::P256(key), Algorithm::ES256) => {
                use p256::ecdsa::signature::Verifier as _;
                p256::ecdsa::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            (Material::P384(key), Algorithm::ES384) => {
                use p384::ecdsa::signature::Verifier as _;
                p384::ecdsa::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            (Material::Ed25519(key), Algorithm::EdDSA) => {
                ed25519_dalek::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            _ => false,
        }
    }
}

impl Material {
    fn rsa(key: PublicKey) -> Self {
        Material::Rsa(Box::new(key))
    }

    /// Whether an algorithm is of this kind of key.
    fn may(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{
            ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
        };
        match self {
            Material::Secret(_) => matches!(algorithm, HS256 | HS384 | HS512),
            Material::Rsa(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Material::P256(_) => algorithm == ES256,
            Material::P384(_) => algorithm == ES384,
            Material::Ed25519(_) => algorithm == EdDSA,
        }
    }
}

fn rsa(key: &PublicKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let verified = match algorithm {
        Algorithm::RS256 => key.verify(
            Pkcs1v15Sign::new::<Sha256>(),
            &Sha256::digest(message),
            signature,
        ),
        Algorithm::RS384 => key.verify(
            Pkcs1v15Sign::new::<Sha384>(),
            &Sha384::digest(message),
            signature,
        ),
        Algorithm::RS512 => key.verify(
            Pkcs1v15Sign::new::<Sha512>(),
            &Sha512::digest(message),
            signature,
        ),
        Algorithm::PS256 => key.verify(Pss::<Sha256>::new(), &Sha256::digest(message), signature),
        Algorithm::PS384 => key.verify(Pss::<Sha384>::new(), &Sha384::digest(message), signature),
        Algorithm::PS512 => key.verify(Pss::<Sha512>::new(), &Sha512::digest(message), signature),
        _ => return false,
    };
    verified.is_ok()
}

/// A public key in the form that all kinds share (RFC 5280 section 4.1.2.7), whichever it is.
fn spki(bytes: &[u8]) -> Option<Material> {
    let mut whole = Der(bytes);
    let mut info = whole.inside(SEQUENCE)?;
    let mut algorithm = info.inside(SEQUENCE)?;
    let kind = algorithm.take(OID)?;
    // A bit string begins with the number of bits that its last byte lacks.
    let key = info.take(BIT_STRING)?.strip_prefix(&[0])?;
    if !(whole.is_empty() && info.is_empty()) {
        return None;
    }
    match (kind, algorithm.take(OID)) {
        (der::RSA, _) => rsa_key(key),
        (der::EC, Some(der::P256)) => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
            Some(Material::P256(Box::new(key)))
        }
        (der::EC, Some(der::P384)) => {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?;
            Some(Material::P384(Box::new(key)))
        }
        (der::ED25519, None) => ed25519(&key.try_into().ok()?),
        _ => None,
    }
}

/// Modulus and exponent (RFC 8017 appendix A.1.1).
fn rsa_key(bytes: &[u8]) -> Option<Material> {
    let mut whole = Der(bytes);
    let mut key = whole.inside(SEQUENCE)?;
    let (n, e) = (key.take(INTEGER)?, key.take(INTEGER)?);
    if !(whole.is_empty() && key.is_empty()) {
        return None;
    }
    // Both are positive.
    let number = |bytes: &[u8]| {
        let positive = bytes.first().is_some_and(|first| *first < 0x80);
        positive.then(|| BoxedUint::from_be_slice_vartime(bytes))
    };
    PublicKey::new(number(n)?, number(e)?)
        .ok()
        .map(Material::rsa)
}

/// A key of small order verifies what nobody signed.
fn ed25519(bytes: &[u8; 32]) -> Option<Material> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).ok()?;
    (!key.is_weak()).then(|| Material::Ed25519(Box::new(key)))
}

/// A point as SEC 1 has it, uncompressed. Coordinates have their full length (RFC 7518 section 6.2.1.2).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}
