//! What a core module exports: finding its callbacks by either spelling of their names, calling them, and reading
//! what `configure` returns. Knows no host function.

use std::rc::Rc;

use tidegate_core::phase::{Flow, Phase};
use wasmtime::{Extern, Func, Instance, Module, ModuleExport, Store, TypedFunc};

use super::call::{Call, Configured, Mode};
use super::memory::{self, no_such_value};
use super::pristine::{Places, State as InstanceState};
use super::state::Data;
use crate::contract;
use crate::detect::Shape;
use crate::fault::breach;

/// A core module's callbacks, looked up once.
pub(super) struct Exports {
    callbacks: [Option<Callback>; 7],
    /// The instance's whole state, if it can be reached.
    pub(super) state: Option<InstanceState>,
}

/// A callback with its type.
enum Callback {
    Head(TypedFunc<(u64, u32), u32>),
    Body(TypedFunc<(u64, u32, u32), u32>),
    Trailers(TypedFunc<u64, u32>),
    Log(TypedFunc<u64, ()>),
}

/// The type of a callback, as text.
pub(crate) const fn signature(phase: Phase) -> &'static str {
    match phase {
        Phase::Configure => "(i32, i32) -> i32",
        Phase::RequestHead | Phase::ResponseHead => "(i64, i32) -> i32",
        Phase::RequestBody | Phase::ResponseBody => "(i64, i32, i32) -> i32",
        Phase::RequestTrailers | Phase::ResponseTrailers => "(i64) -> i32",
        Phase::Log => "(i64)",
    }
}

/// The type of `cabi_realloc`, as text.
pub(crate) const REALLOC: &str = "(i32, i32, i32, i32) -> i32";
/// The type of `_initialize`, as text.
pub(crate) const INITIALIZE: &str = "()";
/// The type of `cabi_post_..configure`, as text.
pub(crate) const POST: &str = "(i32)";

fn slot(phase: Phase) -> Option<usize> {
    match phase {
        Phase::Configure => None,
        Phase::RequestHead => Some(0),
        Phase::RequestBody => Some(1),
        Phase::RequestTrailers => Some(2),
        Phase::ResponseHead => Some(3),
        Phase::ResponseBody => Some(4),
        Phase::ResponseTrailers => Some(5),
        Phase::Log => Some(6),
    }
}

/// Where a module's exports stand, found once for all of its instances.
pub(crate) struct Names {
    memory: Option<ModuleExport>,
    realloc: Option<ModuleExport>,
    initialize: Option<ModuleExport>,
    configure: Option<ModuleExport>,
    post: Option<ModuleExport>,
    callbacks: Vec<(Phase, ModuleExport)>,
    /// Where its whole state stands, if it can be reached.
    state: Option<Places>,
}

impl Names {
    pub(super) fn of(module: &Module, shape: &Shape) -> Self {
        let find = |name: &str| module.get_export_index(name);
        let mut names = Names {
            memory: find("memory"),
            realloc: find("cabi_realloc"),
            initialize: find("_initialize"),
            configure: None,
            post: None,
            callbacks: Vec::new(),
            state: Places::of(module, shape),
        };
        for export in module.exports() {
            let (Some(Ok(callback)), Some(place)) =
                (contract::callback(export.name()), find(export.name()))
            else {
                continue;
            };
            match (callback.post, callback.phase) {
                (true, Phase::Configure) => names.post = Some(place),
                (true, _) => {}
                (false, Phase::Configure) => names.configure = Some(place),
                (false, phase) => names.callbacks.push((phase, place)),
            }
        }
        names
    }
}

/// Looks up the exports of a new instance, runs `_initialize` and `configure`.
pub(super) async fn begin<M: Mode>(
    store: &mut Store<M::Data>,
    instance: Instance,
    names: &Names,
) -> wasmtime::Result<(Exports, Configured)> {
    let function = |store: &mut Store<M::Data>, place: &Option<ModuleExport>| {
        instance
            .get_module_export(store, place.as_ref()?)
            .and_then(Extern::into_func)
    };
    let memory = names
        .memory
        .as_ref()
        .and_then(|place| instance.get_module_export(&mut *store, place))
        .and_then(Extern::into_memory);
    let realloc = match function(store, &names.realloc) {
        Some(function) => Some(Rc::new(function.typed(&*store)?)),
        None => None,
    };
    let state = store.data_mut().state();
    state.memory = memory;
    state.realloc = realloc;
    if let Some(initialize) = function(store, &names.initialize) {
        let initialize: TypedFunc<(), ()> = initialize.typed(&*store)?;
        M::call(store, &initialize, ()).await?;
    }

    let mut callbacks = [const { None }; 7];
    for (phase, place) in &names.callbacks {
        let export = instance.get_module_export(&mut *store, place);
        if let Some(function) = export.and_then(Extern::into_func)
            && let Some(place) = slot(*phase).and_then(|slot| callbacks.get_mut(slot))
        {
            *place = Some(typed(*phase, function, store)?);
        }
    }
    let configure = match function(store, &names.configure) {
        Some(function) => Some(function.typed(&*store)?),
        None => None,
    };
    let post = match function(store, &names.post) {
        Some(function) => Some(function.typed(&*store)?),
        None => None,
    };
    let configured = match configure {
        None => Configured::NotExported,
        Some(configure) => run_configure::<M>(store, &configure, post.as_ref()).await?,
    };
    let state = names
        .state
        .as_ref()
        .and_then(|places| places.within(store, &instance));
    Ok((Exports { callbacks, state }, configured))
}

fn typed<D: 'static>(phase: Phase, function: Func, store: &Store<D>) -> wasmtime::Result<Callback> {
    Ok(match phase {
        Phase::RequestHead | Phase::ResponseHead => Callback::Head(function.typed(store)?),
        Phase::RequestBody | Phase::ResponseBody => Callback::Body(function.typed(store)?),
        Phase::RequestTrailers | Phase::ResponseTrailers => {
            Callback::Trailers(function.typed(store)?)
        }
        Phase::Configure | Phase::Log => Callback::Log(function.typed(store)?),
    })
}

async fn run_configure<M: Mode>(
    store: &mut Store<M::Data>,
    configure: &TypedFunc<(u32, u32), u32>,
    post: Option<&TypedFunc<u32, ()>>,
) -> wasmtime::Result<Configured> {
    let state = store.data_mut().state();
    let facts = state.facts.clone();
    let (Some(memory), Some(realloc)) = (state.memory, state.realloc.clone()) else {
        return Err(breach("it exports no memory or no cabi_realloc"));
    };
    let length = u32::try_from(facts.config.len())
        .map_err(|_| breach("its configuration is longer than a guest's memory"))?;
    state.allocating = true;
    let address = M::call(store, &realloc, (0, 0, 1, length)).await?;
    let (bytes, data) = memory.data_and_store_mut(&mut *store);
    data.state().allocating = false;
    bytes
        .get_mut(address as usize..)
        .and_then(|bytes| bytes.get_mut(..facts.config.len()))
        .ok_or_else(|| breach("its cabi_realloc returned an address outside of its memory"))?
        .copy_from_slice(facts.config.as_bytes());

    let result = M::call(store, configure, (address, length)).await?;
    let configured = lift(memory.data(&*store), result)?;
    if let Some(post) = post {
        M::call(store, post, result).await?;
    }
    Ok(configured)
}

/// Reads `result<interests, string>`: a discriminant, then at 4 the record or the string.
fn lift(memory: &[u8], at: u32) -> wasmtime::Result<Configured> {
    use super::call::{body_mode, overflow, phases};
    use tidegate_core::phase::{BodyWish, Interests};

    let bytes = memory::list(memory, at, 1, 32, 4)?;
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    match byte(0) {
        0 => {}
        1 => {
            let message = memory::text(memory, memory::number(bytes, 4), memory::number(bytes, 8))?;
            return Ok(Configured::refused(message));
        }
        other => return Err(no_such_value("result", u32::from(other))),
    }
    let wish = |at: usize| {
        let (mode, over) = (u32::from(byte(at)), u32::from(byte(at + 8)));
        Ok::<_, wasmtime::Error>(BodyWish {
            mode: body_mode(mode).ok_or_else(|| no_such_value("body-mode", mode))?,
            limit: memory::number(bytes, at + 4),
            overflow: overflow(over).ok_or_else(|| no_such_value("overflow", over))?,
        })
    };
    Ok(Configured::Interests(Interests {
        phases: phases(byte(4)),
        request_body: wish(8)?,
        response_body: wish(20)?,
    }))
}

impl Exports {
    /// Runs a callback, if it is exported.
    #[inline]
    pub(super) fn call<D: Data>(
        &self,
        store: &mut Store<D>,
        call: Call,
    ) -> wasmtime::Result<Option<Flow>> {
        let Some(callback) = self.callback(call.phase) else {
            return Ok(None);
        };
        let end = u32::from(call.end);
        let code = match callback {
            Callback::Head(function) => function.call(store, (call.id, end))?,
            Callback::Body(function) => function.call(store, (call.id, call.length, end))?,
            Callback::Trailers(function) => function.call(store, call.id)?,
            Callback::Log(function) => {
                function.call(store, call.id)?;
                0
            }
        };
        flow(code).map(Some)
    }

    /// As [`Exports::call`], for a store whose calls may wait.
    pub(super) async fn call_waiting<D: Data + Send>(
        &self,
        store: &mut Store<D>,
        call: Call,
    ) -> wasmtime::Result<Option<Flow>> {
        let Some(callback) = self.callback(call.phase) else {
            return Ok(None);
        };
        let end = u32::from(call.end);
        let code = match callback {
            Callback::Head(function) => function.call_async(store, (call.id, end)).await?,
            Callback::Body(function) => {
                function
                    .call_async(store, (call.id, call.length, end))
                    .await?
            }
            Callback::Trailers(function) => function.call_async(store, call.id).await?,
            Callback::Log(function) => {
                function.call_async(store, call.id).await?;
                0
            }
        };
        flow(code).map(Some)
    }

    fn callback(&self, phase: Phase) -> Option<&Callback> {
        self.callbacks.get(slot(phase)?)?.as_ref()
    }
}

fn flow(code: u32) -> wasmtime::Result<Flow> {
    match code {
        0 => Ok(Flow::Continue),
        1 => Ok(Flow::Hold),
        2 => Ok(Flow::Answer),
        _ => Err(no_such_value("flow", code)),
    }
}
