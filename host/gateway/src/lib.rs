//! One request's way: checked, routed, through the filters, to the upstream, back, and into the log.
//!
//! Knows no files and no configuration format: it is given a [`Snapshot`] and [`Settings`]. Statuses of failures are
//! chosen in `answer` and nowhere else.
//!
//! Reading order: `connection` (a client's connection; `h1` serves one that speaks HTTP/1, `h2_io` and `h2_guard`
//! are the bytes of HTTP/2), `serve` (the whole way
//! on one screen) and what it calls: `admit` and `head`, `route`, `chain` (what filters see and decide; `call` is one
//! call, `whole` and `filter_body` are bodies), `forward`, `leave`; then `journey` (the end of it, and the log).
#![forbid(unsafe_code)]

pub mod access_log;
mod admit;
mod alone;
mod answer;
mod call;
mod chain;
mod connection;
mod figures;
mod filter_body;
mod forward;
mod forwarded;
mod guest_calls;
mod h1;
mod h2_guard;
mod h2_io;
mod head;
mod journey;
mod leave;
mod marks;
mod pattern;
mod plan;
#[doc(hidden)]
pub mod probe;
mod quarantine;
mod route;
mod serve;
mod settings;
mod signals;
mod snapshot;
pub mod state;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod timer;
mod trailers;
mod tunnel;
mod upload;
mod whole;
mod worker;

pub use alone::{AloneError, alone};
pub use answer::CONNECTION_REFUSED;
pub use connection::{Drain, DrainTrigger};
pub use pattern::{HostPattern, PathPattern, PatternError};
pub use quarantine::{Quarantine, QuarantineSettings, Quarantined};
pub use route::{Conflict, RouteSpec};
pub use settings::{Limits, Settings, Underscores};
pub use snapshot::{Failure, FilterSlot, Snapshot};
pub use stream::{ClientStream, Plain};
pub use worker::{Shared, Worker};
