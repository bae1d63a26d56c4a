//! What stands around a filter in tests: services that can be looked into, an exchange, and a client for HTTP calls
//! that answers when it is told to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Version};
use tidegate_core::certificate::{CertificateFacts, ClientCertificate};
use tidegate_core::clock::{Clock, ManualClock};
use tidegate_core::error::FilterError;
use tidegate_core::exchange::{
    Chunk, Client, Exchange, RequestHead, ResponseHead, Stage, TlsFacts,
};
use tidegate_core::filter::{Filter, FilterModule, Outcome, SharedExchange, WorkerServices};
use tidegate_core::limiter::{
    Bucket, Demand, Entry, Level as BucketLevel, Limiter, LimiterError, Permit, Place, Verdict,
};
use tidegate_core::metrics::Registry;
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::services::{
    CallError, CallFuture, HttpClient, Level, LogSink, Services, Store, StoreError,
};

use tidegate_core::usage::Isolation;

use super::guest::{Carrier, Guest};
use crate::{Allow, Engine, EngineOptions, Limits, LoadError, LoadOptions};

/// One engine for all tests.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineOptions::default()).unwrap())
}

/// A filter's surroundings.
pub(super) struct World {
    pub(super) log: Arc<Lines>,
    pub(super) metrics: Arc<Registry>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) http: Rc<Calls>,
    pub(super) config: String,
    pub(super) allow: Allow,
    pub(super) limits: Limits,
    pub(super) isolation: Option<Isolation>,
    store: Arc<Values>,
    pub(super) limiter: Arc<Takes>,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            log: Arc::default(),
            metrics: Arc::default(),
            clock: Arc::new(ManualClock::at(1_000_000_007)),
            http: Rc::default(),
            config: String::new(),
            allow: Allow {
                http: vec!["users".to_owned()],
                store: vec!["mine".to_owned()],
                env: [("SET", Some("value")), ("UNSET", None)]
                    .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
                    .into(),
            },
            // Builds without optimisation must not run into the bounds by themselves. This is the most for which calls
            // are made at once.
            limits: Limits {
                time: Duration::from_millis(50),
                wall_time: Duration::from_secs(50),
                configure_time: Duration::from_secs(10),
                configure_wall_time: Duration::from_secs(100),
                log_rate: 1_000_000,
                ..Limits::default()
            },
            isolation: None,
            store: Arc::default(),
            limiter: Arc::default(),
        }
    }

    pub(super) fn load(&self, bytes: &[u8]) -> Result<Arc<dyn FilterModule>, LoadError> {
        self.load_with(engine(), bytes)
    }

    pub(super) fn load_with(
        &self,
        engine: &Engine,
        bytes: &[u8],
    ) -> Result<Arc<dyn FilterModule>, LoadError> {
        let compiled = engine.compile(bytes)?;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        engine.load(
            &compiled,
            LoadOptions {
                name: "test".into(),
                config: self.config.clone(),
                allow: self.allow.clone(),
                limits: self.limits,
                isolation: self.isolation,
                services: Services {
                    store: Arc::clone(&self.store) as _,
                    limiter: Arc::clone(&self.limiter) as _,
                    metrics: Arc::clone(&self.metrics),
                    log: Arc::clone(&self.log) as _,
                    clock,
                },
            },
        )
    }

    pub(super) fn filter(&self, guest: &Guest, carrier: Carrier) -> Rc<dyn Filter> {
        let module = self
            .load(&guest.build(carrier))
            .unwrap_or_else(|error| panic!("{carrier:?}: {error}"));
        self.on_worker(&*module).unwrap()
    }

    pub(super) fn on_worker(
        &self,
        module: &dyn FilterModule,
    ) -> Result<Rc<dyn Filter>, FilterError> {
        module.on_worker(&WorkerServices {
            http: Rc::clone(&self.http) as _,
            give_way: || Box::pin(give_way()),
            sleep: |time| {
                SLEPT.set(SLEPT.get() + time);
                Box::pin(give_way())
            },
        })
    }
}

thread_local! {
    /// How long exchanges were made to wait; a test's time does not pass.
    pub(super) static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub(super) fn certificate_facts() -> CertificateFacts {
    CertificateFacts {
        subject: "CN=ada,O=ex\\,ample".to_owned(),
        issuer: "CN=ca".to_owned(),
        serial: "1f".to_owned(),
        not_before: -5,
        not_after: 4_000_000_000,
        sha256: "ab".repeat(32),
        dns_names: vec!["a.example".to_owned(), "b.example".to_owned()],
        uris: vec!["spiffe://example/ada".to_owned()],
        emails: vec![],
        ip_addresses: vec!["192.0.2.1".to_owned()],
    }
}

/// Waits for one turn.
async fn give_way() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// An exchange with this id, in its first phase.
pub(super) fn exchange_with_id(id: u64) -> SharedExchange {
    let mut fields = HeaderMap::new();
    fields.append("accept", HeaderValue::from_static("a"));
    fields.append("x-two", HeaderValue::from_static("one"));
    fields.append("x-two", HeaderValue::from_static("two"));
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTPS,
        authority: Some(Authority::from_static("a.example:81")),
        target: PathAndQuery::from_static("/a/b?c=d"),
        version: Version::HTTP_2,
        fields,
    };
    let client = Client {
        address: [192, 0, 2, 7].into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 4000)),
        tls: Some(Arc::new(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
            server_name: Some("a.example".to_owned()),
            alpn: None,
            client_certificate: Some(Arc::new(ClientCertificate::new(b"DER".to_vec(), |_| {
                Some(certificate_facts())
            }))),
        })),
    };
    let mut exchange = Exchange::new(id, request, client, HeaderValue::from_static("id-7"));
    exchange.route = "the-route".into();
    exchange.parameters = vec![("id".into(), "4 2".to_owned())];
    Rc::new(RefCell::new(exchange))
}

pub(super) fn exchange() -> SharedExchange {
    exchange_with_id(7)
}

/// Puts an exchange into a phase, as the gateway does.
pub(super) fn enter(exchange: &SharedExchange, phase: Phase, chunk: &'static [u8]) {
    let mut exchange = exchange.borrow_mut();
    let head_open = matches!(phase, Phase::RequestHead | Phase::ResponseHead);
    exchange.stage = Stage { phase, head_open };
    exchange.chunk = Chunk::new(Bytes::from_static(chunk));
    if phase >= Phase::ResponseHead && exchange.response.is_none() {
        exchange.response = Some(ResponseHead {
            status: StatusCode::OK,
            fields: HeaderMap::new(),
        });
    }
    if phase == Phase::RequestTrailers {
        exchange.request_trailers = Some(HeaderMap::new());
    }
    if phase == Phase::ResponseTrailers {
        exchange.response_trailers = Some(HeaderMap::new());
    }
}

/// Runs a phase that does not wait.
pub(super) fn run(
    filter: &Rc<dyn Filter>,
    phase: Phase,
    exchange: &SharedExchange,
) -> Result<Flow, FilterError> {
    run_chunk(filter, phase, exchange, b"")
}

pub(super) fn run_chunk(
    filter: &Rc<dyn Filter>,
    phase: Phase,
    exchange: &SharedExchange,
    chunk: &'static [u8],
) -> Result<Flow, FilterError> {
    enter(exchange, phase, chunk);
    match filter.call(phase, true, exchange) {
        Outcome::Ready(result) => result,
        Outcome::Pending(mut future) => match poll(&mut future) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("it waits"),
        },
    }
}

/// Polls as often as a guest that gives way may want, and not for ever.
pub(super) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    for _ in 0..1000 {
        let polled = std::pin::Pin::new(&mut *future).poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_ready() {
            return polled;
        }
    }
    Poll::Pending
}

/// Runs a guest in both carriers, each in a world and exchange of its own, and compares what it logs.
pub(super) fn both(guest: &Guest, phase: Phase, expected: &[&str]) {
    for carrier in super::guest::CARRIERS {
        let world = World::new();
        let filter = world.filter(guest, carrier);
        run(&filter, phase, &exchange()).unwrap_or_else(|error| panic!("{carrier:?}: {error}"));
        assert_eq!(world.log.take(), expected, "{carrier:?}");
    }
}

// --- Services ---

/// Log lines. Everything but `trace` is on.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Vec<(Level, Option<String>, String)>>);

impl Lines {
    /// The messages so far.
    pub(super) fn take(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        lines.into_iter().map(|(_, _, message)| message).collect()
    }

    pub(super) fn take_whole(&self) -> Vec<(Level, Option<String>, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl LogSink for Lines {
    fn enabled(&self, level: Level) -> bool {
        level < Level::Trace
    }

    fn write(&self, level: Level, filter: &str, request_id: Option<&str>, message: &str) {
        assert_eq!(filter, "test");
        let line = (level, request_id.map(str::to_owned), message.to_owned());
        self.0.lock().unwrap().push(line);
    }
}

#[derive(Debug, Default)]
struct Values(Mutex<HashMap<(String, String), Bytes>>);

impl Store for Values {
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        if key == "broken" {
            return Err(StoreError::Unavailable);
        }
        let values = self.0.lock().unwrap();
        Ok(values.get(&(namespace.to_owned(), key.to_owned())).cloned())
    }

    fn set(
        &self,
        namespace: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        assert_eq!(ttl, Some(Duration::from_millis(9)));
        let key = (namespace.to_owned(), key.to_owned());
        self.0.lock().unwrap().insert(key, value);
        Ok(())
    }

    fn delete(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        let key = (namespace.to_owned(), key.to_owned());
        Ok(self.0.lock().unwrap().remove(&key).is_some())
    }

    fn compare_and_swap(
        &self,
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        assert_eq!(ttl, None);
        if self.get(namespace, key)?.as_deref() != expected {
            return Ok(false);
        }
        let key = (namespace.to_owned(), key.to_owned());
        self.0.lock().unwrap().insert(key, value);
        Ok(true)
    }

    fn increment(
        &self,
        namespace: &str,
        key: &str,
        delta: i64,
        _ttl: Option<Duration>,
    ) -> Result<i64, StoreError> {
        let held = self.get(namespace, key)?.unwrap_or("0".into());
        let held: i64 = std::str::from_utf8(&held)
            .unwrap()
            .parse()
            .map_err(|_| StoreError::NotANumber)?;
        let now = held + delta;
        let key = (namespace.to_owned(), key.to_owned());
        self.0.lock().unwrap().insert(key, now.to_string().into());
        Ok(now)
    }
}

/// Says back what it was asked. A key `gone` is not to be had.
#[derive(Debug, Default)]
pub(super) struct Takes {
    in_flight: Arc<AtomicU32>,
}

impl Takes {
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

fn said(
    place: Place,
    space: &str,
    key: &str,
    tokens: u64,
    bucket: &Bucket,
) -> Result<BucketLevel, LimiterError> {
    assert_eq!(space, "test");
    if key == "gone" {
        return Err(LimiterError::Unavailable);
    }
    Ok(BucketLevel {
        allowed: place == Place::Local,
        remaining: bucket.capacity - tokens,
        retry_after: bucket.refill + bucket.period_ms,
        reset_after: bucket.full_at_ms,
    })
}

impl Limiter for Takes {
    fn take(&self, space: &str, key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
        assert_eq!((space, rate), ("test", 2.5));
        Verdict {
            allowed: key == "key",
            remaining: burst - tokens,
            retry_after: (1 << 40) + 1,
            reset_after: (1 << 40) + 2,
        }
    }

    fn try_take(
        &self,
        place: Place,
        space: &str,
        demand: &Demand<'_>,
    ) -> Result<BucketLevel, LimiterError> {
        said(place, space, demand.key, demand.tokens, &demand.bucket)
    }

    fn peek(
        &self,
        place: Place,
        space: &str,
        demand: &Demand<'_>,
    ) -> Result<BucketLevel, LimiterError> {
        said(place, space, demand.key, 0, &demand.bucket)
    }

    fn take_all(
        &self,
        place: Place,
        space: &str,
        demands: &[Demand<'_>],
    ) -> Result<Vec<BucketLevel>, LimiterError> {
        let demands = demands.iter();
        demands
            .map(|demand| said(place, space, demand.key, demand.tokens, &demand.bucket))
            .collect()
    }

    fn charge(
        &self,
        place: Place,
        space: &str,
        key: &str,
        tokens: i64,
        bucket: &Bucket,
    ) -> Result<BucketLevel, LimiterError> {
        assert!(tokens < 0);
        said(place, space, key, tokens.unsigned_abs(), bucket)
    }

    fn enter(&self, _: Place, space: &str, key: &str, limit: u32) -> (Entry, Option<Permit>) {
        assert_eq!(space, "test");
        let in_flight = self.in_flight();
        if in_flight >= limit {
            let allowed = false;
            return (Entry { allowed, in_flight }, None);
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let counted = Arc::clone(&self.in_flight);
        let permit = Permit::new(move || {
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        let entry = Entry {
            allowed: key.len() < 10,
            in_flight: in_flight + 1,
        };
        (entry, Some(permit))
    }
}

/// Upstream, request, time and bytes allowed.
type Asked = (String, Request<Bytes>, Duration, usize);
type Answer = Result<Response<Bytes>, CallError>;

/// Collects HTTP calls, and answers them in their order when it is told to.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) asked: RefCell<Vec<Asked>>,
    /// A clock that goes a minute forward with the next call.
    pub(super) slow: Cell<Option<Arc<ManualClock>>>,
    answers: Rc<RefCell<HashMap<usize, Answer>>>,
}

impl Calls {
    pub(super) fn answer(&self, call: usize, answer: Answer) {
        self.answers.borrow_mut().insert(call, answer);
    }
}

impl HttpClient for Calls {
    fn call(
        &self,
        upstream: &str,
        request: Request<Bytes>,
        timeout: Duration,
        max_response: usize,
    ) -> CallFuture {
        if let Some(clock) = self.slow.take() {
            clock.advance(Duration::from_secs(60));
        }
        let mut asked = self.asked.borrow_mut();
        let number = asked.len();
        asked.push((upstream.to_owned(), request, timeout, max_response));
        let answers = Rc::clone(&self.answers);
        Box::pin(poll_fn(move |_| {
            answers
                .borrow_mut()
                .remove(&number)
                .map_or(Poll::Pending, Poll::Ready)
        }))
    }
}
