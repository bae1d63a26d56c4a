//! Reads the runtime's errors: which of the few faults of `tidegate-core` an error is, in words that a filter's
//! author can use.

use std::fmt;

use tidegate_core::error::{Fault, Limit, Overrun};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

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

/// A limit that was gone over, noticed in the middle of a call. Raised as a trap.
#[derive(Debug)]
pub(crate) struct Over(pub(crate) Overrun);

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Over {}

/// What an error of a guest's call is. `refused` is what was not granted to it during the call, `stack` the bound of
/// its stack.
pub(crate) fn of_call(error: &wasmtime::Error, refused: Option<Overrun>, stack: u64) -> Fault {
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return Fault::Contract(breach.to_string());
    }
    if let Some(Over(over)) = error.downcast_ref::<Over>() {
        return Fault::Over(over.clone());
    }
    let trap = error.downcast_ref::<Trap>();
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
    let over = match trap {
        Some(Trap::StackOverflow) => Some(Overrun {
            limit: Limit::Stack,
            bound: stack,
            value: stack,
            trap: String::new(),
        }),
        _ => refused,
    };
    match over {
        Some(over) => Fault::Over(Overrun {
            trap: reason,
            ..over
        }),
        None => Fault::Trap(reason),
    }
}

/// What an error while making an instance is.
pub(crate) fn of_making(
    error: &wasmtime::Error,
    refused: Option<Overrun>,
    stack: u64,
    engine: &wasmtime::Engine,
) -> Fault {
    if error.is::<PoolConcurrencyLimitError>() {
        let bound = slots(engine);
        return Fault::Over(Overrun {
            limit: Limit::Instances,
            bound,
            value: bound + 1,
            trap: String::new(),
        });
    }
    match of_call(error, refused, stack) {
        Fault::Trap(reason) if !error.is::<Trap>() => Fault::Instantiate(reason),
        fault => fault,
    }
}

/// How many instances the process has room for.
fn slots(engine: &wasmtime::Engine) -> u64 {
    let pool = engine.get_pooling_config();
    pool.map_or(0, |pool| u64::from(pool.get_total_memories()))
}

/// The innermost frame that has a name, cut to a length fit for a log line.
fn innermost(trace: &WasmBacktrace) -> Option<String> {
    trace
        .frames()
        .iter()
        .find_map(|frame| Some(frame.func_name()?.chars().take(120).collect()))
}
