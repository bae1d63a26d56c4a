//! Reads the runtime's errors: which of the few faults of `tidegate-core` an error is, in words that a filter's
//! author can use.

use std::fmt;
use std::time::Duration;

use tidegate_core::error::{Fault, Limit, Overrun};
use wasmtime::{Trap, WasmBacktrace};

/// What a guest did against the contract, noticed while translating for it. Raised as a trap.
#[derive(Debug)]
pub(crate) struct Breach(String);

impl Breach {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Breach(what.into())
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Breach {}

/// Shorthand for a breach as the runtime's error.
pub(crate) fn breach(what: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Breach::new(what))
}

/// What an error of a guest's call is. `limit` is the bound that the call had; `memory`, the memory bound if the
/// guest ran into it.
pub(crate) fn of_call(error: &wasmtime::Error, limit: Duration, memory: Option<usize>) -> Fault {
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return Fault::Contract(breach.to_string());
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        let bound = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        return Fault::Over(Overrun {
            limit: Limit::Time,
            bound,
            value: bound,
            trap: String::new(),
        });
    }
    let mut reason = match trap {
        Some(trap) => {
            let text = trap.to_string();
            text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
        }
        None => error.root_cause().to_string(),
    };
    if let Some(name) = error.downcast_ref::<WasmBacktrace>().and_then(innermost) {
        reason.push_str(" in `");
        reason.push_str(&name);
        reason.push('`');
    }
    if let Some(bytes) = memory {
        reason.push_str(&format!(
            "; it had reached its memory limit of {bytes} bytes"
        ));
    }
    Fault::Trap(reason)
}

/// What an error while making an instance is.
pub(crate) fn of_making(error: &wasmtime::Error, limit: Duration, memory: Option<usize>) -> Fault {
    match of_call(error, limit, memory) {
        Fault::Trap(reason) if !error.is::<Trap>() => Fault::Instantiate(reason),
        fault => fault,
    }
}

/// The innermost frame that has a name, cut to a length fit for a log line.
fn innermost(trace: &WasmBacktrace) -> Option<String> {
    trace
        .frames()
        .iter()
        .find_map(|frame| Some(frame.func_name()?.chars().take(120).collect()))
}
