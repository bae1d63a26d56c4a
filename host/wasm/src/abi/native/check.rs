//! Whether a file's imports and exports are the contract's, with their types, before anything of it is compiled or
//! run. Says in words what is wrong and what there is instead.

use tidegate_core::phase::{Phase, Phases};

use super::{core_exports, core_imports};
use crate::contract::{self, Interface, OURS, OURS_TEXT, PACKAGE, Version};
use crate::detect::{Item, ItemType, Shape};
use crate::engine::Kind;
use crate::error::LoadError;

/// What a checked file needs and takes.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// The newest contract version that it names.
    pub(crate) contract: Version,
    /// The phases that it exports.
    pub(crate) phases: Phases,
    /// Whether it makes HTTP calls, so that its calls may wait.
    pub(crate) waits: bool,
    /// What it reaches outside of its exchange.
    pub(crate) capabilities: Vec<Capability>,
    /// Those of them without which it is of use too, as its manifest says.
    pub(crate) optional: Vec<Capability>,
}

/// Something outside of the exchange that a file imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    Http,
    Store,
    Environment,
}

impl Checked {
    /// Whether it may be run by calls that never wait: it makes no HTTP calls, or can do without them.
    pub(super) fn runs_at_once(&self) -> bool {
        !self.waits || self.optional.contains(&Capability::Http)
    }
}

impl Capability {
    /// The key under `allow`.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Capability::Http => "http",
            Capability::Store => "store",
            Capability::Environment => "env",
        }
    }

    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Capability::Http => "http-client",
            Capability::Store => "store",
            Capability::Environment => "environment",
        }
    }
}

/// Checks a file that exports at least one of the contract's callbacks.
pub(crate) fn check(shape: &Shape) -> Result<Checked, LoadError> {
    let mut newest = None::<Version>;
    let mut named = |version: Version| newest = newest.max(Some(version));
    let mut checked = Checked {
        contract: OURS,
        phases: Phases::NONE,
        waits: false,
        capabilities: Vec::new(),
        optional: optional(shape),
    };
    for import in &shape.imports {
        let interface = check_import(import)?;
        named(interface.version);
        checked.waits |= interface.name == Capability::Http.interface();
        for capability in [Capability::Http, Capability::Store, Capability::Environment] {
            if interface.name == capability.interface()
                && !checked.capabilities.contains(&capability)
            {
                checked.capabilities.push(capability);
            }
        }
    }
    let mut configures = false;
    for export in &shape.exports {
        let Some(callback) = check_export(export)? else {
            continue;
        };
        named(callback.version);
        if !callback.post {
            checked.phases = checked.phases.with(callback.phase);
            configures |= callback.phase == Phase::Configure;
        }
    }
    if checked.phases.is_empty() {
        return Err(LoadError::NotAFilter(
            "it exports no phase of tidegate:filter/callbacks, so it would never be called"
                .to_owned(),
        ));
    }
    if shape.kind == Kind::NativeCore {
        check_memory(shape, configures)?;
    }
    checked.contract = newest.unwrap_or(OURS);
    Ok(checked)
}

/// What a manifest says that its filter can do without.
fn optional(shape: &Shape) -> Vec<Capability> {
    let said = shape.manifest.iter().flat_map(|it| &it.capabilities);
    let said = said.filter(|capability| capability.optional);
    said.filter_map(|said| {
        let known = [Capability::Http, Capability::Store, Capability::Environment];
        known.into_iter().find(|known| known.key() == said.kind)
    })
    .collect()
}

fn check_import(import: &Item) -> Result<Interface<'_>, LoadError> {
    let shown = if import.name.is_empty() {
        import.module.clone()
    } else {
        format!("{} {}", import.module, import.name)
    };
    let unknown = |known: String| LoadError::UnknownImport {
        import: shown.clone(),
        known,
    };
    let Some(interface) = contract::interface(&import.module) else {
        return Err(unknown(stranger(import)));
    };
    speaks(&shown, interface.version)?;
    let interfaces = || {
        let mut names: Vec<&str> = core_imports::table().map(|known| known.interface).collect();
        names.dedup();
        format!("{PACKAGE}@{OURS_TEXT} has {}", names.join(", "))
    };
    let is_interface = core_imports::table().any(|known| known.interface == interface.name);
    match &import.ty {
        // An interface of types alone, or one of which nothing is used.
        ItemType::Other(_)
            if import.name.is_empty() && (is_interface || interface.name == "types") => {}
        _ if !is_interface => return Err(unknown(interfaces())),
        found => {
            let Some(known) = core_imports::find(interface.name, &import.name) else {
                let names: Vec<&str> = core_imports::table()
                    .filter(|known| known.interface == interface.name)
                    .map(|known| known.name)
                    .collect();
                return Err(unknown(format!(
                    "{} has {}",
                    interface.name,
                    names.join(", ")
                )));
            };
            let since = contract::since(interface.name, &import.name);
            if interface.version < since {
                return Err(LoadError::AddedLater {
                    import: shown,
                    since: since.to_string(),
                    named: interface.version.to_string(),
                });
            }
            match found {
                // The component runtime checks the type when it links.
                ItemType::Lifted => {}
                found => same_type(&format!("import `{shown}`"), &known.signature(), found)?,
            }
        }
    }
    Ok(interface)
}

/// What to say of an import that is not of the contract at all.
fn stranger(import: &Item) -> String {
    let module = import.module.as_str();
    if module.starts_with("wasi") {
        "a filter has no WASI; build for wasm32-unknown-unknown, and use the interfaces clock, random, log and \
         environment of tidegate:filter"
            .to_owned()
    } else if module == "env" && import.ty == ItemType::Memory {
        "a filter brings its own memory and exports it as `memory`".to_owned()
    } else if module == "env" {
        "imports of `env` are functions that the linker did not find; define them, or remove their use".to_owned()
    } else if module.starts_with(PACKAGE) {
        format!("interfaces are imported with their version, as in {PACKAGE}/exchange@{OURS_TEXT}")
    } else {
        format!("a filter imports from {PACKAGE}@{OURS_TEXT} only")
    }
}

fn speaks(item: &str, version: Version) -> Result<(), LoadError> {
    if version.runs_on(OURS) {
        Ok(())
    } else if version > OURS {
        Err(LoadError::NewerContract {
            item: item.to_owned(),
            wanted: version.to_string(),
            ours: OURS_TEXT,
        })
    } else {
        Err(LoadError::UnknownImport {
            import: item.to_owned(),
            known: format!("contract {version} is no longer spoken, only {OURS_TEXT}"),
        })
    }
}

fn check_export(export: &Item) -> Result<Option<contract::Callback>, LoadError> {
    let shown = if export.module.is_empty() {
        export.name.clone()
    } else {
        format!("{}#{}", export.module, export.name)
    };
    match crate::detect::callback_of(export) {
        None => Ok(None),
        Some(Err(version)) => {
            speaks(&shown, version)?;
            let names: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
            Err(LoadError::UnknownExport {
                export: shown,
                known: names.join(", "),
            })
        }
        Some(Ok(callback)) => {
            speaks(&shown, callback.version)?;
            let expected = match (callback.post, callback.phase) {
                (false, phase) => core_exports::signature(phase),
                (true, Phase::Configure) => core_exports::POST,
                // The others return nothing that could be freed.
                (true, _) => return Ok(Some(callback)),
            };
            if export.ty != ItemType::Lifted {
                same_type(&format!("export `{shown}`"), expected, &export.ty)?;
            }
            Ok(Some(callback))
        }
    }
}

fn check_memory(shape: &Shape, configures: bool) -> Result<(), LoadError> {
    let export = |name: &str| shape.exports.iter().find(|export| export.name == name);
    let hands_over = shape.imports.iter().find(|import| {
        contract::interface(&import.module)
            .and_then(|interface| core_imports::find(interface.name, &import.name))
            .is_some_and(|known| known.gives)
    });
    let receiver = if configures {
        Some("configure (it is handed the configuration)".to_owned())
    } else {
        hands_over.map(|import| {
            format!(
                "the import `{} {}` (its result is handed over)",
                import.module, import.name
            )
        })
    };
    match (export("memory"), shape.imports.first()) {
        (Some(memory), _) if memory.ty == ItemType::Memory => {}
        (Some(memory), _) => same_type("export `memory`", "a memory", &memory.ty)?,
        (None, Some(import)) => {
            return Err(LoadError::MissingExport {
                export: "its memory as `memory`".to_owned(),
                needed_by: format!("the import `{} {}`", import.module, import.name),
            });
        }
        (None, None) => {
            if let Some(needed_by) = receiver {
                return Err(LoadError::MissingExport {
                    export: "its memory as `memory`".to_owned(),
                    needed_by,
                });
            }
        }
    }
    match (export("cabi_realloc"), receiver) {
        (Some(realloc), _) => {
            same_type("export `cabi_realloc`", core_exports::REALLOC, &realloc.ty)?;
        }
        (None, Some(needed_by)) => {
            return Err(LoadError::MissingExport {
                export: format!("`cabi_realloc` of type {}", core_exports::REALLOC),
                needed_by,
            });
        }
        (None, None) => {}
    }
    if let Some(initialize) = export("_initialize") {
        let expected = core_exports::INITIALIZE;
        same_type("export `_initialize`", expected, &initialize.ty)?;
    }
    Ok(())
}

fn same_type(item: &str, expected: &str, found: &ItemType) -> Result<(), LoadError> {
    let found = match found {
        ItemType::Function(signature) if signature == expected => return Ok(()),
        ItemType::Function(signature) => signature.clone(),
        ItemType::Lifted => "a component's function".to_owned(),
        ItemType::Memory => "a memory".to_owned(),
        ItemType::Other(what) => (*what).to_owned(),
    };
    Err(LoadError::WrongType {
        item: item.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}
