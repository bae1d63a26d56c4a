//! Which version of each filter runs, and why a newer one does not. Files are known by their content; a version that
//! can't be used leaves the last good one in place. It knows no workers and tells nobody; see `tell`.

mod aside;
mod entry;
mod file;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidegate_core::services::Services;
use tidegate_gateway::FilterSlot;
use tidegate_wasm::Engine;

use self::aside::Aside;
pub(crate) use self::aside::Call;
use self::entry::Entry;
pub(crate) use self::entry::{LiveStatus, News, State, Status};
use self::file::Known;
use super::build;
use super::settle::Look;
use super::together;
use super::watch::absolute;
use crate::config::checked::{Checked, Filter};

/// How long a look waits for the files that it has to have compiled. What takes longer goes live when it is done, and
/// everything else without it. What was changed at once and takes less goes live at once.
const MOMENT: Duration = Duration::from_secs(1);

/// What filters are made with.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Compiles and loads.
    pub(crate) engine: Engine,
    /// What filters share.
    pub(crate) services: Services,
}

/// How thoroughly to go about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The process starts: only filters that routes use, and these stand in their chains even if they can't be loaded.
    Start,
    /// Something changed: also look at the files that no route uses.
    Change,
    /// Someone asked for it: try again what failed before.
    Again,
}

/// All filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    files: HashMap<PathBuf, Known>,
    entries: BTreeMap<Arc<str>, Entry>,
    aside: Aside,
    /// Files that a configuration waits for which is not in force yet.
    expected: Vec<PathBuf>,
}

impl Filters {
    /// Has somebody called for each file that took longer to compile than a look waits.
    pub(crate) fn when_compiled(&mut self, call: Call) {
        self.aside.when_done(call);
    }

    /// Whether a configuration must wait for files that are being compiled: a route names a filter of such a file that
    /// is new, or configured otherwise than in force. `update` does what it can without them.
    pub(crate) fn lacks_for(
        &mut self,
        checked: &Checked,
        in_force: &Checked,
        look: &Look,
        tools: &Tools,
    ) -> bool {
        let named = named(checked);
        let same = |filter: &Filter| {
            let mut before = in_force.filters.iter();
            let before = before.find(|before| before.name == filter.name);
            before.is_some_and(|before| build::says_the_same(before, filter))
        };
        let changed: Vec<&Filter> = checked
            .filters
            .iter()
            .enumerate()
            .filter(|(index, filter)| named.contains(index) && !same(filter))
            .map(|(_, filter)| filter)
            .collect();
        self.read(&changed, look, Reach::Change, tools);
        let files = files_of(&changed);
        let lacks = files.iter().any(|file| self.aside.has(file));
        self.expected = if lacks { files } else { Vec::new() };
        lacks
    }

    /// Brings everything up to date with the configuration and the files. Files that are held stay as they were.
    pub(crate) fn update(
        &mut self,
        checked: &Checked,
        look: &Look,
        reach: Reach,
        tools: &Tools,
    ) -> Vec<News> {
        let wanted: Vec<&Filter> = checked
            .filters
            .iter()
            .filter(|filter| filter.used || reach != Reach::Start)
            .collect();
        let mut paths: HashSet<PathBuf> = files_of(&wanted).into_iter().collect();
        paths.extend(self.expected.iter().cloned());
        self.files.retain(|path, _| paths.contains(path));
        self.aside.retain(|path| paths.contains(path));
        self.read(&wanted, look, reach, tools);
        let mut news = self.remove(checked);
        // First everything is tried, then everything is put in place: no filter waits for another one.
        let now = Timestamp::now();
        let mut attempts = Vec::new();
        for filter in &wanted {
            let entry = self.entries.entry(Arc::clone(&filter.name)).or_default();
            let known = self.files.get(&absolute(&filter.file));
            match entry.plan(filter, known, reach) {
                entry::Plan::Keep => {}
                entry::Plan::Tell(trouble) => news.extend(entry.fail(filter, trouble, now)),
                entry::Plan::Recovered(digest) => {
                    news.extend(entry.recover(filter, digest, now));
                }
                entry::Plan::Try(attempt) => attempts.push((*filter, attempt)),
            }
        }
        let outcomes = together::each(&attempts, |(filter, attempt)| attempt.load(filter, tools));
        for ((filter, attempt), outcome) in attempts.into_iter().zip(outcomes) {
            if let Some(entry) = self.entries.get_mut(&filter.name) {
                news.extend(entry.settle(filter, attempt, outcome, now));
            }
        }
        self.chain(checked, reach);
        news
    }

    /// Reads and compiles the files that may have changed, as far as that takes a moment only; at the start, however long
    /// it takes.
    fn read(&mut self, wanted: &[&Filter], look: &Look, reach: Reach, tools: &Tools) {
        for path in files_of(wanted) {
            if look.held.contains(&path) {
                continue;
            }
            let before = self.files.get(&path);
            let sure = look.dirty.contains(&path) || reach == Reach::Again;
            if sure || !before.is_some_and(|before| before.looks_same(&path)) {
                self.aside
                    .begin(&path, before.cloned(), sure, &tools.engine);
            }
        }
        let until = (reach != Reach::Start).then(|| Instant::now() + MOMENT);
        for path in files_of(wanted) {
            // A file that went away meanwhile is on its way out or back; the next look will tell.
            if let Some(Some(known)) = self.aside.wait(&path, until) {
                self.files.insert(path, known);
            }
        }
    }

    /// Forgets filters that are configured nowhere any more.
    fn remove(&mut self, checked: &Checked) -> Vec<News> {
        let mut news = Vec::new();
        self.entries.retain(|name, entry| {
            let stays = checked.filters.iter().any(|filter| filter.name == *name);
            if !stays {
                news.extend(entry.removed(name));
            }
            stays
        });
        news
    }

    /// Decides which filters stand in the chains of their routes. A filter that never ran stands there if a route names
    /// it, or if it was there from the start; a file that was only just put into the folder must first prove itself.
    fn chain(&mut self, checked: &Checked, reach: Reach) {
        let named = named(checked);
        for (index, filter) in checked.filters.iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&filter.name) else {
                continue;
            };
            let must = named.contains(&index) || reach == Reach::Start || entry.chained;
            entry.chained = filter.used && (entry.runs() || must);
            if !filter.used {
                entry.retire();
            }
        }
    }

    /// The filters that stand in chains, for a snapshot.
    pub(crate) fn slots(&self, checked: &Checked) -> Vec<(usize, FilterSlot)> {
        let filters = checked.filters.iter().enumerate();
        filters
            .filter_map(|(index, filter)| {
                let entry = self.entries.get(&filter.name)?;
                let slot = FilterSlot {
                    name: Arc::clone(&filter.name),
                    module: entry.module(),
                    failure: build::failure(filter),
                    quarantine: entry.quarantine(),
                };
                entry.chained.then_some((index, slot))
            })
            .collect()
    }

    /// What there is to say of each filter, in the order of the configuration.
    pub(crate) fn statuses(&self, checked: &Checked) -> Vec<Status> {
        let filters = checked.filters.iter();
        filters
            .filter_map(|filter| {
                let entry = self.entries.get(&filter.name)?;
                let known = self.files.get(&absolute(&filter.file));
                Some(entry.status(filter, known))
            })
            .collect()
    }
}

/// The files of filters, each once.
fn files_of(filters: &[&Filter]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = filters
        .iter()
        .filter(|filter| filter.fault.is_none())
        .map(|filter| absolute(&filter.file))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The filters that routes name, by their position.
fn named(checked: &Checked) -> HashSet<usize> {
    let routes = checked.routes.iter().filter(|route| route.origin.is_some());
    routes.flat_map(|route| &route.filters).copied().collect()
}
