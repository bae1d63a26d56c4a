//! Between the contract's callbacks and the author's methods: keeps the filter and the state of each exchange. Used by the
//! exports that `#[filter]` makes and by the test harness; not meant to be called by hand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::config;
use crate::filter::{ConfigError, Exported};
use crate::phase::{Flow, Interests, Phase};
use crate::views::{
    Ended, RequestBody, RequestHead, RequestTrailers, ResponseBody, ResponseHead, ResponseTrailers,
};

/// The place of one filter.
pub struct Slot<F: Exported> {
    live: RefCell<Option<F>>,
    states: RefCell<HashMap<u64, F::State, BuildHasherDefault<Spread>>>,
}

/// Ids are the host's own numbers: nobody chooses them so that they collide, and one multiplication spreads them well enough.
#[derive(Clone, Copy, Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The table looks at the highest and at the lowest bits.
        self.0 = (self.0 ^ id)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(32);
    }
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
            states: RefCell::new(HashMap::with_hasher(BuildHasherDefault::new())),
        }
    }

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// The configuration can't be read, or the filter refuses it.
    pub fn configure(&self, config: &str) -> Result<Interests, ConfigError> {
        let filter = F::new(config::read(config)?)?;
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
        call(filter, self.states.borrow_mut().entry(id).or_default())
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
