//! The native contract, in its two carriers: core modules that speak its canonical lowering directly, and
//! components. What a host function means is written once (`host`); the carriers only translate.
//!
//! Reading order: `state` (what stands behind an instance), `host` (what functions do), `core_*` and `memory`
//! (the core carrier), `component*` (the other one), `instance`, `shared` and `exclusive` (how instances are kept),
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
mod exclusive;
mod figures;
mod host;
mod instance;
mod memory;
mod module;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use check::{Capability, Checked, check};
pub(crate) use module::{Linked, load};

use wasmtime::Linker;
use wasmtime::component::Component;

use crate::detect::Shape;
use crate::engine::Binary;
use crate::error::LoadError;
use instance::Code;
use module::Kept;
use state::{Held, State};

/// Resolves the imports of compiled code that was checked.
pub(crate) fn link(shape: &Shape, checked: &Checked, binary: &Binary) -> Result<Linked, LoadError> {
    let kept = match (binary, checked.waits) {
        (Binary::Core(module), false) => link_shared(shape, module).map(Kept::Shared),
        (Binary::Core(module), true) => link_exclusive(shape, module).map(Kept::Exclusive),
        (Binary::Component(component), false) => {
            link_component::<State>(component, |_| Ok(())).map(Kept::Shared)
        }
        (Binary::Component(component), true) => {
            link_component::<Held>(component, component::link_call).map(Kept::Exclusive)
        }
    };
    kept.map(Linked)
        .map_err(|error| LoadError::Link(format!("{error:#}")))
}

fn link_shared(shape: &Shape, module: &wasmtime::Module) -> wasmtime::Result<Code<State>> {
    let mut linker = Linker::new(module.engine());
    for (module, interface, name) in imports(shape) {
        core_imports::define_shared(&mut linker, module, interface, name)?;
    }
    linker.instantiate_pre(module).map(Code::Core)
}

fn link_exclusive(shape: &Shape, module: &wasmtime::Module) -> wasmtime::Result<Code<Held>> {
    let mut linker = Linker::new(module.engine());
    for (module, interface, name) in imports(shape) {
        core_imports::define_exclusive(&mut linker, module, interface, name)?;
    }
    linker.instantiate_pre(module).map(Code::Core)
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
    Ok(Code::Component(component.clone(), pre))
}
