//! A worker's filter whose calls never wait, with an instance for each exchange: used again for another one, or for no
//! other at all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::error::Fault;
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::usage::Discard;

use super::call::AtOnce;
use super::demand::{Demand, Spread};
use super::instance::Instance;
use super::module::{Holds, Module};
use super::state::Local;

pub(super) struct Leased {
    module: Arc<Module>,
    local: Rc<Local>,
    pool: RefCell<Pool>,
    holds: Holds,
}

#[derive(Default)]
struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "they are large, and go back and forth with every call"
    )]
    idle: Vec<Box<Instance<AtOnce>>>,
    /// By the exchange's id.
    busy: HashMap<u64, Box<Instance<AtOnce>>, Spread>,
    demand: Demand,
    /// Whether the last attempt to make an instance failed. The next one is the next exchange's.
    barren: bool,
}

impl Leased {
    pub(super) fn new(module: Arc<Module>, local: Rc<Local>) -> Result<Self, Fault> {
        let instance = Box::new(module.make_at_once(&local)?);
        Ok(Leased {
            module,
            local,
            pool: RefCell::new(Pool {
                idle: vec![instance],
                ..Pool::default()
            }),
            holds: Holds::default(),
        })
    }

    fn run(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Result<Flow, Fault> {
        let Some(call) = self.module.begin(phase, end, exchange, &self.holds) else {
            return Ok(Flow::Continue);
        };
        // The guest can't reach this filter, so nobody else holds the pool. Taken out of it, an instance with which
        // anything goes wrong is not used again.
        let pool = &mut *self.pool.borrow_mut();
        let mut instance = match pool.busy.remove(&call.id) {
            Some(instance) => instance,
            None => self.lease(pool)?,
        };
        let flow = instance.call(call, exchange)?;
        match self.module.judge(call, flow, exchange, &self.holds) {
            Ok(flow) => {
                pool.busy.insert(call.id, instance);
                Ok(flow)
            }
            Err(fault) => {
                instance.discard(Discard::Failed);
                Err(fault)
            }
        }
    }

    fn lease(&self, pool: &mut Pool) -> Result<Box<Instance<AtOnce>>, Fault> {
        self.module.room(pool.busy.len())?;
        pool.demand.busy(pool.busy.len() + 1);
        match pool.idle.pop() {
            Some(instance) => Ok(instance),
            None => self.make(pool),
        }
    }

    fn make(&self, pool: &mut Pool) -> Result<Box<Instance<AtOnce>>, Fault> {
        let made = self.module.make_at_once(&self.local).map(Box::new);
        pool.barren = made.is_err();
        made
    }

    /// An exchange is over, and its client has its answer: the time to make what the next one will want.
    fn release(&self, id: u64) {
        self.holds.end(id);
        let pool = &mut *self.pool.borrow_mut();
        let ended = pool.busy.remove(&id);
        let busy = pool.busy.len();
        let wanted = pool.demand.idle(busy);
        if let Some(mut instance) = ended {
            pool.demand.ended(busy);
            match self.module.after(&mut *instance, pool.idle.len() < wanted) {
                None => pool.idle.push(instance),
                Some(why) => instance.discard(why),
            }
            if pool.idle.len() > wanted
                && let Some(surplus) = pool.idle.pop()
            {
                surplus.discard(Discard::Retired);
            }
        }
        // One for the next exchange, and for those that were at work at the same time just now.
        if pool.idle.len() < self.module.spares(wanted)
            && !pool.barren
            && let Ok(instance) = self.make(pool)
        {
            pool.idle.push(instance);
        }
    }
}

impl Filter for Leased {
    fn name(&self) -> &Arc<str> {
        &self.module.facts.name
    }

    fn interests(&self) -> &Interests {
        &self.module.interests
    }

    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome {
        let result = self.run(phase, end, exchange);
        if phase == Phase::Log {
            self.release(exchange.borrow().id);
        }
        let result = result.map_err(|fault| self.module.error(phase, fault));
        self.local.pace(result, exchange)
    }
}
