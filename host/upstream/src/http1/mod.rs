//! One HTTP/1.1 connection: lent to one request at a time, and what its failures say. Keeps none. `flow` is its bytes, which
//! `encode` writes and `parse` reads.
//!
//! The task of the request drives the connection: there is no task of its own, no channel and no lock between them. A
//! connection at rest is not looked at until it is wanted, or the pool looks through what rests.

mod encode;
mod flow;
mod parse;

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use tidegate_core::body::Body;
use tidegate_core::http1::framing::Framing;
use tidegate_core::http1::spare;
use tidegate_core::survey::Survey;

use crate::endpoint::Endpoint;
use crate::error::{Failure, Lost, SendErrorKind};
use crate::head::{self, NoHead};
use crate::message;
use crate::metrics::OpenConnection;
use crate::pool::{Age, Bounds, Pool, Shelf};
use crate::retry::Loss;
use crate::timer::Timer;
use crate::upload::Upload;
use crate::upstream::UpstreamConfig;
use crate::{Interim, Upgraded};

use flow::Ended;
pub(crate) use flow::{Flow, Frame, Io};

/// A connection. Dropped, it closes.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) flow: Flow,
    pub(crate) timer: Timer,
    pub(crate) age: Age,
    /// Whether it has served a request.
    pub(crate) reused: bool,
    open: OpenConnection,
}

/// A response whose head is here. Its body is still in the connection.
pub(crate) struct Answered {
    pub(crate) response: Response<()>,
    pub(crate) framing: Framing,
    /// Which of the fields that mean something to a proxy its head has.
    pub(crate) seen: Survey,
}

impl Http1 {
    /// A connection that was just made.
    pub(crate) fn new(io: Io, open: OpenConnection, age: Age) -> Self {
        Http1 {
            flow: Flow::new(io),
            timer: Timer::default(),
            age,
            reused: false,
            open,
        }
    }

    /// Whether it can take a request: it leads where it should, and nothing has come that nobody asked for, nor its end.
    pub(crate) fn is_quiet(&mut self) -> bool {
        !self.age.is_astray() && self.flow.is_quiet()
    }
}

/// Sends a request and waits for its response's head.
pub(crate) async fn send(
    lease: &mut Lease,
    endpoint: &Endpoint,
    request: &mut Request<Body>,
    upload: Option<&Upload>,
    interim: Option<&dyn Interim>,
    config: &UpstreamConfig,
) -> Result<Answered, Lost> {
    message::for_http1(request, endpoint).map_err(|failure| Lost::new(failure, Loss::Final))?;
    let Some(connection) = &mut lease.connection else {
        let failure = Failure::new(SendErrorKind::ResetBeforeHead, "the connection is gone");
        return Err(Lost {
            at_hand: true,
            ..Lost::new(failure, Loss::Unsent)
        });
    };
    let Http1 { flow, timer, .. } = &mut **connection;
    flow.begin(request)
        .map_err(|failure| Lost::new(failure, Loss::Final))?;
    let (limit, bounds) = (config.response_timeout, config.head);
    let came = std::future::poll_fn(|cx| flow.poll_head(cx, interim, bounds));
    let ended = match head::wait(came, timer, upload, limit).await {
        Ok(head) => match head.framing(request.method()) {
            Ok(framing) => {
                lease.keeps &= head.keeps_alive();
                // It is sent, and will not be sent again.
                spare::give(std::mem::take(request.headers_mut()));
                let mut response = Response::new(());
                *response.status_mut() = head.status;
                *response.headers_mut() = head.fields;
                return Ok(Answered {
                    response,
                    framing,
                    seen: head.seen,
                });
            }
            Err(detail) => Ended::Invalid(detail),
        },
        Err(NoHead::TimedOut) => return Err(Lost::timed_out(limit)),
        Err(NoHead::Failed(ended)) => *ended,
    };
    Err(lost(ended, flow, request, upload))
}

/// What a failure means for the request.
fn lost(
    ended: Ended,
    flow: &mut Flow,
    request: &mut Request<Body>,
    upload: Option<&Upload>,
) -> Lost {
    let (kind, detail) = match (upload.and_then(Upload::error), ended) {
        (Some(error), _) | (None, Ended::Body(error)) => {
            (SendErrorKind::RequestBody(error), String::new())
        }
        (None, Ended::Invalid(detail)) => (SendErrorKind::InvalidResponse, detail.to_owned()),
        (None, Ended::Io(detail)) => (SendErrorKind::ResetBeforeHead, detail),
    };
    let broke = matches!(kind, SendErrorKind::ResetBeforeHead);
    let (unsent, silent) = (flow.is_unsent(), flow.is_silent());
    let at_hand = flow.restore(request);
    let loss = match broke {
        true if unsent && at_hand => Loss::Unsent,
        true if silent => Loss::Silent,
        _ => Loss::Final,
    };
    Lost {
        at_hand,
        ..Lost::new(Failure::new(kind, detail), loss)
    }
}

/// A connection in use by one request. Dropped, it closes the connection: whoever gives up in the middle must neither leave
/// bytes behind for the next request nor keep the upstream at work.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Option<Box<Http1>>,
    pool: Rc<Pool>,
    shelf: Rc<Shelf>,
    keep: usize,
    bounds: Bounds,
    /// Whether both sides keep the connection behind this request.
    keeps: bool,
}

impl Lease {
    pub(crate) fn new(
        pool: &Rc<Pool>,
        shelf: &Rc<Shelf>,
        config: &UpstreamConfig,
        connection: Box<Http1>,
    ) -> Self {
        Lease {
            connection: Some(connection),
            pool: pool.clone(),
            shelf: shelf.clone(),
            keep: config.idle_connections,
            bounds: config.bounds(),
            keeps: true,
        }
    }

    /// Whether the connection has served another request.
    pub(crate) fn is_reused(&self) -> bool {
        self.connection.as_ref().is_some_and(|held| held.reused)
    }

    /// The upstream says for how many seconds it keeps the connection: we let go of it a little sooner.
    pub(crate) fn shorten(&mut self, seconds: u64) {
        let sooner = Duration::from_secs(seconds.saturating_sub(1));
        self.bounds.keep_alive = self.bounds.keep_alive.min(sooner);
    }

    /// The response is read to its end: the connection may rest, unless something else of it is left.
    pub(crate) fn give_back(mut self) {
        if let Some(mut connection) = self.connection.take()
            && self.keeps
            && connection.flow.is_done()
        {
            connection.reused = true;
            self.pool
                .put(&self.shelf, connection, self.keep, self.bounds);
        }
    }

    /// The connection becomes something else.
    pub(crate) fn upgrade(mut self) -> Option<Upgraded> {
        let Http1 { flow, open, .. } = *self.connection.take()?;
        Some(flow.upgrade(open))
    }
}
