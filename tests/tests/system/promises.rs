//! What `docs/security.md` promises is shown by tests that are there.

use std::path::Path;

#[test]
fn every_test_that_is_named_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/security.md")).unwrap();
    let mut missing = Vec::new();
    let mut named = 0;
    for (module, test) in page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
    {
        let is_word = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        // A crate's own tests are named by their module.
        if !is_word(module) || !is_word(test) || test == "tests" {
            continue;
        }
        named += 1;
        // System tests, and the crates' own, by their files' names.
        let is_there = [root.join("tests/system"), root.join("../host")]
            .iter()
            .flat_map(|folder| files_called(folder, &format!("{module}.rs")))
            .any(|source| source.contains(&format!("fn {test}(")));
        if !is_there {
            missing.push(format!("{module}::{test}"));
        }
    }
    assert!(named > 50, "{named} names were found");
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

/// The text of every file of this name in a folder and those below it.
fn files_called(folder: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_called(&path, name));
        } else if path.ends_with(name) {
            found.extend(std::fs::read_to_string(&path));
        }
    }
    found
}
