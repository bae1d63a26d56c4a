//! The running proxy: workers that serve, and one control thread that never touches a request: it watches files, builds
//! snapshots, opens sockets, shows the admin pages, and answers to signals.
//!
//! Reading order: `control` (the control thread's loop on one screen), `pass` (what a change of files leads to),
//! `filters` (which version of each filter runs), `settle` and `watch` (when to look), `worker`, `accept` and `balance` (the
//! workers' side), `listeners` and `tls`, `admin`, `drain`.

mod accept;
mod admin;
mod backoff;
mod balance;
mod bounds;
mod build;
mod control;
mod descriptors;
mod drain;
mod filters;
mod inherited;
mod listen;
mod listeners;
mod memory;
mod pass;
mod proxied;
mod pulse;
mod settle;
mod signals;
mod stamp;
mod standing;
mod start;
mod tell;
mod tls;
mod together;
mod watch;
mod worker;

pub(crate) use self::start::{StartError, start};
