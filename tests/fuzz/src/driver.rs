//! Runs a target for a time: the corpus first, then what mutation makes of it. Without instrumentation it can't see
//! which code ran; the number that a target gives back stands in for that. It must not know what is tried.

use std::any::Any;
use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::Target;
use crate::mutate::{Random, mutate};

/// The most inputs that are kept to be mutated on.
const KEPT: usize = 2000;
/// How long one input may take before it counts as endless.
const ENDLESS: Duration = Duration::from_secs(20);
/// How long a failing input is made smaller.
const SHRINKING: Duration = Duration::from_secs(3);

/// How a run went.
#[derive(Debug)]
pub struct Report {
    /// Inputs tried.
    pub tried: u64,
    /// Inputs kept, because something new happened.
    pub kept: usize,
    /// The file of the input at which something did not hold, and what was said.
    pub failure: Option<(PathBuf, String)>,
}

/// Runs a target for about `time`. An input that fails is made small and left in `artifacts`.
///
/// # Errors
/// If the corpus can't be read or a failing input not be written.
pub fn run(target: &Target, time: Duration, seed: u64, artifacts: &Path) -> Result<Report> {
    let watch = Watch::start(target.name, artifacts);
    let mut random = Random::new(seed);
    let mut kept = Vec::new();
    let mut seen = HashSet::new();
    let mut tried = 0;
    let mut waiting = seeds(target)?;
    waiting.reverse();
    let end = Instant::now() + time;
    loop {
        let next = waiting.pop();
        let is_seed = next.is_some();
        let input = match next {
            Some(seed) => seed,
            None if Instant::now() > end => break,
            None => {
                let empty = Vec::new();
                let one = random.one(&kept).unwrap_or(&empty).clone();
                let other = random.one(&kept).unwrap_or(&empty);
                mutate(&one, other, target.dictionary, &mut random)
            }
        };
        tried += 1;
        watch.began(&input);
        match attempt(target, &input) {
            Ok(print) => {
                if (seen.insert(print) || is_seed) && kept.len() < KEPT {
                    kept.push(input);
                }
            }
            Err(_) => {
                let small = shrink(target, input);
                watch.ended();
                let message = attempt(target, &small).err().unwrap_or_default();
                let file = keep(artifacts, &small)?;
                return Ok(Report {
                    tried,
                    kept: kept.len(),
                    failure: Some((file, message)),
                });
            }
        }
    }
    watch.ended();
    Ok(Report {
        tried,
        kept: kept.len(),
        failure: None,
    })
}

/// The corpus, in a stable order.
///
/// # Errors
/// If it can't be read.
pub fn seeds(target: &Target) -> Result<Vec<Vec<u8>>> {
    let folder = target.corpus();
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("there is no corpus {}", folder.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    files.iter().map(|file| Ok(fs::read(file)?)).collect()
}

/// Tries an input; the error is what the panic said.
fn attempt(target: &Target, input: &[u8]) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| (target.fuzz)(input))).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Takes out what is not needed for the failure, from big pieces to single bytes, for a bounded time.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let end = Instant::now() + SHRINKING;
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() {
            if Instant::now() > end {
                return input;
            }
            let mut shorter = input.clone();
            shorter.drain(at..(at + size).min(input.len()));
            if attempt(target, &shorter).is_err() {
                input = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    input
}

fn keep(folder: &Path, input: &[u8]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let file = folder.join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(folder)?;
    fs::write(&file, input).with_context(|| format!("can't write {}", file.display()))?;
    Ok(file)
}

/// Ends the program when one input takes too long, since nothing else could.
struct Watch(Arc<Mutex<Option<Present>>>);

/// The input that is tried, and since when.
type Present = (Instant, Vec<u8>);

impl Watch {
    #[allow(
        clippy::print_stderr,
        clippy::exit,
        reason = "an endless input can be told of in no other way"
    )]
    fn start(name: &'static str, artifacts: &Path) -> Self {
        let present = Arc::new(Mutex::new(Some((Instant::now(), Vec::new()))));
        let (watched, artifacts) = (Arc::downgrade(&present), artifacts.to_owned());
        thread::spawn(move || {
            while let Some(present) = watched.upgrade() {
                let input = match &*present.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some((start, input)) if start.elapsed() > ENDLESS => input.clone(),
                    Some(_) => Vec::new(),
                    None => return,
                };
                if !input.is_empty() {
                    let file = keep(&artifacts, &input);
                    eprintln!(
                        "{name}: an input takes longer than {} s: {file:?}",
                        ENDLESS.as_secs()
                    );
                    std::process::exit(1);
                }
                drop(present);
                thread::sleep(Duration::from_millis(200));
            }
        });
        Watch(present)
    }

    fn began(&self, input: &[u8]) {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *present = Some((Instant::now(), input.to_vec()));
    }

    fn ended(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_two_bangs(data: &[u8]) -> u64 {
        assert!(
            data.iter().filter(|byte| **byte == b'!').count() < 2,
            "two bangs"
        );
        u64::try_from(data.len()).unwrap()
    }

    #[test]
    fn a_failure_is_found_made_small_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        // The corpus of another target will do to begin with.
        let target = Target {
            name: "route",
            fuzz: no_two_bangs,
            dictionary: &["!"],
        };
        let report = run(&target, Duration::from_secs(20), 1, folder.path()).unwrap();
        let (file, message) = report.failure.unwrap();
        assert_eq!(message, "two bangs");
        assert_eq!(fs::read(file).unwrap(), b"!!");
    }

    #[test]
    fn a_run_without_failure_ends_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target {
            name: "route",
            fuzz: |data| data.len() as u64,
            dictionary: &["word"],
        };
        let report = run(&target, Duration::from_millis(50), 1, folder.path()).unwrap();
        assert!(report.failure.is_none());
        assert!(report.tried > 100 && report.kept > 2, "{report:?}");
    }
}
