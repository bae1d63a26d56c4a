//! A filter that is loaded: what all of its workers share, and the rules on its decisions that hold whichever way
//! its instances are kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::error::{Fault, FilterError, Limit, Overrun};
use tidegate_core::filter::{Filter, FilterModule, SharedExchange, WorkerServices};
use tidegate_core::phase::{BodyMode, BodyWish, Flow, Interests, Phase, Phases};
use tidegate_core::usage::{Discard, Isolation, Usage};

use super::call::{AtOnce, Call, Configured, MayWait, at_once};
use super::exclusive::Exclusive;
use super::instance::Instance;
use super::leased::Leased;
use super::pristine::Pristine;
use super::shared::Shared;
use super::state::{Facts, Local, State};
use super::{Capability, Checked, Linked};
use crate::contract;
use crate::detect::Shape;
use crate::error::LoadError;
use crate::options::LoadOptions;
use crate::time;

/// A loaded filter, as the gateway holds it.
struct Loaded(Arc<Module>);

/// What a loaded filter's workers share.
pub(super) struct Module {
    pub(super) facts: Arc<Facts>,
    linked: Arc<Linked>,
    pub(super) interests: Interests,
    exported: Phases,
    isolation: Isolation,
    /// What an instance is put back to when its exchange is over, if it can be.
    pristine: Option<Pristine>,
    /// Whether its calls run on stacks of their own.
    waits: bool,
}

/// The longest processor time of a call for which the worker's other exchanges are made to wait. A filter that may take
/// longer gives way at every tick, for which it needs a stack of its own.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The most instances that are made ahead.
const MAX_SPARES: usize = 16;

/// Checks a filter's grants and bounds, makes one instance to learn what it wants, and puts it into service.
pub(crate) fn load(
    linked: &Arc<Linked>,
    checked: &Checked,
    shape: &Shape,
    options: LoadOptions,
) -> Result<Arc<dyn FilterModule>, LoadError> {
    let LoadOptions {
        name,
        config,
        allow,
        limits,
        isolation,
        services,
    } = options;
    for capability in &checked.capabilities {
        let (granted, what, example) = match capability {
            Capability::Http => (!allow.http.is_empty(), "an upstream", "UPSTREAM"),
            Capability::Store => (!allow.store.is_empty(), "a namespace", &*name),
            Capability::Environment => (!allow.env.is_empty(), "a value", "VARIABLE"),
        };
        if !granted && !checked.optional.contains(capability) {
            return Err(LoadError::NotGranted {
                import: format!("{}/{}", contract::PACKAGE, capability.interface()),
                what,
                line: format!("allow = {{ {} = [\"{example}\"] }}", capability.key()),
                filter: name,
            });
        }
    }
    for (limit, needed, bound) in [
        (Limit::Memory, shape.memory.min, limits.memory as u64),
        (Limit::Table, shape.table, u64::from(limits.table)),
    ] {
        if needed > bound {
            return Err(LoadError::TooLarge {
                filter: name,
                limit,
                needed,
                bound,
            });
        }
    }
    // Without an upstream that it may call, it has nothing to wait for.
    let calls = checked.waits && !(checked.runs_at_once() && allow.http.is_empty());
    if calls && isolation == Some(Isolation::Shared) {
        return Err(LoadError::Isolation { filter: name });
    }
    let patient = calls || limits.time > AT_ONCE;
    let isolation = isolation.unwrap_or(if patient {
        Isolation::Exclusive
    } else {
        Isolation::Shared
    });
    let waits = patient && isolation != Isolation::Shared;

    for namespace in &allow.store {
        services.store.bound(namespace, limits.store);
    }
    let stack = linked.stack();
    let facts = Arc::new(Facts::new(name, config, allow, limits, services, stack));
    let state = State::new(Arc::clone(&facts), Local::at_load());
    let before = time::processor();
    let made = if waits {
        let code = linked.waiting(shape)?;
        at_once(Instance::<MayWait>::make(code, state))
            .map(|made| made.map(|made| first(made, isolation)))
    } else {
        let code = linked.at_once().ok_or_else(|| LoadError::Isolation {
            filter: Arc::clone(&facts.name),
        })?;
        at_once(Instance::<AtOnce>::make(code, state))
            .map(|made| made.map(|made| first(made, isolation)))
    };
    facts.began(time::processor().saturating_sub(before));
    let filter = Arc::clone(&facts.name);
    let failed = |fault| LoadError::Failed {
        filter: Arc::clone(&filter),
        phase: Phase::Configure,
        fault,
    };
    let (configured, pristine) = made.unwrap_or_else(|| Err(gave_way())).map_err(failed)?;
    let interests = match configured {
        Configured::Refused(message) => return Err(LoadError::Refused { filter, message }),
        Configured::Interests(interests) => interests,
        Configured::NotExported => everything(checked.phases),
    };
    if let Some(missing) = interests
        .phases
        .iter()
        .find(|phase| !checked.phases.has(*phase))
    {
        return Err(LoadError::MissingExport {
            export: format!("`{}`", contract::export_name(missing)),
            needed_by: format!("what its configure asked for ({missing})"),
        });
    }
    Ok(Arc::new(Loaded(Arc::new(Module {
        interests: bounded(interests, facts.limits.body),
        facts,
        linked: Arc::clone(linked),
        exported: checked.phases,
        isolation,
        pristine,
        waits,
    }))))
}

/// What the first instance said of its configuration, and what it was then, if that is to be kept.
fn first<M: super::call::Mode>(
    (mut instance, configured): (Instance<M>, Configured),
    isolation: Isolation,
) -> (Configured, Option<Pristine>) {
    let fresh = isolation == Isolation::Fresh;
    let pristine = fresh.then(|| instance.keep()).flatten();
    (configured, pristine)
}

/// The fault of a guest that stops before its first exchange without being done. Nothing that is at hand there can
/// wait, so it never happens.
fn gave_way() -> Fault {
    Fault::Instantiate("it waits for something before its first exchange".to_owned())
}

/// The interests of a filter without `configure`: what it exports, with bodies as they stream.
fn everything(phases: Phases) -> Interests {
    let stream = BodyWish {
        mode: BodyMode::Stream,
        ..BodyWish::default()
    };
    Interests {
        phases,
        request_body: stream,
        response_body: stream,
    }
}

/// Puts the operator's bound in place of none or of a larger one.
fn bounded(mut interests: Interests, bound: u32) -> Interests {
    for wish in [&mut interests.request_body, &mut interests.response_body] {
        if wish.limit == 0 || wish.limit > bound {
            wish.limit = bound;
        }
    }
    interests
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.0.facts.name)
            .field("interests", &self.0.interests)
            .finish_non_exhaustive()
    }
}

impl FilterModule for Loaded {
    fn name(&self) -> &Arc<str> {
        &self.0.facts.name
    }

    fn interests(&self) -> &Interests {
        &self.0.interests
    }

    fn isolation(&self) -> Isolation {
        self.0.isolation
    }

    fn usage(&self) -> Usage {
        self.0.facts.meter.usage()
    }

    fn on_worker(&self, services: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError> {
        let module = Arc::clone(&self.0);
        let local = Local::of_worker(&module.facts, services);
        let made: Result<Rc<dyn Filter>, Fault> = match (module.waits, module.isolation) {
            (true, _) => Exclusive::new(module, local).map(|filter| Rc::new(filter) as _),
            (false, Isolation::Shared) => {
                Shared::new(module, local).map(|filter| Rc::new(filter) as _)
            }
            (false, _) => Leased::new(module, local).map(|filter| Rc::new(filter) as _),
        };
        made.map_err(|fault| self.0.error(Phase::Configure, fault))
    }
}

impl Module {
    /// Makes an instance whose calls never wait.
    pub(super) fn make_at_once(&self, local: &Rc<Local>) -> Result<Instance<AtOnce>, Fault> {
        let code = self.linked.at_once().ok_or_else(gave_way)?;
        let state = State::new(Arc::clone(&self.facts), Rc::clone(local));
        at_once(Instance::make(code, state))
            .unwrap_or_else(|| Err(gave_way()))
            .and_then(accepted)
    }

    /// Makes an instance whose calls may wait, and give way.
    pub(super) fn make_waiting(&self, local: &Rc<Local>) -> Result<Instance<MayWait>, Fault> {
        let code = self.linked.linked_waiting().ok_or_else(gave_way)?;
        let state = State::new(Arc::clone(&self.facts), Rc::clone(local));
        at_once(Instance::make(code, state))
            .unwrap_or_else(|| Err(gave_way()))
            .and_then(accepted)
            .map(Instance::gives_way)
    }

    /// The steady clock.
    pub(super) fn now(&self) -> u64 {
        self.facts.services.clock.monotonic()
    }

    /// Whether one more instance may be at work.
    pub(super) fn room(&self, busy: usize) -> Result<(), Fault> {
        let bound = self.facts.limits.instances;
        if busy < bound as usize {
            return Ok(());
        }
        self.facts.meter.over(Limit::Instances);
        Err(Fault::Over(Overrun {
            limit: Limit::Instances,
            bound: u64::from(bound),
            value: busy as u64 + 1,
            trap: String::new(),
        }))
    }

    /// Why an instance whose exchange is over is of no further use, if it is of none. `wanted` says that there are not too
    /// many idle ones.
    pub(super) fn after<M: super::call::Mode>(
        &self,
        instance: &mut Instance<M>,
        wanted: bool,
    ) -> Option<Discard> {
        if self.isolation == Isolation::Fresh {
            // Put back to its beginning, it is a new one.
            let renewed = wanted
                && self
                    .pristine
                    .as_ref()
                    .is_some_and(|pristine| instance.renew(pristine));
            (!renewed).then_some(Discard::Spent)
        } else if instance.holds_much() {
            Some(Discard::Recycled)
        } else {
            (!wanted).then_some(Discard::Retired)
        }
    }

    /// How many instances should be made ahead where so many idle ones are wanted. Those that are used again are at hand
    /// already.
    pub(super) fn spares(&self, wanted: usize) -> usize {
        match self.isolation {
            Isolation::Fresh => wanted.min(MAX_SPARES),
            Isolation::Exclusive | Isolation::Shared => 0,
        }
    }

    pub(super) fn error(&self, phase: Phase, fault: Fault) -> FilterError {
        FilterError {
            filter: Arc::clone(&self.facts.name),
            phase,
            fault,
        }
    }

    /// What to call the guest with, if it is to be called.
    pub(super) fn begin(
        &self,
        phase: Phase,
        end: bool,
        exchange: &SharedExchange,
        holds: &Holds,
    ) -> Option<Call> {
        let mut exchange = exchange.borrow_mut();
        if !self.interests.phases.has(phase) && !holds.has(exchange.id, phase) {
            return None;
        }
        // An answer that an earlier call gave and did not ask for is nobody's.
        exchange.answer = None;
        Some(Call {
            phase,
            id: exchange.id,
            length: u32::try_from(exchange.chunk.len()).unwrap_or(u32::MAX),
            end,
        })
    }

    /// Holds a guest to what its decision means.
    pub(super) fn judge(
        &self,
        call: Call,
        flow: Flow,
        exchange: &SharedExchange,
        holds: &Holds,
    ) -> Result<Flow, Fault> {
        match flow {
            Flow::Continue => {}
            Flow::Answer if exchange.borrow().answer.is_none() => {
                return Err(Fault::Contract(
                    "it returned `answer` without giving an answer that was accepted".to_owned(),
                ));
            }
            Flow::Answer => {}
            Flow::Hold => {
                let body = match call.phase {
                    Phase::RequestHead => Phase::RequestBody,
                    Phase::ResponseHead => Phase::ResponseBody,
                    _ => {
                        return Err(Fault::Contract(format!(
                            "it returned `hold` in {}, where only a head can be held",
                            call.phase
                        )));
                    }
                };
                if !self.exported.has(body) {
                    return Err(Fault::Contract(format!(
                        "it returned `hold` but exports no `{}`",
                        contract::export_name(body)
                    )));
                }
                if !self.interests.phases.has(body) {
                    holds.add(call.id, body);
                }
            }
        }
        Ok(flow)
    }
}

/// An instance, if it accepted its configuration. That it did at load does not bind it.
fn accepted<M: super::call::Mode>(
    (instance, configured): (Instance<M>, Configured),
) -> Result<Instance<M>, Fault> {
    match configured {
        Configured::Refused(message) => Err(Fault::Refused(message)),
        Configured::Interests(_) | Configured::NotExported => Ok(instance),
    }
}

/// The bodies that a filter asked for by holding a head, though they are not among its interests.
#[derive(Default)]
pub(super) struct Holds(RefCell<Vec<(u64, Phase)>>);

impl Holds {
    fn add(&self, id: u64, body: Phase) {
        self.0.borrow_mut().push((id, body));
    }

    fn has(&self, id: u64, body: Phase) -> bool {
        self.0.borrow().contains(&(id, body))
    }

    /// Forgets an exchange.
    pub(super) fn end(&self, id: u64) {
        self.0.borrow_mut().retain(|(held, _)| *held != id);
    }
}
