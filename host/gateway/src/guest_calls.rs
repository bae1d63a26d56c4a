//! Guests' HTTP calls, sent to the upstreams in force with the same client as everyone's requests. Whether a guest may
//! call an upstream was decided before.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::services::{CallError, CallFuture, HttpClient};
use tidegate_core::survey::Survey;
use tidegate_upstream::{Client, SendErrorKind};

use crate::head;
use crate::worker::Worker;

/// Calls of one worker's guests.
pub(crate) struct GuestCalls {
    client: Rc<Client>,
    worker: RefCell<Weak<Worker>>,
}

impl GuestCalls {
    pub(crate) fn new(client: Rc<Client>) -> Self {
        GuestCalls {
            client,
            worker: RefCell::new(Weak::new()),
        }
    }

    /// Says whose snapshot names the upstreams.
    pub(crate) fn serve_for(&self, worker: &Rc<Worker>) {
        self.worker.replace(Rc::downgrade(worker));
    }
}

impl HttpClient for GuestCalls {
    fn call(
        &self,
        upstream: &str,
        request: Request<Bytes>,
        timeout: Duration,
        max_response: usize,
    ) -> CallFuture {
        let upstream = self
            .worker
            .borrow()
            .upgrade()
            .and_then(|worker| worker.live().snapshot.upstreams.get(upstream).cloned());
        let client = Rc::clone(&self.client);
        Box::pin(async move {
            let upstream = upstream.ok_or(CallError::InvalidRequest)?;
            let (mut parts, body) = request.into_parts();
            let seen = Survey::of(&parts.headers);
            head::remove_hop_by_hop(&mut parts.headers, seen);
            parts.headers.remove(header::CONTENT_LENGTH);
            if !parts.headers.contains_key(header::HOST) {
                let host = crate::forward::host_of(&upstream)
                    .and_then(|host| HeaderValue::from_str(&host).ok());
                parts
                    .headers
                    .insert(header::HOST, host.ok_or(CallError::InvalidRequest)?);
            }
            let request = Request::from_parts(parts, Body::full(body));
            let call = async {
                let sent =
                    client
                        .send(&upstream, request, None)
                        .await
                        .map_err(|error| match error.kind {
                            SendErrorKind::HeadTimedOut | SendErrorKind::ConnectTimedOut => {
                                CallError::TimedOut
                            }
                            SendErrorKind::ResetBeforeHead
                            | SendErrorKind::InvalidResponse
                            | SendErrorKind::RequestBody(_) => CallError::Broken,
                            SendErrorKind::NoEndpoint
                            | SendErrorKind::Connect
                            | SendErrorKind::Dns
                            | SendErrorKind::Tls => CallError::Unreachable,
                        })?;
                collect(sent.response, max_response).await
            };
            tokio::time::timeout(timeout, call)
                .await
                .map_err(|_| CallError::TimedOut)?
        })
    }
}

async fn collect(response: Response<Body>, max: usize) -> Result<Response<Bytes>, CallError> {
    let (parts, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error {
            BodyError::TimedOut => CallError::TimedOut,
            _ => CallError::Broken,
        })?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > max {
                return Err(CallError::ResponseTooLarge);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Response::from_parts(parts, bytes.freeze()))
}
