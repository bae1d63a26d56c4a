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

type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Entry>,
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

    fn with<T>(
        &self,
        namespace: &str,
        key: &str,
        act: impl FnOnce(&mut Shard, Key, u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if key.len() > MAX_STORE_KEY {
            return Err(StoreError::TooLarge);
        }
        let mut shard = self
            .shards
            .lock(namespace, key)
            .ok_or(StoreError::Unavailable)?;
        let now = self.clock.monotonic();
        let key: Key = (Arc::from(namespace), Arc::from(key));
        if shard
            .entries
            .get(&key)
            .is_some_and(|entry| entry.expires <= now)
        {
            shard.remove(&key);
        }
        let result = act(&mut shard, key, now);
        while shard.bytes > self.bound
            && let Some((_, oldest)) = shard.by_touch.first_key_value()
        {
            let oldest = oldest.clone();
            shard.remove(&oldest);
        }
        result
    }
}

impl Shard {
    fn get(&mut self, key: &Key) -> Option<Bytes> {
        self.touches += 1;
        let entry = self.entries.get_mut(key)?;
        self.by_touch.remove(&entry.touched);
        entry.touched = self.touches;
        self.by_touch.insert(entry.touched, key.clone());
        Some(entry.value.clone())
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.by_touch.remove(&entry.touched);
        self.bytes -= size(key, &entry.value);
        true
    }

    fn set(&mut self, key: Key, value: Bytes, expires: u64) -> Result<(), StoreError> {
        if value.len() > MAX_STORE_VALUE {
            return Err(StoreError::TooLarge);
        }
        self.remove(&key);
        self.touches += 1;
        self.bytes += size(&key, &value);
        self.by_touch.insert(self.touches, key.clone());
        self.entries.insert(
            key,
            Entry {
                value,
                expires,
                touched: self.touches,
            },
        );
        Ok(())
    }
}

fn size(key: &Key, value: &Bytes) -> usize {
    key.0.len() + key.1.len() + value.len() + OVERHEAD
}

fn expiry(now: u64, ttl: Option<Duration>) -> u64 {
    ttl.map_or(u64::MAX, |ttl| {
        now.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))
    })
}

impl Store for MemoryStore {
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.with(namespace, key, |shard, key, _| Ok(shard.get(&key)))
    }

    fn set(
        &self,
        namespace: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.with(namespace, key, |shard, key, now| {
            shard.set(key, value, expiry(now, ttl))
        })
    }

    fn delete(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        self.with(namespace, key, |shard, key, _| Ok(shard.remove(&key)))
    }

    fn compare_and_swap(
        &self,
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.with(namespace, key, |shard, key, now| {
            if shard.get(&key).as_deref() != expected {
                return Ok(false);
            }
            shard.set(key, value, expiry(now, ttl)).map(|()| true)
        })
    }

    fn increment(
        &self,
        namespace: &str,
        key: &str,
        delta: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, StoreError> {
        self.with(namespace, key, |shard, key, now| {
            let held = shard.get(&key);
            let number = match &held {
                None => 0,
                Some(value) => std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok())
                    .ok_or(StoreError::NotANumber)?,
            };
            let sum = number.checked_add(delta).ok_or(StoreError::NotANumber)?;
            let expires = shard
                .entries
                .get(&key)
                .map_or_else(|| expiry(now, ttl), |entry| entry.expires);
            shard.set(key, Bytes::from(sum.to_string()), expires)?;
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
}
