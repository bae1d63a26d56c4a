//! A request's life from top to bottom: check, route, through the filters, forward, back through the filters, answer. The
//! log follows when the journey ends.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Response, Version, request};
use tidegate_core::body::Body;
use tidegate_core::clock;
use tidegate_upstream::{Interim, Sent};

use crate::answer::{ClientFault, Failure};
use crate::chain::Stop;
use crate::connection::{Connection, Place};
use crate::forward::{self, Terms};
use crate::head;
use crate::journey::Journey;
use crate::leave;
use crate::upload::Incoming;
use crate::worker::Worker;

/// Serves one request; `found` is why it must be refused, if its bytes have shown that. Never fails: what goes wrong is an
/// answer.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    place: Place,
    parts: request::Parts,
    incoming: Incoming,
    found: Option<ClientFault>,
) -> Response<Body> {
    let (journey, fault) = Journey::begin(worker, connection, place, parts, incoming, found);
    let outcome = match fault {
        Some(fault) => Err(Failure::Client(fault).into()),
        None => pass(&journey).await,
    };
    let mut closes = false;
    let body = outcome.unwrap_or_else(|stop| {
        let stop = journey.exact(stop);
        closes = stop.closes();
        journey.chain.adopt(stop)
    });
    let body = journey.chain.response(body).await;
    leave::leave(journey, body, closes)
}

/// From a head that is in order to the head of an upstream's response.
async fn pass(journey: &Journey) -> Result<Body, Stop> {
    route(journey)?;
    if journey.upload.is_too_large() {
        return Err(Failure::Client(ClientFault::BodyTooLarge).into());
    }
    let body = journey.chain.request(journey.upload.body()).await?;
    forward(journey, body).await
}

fn route(journey: &Journey) -> Result<(), Failure> {
    let chain = &journey.chain;
    let mut exchange = chain.exchange.borrow_mut();
    let head = &exchange.request;
    let router = &chain.live.snapshot.router;
    let host = head.authority.as_ref().filter(|_| router.has_hosts());
    let host = host.map(head::normal_host);
    let host = host.as_deref().unwrap_or_default();
    let path = head.target.path();
    let index = router
        .find(host, path, &head.method, &head.fields)
        .ok_or(Failure::NoRoute)?;
    let route = router.routes().get(index).ok_or(Failure::NoRoute)?;
    chain.route.set(Some(index));
    // Only filters ask for them.
    if chain.has_filters() {
        exchange.parameters = route.path.parameters(path);
    }
    exchange.route = Arc::clone(&route.name);
    if route.server_timing {
        chain.spent.set(Some(Duration::ZERO));
    }
    Ok(())
}

/// Sends the request on and waits for the head of its response.
async fn forward(journey: &Journey, body: Body) -> Result<Body, Stop> {
    let chain = &journey.chain;
    let route = journey.route().ok_or(Failure::NoRoute)?;
    let upstream = route.upstream.as_ref().ok_or(Failure::NoUpstream)?;
    journey.sent.borrow_mut().upstream = Some(Arc::clone(upstream.name()));
    let terms = Terms {
        aside: &journey.aside,
        hop: &journey.connection.hop,
        settings: &chain.worker.shared.settings,
        host: (!route.preserve_host)
            .then(|| forward::host_of(upstream))
            .flatten(),
        keep: chain.later().request,
    };
    let request = forward::request(&mut chain.exchange.borrow_mut(), &terms, body)?;
    let version = chain.exchange.borrow().request.version;
    // HTTP/2 clients get no interim responses: the server half can't send them.
    let interim = if version == Version::HTTP_11 {
        let interim = &journey.connection.signals.interim;
        // Whoever writes for this connection is the task that waits here.
        poll_fn(|cx| {
            interim.listen(cx.waker());
            Poll::Ready(())
        })
        .await;
        Some(Arc::clone(interim) as Arc<dyn Interim>)
    } else {
        None
    };
    let began = clock::turn();
    let result = chain
        .worker
        .upstreams
        .send(upstream, request, interim)
        .await;
    let mut sent = journey.sent.borrow_mut();
    sent.took = Some(clock::turn().saturating_duration_since(began));
    // A filter that stopped the request's body meanwhile has said why.
    let answered: Sent = match (result, chain.take_upload_stop()) {
        (Ok(answered), None) => answered,
        (Ok(_), Some(stop)) => return Err(stop),
        (Err(error), stop) => {
            sent.endpoint.clone_from(&error.endpoint);
            sent.attempts = error.attempts;
            return Err(stop.unwrap_or_else(|| Failure::Upstream(error).into()));
        }
    };
    sent.endpoint = Some(answered.endpoint);
    sent.attempts = answered.attempts;
    sent.upgraded = answered.upgraded;
    let (parts, body) = answered.response.into_parts();
    let received = forward::response(parts, answered.seen);
    sent.trailer = received.trailer;
    sent.protocol = received.upgrade;
    chain.exchange.borrow_mut().response = Some(received.head);
    Ok(body)
}
