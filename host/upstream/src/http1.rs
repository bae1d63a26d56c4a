//! One HTTP/1.1 connection: made from a socket, lent to one request at a time, and what its failures say. Keeps none.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tidegate_core::body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::endpoint::Endpoint;
use crate::error::{Failure, Lost, SendErrorKind, chain};
use crate::head::{self, NoHead};
use crate::message::{self, MAX_FIELDS};
use crate::metrics::OpenConnection;
use crate::pool::{Age, Bounds, Pool, Shelf};
use crate::retry::Loss;
use crate::timer::Timer;
use crate::upload::Upload;
use crate::upstream::UpstreamConfig;
use crate::wire::{Watch, Wire};

/// The most that is buffered of one connection's input, and so the longest response head.
const MAX_BUFFER: usize = 128 * 1024;
/// How long a connection whose response is read may take to be ready again. It is ready at once, unless the
/// request's body still goes up: then it is better closed.
const SETTLE: Duration = Duration::from_secs(1);

/// A connection. Dropped, it closes as soon as it has nothing to do.
#[derive(Debug)]
pub(crate) struct Http1 {
    sender: http1::SendRequest<Body>,
    driver: AbortHandle,
    watch: Arc<Watch>,
    timer: Timer,
    pub(crate) age: Age,
    /// Whether it has served a request.
    pub(crate) reused: bool,
}

impl Http1 {
    /// Speaks HTTP/1.1 over a socket.
    pub(crate) async fn start<T>(io: T, open: OpenConnection, age: Age) -> Result<Self, Failure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = Wire::new(io, true, open);
        let watch = wire.watch();
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_FIELDS)
            .handshake::<_, Body>(TokioIo::new(wire))
            .await
            .map_err(|error| Failure::new(SendErrorKind::Connect, chain(&error)))?;
        let driver = tokio::task::spawn_local(async move {
            // Whoever waits for the response is told as well.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = %chain(&error), "a connection to an upstream broke");
            }
        });
        Ok(Http1 {
            sender,
            driver: driver.abort_handle(),
            watch,
            timer: Timer::default(),
            age,
            reused: false,
        })
    }

    /// Whether it can take a request now.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.watch.is_broken() && !self.age.is_astray()
    }

    /// Whether it can take no request any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Sends a request and waits for its response's head.
pub(crate) async fn send(
    lease: &mut Lease,
    endpoint: &Endpoint,
    mut request: Request<Body>,
    upload: Option<&Upload>,
    limit: Duration,
) -> Result<Response<Incoming>, Lost> {
    if let Err(failure) = message::for_http1(&mut request, endpoint) {
        return Err(Lost::new(failure, Loss::Final));
    }
    let Some(connection) = &mut lease.connection else {
        let failure = Failure::new(SendErrorKind::ResetBeforeHead, "the connection is gone");
        return Err(Lost::unsent(failure, request));
    };
    let reads = connection.watch.reads();
    let sent = connection.sender.try_send_request(request);
    let waited = head::wait(sent, &mut connection.timer, upload, limit).await;
    waited.map_err(|no_head| match no_head {
        NoHead::TimedOut => Lost::timed_out(limit),
        NoHead::Failed(error) => {
            let silent = connection.watch.reads() == reads;
            lost(*error, upload, silent)
        }
    })
}

fn lost(mut error: TrySendError<Request<Body>>, upload: Option<&Upload>, silent: bool) -> Lost {
    let unsent = error.take_message();
    let error = error.into_error();
    let (kind, loss) = if let Some(error) = upload.and_then(Upload::error) {
        (SendErrorKind::RequestBody(error), Loss::Final)
    } else if error.is_parse() {
        (SendErrorKind::InvalidResponse, Loss::Final)
    } else if silent {
        (SendErrorKind::ResetBeforeHead, Loss::Silent)
    } else {
        (SendErrorKind::ResetBeforeHead, Loss::Final)
    };
    let failure = Failure::new(kind, chain(&error));
    match unsent {
        Some(request) => Lost::unsent(failure, request),
        None => Lost::new(failure, loss),
    }
}

/// A connection in use by one request. Dropped, it breaks the connection off: whoever gives up in the middle must
/// neither leave bytes behind for the next request nor keep the upstream at work.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Http1>,
    pool: Rc<Pool>,
    shelf: Rc<Shelf>,
    keep: usize,
    bounds: Bounds,
}

impl Lease {
    pub(crate) fn new(
        pool: &Rc<Pool>,
        shelf: &Rc<Shelf>,
        config: &UpstreamConfig,
        connection: Http1,
    ) -> Self {
        Lease {
            connection: Some(connection),
            pool: pool.clone(),
            shelf: shelf.clone(),
            keep: config.idle_connections,
            bounds: config.bounds(),
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

    /// The connection's timer, for the response's body.
    pub(crate) fn timer(&mut self) -> Option<&mut Timer> {
        self.connection.as_mut().map(|held| &mut held.timer)
    }

    /// The response is read to its end: the connection may rest.
    pub(crate) fn give_back(mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if connection.is_closed() {
            // One side asked for that. The driver has only to say goodbye.
            self.let_go();
        } else if connection.is_ready() {
            self.rest();
        } else if !connection.watch.is_broken() {
            tokio::task::spawn_local(async move {
                let Some(connection) = &mut self.connection else {
                    return;
                };
                let ready = connection.sender.ready();
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE, ready).await {
                    self.rest();
                }
            });
        }
    }

    fn rest(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.reused = true;
            self.pool
                .put(&self.shelf, connection, self.keep, self.bounds);
        }
    }

    /// The connection has become something else, or ends by itself.
    pub(crate) fn let_go(mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.driver.abort();
        }
    }
}
