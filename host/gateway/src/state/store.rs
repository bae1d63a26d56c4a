//! The key-value store, in memory: bounded in bytes as a whole and by namespace, with expiry, and the value that was
//! touched longest ago goes first. A namespace that is full gives up values of its own, and no other's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::clock::Clock;
use tidegate_core::metrics::{Counter, Owner, Registry};
use tidegate_core::services::{MAX_STORE_KEY, MAX_STORE_VALUE, Store, StoreError};

use super::Sharded;

const SHARDS: usize = 32;
/// What an entry costs besides its key and value, in bytes.
const OVERHEAD: usize = 128;
/// The least that one part of a namespace may hold: the largest value, with its key. Below it, nobody looks for the bound.
const SMALLEST_BOUND: usize = MAX_STORE_VALUE + 2 * MAX_STORE_KEY + OVERHEAD;

/// All values of the process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    shards: Sharded<Shard>,
    /// Bytes that one part may hold.
    bound: usize,
    /// Bytes that one part may hold of a namespace, for those that have a bound.
    bounds: RwLock<HashMap<String, usize>>,
    /// Where evictions are counted, and those counters that there are, by namespace. Operators grant these one by one.
    registry: Option<Arc<Registry>>,
    evictions: RwLock<HashMap<String, Counter>>,
}

#[derive(Debug, Default)]
struct Shard {
    spaces: HashMap<Arc<str>, Space>,
    touches: u64,
    bytes: usize,
}

/// One part of a namespace.
#[derive(Debug, Default)]
struct Space {
    entries: HashMap<Arc<str>, Entry>,
    /// Keys by the moment of their last touch.
    by_touch: BTreeMap<u64, Arc<str>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    /// Nanoseconds of the clock; `u64::MAX` for never.
    expires: u64,
    touched: u64,
}

impl MemoryStore {
    /// An empty store of at most so many bytes, keys and bookkeeping counted.
    pub fn new(clock: Arc<dyn Clock>, bytes: usize) -> Self {
        MemoryStore {
            clock,
            shards: Sharded::new(SHARDS),
            bound: bytes / SHARDS,
            bounds: RwLock::default(),
            registry: None,
            evictions: RwLock::default(),
        }
    }

    /// The same store, whose evictions are among the figures.
    #[must_use]
    pub fn counted_in(self, registry: Arc<Registry>) -> Self {
        MemoryStore {
            registry: Some(registry),
            ..self
        }
    }

    /// A value of this namespace had to go.
    fn evicted(&self, space: &str) {
        let Some(registry) = &self.registry else {
            return;
        };
        let evictions = self
            .evictions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = evictions.get(space) {
            return counter.increment();
        }
        drop(evictions);
        let help = "Values of the store that had to go for newer ones, by namespace.";
        let labels = [("namespace", space)];
        let name = "tidegate_store_evictions_total";
        if let Ok(counter) = registry.counter(Owner::Process, name, help, &labels) {
            counter.increment();
            let mut evictions = self
                .evictions
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            evictions.insert(space.to_owned(), counter);
        }
    }

    /// The bound of one part of a namespace.
    fn bound_of(&self, space: &str) -> usize {
        let bounds = self.bounds.read().unwrap_or_else(PoisonError::into_inner);
        bounds.get(space).copied().unwrap_or(usize::MAX)
    }

    /// One step on one key, of which a value that has expired is gone.
    fn with<T>(
        &self,
        space: &str,
        key: &str,
        act: impl FnOnce(&mut Shard, u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if key.len() > MAX_STORE_KEY {
            return Err(StoreError::TooLarge);
        }
        let mut shard = self
            .shards
            .lock(space, key)
            .ok_or(StoreError::Unavailable)?;
        let now = self.clock.monotonic();
        if shard
            .entry(space, key)
            .is_some_and(|entry| entry.expires <= now)
        {
            shard.remove(space, key);
        }
        let result = act(&mut shard, now);
        let over = |shard: &Shard, bound: usize| {
            let held = shard.spaces.get(space).map_or(0, |space| space.bytes);
            held > bound
        };
        if over(&shard, SMALLEST_BOUND) {
            let bound = self.bound_of(space);
            while over(&shard, bound) && shard.evict(space) {
                self.evicted(space);
            }
        }
        while shard.bytes > self.bound
            && let Some(space) = shard.evict_any()
        {
            self.evicted(&space);
        }
        result
    }
}

impl Shard {
    fn entry(&self, space: &str, key: &str) -> Option<&Entry> {
        self.spaces.get(space)?.entries.get(key)
    }

    fn get(&mut self, space: &str, key: &str) -> Option<Bytes> {
        let space = self.spaces.get_mut(space)?;
        let entry = space.entries.get_mut(key)?;
        self.touches += 1;
        if let Some(key) = space.by_touch.remove(&entry.touched) {
            space.by_touch.insert(self.touches, key);
        }
        entry.touched = self.touches;
        Some(entry.value.clone())
    }

    fn remove(&mut self, space: &str, key: &str) -> bool {
        let Some(touched) = self.entry(space, key).map(|entry| entry.touched) else {
            return false;
        };
        if let Some(space) = self.spaces.get_mut(space) {
            space.by_touch.remove(&touched);
        }
        self.forget(space, key);
        true
    }

    /// Removes what was touched longest ago in a namespace. Says whether there was anything.
    fn evict(&mut self, space: &str) -> bool {
        let oldest = self
            .spaces
            .get_mut(space)
            .and_then(|space| space.by_touch.pop_first());
        let Some((_, key)) = oldest else {
            return false;
        };
        self.forget(space, &key);
        true
    }

    /// Removes what was touched longest ago, and says in which namespace. There are few: operators grant them one by one.
    fn evict_any(&mut self) -> Option<Arc<str>> {
        let oldest = self
            .spaces
            .iter()
            .filter_map(|(name, space)| Some((*space.by_touch.first_key_value()?.0, name)))
            .min();
        let name = oldest.map(|(_, name)| Arc::clone(name))?;
        self.evict(&name).then_some(name)
    }

    /// Drops an entry whose touch is gone already.
    fn forget(&mut self, name: &str, key: &str) {
        let Some(space) = self.spaces.get_mut(name) else {
            return;
        };
        if let Some(entry) = space.entries.remove(key) {
            let size = size(name, key, &entry.value);
            space.bytes -= size;
            self.bytes -= size;
        }
        if space.entries.is_empty() {
            self.spaces.remove(name);
        }
    }

    fn set(&mut self, name: &str, key: &str, value: Bytes, expires: u64) -> Result<(), StoreError> {
        if value.len() > MAX_STORE_VALUE {
            return Err(StoreError::TooLarge);
        }
        self.remove(name, key);
        self.touches += 1;
        let size = size(name, key, &value);
        self.bytes += size;
        let known = self.spaces.get_key_value(name);
        let name = known.map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known));
        let key: Arc<str> = Arc::from(key);
        let entry = Entry {
            value,
            expires,
            touched: self.touches,
        };
        let space = self.spaces.entry(name).or_default();
        space.bytes += size;
        space.entries.insert(Arc::clone(&key), entry);
        space.by_touch.insert(self.touches, key);
        Ok(())
    }
}

fn size(space: &str, key: &str, value: &Bytes) -> usize {
    space.len() + key.len() + value.len() + OVERHEAD
}

fn expiry(now: u64, ttl: Option<Duration>) -> u64 {
    ttl.map_or(u64::MAX, |ttl| {
        now.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))
    })
}

impl Store for MemoryStore {
    fn bound(&self, namespace: &str, bytes: u64) {
        let part = usize::try_from(bytes / SHARDS as u64).unwrap_or(usize::MAX);
        let mut bounds = self.bounds.write().unwrap_or_else(PoisonError::into_inner);
        bounds.insert(namespace.to_owned(), part.max(SMALLEST_BOUND));
    }

    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.with(namespace, key, |shard, _| Ok(shard.get(namespace, key)))
    }

    fn set(
        &self,
        namespace: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.with(namespace, key, |shard, now| {
            shard.set(namespace, key, value, expiry(now, ttl))
        })
    }

    fn delete(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        self.with(namespace, key, |shard, _| Ok(shard.remove(namespace, key)))
    }

    fn compare_and_swap(
        &self,
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.with(namespace, key, |shard, now| {
            if shard.get(namespace, key).as_deref() != expected {
                return Ok(false);
            }
            let set = shard.set(namespace, key, value, expiry(now, ttl));
            set.map(|()| true)
        })
    }

    fn increment(
        &self,
        namespace: &str,
        key: &str,
        delta: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, StoreError> {
        self.with(namespace, key, |shard, now| {
            let held = shard.get(namespace, key);
            let number = match &held {
                None => 0,
                Some(value) => std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok())
                    .ok_or(StoreError::NotANumber)?,
            };
            let sum = number.checked_add(delta).ok_or(StoreError::NotANumber)?;
            let held = shard.entry(namespace, key).map(|entry| entry.expires);
            let expires = held.unwrap_or_else(|| expiry(now, ttl));
            shard.set(namespace, key, Bytes::from(sum.to_string()), expires)?;
            Ok(sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::clock::ManualClock;

    fn store(bytes: usize) -> (Arc<ManualClock>, MemoryStore) {
        let clock = Arc::new(ManualClock::at(1));
        (Arc::clone(&clock), MemoryStore::new(clock, bytes))
    }

    #[test]
    fn values_expire_and_namespaces_are_apart() {
        let (clock, store) = store(1 << 20);
        store
            .set("a", "k", "1".into(), Some(Duration::from_secs(1)))
            .unwrap();
        assert_eq!(store.get("a", "k").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get("b", "k"), Ok(None));
        clock.advance(Duration::from_secs(1));
        assert_eq!(store.get("a", "k"), Ok(None));
        assert_eq!(store.delete("a", "k"), Ok(false));
    }

    #[test]
    fn swaps_and_increments_are_one_step() {
        let (clock, store) = store(1 << 20);
        assert_eq!(
            store.compare_and_swap("a", "k", None, "1".into(), None),
            Ok(true)
        );
        assert_eq!(
            store.compare_and_swap("a", "k", None, "2".into(), None),
            Ok(false)
        );
        assert_eq!(
            store.compare_and_swap("a", "k", Some(b"1"), "9223372036854775807".into(), None),
            Ok(true)
        );
        assert_eq!(
            store.increment("a", "k", 1, None),
            Err(StoreError::NotANumber)
        );
        assert_eq!(
            store.increment("a", "n", 2, Some(Duration::from_secs(2))),
            Ok(2)
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            store.increment("a", "n", -5, Some(Duration::from_secs(9))),
            Ok(-3)
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(store.increment("a", "n", 1, None), Ok(1));
        store.set("a", "t", "x".into(), None).unwrap();
        assert_eq!(
            store.increment("a", "t", 1, None),
            Err(StoreError::NotANumber)
        );
    }

    #[test]
    fn a_full_namespace_gives_up_its_own_values_and_no_others() {
        let registry = Arc::new(Registry::new());
        let (_, store) = store(64 << 20);
        let store = store.counted_in(Arc::clone(&registry));
        store.bound("flood", 4 << 20);
        for n in 0..1000 {
            store
                .set("quiet", &format!("k{n}"), "1".into(), None)
                .unwrap();
        }
        for n in 0..20_000 {
            store
                .set("flood", &format!("k{n}"), Bytes::from(vec![0; 1000]), None)
                .unwrap();
        }
        for n in 0..1000 {
            assert!(store.get("quiet", &format!("k{n}")).unwrap().is_some());
        }
        let held: usize = (0..SHARDS)
            .map(|n| store.shards.shards[n].lock().unwrap().spaces["flood"].bytes)
            .sum();
        assert!((3 << 20..=4 << 20).contains(&held), "{held}");
        let left: usize = (0..SHARDS)
            .map(|n| {
                store.shards.shards[n].lock().unwrap().spaces["flood"]
                    .entries
                    .len()
            })
            .sum();
        let evicted = registry.read("namespace", "flood");
        assert!(
            (evicted[0].value - (20_000 - left) as f64).abs() < 0.5,
            "{evicted:?}"
        );
        assert!(registry.read("namespace", "quiet").is_empty());
        assert_eq!(store.get("flood", "k0"), Ok(None));
        assert!(store.get("flood", "k19999").unwrap().is_some());
    }

    #[test]
    fn the_smallest_bound_holds_the_largest_value() {
        let (_, store) = store(64 << 20);
        store.bound("a", 1);
        let key = "k".repeat(MAX_STORE_KEY);
        let largest = Bytes::from(vec![0; MAX_STORE_VALUE]);
        store.set("a", &key, largest, None).unwrap();
        assert!(store.get("a", &key).unwrap().is_some());
    }

    #[test]
    fn the_store_is_bounded_and_keeps_what_is_used() {
        let (_, store) = store(SHARDS * 4096);
        for n in 0..10_000 {
            store
                .set("a", &format!("k{n}"), Bytes::from(vec![0; 100]), None)
                .unwrap();
            store.set("a", "hot", "1".into(), None).unwrap();
        }
        let held: usize = (0..SHARDS)
            .map(|n| store.shards.shards[n].lock().unwrap().bytes)
            .sum();
        assert!(held <= SHARDS * 4096);
        assert!(store.get("a", "hot").unwrap().is_some());
        assert_eq!(store.get("a", "k0"), Ok(None));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let (_, store) = store(1 << 20);
        assert_eq!(store.get("a", &"k".repeat(513)), Err(StoreError::TooLarge));
        assert_eq!(
            store.set("a", "k", Bytes::from(vec![0; 65 * 1024]), None),
            Err(StoreError::TooLarge)
        );
    }

    #[test]
    fn the_books_agree_after_any_run() {
        let (clock, store) = store(SHARDS * 2000);
        let mut chance = 1u64;
        for _ in 0..20_000 {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            let draw = chance >> 33;
            let (space, key) = (["a", "b"][(draw % 2) as usize], format!("k{}", draw % 300));
            let ttl = draw
                .is_multiple_of(3)
                .then(|| Duration::from_nanos(draw % 50));
            match draw % 7 {
                0 => drop(store.get(space, &key)),
                1 => drop(store.delete(space, &key)),
                2 => drop(store.increment(space, &key, 1, ttl)),
                3 => drop(store.compare_and_swap(space, &key, None, "1".into(), ttl)),
                _ => {
                    let value = vec![b'1'; (draw % 90) as usize + 1];
                    store.set(space, &key, value.into(), ttl).unwrap();
                }
            }
            clock.advance(Duration::from_nanos(draw % 5));
        }
        for shard in &store.shards.shards {
            let shard = shard.lock().unwrap();
            let mut bytes = 0;
            for (name, space) in &shard.spaces {
                let mut held = 0;
                for (key, entry) in &space.entries {
                    held += size(name, key, &entry.value);
                    assert_eq!(&space.by_touch[&entry.touched], key);
                }
                assert_eq!(
                    (space.bytes, space.by_touch.len()),
                    (held, space.entries.len())
                );
                bytes += held;
            }
            assert_eq!(shard.bytes, bytes);
            assert!(bytes <= 2000);
        }
    }

    #[test]
    fn increments_of_many_threads_are_all_counted() {
        let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::at(1)), 1 << 20));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        store.increment("a", "n", 1, None).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(store.increment("a", "n", 0, None), Ok(4000));
    }
}
