//! What a core module may import: one table of the contract's functions in their canonical lowering, which checks a
//! module's imports and links them. Carries a call across; what the call does stands in `core_exchange` and
//! `core_services`.

use std::rc::Rc;

use send_wrapper::SendWrapper;
use wasmtime::{AsContextMut, Caller, Extern, Linker};

use super::core_values::Guest;
use super::host::CallRefusal;
use super::state::{Data, Held, Realloc, State};
use super::{core_exchange as exchange, core_services as services};
use crate::fault::breach;
use crate::time::FIRST;

/// A function that a core module may import.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) interface: &'static str,
    pub(crate) name: &'static str,
    /// Whether its result is allocated by the guest's `cabi_realloc`.
    pub(crate) gives: bool,
    params: &'static [&'static str],
    results: &'static [&'static str],
}

impl Import {
    /// Its type as text.
    pub(crate) fn signature(&self) -> String {
        crate::detect::render_signature(self.params, self.results)
    }
}

/// Every function of the contract.
pub(crate) fn table() -> impl Iterator<Item = &'static Import> {
    FUNCTIONS.iter().chain([&CALL])
}

/// Finds a function of the contract.
pub(crate) fn find(interface: &str, name: &str) -> Option<&'static Import> {
    table().find(|import| import.interface == interface && import.name == name)
}

macro_rules! wasm {
    (u32) => {
        "i32"
    };
    (u64) => {
        "i64"
    };
    (i64) => {
        "i64"
    };
    (f64) => {
        "f64"
    };
}

macro_rules! gives {
    (plain) => {
        false
    };
    (gives) => {
        true
    };
}

/// Defines one function in a linker whose calls never wait.
macro_rules! define_shared {
    (plain $linker:ident $module:ident $outside:ident $name:literal $function:path [$($arg:ident $ty:ident)*]) => {
        $linker.func_wrap($module, $name, move |mut caller: Caller<'_, State>, $($arg: $ty),*| {
            $function(enter(&mut caller, $outside)?, $($arg),*)
        })?
    };
    (gives $linker:ident $module:ident $outside:ident $name:literal $function:path [$($arg:ident $ty:ident)*]) => {
        $linker.func_wrap($module, $name, move |mut caller: Caller<'_, State>, $($arg: $ty),*| {
            $function(enter(&mut caller, $outside)?, $($arg),*)?;
            deliver(&mut caller)
        })?
    };
}

/// Defines one function in a linker whose calls may wait: allocating in the guest is then an asynchronous call too.
macro_rules! define_exclusive {
    (plain $linker:ident $module:ident $outside:ident $name:literal $function:path [$($arg:ident $ty:ident)*]) => {
        $linker.func_wrap($module, $name, move |mut caller: Caller<'_, Held>, $($arg: $ty),*| {
            $function(enter(&mut caller, $outside)?, $($arg),*)
        })?
    };
    (gives $linker:ident $module:ident $outside:ident $name:literal $function:path [$($arg:ident $ty:ident)*]) => {
        $linker.func_wrap_async(
            $module,
            $name,
            move |mut caller: Caller<'_, Held>, ($($arg,)*): ($($ty,)*)| {
                Box::new(SendWrapper::new(async move {
                    $function(enter(&mut caller, $outside)?, $($arg),*)?;
                    deliver_waiting(&mut caller).await
                }))
            },
        )?
    };
}

macro_rules! imports {
    ($($interface:literal {
        $($kind:ident $name:literal = $function:path: ($($arg:ident: $ty:ident),*) $(-> $result:ident)?;)*
    })*) => {
        /// Every function of the contract but [`CALL`].
        static FUNCTIONS: &[Import] = &[$($(Import {
            interface: $interface,
            name: $name,
            gives: gives!($kind),
            params: &[$(wasm!($ty)),*],
            results: &[$(wasm!($result))?],
        }),*),*];

        /// Links a function into instances whose calls never wait. Says whether it knows it.
        pub(super) fn define_shared(
            linker: &mut Linker<State>,
            module: &str,
            interface: &str,
            name: &str,
        ) -> wasmtime::Result<bool> {
            let outside = is_outside(interface);
            match (interface, name) {
                $($(($interface, $name) => {
                    define_shared!($kind linker module outside $name $function [$($arg $ty)*]);
                })*)*
                ("http-client", "call") => define_no_call(linker, module)?,
                _ => return Ok(false),
            }
            Ok(true)
        }

        /// Links a function into instances whose calls may wait. Says whether it knows it.
        pub(super) fn define_exclusive(
            linker: &mut Linker<Held>,
            module: &str,
            interface: &str,
            name: &str,
        ) -> wasmtime::Result<bool> {
            let outside = is_outside(interface);
            match (interface, name) {
                $($(($interface, $name) => {
                    define_exclusive!($kind linker module outside $name $function [$($arg $ty)*]);
                })*)*
                ("http-client", "call") => define_call(linker, module)?,
                _ => return Ok(false),
            }
            Ok(true)
        }
    };
}

imports! {
    "exchange" {
        gives "get" = exchange::get: (part: u32, name: u32, length: u32, result: u32);
        gives "get-all" = exchange::get_all: (part: u32, name: u32, length: u32, result: u32);
        plain "count" = exchange::count: (part: u32) -> u32;
        gives "at" = exchange::at: (part: u32, index: u32, result: u32);
        gives "all" = exchange::all: (part: u32, result: u32);
        plain "set" = exchange::set: (part: u32, name: u32, name_length: u32, value: u32, value_length: u32, result: u32);
        plain "append" = exchange::append: (part: u32, name: u32, name_length: u32, value: u32, value_length: u32, result: u32);
        plain "remove" = exchange::remove: (part: u32, name: u32, length: u32, result: u32);
        gives "method" = exchange::method: (result: u32);
        plain "set-method" = exchange::set_method: (value: u32, length: u32, result: u32);
        gives "scheme" = exchange::scheme: (result: u32);
        plain "set-scheme" = exchange::set_scheme: (value: u32, length: u32, result: u32);
        gives "authority" = exchange::authority: (result: u32);
        plain "set-authority" = exchange::set_authority: (value: u32, length: u32, result: u32);
        gives "path" = exchange::path: (result: u32);
        plain "set-path" = exchange::set_path: (value: u32, length: u32, result: u32);
        gives "query" = exchange::query: (result: u32);
        plain "set-query" = exchange::set_query: (given: u32, value: u32, length: u32, result: u32);
        plain "status" = exchange::status: () -> u32;
        plain "set-status" = exchange::set_status: (status: u32, result: u32);
        plain "answer" = exchange::answer: (status: u32, fields: u32, count: u32, body: u32, length: u32, result: u32);
        gives "client-address" = exchange::client_address: (result: u32);
        plain "client-port" = exchange::client_port: () -> u32;
        gives "protocol" = exchange::protocol: (result: u32);
        gives "tls" = exchange::tls: (result: u32);
        gives "route" = exchange::route: (result: u32);
        gives "path-parameter" = exchange::path_parameter: (name: u32, length: u32, result: u32);
        gives "request-id" = exchange::request_id: (result: u32);
        gives "property" = exchange::property: (name: u32, length: u32, result: u32);
        plain "set-property" = exchange::set_property: (name: u32, name_length: u32, value: u32, value_length: u32, result: u32);
        plain "elapsed" = exchange::elapsed: () -> u64;
        plain "delay" = exchange::delay: (milliseconds: u32, result: u32);
        gives "client-certificate" = exchange::client_certificate: (result: u32);
    }
    "body" {
        gives "read" = exchange::read: (offset: u32, max: u32, result: u32);
        plain "replace" = exchange::replace: (value: u32, length: u32);
        plain "append" = exchange::append_body: (value: u32, length: u32);
    }
    "log" {
        plain "enabled" = services::log_enabled: (level: u32) -> u32;
        plain "write" = services::log_write: (level: u32, message: u32, length: u32);
    }
    "metrics" {
        plain "counter" = services::counter: (name: u32, name_length: u32, help: u32, help_length: u32, labels: u32, count: u32, result: u32);
        plain "gauge" = services::gauge: (name: u32, name_length: u32, help: u32, help_length: u32, labels: u32, count: u32, result: u32);
        plain "histogram" = services::histogram: (name: u32, name_length: u32, help: u32, help_length: u32, labels: u32, count: u32, bounds: u32, bounds_count: u32, result: u32);
        plain "add" = services::metric_add: (metric: u32, delta: u64);
        plain "set" = services::metric_set: (metric: u32, value: f64);
        plain "observe" = services::metric_observe: (metric: u32, value: f64);
    }
    "clock" {
        plain "monotonic" = services::monotonic: () -> u64;
        plain "wall" = services::wall: () -> u64;
    }
    "random" {
        gives "bytes" = services::random_bytes: (length: u32, result: u32);
        plain "number" = services::random_number: () -> u64;
    }
    "store" {
        gives "get" = services::store_get: (space: u32, space_length: u32, key: u32, key_length: u32, result: u32);
        plain "set" = services::store_set: (space: u32, space_length: u32, key: u32, key_length: u32, value: u32, value_length: u32, ttl: u64, result: u32);
        plain "delete" = services::store_delete: (space: u32, space_length: u32, key: u32, key_length: u32, result: u32);
        plain "compare-and-swap" = services::store_swap: (space: u32, space_length: u32, key: u32, key_length: u32, given: u32, expected: u32, expected_length: u32, value: u32, value_length: u32, ttl: u64, result: u32);
        plain "increment" = services::store_increment: (space: u32, space_length: u32, key: u32, key_length: u32, delta: i64, ttl: u64, result: u32);
    }
    "limiter" {
        plain "take" = services::take: (key: u32, length: u32, tokens: u32, rate: f64, burst: u32, result: u32);
        plain "try-take" = services::try_take: (place: u32, key: u32, length: u32, tokens: u64, capacity: u64, refill: u64, period: u64, full_at: u64, result: u32);
        plain "peek" = services::peek: (place: u32, key: u32, length: u32, tokens: u64, capacity: u64, refill: u64, period: u64, full_at: u64, result: u32);
        gives "take-all" = services::take_all: (place: u32, demands: u32, count: u32, result: u32);
        plain "charge" = services::charge: (place: u32, key: u32, length: u32, tokens: i64, capacity: u64, refill: u64, period: u64, full_at: u64, result: u32);
        plain "enter" = services::enter: (place: u32, key: u32, length: u32, limit: u32, result: u32);
    }
    "environment" {
        gives "get" = services::environment: (name: u32, length: u32, result: u32);
    }
}

/// The one function that may wait.
static CALL: Import = Import {
    interface: "http-client",
    name: "call",
    gives: true,
    params: &["i32"; 13],
    results: &[],
};

/// [`CALL`] for a filter that was granted no upstream: it is told so, and nothing waits.
fn define_no_call(linker: &mut Linker<State>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(
        module,
        "call",
        |mut caller: Caller<'_, State>,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         _: u32,
         result: u32| {
            let state = split(&mut caller)?.state;
            services::called(state, Err(CallRefusal::NotGranted), result);
            deliver(&mut caller)
        },
    )?;
    Ok(())
}

fn define_call(linker: &mut Linker<Held>, module: &str) -> wasmtime::Result<()> {
    type Flat = (
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
    );
    linker.func_wrap_async(
        module,
        "call",
        |mut caller: Caller<'_, Held>, flat: Flat| {
            Box::new(SendWrapper::new(async move {
                let (a, b, c, d, e, f, g, h, i, j, timeout, max, result) = flat;
                let arguments = ((a, b), (c, d), (e, f), (g, h), (i, j), timeout, max);
                let outcome = match services::call(split(&mut caller)?, arguments)? {
                    Ok(future) => {
                        let outcome = future.await;
                        caller.data_mut().state().woke()?;
                        caller.as_context_mut().set_epoch_deadline(FIRST);
                        outcome.map_err(CallRefusal::from)
                    }
                    Err(refusal) => Err(refusal),
                };
                services::called(split(&mut caller)?.state, outcome, result);
                deliver_waiting(&mut caller).await
            }))
        },
    )?;
    Ok(())
}

/// Whether an interface gives what may be another thing the next time, or changes what others see. The rest is the same
/// whenever an instance begins.
fn is_outside(interface: &str) -> bool {
    !matches!(
        interface,
        "exchange" | "body" | "log" | "metrics" | "environment"
    )
}

/// As [`split`], at the beginning of a call.
#[inline]
fn enter<'a, D: Data>(caller: &'a mut Caller<'_, D>, outside: bool) -> wasmtime::Result<Guest<'a>> {
    if outside {
        caller.data_mut().state().asked_outside();
    }
    split(caller)
}

/// Borrows the guest's memory and the instance's state side by side.
fn split<'a, D: Data>(caller: &'a mut Caller<'_, D>) -> wasmtime::Result<Guest<'a>> {
    let state = caller.data().peek();
    if state.allocating {
        return Err(breach("its cabi_realloc called the host"));
    }
    let memory = match state.memory {
        Some(memory) => memory,
        // Only in the start function, before the exports were looked up.
        None => caller
            .get_export("memory")
            .and_then(Extern::into_memory)
            .ok_or_else(|| breach("it exports no memory"))?,
    };
    let (memory, data) = memory.data_and_store_mut(caller);
    Ok(Guest {
        memory,
        state: data.state(),
    })
}

/// Has the guest allocate what the reply needs, then copies the reply over.
fn deliver<D: Data>(caller: &mut Caller<'_, D>) -> wasmtime::Result<()> {
    let mut index = 1;
    while let Some((size, align)) = caller.data().peek().reply.wanted(index) {
        let realloc = allocator(caller)?;
        let address = realloc.call(&mut *caller, (0, 0, align, size))?;
        allocated(caller.data_mut().state(), index, address)?;
        index += 1;
    }
    let guest = split(caller)?;
    guest.state.hand_over(guest.memory)
}

/// As [`deliver`], where the guest may only be called asynchronously.
async fn deliver_waiting(caller: &mut Caller<'_, Held>) -> wasmtime::Result<()> {
    let mut index = 1;
    while let Some((size, align)) = caller.data().peek().reply.wanted(index) {
        let realloc = allocator(caller)?;
        let address = realloc
            .call_async(&mut *caller, (0, 0, align, size))
            .await?;
        allocated(caller.data_mut().state(), index, address)?;
        index += 1;
    }
    let guest = split(caller)?;
    guest.state.hand_over(guest.memory)
}

fn allocator<D: Data>(caller: &mut Caller<'_, D>) -> wasmtime::Result<Rc<Realloc>> {
    let state = caller.data_mut().state();
    state.allocating = true;
    state.realloc.clone().ok_or_else(|| {
        breach("it was handed something in its start function, before its cabi_realloc is known")
    })
}

fn allocated(state: &mut State, index: usize, address: u32) -> wasmtime::Result<()> {
    state.allocating = false;
    state.reply.place(index, address)
}
