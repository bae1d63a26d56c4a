//! `tidegate check`: everything that `run` does before it opens a port, with every mistake told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tidegate_core::phase::Phase;
use tidegate_core::usage::Isolation;
use tidegate_wasm::{Compiled, Engine, LoadError};

use crate::config::checked::{Checked, Filter};
use crate::config::environment::Environment;
use crate::config::{self, Options, Outcome};
use crate::diagnostic::Mistake;
use crate::load::{self, Fault};
use crate::{plugins, self_check};

/// What was found out about a filter that loads.
struct Sound {
    kind: String,
    phases: String,
    isolation: Isolation,
}

/// Checks configuration and filters.
pub(crate) fn run(options: &Options) -> ExitCode {
    let Outcome {
        checked,
        mut mistakes,
        warnings,
        file,
    } = config::load(options, &Environment::Process);
    let mut sound = BTreeMap::new();
    if let Some(checked) = &checked {
        match load::engine(&checked.server) {
            Ok(engine) => mistakes.extend(load_all(&engine, checked, &mut sound)),
            Err(error) => mistakes.push(Mistake::of("tidegate", &error.to_string())),
        }
    } else {
        mistakes.extend(compile_folder(options, &file));
    }
    mistakes.sort_by_cached_key(|mistake| mistake.order(&file.display().to_string()));
    super::report(&mistakes, &warnings);
    match checked {
        Some(checked) if mistakes.is_empty() => {
            let name = if file.exists() {
                file.display().to_string()
            } else {
                "no configuration file".to_owned()
            };
            super::result(&summary(&name, &checked, &sound))
        }
        _ => {
            let count = mistakes.len();
            let plural = if count == 1 { "" } else { "s" };
            super::message(&format!("{count} mistake{plural}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Compiles every plugin when nothing is known of how they are configured: whoever mends the configuration learns of bad
/// files in the same run. The folder is the one named on the command line, else `plugins` beside the configuration.
fn compile_folder(options: &Options, file: &Path) -> Vec<Mistake> {
    let beside = file.parent().unwrap_or(Path::new(""));
    let folder = options
        .plugins
        .clone()
        .unwrap_or_else(|| beside.join("plugins"));
    let plugins = plugins::scan(&folder).plugins;
    if plugins.is_empty() {
        return Vec::new();
    }
    let engine = match load::engine_without_configuration() {
        Ok(engine) => engine,
        Err(error) => return vec![Mistake::of("tidegate", &error.to_string())],
    };
    let wrong = |plugin: &plugins::Plugin| {
        let fault = load::compile(&engine, &plugin.file).err()?;
        Some(Mistake::of(plugin.file.display(), &fault.to_string()))
    };
    plugins.iter().filter_map(wrong).collect()
}

/// Loads every filter once, those included that no route uses.
fn load_all(
    engine: &Engine,
    checked: &Checked,
    sound: &mut BTreeMap<String, Sound>,
) -> Vec<Mistake> {
    let services = self_check::services();
    let mut compiled: BTreeMap<PathBuf, Option<Arc<Compiled>>> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for filter in &checked.filters {
        // What is wrong with its settings, or that it is not there, was told before.
        if filter.fault.is_some() || !(filter.used || filter.file.exists()) {
            continue;
        }
        let compiled = compiled.entry(filter.file.clone()).or_insert_with(|| {
            let compiled = load::compile(engine, &filter.file);
            compiled
                .map_err(|fault| mistakes.push(wrong_file(filter, &fault)))
                .ok()
        });
        let Some(compiled) = compiled else {
            continue;
        };
        let schema = compiled.manifest().and_then(|it| it.config_schema.as_ref());
        let by_schema = schema
            .map(|schema| config::config_mistakes(filter, schema))
            .unwrap_or_default();
        if !by_schema.is_empty() {
            mistakes.extend(by_schema);
            continue;
        }
        match load::load(engine, compiled, filter, &services) {
            Ok(module) => {
                if let Err(why) = self_check::run(engine, compiled, filter) {
                    mistakes.push(Mistake::of(filter.file.display(), &why));
                    continue;
                }
                let phases: Vec<_> = module
                    .interests()
                    .phases
                    .iter()
                    .map(|it| it.name())
                    .collect();
                sound.insert(
                    filter.name.to_string(),
                    Sound {
                        kind: compiled.kind().to_string(),
                        phases: phases.join(", "),
                        isolation: module.isolation(),
                    },
                );
            }
            Err(error) => mistakes.push(refused(filter, &error)),
        }
    }
    mistakes
}

fn wrong_file(filter: &Filter, fault: &Fault) -> Mistake {
    Mistake::of(filter.file.display(), &fault.to_string())
}

/// File, phase and the guest's own words, and where its configuration is written.
fn refused(filter: &Filter, error: &LoadError) -> Mistake {
    let message = match error {
        LoadError::Refused { .. } => format!("in {}: {error}", Phase::Configure),
        error => error.to_string(),
    };
    let mistake = Mistake::of(filter.file.display(), &message);
    match &filter.config_origin {
        Some(origin) if error.phase().is_some() && origin.is_written() => {
            mistake.other(origin.key_place(), "its configuration is written here")
        }
        _ => mistake,
    }
}

/// What is configured, in a few lines.
fn summary(file: &str, checked: &Checked, sound: &BTreeMap<String, Sound>) -> String {
    let mut text = format!(
        "{file}: no mistakes; {}, {}, {}\n",
        count(checked.routes.len(), "route"),
        count(checked.upstreams.len(), "upstream"),
        count(sound.len(), "filter"),
    );
    for route in &checked.routes {
        let names: Vec<&str> = route
            .filters
            .iter()
            .filter_map(|index| checked.filters.get(*index))
            .map(|filter| &*filter.name)
            .collect();
        let upstream = route
            .upstream
            .and_then(|index| checked.upstreams.get(index));
        let upstream = upstream.map_or("no upstream", |upstream| &*upstream.name);
        let through = if names.is_empty() {
            String::new()
        } else {
            format!(" through {}", names.join(", "))
        };
        text.push_str(&format!("  route {} to {upstream}{through}\n", route.name));
    }
    for upstream in &checked.upstreams {
        let endpoints = upstream.endpoints.join(", ");
        text.push_str(&format!("  upstream {}: {endpoints}\n", upstream.name));
    }
    for filter in &checked.filters {
        let Some(sound) = sound.get(&*filter.name) else {
            continue;
        };
        let unused = if filter.used { "" } else { ", on no route" };
        let tried = if filter.self_check.is_some() {
            ", self-check passed"
        } else {
            ""
        };
        text.push_str(&format!(
            "  filter {}: {}, {}, {}, for {}{tried}{unused}\n",
            filter.name,
            filter.file.display(),
            sound.kind,
            sound.isolation.name(),
            if sound.phases.is_empty() {
                "no phase"
            } else {
                &sound.phases
            },
        ));
    }
    text.push_str(&room(checked, sound));
    text
}

/// What all filters that are used may take together, in a line; none without filters.
fn room(checked: &Checked, sound: &BTreeMap<String, Sound>) -> String {
    let workers = checked.server.workers as u64;
    let used = checked.filters.iter().filter(|filter| filter.used);
    let (mut instances, mut memory) = (0_u64, 0_u64);
    for filter in used {
        let Some(sound) = sound.get(&*filter.name) else {
            continue;
        };
        let most = match sound.isolation {
            Isolation::Shared => workers,
            Isolation::Exclusive | Isolation::Fresh => {
                workers.saturating_mul(u64::from(filter.limits.instances))
            }
        };
        instances = instances.saturating_add(most);
        memory = memory.saturating_add(most.saturating_mul(filter.limits.memory as u64));
    }
    if instances == 0 {
        return String::new();
    }
    let pool = u64::from(checked.server.filter_pool.instances);
    let workers = count(checked.server.workers, "worker");
    let instances_word = count(usize::try_from(instances).unwrap_or(usize::MAX), "instance");
    let short = if instances > pool {
        ": what is over is answered with 503"
    } else {
        ""
    };
    format!(
        "  filters may take {instances_word} on {workers} with {} of memory; the pool has room for {pool}{short}\n",
        mebibytes(memory)
    )
}

/// A sum of memory as people read it, rounded up.
fn mebibytes(bytes: u64) -> String {
    match bytes.div_ceil(1 << 20) {
        mebibytes @ 0..10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes.div_ceil(1024)),
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
