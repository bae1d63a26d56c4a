//! One look at everything: configuration, folder, files; and what came of it as one new snapshot. Runs off the workers
//! and off the control thread, and tells nobody; see `tell`.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tidegate_gateway::Snapshot;
use tidegate_upstream::Names;

use super::build::{self, BuildError};
use super::filters::{Call, Filters, News, Reach, Status, Tools};
use super::settle::Look;
use super::watch::{Survey, Wanted};
use crate::config::checked::{Checked, Identity};
use crate::config::environment::Environment;
use crate::config::{self, Options};
use crate::diagnostic::{Mistake, Scope};

/// Everything that is known from one look to the next.
#[derive(Debug)]
pub(crate) struct Reader {
    options: Options,
    tools: Tools,
    filters: Filters,
    /// What is known of the names in endpoints outlives any configuration.
    names: Names,
    /// What is in force.
    checked: Arc<Checked>,
    fingerprint: [u8; 32],
    /// The configuration file, if there was one at the start.
    file: Option<PathBuf>,
    /// What was told of the configuration, so that it is told once.
    told: Vec<String>,
    /// Mistakes in files that are no filter's, told so far.
    strays: Vec<String>,
}

/// What came of a look.
#[derive(Debug)]
pub(crate) struct Report {
    /// A new snapshot, if anything that it is made of changed.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// The configuration in force.
    pub(crate) checked: Arc<Checked>,
    /// What came of the configuration.
    pub(crate) configuration: Configuration,
    /// Files of the folder that can't be taken and belong to no filter, which were not told before.
    pub(crate) strays: Vec<String>,
    /// What happened to filters.
    pub(crate) news: Vec<News>,
    /// What there is to say of each filter.
    pub(crate) statuses: Vec<Status>,
    /// What to watch from now on, and what was seen of it before it was read.
    pub(crate) wanted: Wanted,
    pub(crate) seen: Survey,
}

/// What came of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Configuration {
    /// It says what it said before.
    Same,
    /// It is in force.
    Changed {
        /// What had better be known.
        warnings: Vec<String>,
    },
    /// It can't be; what was in force still is.
    Refused {
        /// Why.
        mistakes: Vec<String>,
        /// Whether this was told before.
        again: bool,
    },
}

/// A configuration that may come into force.
struct Candidate {
    checked: Arc<Checked>,
    fingerprint: [u8; 32],
}

impl Reader {
    /// Begins with a configuration that was read already; `file` is its file, if there is one.
    pub(crate) fn new(
        options: Options,
        tools: Tools,
        checked: Checked,
        file: Option<PathBuf>,
        mistakes: &[Mistake],
    ) -> Self {
        Reader {
            options,
            tools,
            filters: Filters::default(),
            names: Names::default(),
            fingerprint: build::fingerprint(&checked),
            strays: strays(&checked, mistakes),
            checked: Arc::new(checked),
            file,
            told: Vec::new(),
        }
    }

    /// The names that somebody has to keep.
    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Has somebody called for each file that took longer to compile than a look waits; it is to be looked at then.
    pub(crate) fn when_compiled(&mut self, call: Call) {
        self.filters.when_compiled(call);
    }

    /// The first snapshot, with every filter that a route uses.
    ///
    /// # Errors
    /// See [`build::snapshot`].
    pub(crate) fn start(&mut self) -> Result<Report, BuildError> {
        let wanted = Wanted::new(&self.checked.server.plugins, &self.checked.files);
        let seen = wanted.survey();
        let checked = Arc::clone(&self.checked);
        let news = self
            .filters
            .update(&checked, &Look::default(), Reach::Start, &self.tools);
        let snapshot = build::snapshot(&checked, self.filters.slots(&checked), &self.names)?;
        Ok(Report {
            snapshot: Some(Arc::new(snapshot)),
            statuses: self.filters.statuses(&checked),
            checked,
            configuration: Configuration::Same,
            strays: Vec::new(),
            news,
            wanted,
            seen,
        })
    }

    /// Looks at everything anew. What can't be used is left as it was, and holds nothing else up.
    pub(crate) fn look(&mut self, look: &Look, reach: Reach) -> Report {
        // First what is there, then what is in it: what changes in between is seen the next time.
        let watched = Wanted::new(&self.checked.server.plugins, &self.checked.files);
        let mut seen = watched.survey();
        let before = self.strays.clone();
        let (mut candidate, mut configuration) = self.configuration(reach);
        if let Some(wanted) = &candidate
            && self
                .filters
                .lacks_for(&wanted.checked, &self.checked, look, &self.tools)
        {
            // It will be read again when they are compiled. What it has nothing to do with goes on.
            (candidate, configuration) = (None, Configuration::Same);
        }
        let mut snapshot = None;
        let news;
        if let Some(Candidate {
            checked: candidate,
            fingerprint,
        }) = candidate
        {
            news = self.filters.update(&candidate, look, reach, &self.tools);
            match build::snapshot(&candidate, self.filters.slots(&candidate), &self.names) {
                Ok(built) => {
                    snapshot = Some(Arc::new(built));
                    self.checked = candidate;
                    self.fingerprint = fingerprint;
                }
                Err(error) => configuration = self.refused(vec![error.to_string()], reach),
            }
        } else {
            // Also when the configuration has mistakes: filters that run can still be replaced.
            let checked = Arc::clone(&self.checked);
            news = self.filters.update(&checked, look, reach, &self.tools);
        }
        let checked = Arc::clone(&self.checked);
        let swapped = news
            .iter()
            .any(|news| matches!(news, News::Loaded { .. } | News::Removed { .. }));
        if snapshot.is_none() && swapped {
            match build::snapshot(&checked, self.filters.slots(&checked), &self.names) {
                Ok(built) => snapshot = Some(Arc::new(built)),
                Err(error) => configuration = self.refused(vec![error.to_string()], reach),
            }
        }
        let wanted = Wanted::new(&checked.server.plugins, &checked.files);
        if wanted != watched {
            seen = wanted.survey();
        }
        Report {
            snapshot,
            statuses: self.filters.statuses(&checked),
            checked,
            configuration,
            strays: self
                .strays
                .iter()
                .filter(|stray| !before.contains(stray))
                .cloned()
                .collect(),
            news,
            wanted,
            seen,
        }
    }

    /// Reads the configuration. Gives it, with its fingerprint, if it may come into force and says something new.
    fn configuration(&mut self, reach: Reach) -> (Option<Candidate>, Configuration) {
        if let Some(file) = &self.file
            && !file.exists()
        {
            let mistake = format!(
                "{}: the configuration file is gone; what it said stays in force",
                file.display()
            );
            return (None, self.refused(vec![mistake], reach));
        }
        let outcome = config::load(&self.options, &Environment::Process);
        let in_lines =
            |mistakes: &[Mistake]| -> Vec<String> { mistakes.iter().map(line).collect() };
        let Some(checked) = outcome.checked else {
            let mistakes: Vec<Mistake> = outcome
                .mistakes
                .into_iter()
                .filter(|mistake| mistake.scope == Scope::Whole)
                .collect();
            return (None, self.refused(in_lines(&mistakes), reach));
        };
        if let Some(mistake) = worse(&self.checked, &checked, Timestamp::now()) {
            return (None, self.refused(vec![mistake], reach));
        }
        self.told.clear();
        self.strays = strays(&checked, &outcome.mistakes);
        if self.file.is_none() && outcome.file.exists() {
            self.file = Some(outcome.file);
        }
        let fingerprint = build::fingerprint(&checked);
        if fingerprint == self.fingerprint && reach != Reach::Again {
            return (None, Configuration::Same);
        }
        let warnings = in_lines(&outcome.warnings);
        (
            Some(Candidate {
                checked: Arc::new(checked),
                fingerprint,
            }),
            Configuration::Changed { warnings },
        )
    }

    fn refused(&mut self, mistakes: Vec<String>, reach: Reach) -> Configuration {
        let again = self.told == mistakes && reach != Reach::Again;
        self.told.clone_from(&mistakes);
        Configuration::Refused { mistakes, again }
    }
}

/// Says so if a certificate in force, which still holds, would be replaced by one that does not any more. One that ends
/// to hold while it is in force is no reason to refuse anything.
fn worse(in_force: &Checked, candidate: &Checked, now: Timestamp) -> Option<String> {
    fn all(checked: &Checked) -> impl Iterator<Item = &Identity> {
        checked.server.tls.iter().flat_map(|it| &it.identities)
    }
    let expired = |identity: &Identity| identity.expires.is_some_and(|at| at < now.as_second());
    let mut gone = all(candidate).filter(|identity| expired(identity));
    let worse = gone.find(|new| {
        let mut before = all(in_force).filter(|old| old.certificate == new.certificate);
        before.any(|old| !expired(old))
    })?;
    Some(format!(
        "{} holds a certificate that has expired; the one before it still holds and stays in service",
        worse.certificate.display()
    ))
}

/// What is wrong with files that no filter runs; that of others is told with the filter.
fn strays(checked: &Checked, mistakes: &[Mistake]) -> Vec<String> {
    let is_told = |mistake: &&Mistake| match &mistake.scope {
        Scope::Whole => true,
        Scope::Filter(name) => checked.filters.iter().any(|filter| *filter.name == **name),
        Scope::Plugin(plugin) => checked
            .filters
            .iter()
            .any(|filter| filter.plugin == *plugin),
    };
    let strays = mistakes.iter().filter(|mistake| !is_told(mistake));
    strays.map(line).collect()
}

/// A mistake for the log, with what to do about it.
pub(crate) fn line(mistake: &Mistake) -> String {
    let what = mistake.in_a_line();
    match &mistake.help {
        Some(help) => format!("{what}; {help}"),
        None => what,
    }
}

#[cfg(test)]
mod tests;
