//! How many requests are in flight under a key. A key under which none is, is not kept, so that there are never more than
//! there are requests.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::limiter::{Entry, Permit};

use super::Sharded;

const SHARDS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct InFlight(Arc<Sharded<Keys>>);

type Keys = HashMap<(Arc<str>, Arc<str>), u32>;

impl InFlight {
    pub(super) fn new() -> Self {
        InFlight(Arc::new(Sharded::new(SHARDS)))
    }

    pub(super) fn enter(&self, space: &str, key: &str, limit: u32) -> (Entry, Option<Permit>) {
        let Some(mut keys) = self.0.lock(space, key) else {
            return (Entry::default(), None);
        };
        let name: (Arc<str>, Arc<str>) = (Arc::from(space), Arc::from(key));
        let held = keys.get(&name).copied().unwrap_or(0);
        if held >= limit {
            let entry = Entry {
                allowed: false,
                in_flight: held,
            };
            return (entry, None);
        }
        let in_flight = held.saturating_add(1);
        keys.insert(name.clone(), in_flight);
        drop(keys);
        let places = self.clone();
        let permit = Permit::new(move || places.leave(&name));
        let entry = Entry {
            allowed: true,
            in_flight,
        };
        (entry, Some(permit))
    }

    fn leave(&self, name: &(Arc<str>, Arc<str>)) {
        let Some(mut keys) = self.0.lock(&name.0, &name.1) else {
            return;
        };
        match keys.get_mut(name) {
            Some(held) if *held > 1 => *held -= 1,
            _ => {
                keys.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_in_flight_are_counted_and_given_back() {
        let places = InFlight::new();
        let (first, one) = places.enter("f", "k", 2);
        let (second, two) = places.enter("f", "k", 2);
        assert_eq!((first.in_flight, second.in_flight), (1, 2));
        let (third, none) = places.enter("f", "k", 2);
        assert_eq!((third.allowed, third.in_flight), (false, 2));
        assert!(none.is_none());
        assert!(places.enter("g", "k", 1).0.allowed);
        assert!(places.enter("f", "l", 1).0.allowed);
        drop(one);
        assert_eq!(places.enter("f", "k", 2).0.in_flight, 2);
        drop(two);
        assert!(!places.enter("f", "k", 0).0.allowed);
        let held: usize = (0..SHARDS)
            .map(|n| places.0.shards[n].lock().unwrap().len())
            .sum();
        assert_eq!(held, 0);
    }

    #[test]
    fn threads_never_let_in_more_than_the_limit() {
        let places = InFlight::new();
        let most = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (places, most) = (places.clone(), Arc::clone(&most));
                std::thread::spawn(move || {
                    for _ in 0..2000 {
                        let (entry, _permit) = places.enter("f", "k", 3);
                        most.fetch_max(entry.in_flight, std::sync::atomic::Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(most.load(std::sync::atomic::Ordering::Relaxed) <= 3);
        assert_eq!(places.enter("f", "k", 1).0.in_flight, 1);
    }
}
