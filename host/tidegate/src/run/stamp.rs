//! What tells a changed file from an unchanged one without reading it. Knows no content.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Which file it is, how long, and when it was last touched. Symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file or folder; none: it is not there, or can't be looked at.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Which file it is, whatever is in it.
    pub(crate) fn identity(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_links_and_tells_versions_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(Stamp::of(&at("none")), None);
        fs::write(at("a"), "1").unwrap();
        fs::write(at("b"), "1").unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let first = Stamp::of(&at("link")).unwrap();
        assert_eq!(Some(first), Stamp::of(&at("a")));
        assert_ne!(Some(first), Stamp::of(&at("b")));
        fs::write(at("a"), "22").unwrap();
        let second = Stamp::of(&at("link")).unwrap();
        assert_ne!(first, second);
        assert_eq!(first.identity(), second.identity());
    }
}
