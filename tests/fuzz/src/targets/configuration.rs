//! The configuration: whatever stands in the file, reading it ends, says the same twice, and tells no value of the
//! environment.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::probe::read;

use super::fingerprint;
use crate::Target;

/// The file's bytes.
pub const TARGET: Target = Target {
    name: "configuration",
    fuzz,
    dictionary: &[
        "[server]\n",
        "[server.limits]\n",
        "[[server.tls]]\n",
        "[upstream.a]\n",
        "[[route]]\n",
        "[filter.a]\n",
        "[filter.a.config]\n",
        "listen = [\"127.0.0.1:0\"]\n",
        "admin = \"off\"\n",
        "workers = ",
        "endpoints = [\"http://a:1\"]\n",
        "path = \"/a/{x}/*\"\n",
        "host = \"*.example\"\n",
        "filters = [{ use = \"a\", config = { } }]\n",
        "methods = [\"GET\"]\n",
        "\"${TOKEN}\"",
        "${TOKEN:-x}",
        "$${",
        "${",
        "}",
        "\"1m30s\"",
        "\"64KiB\"",
        "\"0s\"",
        "-1",
        "1e400",
        "nan",
        "9223372036854775807",
        "true",
        "[",
        "]",
        "{",
        "=",
        "\"\"\"",
        "'''",
        "\\u0000",
        "1979-05-27T07:32:00Z",
        "trusted-proxies = [\"10.0.0.0/8\"]\n",
        ".",
        "\"",
        "\n",
        "#",
        "\u{feff}",
        "max-head = ",
        "allow = { store = [\"${TOKEN}\"] }\n",
        "via = \"${TOKEN}\"\n",
        "headers = { x = \"y\" }\n",
        "failure = \"open\"\n",
    ],
};

/// The value that [`read`] puts in for `${TOKEN}`.
const SECRET: &str = "s3cr3t";

thread_local! {
    static PLACE: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let secret_is_written = String::from_utf8_lossy(data).contains(SECRET);
    let file = file();
    fs::write(&file, data).expect("a file can be written");
    let first = read(&file);
    let second = read(&file);
    assert_eq!(
        first.mistakes, second.mistakes,
        "reading twice gives other mistakes"
    );
    assert_eq!(
        first.shown, second.shown,
        "reading twice gives another configuration"
    );
    assert!(
        first.accepted || !first.mistakes.is_empty(),
        "refused without a word"
    );
    let private = first.shown.as_deref().map(private);
    for text in first.mistakes.iter().chain(&private) {
        assert!(
            secret_is_written || !text.contains(SECRET),
            "a value of the environment is told: {text}"
        );
    }
    for mistake in &first.mistakes {
        assert!(!mistake.trim().is_empty(), "an empty message");
    }
    // Messages by their beginning, so that numbers and names in them make no new kind.
    let kinds: Vec<String> = first.mistakes.iter().map(|text| kind(text)).collect();
    fingerprint((kinds.first().cloned(), kinds.len().min(3), first.accepted))
}

/// What of the shown configuration may hold secrets: headers that routes ask for, and what filters are configured with.
fn private(shown: &str) -> String {
    let shown: Value = serde_json::from_str(shown).expect("the configuration is shown as JSON");
    let parts = |table: &str, key: &str| -> String {
        let items = shown
            .get(table)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        items
            .filter_map(|item| item.get(key))
            .map(Value::to_string)
            .collect()
    };
    parts("routes", "headers") + &parts("filters", "config")
}

/// The words of a message without what the file says.
fn kind(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let words = first.split(": ").last().unwrap_or_default();
    words
        .chars()
        .filter(|letter| letter.is_ascii_lowercase() || *letter == ' ')
        .take(40)
        .collect()
}

/// A file of this thread's own, in a folder that holds nothing else.
fn file() -> PathBuf {
    PLACE.with_borrow_mut(|place| {
        let folder =
            place.get_or_insert_with(|| tempfile::tempdir().expect("a folder can be made"));
        folder.path().join("tidegate.toml")
    })
}
