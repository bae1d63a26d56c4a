//! Turns a `.wasm` file into a filter: recognises what kind of file it is, compiles it, holds it to its limits
//! and grants, and carries calls and values across the boundary. Knows no sockets, no routes and no
//! configuration file; what a filter reaches outside are the traits of `tidegate-core`.
//!
//! Reading order: `detect` (what a file is), [`Engine`] (compiling and loading), [`LoadOptions`] (what the operator
//! decides), `abi` (one folder for each ABI; the only place that knows a guest's memory).

mod abi;
mod bounds;
mod cache;
mod compile;
mod contract;
mod detect;
mod engine;
mod error;
mod expose;
mod fault;
mod inspect;
mod limits;
mod manifest;
mod meter;
mod options;
mod pool;
mod time;
mod touched;

pub use compile::{Compiler, precompile};
pub use engine::{Compiled, Engine, EngineOptions, Kind};
pub use error::{EngineError, LoadError};
pub use inspect::{MemoryRange, Report, inspect};
pub use manifest::{Capability, Manifest, SuggestedLimits};
pub use options::{Allow, Limits, LoadOptions};

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
