//! Guests of a few instructions, as core modules and as components, and what stands around them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Version};
use tidegate_core::clock::SystemClock;
use tidegate_core::exchange::{Client, Exchange, RequestHead, Stage};
use tidegate_core::filter::{Filter, SharedExchange, WorkerServices};
use tidegate_core::metrics::Registry;
use tidegate_core::phase::Phase;
use tidegate_core::services::{CallError, CallFuture, HttpClient, Level, LogSink, Services};
use tidegate_core::usage::Isolation;
use tidegate_gateway::state::{MemoryStore, TokenBuckets};
use tidegate_wasm::{Allow, Engine, EngineOptions, Limits, LoadOptions};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, UnresolvedPackageGroup};

/// How a guest is carried.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Carrier {
    Core,
    Component,
}

/// Code that does nothing.
pub(crate) const NOTHING: &str = "";
/// Reads `user-agent`.
pub(crate) const GET: &str =
    "(call $get (i32.const 0) (i32.const 512) (i32.const 10) (i32.const 64))";
/// Reads `user-agent` and sets `x-mark` to it.
pub(crate) const GET_AND_SET: &str = "(call $get (i32.const 0) (i32.const 512) (i32.const 10) (i32.const 64))
    (call $set (i32.const 0) (i32.const 544) (i32.const 6) (i32.load (i32.const 68)) (i32.load (i32.const 72)) (i32.const 96))";

/// The guest with some code in its request head. It exports everything, as components must, and asks for the request's
/// head and the log.
fn module(code: &str) -> Vec<u8> {
    let name = "tidegate:filter/callbacks@0.1.0#";
    let text = format!(
        r#"(module
(import "tidegate:filter/exchange@0.1.0" "get" (func $get (param i32 i32 i32 i32)))
(import "tidegate:filter/exchange@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
(memory (export "memory") 1)
(data (i32.const 512) "user-agent") (data (i32.const 544) "x-mark")
(data (i32.const 1024) "\00\00\00\00\41")
(global $free (mut i32) (i32.const 4096))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $place i32)
  (local.set $place (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
  (global.set $free (i32.add (local.get $place) (local.get 3)))
  (local.get $place))
(func (export "{name}configure") (param i32 i32) (result i32) (i32.const 1024))
(func (export "{name}request-head") (param i64 i32) (result i32)
  (global.set $free (i32.const 4096))
  {code}
  (i32.const 0))
(func (export "{name}request-body") (param i64 i32 i32) (result i32) (i32.const 0))
(func (export "{name}request-trailers") (param i64) (result i32) (i32.const 0))
(func (export "{name}response-head") (param i64 i32) (result i32) (i32.const 0))
(func (export "{name}response-body") (param i64 i32 i32) (result i32) (i32.const 0))
(func (export "{name}response-trailers") (param i64) (result i32) (i32.const 0))
(func (export "{name}log") (param i64))
)"#
    );
    wat::parse_str(text).expect("the guest's text")
}

fn component(mut module: Vec<u8>) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/wit");
    let mut resolve = Resolve::default();
    let group = UnresolvedPackageGroup::parse_dir(folder).expect("the contract");
    let package = resolve.push_group(group).expect("the contract");
    let world = resolve
        .select_world(&[package], Some("filter"))
        .expect("its world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the guest's types");
    let encoder = ComponentEncoder::default().module(&module);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .expect("a component")
}

/// Filters with this code in their request head, each loaded for itself.
pub(crate) fn filters(
    carrier: Carrier,
    code: &str,
    isolation: Isolation,
    count: usize,
) -> Vec<Rc<dyn Filter>> {
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let module = module(code);
    let bytes = match carrier {
        Carrier::Core => module,
        Carrier::Component => component(module),
    };
    let compiled = engine.compile(&bytes).expect("a filter");
    let load = |_| {
        let options = LoadOptions {
            name: "micro".into(),
            config: String::new(),
            allow: Allow::default(),
            limits: Limits::default(),
            isolation: Some(isolation),
            services: services(),
        };
        let module = engine
            .load(&compiled, options)
            .expect("a filter that loads");
        let services = WorkerServices {
            http: Rc::new(Nobody),
            give_way: || Box::pin(std::future::ready(())),
            sleep: |_| Box::pin(std::future::ready(())),
        };
        module.on_worker(&services).expect("a filter that starts")
    };
    (0..count).map(load).collect()
}

fn services() -> Services {
    let clock = Arc::new(SystemClock);
    Services {
        store: Arc::new(MemoryStore::new(Arc::clone(&clock) as _, 1 << 20)),
        limiter: Arc::new(TokenBuckets::bounded(Arc::clone(&clock) as _, 100)),
        metrics: Arc::new(Registry::default()),
        log: Arc::new(Nowhere),
        clock,
    }
}

/// A browser's request, or about one.
pub(crate) fn exchange(id: u64) -> SharedExchange {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("user-agent", "bench/1.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "en"),
        ("cookie", "session=0123456789abcdef"),
        ("referer", "https://a.example/"),
    ] {
        fields.append(name, HeaderValue::from_static(value));
    }
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTP,
        authority: Some(Authority::from_static("a.example")),
        target: PathAndQuery::from_static("/a/b?c=d"),
        version: Version::HTTP_11,
        fields,
    };
    let client = Client {
        address: [192, 0, 2, 7].into(),
        peer: SocketAddr::from(([192, 0, 2, 7], 4000)),
        tls: None,
    };
    let exchange = Exchange::new(id, request, client, HeaderValue::from_static("id"));
    Rc::new(RefCell::new(exchange))
}

/// Puts an exchange into a phase, as the gateway does.
pub(crate) fn enter(exchange: &SharedExchange, phase: Phase) {
    exchange.borrow_mut().stage = Stage {
        phase,
        head_open: phase == Phase::RequestHead,
    };
}

/// Answers no call.
struct Nobody;

impl HttpClient for Nobody {
    fn call(&self, _: &str, _: Request<Bytes>, _: std::time::Duration, _: usize) -> CallFuture {
        Box::pin(std::future::ready(Err(CallError::Unreachable)))
    }
}

#[derive(Debug)]
struct Nowhere;

impl LogSink for Nowhere {
    fn enabled(&self, _: Level) -> bool {
        false
    }

    fn write(&self, _: Level, _: &str, _: Option<&str>, _: &str) {}
}
