//! The whole way of a request: whose turn, which connection, the answer or the error, and the few second attempts
//! that `retry` allows. Knows no byte of either protocol.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tidegate_core::body::Body;
use tidegate_core::metrics::Registry;
use tidegate_core::survey::Survey;

use crate::body::{self, Terms};
use crate::connect::{self, Channel};
use crate::endpoint::Scheme;
use crate::error::{Failure, Lost, SendError, SendErrorKind};
use crate::http1::{self, Answered, Http1, Lease};
use crate::http2::{self, Http2};
use crate::message;
use crate::pool::{Known, Place, Pool, Shelf};
use crate::retry::{self, Attempt, Loss, Next};
use crate::timer::after;
use crate::upload::Upload;
use crate::upstream::{Upstream, UpstreamConfig};
use crate::{Interim, Upgraded};

/// The most endpoints that are tried for one request.
const MAX_ENDPOINTS: usize = 3;

/// One worker's way to all upstreams. Lives on one thread, inside a runtime that can spawn local tasks.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Rc<Pool>,
}

/// An answer and where it came from.
#[derive(Debug)]
pub struct Sent {
    /// The answer. Its body gives the connection back when it is read to its end and breaks it off when it is
    /// dropped before.
    pub response: Response<Body>,
    /// Which of the fields that mean something to a proxy its head has.
    pub seen: Survey,
    /// The connection, if the answer is a 101: it has left HTTP.
    pub upgraded: Option<Upgraded>,
    /// The endpoint that answered.
    pub endpoint: Arc<str>,
    /// How often an endpoint was tried, this time included.
    pub attempts: u32,
}

/// What the attempts of one request have in common.
struct Task<'a> {
    config: &'a UpstreamConfig,
    known: Rc<Known>,
    upload: Option<Rc<Upload>>,
    upgrade: bool,
    idempotent: bool,
    attempts: u32,
    interim: Option<Arc<dyn Interim>>,
}

/// A connection for one request.
enum Way {
    Http1(Lease),
    Http2 { connection: Rc<Http2>, reused: bool },
}

/// An endpoint that brought no answer.
struct Failed {
    error: SendError,
    /// Whether the next endpoint may have the request.
    goes_on: bool,
}

impl Client {
    /// A client without connections.
    pub fn new(registry: Arc<Registry>, worker: usize) -> Self {
        Client {
            pool: Rc::new(Pool::new(registry, worker)),
        }
    }

    /// Sends a request and waits for the head of its response. Dropping the future breaks the attempt off.
    ///
    /// `interim` hears of the responses before the final one. The request has a `Host` field and no field of another connection, but `upgrade` with `connection: upgrade`
    /// if it is to become a tunnel. Its version is ignored.
    ///
    /// # Errors
    /// See [`SendErrorKind`].
    pub async fn send(
        &self,
        upstream: &Arc<Upstream>,
        mut request: Request<Body>,
        interim: Option<Arc<dyn Interim>>,
    ) -> Result<Sent, SendError> {
        let mut task = Task {
            interim,
            config: upstream.config(),
            known: self.pool.known(upstream),
            upload: Upload::watch(&mut request),
            upgrade: message::wants_upgrade(request.headers()),
            idempotent: retry::is_idempotent(request.method()),
            attempts: 0,
        };
        let mut last = SendError {
            kind: SendErrorKind::NoEndpoint,
            endpoint: None,
            attempts: 0,
            detail: String::new(),
        };
        let known = task.known.clone();
        for place in known.turn(upstream).take(MAX_ENDPOINTS) {
            match self.send_to(&mut task, place, &mut request).await {
                Ok((response, seen, upgraded)) => {
                    return Ok(Sent {
                        response,
                        seen,
                        upgraded,
                        endpoint: place.target.label.clone(),
                        attempts: task.attempts,
                    });
                }
                Err(failed) if failed.goes_on => last = failed.error,
                Err(failed) => return Err(failed.error),
            }
        }
        if last.attempts == 0 {
            known.figures.failed(&last.kind);
        }
        Err(last)
    }

    /// Sends a request to one endpoint: once, or twice if that is safe.
    async fn send_to(
        &self,
        task: &mut Task<'_>,
        place: &Place,
        request: &mut Request<Body>,
    ) -> Result<Answer, Failed> {
        let mut repeated = false;
        loop {
            task.attempts += 1;
            task.known.figures.attempts.increment();
            if task.attempts > 1 {
                task.known.figures.retries.increment();
            }
            let mut reused = false;
            let lost = match self.way(task, place, repeated).await {
                Err(failure) => Lost {
                    at_hand: true,
                    ..Lost::new(failure, Loss::NoConnection)
                },
                Ok(way) => {
                    reused = way.is_reused();
                    match self.exchange(task, place, way, request).await {
                        Ok(answer) => return Ok(answer),
                        Err(lost) => lost,
                    }
                }
            };
            task.known.figures.failed(&lost.failure.kind);
            let attempt = Attempt {
                idempotent: task.idempotent,
                reused,
                repeated,
                at_hand: lost.at_hand,
            };
            let next = retry::next(lost.loss, attempt);
            if next != Next::SameEndpoint {
                return Err(Failed {
                    error: SendError {
                        kind: lost.failure.kind,
                        endpoint: Some(place.target.label.clone()),
                        attempts: task.attempts,
                        detail: lost.failure.detail,
                    },
                    goes_on: next == Next::OtherEndpoint,
                });
            }
            repeated = true;
        }
    }

    /// A connection: one at rest or a new one. `fresh` keeps away from connections that others used before and that
    /// may be as old as the one that just failed.
    async fn way(&self, task: &Task<'_>, place: &Place, fresh: bool) -> Result<Way, Failure> {
        let (config, shelf) = (task.config, &place.shelf);
        let scheme = place.target.endpoint().scheme();
        let http1 = scheme == Scheme::Http || (scheme == Scheme::Https && task.upgrade);
        if !http1 && let Some(way) = Self::shared(shelf, config) {
            return Ok(way);
        }
        if !fresh && let Some(connection) = shelf.take() {
            return Ok(self.lease(shelf, config, connection));
        }
        // On the heap: opening is rare, and its state is far larger than all the rest of a request's.
        Box::pin(self.open(task, place, http1)).await
    }

    fn lease(&self, shelf: &Rc<Shelf>, config: &UpstreamConfig, connection: Box<Http1>) -> Way {
        Way::Http1(Lease::new(&self.pool, shelf, config, connection))
    }

    fn shared(shelf: &Shelf, config: &UpstreamConfig) -> Option<Way> {
        let connection = shelf.shared(config.bounds())?;
        Some(Way::Http2 {
            connection,
            reused: true,
        })
    }

    /// Opens a connection, or waits for somebody who does.
    async fn open(&self, task: &Task<'_>, place: &Place, http1: bool) -> Result<Way, Failure> {
        let (config, shelf) = (task.config, &place.shelf);
        let until = after(config.connect_timeout);
        let opened = tokio::time::timeout_at(until, async {
            let scheme = place.target.endpoint().scheme();
            let crowded = scheme == Scheme::H2c || (!http1 && shelf.speaks_http2());
            let gate = if crowded {
                let gate = shelf.gate.lock().await;
                // Whoever held the gate before may have opened what is needed.
                if let Some(way) = Self::shared(shelf, config) {
                    return Ok(way);
                }
                Some(gate)
            } else {
                None
            };
            let opened = connect::open(&place.target, http1, &task.known.figures, until).await?;
            let way = match opened {
                Channel::Http1(connection) => self.lease(shelf, config, connection),
                Channel::Http2(connection) => {
                    self.pool.share(shelf, &connection, config.bounds());
                    Way::Http2 {
                        connection,
                        reused: false,
                    }
                }
            };
            drop(gate);
            Ok(way)
        });
        opened.await.unwrap_or_else(|_| {
            let bound = format!("the bound is {:?}", config.connect_timeout);
            Err(Failure::new(SendErrorKind::ConnectTimedOut, bound))
        })
    }

    /// Sends a request over a connection and makes an answer of what comes. Without one, the request is as it was if it is
    /// at hand.
    async fn exchange(
        &self,
        task: &Task<'_>,
        place: &Place,
        way: Way,
        request: &mut Request<Body>,
    ) -> Result<Answer, Lost> {
        let endpoint = place.target.endpoint();
        let limit = task.config.response_timeout;
        let upload = task.upload.as_deref();
        match way {
            Way::Http1(mut lease) => {
                let interim = task.interim.as_deref();
                let answered =
                    http1::send(&mut lease, endpoint, request, upload, interim, task.config)
                        .await?;
                exclusive(answered, lease, task)
            }
            Way::Http2 { connection, .. } => {
                let interim = task.interim.clone();
                let shelf = &place.shelf;
                let sent = http2::send(
                    &connection,
                    shelf,
                    endpoint,
                    request,
                    upload,
                    interim,
                    limit,
                );
                shared(Box::pin(sent).await?, task)
            }
        }
    }

    /// The connections at rest.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Way {
    fn is_reused(&self) -> bool {
        match self {
            Way::Http1(lease) => lease.is_reused(),
            Way::Http2 { reused, .. } => *reused,
        }
    }
}

/// What an upstream answered, and the connection that has left HTTP with it.
type Answer = (Response<Body>, Survey, Option<Upgraded>);

fn invalid(detail: &str) -> Lost {
    let failure = Failure::new(SendErrorKind::InvalidResponse, detail);
    Lost::new(failure, Loss::Final)
}

fn terms(task: &Task<'_>) -> Terms {
    Terms {
        idle: task.config.idle_timeout,
        figures: task.known.figures.clone(),
        upload: task.upload.clone(),
    }
}

/// The answer of a connection that only this request uses.
fn exclusive(answered: Answered, mut lease: Lease, task: &Task<'_>) -> Result<Answer, Lost> {
    let Answered {
        response,
        framing,
        seen,
    } = answered;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !task.upgrade {
            return Err(invalid("101 without a request to switch protocols"));
        }
        let upgraded = lease.upgrade();
        return Ok((response.map(|()| Body::Empty), seen, upgraded));
    }
    if seen.has(Survey::KEEP_ALIVE)
        && let Some(seconds) = message::keep_alive_seconds(response.headers())
    {
        lease.shorten(seconds);
    }
    let body = body::exclusive(lease, framing, terms(task));
    Ok((response.map(|()| body), seen, None))
}

/// The answer of a connection that many share. One that is not valid is dropped.
fn shared(response: Response<Incoming>, task: &Task<'_>) -> Result<Answer, Lost> {
    let (mut parts, incoming) = response.into_parts();
    // Its version says nothing about the one towards the client.
    parts.version = Version::HTTP_11;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(invalid("101 over HTTP/2"));
    }
    if parts.headers.len() > task.config.head.fields {
        return Err(invalid("too many fields"));
    }
    let _: Option<u64> = message::check_framing(&parts.headers).map_err(invalid)?;
    let seen = Survey::of(&parts.headers);
    let body = body::shared(incoming, terms(task));
    Ok((Response::from_parts(parts, body), seen, None))
}
