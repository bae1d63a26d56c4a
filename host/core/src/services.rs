//! What a filter may ask of the host, as small traits that the binary fills in. Implements none of them.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::clock::Clock;
use crate::limiter::Limiter;
use crate::metrics::Registry;

/// The longest key of the store, in bytes.
pub const MAX_STORE_KEY: usize = 512;
/// The longest value of the store, in bytes.
pub const MAX_STORE_VALUE: usize = 64 * 1024;

/// What all filters share, whichever worker they run on.
#[derive(Clone, Debug)]
pub struct Services {
    /// Values by namespace and key.
    pub store: Arc<dyn Store>,
    /// Token buckets by filter and key.
    pub limiter: Arc<dyn Limiter>,
    /// Where guests' figures are registered.
    pub metrics: Arc<Registry>,
    /// Where guests' lines go.
    pub log: Arc<dyn LogSink>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Key over [`MAX_STORE_KEY`] or value over [`MAX_STORE_VALUE`].
    #[error("the key or the value is too large")]
    TooLarge,
    /// The value is no decimal number, or the sum is past the range of 64 bits.
    #[error("the value is not a number in range")]
    NotANumber,
    /// It can't be reached.
    #[error("the store can't be reached")]
    Unavailable,
}

/// Values by namespace and key, shared by all workers, each call one step. A time to live of `None` keeps a
/// value until it is evicted.
pub trait Store: Debug + Send + Sync {
    /// Bounds what a namespace may hold, keys and bookkeeping counted. Of several bounds for one namespace the last
    /// holds. What is over it is evicted from this namespace, and no other.
    fn bound(&self, _namespace: &str, _bytes: u64) {}

    /// The value of a key that has not expired.
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Puts a value in place of whatever was there.
    fn set(
        &self,
        namespace: &str,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// Removes a value and says whether there was one.
    fn delete(&self, namespace: &str, key: &str) -> Result<bool, StoreError>;

    /// Sets a value only if the present one is the expected one, and says whether it did.
    fn compare_and_swap(
        &self,
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError>;

    /// Adds to a decimal number, absent being 0, and says what it is now. `ttl` counts only for a number that
    /// this call makes.
    fn increment(
        &self,
        namespace: &str,
        key: &str,
        delta: i64,
        ttl: Option<Duration>,
    ) -> Result<i64, StoreError>;
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may fail soon.
    Warn,
    /// Something worth knowing happened.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Takes guests' log lines. Must not block.
pub trait LogSink: Debug + Send + Sync {
    /// Whether a line of this level would be written.
    fn enabled(&self, level: Level) -> bool;

    /// Writes one line; control characters are escaped by the sink.
    fn write(&self, level: Level, filter: &str, request_id: Option<&str>, message: &str);
}

/// Why a guest's HTTP call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No endpoint could be reached.
    #[error("no endpoint of the upstream could be reached")]
    Unreachable,
    /// It took too long.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The answer is longer than was allowed.
    #[error("the upstream's answer is too large")]
    ResponseTooLarge,
    /// The connection broke, or what came was no HTTP.
    #[error("the upstream broke the call off")]
    Broken,
    /// No such upstream, or nothing that could be sent.
    #[error("the call could not be sent as it was asked for")]
    InvalidRequest,
}

/// The future of a guest's HTTP call.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<Response<Bytes>, CallError>>>>;

/// Sends guests' HTTP calls, from one worker. Whether a guest may call an upstream was decided before.
pub trait HttpClient {
    /// Sends a request to a named upstream and collects its answer. The request's URI is path and query only.
    fn call(
        &self,
        upstream: &str,
        request: Request<Bytes>,
        timeout: Duration,
        max_response: usize,
    ) -> CallFuture;
}
