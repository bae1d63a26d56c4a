//! Writing what was built: whole or not at all, and only if it changed, because proxies may be watching
//! the folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Puts `bytes` to `path` in one step. Says whether that changed anything.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let folder = path.parent().context("a file lies in a folder")?;
    let write = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut draft = tempfile::Builder::new()
            .suffix(".tmp")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        draft.write_all(bytes)?;
        draft.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("can't write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.wasm");
        assert!(put(&path, b"one").unwrap());
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!put(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        assert!(put(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
