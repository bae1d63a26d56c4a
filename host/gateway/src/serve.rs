//! A request's life from top to bottom: check, route, through the filters, forward, back through the filters, answer, log.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::clock::{Clock as _, SystemClock};
use tidegate_core::exchange::{Client, Exchange, RequestHead, TlsFacts};

use crate::access_log::{Record, rfc3339};
use crate::answer::Failure;
use crate::chain::{Chain, Stop};
use crate::forward::{self, Aside};
use crate::forwarded;
use crate::h1_guard::Signals;
use crate::head;
use crate::measured::{ClientBody, Ending, Leaving};
use crate::route::RouteSpec;
use crate::tunnel;
use crate::worker::{Live, Worker};

/// What is known of the connection that a request came on.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<Arc<TlsFacts>>,
    /// To the guard of an HTTP/1 connection.
    pub(crate) signals: Arc<Signals>,
}

/// Serves one request. Never fails: what goes wrong is an answer.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let on_upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (journey, admitted) = Journey::begin(worker, &connection, request);
    let (body, aside, closes) = match admitted {
        Ok((body, aside)) => {
            let (body, closes) = journey.run(body, &aside).await;
            (body, aside, closes)
        }
        Err(failure) => {
            let closes = failure.closes();
            (
                journey.chain.adopt(Stop::Failed(failure)),
                Aside::default(),
                closes,
            )
        }
    };
    let body = journey.chain.response(body).await;
    journey.leave(body, &aside, closes, on_upgrade, &connection.signals)
}

/// One exchange with what the log wants to know of it. Dropping it ends the exchange.
struct Journey {
    chain: Rc<Chain>,
    signals: Arc<Signals>,
    began: Instant,
    route: Cell<Option<usize>>,
    sent: RefCell<Sent>,
    request_bytes: Rc<Cell<u64>>,
    response_bytes: Cell<u64>,
    upgraded: RefCell<Option<hyper::upgrade::OnUpgrade>>,
    trailer: RefCell<Option<HeaderValue>>,
    /// Why the response broke, or that it left whole.
    end: RefCell<End>,
}

#[derive(Default)]
enum End {
    /// The response has not left whole: the client is gone.
    #[default]
    Aborted,
    Whole,
    Broken(&'static str),
}

#[derive(Default)]
struct Sent {
    upstream: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    attempts: u32,
    milliseconds: Option<f64>,
}

impl Journey {
    /// Checks the head, makes the exchange, and finds the route.
    fn begin(
        worker: Rc<Worker>,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> (Journey, Result<(Body, Aside), Failure>) {
        let settings = &worker.shared.settings;
        let (mut parts, incoming) = request.into_parts();
        let peer = connection.peer.ip();
        let trusted = forwarded::is_trusted(peer, &settings.trusted_proxies);
        let address = forwarded::client_address(peer, &parts.headers, &settings.trusted_proxies);
        if !trusted {
            forwarded::strip_untrusted(&mut parts.headers);
        }
        let trailer = parts.headers.get(header::TRAILER).cloned();
        let request_id = request_id(&parts.headers).unwrap_or_else(|| worker.request_id());
        let fallback = fallback_head(&parts, connection.tls.is_some());
        let (head, aside, fault) = match head::read(parts, connection.tls.is_some(), settings) {
            Ok(incoming) => {
                let aside = Aside {
                    upgrade: incoming.upgrade,
                    takes_trailers: incoming.takes_trailers,
                    trailer,
                };
                (incoming.head, aside, None)
            }
            Err(fault) => (fallback, Aside::default(), Some(fault)),
        };
        let client = Client {
            address,
            peer: connection.peer,
            tls: connection.tls.clone(),
        };
        let mut exchange = Exchange::new(worker.next_id(), head, client, request_id);
        exchange.ambiguous = settings.ambiguous_paths;
        if trusted
            && let Some(proto) = exchange.request.fields.get("x-forwarded-proto")
            && proto.as_bytes().eq_ignore_ascii_case(b"https")
        {
            exchange.request.scheme = Scheme::HTTPS;
        }
        let live = worker.live();
        let found = if fault.is_some() {
            None
        } else {
            find_route(&live, &exchange)
        };
        let index = found.map(|(index, parameters)| {
            exchange.parameters = parameters;
            if let Some(route) = live.snapshot.router.routes().get(index) {
                exchange.route = Arc::clone(&route.name);
            }
            index
        });
        let journey = Journey {
            chain: Rc::new(Chain::new(Rc::clone(&worker), live, exchange)),
            signals: Arc::clone(&connection.signals),
            began: Instant::now(),
            route: Cell::new(index),
            sent: RefCell::default(),
            request_bytes: Rc::default(),
            response_bytes: Cell::new(0),
            upgraded: RefCell::default(),
            trailer: RefCell::default(),
            end: RefCell::default(),
        };
        let result = match (fault, index) {
            (Some(fault), _) => {
                worker
                    .figures
                    .client_error(Failure::Client(fault).told().reason);
                Err(Failure::Client(fault))
            }
            (None, None) => Err(Failure::NoRoute),
            (None, Some(_)) => journey.admit(incoming).map(|body| (body, aside)),
        };
        (journey, result)
    }

    /// Puts the filters of the route in place and bounds the body.
    fn admit(&self, incoming: Incoming) -> Result<Body, Failure> {
        let limits = &self.chain.worker.shared.settings.limits;
        if let Some(route) = self.route() {
            self.chain.route_through(&route.filters);
        }
        let announced = http_body::Body::size_hint(&incoming).lower();
        if limits.max_body.is_some_and(|limit| announced > limit) {
            return Err(Failure::Client(crate::answer::ClientFault::BodyTooLarge));
        }
        Ok(Body::stream(ClientBody::new(
            incoming,
            limits.max_body,
            limits.body_idle_timeout,
            Rc::clone(&self.request_bytes),
        )))
    }

    fn route(&self) -> Option<&RouteSpec> {
        self.chain
            .live
            .snapshot
            .router
            .routes()
            .get(self.route.get()?)
    }

    /// Through the filters and to the upstream. Says whether the connection must be closed.
    async fn run(&self, body: Body, aside: &Aside) -> (Body, bool) {
        let outcome = match self.chain.request(body).await {
            Ok(body) => self.forward(body, aside).await,
            Err(stop) => Err(stop),
        };
        match outcome {
            Ok(body) => (body, false),
            Err(stop) => {
                let closes = matches!(&stop, Stop::Failed(failure) if failure.closes());
                (self.chain.adopt(stop), closes)
            }
        }
    }

    async fn forward(&self, body: Body, aside: &Aside) -> Result<Body, Stop> {
        let route = self.route().ok_or(Stop::Failed(Failure::NoRoute))?;
        let upstream = route
            .upstream
            .as_ref()
            .ok_or(Stop::Failed(Failure::NoUpstream))?;
        self.sent.borrow_mut().upstream = Some(Arc::clone(upstream.name()));
        let host = if route.preserve_host {
            None
        } else {
            forward::host_of(upstream)
        };
        let request = {
            let exchange = self.chain.exchange.borrow();
            forward::request(
                &exchange,
                aside,
                host,
                &self.chain.worker.shared.settings,
                body,
            )
            .map_err(Stop::Failed)?
        };
        let began = Instant::now();
        let result = self.chain.worker.upstreams.send(upstream, request).await;
        let mut sent = self.sent.borrow_mut();
        sent.milliseconds = Some(began.elapsed().as_secs_f64() * 1000.0);
        match result {
            Ok(answered) => {
                sent.endpoint = Some(answered.endpoint);
                sent.attempts = answered.attempts;
                let mut response = answered.response;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    self.upgraded
                        .replace(Some(hyper::upgrade::on(&mut response)));
                }
                let (parts, body) = response.into_parts();
                let (head, trailer) = forward::response(parts);
                self.trailer.replace(trailer);
                self.chain.exchange.borrow_mut().response = Some(head);
                Ok(body)
            }
            Err(error) => {
                sent.endpoint.clone_from(&error.endpoint);
                sent.attempts = error.attempts;
                // A filter that stopped the request's body said why.
                if self.chain.exchange.borrow().answer.is_some()
                    && self.chain.answered_by.get().is_some()
                {
                    return Err(Stop::Answered);
                }
                Err(Stop::Failed(
                    self.chain
                        .stopped
                        .borrow_mut()
                        .take()
                        .unwrap_or(Failure::Upstream(error)),
                ))
            }
        }
    }

    /// Makes the response that leaves.
    fn leave(
        self,
        body: Body,
        aside: &Aside,
        closes: bool,
        on_upgrade: Option<hyper::upgrade::OnUpgrade>,
        signals: &Signals,
    ) -> Response<Body> {
        let chain = Rc::clone(&self.chain);
        let mut exchange = chain.exchange.borrow_mut();
        exchange.response_begun = true;
        let mut response = Response::new(Body::Empty);
        if let Some(head) = &exchange.response {
            *response.status_mut() = head.status;
            *response.headers_mut() = head.fields.clone();
        }
        let version = exchange.request.version;
        let is_head = exchange.request.method == Method::HEAD;
        drop(exchange);
        let fields = response.headers_mut();
        if version != Version::HTTP_2 {
            if closes {
                fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if let Some(trailer) = self.trailer.take() {
                fields.insert(header::TRAILER, trailer);
            }
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            match (on_upgrade, self.upgraded.take(), &aside.upgrade) {
                (Some(client), Some(upstream), Some(protocol)) => {
                    let fields = response.headers_mut();
                    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                    fields.insert(header::UPGRADE, protocol.clone());
                    signals.stop();
                    tunnel::join(
                        client,
                        upstream,
                        self.chain.worker.shared.settings.limits.idle_timeout,
                    );
                }
                _ => *response.status_mut() = StatusCode::BAD_GATEWAY,
            }
        }
        let bodiless = switches
            || is_head
            || matches!(
                response.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if bodiless {
            // Whatever a filter or the upstream put there does not belong on the wire (RFC 9110 section 6.4.1).
            if is_head
                && !body.is_empty()
                && !response.headers().contains_key(header::CONTENT_LENGTH)
            {
                let length = http_body::Body::size_hint(&body).exact();
                if let Some(length) = length {
                    response
                        .headers_mut()
                        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
            }
            self.end.replace(End::Whole);
            return response;
        }
        if body.is_empty() {
            self.end.replace(End::Whole);
            return response;
        }
        *response.body_mut() = Body::stream(Leaving::new(body, self));
        response
    }
}

impl Ending for Journey {
    fn ended(&self, bytes: u64, error: Option<&BodyError>) {
        self.response_bytes.set(bytes);
        self.end.replace(match error {
            None => End::Whole,
            Some(BodyError::TimedOut) => End::Broken("upstream_idle"),
            Some(BodyError::Stopped) => End::Broken("filter"),
            Some(_) => End::Broken("upstream_truncated"),
        });
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.signals.leave();
        let worker = Rc::clone(&self.chain.worker);
        let end = self.end.take();
        let exchange_status = self
            .chain
            .exchange
            .borrow()
            .response
            .as_ref()
            .map_or(StatusCode::BAD_GATEWAY, |head| head.status);
        let status = match end {
            End::Aborted => {
                worker.figures.aborted.increment();
                StatusCode::from_u16(499).unwrap_or(exchange_status)
            }
            End::Whole | End::Broken(_) => exchange_status,
        };
        let broken = match end {
            End::Aborted => Some("client_abort"),
            End::Broken(reason) => {
                worker.figures.failure(reason);
                Some(reason)
            }
            End::Whole => None,
        };
        self.chain.log();
        let seconds = self.began.elapsed().as_secs_f64();
        let routes = &self.chain.live.routes;
        if let Some(figures) = self
            .route
            .get()
            .and_then(|index| routes.get(index))
            .or(routes.last())
        {
            figures.record(status, seconds);
        }
        if let Some(log) = &worker.shared.access_log {
            let exchange = self.chain.exchange.borrow();
            let failure = self
                .chain
                .stopped
                .borrow()
                .as_ref()
                .map(|failure| failure.told().reason);
            let sent = self.sent.borrow();
            let text = |name: header::HeaderName| {
                exchange
                    .request
                    .fields
                    .get(name)
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            log.write(&Record {
                time: rfc3339(SystemClock.wall()),
                client: exchange.client.address.to_string(),
                method: exchange.request.method.as_str(),
                host: exchange
                    .request
                    .authority
                    .as_ref()
                    .map_or("", |authority| authority.as_str()),
                target: exchange.request.target.as_str(),
                protocol: protocol(exchange.request.version),
                status: status.as_u16(),
                request_bytes: self.request_bytes.get(),
                response_bytes: self.response_bytes.get(),
                duration_ms: seconds * 1000.0,
                upstream_ms: sent.milliseconds,
                route: &exchange.route,
                upstream: sent.upstream.as_deref(),
                endpoint: sent.endpoint.as_deref(),
                attempts: sent.attempts,
                answered_by: self.chain.answerer(),
                reason: broken.or(failure),
                request_id: exchange.request_id.to_str().unwrap_or_default(),
                user_agent: text(header::USER_AGENT),
                referer: text(header::REFERER),
            });
        }
    }
}

fn find_route(
    live: &Live,
    exchange: &Exchange,
) -> Option<(usize, tidegate_core::exchange::PathParameters)> {
    let host = exchange
        .request
        .authority
        .as_ref()
        .map(head::normal_host)
        .unwrap_or_default();
    live.snapshot.router.find(
        &host,
        exchange.request.target.path(),
        &exchange.request.method,
        &exchange.request.fields,
    )
}

/// The client's request id, if it is one that can stand in a log.
fn request_id(fields: &HeaderMap) -> Option<HeaderValue> {
    let mut values = fields.get_all("x-request-id").iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let fit = !value.is_empty()
        && value.len() <= 128
        && value.as_bytes().iter().all(u8::is_ascii_graphic);
    fit.then(|| value.clone())
}

/// A head for the log when the real one can't be used.
fn fallback_head(parts: &http::request::Parts, secure: bool) -> RequestHead {
    RequestHead {
        method: parts.method.clone(),
        scheme: if secure { Scheme::HTTPS } else { Scheme::HTTP },
        authority: None,
        target: parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
        version: parts.version,
        fields: parts
            .headers
            .iter()
            .filter(|(name, _)| **name == header::ACCEPT || **name == header::USER_AGENT)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
