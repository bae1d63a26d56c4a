//! One request over one connection: sent, and waited for. Decides nothing about a second attempt, but says what
//! is needed for that.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tidegate_core::body::Body;

use crate::endpoint::Endpoint;
use crate::error::{Failure, SendErrorKind, chain};
use crate::message::{self, Progress};
use crate::pool::{Http2, Lease, after};

/// Why there is no response; with the request, if no byte of it was sent.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) failure: Failure,
    pub(crate) unsent: Option<Box<Request<Body>>>,
}

impl Lost {
    pub(crate) fn sent(failure: Failure) -> Self {
        Lost {
            failure,
            unsent: None,
        }
    }

    pub(crate) fn unsent(failure: Failure, request: Request<Body>) -> Self {
        Lost {
            failure,
            unsent: Some(Box::new(request)),
        }
    }
}

pub(crate) async fn over_http1(
    lease: &mut Lease,
    endpoint: &Endpoint,
    mut request: Request<Body>,
    progress: Option<&Progress>,
    limit: Duration,
) -> Result<Response<Incoming>, Lost> {
    message::for_http1(&mut request, endpoint).map_err(Lost::sent)?;
    let Some(sender) = lease.sender() else {
        let failure = Failure::new(SendErrorKind::ResetBeforeHead, "the connection is gone");
        return Err(Lost::unsent(failure, request));
    };
    head(sender.try_send_request(request), progress, limit).await
}

pub(crate) async fn over_http2(
    mut connection: Http2,
    endpoint: &Endpoint,
    mut request: Request<Body>,
    progress: Option<&Progress>,
    limit: Duration,
) -> Result<Response<Incoming>, Lost> {
    message::for_http2(&mut request, endpoint).map_err(Lost::sent)?;
    let sent = connection.sender.try_send_request(request);
    head(sent, progress, limit).await
}

/// Waits for the head. The bound is counted from the last part of the request's body that went up: an upload may
/// take its time, an upstream that has all it can take may not.
async fn head(
    sent: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
    progress: Option<&Progress>,
    limit: Duration,
) -> Result<Response<Incoming>, Lost> {
    let mut sent = pin!(sent);
    let mut until = after(limit);
    loop {
        match tokio::time::timeout_at(until, &mut sent).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => return Err(lost(error, progress)),
            Err(_) => {
                let later = progress.and_then(|progress| progress.at().checked_add(limit));
                match later {
                    Some(later) if later > until => until = later,
                    _ => {
                        let bound = format!("the bound is {limit:?}");
                        return Err(Lost::sent(Failure::new(SendErrorKind::HeadTimedOut, bound)));
                    }
                }
            }
        }
    }
}

fn lost(mut error: TrySendError<Request<Body>>, progress: Option<&Progress>) -> Lost {
    let unsent = error.take_message();
    let error = error.into_error();
    let kind = if let Some(error) = progress.and_then(Progress::error) {
        SendErrorKind::RequestBody(error)
    } else if error.is_parse() {
        SendErrorKind::InvalidResponse
    } else {
        SendErrorKind::ResetBeforeHead
    };
    Lost {
        failure: Failure::new(kind, chain(&error)),
        unsent: unsent.map(Box::new),
    }
}
