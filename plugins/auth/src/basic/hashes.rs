//! Password hashes as htpasswd files hold them: bcrypt, argon2id, SHA-512-crypt. Reads them and tries passwords; what costs what
//! is the file's choice, within bounds.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::alphabet::{self, Alphabet};
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;

/// The most memory that a hash may ask for, in KiB: an instance may have 64 MiB by default.
const MAX_MEMORY: u32 = 48 * 1024;
/// bcrypt looks at no more, in bytes.
const BCRYPT_PASSWORD: usize = 72;

/// bcrypt's own alphabet. The last digit's lowest bits stand for nothing, and some programs set them.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    NO_PAD.with_decode_allow_trailing_bits(true),
);
/// crypt's alphabet.
const CRYPT: Alphabet = alphabet::CRYPT;

/// A password's hash.
#[derive(Debug)]
pub(super) enum Hash {
    Bcrypt {
        cost: u32,
        salt: [u8; 16],
        digest: [u8; 23],
    },
    Argon2 {
        params: Params,
        salt: Vec<u8>,
        digest: Vec<u8>,
    },
    Sha512 {
        params: sha_crypt::Params,
        salt: Vec<u8>,
        digest: [u8; 64],
    },
}

impl Hash {
    /// # Errors
    /// What the hash is, and what there could be instead. Its digits are not shown.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let remedy = "take bcrypt (`htpasswd -B`), argon2id (`argon2 SALT -id -e`) or SHA-512-crypt (`mkpasswd -m sha512crypt`)";
        let mut parts = text.split('$');
        if parts.next() != Some("") {
            return Err(format!(
                "the hash is of no kind that is known here; {remedy}"
            ));
        }
        let kind = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        match kind {
            "2a" | "2b" | "2y" => bcrypt(&parts),
            "argon2id" => argon2id(&parts),
            "6" => sha512(&parts),
            "apr1" | "1" | "5" | "argon2i" | "argon2d" => Err(format!(
                "hashes of the kind `{kind}` are too weak or not known here; {remedy}"
            )),
            _ => Err(format!(
                "the hash is of no kind that is known here; {remedy}"
            )),
        }
    }

    /// Whether this is the password's hash.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Hash::Bcrypt { cost, salt, digest } => {
                if password.len() > BCRYPT_PASSWORD {
                    return false;
                }
                // It ends with a NUL, if there is room for it.
                let mut ended = [0; BCRYPT_PASSWORD + 1];
                let length = (password.len() + 1).min(BCRYPT_PASSWORD);
                if let Some(place) = ended.get_mut(..password.len()) {
                    place.copy_from_slice(password);
                }
                let ended = ended.get(..length).unwrap_or_default();
                let made = bcrypt::bcrypt(*cost, *salt, ended);
                // The last byte is not written down.
                made.get(..23)
                    .is_some_and(|made| made.ct_eq(digest.as_slice()).into())
            }
            Hash::Argon2 {
                params,
                salt,
                digest,
            } => {
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let mut made = vec![0; digest.len()];
                argon2
                    .hash_password_into(password, salt, &mut made)
                    .is_ok_and(|()| made.ct_eq(digest).into())
            }
            Hash::Sha512 {
                params,
                salt,
                digest,
            } => sha_crypt::sha512_crypt(password, salt, *params)
                .ct_eq(digest)
                .into(),
        }
    }
}

/// `$2b$COST$` and 22 digits of the salt with 31 of the hash behind it.
fn bcrypt(parts: &[&str]) -> Result<Hash, String> {
    let broken = || "the bcrypt hash is cut or changed: it is `$2b$10$` and 53 letters".to_owned();
    let [cost, rest] = parts else {
        return Err(broken());
    };
    let cost: u32 = cost.parse().map_err(|_| broken())?;
    if !(4..=14).contains(&cost) {
        return Err(format!(
            "the bcrypt hash has the cost {cost}; from 4 to 14 are taken, and each step doubles the time"
        ));
    }
    let (salt, digest) = rest.split_at_checked(22).ok_or_else(broken)?;
    if digest.len() != 31 {
        return Err(broken());
    }
    let salt = BCRYPT
        .decode(salt)
        .ok()
        .and_then(|salt| salt.try_into().ok());
    let digest = BCRYPT
        .decode(digest)
        .ok()
        .and_then(|digest| digest.try_into().ok());
    match (salt, digest) {
        (Some(salt), Some(digest)) => Ok(Hash::Bcrypt { cost, salt, digest }),
        _ => Err(broken()),
    }
}

/// `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
fn argon2id(parts: &[&str]) -> Result<Hash, String> {
    let broken = || {
        "the argon2id hash is cut or changed: it is `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`"
            .to_owned()
    };
    let ["v=19", costs, salt, digest] = parts else {
        return Err(broken());
    };
    let (mut memory, mut time, mut lanes) = (None, None, None);
    for pair in costs.split(',') {
        let (name, value) = pair.split_once('=').ok_or_else(broken)?;
        let place = match name {
            "m" => &mut memory,
            "t" => &mut time,
            "p" => &mut lanes,
            _ => return Err(broken()),
        };
        *place = Some(value.parse::<u32>().map_err(|_| broken())?);
    }
    let (Some(memory), Some(time), Some(lanes)) = (memory, time, lanes) else {
        return Err(broken());
    };
    if memory > MAX_MEMORY || time > 16 {
        return Err(format!(
            "the argon2id hash asks for {memory} KiB and {time} passes; up to {MAX_MEMORY} KiB and 16 passes are taken"
        ));
    }
    let salt = STANDARD_NO_PAD.decode(salt).map_err(|_| broken())?;
    let digest = STANDARD_NO_PAD.decode(digest).map_err(|_| broken())?;
    if digest.len() < 16 || salt.len() < 8 {
        return Err(broken());
    }
    let params = Params::new(memory, time, lanes, Some(digest.len())).map_err(|_| broken())?;
    Ok(Hash::Argon2 {
        params,
        salt,
        digest,
    })
}

/// `$6$SALT$HASH` or `$6$rounds=N$SALT$HASH`.
fn sha512(parts: &[&str]) -> Result<Hash, String> {
    let broken =
        || "the SHA-512-crypt hash is cut or changed: it is `$6$SALT$` and 86 letters".to_owned();
    let (rounds, salt, digest) = match parts {
        [salt, digest] => (5000, salt, digest),
        [rounds, salt, digest] => {
            let rounds = rounds
                .strip_prefix("rounds=")
                .and_then(|it| it.parse().ok());
            (rounds.ok_or_else(broken)?, salt, digest)
        }
        _ => return Err(broken()),
    };
    if !(1000..=1_000_000).contains(&rounds) {
        return Err(format!(
            "the SHA-512-crypt hash has {rounds} rounds; from 1000 to 1000000 are taken"
        ));
    }
    if salt.len() > 16 {
        return Err(broken());
    }
    Ok(Hash::Sha512 {
        params: sha_crypt::Params::new(rounds).map_err(|_| broken())?,
        salt: salt.as_bytes().to_vec(),
        digest: crypt_digest(digest).ok_or_else(broken)?,
    })
}

/// The 64 bytes that crypt's 86 digits stand for: groups of three bytes from three thirds, the lowest six bits first.
fn crypt_digest(text: &str) -> Option<[u8; 64]> {
    let letters = CRYPT.as_str().as_bytes();
    let digit = |letter: u8| letters.iter().position(|known| *known == letter);
    if text.len() != 86 {
        return None;
    }
    let mut digest = [0; 64];
    let (mut a, mut b, mut c) = (0, 21, 42);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for (index, letter) in group.iter().enumerate() {
            bits |= digit(*letter)? << (6 * index);
        }
        if let [_, _] = group {
            *digest.last_mut()? = u8::try_from(bits).ok()?;
            break;
        }
        for (place, shift) in [(a, 16), (b, 8), (c, 0)] {
            *digest.get_mut(place)? = (bits >> shift) as u8;
        }
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    Some(digest)
}
