//! State that filters share across workers, in memory: a key-value store and token buckets.

mod limiter;
mod store;

pub use limiter::TokenBuckets;
pub use store::MemoryStore;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A map cut into parts with a lock each, so that workers seldom meet.
#[derive(Debug)]
struct Sharded<T> {
    shards: Vec<Mutex<T>>,
    hasher: RandomState,
}

impl<T: Default> Sharded<T> {
    fn new(shards: usize) -> Self {
        Sharded {
            shards: (0..shards.max(1)).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The part that a key belongs to.
    fn lock(&self, space: &str, key: &str) -> Option<MutexGuard<'_, T>> {
        let hash = self.hasher.hash_one((space, key));
        let index = usize::try_from(hash % self.shards.len() as u64).unwrap_or(0);
        self.shards
            .get(index)
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
