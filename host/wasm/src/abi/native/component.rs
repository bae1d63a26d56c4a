//! The component carrier: the contract's interfaces for the component runtime, each a translation to the functions
//! of `host`. Knows no core module's memory.

use bytes::Bytes;
use http::Response;
use send_wrapper::SendWrapper;
use tidegate_core::exchange::{Part, Refusal};
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::services::Level;
use wasmtime::component::{Component, HasSelf, Instance, Linker, TypedFunc};
use wasmtime::{AsContextMut, Engine, Store, StoreContextMut};

use super::call::{Call, Configured, Mode};
use super::figures::Define;
use super::host::{self, CallRefusal, StoreRefusal};
use super::state::{Data, Held, State};
use crate::contract::{OURS_TEXT, PACKAGE};
use crate::fault::breach;

use bindings::tidegate::filter::http_client::{CallError, CallRequest, CallResponse};
use bindings::tidegate::filter::{
    body, clock, environment, exchange, limiter, log, metrics, random, store, types,
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit",
        world: "filter",
        imports: { default: trappable },
        ownership: Owning,
    });
}

type Done<T> = wasmtime::Result<T>;

// === Linking ===

/// A linker with everything that does not wait.
pub(super) fn linker<D: Data>(engine: &Engine) -> Done<Linker<D>> {
    type Of = HasSelf<State>;
    let mut linker = Linker::<D>::new(engine);
    types::add_to_linker::<D, Of>(&mut linker, D::state)?;
    exchange::add_to_linker::<D, Of>(&mut linker, D::state)?;
    body::add_to_linker::<D, Of>(&mut linker, D::state)?;
    log::add_to_linker::<D, Of>(&mut linker, D::state)?;
    metrics::add_to_linker::<D, Of>(&mut linker, D::state)?;
    clock::add_to_linker::<D, Of>(&mut linker, D::state)?;
    random::add_to_linker::<D, Of>(&mut linker, D::state)?;
    store::add_to_linker::<D, Of>(&mut linker, D::state)?;
    limiter::add_to_linker::<D, Of>(&mut linker, D::state)?;
    environment::add_to_linker::<D, Of>(&mut linker, D::state)?;
    Ok(linker)
}

/// Adds the one function that waits.
pub(super) fn link_call(linker: &mut Linker<Held>) -> Done<()> {
    let mut instance = linker.instance(&format!("{PACKAGE}/http-client@{OURS_TEXT}"))?;
    instance.func_wrap_async(
        "call",
        |mut store: StoreContextMut<'_, Held>, (upstream, request): (String, CallRequest)| {
            Box::new(SendWrapper::new(async move {
                let begun = begin_call(store.data_mut().state(), &upstream, &request);
                let outcome = match begun {
                    Ok(future) => {
                        let outcome = future.await;
                        let left = store.data_mut().state().woke()?;
                        store
                            .as_context_mut()
                            .set_epoch_deadline(crate::engine::ticks(left));
                        outcome.map_err(CallRefusal::from)
                    }
                    Err(refusal) => Err(refusal),
                };
                let result: Result<CallResponse, CallError> =
                    outcome.map(response).map_err(call_refusal);
                Ok((result,))
            }))
        },
    )
}

fn begin_call(
    state: &mut State,
    upstream: &str,
    request: &CallRequest,
) -> Result<tidegate_core::services::CallFuture, CallRefusal> {
    let call = host::Call {
        upstream,
        method: &request.method,
        path: &request.path,
        body: &request.body,
        timeout_ms: request.timeout_ms,
        max_response: request.max_response_bytes,
    };
    let fields = request.fields.iter();
    state.begin_call(
        call,
        fields.map(|(name, value)| (name.as_str(), value.as_slice())),
    )
}

fn response(response: Response<Bytes>) -> CallResponse {
    CallResponse {
        status: response.status().as_u16(),
        fields: response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body: response.into_body().to_vec(),
    }
}

fn call_refusal(refusal: CallRefusal) -> CallError {
    match refusal {
        CallRefusal::NotGranted => CallError::NotGranted,
        CallRefusal::InvalidRequest => CallError::InvalidRequest,
        CallRefusal::Unreachable => CallError::Unreachable,
        CallRefusal::TimedOut => CallError::TimedOut,
        CallRefusal::ResponseTooLarge => CallError::ResponseTooLarge,
        CallRefusal::Broken => CallError::Broken,
        CallRefusal::NotNow => CallError::NotNow,
    }
}

// === Exports ===

/// A component's callbacks, looked up once.
pub(super) struct Exports {
    request_head: Option<TypedFunc<(u64, bool), (types::Flow,)>>,
    request_body: Option<TypedFunc<(u64, u32, bool), (types::Flow,)>>,
    request_trailers: Option<TypedFunc<(u64,), (types::Flow,)>>,
    response_head: Option<TypedFunc<(u64, bool), (types::Flow,)>>,
    response_body: Option<TypedFunc<(u64, u32, bool), (types::Flow,)>>,
    response_trailers: Option<TypedFunc<(u64,), (types::Flow,)>>,
    log: Option<TypedFunc<(u64,), ()>>,
}

/// Looks up the exports of a new instance and runs `configure`.
pub(super) async fn begin<M: Mode>(
    store: &mut Store<M::Data>,
    component: &Component,
    instance: Instance,
) -> Done<(Exports, Configured)> {
    let interface = component
        .component_type()
        .exports(component.engine())
        .map(|(name, _)| name.to_owned())
        .find(|name| {
            crate::contract::interface(name).is_some_and(|found| found.name == "callbacks")
        })
        .and_then(|name| component.get_export_index(None, &name));
    let found = |phase: Phase| {
        interface
            .as_ref()
            .and_then(|interface| component.get_export_index(Some(interface), phase.name()))
    };
    macro_rules! callback {
        ($phase:ident) => {
            match found(Phase::$phase) {
                Some(index) => {
                    let typed = instance.get_typed_func(&mut *store, index);
                    Some(typed.map_err(|error| wrong_type(Phase::$phase, &error))?)
                }
                None => None,
            }
        };
    }
    let exports = Exports {
        request_head: callback!(RequestHead),
        request_body: callback!(RequestBody),
        request_trailers: callback!(RequestTrailers),
        response_head: callback!(ResponseHead),
        response_body: callback!(ResponseBody),
        response_trailers: callback!(ResponseTrailers),
        log: callback!(Log),
    };
    type Configure<'a> = TypedFunc<(&'a str,), (Result<types::Interests, String>,)>;
    let configure: Option<Configure<'_>> = callback!(Configure);
    let Some(configure) = configure else {
        return Ok((exports, Configured::NotExported));
    };
    let facts = store.data_mut().state().facts.clone();
    let (result,) = M::call_component(store, &configure, (facts.config.as_str(),)).await?;
    let configured = match result {
        Ok(wishes) => Configured::Interests(interests(&wishes)),
        Err(message) => Configured::refused(&message),
    };
    Ok((exports, configured))
}

fn wrong_type(phase: Phase, error: &wasmtime::Error) -> wasmtime::Error {
    let export = crate::contract::export_name(phase);
    breach(format!(
        "its export `{export}` has another type: {}",
        error.root_cause()
    ))
}

fn interests(wishes: &types::Interests) -> Interests {
    use tidegate_core::phase::{BodyMode, BodyWish, Overflow};
    let named = [
        (types::Phases::REQUEST_HEAD, Phase::RequestHead),
        (types::Phases::REQUEST_BODY, Phase::RequestBody),
        (types::Phases::REQUEST_TRAILERS, Phase::RequestTrailers),
        (types::Phases::RESPONSE_HEAD, Phase::ResponseHead),
        (types::Phases::RESPONSE_BODY, Phase::ResponseBody),
        (types::Phases::RESPONSE_TRAILERS, Phase::ResponseTrailers),
        (types::Phases::LOG, Phase::Log),
    ];
    let wish = |wish: &types::BodyWish| BodyWish {
        mode: match wish.mode {
            types::BodyMode::Stream => BodyMode::Stream,
            types::BodyMode::Whole => BodyMode::Whole,
            types::BodyMode::OnHold => BodyMode::OnHold,
        },
        limit: wish.limit,
        overflow: match wish.overflow {
            types::Overflow::Refuse => Overflow::Refuse,
            types::Overflow::Stream => Overflow::Stream,
        },
    };
    Interests {
        phases: named
            .into_iter()
            .filter(|(flag, _)| wishes.phases.contains(*flag))
            .map(|(_, phase)| phase)
            .collect(),
        request_body: wish(&wishes.request_body),
        response_body: wish(&wishes.response_body),
    }
}

impl Exports {
    /// Runs a callback, if it is exported.
    pub(super) async fn call<M: Mode>(
        &self,
        store: &mut Store<M::Data>,
        call: Call,
    ) -> Done<Option<Flow>> {
        let Call {
            phase,
            id,
            length,
            end,
        } = call;
        let head = match phase {
            Phase::RequestHead => &self.request_head,
            _ => &self.response_head,
        };
        let body = match phase {
            Phase::RequestBody => &self.request_body,
            _ => &self.response_body,
        };
        let trailers = match phase {
            Phase::RequestTrailers => &self.request_trailers,
            _ => &self.response_trailers,
        };
        let flow = match (phase, head, body, trailers, &self.log) {
            (Phase::RequestHead | Phase::ResponseHead, Some(function), ..) => {
                M::call_component(store, function, (id, end)).await?.0
            }
            (Phase::RequestBody | Phase::ResponseBody, _, Some(function), ..) => {
                M::call_component(store, function, (id, length, end))
                    .await?
                    .0
            }
            (Phase::RequestTrailers | Phase::ResponseTrailers, _, _, Some(function), _) => {
                M::call_component(store, function, (id,)).await?.0
            }
            (Phase::Log, _, _, _, Some(function)) => {
                M::call_component(store, function, (id,)).await?;
                types::Flow::Proceed
            }
            _ => return Ok(None),
        };
        Ok(Some(match flow {
            types::Flow::Proceed => Flow::Continue,
            types::Flow::Hold => Flow::Hold,
            types::Flow::Answer => Flow::Answer,
        }))
    }
}

// === Imports ===

fn part(part: exchange::Part) -> Part {
    match part {
        exchange::Part::Request => Part::Request,
        exchange::Part::RequestTrailers => Part::RequestTrailers,
        exchange::Part::Response => Part::Response,
        exchange::Part::ResponseTrailers => Part::ResponseTrailers,
    }
}

fn refusal(refusal: Refusal) -> types::Refusal {
    match refusal {
        Refusal::InvalidName => types::Refusal::InvalidName,
        Refusal::InvalidValue => types::Refusal::InvalidValue,
        Refusal::Forbidden => types::Refusal::Forbidden,
        Refusal::TooLate => types::Refusal::TooLate,
        Refusal::TooLarge => types::Refusal::TooLarge,
        Refusal::Absent => types::Refusal::Absent,
    }
}

fn field((name, value): (&str, &[u8])) -> types::Field {
    (name.to_owned(), value.to_vec())
}

type Changed<T = ()> = Done<Result<T, types::Refusal>>;

impl types::Host for State {}

impl exchange::Host for State {
    fn get(&mut self, place: exchange::Part, name: String) -> Done<Option<Vec<u8>>> {
        Ok(self.read(|exchange| exchange.get(part(place), &name).map(<[u8]>::to_vec)))
    }

    fn get_all(&mut self, place: exchange::Part, name: String) -> Done<Vec<Vec<u8>>> {
        Ok(self.read(|exchange| {
            host::values(exchange, part(place), &name)
                .map(<[u8]>::to_vec)
                .collect()
        }))
    }

    fn count(&mut self, place: exchange::Part) -> Done<u32> {
        Ok(self.read(|exchange| host::count(exchange, part(place))))
    }

    fn at(&mut self, place: exchange::Part, index: u32) -> Done<Option<types::Field>> {
        Ok(self.read(|exchange| {
            host::all(exchange, part(place))
                .nth(index as usize)
                .map(field)
        }))
    }

    fn all(&mut self, place: exchange::Part) -> Done<Vec<types::Field>> {
        Ok(self.read(|exchange| host::all(exchange, part(place)).map(field).collect()))
    }

    fn set(&mut self, place: exchange::Part, name: String, value: Vec<u8>) -> Changed {
        let outcome = self.change(|exchange| exchange.set(part(place), &name, &value));
        Ok(outcome.map_err(refusal))
    }

    fn append(&mut self, place: exchange::Part, name: String, value: Vec<u8>) -> Changed {
        let outcome = self.change(|exchange| exchange.append(part(place), &name, &value));
        Ok(outcome.map_err(refusal))
    }

    fn remove(&mut self, place: exchange::Part, name: String) -> Changed<u32> {
        let outcome = self.change(|exchange| exchange.remove(part(place), &name));
        Ok(outcome.map_err(refusal))
    }

    fn method(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.method.to_string()))
    }

    fn set_method(&mut self, method: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_method(&method))
            .map_err(refusal))
    }

    fn scheme(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.scheme.to_string()))
    }

    fn set_scheme(&mut self, scheme: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_scheme(&scheme))
            .map_err(refusal))
    }

    fn authority(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::authority(exchange).to_owned()))
    }

    fn set_authority(&mut self, authority: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_authority(&authority))
            .map_err(refusal))
    }

    fn path(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.target.path().to_owned()))
    }

    fn set_path(&mut self, path: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_path(&path))
            .map_err(refusal))
    }

    fn query(&mut self) -> Done<Option<String>> {
        Ok(self.read(|exchange| exchange.request.target.query().map(str::to_owned)))
    }

    fn set_query(&mut self, query: Option<String>) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_query(query.as_deref()))
            .map_err(refusal))
    }

    fn status(&mut self) -> Done<u16> {
        Ok(self.read(host::status))
    }

    fn set_status(&mut self, status: u16) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_status(status))
            .map_err(refusal))
    }

    fn answer(&mut self, status: u16, fields: Vec<types::Field>, body: Vec<u8>) -> Changed {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        let outcome = self.change(|exchange| exchange.give_answer(status, fields, body.into()));
        Ok(outcome.map_err(refusal))
    }

    fn client_address(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.client.address.to_string()))
    }

    fn client_port(&mut self) -> Done<u16> {
        Ok(self.read(|exchange| exchange.client.peer.port()))
    }

    fn protocol(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::protocol(exchange).to_owned()))
    }

    fn tls(&mut self) -> Done<Option<exchange::TlsFacts>> {
        Ok(self.read(|exchange| {
            let facts = exchange.client.tls.as_ref()?;
            Some(exchange::TlsFacts {
                version: facts.version.to_owned(),
                cipher: facts.cipher.clone(),
                server_name: facts.server_name.clone(),
                alpn: facts.alpn.clone(),
            })
        }))
    }

    fn route(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.route.as_ref().to_owned()))
    }

    fn path_parameter(&mut self, name: String) -> Done<Option<String>> {
        Ok(self.read(|exchange| exchange.parameter(&name).map(str::to_owned)))
    }

    fn request_id(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::request_id(exchange).to_owned()))
    }

    fn property(&mut self, name: String) -> Done<Option<Vec<u8>>> {
        Ok(self.read(|exchange| exchange.property(&name).map(<[u8]>::to_vec)))
    }

    fn set_property(&mut self, name: String, value: Vec<u8>) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_property(&name, &value))
            .map_err(refusal))
    }
}

impl body::Host for State {
    fn read(&mut self, offset: u32, max: u32) -> Done<Vec<u8>> {
        Ok(State::read(self, |exchange| {
            let length = host::readable(exchange, offset, max);
            exchange.chunk.read(offset, length).to_vec()
        }))
    }

    fn replace(&mut self, bytes: Vec<u8>) -> Done<()> {
        self.change_chunk(&bytes, false)
    }

    fn append(&mut self, bytes: Vec<u8>) -> Done<()> {
        self.change_chunk(&bytes, true)
    }
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

impl log::Host for State {
    fn enabled(&mut self, of: log::Level) -> Done<bool> {
        Ok(self.log_enabled(level(of)))
    }

    fn write(&mut self, of: log::Level, message: String) -> Done<()> {
        self.log_write(level(of), &message);
        Ok(())
    }
}

fn borrowed(labels: &[metrics::Label]) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

impl metrics::Host for State {
    fn counter(&mut self, name: String, help: String, labels: Vec<metrics::Label>) -> Changed<u32> {
        let outcome = self.define(Define::Counter, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn gauge(&mut self, name: String, help: String, labels: Vec<metrics::Label>) -> Changed<u32> {
        let outcome = self.define(Define::Gauge, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn histogram(
        &mut self,
        name: String,
        help: String,
        labels: Vec<metrics::Label>,
        bounds: Vec<f64>,
    ) -> Changed<u32> {
        let define = Define::Histogram(&bounds);
        let outcome = self.define(define, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn add(&mut self, metric: u32, delta: u64) -> Done<()> {
        State::add(self, metric, delta);
        Ok(())
    }

    fn set(&mut self, metric: u32, value: f64) -> Done<()> {
        State::set(self, metric, value);
        Ok(())
    }

    fn observe(&mut self, metric: u32, value: f64) -> Done<()> {
        State::observe(self, metric, value);
        Ok(())
    }
}

impl clock::Host for State {
    fn monotonic(&mut self) -> Done<u64> {
        Ok(State::monotonic(self))
    }

    fn wall(&mut self) -> Done<u64> {
        Ok(State::wall(self))
    }
}

impl random::Host for State {
    fn bytes(&mut self, length: u32) -> Done<Vec<u8>> {
        host::random(length)
    }

    fn number(&mut self) -> Done<u64> {
        host::random_number()
    }
}

fn store_refusal(refusal: StoreRefusal) -> store::StoreError {
    match refusal {
        StoreRefusal::NotGranted => store::StoreError::NotGranted,
        StoreRefusal::TooLarge => store::StoreError::TooLarge,
        StoreRefusal::NotANumber => store::StoreError::NotANumber,
        StoreRefusal::Unavailable => store::StoreError::Unavailable,
    }
}

type Stored<T> = Done<Result<T, store::StoreError>>;

impl store::Host for State {
    fn get(&mut self, namespace: String, key: String) -> Stored<Option<Vec<u8>>> {
        let outcome = self.store_get(&namespace, &key);
        Ok(outcome
            .map(|value| value.map(|value| value.to_vec()))
            .map_err(store_refusal))
    }

    fn set(&mut self, namespace: String, key: String, value: Vec<u8>, ttl_ms: u64) -> Stored<()> {
        let outcome = self.store_set(&namespace, &key, &value, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }

    fn delete(&mut self, namespace: String, key: String) -> Stored<bool> {
        let outcome = self.store_delete(&namespace, &key);
        Ok(outcome.map_err(store_refusal))
    }

    fn compare_and_swap(
        &mut self,
        namespace: String,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> Stored<bool> {
        let outcome = self.store_swap(&namespace, &key, expected.as_deref(), &value, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }

    fn increment(
        &mut self,
        namespace: String,
        key: String,
        delta: i64,
        ttl_ms: u64,
    ) -> Stored<i64> {
        let outcome = self.store_increment(&namespace, &key, delta, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }
}

impl limiter::Host for State {
    fn take(&mut self, key: String, tokens: u32, rate: f64, burst: u32) -> Done<limiter::Verdict> {
        let verdict = self.limiter_take(&key, tokens, rate, burst);
        Ok(limiter::Verdict {
            allowed: verdict.allowed,
            remaining: verdict.remaining,
            retry_after_ns: verdict.retry_after,
            reset_after_ns: verdict.reset_after,
        })
    }
}

impl environment::Host for State {
    fn get(&mut self, name: String) -> Done<Option<String>> {
        Ok(State::environment(self, &name).map(str::to_owned))
    }
}
