//! Compiling in a process of its own, so that what a file's author decides about (time, memory, the compiler's health)
//! never concerns the process that serves traffic. [`process`] is the side that serves, [`child`] the one that compiles.
//! Elsewhere than on Linux, which can do this, filters are compiled in the process itself.

#[cfg(target_os = "linux")]
pub(crate) mod child;
#[cfg(target_os = "linux")]
mod gate;
#[cfg(target_os = "linux")]
mod process;

use std::sync::Arc;

use tidegate_wasm::{Compiler, EngineOptions};

use crate::config::checked::{Compile, Server};

/// The engine that a configuration asks for.
pub(crate) fn engine(server: &Server) -> EngineOptions {
    EngineOptions {
        cache: server.cache.clone(),
        max_file: server.compile.max_file,
        compiler: compiler(server.compile),
    }
}

/// The engine when the configuration can't be read: without a cache, with the default bounds.
pub(crate) fn engine_without_configuration() -> EngineOptions {
    let bounds = Compile::default();
    EngineOptions {
        cache: None,
        max_file: bounds.max_file,
        compiler: compiler(bounds),
    }
}

#[cfg(target_os = "linux")]
fn compiler(bounds: Compile) -> Option<Arc<dyn Compiler>> {
    Some(Arc::new(process::Process::new(bounds)))
}

#[cfg(not(target_os = "linux"))]
fn compiler(_: Compile) -> Option<Arc<dyn Compiler>> {
    None
}
