//! The folder of plugins: which files in it are filters, in which order, and what belongs to them. It opens only
//! regular files and must not know what is in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::diagnostic::Mistake;

/// The longest plugin that is read whatever the configuration says, in bytes.
pub(crate) const MAX_PLUGIN: u64 = 256 << 20;
/// The longest settings or configuration file that is read, in bytes.
pub(crate) const MAX_SETTINGS: u64 = 16 << 20;
/// The longest name of a filter, an upstream or a route's filter.
const MAX_NAME: usize = 64;

/// What is in the folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// The `.wasm` files in the order in which their filters run when no route says otherwise: by the number before
    /// the name, those without one last, then by name. No two have the same name.
    pub(crate) plugins: Vec<Plugin>,
    /// The `.toml` files by the name of the filter that they belong to.
    pub(crate) settings: BTreeMap<String, PathBuf>,
    /// Files that can't be taken. Each concerns one plugin or one filter.
    pub(crate) mistakes: Vec<Mistake>,
}

/// A `.wasm` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// The file's name without number and ending.
    pub(crate) name: String,
    /// The file, below the folder as it was given.
    pub(crate) file: PathBuf,
}

/// Looks at the folder. One that is not there is empty; entries that go away meanwhile are passed over. Hidden files
/// (editors' and Kubernetes' own) and folders are not looked at; symbolic links are followed.
pub(crate) fn scan(folder: &Path) -> Folder {
    let mut found = Folder::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                let message = format!("the folder of plugins can't be read: {error}");
                found.mistakes.push(Mistake::of(folder.display(), &message));
            }
            return found;
        }
    };
    let mut files: Vec<(PathBuf, String, Ending)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let (stem, ending) = Ending::of(name.to_str()?)?;
            Some((folder.join(&name), stem.to_owned(), ending))
        })
        .collect();
    files.sort_by_cached_key(|(_, stem, _)| order(stem));
    for (file, stem, ending) in files {
        found.add(file, &stem, ending);
    }
    found
}

/// Reads a file that was found to be a regular one.
///
/// # Errors
/// It is gone or can't be read, is no regular file (any more), or is longer than `limit` bytes.
pub(crate) fn read(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end; so look first, and again at what was opened.
    require_regular(&fs::metadata(file)?)?;
    let opened = File::open(file)?;
    let metadata = opened.metadata()?;
    require_regular(&metadata)?;
    let capacity = usize::try_from(metadata.len().min(limit)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(capacity);
    opened
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes, which is the most that is read"),
        ));
    }
    Ok(bytes)
}

fn require_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// What a file's ending makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Wasm,
    Toml,
}

impl Ending {
    /// The name without ending, of a file that is looked at.
    fn of(name: &str) -> Option<(&str, Ending)> {
        if name.starts_with('.') {
            return None;
        }
        let (stem, ending) = name.rsplit_once('.')?;
        match ending {
            "wasm" => Some((stem, Ending::Wasm)),
            "toml" => Some((stem, Ending::Toml)),
            _ => None,
        }
    }
}

impl Folder {
    fn add(&mut self, file: PathBuf, stem: &str, ending: Ending) {
        let name = strip_number(stem);
        if let Some(mistake) = unacceptable(&file, name, ending) {
            self.mistakes.push(mistake);
            return;
        }
        match ending {
            Ending::Wasm => self.add_plugin(file, name),
            Ending::Toml => self.add_settings(file, name),
        }
    }

    fn add_plugin(&mut self, file: PathBuf, name: &str) {
        let twin = self
            .plugins
            .iter()
            .find(|plugin| plugin.name.eq_ignore_ascii_case(name));
        if let Some(twin) = twin {
            let message = if twin.name == name {
                format!(
                    "its filter would be called `{name}`, as that of {}",
                    twin.file.display()
                )
            } else {
                format!(
                    "its name differs from that of {} only in upper and lower case",
                    twin.file.display()
                )
            };
            self.mistakes.push(
                Mistake::of(file.display(), &message)
                    .help("rename one of the files; a number before the name only orders")
                    .only_plugin(name),
            );
            return;
        }
        self.plugins.push(Plugin {
            name: name.to_owned(),
            file,
        });
    }

    fn add_settings(&mut self, file: PathBuf, name: &str) {
        if let Some(twin) = self.settings.get(name) {
            let message = format!("there are settings of `{name}` in {} too", twin.display());
            self.mistakes.push(
                Mistake::of(file.display(), &message)
                    .help("keep one of the files")
                    .only(name),
            );
            return;
        }
        self.settings.insert(name.to_owned(), file);
    }
}

/// Why a file can't be taken.
fn unacceptable(file: &Path, name: &str, ending: Ending) -> Option<Mistake> {
    let (message, help) = if is_name(name) {
        match fs::metadata(file) {
            Ok(metadata) if metadata.is_file() => return None,
            Ok(_) => ("it is not a regular file".to_owned(), None),
            Err(error) => (format!("it can't be read: {error}"), None),
        }
    } else {
        let message = format!("`{name}` can't be the name of a filter");
        (message, Some(NAME_RULE.to_owned()))
    };
    let mistake = Mistake::of(file.display(), &message).maybe_help(help);
    Some(match ending {
        Ending::Wasm => mistake.only_plugin(name),
        Ending::Toml => mistake.only(name),
    })
}

/// `10-auth` and `10_auth` are `auth`; `404` is `404`.
fn strip_number(stem: &str) -> &str {
    let rest = stem.trim_start_matches(|char: char| char.is_ascii_digit());
    if rest.len() == stem.len() {
        return stem;
    }
    match rest.strip_prefix(['-', '_']) {
        Some(name) if !name.is_empty() => name,
        _ => stem,
    }
}

/// The number before the name counts as a number, so that 9 is before 10.
fn order(stem: &str) -> (bool, u64, String) {
    let name = strip_number(stem);
    let number = stem
        .strip_suffix(name)
        .and_then(|number| number.get(..number.len().saturating_sub(1)))
        .filter(|number| !number.is_empty());
    match number {
        Some(number) => (false, number.parse().unwrap_or(u64::MAX), name.to_owned()),
        None => (true, 0, name.to_owned()),
    }
}

/// What a name may be, for a remedy.
pub(crate) const NAME_RULE: &str =
    "a name has up to 64 letters, digits, `-`, `_` and `.`, and begins with a letter or digit";

/// Whether a text can name a filter or an upstream.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let found = scan(dir.path());
        (dir, found)
    }

    fn names(folder: &Folder) -> Vec<&str> {
        folder
            .plugins
            .iter()
            .map(|plugin| plugin.name.as_str())
            .collect()
    }

    #[test]
    fn the_number_orders_and_is_no_part_of_the_name() {
        let (_dir, found) = folder(&[
            "zeta.wasm",
            "10-limit.wasm",
            "9_auth.wasm",
            "alpha.wasm",
            "404.wasm",
            "010-a.wasm",
            "10-limit.toml",
        ]);
        assert_eq!(
            names(&found),
            ["auth", "a", "limit", "404", "alpha", "zeta"]
        );
        assert!(found.settings["limit"].ends_with("10-limit.toml"));
        assert!(found.mistakes.is_empty());
    }

    #[test]
    fn what_editors_and_kubernetes_leave_behind_is_passed_over() {
        let (dir, found) = folder(&[
            "a.wasm",
            ".a.wasm.swp",
            "a.wasm~",
            "#a.wasm#",
            "4913",
            ".#b.wasm",
            ".b.wasm",
            "notes.txt",
            "a.wasm.tmp",
        ]);
        assert_eq!(names(&found), ["a"]);
        assert!(found.mistakes.is_empty());
        fs::create_dir(dir.path().join("..2026")).unwrap();
        fs::write(dir.path().join("..2026/c.wasm"), "x").unwrap();
        std::os::unix::fs::symlink("..2026", dir.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/c.wasm", dir.path().join("c.wasm")).unwrap();
        assert_eq!(names(&scan(dir.path())), ["a", "c"]);
    }

    #[test]
    fn names_that_collide_are_told() {
        let (_dir, found) = folder(&["10-auth.wasm", "auth.wasm", "b.wasm", "B.wasm", "x y.wasm"]);
        assert_eq!(found.mistakes.len(), 3, "{:?}", found.mistakes);
        assert_eq!(names(&found).len(), 2);
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        let found = scan(Path::new("/nonexistent/plugins"));
        assert!(found.plugins.is_empty() && found.mistakes.is_empty());
    }

    #[test]
    fn only_regular_files_are_read_and_only_up_to_a_bound() {
        let (dir, _) = folder(&["a.wasm"]);
        assert_eq!(read(&dir.path().join("a.wasm"), 6).unwrap(), b"a.wasm");
        assert!(read(&dir.path().join("a.wasm"), 5).is_err());
        assert!(read(dir.path(), 5).is_err());
        fs::create_dir(dir.path().join("d.wasm")).unwrap();
        let found = scan(dir.path());
        assert_eq!((names(&found), found.mistakes.len()), (vec!["a"], 1));
        // A pipe would block whoever opens it.
        let pipe = dir.path().join("p.wasm");
        let made = std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap();
        assert!(made.success());
        assert!(read(&pipe, 5).is_err());
        assert_eq!(scan(dir.path()).mistakes.len(), 2);
    }
}
