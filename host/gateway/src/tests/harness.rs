//! What the tests are made of: a runtime like a worker's, filters in Rust, upstreams that follow a script, and a client that
//! speaks in bytes.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_core::error::{Fault, FilterError};
use tidegate_core::exchange::Exchange;
use tidegate_core::filter::{Filter, FilterModule, Outcome, SharedExchange, WorkerServices};
use tidegate_core::metrics::Registry;
use tidegate_core::phase::{BodyMode, BodyWish, Flow, Interests, Overflow, Phase, Phases};
use tidegate_upstream::{Upstream, UpstreamConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::access_log::{AccessLog, Format};
use crate::{
    Drain, DrainTrigger, Failure, FilterSlot, HostPattern, PathPattern, RouteSpec, Settings,
    Shared, Snapshot, Worker,
};

/// Nothing here takes longer, unless it is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on a runtime like a worker's.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(async { tokio::time::timeout(4 * PATIENCE, test).await })
        .expect("the test is stuck")
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen in time"),
    }
}

pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

// --- Filters ---

/// What a filter made of a closure decides.
pub(super) enum Act {
    Flow(Flow),
    Fail,
    /// Waits, then decides.
    Wait(Pin<Box<dyn Future<Output = Flow>>>),
    WaitAndFail(Pin<Box<dyn Future<Output = ()>>>),
}

type Callback = dyn Fn(Phase, bool, &SharedExchange) -> Act + Send + Sync;

/// A filter made of a closure.
#[derive(Clone)]
pub(super) struct Fake {
    name: Arc<str>,
    interests: Interests,
    failure: Failure,
    pub(super) quarantine: Option<Arc<crate::Quarantine>>,
    callback: Arc<Callback>,
}

impl Fake {
    /// A filter that takes part in some phases.
    pub(super) fn new(
        name: &str,
        phases: &[Phase],
        callback: impl Fn(Phase, bool, &mut Exchange) -> Flow + Send + Sync + 'static,
    ) -> Self {
        Self::acting(name, phases, move |phase, end, exchange| {
            Act::Flow(callback(phase, end, &mut exchange.borrow_mut()))
        })
    }

    pub(super) fn acting(
        name: &str,
        phases: &[Phase],
        callback: impl Fn(Phase, bool, &SharedExchange) -> Act + Send + Sync + 'static,
    ) -> Self {
        let wish = BodyWish {
            mode: BodyMode::Stream,
            limit: 1024 * 1024,
            overflow: Overflow::Refuse,
        };
        Fake {
            name: Arc::from(name),
            interests: Interests {
                phases: phases.iter().copied().collect::<Phases>(),
                request_body: wish,
                response_body: wish,
            },
            failure: Failure::Closed,
            quarantine: None,
            callback: Arc::new(callback),
        }
    }

    /// Wants bodies whole, up to a bound.
    pub(super) fn whole(mut self, limit: u32, overflow: Overflow) -> Self {
        let wish = BodyWish {
            mode: BodyMode::Whole,
            limit,
            overflow,
        };
        self.interests.request_body = wish;
        self.interests.response_body = wish;
        self
    }

    /// Wants bodies only when it holds a head.
    pub(super) fn on_hold(mut self) -> Self {
        self.interests.request_body.mode = BodyMode::OnHold;
        self.interests.response_body.mode = BodyMode::OnHold;
        self
    }

    pub(super) fn open(mut self) -> Self {
        self.failure = Failure::Open;
        self
    }

    fn trap(&self, phase: Phase) -> FilterError {
        FilterError {
            filter: Arc::clone(&self.name),
            phase,
            fault: Fault::Trap("on purpose".to_owned()),
        }
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl FilterModule for Fake {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn interests(&self) -> &Interests {
        &self.interests
    }

    fn on_worker(&self, _: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError> {
        Ok(Rc::new(self.clone()))
    }
}

impl Filter for Fake {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn interests(&self) -> &Interests {
        &self.interests
    }

    fn call(&self, phase: Phase, end: bool, exchange: &SharedExchange) -> Outcome {
        // As real ones: whoever has no part in a phase is not asked, unless it held the head.
        let held = matches!(phase, Phase::RequestBody | Phase::ResponseBody);
        if !held && !self.interests.phases.has(phase) {
            return Outcome::Ready(Ok(Flow::Continue));
        }
        match (self.callback)(phase, end, exchange) {
            Act::Flow(flow) => Outcome::Ready(Ok(flow)),
            Act::Fail => Outcome::Ready(Err(self.trap(phase))),
            Act::Wait(future) => Outcome::Pending(Box::pin(async { Ok(future.await) })),
            Act::WaitAndFail(future) => {
                let error = self.trap(phase);
                Outcome::Pending(Box::pin(async {
                    future.await;
                    Err(error)
                }))
            }
        }
    }
}

/// What was seen, in order; shared with closures.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(super) fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

// --- Upstreams ---

/// An upstream that serves one connection after the other by a script, and notes what it is sent.
pub(super) struct Origin {
    pub(super) url: String,
    pub(super) seen: Seen,
}

impl Origin {
    pub(super) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Wire, Seen) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let notes = seen.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(script(Wire(stream), notes.clone()));
            }
        });
        Origin { url, seen }
    }

    /// Answers every request with the same bytes, on kept connections, and notes heads and bodies.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut wire, seen| async move {
            while let Some(message) = wire.message().await {
                seen.add(message);
                wire.send(answer).await;
            }
        })
        .await
    }

    /// Answers with what it was sent, as a body.
    pub(super) async fn echo() -> Self {
        Self::start(|mut wire, seen| async move {
            while let Some(message) = wire.message().await {
                let length = message.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{message}");
                seen.add(message);
                wire.send(answer).await;
            }
        })
        .await
    }
}

/// A connection as bytes.
pub(super) struct Wire(pub(super) TcpStream);

impl Wire {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Whoever was refused early has closed already.
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads up to and with an end; none if the connection ends before.
    pub(super) async fn until(&mut self, end: &[u8]) -> Option<String> {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(end) {
            match within("a byte", self.0.read(&mut byte)).await {
                Ok(1) => read.push(byte[0]),
                _ => return None,
            }
        }
        Some(String::from_utf8_lossy(&read).into_owned())
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Option<String> {
        let mut read = vec![0; length];
        within("bytes", self.0.read_exact(&mut read)).await.ok()?;
        Some(String::from_utf8_lossy(&read).into_owned())
    }

    pub(super) async fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n").await
    }

    /// A whole message: head, and body by its length or chunks, with the framing as it came.
    pub(super) async fn message(&mut self) -> Option<String> {
        let mut message = self.head().await?;
        let lower = message.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("\r\ncontent-length:") {
            let length = rest.split("\r\n").next().unwrap().trim().parse().unwrap();
            message += &self.exactly(length).await?;
        } else if lower.contains("\r\ntransfer-encoding: chunked\r\n") {
            loop {
                let size = self.until(b"\r\n").await?;
                message += &size;
                if size == "0\r\n" {
                    break;
                }
                let length = usize::from_str_radix(size.trim(), 16).unwrap();
                message += &self.exactly(length + 2).await?;
            }
            loop {
                let line = self.until(b"\r\n").await?;
                message += &line;
                if line == "\r\n" {
                    break;
                }
            }
        }
        Some(message)
    }

    /// All that comes until the end, and whether the end was in good order.
    pub(super) async fn rest(&mut self) -> (String, bool) {
        let mut read = Vec::new();
        let end = within("the end", self.0.read_to_end(&mut read)).await;
        (String::from_utf8_lossy(&read).into_owned(), end.is_ok())
    }
}

// --- The gateway ---

/// A worker behind a socket.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    pub(super) worker: Rc<Worker>,
    pub(super) registry: Arc<Registry>,
    pub(super) drain: DrainTrigger,
    pub(super) log: std::path::PathBuf,
    open: Rc<RefCell<usize>>,
    ended: Rc<Notify>,
}

/// How a gateway is set up.
pub(super) struct Setup {
    settings: Settings,
    filters: Vec<Fake>,
    routes: Vec<RouteSpec>,
}

pub(super) fn upstream(url: &str) -> Arc<Upstream> {
    let config = UpstreamConfig {
        response_timeout: PATIENCE,
        ..UpstreamConfig::new(Arc::from("main"), vec![url.parse().unwrap()])
    };
    Upstream::new(config, &tidegate_upstream::Names::default()).unwrap()
}

impl Setup {
    /// One route to an upstream, through filters.
    pub(super) fn new(origin: &Origin, filters: Vec<Fake>) -> Self {
        Self::to(Some(upstream(&origin.url)), filters)
    }

    pub(super) fn to(upstream: Option<Arc<Upstream>>, filters: Vec<Fake>) -> Self {
        let route = RouteSpec {
            name: Arc::from("all"),
            host: HostPattern::Any,
            path: PathPattern::parse("/*").unwrap(),
            methods: Vec::new(),
            headers: Vec::new(),
            upstream,
            filters: (0..filters.len()).collect(),
            preserve_host: true,
            server_timing: false,
        };
        Setup {
            settings: Settings::default(),
            filters,
            routes: vec![route],
        }
    }

    pub(super) fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(super) fn route(mut self, change: impl FnOnce(&mut RouteSpec)) -> Self {
        change(&mut self.routes[0]);
        self
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let slots = self
            .filters
            .iter()
            .map(|filter| FilterSlot {
                name: Arc::clone(&filter.name),
                module: Some(Arc::new(filter.clone())),
                failure: filter.failure,
                quarantine: filter.quarantine.clone(),
            })
            .collect();
        let upstreams = self
            .routes
            .iter()
            .filter_map(|route| route.upstream.clone());
        let upstreams: Vec<_> = upstreams.collect();
        Snapshot::new(slots, self.routes.clone(), upstreams).unwrap()
    }

    pub(super) async fn start(self) -> Gateway {
        let registry = Arc::new(Registry::new());
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("tidegate-gateway-{}-{number}.log", std::process::id());
        let log = std::env::temp_dir().join(name);
        let snapshot = self.snapshot();
        let shared = Shared {
            settings: self.settings,
            registry: Arc::clone(&registry),
            access_log: Some(AccessLog::start(Some(log.clone()), Format::Json, &registry).unwrap()),
        };
        let worker = Worker::new(0, Arc::new(shared));
        worker.install(Arc::new(snapshot));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, drain) = Drain::new();
        let (open, ended) = (Rc::new(RefCell::new(0)), Rc::new(Notify::new()));
        let (server, counted, told) = (Rc::clone(&worker), Rc::clone(&open), Rc::clone(&ended));
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                *counted.borrow_mut() += 1;
                let served = Rc::clone(&server).serve_stream(stream, peer, None, drain.clone());
                let (counted, told) = (Rc::clone(&counted), Rc::clone(&told));
                tokio::task::spawn_local(async move {
                    served.await;
                    *counted.borrow_mut() -= 1;
                    told.notify_waiters();
                });
            }
        });
        Gateway {
            address,
            worker,
            registry,
            drain: trigger,
            log,
            open,
            ended,
        }
    }
}

impl Gateway {
    pub(super) async fn wire(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes on a connection of their own, reads the first answer.
    pub(super) async fn ask(&self, bytes: &str) -> String {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.message().await.expect("an answer")
    }

    pub(super) async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await
    }

    /// Waits until no connection is open.
    pub(super) async fn all_closed(&self) {
        within("all connections to end", async {
            loop {
                let ended = self.ended.notified();
                if *self.open.borrow() == 0 {
                    return;
                }
                ended.await;
            }
        })
        .await;
    }

    /// The value of a figure.
    pub(super) fn figure(&self, series: &str) -> f64 {
        let text = self.registry.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// The access log's lines, once there are so many.
    pub(super) async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        until("the log's lines", || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            lines = text.lines().map(str::to_owned).collect();
            lines.len() >= count && text.ends_with('\n')
        })
        .await;
        let parse = |line: &String| serde_json::from_str(line).unwrap();
        lines.iter().map(parse).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}

pub(super) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
