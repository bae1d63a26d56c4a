//! What holds for every route: bounds on clients, whom to believe, how strict to be. Plain values.

use std::time::Duration;

use ipnet::IpNet;
use tidegate_core::path::Ambiguous;

/// What to do with a request field whose name has an underscore: servers behind may read it as a hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Take it out.
    #[default]
    Drop,
    /// Answer 400.
    Refuse,
    /// Let it pass.
    Allow,
}

/// Bounds on what a client may do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first byte, or the end of the exchange before, to the end of a head.
    pub header_timeout: Duration,
    /// Rest between two exchanges.
    pub idle_timeout: Duration,
    /// How long a request's body may stand still.
    pub body_idle_timeout: Duration,
    /// Bytes of a head.
    pub max_head: usize,
    /// Fields of a head.
    pub max_fields: usize,
    /// Bytes of a target.
    pub max_target: usize,
    /// Bytes of a request's body.
    pub max_body: Option<u64>,
    /// Streams at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Requests on one connection.
    pub max_requests: Option<u64>,
    /// How old a connection may become.
    pub max_age: Option<Duration>,
    /// Bytes a second of a request's body before its response begins, on the average of the time that it is waited for,
    /// once that is as long as it may stand still.
    pub min_body_rate: u64,
}

impl Default for Limits {
    /// 10 s, 60 s, 30 s, 64 KiB, 100 fields, 16 KiB, any body, 100 streams, any number of requests, any age, any rate.
    fn default() -> Self {
        Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(30),
            max_head: 64 * 1024,
            max_fields: 100,
            max_target: 16 * 1024,
            max_body: None,
            max_concurrent_streams: 100,
            max_requests: None,
            max_age: None,
            min_body_rate: 0,
        }
    }
}

/// Everything that holds for all routes.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Names with underscores.
    pub underscores: Underscores,
    /// Paths that servers read in different ways.
    pub ambiguous_paths: Ambiguous,
    /// Our name in `Via`; none: no `Via` and no check for loops.
    pub via: Option<String>,
    /// Bounds.
    pub limits: Limits,
}
