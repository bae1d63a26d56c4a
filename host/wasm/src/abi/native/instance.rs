//! One running instance of a filter, whichever its carrier: made, configured and called under its bounds. Knows
//! nothing of who else uses it.

use std::sync::Arc;

use tidegate_core::error::Fault;
use tidegate_core::filter::SharedExchange;
use tidegate_core::phase::Flow;
use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Store};

use super::call::{AtOnce, Call, Configured, MayWait, Mode, at_once};
use super::component::Exports as ComponentExports;
use super::core_exports::Exports as CoreExports;
use super::state::{Data, Facts, Slice, State};
use crate::engine::ticks;
use crate::fault;

/// Compiled code with its imports resolved.
pub(crate) enum Code<D: 'static> {
    Core(InstancePre<D>),
    Component(Component, component::InstancePre<D>),
}

impl<D> Code<D> {
    fn engine(&self) -> &Engine {
        match self {
            Code::Core(pre) => pre.module().engine(),
            Code::Component(component, _) => component.engine(),
        }
    }
}

/// An instance.
pub(super) struct Instance<M: Mode> {
    store: Store<M::Data>,
    exports: Exports,
    facts: Arc<Facts>,
    ticks: u64,
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
    /// Makes an instance and configures it, within the bound for `configure`.
    pub(super) async fn make(
        code: &Code<M::Data>,
        state: State,
    ) -> Result<(Self, Configured), Fault> {
        let facts = Arc::clone(&state.facts);
        let limit = facts.limits.configure;
        let mut store = Store::new(code.engine(), M::hold(state));
        store.limiter(|data| &mut data.state().growth);
        store.set_epoch_deadline(ticks(limit));

        let (exports, configured) = match code {
            Code::Core(pre) => {
                let made = M::instantiate(&mut store, pre).await;
                let instance = made.map_err(|error| {
                    fault::of_making(&error, limit, store.data().peek().growth.hit())
                })?;
                let begun = super::core_exports::begin::<M>(&mut store, instance).await;
                begun.map(|(exports, configured)| (Exports::Core(exports), configured))
            }
            Code::Component(component, pre) => {
                let made = M::instantiate_component(&mut store, pre).await;
                let instance = made.map_err(|error| {
                    fault::of_making(&error, limit, store.data().peek().growth.hit())
                })?;
                let begun = super::component::begin::<M>(&mut store, component, instance).await;
                begun.map(|(exports, configured)| (Exports::Component(exports), configured))
            }
        }
        .map_err(|error| fault::of_call(&error, limit, store.data().peek().growth.hit()))?;

        let instance = Instance {
            store,
            exports,
            ticks: ticks(facts.limits.call),
            facts,
        };
        Ok((instance, configured))
    }

    fn ended(&mut self, result: wasmtime::Result<Option<Flow>>) -> Result<Flow, Fault> {
        let state = self.store.data_mut().state();
        state.leave();
        match result {
            Ok(flow) => Ok(flow.unwrap_or(Flow::Continue)),
            Err(error) => Err(fault::of_call(
                &error,
                self.facts.limits.call,
                state.growth.hit(),
            )),
        }
    }
}

impl Instance<AtOnce> {
    /// Runs a callback; one that is not exported does nothing.
    pub(super) fn call(&mut self, call: Call, exchange: &SharedExchange) -> Result<Flow, Fault> {
        self.store.data_mut().enter(call.phase, exchange);
        self.store.set_epoch_deadline(self.ticks);
        let result = match &self.exports {
            Exports::Core(exports) => exports.call(&mut self.store, call),
            Exports::Component(exports) => {
                at_once(exports.call::<AtOnce>(&mut self.store, call)).unwrap_or(Ok(None))
            }
        };
        self.ended(result)
    }
}

impl Instance<MayWait> {
    /// Runs a callback, waiting where the guest waits. Dropped before its end, the instance must not be used again.
    pub(super) async fn call(
        &mut self,
        call: Call,
        exchange: &SharedExchange,
    ) -> Result<Flow, Fault> {
        let state = self.store.data_mut().state();
        state.enter(call.phase, exchange);
        state.clock = Slice {
            began: state.monotonic(),
            left: self.facts.limits.call,
        };
        self.store.set_epoch_deadline(self.ticks);
        let result = match &self.exports {
            Exports::Core(exports) => exports.call_waiting(&mut self.store, call).await,
            Exports::Component(exports) => exports.call::<MayWait>(&mut self.store, call).await,
        };
        self.ended(result)
    }
}
