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
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_wasm::Compiler;

use crate::config::checked::Compile;

/// Whether this process's file is the program, so that starting it again starts a compiler.
static PROGRAM: AtomicBool = AtomicBool::new(false);

/// Says that this process runs the program's own `main`, and is not one that has the program as a library.
pub(crate) fn this_is_the_program() {
    PROGRAM.store(true, Ordering::Relaxed);
}

/// A compiler with these bounds; none: filters are compiled in this process.
pub(crate) fn with(bounds: Compile) -> Option<Arc<dyn Compiler>> {
    PROGRAM
        .load(Ordering::Relaxed)
        .then(|| elsewhere(bounds))
        .flatten()
}

#[cfg(target_os = "linux")]
fn elsewhere(bounds: Compile) -> Option<Arc<dyn Compiler>> {
    Some(Arc::new(process::Process::new(bounds)))
}

#[cfg(not(target_os = "linux"))]
fn elsewhere(_: Compile) -> Option<Arc<dyn Compiler>> {
    None
}
