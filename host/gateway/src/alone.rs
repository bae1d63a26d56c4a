//! One request through one filter and nothing else, so that a new version can be tried before it takes traffic. There is no
//! client, no upstream and no snapshot in force; what the filter lets through is answered with an empty 200.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::error::FilterError;
use tidegate_core::exchange::{Client, Exchange, ResponseHead};
use tidegate_core::filter::{Filter, FilterModule, Outcome, SharedExchange, WorkerServices};
use tidegate_core::metrics::Registry;
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::survey::Survey;
use tidegate_core::usage::Isolation;

use crate::answer::Manner;
use crate::chain::Chain;
use crate::head;
use crate::pattern::{HostPattern, PathPattern};
use crate::route::RouteSpec;
use crate::settings::Settings;
use crate::snapshot::{Failure, FilterSlot, Snapshot};
use crate::worker::{Shared, Worker};

/// Why a filter that was tried gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// No client could send the request.
    #[error("the request is not valid: {0}")]
    Request(&'static str),
    /// A call failed, the one for the log included.
    #[error("{0}")]
    Filter(FilterError),
    /// A body broke off.
    #[error("a body broke off: {0}")]
    Body(BodyError),
}

/// Sends a request through all phases of a filter and says what a client would get. Needs a runtime that runs local tasks;
/// each call is bounded as ever, waiting is not.
///
/// # Errors
/// See [`AloneError`].
pub async fn alone(
    module: Arc<dyn FilterModule>,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, AloneError> {
    let failed = Failed::default();
    let watched = Watched {
        module,
        failed: Arc::clone(&failed),
    };
    let (mut parts, body) = request.into_parts();
    let settings = Settings::default();
    let seen = Survey::of(&parts.headers);
    let read = head::read(&mut parts, seen, &head::Reader::default(), &settings);
    let head = read.map_err(|fault| AloneError::Request(fault.told().text))?;
    let worker = Worker::new(
        0,
        Arc::new(Shared {
            settings,
            registry: Arc::new(Registry::new()),
            access_log: None,
        }),
    );
    worker.install(Arc::new(snapshot(Arc::new(watched))));
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client {
        address: peer.ip(),
        peer,
        tls: None,
    };
    let manner = Manner::of(&head.head, seen);
    let id = HeaderValue::from_static("self-check");
    let mut exchange = Exchange::new(worker.next_id(), head.head, client, id);
    exchange.route = Arc::from(ROUTE);
    let chain = Rc::new(Chain::new(worker, exchange, manner));
    chain.route.set(Some(0));
    let answer = pass(&chain, Body::full(body)).await;
    chain.end();
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        Some(error) => Err(AloneError::Filter(error)),
        None => answer.map_err(AloneError::Body),
    }
}

const ROUTE: &str = "self-check";

/// All the way there and back.
async fn pass(chain: &Rc<Chain>, body: Body) -> Result<Response<Bytes>, BodyError> {
    let stop = match chain.request(body).await {
        // The filter may judge what streams past, up to the last byte.
        Ok(body) => match body.collect().await {
            Ok(_) => None,
            Err(error) => Some(chain.take_upload_stop().ok_or(error)?),
        },
        Err(stop) => Some(stop),
    };
    let body = match stop {
        Some(stop) => chain.adopt(stop),
        None => {
            chain.exchange.borrow_mut().response = Some(ResponseHead {
                status: StatusCode::OK,
                fields: HeaderMap::new(),
            });
            Body::Empty
        }
    };
    let body = chain.response(body).await;
    let head = chain.exchange.borrow_mut().response.take();
    let body = body.collect().await?.to_bytes();
    let mut response = Response::new(body);
    if let Some(head) = head {
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
    }
    Ok(response)
}

fn snapshot(module: Arc<dyn FilterModule>) -> Snapshot {
    let slot = FilterSlot {
        name: Arc::clone(module.name()),
        module: Some(module),
        failure: Failure::Closed,
        quarantine: None,
    };
    // One route can't be mistaken for another one.
    let Ok(path) = PathPattern::parse("/*") else {
        return Snapshot::default();
    };
    let route = RouteSpec {
        name: Arc::from(ROUTE),
        host: HostPattern::Any,
        path,
        methods: Vec::new(),
        headers: Vec::new(),
        upstream: None,
        filters: vec![0],
        preserve_host: true,
        server_timing: false,
    };
    Snapshot::new(vec![slot], vec![route], []).unwrap_or_default()
}

/// The first call that failed.
type Failed = Arc<Mutex<Option<FilterError>>>;

fn note(failed: &Failed, error: FilterError) {
    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    failed.get_or_insert(error);
}

/// A filter whose failures are kept for whoever tries it, in place of a line in the log and the policy's answer.
#[derive(Debug)]
struct Watched {
    module: Arc<dyn FilterModule>,
    failed: Failed,
}

struct WatchedFilter {
    filter: Rc<dyn Filter>,
    failed: Failed,
}

impl FilterModule for Watched {
    fn name(&self) -> &Arc<str> {
        self.module.name()
    }

    fn interests(&self) -> &Interests {
        self.module.interests()
    }

    fn isolation(&self) -> Isolation {
        self.module.isolation()
    }

    fn on_worker(&self, services: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError> {
        let made = self.module.on_worker(services);
        let filter = made.inspect_err(|error| note(&self.failed, error.clone()))?;
        Ok(Rc::new(WatchedFilter {
            filter,
            failed: Arc::clone(&self.failed),
        }))
    }
}

impl Filter for WatchedFilter {
    fn name(&self) -> &Arc<str> {
        self.filter.name()
    }

    fn interests(&self) -> &Interests {
        self.filter.interests()
    }

    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome {
        match self.filter.call(phase, end, exchange) {
            Outcome::Ready(result) => Outcome::Ready(Ok(kept(&self.failed, result))),
            Outcome::Pending(call) => {
                let failed = Arc::clone(&self.failed);
                Outcome::Pending(Box::pin(async move { Ok(kept(&failed, call.await)) }))
            }
        }
    }
}

/// What a call said; after a failure nothing is of interest any more.
fn kept(failed: &Failed, result: Result<Flow, FilterError>) -> Flow {
    result.unwrap_or_else(|error| {
        note(failed, error);
        Flow::Continue
    })
}
