//! What the host does for a filter besides the exchange. A service that is not used is not imported, and needs no grant.

pub use crate::host::services::{CallError, CallResponse, StoreError, Verdict};

/// Lines in the proxy's log, with the filter's name and the request's id.
pub mod log {
    use crate::host;

    /// Something failed.
    pub fn error(message: &str) {
        host::log(0, message);
    }

    /// Something may fail soon.
    pub fn warn(message: &str) {
        host::log(1, message);
    }

    /// Something worth knowing happened.
    pub fn info(message: &str) {
        host::log(2, message);
    }

    /// For whoever looks for a fault.
    pub fn debug(message: &str) {
        host::log(3, message);
    }
}

/// Time, in nanoseconds.
pub mod clock {
    /// From an arbitrary start, never backwards.
    pub fn monotonic() -> u64 {
        crate::host::monotonic()
    }

    /// Since 1970-01-01T00:00:00Z.
    pub fn wall() -> u64 {
        crate::host::wall()
    }
}

/// Random numbers, fit for secrets.
pub mod random {
    /// Up to 4096 bytes.
    pub fn bytes(length: u32) -> Vec<u8> {
        crate::host::random_bytes(length)
    }

    /// A number of 64 bits.
    pub fn number() -> u64 {
        crate::host::random_number()
    }
}

/// A key-value store shared by all workers. Its namespaces must be granted by `allow.store`.
pub mod store {
    pub use super::StoreError;
    use crate::host;

    /// The value of a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn get(namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        host::store_get(namespace, key)
    }

    /// Puts a value in place; a time to live of 0 keeps it until it is evicted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn set(namespace: &str, key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StoreError> {
        host::store_set(namespace, key, value, ttl_ms)
    }

    /// Removes a value and says whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn delete(namespace: &str, key: &str) -> Result<bool, StoreError> {
        host::store_delete(namespace, key)
    }

    /// Sets a value only if the present one is `expected`, and says whether it did.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn compare_and_swap(
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, StoreError> {
        host::store_swap(namespace, key, expected, value, ttl_ms)
    }

    /// Adds to a decimal number, absent being 0, and says what it is now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn increment(
        namespace: &str,
        key: &str,
        delta: i64,
        ttl_ms: u64,
    ) -> Result<i64, StoreError> {
        host::store_increment(namespace, key, delta, ttl_ms)
    }
}

/// Token buckets shared by all workers and exact across them.
pub mod limiter {
    pub use super::Verdict;

    /// Takes tokens from the bucket of a key, which holds `burst` and gains `rate` a second.
    pub fn take(key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
        crate::host::limiter_take(key, tokens, rate, burst)
    }
}

/// HTTP calls to upstreams that `allow.http` grants.
pub mod http {
    pub use super::{CallError, CallResponse};

    /// A call in the making.
    #[derive(Clone, Debug)]
    pub struct Call {
        pub(crate) method: String,
        pub(crate) path: String,
        pub(crate) fields: Vec<(String, Vec<u8>)>,
        pub(crate) body: Vec<u8>,
        pub(crate) timeout_ms: u32,
        pub(crate) max_response: u32,
    }

    impl Call {
        /// A call of that method and path (with query).
        pub fn new(method: &str, path: &str) -> Self {
            Call {
                method: method.to_owned(),
                path: path.to_owned(),
                fields: Vec::new(),
                body: Vec::new(),
                timeout_ms: 0,
                max_response: 0,
            }
        }

        /// Adds a field.
        #[must_use]
        pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
            self.fields.push((name.to_owned(), value.as_ref().to_vec()));
            self
        }

        /// Sets the body.
        #[must_use]
        pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
            self.body = body.into();
            self
        }

        /// Bounds the whole call, in milliseconds; 5 s unless set, 60 s at most.
        #[must_use]
        pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
            self.timeout_ms = milliseconds;
            self
        }

        /// Bounds the answer, in bytes; 1 MiB unless set, which is also the most.
        #[must_use]
        pub fn max_response(mut self, bytes: u32) -> Self {
            self.max_response = bytes;
            self
        }

        /// Sends it to an upstream of the configuration and waits for the whole answer.
        ///
        /// # Errors
        /// See [`CallError`].
        pub fn send(&self, upstream: &str) -> Result<CallResponse, CallError> {
            crate::host::call(upstream, self)
        }
    }
}

/// Values from the proxy's environment that `allow.env` grants.
pub mod env {
    /// None if it is not granted or not set.
    pub fn get(name: &str) -> Option<String> {
        crate::host::env_get(name)
    }
}

/// Figures in `/metrics`. Define them in [`Filter::new`](crate::Filter::new).
pub mod metrics {
    use crate::host;
    use crate::phase::Refusal;

    /// A number that only grows.
    #[derive(Clone, Copy, Debug)]
    pub struct Counter(u32);

    /// A number that goes up and down.
    #[derive(Clone, Copy, Debug)]
    pub struct Gauge(u32);

    /// Values sorted into buckets.
    #[derive(Clone, Copy, Debug)]
    pub struct Histogram(u32);

    impl Counter {
        /// Defines it.
        ///
        /// # Errors
        /// A name or label that can't be, too many of them, or not in `new`.
        pub fn define(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Self, Refusal> {
            host::define_counter(name, help, labels).map(Counter)
        }

        /// Adds to it.
        pub fn add(self, delta: u64) {
            host::metric_add(self.0, delta);
        }
    }

    impl Gauge {
        /// Defines it.
        ///
        /// # Errors
        /// As for a counter.
        pub fn define(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Self, Refusal> {
            host::define_gauge(name, help, labels).map(Gauge)
        }

        /// Sets it.
        pub fn set(self, value: f64) {
            host::metric_set(self.0, value);
        }
    }

    impl Histogram {
        /// Defines it, with the upper bounds of its buckets.
        ///
        /// # Errors
        /// As for a counter; also bounds that do not grow.
        pub fn define(
            name: &str,
            help: &str,
            labels: &[(&str, &str)],
            bounds: &[f64],
        ) -> Result<Self, Refusal> {
            host::define_histogram(name, help, labels, bounds).map(Histogram)
        }

        /// Records a value.
        pub fn observe(self, value: f64) {
            host::metric_observe(self.0, value);
        }
    }
}
