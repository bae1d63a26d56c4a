//! What a filter's wasm module exports: the contract's callbacks, each passed on to the filter's [`Slot`](crate::runtime::Slot),
//! and the manifest. Used by what `#[filter]` writes; not meant to be called by hand.

use crate::bindings::tidegate::filter::types as wit;
use crate::phase::{BodyMode, BodyWish, Flow, Interests, Overflow};

pub use wit::Flow as WitFlow;
pub use wit::Interests as WitInterests;

/// The exports of one filter, of which a module has one.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_filter {
    ($filter:ty) => {
        // Without `#[used]`, which would keep the same bytes among the module's data as well.
        #[allow(unsafe_code, reason = "a custom section is data that no code refers to")]
        #[unsafe(link_section = "tidegate:manifest")]
        static SECTION: [u8; <$filter as $crate::Exported>::MANIFEST.len()] =
            $crate::text::join(&[<$filter as $crate::Exported>::MANIFEST]);

        ::std::thread_local! {
            static SLOT: $crate::runtime::Slot<$filter> = const { $crate::runtime::Slot::new() };
        }

        struct Callbacks;

        impl $crate::bindings::exports::tidegate::filter::callbacks::Guest for Callbacks {
            fn configure(
                config: ::std::string::String,
            ) -> ::core::result::Result<$crate::export::WitInterests, ::std::string::String> {
                $crate::export::report_panics();
                SLOT.with(|slot| slot.configure(&config))
                    .map($crate::export::interests)
                    .map_err(|error| ::std::string::ToString::to_string(&error))
            }
            fn request_head(id: u64, end: bool) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.request_head(id, end)))
            }
            fn request_body(id: u64, length: u32, end: bool) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.request_body(id, length, end)))
            }
            fn request_trailers(id: u64) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.request_trailers(id)))
            }
            fn response_head(id: u64, end: bool) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.response_head(id, end)))
            }
            fn response_body(id: u64, length: u32, end: bool) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.response_body(id, length, end)))
            }
            fn response_trailers(id: u64) -> $crate::export::WitFlow {
                $crate::export::flow(SLOT.with(|slot| slot.response_trailers(id)))
            }
            fn log(id: u64) {
                SLOT.with(|slot| slot.log(id));
            }
        }

        $crate::bindings::export_callbacks!(Callbacks with_types_in $crate::bindings);
    };
}

/// Lets a panic say its words in the proxy's log before it ends the instance: the trap itself has none.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        crate::log::error(&panic.to_string());
    }));
}

pub fn flow(flow: Flow) -> WitFlow {
    match flow {
        Flow::Continue => WitFlow::Proceed,
        Flow::Hold => WitFlow::Hold,
        Flow::Answer => WitFlow::Answer,
    }
}

pub fn interests(interests: Interests) -> WitInterests {
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
