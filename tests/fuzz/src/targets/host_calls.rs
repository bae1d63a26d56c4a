//! The host functions of the native contract, called by a core module with whatever arguments: pointers outside of
//! memory, lengths past its end, values that no enumeration has. A call may fail, and then only the guest's.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Version};
use tidegate_core::clock::SystemClock;
use tidegate_core::exchange::{Chunk, Client, Exchange, RequestHead, ResponseHead, Stage};
use tidegate_core::filter::{Filter, Outcome, SharedExchange, WorkerServices};
use tidegate_core::metrics::Registry;
use tidegate_core::path::{Ambiguous, normalise};
use tidegate_core::phase::Phase;
use tidegate_core::services::{CallFuture, HttpClient, Level, LogSink, Services};
use tidegate_core::usage::Isolation;
use tidegate_gateway::state::{MemoryStore, TokenBuckets};
use tidegate_wasm::{Allow, Compiled, Engine, EngineOptions, Limits, LoadOptions};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, UnresolvedPackageGroup, WorldItem};

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// Two bytes for the guest's manner, then calls: a byte for the function, a byte or more for each argument.
pub const TARGET: Target = Target {
    name: "host-calls",
    fuzz,
    dictionary: &[
        "\x01\x20\x21",
        "\x02\x20\x21\x20\x21",
        "\x7f",
        "\x40",
        "\x00\x00\x00\x00",
        "\x05\x06\x07\x08",
        "\x20\x21\x22\x23\x24\x25",
    ],
};

/// Phases that every input goes through.
const PHASES: [Phase; 5] = [
    Phase::RequestHead,
    Phase::RequestBody,
    Phase::ResponseHead,
    Phase::ResponseBody,
    Phase::Log,
];
/// Texts in the guest's memory, from [`TEXTS_AT`] on, 32 bytes each.
const TEXTS: [&str; 12] = [
    "x-two",
    "accept",
    "host",
    "value",
    "mine",
    "users",
    "/a/b",
    "GET",
    "a\r\nb",
    "\u{e9}\0",
    "name",
    "content-length",
];
const TEXTS_AT: u64 = 4096;
/// The most calls of one input.
const CALLS: usize = 24;

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let manner = source.byte();
    let guest = if manner & 1 == 0 {
        &guests().waiting
    } else {
        &guests().plain
    };
    let program = program(&mut source, manner, guest);
    let engine = engine();
    let options = LoadOptions {
        name: "fuzz".into(),
        config: program,
        allow: Allow {
            http: vec!["users".to_owned()],
            store: vec!["mine".to_owned()],
            env: [("name".to_owned(), Some("value".to_owned()))].into(),
        },
        isolation: match manner & 0x30 {
            0x10 => Some(Isolation::Exclusive),
            0x20 => Some(Isolation::Fresh),
            _ => None,
        },
        limits: Limits {
            memory: 1 << 20,
            ..Limits::default()
        },
        services: services(),
    };
    let module = match engine.load(&guest.compiled, options) {
        Ok(module) => module,
        Err(error) => return fingerprint(kind(&error.to_string())),
    };
    let filter = match module.on_worker(&WorkerServices {
        http: Rc::new(Answers),
        give_way: || Box::pin(ready(())),
        sleep: |_| Box::pin(ready(())),
    }) {
        Ok(filter) => filter,
        Err(error) => return fingerprint(error.fault.kind()),
    };
    let exchange = exchange();
    let mut seen = Vec::new();
    for phase in PHASES {
        enter(&exchange, phase);
        seen.push(call(&filter, phase, &exchange));
        check(&exchange.borrow());
    }
    fingerprint((seen, manner & 1))
}

/// Calls a phase, and polls it as long as it makes progress.
fn call(filter: &Rc<dyn Filter>, phase: Phase, exchange: &SharedExchange) -> String {
    let result = match filter.call(phase, true, exchange) {
        Outcome::Ready(result) => result,
        Outcome::Pending(mut future) => {
            let mut context = Context::from_waker(Waker::noop());
            let mut polls = 0..64;
            loop {
                match future.as_mut().poll(&mut context) {
                    Poll::Ready(result) => break result,
                    Poll::Pending if polls.next().is_none() => return "waits".to_owned(),
                    Poll::Pending => {}
                }
            }
        }
    };
    match result {
        Ok(flow) => format!("{flow:?}"),
        Err(error) => kind(&error.fault.to_string()),
    }
}

/// What must hold of an exchange whatever a guest did to it.
fn check(exchange: &Exchange) {
    let path = exchange.request.target.path();
    assert_eq!(
        normalise(path, Ambiguous::Keep).as_deref(),
        Ok(path),
        "a path out of normal form"
    );
    let heads = [
        Some(&exchange.request.fields),
        exchange.response.as_ref().map(|head| &head.fields),
    ];
    for fields in heads.into_iter().flatten() {
        for name in [
            "connection",
            "transfer-encoding",
            "host",
            "content-length",
            "upgrade",
        ] {
            assert!(!fields.contains_key(name), "a guest set {name}");
        }
        let smuggled = fields.values().any(|value| {
            value
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        });
        assert!(!smuggled, "a value with a line's end");
    }
    if let Some(response) = &exchange.response {
        assert!(
            (200..=599).contains(&response.status.as_u16()),
            "status {}",
            response.status
        );
    }
}

/// A message without the numbers and names in it.
fn kind(message: &str) -> String {
    message
        .chars()
        .filter(|letter| letter.is_ascii_alphabetic() || *letter == ' ')
        .take(60)
        .collect()
}

// --- The guest ---

/// A guest and the arguments of the functions that it calls.
struct Guest {
    compiled: Arc<Compiled>,
    functions: Vec<Vec<WasmType>>,
}

struct Guests {
    /// Without calls that wait: run by plain calls.
    plain: Guest,
    /// With them: run on a fiber.
    waiting: Guest,
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineOptions::default()).expect("an engine"))
}

fn guests() -> &'static Guests {
    static GUESTS: OnceLock<Guests> = OnceLock::new();
    GUESTS.get_or_init(|| Guests {
        plain: guest(false),
        waiting: guest(true),
    })
}

/// A core function of the contract.
struct Import {
    module: String,
    name: String,
    params: Vec<WasmType>,
    results: Vec<WasmType>,
}

/// Every function of the contract as a core module imports it, so that none is forgotten.
fn imports() -> Vec<Import> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/wit");
    let mut resolve = Resolve::default();
    let group = UnresolvedPackageGroup::parse_dir(folder).expect("the contract");
    let package = resolve.push_group(group).expect("the contract");
    let world = resolve
        .select_world(&[package], Some("filter"))
        .expect("its world");
    let mut found = Vec::new();
    for (key, item) in &resolve.worlds.get(world).expect("its world").imports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = resolve.interfaces.get(*id).expect("its interfaces");
        for (name, function) in &interface.functions {
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, function);
            found.push(Import {
                module: resolve.name_world_key(key),
                name: name.clone(),
                params: signature.params,
                results: signature.results,
            });
        }
    }
    found
}

fn spelled(kind: WasmType) -> &'static str {
    match kind {
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
    }
}

/// The next argument of the program, which are 64 bits each, as a type.
fn argument(kind: WasmType) -> &'static str {
    match spelled(kind) {
        "i64" => "(call $argument)",
        "f32" => "(f32.demote_f64 (f64.reinterpret_i64 (call $argument)))",
        "f64" => "(f64.reinterpret_i64 (call $argument))",
        _ => "(i32.wrap_i64 (call $argument))",
    }
}

/// A guest whose configuration is a program: calls of host functions with their arguments, run in each phase.
fn guest(waits: bool) -> Guest {
    let all = imports();
    let kept: Vec<&Import> = all
        .iter()
        .filter(|import| waits || !import.module.contains("http-client"))
        .collect();
    let (mut declared, mut calls) = (String::new(), String::new());
    for (index, import) in kept.iter().enumerate() {
        let params: Vec<&str> = import.params.iter().map(|kind| spelled(*kind)).collect();
        let results: Vec<&str> = import.results.iter().map(|kind| spelled(*kind)).collect();
        let arguments: String = import.params.iter().map(|kind| argument(*kind)).collect();
        let drop = if results.is_empty() { "" } else { "(drop)" };
        let (module, name) = (&import.module, &import.name);
        let _infallible = writeln!(
            declared,
            "(import {module:?} {name:?} (func $import{index} (param {}) (result {})))",
            params.join(" "),
            results.join(" ")
        );
        let _infallible = writeln!(
            calls,
            "(func $call{index} (call $import{index} {arguments}) {drop})"
        );
    }
    let elements: String = (0..kept.len())
        .map(|index| format!(" $call{index}"))
        .collect();
    let texts: String = TEXTS
        .iter()
        .zip(0_u64..)
        .map(|(text, index)| {
            let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            format!("(data (i32.const {}) \"{escaped}\")", TEXTS_AT + 32 * index)
        })
        .collect();
    let count = kept.len();
    let text = format!(
        r#"(module
{declared}
(memory (export "memory") 2 8)
(table {count} funcref) (elem (i32.const 0){elements})
(type $call (func))
{texts}
;; `result<interests>`: every phase, bodies in pieces
(data (i32.const 1024) "\00\00\00\00\7f")
(global $from (mut i32) (i32.const 0)) (global $length (mut i32) (i32.const 0))
(global $at (mut i32) (i32.const 0))
(global $free (mut i32) (i32.const 16384)) (global $kept (mut i32) (i32.const 16384))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $place i32)
  (local.set $place (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
  (global.set $free (i32.add (local.get $place) (local.get 3)))
  (if (i32.or (i32.gt_u (local.get 3) (i32.const 65536)) (i32.gt_u (global.get $free) (i32.const 131072))) (then unreachable))
  (local.get $place))
;; two letters are a byte
(func $byte (result i32) (local $value i32)
  (if (i32.ge_u (global.get $at) (global.get $length)) (then (return (i32.const 0))))
  (local.set $value (i32.sub (i32.load16_u (i32.add (global.get $from) (global.get $at))) (i32.const 0x6161)))
  (global.set $at (i32.add (global.get $at) (i32.const 2)))
  (i32.or (i32.shl (i32.and (local.get $value) (i32.const 15)) (i32.const 4)) (i32.shr_u (local.get $value) (i32.const 8))))
(func $argument (result i64) (local $value i64) (local $shift i64)
  (loop $next
    (local.set $value (i64.or (local.get $value) (i64.shl (i64.extend_i32_u (call $byte)) (local.get $shift))))
    (local.set $shift (i64.add (local.get $shift) (i64.const 8)))
    (br_if $next (i64.lt_u (local.get $shift) (i64.const 64))))
  (local.get $value))
{calls}
(func $run (param $flow i32) (result i32)
  (global.set $free (global.get $kept))
  (global.set $at (i32.const 2))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (global.get $at) (global.get $length)))
      (call_indirect (type $call) (i32.rem_u (call $byte) (i32.const {count})))
      (br $next)))
  (local.get $flow))
(func $manner (result i32) (global.set $at (i32.const 0)) (call $byte))
(func $flow (result i32) (i32.and (i32.shr_u (call $manner) (i32.const 2)) (i32.const 3)))
(func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32)
  (global.set $from (local.get 0)) (global.set $length (local.get 1)) (global.set $kept (global.get $free))
  (if (i32.and (call $manner) (i32.const 2)) (then (drop (call $run (i32.const 0)))))
  (i32.const 1024))
(func (export "tidegate:filter/callbacks@0.1.0#request-head") (param i64 i32) (result i32) (call $run (call $flow)))
(func (export "tidegate:filter/callbacks@0.1.0#request-body") (param i64 i32 i32) (result i32) (call $run (i32.const 0)))
(func (export "tidegate:filter/callbacks@0.1.0#request-trailers") (param i64) (result i32) (i32.const 0))
(func (export "tidegate:filter/callbacks@0.1.0#response-head") (param i64 i32) (result i32) (call $run (i32.const 0)))
(func (export "tidegate:filter/callbacks@0.1.0#response-body") (param i64 i32 i32) (result i32) (call $run (call $flow)))
(func (export "tidegate:filter/callbacks@0.1.0#response-trailers") (param i64) (result i32) (i32.const 0))
(func (export "tidegate:filter/callbacks@0.1.0#log") (param i64) (drop (call $run (i32.const 0))))
)"#
    );
    let bytes = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    Guest {
        compiled: engine()
            .compile(&bytes)
            .unwrap_or_else(|error| panic!("{error}")),
        functions: kept.iter().map(|import| import.params.clone()).collect(),
    }
}

/// Makes the guest's program of a fuzzer's bytes: two letters a byte, the manner first.
fn program(source: &mut Source<'_>, manner: u8, guest: &Guest) -> String {
    let mut bytes = vec![manner];
    for _ in 0..CALLS {
        if source.is_empty() {
            break;
        }
        let function = usize::from(source.byte()) % guest.functions.len().max(1);
        bytes.push(u8::try_from(function).unwrap_or(0));
        for _ in guest.functions.get(function).into_iter().flatten() {
            bytes.extend(value(source).to_le_bytes());
        }
    }
    let letter = |nibble: u8| char::from(b'a' + nibble);
    bytes
        .iter()
        .flat_map(|byte| [letter(byte >> 4), letter(byte & 15)])
        .collect()
}

/// An argument: mostly one that means something, seldom any number.
fn value(source: &mut Source<'_>) -> u64 {
    const EDGES: [u64; 24] = [
        0,
        1,
        2,
        3,
        4,
        8,
        16,
        64,
        100,
        200,
        404,
        600,
        1024,
        65_535,
        65_536,
        131_071,
        131_072,
        524_288,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
        u64::MAX,
        1 << 63,
    ];
    let choice = source.byte();
    match choice {
        // Texts and lengths alternate in most functions.
        0x00..0x40 => u64::from(choice),
        0x40..0x80 => TEXTS_AT + 32 * (u64::from(choice) % 12),
        0x80..0xe0 => source.one(&EDGES).unwrap_or_default(),
        0xe0..0xf0 => 2.5_f64.to_bits(),
        _ => source.number(),
    }
}

// --- What stands around it ---

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

fn exchange() -> SharedExchange {
    let mut fields = HeaderMap::new();
    for (name, value) in [("accept", "a"), ("x-two", "one"), ("x-two", "two")] {
        fields.append(name, HeaderValue::from_static(value));
    }
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::HTTPS,
        authority: Some(Authority::from_static("a.example:81")),
        target: PathAndQuery::from_static("/a/b?c=d"),
        version: Version::HTTP_11,
        fields,
    };
    let client = Client {
        address: [192, 0, 2, 7].into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 4000)),
        tls: None,
    };
    let mut exchange = Exchange::new(7, request, client, HeaderValue::from_static("id-7"));
    exchange.parameters = vec![("name".into(), "4 2".to_owned())];
    Rc::new(RefCell::new(exchange))
}

/// Puts an exchange into a phase, as the gateway does.
fn enter(exchange: &SharedExchange, phase: Phase) {
    let mut exchange = exchange.borrow_mut();
    exchange.stage = Stage {
        phase,
        head_open: matches!(phase, Phase::RequestHead | Phase::ResponseHead),
    };
    exchange.chunk = Chunk::new(Bytes::from_static(b"some of a body"));
    if phase >= Phase::ResponseHead && exchange.response.is_none() {
        exchange.response = Some(ResponseHead {
            status: StatusCode::OK,
            fields: HeaderMap::new(),
        });
    }
}

/// Answers every call, the second time it is looked at.
struct Answers;

impl HttpClient for Answers {
    fn call(
        &self,
        _upstream: &str,
        _request: Request<Bytes>,
        _timeout: Duration,
        _max_response: usize,
    ) -> CallFuture {
        let mut looked = false;
        Box::pin(poll_fn(move |_| {
            if std::mem::replace(&mut looked, true) {
                Poll::Ready(Ok(Response::new(Bytes::from_static(b"answer"))))
            } else {
                Poll::Pending
            }
        }))
    }
}

#[derive(Debug)]
struct Nowhere;

impl LogSink for Nowhere {
    fn enabled(&self, level: Level) -> bool {
        level < Level::Trace
    }

    fn write(&self, _level: Level, _filter: &str, _request_id: Option<&str>, _message: &str) {}
}
