//! The contract between the gateway and whatever can run a filter. Every ABI stands behind these two traits;
//! the gateway knows no other way to a guest.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::error::FilterError;
use crate::exchange::Exchange;
use crate::phase::{Flow, Interests, Phase};
use crate::services::HttpClient;
use crate::usage::{Isolation, Usage};

/// An exchange as the gateway and a filter's host functions share it, on one thread. Nobody holds a borrow
/// across a call into a filter or across an `await`.
pub type SharedExchange = Rc<RefCell<Exchange>>;

/// What stands on one worker for the filters of that worker.
#[derive(Clone)]
pub struct WorkerServices {
    /// Sends the guests' HTTP calls.
    pub http: Rc<dyn HttpClient>,
    /// Lets the worker's other tasks, and what came from outside, have their turn.
    pub give_way: GiveWay,
    /// Waits.
    pub sleep: Sleep,
}

/// Makes a future that is done when everything else that is ready has had its turn.
pub type GiveWay = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a future that is done after a while.
pub type Sleep = fn(Duration) -> Pin<Box<dyn Future<Output = ()>>>;

/// A filter that is compiled, linked and has accepted its configuration. Shared by all workers; dropping the
/// last reference frees its code.
pub trait FilterModule: Debug + Send + Sync {
    /// The filter's name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// What it is called for. The same for every instance.
    fn interests(&self) -> &Interests;

    /// How exchanges share its instances.
    fn isolation(&self) -> Isolation {
        Isolation::default()
    }

    /// What its instances hold and have used, all workers together.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Makes this worker's filter, with at least one configured instance where instances are reused.
    ///
    /// # Errors
    /// [`Fault::Instantiate`](crate::error::Fault::Instantiate) or
    /// [`Fault::Refused`](crate::error::Fault::Refused).
    fn on_worker(&self, services: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError>;
}

/// One worker's filter.
pub trait Filter {
    /// The filter's name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// What it is called for.
    fn interests(&self) -> &Interests;

    /// Runs one phase of one exchange. The caller has set [`Exchange::stage`] and, in body phases,
    /// [`Exchange::chunk`]; `end` says that nothing follows (head and body phases).
    ///
    /// A phase outside of the filter's interests returns [`Flow::Continue`] and calls nobody. An instance that
    /// failed is never used again; the next exchange gets another one.
    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome;
}

/// How a call ended, or how to wait for it.
pub enum Outcome {
    /// It is done.
    Ready(Result<Flow, FilterError>),
    /// The guest waits for something. Dropping the future ends the call and discards the instance.
    Pending(Pin<Box<dyn Future<Output = Result<Flow, FilterError>>>>),
}
