//! A worker's filter whose calls may wait: an instance belongs to one exchange from its first call to its end, so
//! that a guest that waits holds up nobody else, and is used for another exchange afterwards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tidegate_core::error::{Fault, FilterError};
use tidegate_core::filter::{Filter, Outcome, SharedExchange};
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::usage::Discard;

use super::call::{Call, MayWait};
use super::demand::{Demand, Spread};
use super::instance::Instance;
use super::module::{Holds, Module};
use super::state::Local;

pub(super) struct Exclusive(Rc<Inner>);

struct Inner {
    module: Arc<Module>,
    local: Rc<Local>,
    pool: RefCell<Pool>,
    holds: Holds,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Instance<MayWait>>,
    /// The exchanges that have an instance, by their id.
    busy: HashMap<u64, Lease, Spread>,
    /// How many leases there were: an id may be used again.
    leases: u64,
    demand: Demand,
    /// Whether the last attempt to make an instance failed. The next one is the next exchange's.
    barren: bool,
}

/// One exchange's instance.
struct Lease {
    number: u64,
    /// None while a call runs.
    instance: Option<Instance<MayWait>>,
    /// Calls of the other direction that wait for the one that runs.
    waiting: Vec<Waker>,
}

/// What a call runs on.
struct Taken {
    /// None: one must be made.
    instance: Option<Instance<MayWait>>,
    /// The lease's number.
    lease: u64,
}

impl Exclusive {
    pub(super) fn new(module: Arc<Module>, local: Rc<Local>) -> Result<Self, Fault> {
        let instance = module.make_waiting(&local)?;
        let pool = Pool {
            idle: vec![instance],
            ..Pool::default()
        };
        Ok(Exclusive(Rc::new(Inner {
            module,
            local,
            pool: RefCell::new(pool),
            holds: Holds::default(),
        })))
    }
}

impl Filter for Exclusive {
    fn name(&self) -> &Arc<str> {
        &self.0.module.facts.name
    }

    fn interests(&self) -> &Interests {
        &self.0.module.interests
    }

    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome {
        let inner = &self.0;
        let Some(call) = inner.module.begin(phase, end, exchange, &inner.holds) else {
            if phase == Phase::Log {
                inner.release(exchange.borrow().id);
            }
            return Outcome::Ready(Ok(Flow::Continue));
        };
        let future = Rc::clone(inner).run(call, Rc::clone(exchange));
        let mut future: Pin<Box<dyn Future<Output = Result<Flow, FilterError>>>> = Box::pin(future);
        // Most calls do not wait; who polls again brings a waker of his own.
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(result) => Outcome::Ready(result),
            Poll::Pending => Outcome::Pending(future),
        }
    }
}

impl Inner {
    async fn run(
        self: Rc<Self>,
        call: Call,
        exchange: SharedExchange,
    ) -> Result<Flow, FilterError> {
        let result = self.run_leased(call, &exchange).await;
        if result.is_ok() {
            self.local.paced(&exchange).await;
        }
        if call.phase == Phase::Log {
            self.release(call.id);
        }
        result.map_err(|fault| self.module.error(call.phase, fault))
    }

    async fn run_leased(&self, call: Call, exchange: &SharedExchange) -> Result<Flow, Fault> {
        let taken = poll_fn(|cx| self.take(call.id, cx)).await?;
        // From here to `keep` the lease ends when this is dropped, and the instance with it.
        let guard = Running {
            inner: self,
            id: call.id,
            number: taken.lease,
        };
        let mut instance = match taken.instance {
            Some(instance) => instance,
            None => {
                let made = self.module.make_waiting(&self.local);
                self.pool.borrow_mut().barren = made.is_err();
                made?
            }
        };
        let flow = instance.call(call, exchange).await?;
        match self.module.judge(call, flow, exchange, &self.holds) {
            Ok(flow) => {
                guard.keep(instance);
                Ok(flow)
            }
            Err(fault) => {
                instance.discard(Discard::Failed);
                Err(fault)
            }
        }
    }

    /// Takes the exchange's instance for a call. Waits while another call of the same
    /// exchange runs.
    fn take(&self, id: u64, cx: &mut Context<'_>) -> Poll<Result<Taken, Fault>> {
        let mut pool = self.pool.borrow_mut();
        let Pool {
            idle,
            busy,
            leases,
            demand,
            ..
        } = &mut *pool;
        if let Some(lease) = busy.get_mut(&id) {
            return match lease.instance.take() {
                Some(instance) => Poll::Ready(Ok(Taken {
                    instance: Some(instance),
                    lease: lease.number,
                })),
                None => {
                    lease.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        if let Err(fault) = self.module.room(busy.len()) {
            return Poll::Ready(Err(fault));
        }
        demand.busy(busy.len() + 1);
        let instance = idle.pop();
        *leases += 1;
        let lease = Lease {
            number: *leases,
            instance: None,
            waiting: Vec::new(),
        };
        busy.insert(id, lease);
        Poll::Ready(Ok(Taken {
            instance,
            lease: *leases,
        }))
    }

    /// Ends an exchange: its instance may serve another one, or is spent. Its client has its answer, so it is the
    /// time to make what the next one will want.
    fn release(&self, id: u64) {
        self.holds.end(id);
        let pool = &mut *self.pool.borrow_mut();
        let mut waiting = Vec::new();
        let ended = pool.busy.remove(&id);
        let busy = pool.busy.len();
        let wanted = pool.demand.idle(busy);
        if let Some(lease) = ended {
            waiting = lease.waiting;
            pool.demand.ended(busy);
            if let Some(mut instance) = lease.instance {
                match self.module.after(&mut instance, pool.idle.len() < wanted) {
                    None => pool.idle.push(instance),
                    Some(why) => instance.discard(why),
                }
            }
            if pool.idle.len() > wanted
                && let Some(surplus) = pool.idle.pop()
            {
                surplus.discard(Discard::Retired);
            }
        }
        if pool.idle.len() < self.module.spares(wanted) && !pool.barren {
            match self.module.make_waiting(&self.local) {
                Ok(instance) => pool.idle.push(instance),
                Err(_) => pool.barren = true,
            }
        }
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A call that runs on an exchange's instance.
struct Running<'a> {
    inner: &'a Inner,
    id: u64,
    /// The lease's number: if another one has taken its place, the exchange ended while the call ran.
    number: u64,
}

impl Running<'_> {
    /// Gives the instance back to its exchange.
    fn keep(self, instance: Instance<MayWait>) {
        let waiting = match self.inner.pool.borrow_mut().busy.get_mut(&self.id) {
            Some(lease) if lease.number == self.number => {
                lease.instance = Some(instance);
                std::mem::take(&mut lease.waiting)
            }
            _ => Vec::new(),
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut pool = self.inner.pool.borrow_mut();
        let failed = pool
            .busy
            .get(&self.id)
            .is_some_and(|lease| lease.number == self.number && lease.instance.is_none());
        if failed && let Some(lease) = pool.busy.remove(&self.id) {
            drop(pool);
            lease.waiting.into_iter().for_each(Waker::wake);
        }
    }
}
