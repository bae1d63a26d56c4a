//! One running instance of a filter, whichever its carrier: made, configured and called under its bounds. Knows
//! nothing of who else uses it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use tidegate_core::error::Fault;
use tidegate_core::filter::SharedExchange;
use tidegate_core::phase::Flow;
use tidegate_core::usage::Discard;
use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Store};

use super::call::{AtOnce, Call, Configured, MayWait, Mode, at_once};
use super::component::{Exports as ComponentExports, Names as ComponentNames};
use super::core_exports::{Exports as CoreExports, Names};
use super::pristine::Pristine;
use super::state::{Data, State};
use crate::time::{Allowance, FIRST};
use crate::{fault, meter, time};

/// Compiled code with its imports resolved.
pub(crate) enum Code<D: 'static> {
    Core(InstancePre<D>, Names),
    Component(Component, component::InstancePre<D>, ComponentNames),
}

impl<D> Code<D> {
    fn engine(&self) -> &Engine {
        match self {
            Code::Core(pre, _) => pre.module().engine(),
            Code::Component(component, ..) => component.engine(),
        }
    }
}

/// Bytes that a guest may hand over in one call of a host function, on top of the bound for bodies: names, values and
/// lists of fields.
const HANDED_OVER: usize = 1024 * 1024;

/// An instance.
pub(super) struct Instance<M: Mode> {
    store: Store<M::Data>,
    exports: Exports,
    /// Bytes of memory from which on it should be replaced.
    mark: usize,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there are few instances, and a box would cost each call a step"
)]
enum Exports {
    Core(CoreExports),
    Component(ComponentExports),
}

impl<M: Mode> Instance<M> {
    /// Makes an instance and configures it, within the bounds for `configure`.
    pub(super) async fn make(
        code: &Code<M::Data>,
        state: State,
    ) -> Result<(Self, Configured), Fault> {
        let engine = code.engine();
        let (limits, stack) = (state.facts.limits, state.facts.stack);
        let mut store = Store::new(engine, M::hold(state));
        store.limiter(|data| &mut data.state().growth);
        store.epoch_deadline_callback(|mut store| store.data_mut().state().tick());
        store.set_epoch_deadline(FIRST);

        let failed = |store: &Store<M::Data>, error: wasmtime::Error| {
            let state = store.data().peek();
            let fault = fault::of_making(&error, state.growth.refused(), stack, engine);
            state.failed(&fault);
            fault
        };
        let begun = match code {
            Code::Core(pre, names) => match M::instantiate(&mut store, pre).await {
                Ok(instance) => super::core_exports::begin::<M>(&mut store, instance, names)
                    .await
                    .map(|(exports, configured)| (Exports::Core(exports), configured)),
                Err(error) => return Err(failed(&store, error)),
            },
            Code::Component(_, pre, names) => {
                store.set_hostcall_fuel(limits.body as usize + HANDED_OVER);
                match M::instantiate_component(&mut store, pre).await {
                    Ok(instance) => super::component::begin::<M>(&mut store, names, instance)
                        .await
                        .map(|(exports, configured)| (Exports::Component(exports), configured)),
                    Err(error) => return Err(failed(&store, error)),
                }
            }
        };
        let (exports, configured) = begun.map_err(|error| {
            let state = store.data().peek();
            let fault = fault::of_call(&error, state.growth.refused(), stack);
            state.failed(&fault);
            fault
        })?;
        let state = store.data_mut().state();
        state.allowance = Allowance::new(limits.call());
        state.growth.share.why = Discard::Retired;
        let mark = mark(state.growth.memory(), limits.memory);
        let instance = Instance {
            store,
            exports,
            mark,
        };
        Ok((instance, configured))
    }

    /// Whether it holds so much memory that a new one is better: what it leaks is only given back with it.
    #[inline]
    pub(super) fn holds_much(&self) -> bool {
        self.store.data().peek().growth.memory() >= self.mark
    }

    /// Its state as it is now, if it can be put back to it later, and if all instances begin with the same.
    pub(super) fn keep(&mut self) -> Option<Pristine> {
        if !self.store.data().peek().steady {
            return None;
        }
        let Exports::Core(exports) = &self.exports else {
            return None;
        };
        exports.state.as_ref()?.keep(&mut self.store)
    }

    /// Makes it what a new instance is. Says whether it is; if not, it must not be used again.
    pub(super) fn renew(&mut self, pristine: &Pristine) -> bool {
        let Exports::Core(CoreExports {
            state: Some(state), ..
        }) = &self.exports
        else {
            return false;
        };
        let steady = self.store.data().peek().steady;
        if !steady || !state.put_back(&mut self.store, pristine) {
            return false;
        }
        let state = self.store.data_mut().state();
        state.called = (0, 0);
        state.growth.share.renewed();
        true
    }

    /// Ends it, for a reason.
    pub(super) fn discard(mut self, why: Discard) {
        self.store.data_mut().state().growth.share.why = why;
    }

    fn ended(&mut self, result: wasmtime::Result<Option<Flow>>) -> Result<Flow, Fault> {
        let state = self.store.data_mut().state();
        state.leave();
        match result {
            Ok(flow) => {
                state.growth.share.why = Discard::Retired;
                Ok(flow.unwrap_or(Flow::Continue))
            }
            Err(error) => Err(failed_call(state, &error)),
        }
    }
}

/// The mark of an instance that begins with so much memory: half of its bound, or the double of what it begins with.
fn mark(begins: usize, bound: usize) -> usize {
    let mark = (bound / 2).max(begins.saturating_mul(2)).min(bound);
    if begins < mark { mark } else { usize::MAX }
}

#[cold]
fn failed_call(state: &mut State, error: &wasmtime::Error) -> Fault {
    state.growth.share.why = Discard::Failed;
    let fault = fault::of_call(error, state.growth.refused(), state.facts.stack);
    state.failed(&fault);
    fault
}

impl Instance<AtOnce> {
    /// Runs a callback; one that is not exported does nothing.
    pub(super) fn call(&mut self, call: Call, exchange: &SharedExchange) -> Result<Flow, Fault> {
        self.store.data_mut().enter(call.phase, exchange);
        self.store.set_epoch_deadline(FIRST);
        let result = if meter::in_sample() {
            let before = time::processor();
            let result = self.run(call);
            let spent = time::processor().saturating_sub(before);
            self.store.data().sampled(spent);
            result
        } else {
            self.run(call)
        };
        self.ended(result)
    }

    #[inline]
    fn run(&mut self, call: Call) -> wasmtime::Result<Option<Flow>> {
        match &self.exports {
            Exports::Core(exports) => exports.call(&mut self.store, call),
            Exports::Component(exports) => {
                at_once(exports.call::<AtOnce>(&mut self.store, call)).unwrap_or(Ok(None))
            }
        }
    }
}

impl Instance<MayWait> {
    /// Lets its calls give way at every tick from now on.
    pub(super) fn gives_way(mut self) -> Self {
        self.store.data_mut().state().resumed = Some(Arc::default());
        self
    }

    /// Runs a callback, waiting where the guest waits. Dropped before its end, the instance must not be used again.
    pub(super) async fn call(
        &mut self,
        call: Call,
        exchange: &SharedExchange,
    ) -> Result<Flow, Fault> {
        let state = self.store.data_mut().state();
        state.enter(call.phase, exchange);
        state.allowance.begin_at(state.monotonic());
        self.store.set_epoch_deadline(FIRST);
        let result = if meter::in_sample() {
            let (result, spent) = measured(self.run(call)).await;
            self.store.data().peek().sampled(spent);
            result
        } else {
            self.run(call).await
        };
        self.ended(result)
    }

    async fn run(&mut self, call: Call) -> wasmtime::Result<Option<Flow>> {
        match &self.exports {
            Exports::Core(exports) => exports.call_waiting(&mut self.store, call).await,
            Exports::Component(exports) => exports.call::<MayWait>(&mut self.store, call).await,
        }
    }
}

/// A future with the processor time of its own turns.
async fn measured<T>(future: impl Future<Output = T>) -> (T, u64) {
    let (mut future, mut spent) = (pin!(future), 0);
    let value = poll_fn(|cx| {
        let before = time::processor();
        let polled = future.as_mut().poll(cx);
        spent += time::processor().saturating_sub(before);
        polled
    })
    .await;
    (value, spent)
}
