//! Between the contract's callbacks and the author's methods: keeps the filter and the state of each exchange. Used by the
//! exports that `#[filter]` makes and by the test harness; not meant to be called by hand.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::filter::{ConfigError, Exported};
use crate::phase::{Flow, Interests, Phase};
use crate::views::{
    Ended, RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead, ResponseTrailers,
};

/// The place of one filter.
pub struct Slot<F: Exported> {
    live: RefCell<Option<F>>,
    states: RefCell<BTreeMap<u64, F::State>>,
}

impl<F: Exported> Default for Slot<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Exported> Slot<F> {
    pub const fn new() -> Self {
        Slot {
            live: RefCell::new(None),
            states: RefCell::new(BTreeMap::new()),
        }
    }

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// The configuration can't be read, or the filter refuses it.
    pub fn configure(&self, config: &str) -> Result<Interests, ConfigError> {
        let filter = F::new(read::<F::Config>(config)?)?;
        let mut interests = F::INTERESTS;
        filter.interests(&mut interests);
        if size_of::<F::State>() > 0 {
            interests.add(Phase::Log);
        }
        self.live.replace(Some(filter));
        Ok(interests)
    }

    fn with(&self, id: u64, call: impl FnOnce(&F, &mut F::State) -> Flow) -> Flow {
        let live = self.live.borrow();
        let Some(filter) = &*live else {
            return Flow::Continue;
        };
        if size_of::<F::State>() == 0 {
            return call(filter, &mut F::State::default());
        }
        let mut state = self.states.borrow_mut().remove(&id).unwrap_or_default();
        let flow = call(filter, &mut state);
        self.states.borrow_mut().insert(id, state);
        flow
    }

    pub fn request_head(&self, id: u64, end: bool) -> Flow {
        self.with(id, |filter, state| {
            filter.request_head(&mut RequestHead::new(end), state)
        })
    }

    pub fn request_body(&self, id: u64, length: u32, end: bool) -> Flow {
        self.with(id, |filter, state| {
            filter.request_body(&mut RequestBody::new(length, end), state)
        })
    }

    pub fn request_trailers(&self, id: u64) -> Flow {
        self.with(id, |filter, state| {
            filter.request_trailers(&mut RequestTrailers::new(), state)
        })
    }

    pub fn response_head(&self, id: u64, end: bool) -> Flow {
        self.with(id, |filter, state| {
            filter.response_head(&mut ResponseHead::new(end), state)
        })
    }

    pub fn response_body(&self, id: u64, length: u32, end: bool) -> Flow {
        self.with(id, |filter, state| {
            filter.response_body(&mut ResponseBody::new(length, end), state)
        })
    }

    pub fn response_trailers(&self, id: u64) -> Flow {
        self.with(id, |filter, state| {
            filter.response_trailers(&mut ResponseTrailers::new(), state)
        })
    }

    pub fn log(&self, id: u64) {
        self.with(id, |filter, state| {
            filter.log(&Ended::new(), state);
            Flow::Continue
        });
        self.states.borrow_mut().remove(&id);
    }

    /// How many exchanges have state.
    pub fn exchanges(&self) -> usize {
        self.states.borrow().len()
    }
}

/// Reads a configuration; an empty one is `{}`, and a type without fields takes that too.
fn read<T: serde::de::DeserializeOwned>(config: &str) -> Result<T, ConfigError> {
    let text = if config.trim().is_empty() {
        "{}"
    } else {
        config
    };
    let error = match serde_json::from_str(text) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    match serde_json::from_str::<T>("null") {
        Ok(config) if text.trim() == "{}" => Ok(config),
        Ok(_) => Err("this filter takes no configuration".into()),
        Err(_) => Err(error.to_string().into()),
    }
}

/// The exports of a filter, as `wit-bindgen` wants them.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_filter {
    ($filter:ty, $manifest:expr) => {
        #[used]
        #[allow(unsafe_code, reason = "a custom section is data that no code refers to")]
        #[unsafe(link_section = "tidegate:manifest")]
        static SECTION: [u8; $manifest.len()] = $crate::schema::join::<{ $manifest.len() }>(&[$manifest]);

        ::std::thread_local! {
            static SLOT: $crate::runtime::Slot<$filter> = const { $crate::runtime::Slot::new() };
        }

        struct Callbacks;

        impl $crate::bindings::exports::tidegate::filter::callbacks::Guest for Callbacks {
            fn configure(
                config: ::std::string::String,
            ) -> ::core::result::Result<$crate::runtime::WitInterests, ::std::string::String> {
                SLOT.with(|slot| slot.configure(&config))
                    .map($crate::runtime::wit_interests)
                    .map_err(|error| ::std::string::ToString::to_string(&error))
            }
            fn request_head(id: u64, end: bool) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.request_head(id, end)))
            }
            fn request_body(id: u64, length: u32, end: bool) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.request_body(id, length, end)))
            }
            fn request_trailers(id: u64) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.request_trailers(id)))
            }
            fn response_head(id: u64, end: bool) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.response_head(id, end)))
            }
            fn response_body(id: u64, length: u32, end: bool) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.response_body(id, length, end)))
            }
            fn response_trailers(id: u64) -> $crate::runtime::WitFlow {
                $crate::runtime::wit_flow(SLOT.with(|slot| slot.response_trailers(id)))
            }
            fn log(id: u64) {
                SLOT.with(|slot| slot.log(id));
            }
        }

        $crate::bindings::export_callbacks!(Callbacks with_types_in $crate::bindings);
    };
}

#[cfg(target_arch = "wasm32")]
mod wit {
    use crate::bindings::tidegate::filter::types as wit;
    use crate::phase::{BodyMode, BodyWish, Flow, Interests, Overflow};

    pub use wit::Flow as WitFlow;
    pub use wit::Interests as WitInterests;

    pub fn wit_flow(flow: Flow) -> WitFlow {
        match flow {
            Flow::Continue => WitFlow::Proceed,
            Flow::Hold => WitFlow::Hold,
            Flow::Answer => WitFlow::Answer,
        }
    }

    pub fn wit_interests(interests: Interests) -> WitInterests {
        WitInterests {
            phases: wit::Phases::from_bits_truncate(interests.bits()),
            request_body: wish(interests.request_body),
            response_body: wish(interests.response_body),
        }
    }

    fn wish(wish: BodyWish) -> wit::BodyWish {
        wit::BodyWish {
            mode: match wish.mode {
                BodyMode::Stream => wit::BodyMode::Stream,
                BodyMode::Whole => wit::BodyMode::Whole,
                BodyMode::OnHold => wit::BodyMode::OnHold,
            },
            limit: wish.limit,
            overflow: match wish.overflow {
                Overflow::Refuse => wit::Overflow::Refuse,
                Overflow::Stream => wit::Overflow::Stream,
            },
        }
    }
}

#[cfg(target_arch = "wasm32")]
pub use wit::{WitFlow, WitInterests, wit_flow, wit_interests};
