//! The native contract, in its two carriers: core modules that speak its canonical lowering directly, and
//! components. What a host function means is written once (`host`); the carriers only translate.
//!
//! Reading order: `state` (what stands behind an instance), `host` (what functions do), `core_*` and `memory`
//! (the core carrier), `component*` (the other one), `instance`, `shared`, `leased` and `exclusive` (how instances are kept),
//! `module` (a loaded filter).

mod call;
mod check;
mod component;
mod component_imports;
mod core_exchange;
mod core_exports;
mod core_imports;
mod core_services;
mod core_values;
mod demand;
mod exclusive;
mod figures;
mod host;
mod instance;
mod leased;
mod memory;
mod module;
mod pristine;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use check::{Capability, Checked, check};
pub(crate) use module::load;

use std::sync::OnceLock;

use wasmtime::Linker;
use wasmtime::component::Component;

use crate::detect::Shape;
use crate::engine::Binary;
use crate::error::LoadError;
use instance::Code;
use state::{Held, State};

/// Compiled code with its imports resolved, in one way or both.
pub(crate) struct Linked {
    /// For calls that never wait. None if the file makes calls that do, and can't do without.
    at_once: Option<Code<State>>,
    /// For calls that may wait or give way, made when it is first wanted.
    waiting: OnceLock<Code<Held>>,
    binary: Binary,
}

/// Resolves the imports of compiled code that was checked.
pub(crate) fn link(shape: &Shape, checked: &Checked, binary: &Binary) -> Result<Linked, LoadError> {
    let mut linked = Linked {
        at_once: None,
        waiting: OnceLock::new(),
        binary: binary.clone(),
    };
    if checked.runs_at_once() {
        let code = match binary {
            Binary::Core(module) => link_shared(shape, module),
            Binary::Component(component) => {
                link_component::<State>(component, component::link_no_call)
            }
        };
        linked.at_once = Some(code.map_err(unlinked)?);
    } else {
        linked.waiting(shape)?;
    }
    Ok(linked)
}

impl Linked {
    fn at_once(&self) -> Option<&Code<State>> {
        self.at_once.as_ref()
    }

    /// The code for calls that may wait, linked if it was not yet.
    fn waiting(&self, shape: &Shape) -> Result<&Code<Held>, LoadError> {
        if let Some(code) = self.waiting.get() {
            return Ok(code);
        }
        let code = match &self.binary {
            Binary::Core(module) => link_exclusive(shape, module),
            Binary::Component(component) => link_component::<Held>(component, component::link_call),
        };
        let code = code.map_err(unlinked)?;
        Ok(self.waiting.get_or_init(|| code))
    }

    /// The same, if it was linked.
    fn linked_waiting(&self) -> Option<&Code<Held>> {
        self.waiting.get()
    }

    /// Bytes of stack that a call may use.
    fn stack(&self) -> u64 {
        let engine = match &self.binary {
            Binary::Core(module) => module.engine(),
            Binary::Component(component) => component.engine(),
        };
        engine.get_max_wasm_stack() as u64
    }
}

fn unlinked(error: wasmtime::Error) -> LoadError {
    LoadError::Link(format!("{error:#}"))
}

fn link_shared(shape: &Shape, module: &wasmtime::Module) -> wasmtime::Result<Code<State>> {
    let mut linker = Linker::new(module.engine());
    for (module, interface, name) in imports(shape) {
        core_imports::define_shared(&mut linker, module, interface, name)?;
    }
    let pre = linker.instantiate_pre(module)?;
    Ok(Code::Core(pre, core_exports::Names::of(module, shape)))
}

fn link_exclusive(shape: &Shape, module: &wasmtime::Module) -> wasmtime::Result<Code<Held>> {
    let mut linker = Linker::new(module.engine());
    for (module, interface, name) in imports(shape) {
        core_imports::define_exclusive(&mut linker, module, interface, name)?;
    }
    let pre = linker.instantiate_pre(module)?;
    Ok(Code::Core(pre, core_exports::Names::of(module, shape)))
}

/// A checked core module's imports, each once: as the module names the interface, the interface, and the function.
fn imports(shape: &Shape) -> Vec<(&str, &str, &str)> {
    let mut imports: Vec<_> = shape
        .imports
        .iter()
        .filter_map(|import| {
            let interface = crate::contract::interface(&import.module)?;
            Some((import.module.as_str(), interface.name, import.name.as_str()))
        })
        .collect();
    imports.sort_unstable();
    imports.dedup();
    imports
}

fn link_component<D: state::Data>(
    component: &Component,
    more: impl FnOnce(&mut wasmtime::component::Linker<D>) -> wasmtime::Result<()>,
) -> wasmtime::Result<Code<D>> {
    let mut linker = component::linker::<D>(component.engine())?;
    more(&mut linker)?;
    let pre = linker.instantiate_pre(component)?;
    let names = component::Names::of(component);
    Ok(Code::Component(component.clone(), pre, names))
}
