//! The whole way of a request: whose turn, which connection, the answer or the error, and the few second attempts
//! that are safe.
//!
//! A request goes to another endpoint only if no connection to the first could be made. It is sent again to the
//! same endpoint, once and on a new connection, if the old one gave it back unsent; or if it has no body and may
//! be repeated and the connection, one that had rested, ended without an answer. Anything else that was sent is
//! never sent twice.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tidegate_core::body::Body;
use tidegate_core::metrics::Registry;

use crate::body::response_body;
use crate::connect::{self, Channel};
use crate::endpoint::Scheme;
use crate::error::{Failure, SendError, SendErrorKind};
use crate::exchange::{self, Lost};
use crate::figures::{Figures, UpstreamFigures};
use crate::message::{self, Progress};
use crate::pool::{Http2, Lease, Pool};
use crate::upstream::{Target, Upstream};

/// The most endpoints that are tried for one request.
const MAX_ENDPOINTS: usize = 3;

/// One worker's way to all upstreams. Lives on one thread, inside a runtime that can spawn local tasks.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Rc<Pool>,
    figures: Rc<Figures>,
}

/// An answer and where it came from.
#[derive(Debug)]
pub struct Sent {
    /// The answer. Its body gives the connection back when it is read to its end and breaks it off when it is
    /// dropped before. Its extensions are hyper's, so that an upgrade works.
    pub response: Response<Body>,
    /// The endpoint that answered.
    pub endpoint: Arc<str>,
    /// How often an endpoint was tried, this time included.
    pub attempts: u32,
}

/// What the attempts of one request have in common.
struct Task<'a> {
    upstream: &'a Arc<Upstream>,
    figures: Rc<UpstreamFigures>,
    progress: Option<Rc<Progress>>,
    upgrade: bool,
    attempts: u32,
}

/// A connection for one request.
enum Way {
    Http1 { lease: Lease, reused: bool },
    Http2 { connection: Http2, reused: bool },
}

impl Client {
    /// A client without connections.
    pub fn new(registry: Arc<Registry>, worker: usize) -> Self {
        Client {
            pool: Rc::default(),
            figures: Rc::new(Figures::new(registry, worker)),
        }
    }

    /// Sends a request and waits for the head of its response. Dropping the future breaks the attempt off.
    ///
    /// The request has a `Host` field and no field of another connection, but `upgrade` with `connection: upgrade`
    /// if it is to become a tunnel. Its version is ignored.
    ///
    /// # Errors
    /// See [`SendErrorKind`].
    pub async fn send(
        &self,
        upstream: &Arc<Upstream>,
        mut request: Request<Body>,
    ) -> Result<Sent, SendError> {
        let mut task = Task {
            upstream,
            figures: self.figures.of(upstream.name()),
            progress: Progress::watch(&mut request),
            upgrade: message::wants_upgrade(request.headers()),
            attempts: 0,
        };
        let mut last = SendError {
            kind: SendErrorKind::NoEndpoint,
            endpoint: None,
            attempts: 0,
            detail: String::new(),
        };
        for target in upstream.turn().take(MAX_ENDPOINTS) {
            let lost = match self.send_to(&mut task, target, request).await {
                Ok(response) => {
                    return Ok(Sent {
                        response,
                        endpoint: target.label.clone(),
                        attempts: task.attempts,
                    });
                }
                Err(lost) => lost,
            };
            last = SendError {
                kind: lost.failure.kind,
                endpoint: Some(target.label.clone()),
                attempts: task.attempts,
                detail: lost.failure.detail,
            };
            match lost.unsent {
                Some(unsent) if last.kind.is_before_sending() => request = *unsent,
                _ => break,
            }
        }
        Err(last)
    }

    /// Sends a request to one endpoint: once, or twice if that is safe.
    async fn send_to(
        &self,
        task: &mut Task<'_>,
        target: &Arc<Target>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Lost> {
        let mut avoid = None;
        loop {
            task.attempts += 1;
            task.figures.attempts.increment();
            let way = match self.way(task, target, avoid).await {
                Ok(way) => way,
                Err(failure) => {
                    self.count(task, &failure.kind);
                    return Err(Lost::unsent(failure, request));
                }
            };
            let (reused, id) = match &way {
                Way::Http1 { reused, .. } => (*reused, 0),
                Way::Http2 { reused, connection } => (*reused, connection.id),
            };
            let copy =
                (reused && message::is_replayable(&request)).then(|| message::copy_head(&request));
            let lost = match self.exchange(task, target, way, request).await {
                Ok(response) => return Ok(response),
                Err(lost) => lost,
            };
            self.count(task, &lost.failure.kind);
            let again = match (&lost.failure.kind, copy) {
                _ if avoid.is_some() => None,
                (SendErrorKind::ResetBeforeHead, copy) => lost.unsent.map(|back| *back).or(copy),
                _ => None,
            };
            match again {
                Some(again) => request = again,
                None => return Err(Lost::sent(lost.failure)),
            }
            avoid = Some(id);
        }
    }

    /// A connection: one at rest or a new one; only a new one if there is one to avoid.
    async fn way(
        &self,
        task: &Task<'_>,
        target: &Arc<Target>,
        avoid: Option<u64>,
    ) -> Result<Way, Failure> {
        let config = task.upstream.config();
        let lease = |connection| Lease::new(&self.pool, target, config, connection);
        let scheme = target.endpoint().scheme();
        let http1 = scheme == Scheme::Http || (scheme == Scheme::Https && task.upgrade);
        let shared = || {
            let held = self
                .pool
                .shared(&target.identity, config.keep_alive, avoid)?;
            Some(Way::Http2 {
                connection: held,
                reused: true,
            })
        };
        if !http1 && let Some(way) = shared() {
            return Ok(way);
        }
        if avoid.is_none()
            && scheme != Scheme::H2c
            && let Some(connection) = self.pool.take(&target.identity)
        {
            return Ok(Way::Http1 {
                lease: lease(connection),
                reused: true,
            });
        }
        let opened = tokio::time::timeout(config.connect_timeout, async {
            let gate = if http1 {
                None
            } else {
                self.pool.gate(&target.identity, scheme == Scheme::H2c)
            };
            let _held = match &gate {
                Some(gate) => Some(gate.lock().await),
                None => None,
            };
            // Whoever held the gate before may have opened what is needed.
            if gate.is_some()
                && let Some(way) = shared()
            {
                return Ok(way);
            }
            Ok(match connect::open(target, http1).await? {
                Channel::Http1(connection) => Way::Http1 {
                    lease: lease(connection),
                    reused: false,
                },
                Channel::Http2(sender) => Way::Http2 {
                    connection: self.pool.share(&target.identity, sender, config.keep_alive),
                    reused: false,
                },
            })
        });
        opened.await.unwrap_or_else(|_| {
            let bound = format!("the bound is {:?}", config.connect_timeout);
            Err(Failure::new(SendErrorKind::ConnectTimedOut, bound))
        })
    }

    /// Sends a request over a connection and makes an answer of what comes.
    async fn exchange(
        &self,
        task: &Task<'_>,
        target: &Target,
        way: Way,
        request: Request<Body>,
    ) -> Result<Response<Body>, Lost> {
        let config = task.upstream.config();
        let progress = task.progress.as_deref();
        let (response, lease) = match way {
            Way::Http1 { mut lease, .. } => {
                let endpoint = target.endpoint();
                let limit = config.response_timeout;
                let sent = exchange::over_http1(&mut lease, endpoint, request, progress, limit);
                (sent.await?, Some(lease))
            }
            Way::Http2 { connection, .. } => {
                let endpoint = target.endpoint();
                let limit = config.response_timeout;
                let sent = exchange::over_http2(connection, endpoint, request, progress, limit);
                (sent.await?, None)
            }
        };
        answer(response, lease, task)
    }

    /// How many HTTP/1.1 connections rest and are still open.
    #[cfg(test)]
    pub(crate) fn resting(&self) -> usize {
        self.pool.resting()
    }

    fn count(&self, task: &Task<'_>, kind: &SendErrorKind) {
        self.figures
            .failed(task.upstream.name(), &task.figures, kind);
    }
}

/// The response in our words. Its version says nothing about the one towards the client.
fn answer(
    response: Response<Incoming>,
    lease: Option<Lease>,
    task: &Task<'_>,
) -> Result<Response<Body>, Lost> {
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(lease) = lease.filter(|_| task.upgrade) else {
            let detail = "101 without a request to switch protocols";
            return Err(Lost::sent(Failure::new(
                SendErrorKind::InvalidResponse,
                detail,
            )));
        };
        lease.let_go();
        return Ok(Response::from_parts(parts, Body::Empty));
    }
    let idle = task.upstream.config().idle_timeout;
    Ok(Response::from_parts(
        parts,
        response_body(incoming, lease, idle),
    ))
}
