//! The component carrier: linking the contract's interfaces into the component runtime, and calling a component's
//! exports. Knows no core module's memory.

use bytes::Bytes;
use http::Response;
use send_wrapper::SendWrapper;
use tidegate_core::phase::{Flow, Interests, Phase};
use wasmtime::component::{Component, ComponentExportIndex, HasSelf, Instance, Linker, TypedFunc};
use wasmtime::{AsContextMut, Engine, Store, StoreContextMut};

use super::call::{Call, Configured, Mode};
use super::host::{self, CallRefusal};
use super::state::{Data, Held, State};
use crate::contract::{OURS_TEXT, PACKAGE};
use crate::fault::breach;
use crate::time::FIRST;

use bindings::tidegate::filter::http_client::{CallError, CallRequest, CallResponse};
use bindings::tidegate::filter::{
    body, clock, environment, exchange, limiter, log, metrics, random, store, types,
};

pub(super) mod bindings {
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
                        store.data_mut().state().woke()?;
                        store.as_context_mut().set_epoch_deadline(FIRST);
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

/// The same for a filter that was granted no upstream: it is told so, and nothing waits.
pub(super) fn link_no_call(linker: &mut Linker<State>) -> Done<()> {
    let mut instance = linker.instance(&format!("{PACKAGE}/http-client@{OURS_TEXT}"))?;
    instance.func_wrap(
        "call",
        |_: StoreContextMut<'_, State>, _: (String, CallRequest)| {
            let result: Result<CallResponse, CallError> = Err(CallError::NotGranted);
            Ok((result,))
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

/// Where a component's callbacks stand, found once for all of its instances.
pub(crate) struct Names(Vec<(Phase, ComponentExportIndex)>);

impl Names {
    pub(super) fn of(component: &Component) -> Self {
        let interface = component
            .component_type()
            .exports(component.engine())
            .map(|(name, _)| name.to_owned())
            .find(|name| {
                crate::contract::interface(name).is_some_and(|found| found.name == "callbacks")
            })
            .and_then(|name| component.get_export_index(None, &name));
        let found = |phase: Phase| {
            let index = component.get_export_index(Some(interface.as_ref()?), phase.name())?;
            Some((phase, index))
        };
        Names(Phase::ALL.into_iter().filter_map(found).collect())
    }

    fn find(&self, phase: Phase) -> Option<&ComponentExportIndex> {
        let found = self.0.iter().find(|(known, _)| *known == phase);
        found.map(|(_, index)| index)
    }
}

/// Looks up the exports of a new instance and runs `configure`.
pub(super) async fn begin<M: Mode>(
    store: &mut Store<M::Data>,
    names: &Names,
    instance: Instance,
) -> Done<(Exports, Configured)> {
    macro_rules! callback {
        ($phase:ident) => {
            match names.find(Phase::$phase) {
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
