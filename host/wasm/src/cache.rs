//! Compiled code on disk, so that a restart does not compile again. An entry is one file that names its content's
//! checksum; whatever is damaged, foreign or out of date is passed over and made anew. The folder is never needed:
//! one that can't be used costs a warning and time.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// The first bytes of an entry. The number at the end changes with the form of entries.
const MAGIC: &[u8; 16] = b"tidegate-cache-1";
const CHECKSUM: usize = 32;
const EXTENSION: &str = "compiled";
/// The ending of an entry that is being written.
const TEMPORARY: &str = "temporary";
/// After how long nobody writes it any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// The most bytes that all entries may have together.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// After how many entries of our own the folder is looked through, since others may write into it too. A look costs a
/// system call for each file there, whose number nothing bounds but their size.
const LOOK_EVERY: u64 = 64;

/// A folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    max_bytes: u64,
    /// How many entries were written, and the bytes of all entries as far as is known.
    written: AtomicU64,
    held: AtomicU64,
    warned: AtomicBool,
}

impl Cache {
    /// Opens a folder, which is made if it is missing. None, with a warning, if it can't be trusted: code from it
    /// runs in this process, so nobody else may be able to write into it.
    pub(crate) fn open(folder: &Path) -> Option<Cache> {
        Self::with_bound(folder, MAX_BYTES)
    }

    fn with_bound(folder: &Path, max_bytes: u64) -> Option<Cache> {
        let cache = Cache {
            folder: folder.to_owned(),
            max_bytes,
            written: AtomicU64::new(0),
            held: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        };
        match cache.prepare() {
            Ok(()) => Some(cache),
            Err(error) => {
                cache.warn(&error);
                None
            }
        }
    }

    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let folder = fs::metadata(&self.folder)?;
        if folder.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write into it"));
        }
        // Who owns a file that this process makes is who this process runs as.
        let probe = self.temporary();
        let owner = create(&probe)?.metadata()?.uid();
        fs::remove_file(&probe)?;
        if folder.uid() != owner {
            return Err(io::Error::other("it belongs to somebody else"));
        }
        Ok(())
    }

    /// The content of an entry, if it is there and whole.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (header, content) = bytes.split_at_checked(MAGIC.len() + CHECKSUM)?;
        let (magic, checksum) = header.split_at_checked(MAGIC.len())?;
        if magic != MAGIC || checksum != Sha256::digest(content).as_slice() {
            return None;
        }
        // The time of last use decides what is evicted. A read-only folder keeps the time of writing.
        let _ = file.set_modified(SystemTime::now());
        Some(bytes.split_off(MAGIC.len() + CHECKSUM))
    }

    /// Keeps an entry, and evicts the ones that were not used for the longest if there is too much.
    pub(crate) fn put(&self, key: &str, content: &[u8]) {
        let kept = self.write(key, content).and_then(|()| {
            let length = (MAGIC.len() + CHECKSUM + content.len()) as u64;
            let held = self.held.fetch_add(length, Ordering::Relaxed) + length;
            let written = self.written.fetch_add(1, Ordering::Relaxed);
            if held > self.max_bytes || written.is_multiple_of(LOOK_EVERY) {
                self.held.store(self.evict()?, Ordering::Relaxed);
            }
            Ok(())
        });
        if let Err(error) = kept {
            self.warn(&error);
        }
    }

    /// Removes an entry that turned out to be of no use.
    pub(crate) fn remove(&self, key: &str) {
        let _ = fs::remove_file(self.path(key));
    }

    fn write(&self, key: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.temporary();
        let written = create(&temporary).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(content))?;
            file.write_all(content)?;
            fs::rename(&temporary, self.path(key))
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Brings the entries below their bound, and says how many bytes they have.
    fn evict(&self) -> io::Result<u64> {
        // Mostly there is nothing to do: then nothing is remembered of the files, of which there may be very many.
        let mut sum = 0;
        self.each(|_, metadata| {
            sum += metadata.len();
            Ok(())
        })?;
        if sum <= self.max_bytes {
            return Ok(sum);
        }
        let mut entries = Vec::new();
        self.each(|path, metadata| {
            entries.push((metadata.modified()?, metadata.len(), path));
            Ok(())
        })?;
        sum = entries.iter().map(|(_, length, _)| length).sum();
        entries.sort();
        for (_, length, path) in entries {
            if sum <= self.max_bytes {
                break;
            }
            fs::remove_file(path)?;
            sum -= length;
        }
        Ok(sum)
    }

    /// Looks at every entry. Removes what an ended process left half written.
    fn each(&self, mut see: impl FnMut(PathBuf, fs::Metadata) -> io::Result<()>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // An entry that another process removes at this moment is no fault.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if path.extension().is_some_and(|found| found == EXTENSION) {
                see(path, metadata)?;
            } else if path.extension().is_some_and(|found| found == TEMPORARY)
                && metadata
                    .modified()?
                    .elapsed()
                    .is_ok_and(|age| age > ABANDONED)
            {
                // Whoever wrote it ended in the middle.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key).with_extension(EXTENSION)
    }

    fn temporary(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.folder
            .join(format!("{}-{number}.{TEMPORARY}", std::process::id()))
    }

    fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                folder = %self.folder.display(),
                "the compile cache can't be used, so filters are compiled at every start: {error}"
            );
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/cache");
        (temporary, folder)
    }

    #[test]
    fn what_is_put_in_comes_out_and_nobody_else_can_read_it() {
        let (_temporary, folder) = folder();
        let cache = Cache::open(&folder).unwrap();
        assert_eq!(cache.get("k"), None);
        cache.put("k", b"code");
        assert_eq!(cache.get("k").as_deref(), Some(&b"code"[..]));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let mode = fs::metadata(cache.path("k")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no leftovers");
        cache.remove("k");
        assert_eq!(cache.get("k"), None);
    }

    #[test]
    fn an_entry_that_was_damaged_or_cut_is_not_given_out() {
        let (_temporary, folder) = folder();
        let cache = Cache::open(&folder).unwrap();
        cache.put("k", b"some code");
        let whole = fs::read(cache.path("k")).unwrap();
        for length in 0..whole.len() {
            fs::write(cache.path("k"), &whole[..length]).unwrap();
            assert_eq!(cache.get("k"), None, "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(cache.path("k"), damaged).unwrap();
            assert_eq!(cache.get("k"), None, "damaged at {at}");
        }
        fs::write(cache.path("k"), whole).unwrap();
        assert!(cache.get("k").is_some());
    }

    #[test]
    fn a_folder_that_others_may_write_into_is_not_used() {
        let (_temporary, folder) = folder();
        fs::create_dir_all(&folder).unwrap();
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            assert!(Cache::open(&folder).is_none(), "{mode:o}");
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::open(&folder).is_some());
    }

    #[test]
    fn a_folder_that_is_a_file_is_not_used_and_one_that_vanishes_does_no_harm() {
        let (_temporary, folder) = folder();
        let cache = Cache::open(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        cache.put("k", b"code");
        assert_eq!(cache.get("k"), None);
        fs::write(&folder, b"").unwrap();
        assert!(Cache::open(&folder).is_none());
    }

    #[test]
    fn what_a_process_left_behind_when_it_was_ended_is_removed() {
        let (_temporary, folder) = folder();
        let cache = Cache::open(&folder).unwrap();
        let (old, new) = (cache.temporary(), cache.temporary());
        let then = SystemTime::now() - 2 * ABANDONED;
        create(&old).unwrap().set_modified(then).unwrap();
        create(&new).unwrap();
        cache.put("k", b"code");
        assert!(!old.exists());
        assert!(new.exists(), "another process may be writing it");
    }

    #[test]
    fn the_entry_that_was_not_used_for_the_longest_goes_first() {
        let (_temporary, folder) = folder();
        let one = (MAGIC.len() + CHECKSUM + 4) as u64;
        let cache = Cache::with_bound(&folder, 2 * one).unwrap();
        let old = |key: &str, age: u64| {
            let file = File::options().write(true).open(cache.path(key)).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(then).unwrap();
        };
        cache.put("a", b"code");
        cache.put("b", b"code");
        old("a", 100);
        old("b", 200);
        assert!(cache.get("b").is_some());
        cache.put("c", b"code");
        assert!(cache.get("a").is_none());
        assert!(cache.get("b").is_some() && cache.get("c").is_some());
    }

    #[test]
    fn a_large_folder_is_not_looked_through_for_each_entry() {
        let (_temporary, folder) = folder();
        let cache = Cache::open(&folder).unwrap();
        cache.put("first", b"code");
        let left = cache.temporary();
        let then = SystemTime::now() - 2 * ABANDONED;
        create(&left).unwrap().set_modified(then).unwrap();
        for number in 1..LOOK_EVERY {
            cache.put(&number.to_string(), b"code");
            assert!(left.exists(), "looked through at {number}");
        }
        cache.put("last", b"code");
        assert!(!left.exists());
    }
}
