//! State that filters share across workers, in memory: a key-value store and token buckets.

mod bucket;
mod in_flight;
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
        self.part(self.hash(space, key))
    }

    fn hash(&self, space: &str, key: &str) -> u64 {
        self.hasher.hash_one((space, key))
    }

    fn index(&self, hash: u64) -> usize {
        index(hash, self.shards.len())
    }

    /// The part of a key's hash.
    fn part(&self, hash: u64) -> Option<MutexGuard<'_, T>> {
        self.shards
            .get(self.index(hash))
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which of `count` parts a hash belongs to.
fn index(hash: u64, count: usize) -> usize {
    usize::try_from(hash % (count.max(1) as u64)).unwrap_or(0)
}
