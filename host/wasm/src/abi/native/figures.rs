//! A guest's own figures: defined in `configure`, used by number everywhere.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_core::error::Limit;
use tidegate_core::exchange::Refusal;
use tidegate_core::metrics::{Counter, Gauge, Histogram, MetricError, Owner};
use tidegate_core::phase::Phase;

use super::state::State;

/// Before the guest's own name.
const PREFIX: &str = "tidegate_filter_";
/// The label that the host adds.
const LABEL: &str = "filter";
/// The most labels that a guest may give to a figure.
const MAX_LABELS: usize = 16;
/// The longest value of a label, in bytes.
const MAX_LABEL_VALUE: usize = 256;
/// The most buckets of a histogram.
const MAX_BOUNDS: usize = 64;
/// The longest help text that is kept, in bytes.
const MAX_HELP: usize = 1024;

/// A series of a filter: the figure's name and its labels, in order.
pub(super) type Series = (String, Vec<(String, String)>);

/// One instance's figures, by number.
pub(super) struct Figures {
    owner: Owner,
    defined: Vec<Figure>,
}

enum Figure {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// What kind of figure a guest defines.
#[derive(Clone, Copy)]
pub(super) enum Define<'a> {
    Counter,
    Gauge,
    Histogram(&'a [f64]),
}

impl Figures {
    pub(super) fn new(owner: Owner) -> Self {
        Figures {
            owner,
            defined: Vec::new(),
        }
    }
}

/// The owner of this thread's cells: threads that serve exchanges never share one.
pub(super) fn thread_owner() -> Owner {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| Owner::Worker(*mine))
}

impl State {
    /// Defines a figure, or finds the one that was defined before with this name and these labels.
    pub(super) fn define(
        &mut self,
        kind: Define<'_>,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<u32, Refusal> {
        if self.phase != Phase::Configure {
            return Err(Refusal::TooLate);
        }
        if !is_name(name) || !labels.iter().all(|(label, _)| is_name(label)) {
            return Err(Refusal::InvalidName);
        }
        if labels
            .iter()
            .any(|(label, _)| *label == LABEL || *label == "le")
        {
            return Err(Refusal::Forbidden);
        }
        if labels.len() > MAX_LABELS
            || labels
                .iter()
                .any(|(_, value)| value.len() > MAX_LABEL_VALUE)
            || matches!(kind, Define::Histogram(bounds) if bounds.len() > MAX_BOUNDS)
        {
            return Err(Refusal::TooLarge);
        }
        let most = self.facts.limits.series as usize;
        if self.figures.defined.len() >= most {
            return Err(self.too_many_series());
        }
        let mut series: Series = (
            name.to_owned(),
            labels
                .iter()
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
        );
        series.1.sort();
        let mut known = self
            .facts
            .series
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&series) && known.len() >= most {
            drop(known);
            return Err(self.too_many_series());
        }

        let full = format!("{PREFIX}{name}");
        let help = cut(help, MAX_HELP);
        let mut all = vec![(LABEL, &*self.facts.name)];
        all.extend_from_slice(labels);
        let (registry, owner) = (&self.facts.services.metrics, self.figures.owner);
        let made = match kind {
            Define::Counter => registry
                .counter(owner, &full, help, &all)
                .map(Figure::Counter),
            Define::Gauge => registry.gauge(&full, help, &all).map(Figure::Gauge),
            Define::Histogram(bounds) => registry
                .histogram(owner, &full, help, &all, bounds)
                .map(Figure::Histogram),
        };
        let figure = made.map_err(|error| match error {
            MetricError::Invalid => Refusal::InvalidValue,
            MetricError::Taken => Refusal::InvalidName,
        })?;
        known.insert(series);
        drop(known);
        let number = u32::try_from(self.figures.defined.len()).map_err(|_| Refusal::TooLarge)?;
        self.figures.defined.push(figure);
        Ok(number)
    }

    fn too_many_series(&self) -> Refusal {
        let bound = u64::from(self.facts.limits.series);
        self.refused(Limit::Series, bound, bound + 1);
        Refusal::TooLarge
    }

    pub(super) fn add(&self, metric: u32, delta: u64) {
        if let Some(Figure::Counter(counter)) = self.figure(metric) {
            counter.add(delta);
        }
    }

    pub(super) fn set(&self, metric: u32, value: f64) {
        if let Some(Figure::Gauge(gauge)) = self.figure(metric) {
            gauge.set(value);
        }
    }

    pub(super) fn observe(&self, metric: u32, value: f64) {
        if let Some(Figure::Histogram(histogram)) = self.figure(metric) {
            histogram.observe(value);
        }
    }

    fn figure(&self, metric: u32) -> Option<&Figure> {
        self.figures.defined.get(metric as usize)
    }
}

fn is_name(name: &str) -> bool {
    let starts = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    starts
        && name.len() <= 100
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The beginning of a text, at most so many bytes.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}
