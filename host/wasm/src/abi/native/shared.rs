//! A worker's filter whose calls never wait: one instance for all exchanges, replaced after it failed, and when it holds
//! much memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::error::{Fault, FilterError};
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::usage::Discard;

use super::call::AtOnce;
use super::instance::Instance;
use super::module::{Holds, Module};
use super::state::Local;

pub(super) struct Shared {
    module: Arc<Module>,
    local: Rc<Local>,
    slots: RefCell<Slots>,
    holds: Holds,
}

/// Instances are large, and go back and forth with every call.
struct Slots {
    /// None after a failure, until the failed exchange's end or the next exchange.
    current: Option<Box<Instance<AtOnce>>>,
    /// The one before it, for the exchanges that began with that.
    former: Option<Former>,
    /// The highest id of an exchange so far.
    newest: u64,
    /// Whether the last attempt to make an instance failed. The next one is the next exchange's.
    barren: bool,
}

/// An instance that holds so much memory that exchanges which begin now get another one.
struct Former {
    instance: Box<Instance<AtOnce>>,
    /// The last exchange that may have begun with it.
    through: u64,
    /// When it was called last, on the steady clock.
    used: u64,
}

/// How long a former instance waits for calls of the exchanges that it knows, in nanoseconds.
const PATIENCE: u64 = 60 * 1_000_000_000;

impl Shared {
    pub(super) fn new(module: Arc<Module>, local: Rc<Local>) -> Result<Self, Fault> {
        let instance = Box::new(module.make_at_once(&local)?);
        Ok(Shared {
            module,
            local,
            slots: RefCell::new(Slots {
                current: Some(instance),
                former: None,
                newest: 0,
                barren: false,
            }),
            holds: Holds::default(),
        })
    }

    fn run(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Result<Flow, Fault> {
        let Some(call) = self.module.begin(phase, end, exchange, &self.holds) else {
            return Ok(Flow::Continue);
        };
        // The guest can't reach this filter, so nobody else holds the slots; taking the instance out makes sure that
        // whatever goes wrong, it is not used again.
        let slots = &mut *self.slots.borrow_mut();
        slots.newest = slots.newest.max(call.id);
        let former = slots.former.take_if(|former| call.id <= former.through);
        let through = former.as_ref().map(|former| former.through);
        let taken = match former {
            Some(former) => Some(former.instance),
            None => slots.current.take(),
        };
        let mut instance = match taken {
            Some(instance) => instance,
            None => self.make(slots)?,
        };
        let flow = instance.call(call, exchange)?;
        match self.module.judge(call, flow, exchange, &self.holds) {
            Ok(flow) => {
                match through {
                    None => slots.current = Some(instance),
                    Some(through) => {
                        slots.former = Some(Former {
                            instance,
                            through,
                            used: self.module.now(),
                        });
                    }
                }
                Ok(flow)
            }
            Err(fault) => {
                instance.discard(Discard::Failed);
                Err(fault)
            }
        }
    }

    fn make(&self, slots: &mut Slots) -> Result<Box<Instance<AtOnce>>, Fault> {
        let made = self.module.make_at_once(&self.local).map(Box::new);
        slots.barren = made.is_err();
        made
    }

    /// An exchange is over, and its client has its answer: the time for what need not be done while one waits.
    fn tidy(&self, id: u64) {
        self.holds.end(id);
        let slots = &mut *self.slots.borrow_mut();
        let wanted = slots
            .current
            .as_ref()
            .is_none_or(|current| current.holds_much());
        if wanted
            && !slots.barren
            && let Ok(new) = self.make(slots)
            && let Some(old) = slots.current.replace(new)
        {
            let former = slots.former.replace(Former {
                instance: old,
                through: slots.newest,
                used: self.module.now(),
            });
            if let Some(older) = former {
                older.instance.discard(Discard::Recycled);
            }
        }
        let rested = |former: &Former| self.module.now().saturating_sub(former.used) >= PATIENCE;
        if slots.former.as_ref().is_some_and(rested)
            && let Some(former) = slots.former.take()
        {
            former.instance.discard(Discard::Recycled);
        }
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
            self.tidy(exchange.borrow().id);
        }
        let result = result.map_err(|fault| -> FilterError { self.module.error(phase, fault) });
        self.local.pace(result, exchange)
    }
}
