//! API keys: finding out whose key was shown, in a time that does not depend on how nearly it was right. Knows
//! digests only; the keys themselves are nowhere in the configuration.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tidegate_sdk::prelude::*;

/// One consumer with a key.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Consumer {
    /// The consumer's name, passed on as `x-consumer`.
    pub name: String,
    /// The key's SHA-256 digest in hexadecimal (`printf %s KEY | sha256sum`).
    pub sha256: String,
    /// Roles, passed on as `x-roles` and asked for by `require-roles`.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// The consumers and their digests.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: Vec<([u8; 32], usize)>,
}

impl Keys {
    /// Reads the digests.
    ///
    /// # Errors
    /// A sentence naming the consumer whose digest is not 64 hexadecimal digits, or is another's.
    pub(crate) fn new(consumers: &[Consumer]) -> Result<Self, String> {
        let mut known: Vec<([u8; 32], usize)> = Vec::with_capacity(consumers.len());
        for (index, consumer) in consumers.iter().enumerate() {
            let digest = digest_from_hex(&consumer.sha256).ok_or_else(|| {
                format!(
                    "the sha256 of consumer `{}` must be 64 hexadecimal digits: `printf %s KEY | sha256sum` prints them",
                    consumer.name
                )
            })?;
            if known.iter().any(|(held, _)| *held == digest) {
                return Err(format!(
                    "the key of consumer `{}` is another consumer's too",
                    consumer.name
                ));
            }
            known.push((digest, index));
        }
        Ok(Keys { known })
    }

    /// The position of the consumer whose key this is. All digests are compared, each in constant time.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (held, index) in &self.known {
            if bool::from(held.ct_eq(&digest)) {
                found = Some(*index);
            }
        }
        found
    }
}

fn digest_from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // `from_str_radix` takes a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str, sha256: &str) -> Consumer {
        Consumer {
            name: name.to_owned(),
            sha256: sha256.to_owned(),
            roles: Vec::new(),
        }
    }

    // printf %s alpha | sha256sum
    const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";

    #[test]
    fn a_key_is_found_by_its_digest_only() {
        let keys = Keys::new(&[consumer("a", ALPHA)]).unwrap();
        assert_eq!(keys.find(b"alpha"), Some(0));
        assert_eq!(keys.find(b"Alpha"), None);
        assert_eq!(keys.find(b""), None);
        assert_eq!(keys.find(ALPHA.as_bytes()), None);
    }

    #[test]
    fn bad_digests_are_named() {
        for bad in ["", "12", &ALPHA.replace('8', "+"), &"é".repeat(32)] {
            let error = Keys::new(&[consumer("bob", bad)]).unwrap_err();
            assert!(error.contains("`bob`"), "{error}");
        }
        let twice = Keys::new(&[consumer("a", ALPHA), consumer("b", &ALPHA.to_uppercase())]);
        assert!(twice.unwrap_err().contains("`b`"));
    }
}
