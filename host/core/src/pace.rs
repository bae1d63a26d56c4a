//! How an exchange stands in time: since when it is here, how long filters let it wait, and where it counts as in flight.
//! Waits for nothing itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::exchange::Refusal;
use crate::limiter::{Entry, LimiterError, MAX_DEMANDS, Permit, Place};
use crate::phase::Phase;

/// The longest that filters may let one exchange wait, all together, in milliseconds.
pub const MAX_DELAY: u32 = 60_000;

/// An exchange in time.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// What the callback that runs asked for, in milliseconds.
    asked: u32,
    /// What was waited so far, in milliseconds.
    waited: u32,
    entered: Vec<Entered>,
}

/// A key under which the exchange is in flight.
#[derive(Debug)]
struct Entered {
    place: Place,
    space: Arc<str>,
    key: Box<str>,
    entry: Entry,
    _permit: Permit,
}

impl Pace {
    /// Of an exchange whose request's head is here.
    pub(crate) fn begin() -> Self {
        Pace {
            began: clock::turn(),
            asked: 0,
            waited: 0,
            entered: Vec::new(),
        }
    }

    /// Nanoseconds since the request's head was here, as the thread's loop knows the time.
    pub fn elapsed(&self) -> u64 {
        let elapsed = clock::turn().saturating_duration_since(self.began);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Forgets what a callback asked for that failed.
    pub(crate) fn begin_call(&mut self) {
        self.asked = 0;
    }

    /// Has the exchange wait when the callback that runs has ended.
    ///
    /// # Errors
    /// [`Refusal::TooLate`] but in the request's head and body, [`Refusal::TooLarge`] over [`MAX_DELAY`].
    pub fn delay(&mut self, phase: Phase, milliseconds: u32) -> Result<(), Refusal> {
        if !matches!(phase, Phase::RequestHead | Phase::RequestBody) {
            return Err(Refusal::TooLate);
        }
        if milliseconds > MAX_DELAY.saturating_sub(self.waited) {
            return Err(Refusal::TooLarge);
        }
        self.asked = milliseconds;
        Ok(())
    }

    /// How long to wait now that the callback has ended; none if nobody asked for it. It counts as waited.
    #[inline]
    pub fn take_delay(&mut self) -> Option<Duration> {
        if self.asked == 0 {
            return None;
        }
        let asked = std::mem::take(&mut self.asked);
        self.waited = self.waited.saturating_add(asked);
        Some(Duration::from_millis(u64::from(asked)))
    }

    /// What was said when the exchange was let in under a key, if it was.
    ///
    /// # Errors
    /// [`LimiterError::TooLarge`] if it is in flight under as many keys as it may.
    pub fn entered(
        &self,
        place: Place,
        space: &str,
        key: &str,
    ) -> Result<Option<Entry>, LimiterError> {
        let found = self
            .entered
            .iter()
            .find(|held| held.place == place && &*held.space == space && &*held.key == key);
        match found {
            Some(held) => Ok(Some(held.entry)),
            None if self.entered.len() >= MAX_DEMANDS => Err(LimiterError::TooLarge),
            None => Ok(None),
        }
    }

    /// Keeps a permit until the exchange ends.
    pub fn keep(
        &mut self,
        place: Place,
        space: &Arc<str>,
        key: &str,
        entry: Entry,
        permit: Permit,
    ) {
        self.entered.push(Entered {
            place,
            space: Arc::clone(space),
            key: Box::from(key),
            entry,
            _permit: permit,
        });
    }

    /// The exchange has ended: what it held is given back.
    pub fn end(&mut self) {
        self.entered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn delays_of_one_exchange_are_bounded_together() {
        let mut pace = Pace::begin();
        let head = Phase::RequestHead;
        assert_eq!(pace.take_delay(), None);
        assert_eq!(pace.delay(head, 60_001), Err(Refusal::TooLarge));
        assert_eq!(pace.delay(Phase::ResponseHead, 1), Err(Refusal::TooLate));
        pace.delay(head, 50_000).unwrap();
        pace.delay(head, 20_000).unwrap();
        assert_eq!(pace.take_delay(), Some(Duration::from_secs(20)));
        assert_eq!(pace.take_delay(), None);
        assert_eq!(
            pace.delay(Phase::RequestBody, 40_001),
            Err(Refusal::TooLarge)
        );
        pace.delay(Phase::RequestBody, 40_000).unwrap();
        pace.begin_call();
        assert_eq!(pace.take_delay(), None);
    }

    #[test]
    fn what_was_entered_is_given_back_once() {
        let given_back = Rc::new(Cell::new(0));
        let mut pace = Pace::begin();
        let space: Arc<str> = Arc::from("f");
        let entry = Entry {
            allowed: true,
            in_flight: 3,
        };
        for key in 0..MAX_DEMANDS {
            let key = key.to_string();
            assert_eq!(pace.entered(Place::Local, "f", &key), Ok(None));
            let counted = Rc::clone(&given_back);
            let permit = Permit::new(move || counted.set(counted.get() + 1));
            pace.keep(Place::Local, &space, &key, entry, permit);
        }
        assert_eq!(pace.entered(Place::Local, "f", "3"), Ok(Some(entry)));
        assert_eq!(
            pace.entered(Place::Shared, "f", "3"),
            Err(LimiterError::TooLarge)
        );
        assert_eq!(given_back.get(), 0);
        pace.end();
        assert_eq!(given_back.get(), MAX_DEMANDS);
        drop(pace);
        assert_eq!(given_back.get(), MAX_DEMANDS);
    }
}
