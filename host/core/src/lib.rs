//! The words that every floor of tidegate uses: an exchange and what may be done to it, the phases that
//! filters take part in, the one body type, errors, clock, metrics handles, and the services that filters
//! reach through the host.
//!
//! This crate opens no socket, runs no wasm, spawns no task and reads no file. A thing belongs here only if
//! two floors above speak of it. It imports no other crate of the workspace.
//!
//! Reading order: [`exchange`] (what a request is while it is here), [`phase`] (when filters see it),
//! [`filter`] (the contract between the gateway and anything that can run a filter), [`services`] (what a
//! filter may ask of the host).
#![forbid(unsafe_code)]

pub mod body;
pub mod certificate;
pub mod clock;
pub mod error;
pub mod exchange;
pub mod fields;
pub mod filter;
pub mod http1;
pub mod limiter;
pub mod metrics;
pub mod pace;
pub mod path;
pub mod phase;
pub mod services;
pub mod survey;
mod undo;
pub mod usage;
