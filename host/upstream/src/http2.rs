//! One HTTP/2 connection: made from a socket, shared by any number of requests, and what its failures say. Keeps none.

use std::error::Error;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Interim;
use crate::endpoint::Endpoint;
use crate::error::{Failure, Lost, SendErrorKind, chain};
use crate::head::{self, NoHead};
use crate::message;
use crate::metrics::OpenConnection;
use crate::pool::{Age, Shelf};
use crate::retry::{self, Loss};
use crate::timer::Timer;
use crate::upload::Upload;
use crate::wire::{Watch, Wire};

/// What an upstream may send of one response before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What it may send of all of them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered of one request while the upstream does not take it.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection. Dropped by all, it closes as soon as it has nothing to do.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<Body>,
    watch: Arc<Watch>,
    pub(crate) age: Age,
}

impl Http2 {
    /// Speaks HTTP/2 over a socket, and tells the other side how many bytes the fields of a response may count.
    pub(crate) async fn start<T>(
        io: T,
        open: OpenConnection,
        age: Age,
        max_head: u32,
    ) -> Result<Self, Failure>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let wire = Wire::new(io, open);
        let watch = wire.watch();
        let (sender, connection) = http2::Builder::new(OnThisWorker)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(max_head)
            .handshake::<_, Body>(TokioIo::new(wire))
            .await
            .map_err(|error| Failure::new(SendErrorKind::Connect, chain(&error)))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "a connection to an upstream broke");
            }
        });
        Ok(Http2 { sender, watch, age })
    }

    /// Whether it can take no request any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Sends a request and waits for its response's head. A connection that turns out to be of no more use is taken off
/// its shelf.
pub(crate) async fn send(
    connection: &Rc<Http2>,
    shelf: &Shelf,
    endpoint: &Endpoint,
    request: &mut Request<Body>,
    upload: Option<&Upload>,
    interim: Option<Arc<dyn Interim>>,
    limit: Duration,
) -> Result<Response<Incoming>, Lost> {
    if let Some(interim) = interim {
        hyper::ext::on_informational(request, move |response| {
            interim.came(response.status(), response.headers());
        });
    }
    message::for_http2(request, endpoint).map_err(|failure| Lost::new(failure, Loss::Final))?;
    let reads = connection.watch.reads();
    let copy = retry::is_at_hand(request).then(|| message::copy(request));
    let owned = std::mem::take(request);
    let sent = connection.sender.clone().try_send_request(owned);
    let waited = head::wait(sent, &mut Timer::default(), upload, limit).await;
    waited.map_err(|no_head| match no_head {
        NoHead::TimedOut => {
            // Not a word to anyone in all that time: nobody may be there any more.
            if connection.watch.reads() == reads {
                shelf.retire(connection);
            }
            Lost::timed_out(limit)
        }
        NoHead::Failed(error) => {
            let (unsent, mut lost, usable) = lost(*error, upload);
            if let Some(held) = unsent.or(copy) {
                *request = held;
                lost.at_hand = true;
            }
            if !usable {
                shelf.retire(connection);
            }
            lost
        }
    })
}

/// What a failure says, with the request if no byte of it was sent, and whether the connection is still of use.
fn lost(
    mut error: TrySendError<Request<Body>>,
    upload: Option<&Upload>,
) -> (Option<Request<Body>>, Lost, bool) {
    let unsent = error.take_message();
    let error = error.into_error();
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    let (kind, loss, usable) = judge(cause, upload);
    let failure = Failure::new(kind, chain(&error));
    match unsent {
        Some(request) => (Some(request), Lost::new(failure, Loss::Unsent), false),
        None => (None, Lost::new(failure, loss), usable),
    }
}

/// `cause` is what ended the stream or the connection, unless that was the socket.
fn judge(cause: Option<&h2::Error>, upload: Option<&Upload>) -> (SendErrorKind, Loss, bool) {
    if let Some(error) = upload.and_then(Upload::error) {
        return (SendErrorKind::RequestBody(error), Loss::Final, true);
    }
    let Some(cause) = cause else {
        return (SendErrorKind::ResetBeforeHead, Loss::Silent, false);
    };
    if cause.is_library() {
        // What came breaks the protocol.
        return (
            SendErrorKind::InvalidResponse,
            Loss::Final,
            cause.is_reset(),
        );
    }
    // A stream ends with the other side's GOAWAY only if its number is above the last that was looked at.
    let refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    let loss = if cause.is_remote() && (cause.is_go_away() || refused) {
        Loss::Unprocessed
    } else {
        Loss::Final
    };
    (SendErrorKind::ResetBeforeHead, loss, cause.is_reset())
}

/// Runs hyper's own tasks on the worker that they belong to.
#[derive(Clone, Copy, Debug)]
struct OnThisWorker;

impl<F> Executor<F> for OnThisWorker
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
