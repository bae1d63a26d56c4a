//! One request's way: checked, routed, through the filters, to the upstream, back, and into the log.
//!
//! Knows no files and no configuration format: it is given a [`Snapshot`] and [`Settings`]. Statuses of failures are
//! chosen in `answer` and nowhere else. Reading order: `serve` (the whole way on one screen), `chain` (what filters
//! see and decide), `forward`.
#![forbid(unsafe_code)]

pub mod access_log;
mod answer;
mod chain;
mod connection;
mod figures;
mod filter_body;
mod forward;
mod forwarded;
mod guest_calls;
mod h1_guard;
mod head;
mod measured;
mod route;
mod serve;
mod settings;
mod snapshot;
pub mod state;
mod tunnel;
mod worker;

pub use connection::{Drain, DrainTrigger};
pub use route::{Conflict, HostPattern, PathPattern, PatternError, RouteSpec};
pub use settings::{Limits, Settings, Underscores};
pub use snapshot::{Failure, FilterSlot, Snapshot};
pub use worker::{Shared, Worker};
