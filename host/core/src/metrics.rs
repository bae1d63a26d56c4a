//! Figures: cheap handles for whoever counts, and a registry that prints them all in Prometheus' text format.
//! Knows no figure by name.
//!
//! A handle is taken once, at load, and used on the request's path. A [`Counter`] or [`Histogram`] that was taken
//! for a worker has cells of its own, so that workers never write to the same cache line; scraping adds the
//! workers' cells up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it.
    pub fn add(&self, delta: u64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Moves it by some amount, which may be negative.
    pub fn add(&self, delta: f64) {
        add_float(&self.0, delta);
    }

    /// What it stands at.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Values sorted into buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: Arc<[f64]>,
    /// One for each bound, and one for what is above the last.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Buckets {
            bounds,
            counts,
            sum: AtomicU64::new(0),
        }))
    }

    /// Records a value.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        add_float(&self.0.sum, value);
    }
}

fn add_float(cell: &AtomicU64, delta: f64) {
    let mut held = cell.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(held) + delta).to_bits();
        match cell.compare_exchange_weak(held, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => held = now,
        }
    }
}

/// Bounds for times in seconds: from 0.1 ms to 10 s.
pub const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0,
];

/// Whose cells a handle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Shared by everyone.
    Process,
    /// One worker's own, by its number.
    Worker(usize),
}

/// What a series stands at.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The figure's name.
    pub name: String,
    /// Labels and their values, in order of the labels.
    pub labels: Vec<(String, String)>,
    /// The number, or the sum of a histogram's values.
    pub value: f64,
    /// How many values a histogram has; none: it is no histogram.
    pub count: Option<u64>,
}

impl Reading {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why a figure can't be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// A name or label that Prometheus does not take, or bounds that do not grow.
    #[error("the name, a label or the bounds are not valid")]
    Invalid,
    /// The name is taken by a figure of another kind or with other bounds.
    #[error("the name is taken by another kind of figure")]
    Taken,
}

/// All figures of the process.
#[derive(Debug, Default)]
pub struct Registry {
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: Kind,
    series: BTreeMap<Vec<(String, String)>, BTreeMap<Owner, Cell>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram(Arc<[f64]>),
}

#[derive(Debug)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Registry {
    /// A registry without figures.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of that name, labels and owner; made if it is new.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn counter(
        &self,
        owner: Owner,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Counter, MetricError> {
        self.cell(
            owner,
            name,
            help,
            labels,
            Kind::Counter,
            |cell| match cell {
                Cell::Counter(counter) => Some(counter.clone()),
                _ => None,
            },
        )
    }

    /// The gauge of that name and labels; made if it is new.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Gauge, MetricError> {
        self.cell(
            Owner::Process,
            name,
            help,
            labels,
            Kind::Gauge,
            |cell| match cell {
                Cell::Gauge(gauge) => Some(gauge.clone()),
                _ => None,
            },
        )
    }

    /// The histogram of that name, labels and owner; made if it is new.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub fn histogram(
        &self,
        owner: Owner,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Histogram, MetricError> {
        if bounds.iter().any(|bound| !bound.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
            return Err(MetricError::Invalid);
        }
        self.cell(
            owner,
            name,
            help,
            labels,
            Kind::Histogram(bounds.into()),
            |cell| match cell {
                Cell::Histogram(histogram) => Some(histogram.clone()),
                _ => None,
            },
        )
    }

    fn cell<T>(
        &self,
        owner: Owner,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        kind: Kind,
        pick: impl Fn(&Cell) -> Option<T>,
    ) -> Result<T, MetricError> {
        if !is_name(name) || !labels.iter().all(|(label, _)| is_name(label)) {
            return Err(MetricError::Invalid);
        }
        let mut labels: Vec<(String, String)> = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        labels.sort();
        if !labels.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(MetricError::Invalid);
        }
        let mut families = self.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind: kind.clone(),
            series: BTreeMap::new(),
        });
        if family.kind != kind {
            return Err(MetricError::Taken);
        }
        let cell = family
            .series
            .entry(labels)
            .or_default()
            .entry(owner)
            .or_insert_with(|| match &kind {
                Kind::Counter => Cell::Counter(Counter::default()),
                Kind::Gauge => Cell::Gauge(Gauge::default()),
                Kind::Histogram(bounds) => Cell::Histogram(Histogram::new(bounds.clone())),
            });
        pick(cell).ok_or(MetricError::Taken)
    }

    /// Forgets every series that has a label of that value, such as those of a filter that was removed.
    pub fn forget(&self, label: &str, value: &str) {
        self.lock().retain(|_, family| {
            family.series.retain(|labels, _| {
                !labels
                    .iter()
                    .any(|(name, held)| name == label && held == value)
            });
            !family.series.is_empty()
        });
    }

    /// How many series have a label of that value in families whose name begins so.
    pub fn count(&self, prefix: &str, label: &str, value: &str) -> usize {
        let families = self.lock();
        families
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .flat_map(|(_, family)| family.series.keys())
            .filter(|labels| {
                labels
                    .iter()
                    .any(|(name, held)| name == label && held == value)
            })
            .count()
    }

    /// What all series with a label of that value stand at, those of all owners together.
    pub fn read(&self, label: &str, value: &str) -> Vec<Reading> {
        let families = self.lock();
        let mut readings = Vec::new();
        for (name, family) in families.iter() {
            for (labels, cells) in &family.series {
                let is_it = |(known, held): &(String, String)| known == label && held == value;
                if !labels.iter().any(is_it) {
                    continue;
                }
                let (mut value, mut count) = (0.0, None);
                for cell in cells.values() {
                    match cell {
                        Cell::Counter(counter) => value += counter.get() as f64,
                        Cell::Gauge(gauge) => value += gauge.get(),
                        Cell::Histogram(histogram) => {
                            let counts = histogram.0.counts.iter();
                            let here: u64 = counts.map(|it| it.load(Ordering::Relaxed)).sum();
                            count = Some(count.unwrap_or(0) + here);
                            value += f64::from_bits(histogram.0.sum.load(Ordering::Relaxed));
                        }
                    }
                }
                readings.push(Reading {
                    name: name.clone(),
                    labels: labels.clone(),
                    value,
                    count,
                });
            }
        }
        readings
    }

    /// All figures in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.lock().iter() {
            // Writing to a string does not fail.
            let _ = family.encode(name, &mut out);
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    fn encode(&self, name: &str, out: &mut String) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        writeln!(
            out,
            "# HELP {name} {}",
            self.help.replace('\\', "\\\\").replace('\n', "\\n")
        )?;
        writeln!(out, "# TYPE {name} {kind}")?;
        for (labels, cells) in &self.series {
            match &self.kind {
                Kind::Counter => {
                    let sum: u64 = cells
                        .values()
                        .map(|cell| {
                            if let Cell::Counter(counter) = cell {
                                counter.get()
                            } else {
                                0
                            }
                        })
                        .fold(0, u64::wrapping_add);
                    writeln!(out, "{name}{} {sum}", Labels(labels, None))?;
                }
                Kind::Gauge => {
                    let sum: f64 = cells
                        .values()
                        .map(|cell| {
                            if let Cell::Gauge(gauge) = cell {
                                gauge.get()
                            } else {
                                0.0
                            }
                        })
                        .sum();
                    writeln!(out, "{name}{} {sum}", Labels(labels, None))?;
                }
                Kind::Histogram(bounds) => encode_histogram(name, labels, cells, bounds, out)?,
            }
        }
        Ok(())
    }
}

fn encode_histogram(
    name: &str,
    labels: &[(String, String)],
    cells: &BTreeMap<Owner, Cell>,
    bounds: &[f64],
    out: &mut String,
) -> std::fmt::Result {
    let mut counts = vec![0u64; bounds.len() + 1];
    let mut sum = 0.0;
    for cell in cells.values() {
        let Cell::Histogram(histogram) = cell else {
            continue;
        };
        for (total, count) in counts.iter_mut().zip(&histogram.0.counts) {
            *total += count.load(Ordering::Relaxed);
        }
        sum += f64::from_bits(histogram.0.sum.load(Ordering::Relaxed));
    }
    let mut below = 0;
    let bounds = bounds
        .iter()
        .map(ToString::to_string)
        .chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&counts) {
        below += count;
        writeln!(out, "{name}_bucket{} {below}", Labels(labels, Some(&bound)))?;
    }
    writeln!(out, "{name}_sum{} {sum}", Labels(labels, None))?;
    writeln!(out, "{name}_count{} {below}", Labels(labels, None))
}

struct Labels<'a>(&'a [(String, String)], Option<&'a str>);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs = self
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let mut separator = '{';
        for (name, value) in pairs.chain(self.1.map(|bound| ("le", bound))) {
            write!(f, "{separator}{name}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_char('"')?;
            separator = ',';
        }
        if separator == ',' {
            f.write_char('}')
        } else {
            Ok(())
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_cells_are_added_up_and_labels_escaped() {
        let registry = Registry::new();
        for worker in 0..3 {
            let counter = registry
                .counter(
                    Owner::Worker(worker),
                    "hits",
                    "How often.",
                    &[("route", "a\"b\\\n")],
                )
                .unwrap();
            counter.add(2);
        }
        assert_eq!(
            registry.encode(),
            "# HELP hits How often.\n# TYPE hits counter\nhits{route=\"a\\\"b\\\\\\n\"} 6\n"
        );
    }

    #[test]
    fn the_same_figure_is_the_same_cell_and_kinds_do_not_mix() {
        let registry = Registry::new();
        registry
            .counter(Owner::Process, "a", "", &[])
            .unwrap()
            .increment();
        assert_eq!(
            registry
                .counter(Owner::Process, "a", "", &[])
                .unwrap()
                .get(),
            1
        );
        assert!(matches!(
            registry.gauge("a", "", &[]),
            Err(MetricError::Taken)
        ));
        assert!(matches!(
            registry.gauge("0a", "", &[]),
            Err(MetricError::Invalid)
        ));
        assert!(matches!(
            registry.histogram(Owner::Process, "h", "", &[], &[2.0, 1.0]),
            Err(MetricError::Invalid)
        ));
    }

    #[test]
    fn series_are_read_by_a_label() {
        let registry = Registry::new();
        let labels = [("filter", "a"), ("phase", "log")];
        for worker in 0..2 {
            let owner = Owner::Worker(worker);
            registry
                .counter(owner, "calls", "", &labels)
                .unwrap()
                .add(2);
            let histogram = registry.histogram(owner, "seconds", "", &labels[..1], &[1.0]);
            histogram.unwrap().observe(0.5);
        }
        registry
            .gauge("other", "", &[("filter", "b")])
            .unwrap()
            .set(1.0);
        let read = registry.read("filter", "a");
        let calls = &read[0];
        assert_eq!(
            (calls.name.as_str(), calls.label("phase")),
            ("calls", Some("log"))
        );
        assert_eq!(read[1].count, Some(2));
        let sums: Vec<f64> = read.iter().map(|it| it.value).collect();
        assert_eq!(sums, [4.0, 1.0]);
    }

    #[test]
    fn a_histogram_counts_what_is_at_or_below_each_bound() {
        let registry = Registry::new();
        let histogram = registry
            .histogram(Owner::Process, "t", "", &[], &[1.0, 2.0])
            .unwrap();
        for value in [0.5, 1.0, 1.5, 9.0] {
            histogram.observe(value);
        }
        let text = registry.encode();
        for line in [
            "t_bucket{le=\"1\"} 2",
            "t_bucket{le=\"2\"} 3",
            "t_bucket{le=\"+Inf\"} 4",
            "t_sum 12",
            "t_count 4",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let registry = Registry::new();
        registry
            .counter(Owner::Process, "a", "", &[("filter", "x")])
            .unwrap();
        registry
            .counter(Owner::Process, "a", "", &[("filter", "y")])
            .unwrap();
        assert_eq!(registry.count("a", "filter", "x"), 1);
        registry.forget("filter", "x");
        assert!(!registry.encode().contains("x"));
        assert!(registry.encode().contains("filter=\"y\""));
    }
}
