//! One filter: the version that runs, what is wrong with the one that does not, and what to do when either changes.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_core::filter::FilterModule;
use tidegate_core::usage::Isolation;
use tidegate_gateway::{Quarantine, QuarantineSettings};
use tidegate_wasm::{Compiled, Limits};

use super::file::Known;
use super::{Reach, Tools};
use crate::config;
use crate::config::checked::{Allow, Filter, SelfCheck};
use crate::load;
use crate::run::pass::line;
use crate::self_check;

/// One filter's state.
#[derive(Debug, Default)]
pub(super) struct Entry {
    live: Option<Live>,
    trouble: Option<Trouble>,
    /// For a filter that no route uses: since when its file is good.
    good: Option<(Arc<str>, Timestamp)>,
    /// Whether it stands in its routes' chains.
    pub(super) chained: bool,
}

/// The version that runs.
#[derive(Debug)]
struct Live {
    module: Arc<dyn FilterModule>,
    compiled: Arc<Compiled>,
    recipe: Recipe,
    /// The failures of this version.
    quarantine: Option<Arc<Quarantine>>,
    since: Timestamp,
}

/// What a version is made of. The same recipe gives the same filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recipe {
    digest: Arc<str>,
    config: String,
    allow: Allow,
    isolation: Option<Isolation>,
    limits: Limits,
    quarantine: Option<QuarantineSettings>,
    self_check: Option<SelfCheck>,
}

/// Why the newest version does not run.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    reason: String,
    /// The content that is to blame, if it could be read.
    digest: Option<Arc<str>>,
    /// What failed, so that it is not tried over and over; none: nothing was tried.
    recipe: Option<Recipe>,
    since: Timestamp,
}

/// What to do about a filter.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing.
    Keep,
    /// It can't be tried; say why.
    Tell(Trouble),
    /// What was wrong is right again, and the version that runs is this one; or no route uses it, and it is good.
    Recovered(Arc<str>),
    /// Load this.
    Try(Attempt),
}

/// A version to load.
#[derive(Debug)]
pub(super) struct Attempt {
    compiled: Arc<Compiled>,
    recipe: Recipe,
}

/// Something that happened to a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A version went into service.
    Loaded {
        filter: Arc<str>,
        file: PathBuf,
        digest: Arc<str>,
        version: Option<String>,
        /// Whether another version ran before.
        replaced: bool,
    },
    /// A version can't be used.
    Failed {
        filter: Arc<str>,
        file: PathBuf,
        reason: String,
        /// Whether an earlier version goes on running.
        running: bool,
        /// Whether a route uses it.
        used: bool,
    },
    /// What was wrong was taken back.
    Recovered { filter: Arc<str>, file: PathBuf },
    /// It is configured nowhere any more.
    Removed { filter: Arc<str> },
}

/// Whether a filter's newest version is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It is, or could be if a route used it.
    Ok,
    /// It is not.
    Failed,
    /// Its file is still being written.
    Waiting,
}

/// What the admin pages say of a filter.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) plugin: String,
    pub(crate) file: PathBuf,
    pub(crate) state: State,
    /// Why the newest version is not in service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Since when the state is what it is, or the version the one that it is.
    pub(crate) since: Option<String>,
    /// Whether a route uses it.
    pub(crate) used: bool,
    /// Whether a version is in service.
    pub(crate) running: bool,
    /// Since when the version in service is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running_since: Option<String>,
    /// SHA-256 of the version in service.
    pub(crate) digest: Option<String>,
    /// SHA-256 of a version that can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rejected_digest: Option<String>,
    /// How it is carried.
    pub(crate) kind: Option<String>,
    /// The version of the contract that it was made for.
    pub(crate) contract: Option<String>,
    /// The version that it says it is.
    pub(crate) version: Option<String>,
    /// What it is called for; none: it was not loaded.
    pub(crate) phases: Option<Vec<&'static str>>,
    /// Bytes of memory that an instance begins with.
    pub(crate) memory: Option<u64>,
    /// SHA-256 of the file as it is, whether that version is in service or not.
    pub(crate) configured_digest: Option<String>,
    /// Asked for more whenever it is shown.
    #[serde(skip)]
    pub(crate) live: LiveStatus,
}

/// Where the rest of what there is to say of a filter comes from: what changes with every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveStatus {
    pub(crate) module: Option<Arc<dyn FilterModule>>,
    pub(crate) quarantine: Option<Arc<Quarantine>>,
}

impl Entry {
    /// Whether a version is in service.
    pub(super) fn runs(&self) -> bool {
        self.live.is_some()
    }

    /// Takes the version out of service, because no route uses it any more.
    pub(super) fn retire(&mut self) {
        self.live = None;
    }

    pub(super) fn module(&self) -> Option<Arc<dyn FilterModule>> {
        self.live.as_ref().map(|live| Arc::clone(&live.module))
    }

    pub(super) fn quarantine(&self) -> Option<Arc<Quarantine>> {
        self.live.as_ref()?.quarantine.clone()
    }

    /// What to do, given what is configured and what is known of the file.
    pub(super) fn plan(&self, filter: &Filter, known: Option<&Known>, reach: Reach) -> Plan {
        let trouble = |reason: String, digest: Option<Arc<str>>| Trouble {
            reason,
            digest,
            recipe: None,
            since: Timestamp::now(),
        };
        if let Some(fault) = &filter.fault {
            return self.told_or(trouble(fault.clone(), None), reach);
        }
        // It is being written, or went away this moment.
        let Some(known) = known else {
            return Plan::Keep;
        };
        let compiled = match &known.compiled {
            Ok(compiled) => compiled,
            Err(reason) => {
                let reason = in_file(filter, reason);
                return self.told_or(trouble(reason, known.digest.clone()), reach);
            }
        };
        let recipe = Recipe {
            digest: compiled.digest().into(),
            config: filter.config.clone(),
            allow: filter.allow.clone(),
            isolation: filter.isolation,
            limits: filter.limits,
            quarantine: filter.quarantine,
            self_check: filter.self_check.clone(),
        };
        let runs = self.live.as_ref().is_some_and(|live| live.recipe == recipe);
        if runs || !filter.used {
            let changed = !filter.used
                && self.good.as_ref().map(|(digest, _)| digest) != Some(&recipe.digest);
            return if self.trouble.is_some() || changed {
                Plan::Recovered(recipe.digest)
            } else {
                Plan::Keep
            };
        }
        let failed = self.trouble.as_ref().and_then(|it| it.recipe.as_ref());
        if failed == Some(&recipe) && reach != Reach::Again {
            return Plan::Keep;
        }
        Plan::Try(Attempt {
            compiled: Arc::clone(compiled),
            recipe,
        })
    }

    /// Each reason is told once.
    fn told_or(&self, trouble: Trouble, reach: Reach) -> Plan {
        let told = self
            .trouble
            .as_ref()
            .is_some_and(|it| it.reason == trouble.reason && it.digest == trouble.digest);
        if told && reach != Reach::Again {
            Plan::Keep
        } else {
            Plan::Tell(trouble)
        }
    }

    /// Notes what is wrong.
    pub(super) fn fail(
        &mut self,
        filter: &Filter,
        trouble: Trouble,
        now: Timestamp,
    ) -> Option<News> {
        let news = News::Failed {
            filter: Arc::clone(&filter.name),
            file: filter.file.clone(),
            reason: trouble.reason.clone(),
            running: self.live.is_some(),
            used: filter.used,
        };
        self.good = None;
        self.trouble = Some(Trouble {
            since: now,
            ..trouble
        });
        Some(news)
    }

    /// Notes that nothing is wrong any more, or that a file that nobody uses is good.
    pub(super) fn recover(
        &mut self,
        filter: &Filter,
        digest: Arc<str>,
        now: Timestamp,
    ) -> Option<News> {
        let before = self.trouble.take();
        if !filter.used {
            self.good = Some((digest, now));
        }
        before.map(|_| News::Recovered {
            filter: Arc::clone(&filter.name),
            file: filter.file.clone(),
        })
    }

    /// Puts a version in place, or notes why it can't be.
    pub(super) fn settle(
        &mut self,
        filter: &Filter,
        attempt: Attempt,
        outcome: Result<Arc<dyn FilterModule>, String>,
        now: Timestamp,
    ) -> Option<News> {
        let Attempt { compiled, recipe } = attempt;
        let module = match outcome {
            Ok(module) => module,
            Err(reason) => {
                let trouble = Trouble {
                    reason,
                    digest: Some(Arc::clone(&recipe.digest)),
                    recipe: Some(recipe),
                    since: now,
                };
                return self.fail(filter, trouble, now);
            }
        };
        let news = News::Loaded {
            filter: Arc::clone(&filter.name),
            file: filter.file.clone(),
            digest: Arc::clone(&recipe.digest),
            version: compiled.manifest().map(|manifest| manifest.version.clone()),
            replaced: self.live.is_some(),
        };
        self.trouble = None;
        self.good = None;
        let quarantine = recipe.quarantine.map(Quarantine::new).map(Arc::new);
        self.live = Some(Live {
            module,
            compiled,
            quarantine,
            recipe,
            since: now,
        });
        Some(news)
    }

    pub(super) fn removed(&self, name: &Arc<str>) -> Option<News> {
        Some(News::Removed {
            filter: Arc::clone(name),
        })
    }

    /// What there is to say of it.
    pub(super) fn status(&self, filter: &Filter, known: Option<&Known>) -> Status {
        let live = self.live.as_ref();
        let file = known.and_then(|known| known.compiled.as_ref().ok());
        let compiled = live.map(|live| &live.compiled).or(file);
        let since = match (&self.trouble, live, &self.good) {
            (Some(trouble), _, _) => Some(trouble.since),
            (None, Some(live), _) => Some(live.since),
            (None, None, good) => good.as_ref().map(|(_, since)| *since),
        };
        Status {
            name: filter.name.to_string(),
            plugin: filter.plugin.clone(),
            file: filter.file.clone(),
            state: match (&self.trouble, since) {
                (Some(_), _) => State::Failed,
                (None, Some(_)) => State::Ok,
                (None, None) => State::Waiting,
            },
            reason: self.trouble.as_ref().map(|it| it.reason.clone()),
            since: since.map(|since| since.to_string()),
            used: filter.used,
            running: live.is_some(),
            running_since: live.map(|live| live.since.to_string()),
            digest: compiled.map(|it| it.digest().to_owned()),
            rejected_digest: self
                .trouble
                .as_ref()
                .and_then(|it| it.digest.as_deref())
                .map(str::to_owned),
            kind: compiled.map(|it| it.kind().to_string()),
            contract: compiled.map(|it| it.contract().to_owned()),
            version: compiled
                .and_then(|it| it.manifest())
                .map(|manifest| manifest.version.clone()),
            phases: live.map(|live| {
                let phases = live.module.interests().phases;
                phases.iter().map(|phase| phase.name()).collect()
            }),
            memory: compiled.map(|it| it.memory()),
            configured_digest: known
                .and_then(|known| known.digest.as_deref())
                .map(str::to_owned),
            live: LiveStatus {
                module: self.module(),
                quarantine: self.quarantine(),
            },
        }
    }
}

impl Attempt {
    /// Links and configures it, as `check` would: the manifest's schema first, then the filter itself, which must answer
    /// its self-check.
    pub(super) fn load(
        &self,
        filter: &Filter,
        tools: &Tools,
    ) -> Result<Arc<dyn FilterModule>, String> {
        let schema = self
            .compiled
            .manifest()
            .and_then(|manifest| manifest.config_schema.as_ref());
        if let Some(schema) = schema
            && let Some(mistake) = config::config_mistakes(filter, schema).first()
        {
            return Err(in_file(filter, &line(mistake)));
        }
        let module = load::load(&tools.engine, &self.compiled, filter, &tools.services)
            .map_err(|error| in_file(filter, &error.to_string()))?;
        self_check::run(&tools.engine, &self.compiled, filter)
            .map_err(|why| in_file(filter, &why))?;
        Ok(module)
    }
}

fn in_file(filter: &Filter, reason: &str) -> String {
    format!("{}: {reason}", filter.file.display())
}
