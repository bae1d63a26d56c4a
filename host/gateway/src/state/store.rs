//! The key-value store, in memory: bounded in bytes, with expiry, and the value that was touched longest ago goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::clock::Clock;
use tidegate_core::services::{MAX_STORE_KEY, MAX_STORE_VALUE, Store, StoreError};

use super::Sharded;

const SHARDS: usize = 32;
/// What an entry costs besides its key and value, in bytes.
const OVERHEAD: usize = 128;

/// All values of the process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    shards: Sharded<Shard>,
    /// Bytes that one part may hold.
    bound: usize,
}

/// A namespace and a key in it.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Shard {
    spaces: HashMap<Arc<str>, HashMap<Arc<str>, Entry>>,
    /// Keys by the moment of their last touch.
    by_touch: BTreeMap<u64, Key>,
    touches: u64,
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
        }
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
        while shard.bytes > self.bound
            && let Some((_, (space, key))) = shard.by_touch.pop_first()
        {
            shard.forget(&space, &key);
        }
        result
    }
}

impl Shard {
    fn entry(&self, space: &str, key: &str) -> Option<&Entry> {
        self.spaces.get(space)?.get(key)
    }

    fn get(&mut self, space: &str, key: &str) -> Option<Bytes> {
        let entry = self.spaces.get_mut(space)?.get_mut(key)?;
        self.touches += 1;
        if let Some(key) = self.by_touch.remove(&entry.touched) {
            self.by_touch.insert(self.touches, key);
        }
        entry.touched = self.touches;
        Some(entry.value.clone())
    }

    fn remove(&mut self, space: &str, key: &str) -> bool {
        let Some(touched) = self.entry(space, key).map(|entry| entry.touched) else {
            return false;
        };
        self.by_touch.remove(&touched);
        self.forget(space, key);
        true
    }

    /// Drops an entry whose touch is gone already.
    fn forget(&mut self, space: &str, key: &str) {
        let Some(entries) = self.spaces.get_mut(space) else {
            return;
        };
        if let Some(entry) = entries.remove(key) {
            self.bytes -= size(space, key, &entry.value);
        }
        if entries.is_empty() {
            self.spaces.remove(space);
        }
    }

    fn set(
        &mut self,
        space: &str,
        key: &str,
        value: Bytes,
        expires: u64,
    ) -> Result<(), StoreError> {
        if value.len() > MAX_STORE_VALUE {
            return Err(StoreError::TooLarge);
        }
        self.remove(space, key);
        self.touches += 1;
        self.bytes += size(space, key, &value);
        let known = self.spaces.get_key_value(space);
        let space = known.map_or_else(|| Arc::from(space), |(known, _)| Arc::clone(known));
        let key: Arc<str> = Arc::from(key);
        let entry = Entry {
            value,
            expires,
            touched: self.touches,
        };
        let entries = self.spaces.entry(Arc::clone(&space)).or_default();
        entries.insert(Arc::clone(&key), entry);
        self.by_touch.insert(self.touches, (space, key));
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
            let mut count = 0;
            for (space, entries) in &shard.spaces {
                for (key, entry) in entries {
                    bytes += size(space, key, &entry.value);
                    count += 1;
                    let touched = &shard.by_touch[&entry.touched];
                    assert_eq!((&touched.0, &touched.1), (space, key));
                }
            }
            assert_eq!((shard.bytes, shard.by_touch.len()), (bytes, count));
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
