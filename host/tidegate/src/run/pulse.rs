//! Whether the workers keep turning: each beats twice a second and measures how late it is; the control thread looks
//! whether one stands still. Knows nothing of what they do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidegate_core::metrics::{Counter, Owner, Registry};

/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Without a beat for so long, a worker stands still. No call into a filter may take that long unless its bound is set so.
const STILL: Duration = Duration::from_secs(5);
/// Bounds of the figure of lateness, in seconds.
const LATE: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// A worker's last sign of life. It ends with the worker.
#[derive(Debug)]
pub(crate) struct Pulse {
    worker: usize,
    begun: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

/// What a look found of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has begun to stand still.
    Still,
    /// It turns again.
    Turning,
}

impl Pulse {
    /// That of a worker which begins now.
    pub(crate) fn new(worker: usize) -> Arc<Self> {
        Arc::new(Pulse {
            worker,
            begun: Instant::now(),
            last: AtomicU64::new(0),
        })
    }

    /// How long ago the last beat was.
    fn silent_for(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun)
            .saturating_sub(last)
    }
}

/// Beats for a worker, on its own thread, until it ends.
pub(crate) async fn beat(pulse: Arc<Pulse>, registry: Arc<Registry>) {
    let help = "How late a worker came to what was due, asked twice a second.";
    let late = registry.histogram(
        Owner::Worker(pulse.worker),
        "tidegate_worker_lag_seconds",
        help,
        &[("worker", &pulse.worker.to_string())],
        &LATE,
    );
    drop(registry);
    loop {
        let due = Instant::now() + BEAT;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let millis = now.saturating_duration_since(pulse.begun).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        pulse.last.store(millis, Ordering::Relaxed);
        if let Ok(late) = &late {
            late.observe(now.saturating_duration_since(due).as_secs_f64());
        }
    }
}

/// Looks after workers until all have ended.
pub(crate) async fn watch(pulses: Vec<Weak<Pulse>>, registry: Arc<Registry>) {
    let help = "Times that a worker stood still for 5 s or more.";
    let stalls = registry.counter(Owner::Process, "tidegate_worker_stalls_total", help, &[]);
    let stalls: Counter = stalls.unwrap_or_default();
    let mut still = vec![false; pulses.len()];
    loop {
        tokio::time::sleep(LOOK).await;
        let mut alive = false;
        for (pulse, still) in pulses.iter().zip(&mut still) {
            let Some(pulse) = pulse.upgrade() else {
                continue;
            };
            alive = true;
            let silent = pulse.silent_for(Instant::now());
            match judge(silent, still) {
                Some(Found::Still) => {
                    stalls.increment();
                    tracing::error!(
                        worker = pulse.worker,
                        seconds = silent.as_secs(),
                        "a worker stands still: its connections wait; a filter with a long `limits.time`, or no processor for it"
                    );
                }
                Some(Found::Turning) => {
                    tracing::warn!(worker = pulse.worker, "a worker turns again");
                }
                None => {}
            }
        }
        if !alive {
            return;
        }
    }
}

/// What there is to tell of a worker that was silent for so long.
fn judge(silent: Duration, still: &mut bool) -> Option<Found> {
    let now = silent >= STILL;
    let found = if now { Found::Still } else { Found::Turning };
    (std::mem::replace(still, now) != now).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_standstill_is_told_once() {
        let mut still = false;
        let seconds = [0, 4, 5, 6, 20, 0, 1, 7];
        let told: Vec<_> = seconds
            .iter()
            .map(|silent| judge(Duration::from_secs(*silent), &mut still))
            .collect();
        let (begins, ends) = (Some(Found::Still), Some(Found::Turning));
        assert_eq!(told, [None, None, begins, None, None, ends, None, begins]);
    }

    #[test]
    fn silence_is_counted_from_the_last_beat() {
        let pulse = Pulse::new(0);
        pulse.last.store(3_000, Ordering::Relaxed);
        let now = pulse.begun + Duration::from_secs(10);
        assert_eq!(pulse.silent_for(now), Duration::from_secs(7));
        assert_eq!(pulse.silent_for(pulse.begun), Duration::ZERO);
    }
}
