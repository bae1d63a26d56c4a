//! Reads the source files as text: each begins by saying what it is for, and nothing is left behind that
//! was meant for an afternoon. It parses no Rust.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// Where Rust of ours lies, from the repository's root.
const FOLDERS: [&str; 6] = ["host", "sdk", "plugins", "tests", "examples", "xtask"];

/// Longer files are likely to hold two ideas.
const LONG: usize = 600;

/// What the sources say.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) files: usize,
    pub(super) breaches: Vec<String>,
    pub(super) warnings: Vec<String>,
}

pub(super) fn check(workspace: &Workspace) -> Result<Report> {
    let mut report = Report::default();
    for folder in FOLDERS {
        let mut files = Vec::new();
        rust_files(&workspace.root().join(folder), &mut files)?;
        files.sort();
        for path in files {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("can't read {}", path.display()))?;
            report.add(workspace.relative(&path), &text);
        }
    }
    Ok(report)
}

/// All Rust files below a folder, without what was built.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                rust_files(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

impl Report {
    fn add(&mut self, path: &Path, text: &str) {
        self.files += 1;
        let path = path.display();
        if !opens_with_a_sentence(text) {
            self.breaches.push(format!(
                "{path}:1: the file does not open with a `//!` sentence: say what it is for and what it must \
                 not know"
            ));
        }
        for (line, what) in left_behind(text) {
            self.breaches.push(format!("{path}:{line}: {what}"));
        }
        let lines = text.lines().count();
        if lines > LONG {
            self.warnings.push(format!(
                "{path} has {lines} lines, over {LONG}: does it hold two ideas?"
            ));
        }
    }
}

/// Whether the first thing but inner attributes is a `//!` paragraph which is a sentence: it has some
/// words and comes to an end.
fn opens_with_a_sentence(text: &str) -> bool {
    let mut lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || line.starts_with("#!["));
    let paragraph: Vec<&str> = lines
        .by_ref()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    paragraph.split_whitespace().count() >= 3 && paragraph.ends_with(['.', ':', '?', '!'])
}

/// Lines that belong in no commit, counted from 1.
fn left_behind(text: &str) -> Vec<(usize, &'static str)> {
    // Put together here so that this file does not find itself.
    let ignored = concat!("#[", "ignore");
    let debugging = concat!("dbg", "!(");
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        // What prints figures and judges nothing is run by hand, and says so.
        if code.starts_with(ignored) && !code.ends_with("= \"a measurement\"]") {
            found.push((
                index + 1,
                "a test that never runs proves nothing: mend it or remove it",
            ));
        }
        if code.contains(debugging) && !code.starts_with("//") {
            found.push((index + 1, "a debugging print was left behind"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_a_sentence() {
        for text in [
            "//! Does one thing well.\nuse a;",
            "//! Does one thing\n//! over two lines: it knows no sockets.\n\nuse a;",
            "#![forbid(unsafe_code)]\n\n//! Does one thing well.\n//!\n//! More of it",
        ] {
            assert!(opens_with_a_sentence(text), "{text}");
        }
    }

    #[test]
    fn a_file_without_an_opening_is_seen() {
        for text in [
            "",
            "fn main() {}",
            "//!\nuse a;",
            "//! Tests.\n",
            "//! a b c d without an end\n\nuse a;",
            "// Only for readers of the source.\n",
            "use a;\n//! Too late to be an opening.",
        ] {
            assert!(!opens_with_a_sentence(text), "{text}");
        }
    }

    #[test]
    fn what_was_left_behind_is_found_by_line() {
        let text = format!(
            "//! A file with both.\n    {}]\nfn t() {{ {}x) }}\n// {}y)\n",
            concat!("#[", "ignore"),
            concat!("dbg", "!("),
            concat!("dbg", "!("),
        );
        let lines: Vec<usize> = left_behind(&text)
            .into_iter()
            .map(|(line, _)| line)
            .collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn a_report_names_the_place() {
        let mut report = Report::default();
        report.add(Path::new("host/a.rs"), "fn main() {}");
        report.add(
            Path::new("host/b.rs"),
            &"//! It is long. \n".repeat(LONG + 1),
        );
        assert_eq!(report.files, 2);
        assert!(report.breaches[0].starts_with("host/a.rs:1: "));
        assert_eq!(report.warnings.len(), 1);
    }
}
