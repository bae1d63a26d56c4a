//! One exchange from its first byte to its last, with what the log and the figures want to know of it. Dropping it ends the
//! exchange, however it came about: the filters are told, and the line is written.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{StatusCode, request};
use tidegate_core::body::BodyError;
use tidegate_core::clock::{self, Clock as _, SystemClock};
use tidegate_upstream::Upgraded;

use crate::access_log::Record;
use crate::admit::{self, Aside, Asked};
use crate::answer::{ClientFault, Failure};
use crate::chain::{Chain, Stop};
use crate::connection::{Connection, Place};
use crate::route::RouteSpec;
use crate::upload::{Incoming, Upload};
use crate::worker::Worker;

/// One exchange.
pub(crate) struct Journey {
    pub(crate) chain: Rc<Chain>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) place: Place,
    pub(crate) upload: Rc<Upload>,
    pub(crate) aside: Aside,
    pub(crate) sent: RefCell<Sent>,
    asked: Option<Box<Asked>>,
    began: Instant,
    /// Bytes that left, and bytes of the client's besides the request's body.
    pub(crate) response_bytes: Cell<u64>,
    pub(crate) tunnel_bytes: Cell<u64>,
    end: Cell<End>,
}

/// How the response left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// Not whole: the client is gone.
    #[default]
    Aborted,
    Whole,
    Broken(&'static str),
}

/// What is known of the way to the upstream.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) endpoint: Option<Arc<str>>,
    pub(crate) attempts: u32,
    /// Until the response's head came, or the last attempt failed.
    pub(crate) took: Option<Duration>,
    /// Names of trailers, and the protocol and connection that follow, if the upstream changes it.
    pub(crate) trailer: Option<HeaderValue>,
    pub(crate) protocol: Option<HeaderValue>,
    pub(crate) upgraded: Option<Upgraded>,
}

impl Journey {
    /// An exchange at its beginning, and why it must be refused, if it must. `found` is what its bytes have shown.
    pub(crate) fn begin(
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        place: Place,
        parts: request::Parts,
        incoming: Incoming,
        found: Option<ClientFault>,
    ) -> (Self, Option<ClientFault>) {
        let began = clock::turn();
        let admitted = admit::admit(&worker, &connection, parts, found);
        let limits = &worker.shared.settings.limits;
        let journey = Journey {
            upload: Upload::new(incoming, limits, &admitted.aside, admitted.manner.is_grpc()),
            chain: Rc::new(Chain::new(worker, admitted.exchange, admitted.manner)),
            connection,
            place,
            aside: admitted.aside,
            sent: RefCell::default(),
            asked: admitted.asked,
            began,
            response_bytes: Cell::new(0),
            tunnel_bytes: Cell::new(0),
            end: Cell::default(),
        };
        (journey, admitted.fault)
    }

    /// The route, once it is found.
    pub(crate) fn route(&self) -> Option<&RouteSpec> {
        let routes = self.chain.live.snapshot.router.routes();
        routes.get(self.chain.route.get()?)
    }

    /// A failure with the cause that only the guard knows: to everyone else the body has just broken off.
    pub(crate) fn exact(&self, stop: Stop) -> Stop {
        let of_body = matches!(
            &stop,
            Stop::Failed { failure, .. } if failure.told().reason == ClientFault::BodyBroken.told().reason
        );
        match self.connection.signals.fault_of(self.place.number) {
            Some(fault) if of_body => Failure::Client(fault).into(),
            _ => stop,
        }
    }

    /// The response has left whole.
    pub(crate) fn left(&self) {
        self.end.set(End::Whole);
    }

    /// The response broke off. `close_delimited` says that only a reset tells the client so.
    pub(crate) fn broke(&self, error: &BodyError, close_delimited: bool) {
        if close_delimited {
            self.connection.signals.reset();
        }
        self.end.set(End::Broken(match error {
            BodyError::TimedOut => "upstream_idle",
            BodyError::Stopped => self.chain.reason.get().unwrap_or("filter"),
            BodyError::Broken(_) | BodyError::TooLarge { .. } => "upstream_truncated",
        }));
    }

    fn status(&self) -> StatusCode {
        let exchange = self.chain.exchange.borrow();
        match (self.end.get(), &exchange.response) {
            // What nginx writes for a client that left.
            (End::Aborted, _) => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            (_, Some(head)) => head.status,
            (_, None) => StatusCode::BAD_GATEWAY,
        }
    }

    fn log(&self, status: StatusCode, duration: Duration) {
        let (Some(log), Some(asked)) = (&self.chain.worker.shared.access_log, &self.asked) else {
            return;
        };
        let exchange = self.chain.exchange.borrow();
        let sent = self.sent.borrow();
        let answered_by = self.chain.answered_by.get();
        let answered_by = answered_by.map(|position| self.chain.name(position));
        log.write(&Record {
            time: SystemClock.wall(),
            client: exchange.client.address,
            method: asked.method.as_str(),
            host: asked
                .authority
                .as_ref()
                .map_or("", |authority| authority.as_str()),
            path: asked.target.path(),
            // As the filters left it: what one took out, such as a key, is nobody's business here.
            query: exchange.request.target.query(),
            version: asked.version,
            status: status.as_u16(),
            request_bytes: self.upload.bytes() + self.tunnel_bytes.get(),
            response_bytes: self.response_bytes.get(),
            duration,
            upstream_duration: sent.took,
            route: &exchange.route,
            upstream: sent.upstream.as_deref(),
            endpoint: sent.endpoint.as_deref(),
            attempts: sent.attempts,
            answered_by: answered_by.as_deref(),
            reason: match self.end.get() {
                End::Aborted => Some("client_abort"),
                End::Broken(reason) => Some(reason),
                End::Whole => self.chain.reason.get(),
            },
            request_id: exchange.request_id.as_bytes(),
            user_agent: asked.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: asked.referer.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let figures = &self.chain.worker.figures;
        match self.end.get() {
            End::Aborted => figures.aborted.increment(),
            End::Broken(reason) if self.chain.reason.get() != Some(reason) => {
                figures.failure(reason);
            }
            End::Broken(_) | End::Whole => {}
        }
        self.chain.end();
        self.chain.exchange.borrow_mut().pace.end();
        let duration = clock::turn().saturating_duration_since(self.began);
        let status = self.status();
        let route = self.chain.live.figures(self.chain.route.get());
        route.record(status, duration.as_secs_f64());
        self.log(status, duration);
    }
}
