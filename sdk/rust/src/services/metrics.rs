//! Figures in the proxy's `/metrics`, called `tidegate_filter_NAME` with the label `filter`. They are defined in
//! [`Filter::new`](crate::Filter::new) and used everywhere; the same name and labels are the same figure on every worker. A
//! filter has up to 100 series.
//!
//! ```
//! use tidegate_sdk::metrics::Counter;
//! use tidegate_sdk::prelude::*;
//!
//! struct Count {
//!     seen: Counter,
//! }
//!
//! #[filter(name = "count")]
//! impl Filter for Count {
//!     fn new(_: ()) -> Result<Self, ConfigError> {
//!         Ok(Count { seen: Counter::define("seen_total", "Requests that came by.", &[])? })
//!     }
//!
//!     fn request_head(&self, _: &mut RequestHead, _: &mut ()) -> Flow {
//!         self.seen.add(1);
//!         Flow::Continue
//!     }
//! }
//! # fn main() {}
//! ```

use crate::host;
use crate::phase::Refusal;

/// A number that only grows, such as requests. Its name ends in `_total` by custom.
#[derive(Clone, Copy, Debug)]
pub struct Counter(u32);

/// A number that goes up and down, such as a temperature.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(u32);

/// Values sorted into buckets, such as times.
#[derive(Clone, Copy, Debug)]
pub struct Histogram(u32);

impl Counter {
    /// Defines a counter, with a sentence for `/metrics` and the labels that this series of it has. Names are
    /// `[a-z_][a-z0-9_]*`.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`] for a name or label that can't be or is another kind of figure's, [`Refusal::Forbidden`] for the
    /// labels `filter` and `le`, [`Refusal::TooLarge`] over 100 series, [`Refusal::TooLate`] outside of `new`.
    pub fn define(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Self, Refusal> {
        host::define_counter(name, help, labels).map(Counter)
    }

    /// Adds to it, on this worker and without waiting for any other.
    pub fn add(self, delta: u64) {
        host::metric_add(self.0, delta);
    }
}

impl Gauge {
    /// Defines a gauge, as [`Counter::define`] does.
    ///
    /// # Errors
    /// As for a counter.
    pub fn define(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Self, Refusal> {
        host::define_gauge(name, help, labels).map(Gauge)
    }

    /// Puts a value in place of the one before, whichever worker set it.
    pub fn set(self, value: f64) {
        host::metric_set(self.0, value);
    }
}

impl Histogram {
    /// Defines a histogram with the upper bounds of its buckets, growing; the last one, infinity, is added.
    ///
    /// # Errors
    /// As for a counter, and [`Refusal::InvalidValue`] for bounds that do not grow.
    pub fn define(
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Self, Refusal> {
        host::define_histogram(name, help, labels, bounds).map(Histogram)
    }

    /// Records one value, in the first bucket whose bound is not below it.
    pub fn observe(self, value: f64) {
        host::metric_observe(self.0, value);
    }
}
