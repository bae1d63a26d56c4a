//! The system tests: what issue and documentation promise, seen from outside. One module a topic, each test
//! named after the behaviour. They share nothing, so that they can run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't go on has failed, and says so on the terminal"
)]

/// Which route takes a request, and that no spelling of a path walks around one.
mod routing;

/// What a proxy changes on a request and a response, and what it leaves alone.
mod forwarding;

/// Bytes in both directions: streamed, bounded, whole.
mod bodies;

/// What upstreams do wrong, and the one right answer to each.
mod faults;

/// What upstreams do wrong, told apart, and not made worse.
mod upstream_reasons;

/// Endpoints that are given by name, and names that lead elsewhere.
mod names;

/// Requests that could be read in two ways, in raw bytes.
mod http1_framing;

/// What the next server is sent, byte for byte, when a client tries to slip something through.
mod smuggling;

/// Every head that is refused, and that nothing of it goes on.
mod refused_heads;

/// What the client is sent, byte for byte, when an upstream does.
mod answers;

/// Listening sockets that outlive the process.
mod handover;

/// Balancers in front that say for whom they speak before anything else.
mod proxy_protocol;

/// How long others of a worker wait while a guest runs to its bound.
mod stalls;

/// HTTP/2 downstream and upstream.
mod http2;

/// HTTP/2 frame by frame: each rule that a client can break.
mod http2_spec;

/// HTTP/2 requests that are none, by their fields.
mod http2_messages;

/// HTTP/2 clients that mean harm.
mod http2_floods;

/// TLS downstream and upstream.
mod tls;

/// Certificates that are renewed, well and badly, while clients come.
mod certificates;

/// A real gRPC client and server.
mod grpc;

/// Tunnels: WebSocket and other upgrades.
mod websocket;

/// Files that change while requests run.
mod reload;

/// Instances: who shares them, and what happens when there are no more.
mod isolation;

/// Connections over workers.
mod spread;

/// Files under odd circumstances.
mod odd_files;

/// The process among others: signals, limits of the system, little or nothing that it may do.
mod process;

/// What must not be seen, looked for wherever something can be seen.
mod secrets;

/// Disks that are full and pipes without a reader.
mod disk;

/// How the proxy ends.
mod drain;

/// What the proxy says of itself.
mod admin;

/// One line a request.
mod access_log;

/// Compiled modules on disk.
mod cache;

/// What is said about a configuration that can't be used, and the commands beside `run`.
mod config_errors;

/// What filters can do to an exchange, and what a broken one can't do to others.
mod filters;

/// What a failing filter leads to: events, quarantine, self-check, figures.
mod failures;

/// Clients that are slow, greedy or gone.
mod slow_clients;

/// One meaning for what can be written in several ways, and one reason for each refusal.
mod spelling;

/// How many connections there may be, of whom, for how long.
mod connection_bounds;

/// That what the documents promise is tested.
mod promises;

/// The native contract from end to end, for both carriers.
mod contract;

/// `auth`, whose issuers and servers are upstreams.
mod auth;

/// The filters that ship.
mod shipped;

/// The filter `headers` in all its parts, over real connections.
mod shipped_headers;

/// The recipes of `docs/filters/`.
mod recipes;

/// What the shipped limit does over real connections.
mod limit;

/// Each folder of `examples/`, run as its README says.
mod examples;

/// Files that were made to harm whoever compiles or loads them.
mod hostile_files;

/// Filters that do what no filter should, each with neighbours that must not notice.
mod hostile_guests;

/// What many reloads, many requests and many connections leave behind.
mod endurance;
