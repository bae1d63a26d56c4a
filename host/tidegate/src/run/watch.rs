//! Hears of changes to the folder of plugins and to the files of the configuration: from the system's events, and from
//! looking now and then, for what makes no event. It reads no content and decides nothing; see `settle`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::settle::{Settle, Sign, Weight};
use super::stamp::Stamp;

/// Events that may wait. When there are more, everything is looked at.
const QUEUE: usize = 4096;
/// How often to look when there are events, and when there are none.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_ALONE: Duration = Duration::from_secs(1);

/// What is watched. All paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

/// The stamps of all files that are wanted and there.
pub(crate) type Survey = HashMap<PathBuf, Stamp>;

/// Hears of changes.
pub(crate) struct Watch {
    wanted: Wanted,
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Event>,
    overflow: Arc<AtomicBool>,
    /// Names of files and folders whose events are worth the control thread's time.
    names: Arc<ArcSwap<HashSet<OsString>>>,
    /// Folders that make events, as they are wanted, with what they were when that was asked for.
    armed: HashMap<PathBuf, Armed>,
    seen: Survey,
    complained: bool,
}

struct Armed {
    identity: (u64, u64),
    /// By this name the events call it.
    called: PathBuf,
}

impl Wanted {
    /// The folder of plugins, and further files.
    pub(crate) fn new(folder: &Path, files: &[PathBuf]) -> Self {
        let mut files: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
        let folder = absolute(folder);
        files.retain(|file| *file != folder);
        files.sort();
        files.dedup();
        Wanted { folder, files }
    }

    /// Looks at everything that is wanted. May wait for a disk or a network.
    pub(crate) fn survey(&self) -> Survey {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let inside = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().is_some_and(is_looked_at))
            .map(|entry| self.folder.join(entry.file_name()));
        self.files
            .iter()
            .cloned()
            .chain(inside)
            .filter_map(|path| Stamp::of(&path).map(|stamp| (path, stamp)))
            .collect()
    }

    /// Every folder whose events tell of something that is wanted: those of the files, that of plugins, and the one
    /// above it, which tells when it is replaced.
    fn folders(&self) -> Vec<PathBuf> {
        let parents = self.files.iter().chain([&self.folder]);
        let mut folders: Vec<PathBuf> = parents
            .filter_map(|path| path.parent())
            .map(Path::to_owned)
            .chain([self.folder.clone()])
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// How much depends on a file; none: nothing.
    fn weight(&self, path: &Path) -> Option<Weight> {
        if self.files.iter().any(|file| file == path) {
            return Some(Weight::All);
        }
        let name = path.file_name()?.to_str()?;
        let inside = path.parent() == Some(&self.folder) && is_looked_at(name);
        inside.then(|| {
            if name.ends_with(".wasm") {
                Weight::Alone
            } else {
                Weight::All
            }
        })
    }
}

/// Names of the folder that are filters or their settings.
fn is_looked_at(name: &str) -> bool {
    !name.starts_with('.') && (name.ends_with(".wasm") || name.ends_with(".toml"))
}

/// A path that does not depend on the working directory. Links stay what they are.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Watch {
    /// Begins to hear, unless only looking is wanted.
    pub(crate) fn new(events: bool) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let overflow = Arc::new(AtomicBool::new(false));
        let names = Arc::new(ArcSwap::from_pointee(HashSet::new()));
        let (full, of_interest) = (Arc::clone(&overflow), Arc::clone(&names));
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) if !is_of_interest(&event, &of_interest.load()) => {}
            Ok(event) => {
                if event.need_rescan() || sender.try_send(event).is_err() {
                    full.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "changes of files may be noticed late");
                full.store(true, Ordering::Relaxed);
            }
        };
        let watcher = if events {
            notify::recommended_watcher(handler)
                .inspect_err(|error| {
                    tracing::warn!(%error, "the system tells of no changes to files; they are looked at every second");
                })
                .ok()
        } else {
            None
        };
        Watch {
            wanted: Wanted::default(),
            watcher,
            events: receiver,
            overflow,
            names,
            armed: HashMap::new(),
            seen: Survey::new(),
            complained: false,
        }
    }

    /// What is watched.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// How often to look.
    pub(crate) fn slow(&self) -> Duration {
        if self.watcher.is_some() {
            SLOW
        } else {
            SLOW_ALONE
        }
    }

    /// Watches these from now on. What was seen of them when they were read is the measure of change.
    pub(crate) fn follow(&mut self, wanted: Wanted, seen: Survey) {
        self.wanted = wanted;
        self.seen = seen;
        self.name_all();
        self.arm();
    }

    /// What was seen when everything was looked at last.
    pub(crate) fn saw(&mut self, seen: Survey) {
        self.seen = seen;
    }

    /// Waits for events. Never ends by itself.
    pub(crate) async fn heard(&mut self, into: &mut Vec<Event>) {
        if self.events.recv_many(into, QUEUE).await == 0 {
            std::future::pending::<()>().await;
        }
    }

    /// Tells what events mean. Says whether some were lost, so that everything has to be looked at.
    pub(crate) fn tell(&mut self, events: Vec<Event>, settle: &mut Settle, now: Instant) -> bool {
        let mut replaced = false;
        for event in events {
            let sign = sign(&event.kind);
            for path in &event.paths {
                replaced |= self.tell_one(path, sign, settle, now);
            }
        }
        if replaced {
            self.arm();
        }
        self.overflow.swap(false, Ordering::Relaxed)
    }

    /// Says whether a folder may have been replaced.
    fn tell_one(&self, path: &Path, sign: Option<Sign>, settle: &mut Settle, now: Instant) -> bool {
        // A folder itself, by the name that its events have.
        if self.armed.values().any(|armed| armed.called == path) {
            settle.stir(now);
            return true;
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let mut replaced = false;
        let folders = self
            .armed
            .iter()
            .filter(|(_, armed)| armed.called == parent);
        for (folder, _) in folders {
            let path = folder.join(name);
            if let Some(weight) = self.wanted.weight(&path) {
                match sign {
                    // Nobody closes a link after writing it.
                    Some(Sign::Writing) if path.is_symlink() => {
                        settle.hear(&path, Sign::Done, weight, now);
                    }
                    Some(sign) => settle.hear(&path, sign, weight, now),
                    None => settle.stir(now),
                }
            } else if path == self.wanted.folder || name.as_encoded_bytes().starts_with(b"..") {
                // The folder came, went or was replaced; or Kubernetes swapped what all links go through.
                settle.stir(now);
                replaced = true;
            }
        }
        replaced
    }

    /// Compares with what was seen before.
    pub(crate) fn compare(&mut self, survey: Survey, settle: &mut Settle, now: Instant) {
        for (path, stamp) in &survey {
            if self.seen.get(path) != Some(stamp)
                && let Some(weight) = self.wanted.weight(path)
            {
                settle.find(path, true, weight, now);
            }
        }
        for path in self.seen.keys() {
            if !survey.contains_key(path)
                && let Some(weight) = self.wanted.weight(path)
            {
                settle.find(path, false, weight, now);
            }
        }
        self.seen = survey;
        self.arm();
    }

    /// The names by which events can concern what is wanted.
    fn name_all(&self) {
        let folders = self.armed.values().map(|armed| &armed.called);
        let paths = self
            .wanted
            .files
            .iter()
            .chain(folders)
            .chain([&self.wanted.folder]);
        let names = paths
            .filter_map(|path| path.file_name())
            .map(OsString::from);
        self.names.store(Arc::new(names.collect()));
    }

    /// Asks for the events of each wanted folder that is there and was not asked for, or is another one by now.
    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let folders = self.wanted.folders();
        self.armed.retain(|folder, armed| {
            let identity = Stamp::of(folder).map(Stamp::identity);
            let stays = folders.contains(folder) && identity == Some(armed.identity);
            if !stays {
                // The system has forgotten it already if it is gone.
                let _ = watcher.unwatch(&armed.called);
            }
            stays
        });
        for folder in folders {
            if self.armed.contains_key(&folder) {
                continue;
            }
            let Some(identity) = Stamp::of(&folder).map(Stamp::identity) else {
                continue;
            };
            let Ok(called) = fs::canonicalize(&folder) else {
                continue;
            };
            let known = self.armed.values().any(|armed| armed.called == called);
            if !known && let Err(error) = watcher.watch(&called, RecursiveMode::NonRecursive) {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(folder = %folder.display(), %error, "changes there are noticed only within seconds");
                }
                continue;
            }
            self.armed.insert(folder, Armed { identity, called });
        }
        self.name_all();
    }
}

/// Whether an event can tell of a change to something that is wanted. Opening and reading is what this process does
/// itself.
fn is_of_interest(event: &Event, names: &HashSet<OsString>) -> bool {
    let of_change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        // Both names were told one by one.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => false,
        _ => true,
    };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            names.contains(name)
                || name
                    .to_str()
                    .is_some_and(|name| name.starts_with("..") || is_looked_at(name))
        })
    };
    of_change && (event.need_rescan() || event.paths.iter().any(named))
}

/// What an event says of its file; none: nothing in particular.
fn sign(kind: &EventKind) -> Option<Sign> {
    match kind {
        EventKind::Access(_) => Some(Sign::Done),
        EventKind::Create(CreateKind::Folder) => Some(Sign::Done),
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
            Some(Sign::Writing)
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Sign::Done),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            Some(Sign::Gone)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::settle::{Look, Next};
    use tokio::runtime::{Builder, LocalOptions};

    /// Lets real events come in until it is time to look.
    fn until_look(watch: &mut Watch, settle: &mut Settle) -> Look {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let patience = Instant::now() + Duration::from_secs(30);
            loop {
                let time = match settle.next(Instant::now()) {
                    Next::Look(look) => return look,
                    Next::At(time) => time,
                    Next::Wait => patience,
                };
                assert!(Instant::now() < patience, "no event came");
                let mut events = Vec::new();
                tokio::select! {
                    () = watch.heard(&mut events) => {
                        watch.tell(events, settle, Instant::now());
                    }
                    () = tokio::time::sleep_until(time.into()) => {}
                }
            }
        })
    }

    fn watched(folder: &Path) -> (Watch, Settle) {
        let files = [folder.join("tidegate.toml")];
        let wanted = Wanted::new(&folder.join("plugins"), &files);
        let mut watch = Watch::new(true);
        let seen = wanted.survey();
        watch.follow(wanted, seen);
        (watch, Settle::default())
    }

    #[test]
    fn a_written_file_is_heard_of_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let (mut watch, mut settle) = watched(folder.path());
        for name in [".a.wasm.swp", "a.wasm~", "4913", "notes.txt"] {
            fs::write(plugins.join(name), "x").unwrap();
        }
        fs::write(folder.path().join("access.log"), "x").unwrap();
        fs::write(plugins.join("a.wasm"), "x").unwrap();
        let look = until_look(&mut watch, &mut settle);
        assert_eq!(look.dirty, HashSet::from([plugins.join("a.wasm")]));
        fs::write(folder.path().join("tidegate.toml"), "x").unwrap();
        let look = until_look(&mut watch, &mut settle);
        assert_eq!(
            look.dirty,
            HashSet::from([folder.path().join("tidegate.toml")])
        );
    }

    #[test]
    fn a_folder_that_is_replaced_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("plugins")).unwrap();
        let (mut watch, mut settle) = watched(folder.path());
        fs::create_dir(at("next")).unwrap();
        fs::rename(at("plugins"), at("before")).unwrap();
        fs::rename(at("next"), at("plugins")).unwrap();
        until_look(&mut watch, &mut settle);
        // What happens in the old one is of no interest; what happens in the new one is.
        fs::write(at("before/a.wasm"), "x").unwrap();
        fs::write(at("plugins/b.wasm"), "x").unwrap();
        let look = until_look(&mut watch, &mut settle);
        assert_eq!(look.dirty, HashSet::from([at("plugins/b.wasm")]));
        // And one that goes away and comes back.
        fs::remove_dir_all(at("plugins")).unwrap();
        until_look(&mut watch, &mut settle);
        fs::create_dir(at("plugins")).unwrap();
        until_look(&mut watch, &mut settle);
        fs::write(at("plugins/c.wasm"), "x").unwrap();
        let look = until_look(&mut watch, &mut settle);
        assert!(look.dirty.contains(&at("plugins/c.wasm")), "{look:?}");
    }

    #[test]
    fn a_change_without_an_event_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("plugins")).unwrap();
        fs::write(at("file"), "1").unwrap();
        std::os::unix::fs::symlink(at("file"), at("plugins/a.wasm")).unwrap();
        let (mut watch, mut settle) = watched(folder.path());
        let now = Instant::now();
        watch.compare(watch.wanted().survey(), &mut settle, now);
        assert_eq!(settle.next(now), Next::Wait);
        fs::write(at("file"), "22").unwrap();
        watch.compare(watch.wanted().survey(), &mut settle, now);
        assert!(matches!(settle.next(now), Next::At(_)));
        let Next::Look(look) = settle.next(now + Duration::from_secs(1)) else {
            panic!("nothing to look at");
        };
        assert!(look.dirty.contains(&at("plugins/a.wasm")));
    }
}
