//! Hashes against known answers, and credentials that can't be read.

use super::*;

/// Known answers: of crypt_blowfish, of the reference implementation of Argon2, and of the specification of SHA-crypt.
const KNOWN: [(&str, &str); 6] = [
    (
        "U*U",
        "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    ),
    (
        "U*U*U",
        "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
    ),
    (
        "password",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    ),
    (
        "password",
        "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
    ),
    (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
];

#[test]
fn hashes_are_those_of_their_passwords_only() {
    for (password, hash) in KNOWN {
        let hash = Hash::read(hash).unwrap();
        assert!(hash.is_of(password.as_bytes()), "{hash:?}");
        for other in ["", "u*u", "Hello world", "password ", &"x".repeat(256)] {
            assert!(!hash.is_of(other.as_bytes()), "{other}: {hash:?}");
        }
    }
}

#[test]
fn bcrypt_takes_no_longer_password_than_it_looks_at() {
    let (_, hash) = KNOWN[0];
    let hash = Hash::read(hash).unwrap();
    assert!(!hash.is_of(&[b'a'; 72]));
    assert!(!hash.is_of(&[b'a'; 73]));
}

#[test]
fn other_hashes_are_refused_with_a_remedy_and_not_shown() {
    for (hash, word) in [
        ("secret", "htpasswd -B"),
        ("{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=", "htpasswd -B"),
        ("$apr1$9Cv/OMGj$ZomWQzuQL.3TRCS81A1g8/", "too weak"),
        (
            "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "cost 31",
        ),
        ("$2b$10$CCCC", "cut"),
        (
            "$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "1048576 KiB",
        ),
        (
            "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "cut",
        ),
        (
            "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "too weak",
        ),
        ("$6$rounds=9999999$saltstring$svn8", "9999999 rounds"),
        ("$6$saltstring$short", "cut"),
    ] {
        let error = Hash::read(hash).unwrap_err();
        assert!(error.contains(word), "{error}");
        for secret in ["svn8", "nf65", "E5YP", "Zom", "fEq"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
}

#[test]
fn credentials_are_a_name_and_a_password() {
    let read = |text: &[u8]| credentials(STANDARD.encode(text).as_bytes());
    let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
    assert_eq!(read(b"ada:pass:word"), pair("ada", "pass:word"));
    assert_eq!(read("ada:p\u{e4}ss".as_bytes()), pair("ada", "p\u{e4}ss"));
    assert_eq!(read(b":"), pair("", ""));
    assert_eq!(read(b"ada"), None, "no colon");
    assert_eq!(read(b"ada:a\0b"), None, "NUL");
    assert_eq!(read(b"ada:\xff"), None, "no UTF-8");
    assert_eq!(read(&[b'a'; 1 << 20]), None, "1 MiB");
    assert_eq!(
        read(&[b"a:".as_slice(), &[b'x'; 257]].concat()),
        None,
        "a long password"
    );
    assert_eq!(credentials(b"YWRhOng"), None, "no padding");
    assert_eq!(credentials(b"!"), None);
    assert_eq!(credentials(b""), None);
}
