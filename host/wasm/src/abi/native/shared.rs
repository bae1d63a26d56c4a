//! A worker's filter whose calls never wait: one instance for all exchanges, replaced after it failed.

use std::cell::RefCell;
use std::sync::Arc;

use tidegate_core::error::{Fault, FilterError};
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{Flow, Interests, Phase};

use super::call::AtOnce;
use super::instance::Instance;
use super::module::{Holds, Module};

pub(super) struct Shared {
    module: Arc<Module>,
    /// None after a failure, until the next exchange.
    instance: RefCell<Option<Instance<AtOnce>>>,
    holds: Holds,
}

impl Shared {
    pub(super) fn new(module: Arc<Module>) -> Result<Self, Fault> {
        let instance = module.make_shared()?;
        Ok(Shared {
            module,
            instance: RefCell::new(Some(instance)),
            holds: Holds::default(),
        })
    }

    fn run(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Result<Flow, Fault> {
        let Some(call) = self.module.begin(phase, end, exchange, &self.holds) else {
            return Ok(Flow::Continue);
        };
        // The guest can't reach this filter, so nobody else holds the slot; taking the instance out makes sure that
        // whatever goes wrong, it is not used again.
        let mut slot = self.instance.borrow_mut();
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => self.module.make_shared()?,
        };
        let flow = instance.call(call, exchange)?;
        let flow = self.module.judge(call, flow, exchange, &self.holds)?;
        *slot = Some(instance);
        Ok(flow)
    }
}

impl Filter for Shared {
    fn name(&self) -> &Arc<str> {
        &self.module.facts.name
    }

    fn interests(&self) -> &Interests {
        &self.module.interests
    }

    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome {
        let result = self.run(phase, end, exchange);
        if phase == Phase::Log {
            self.holds.end(exchange.borrow().id);
        }
        Outcome::Ready(result.map_err(|fault| -> FilterError { self.module.error(phase, fault) }))
    }
}
