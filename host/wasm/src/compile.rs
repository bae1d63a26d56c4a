//! From a file to code that this process can run: here, or by somebody else who does it for us. Compiling takes memory
//! and time that a file's author decides about, and a fault in the compiler ends its process; so a host that serves
//! traffic lets another process do it. Knows no processes and no command lines; see [`Compiler`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime::Module;
use wasmtime::component::Component;

use crate::bounds;
use crate::engine::{Binary, Kind};
use crate::expose::expose;
use crate::pool;

/// Does what [`precompile`] does, somewhere else: where a file that takes too long, needs too much or breaks the
/// compiler does no harm. Called on whichever thread compiles; it may take as long as it likes.
///
/// # Safety
/// What [`compile`](Compiler::compile) gives is run as machine code in this process. It must be, byte for byte, what
/// [`precompile`] of this very program gave for the same kind and file, from a process that nobody less trusted than
/// this one can write to.
#[expect(
    unsafe_code,
    reason = "whoever implements it vouches for code that is run without further checks"
)]
pub unsafe trait Compiler: fmt::Debug + Send + Sync {
    /// Compiles a file.
    ///
    /// # Errors
    /// Why it can't be compiled, in words that follow "it can't be compiled: ".
    fn compile(&self, kind: Kind, file: &[u8]) -> Result<Vec<u8>, String>;
}

/// Compiles a file in this process, for engines of the same program.
///
/// # Errors
/// Why it can't be compiled, in words that follow "it can't be compiled: ": a function that is larger than any filter
/// needs, or the compiler's own words.
pub fn precompile(kind: Kind, file: &[u8]) -> Result<Vec<u8>, String> {
    bounds::sections(file)?;
    bounds::functions(file)?;
    let runtime = pool::compiler().map_err(|error| format!("{error:#}"))?;
    unharmed(|| match kind {
        Kind::NativeCore => runtime.precompile_module(&expose(file)),
        Kind::NativeComponent => runtime.precompile_component(file),
    })
}

/// Compiles a file in this process, for this engine.
pub(crate) fn here(runtime: &wasmtime::Engine, kind: Kind, file: &[u8]) -> Result<Binary, String> {
    bounds::functions(file)?;
    unharmed(|| match kind {
        Kind::NativeCore => Module::from_binary(runtime, &expose(file)).map(Binary::Core),
        Kind::NativeComponent => Component::from_binary(runtime, file).map(Binary::Component),
    })
}

/// A compiler that fails on some file must not take the process with it, as long as panics unwind.
fn unharmed<T>(compile: impl FnOnce() -> wasmtime::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compile))
        .map_err(|_| "the compiler failed on it".to_owned())?
        .map_err(|error| format!("{error:#}"))
}
