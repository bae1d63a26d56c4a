//! Words of a call into a guest that both carriers share, and the two ways of making one: at once, or on a stack of
//! its own that can wait.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tidegate_core::phase::{BodyMode, Interests, Overflow, Phase, Phases};
use wasmtime::component::{self, ComponentNamedList, Lift, Lower};
use wasmtime::{Instance, InstancePre, Store, TypedFunc, WasmParams, WasmResults};

use super::figures::cut;
use super::state::{Data, Held, State};

/// The longest refusal of a configuration that is shown, in bytes.
const MAX_MESSAGE: usize = 4 * 1024;

/// One callback for one exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) phase: Phase,
    pub(super) id: u64,
    /// The chunk's length, in body phases.
    pub(super) length: u32,
    pub(super) end: bool,
}

/// What `configure` said.
#[derive(Debug)]
pub(super) enum Configured {
    /// There is no `configure`: the filter takes the phases that it exports.
    NotExported,
    Interests(Interests),
    /// No, in the guest's own words.
    Refused(String),
}

impl Configured {
    pub(super) fn refused(message: &str) -> Self {
        Configured::Refused(cut(message, MAX_MESSAGE).to_owned())
    }
}

/// The contract's set of phases; bits that it does not define count for nothing.
pub(super) fn phases(bits: u8) -> Phases {
    // The contract's order is the phases' own, `configure` left out.
    Phase::ALL
        .into_iter()
        .skip(1)
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, phase)| phase)
        .collect()
}

pub(super) fn body_mode(value: u32) -> Option<BodyMode> {
    match value {
        0 => Some(BodyMode::Stream),
        1 => Some(BodyMode::Whole),
        2 => Some(BodyMode::OnHold),
        _ => None,
    }
}

pub(super) fn overflow(value: u32) -> Option<Overflow> {
    match value {
        0 => Some(Overflow::Refuse),
        1 => Some(Overflow::Stream),
        _ => None,
    }
}

/// A way of calling guests. What is not on the request's path is written once over it.
pub(super) trait Mode {
    type Data: Data;

    fn hold(state: State) -> Self::Data;

    async fn instantiate(
        store: &mut Store<Self::Data>,
        pre: &InstancePre<Self::Data>,
    ) -> wasmtime::Result<Instance>;

    async fn instantiate_component(
        store: &mut Store<Self::Data>,
        pre: &component::InstancePre<Self::Data>,
    ) -> wasmtime::Result<component::Instance>;

    async fn call<P: WasmParams + Sync, R: WasmResults + Sync>(
        store: &mut Store<Self::Data>,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R>;

    async fn call_component<P, R>(
        store: &mut Store<Self::Data>,
        function: &component::TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static;
}

/// Calls that return before anything else happens.
pub(super) struct AtOnce;

impl Mode for AtOnce {
    type Data = State;

    fn hold(state: State) -> State {
        state
    }

    async fn instantiate(
        store: &mut Store<State>,
        pre: &InstancePre<State>,
    ) -> wasmtime::Result<Instance> {
        pre.instantiate(store)
    }

    async fn instantiate_component(
        store: &mut Store<State>,
        pre: &component::InstancePre<State>,
    ) -> wasmtime::Result<component::Instance> {
        pre.instantiate(store)
    }

    async fn call<P: WasmParams + Sync, R: WasmResults + Sync>(
        store: &mut Store<State>,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R> {
        function.call(store, params)
    }

    async fn call_component<P, R>(
        store: &mut Store<State>,
        function: &component::TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        function.call(store, params)
    }
}

/// Calls that may wait for HTTP answers.
pub(super) struct MayWait;

impl Mode for MayWait {
    type Data = Held;

    fn hold(state: State) -> Held {
        Held::new(state)
    }

    async fn instantiate(
        store: &mut Store<Held>,
        pre: &InstancePre<Held>,
    ) -> wasmtime::Result<Instance> {
        pre.instantiate_async(store).await
    }

    async fn instantiate_component(
        store: &mut Store<Held>,
        pre: &component::InstancePre<Held>,
    ) -> wasmtime::Result<component::Instance> {
        pre.instantiate_async(store).await
    }

    async fn call<P: WasmParams + Sync, R: WasmResults + Sync>(
        store: &mut Store<Held>,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R> {
        function.call_async(store, params).await
    }

    async fn call_component<P, R>(
        store: &mut Store<Held>,
        function: &component::TypedFunc<P, R>,
        params: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        function.call_async(store, params).await
    }
}

/// Runs what can't wait to its end: nothing that a guest may do before its first exchange gives way.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
