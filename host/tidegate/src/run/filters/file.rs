//! What is known of a plugin's file: its content's digest and what the compiler said. It is read again only when it
//! looks changed, and compiled again only when it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tidegate_wasm::{Compiled, Engine};

use crate::load;
use crate::run::stamp::Stamp;

/// A file that was read, or could not be.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// What it looked like before it was read.
    stamp: Option<Stamp>,
    /// SHA-256 of the content in hexadecimal; none: it can't be read.
    pub(super) digest: Option<Arc<str>>,
    /// The code, or why there is none.
    pub(super) compiled: Result<Arc<Compiled>, Arc<str>>,
}

impl Known {
    /// A file at which the reading itself failed.
    pub(super) fn broken(path: &Path) -> Self {
        Known {
            stamp: Stamp::of(path),
            digest: None,
            compiled: Err("reading it failed in a way that no file should cause".into()),
        }
    }

    /// Whether the file looks as it did when it was read.
    pub(super) fn looks_same(&self, path: &Path) -> bool {
        self.stamp.is_some() && self.stamp == Stamp::of(path)
    }

    /// Reads and compiles a file, unless what is known of it still holds. `sure` reads it in any case. None: it is
    /// not there.
    pub(super) fn read(
        path: &Path,
        before: Option<&Known>,
        sure: bool,
        engine: &Engine,
    ) -> Option<Known> {
        // First the stamp: if the file changes while it is read, it looks changed afterwards.
        let stamp = Stamp::of(path);
        if let Some(before) = before
            && !sure
            && stamp.is_some()
            && before.stamp == stamp
        {
            return Some(before.clone());
        }
        let bytes = match load::read(engine, path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                return Some(Known {
                    stamp,
                    digest: None,
                    compiled: Err(format!("it can't be read: {error}").into()),
                });
            }
        };
        let digest: Arc<str> = hex(&Sha256::digest(&bytes)).into();
        if let Some(before) = before
            && before.digest.as_ref() == Some(&digest)
        {
            return Some(Known {
                stamp,
                ..before.clone()
            });
        }
        let compiled = engine.compile(&bytes);
        Some(Known {
            stamp,
            digest: Some(digest),
            compiled: compiled.map_err(|error| error.to_string().into()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
