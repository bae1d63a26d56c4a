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

use tidegate_wasm::Compiler;

use crate::config::checked::Compile;

/// A compiler with these bounds; none: filters are compiled in this process.
#[cfg(target_os = "linux")]
pub(crate) fn with(bounds: Compile) -> Option<Arc<dyn Compiler>> {
    Some(Arc::new(process::Process::new(bounds)))
}

/// Filters are compiled in this process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn with(_: Compile) -> Option<Arc<dyn Compiler>> {
    None
}
