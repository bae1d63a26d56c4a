//! What `tidegate check` says about each kind of mistake, word for word. A case is `messages/NAME.toml` with what is
//! said in `NAME.err`; a folder `NAME` holds further files, of which `.wat` is put in as `.wasm`. Every case also finds
//! two certificates with their keys, `a.pem` and `a.key`, `b.pem` and `b.key`.
//!
//! `BLESS=1 cargo test -p tidegate --test messages` writes what is said now; read the difference before it goes in.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn every_mistake_is_told_as_it_was_agreed() {
    let bless = std::env::var_os("BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() > 30, "only {} cases were found", cases.len());
    let identities = [identity(), identity()];
    let mut differences = String::new();
    for case in &cases {
        let said = run(case, &identities);
        let expected = case.with_extension("err");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differences.push_str(&format!("--- {}\n{said}\n", case.display()));
        }
    }
    assert!(differences.is_empty(), "said otherwise:\n{differences}");
}

#[test]
fn nothing_is_agreed_for_a_case_that_is_gone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "toml") {
            let case = path.with_extension("toml");
            assert!(case.exists(), "{} has no case", path.display());
        }
    }
}

/// What is said, and the exit status, of one case.
fn run(case: &Path, identities: &[(String, String)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let name = case.file_name().unwrap();
    fs::copy(case, dir.path().join(name)).unwrap();
    for ((certificate, key), name) in identities.iter().zip(["a", "b"]) {
        write_private(&dir.path().join(format!("{name}.pem")), certificate);
        write_private(&dir.path().join(format!("{name}.key")), key);
    }
    copy(&case.with_extension(""), dir.path());
    let output = check(dir.path(), name.to_str().unwrap());
    let said = without_times(&String::from_utf8(output.stderr).unwrap());
    let result = String::from_utf8(output.stdout).unwrap();
    let status = output.status.code().unwrap();
    assert_eq!(status == 0, !result.is_empty(), "{}", case.display());
    let result = match result.as_str() {
        "" => String::new(),
        result => format!("standard output:\n{result}"),
    };
    format!("{said}{result}exit status {status}\n")
}

/// How long something really ran is different each time.
fn without_times(said: &str) -> String {
    let mut parts = said.split("it ran for ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
        text.push_str("it ran for N");
        text.push_str(rest);
    }
    text
}

fn check(folder: &Path, config: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "--log-level", "off", "--config", config])
        .current_dir(folder)
        .env_clear()
        .env("GREETING", "hello")
        .env("SECRET_PLACE", "not-an-address-but-a-secret")
        .output()
        .unwrap()
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A certificate and its key.
fn identity() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Copies a folder, if there is one.
fn copy(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else if target.extension().is_some_and(|it| it == "wat") {
            let wasm = wat::parse_file(entry.path()).unwrap();
            fs::write(target.with_extension("wasm"), wasm).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
