//! The command line as a user meets it: exit statuses, and what goes to which stream.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const FILTER: &str = r#"(module
  (memory (export "memory") 1 4)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32) (i32.const 16))
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))"#;

fn tidegate(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_version_names_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["--version"]);
    let version = text(&output.stdout);
    let commit = version
        .strip_prefix(concat!("tidegate ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(")\n"))
        .unwrap_or_else(|| panic!("{version}"));
    assert!(commit == "unknown" || commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn wrong_usage_is_two() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["serve"][..],
        &["check", "--listen", "80"],
        &["inspect"],
        &["check", "--log-level", "a=b=c"],
    ] {
        let output = tidegate(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn a_check_opens_no_port_and_writes_its_summary_to_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::create_dir(dir.path().join("plugins")).unwrap();
    let filter = wat::parse_str(FILTER).unwrap();
    fs::write(dir.path().join("plugins/10-hello.wasm"), filter).unwrap();
    let arguments = [
        "check",
        "--listen",
        &address,
        "--upstream",
        "http://127.0.0.1:9",
    ];
    let output = tidegate(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let summary = text(&output.stdout);
    assert!(
        summary.contains("route default to default through hello"),
        "{summary}"
    );
    assert!(summary.contains("native core"), "{summary}");
}

#[test]
fn an_empty_folder_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains("--upstream"),
        "the warning names the remedy"
    );
}

#[test]
fn mistakes_on_the_command_line_are_told_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let output = tidegate(dir.path(), &["check", "--upstream", "127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("--upstream: `127.0.0.1:9` is not a URL\n"),
        "{said}"
    );
    assert!(
        said.contains("help: write it as \"http://127.0.0.1:9\""),
        "{said}"
    );
}

#[test]
fn inspecting_says_what_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.wasm"), wat::parse_str(FILTER).unwrap()).unwrap();
    fs::write(dir.path().join("b.wasm"), "no filter").unwrap();
    let filter = tidegate(dir.path(), &["inspect", "a.wasm"]);
    assert_eq!(filter.status.code(), Some(0));
    assert!(
        text(&filter.stdout).contains("native core"),
        "{}",
        text(&filter.stdout)
    );
    let json = tidegate(dir.path(), &["inspect", "--json", "a.wasm"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["filter"], true);
    let other = tidegate(dir.path(), &["inspect", "b.wasm"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stdout).contains("not a filter"),
        "{}",
        text(&other.stdout)
    );
    let none = tidegate(dir.path(), &["inspect", "c.wasm"]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(1), 0));
    assert!(text(&none.stderr).starts_with("c.wasm: can't be read"));
}

#[test]
fn log_lines_are_json_when_nobody_watches() {
    let dir = tempfile::tempdir().unwrap();
    let mut check = command(dir.path(), &["check"]);
    let output = check.env("RUST_LOG", "a=b=c").output().unwrap();
    let line = text(&output.stderr)
        .lines()
        .find(|line| line.starts_with('{'));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    let mut check = command(dir.path(), &["check", "--log-format", "text"]);
    let output = check.env("RUST_LOG", "a=b=c").output().unwrap();
    assert!(
        text(&output.stderr).contains(" WARN "),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut schema = command(dir.path(), &["schema"]);
    let status = schema
        .stdout(writer)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}
