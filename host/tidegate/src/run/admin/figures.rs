//! What changes of a filter with every request: its figures, and whether it is in quarantine. Made when somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tidegate_core::clock::{Clock as _, SystemClock};
use tidegate_core::error::Limit;
use tidegate_core::filter::FilterModule;
use tidegate_core::metrics::{Owner, Reading, Registry};
use tidegate_core::usage::{Discard, Usage};
use tidegate_gateway::Quarantined;

use crate::run::filters::{LiveStatus, Status};

/// What was last published of each filter's use, so that counters only grow.
#[derive(Debug, Default)]
pub(super) struct Published(HashMap<String, (Weak<dyn FilterModule>, Usage)>);

impl Published {
    /// Brings the figures up to date that nobody keeps as things happen.
    pub(super) fn publish(&mut self, registry: &Registry, statuses: &[Status]) {
        self.0
            .retain(|name, _| statuses.iter().any(|status| status.name == *name));
        for status in statuses {
            let filter = ("filter", status.name.as_str());
            self.publish_one(registry, filter, &status.live);
        }
    }

    fn publish_one(&mut self, registry: &Registry, filter: (&str, &str), live: &LiveStatus) {
        let set = |name: &str, help: &str, value: f64| {
            if let Ok(gauge) = registry.gauge(name, help, &[filter]) {
                gauge.set(value);
            }
        };
        let state = live.quarantine.as_ref().and_then(|it| it.state());
        set(
            "tidegate_filter_quarantined",
            "Whether a filter is out of service because it failed too often.",
            if state.is_some() { 1.0 } else { 0.0 },
        );
        let Some(module) = &live.module else {
            return;
        };
        let usage = module.usage();
        set(
            "tidegate_filter_instances",
            "Instances of a filter that are alive.",
            usage.instances as f64,
        );
        set(
            "tidegate_filter_memory_bytes",
            "Linear memory that a filter's instances hold.",
            usage.memory as f64,
        );
        set(
            "tidegate_filter_memory_peak_bytes",
            "The most linear memory that the instances of a filter's present version ever held together.",
            usage.memory_peak as f64,
        );
        self.count(registry, filter, module, usage);
    }

    /// Adds what came since the last time.
    fn count(
        &mut self,
        registry: &Registry,
        filter: (&str, &str),
        module: &Arc<dyn FilterModule>,
        usage: Usage,
    ) {
        let before = self.0.get(filter.1).filter(|(of, _)| {
            // A version that was replaced counted from 0.
            Weak::ptr_eq(of, &Arc::downgrade(module))
        });
        let before = before.map(|(_, usage)| usage.clone()).unwrap_or_default();
        let add = |name: &str, help: &str, label: Option<(&str, &str)>, now: u64, before: u64| {
            let labels: Vec<_> = std::iter::once(filter).chain(label).collect();
            if now > before
                && let Ok(counter) = registry.counter(Owner::Process, name, help, &labels)
            {
                counter.add(now - before);
            }
        };
        add(
            "tidegate_filter_instances_created_total",
            "Instances of a filter that were made.",
            None,
            usage.created,
            before.created,
        );
        let help = "Instances of a filter that were given up, by reason.";
        for ((why, now), before) in Discard::ALL
            .iter()
            .zip(usage.discarded)
            .zip(before.discarded)
        {
            let label = ("reason", why.name());
            let name = "tidegate_filter_instances_discarded_total";
            add(name, help, Some(label), now, before);
        }
        let help =
            "Times that a filter went over a limit, or was refused what lay beyond it, by limit.";
        for ((limit, now), before) in Limit::ALL.iter().zip(usage.over).zip(before.over) {
            let label = ("limit", limit.name());
            let name = "tidegate_filter_limits_exceeded_total";
            add(name, help, Some(label), now, before);
        }
        self.0
            .insert(filter.1.to_owned(), (Arc::downgrade(module), usage));
    }
}

/// All there is to say of a filter.
pub(super) fn show(registry: &Registry, status: &Status) -> Value {
    // Plain data can always be written.
    let mut shown = serde_json::to_value(status).unwrap_or_default();
    let Some(object) = shown.as_object_mut() else {
        return shown;
    };
    let state = status.live.quarantine.as_ref().and_then(|it| it.state());
    if let Some(state) = state {
        object.insert("state".to_owned(), "quarantined".into());
        object.insert("quarantine".to_owned(), quarantined(&state));
    }
    let figures = Figures::of(&registry.read("filter", &status.name));
    object.insert("figures".to_owned(), figures.show());
    if let Some(module) = &status.live.module {
        object.insert("usage".to_owned(), used(&module.usage()));
    }
    shown
}

fn quarantined(state: &Quarantined) -> Value {
    json!({
        "since": on_the_wall(state.since),
        "until": on_the_wall(state.until),
        "why": state.why,
        "times": state.times,
    })
}

/// What a filter's instances hold and have used.
fn used(usage: &Usage) -> Value {
    let discarded = Discard::ALL.iter().zip(usage.discarded);
    let discarded: Map<String, Value> = discarded
        .map(|(why, count)| (why.name().to_owned(), count.into()))
        .collect();
    let over = Limit::ALL.iter().zip(usage.over);
    let over: Map<String, Value> = over
        .filter(|(_, count)| *count > 0)
        .map(|(limit, count)| (limit.name().to_owned(), count.into()))
        .collect();
    json!({
        "instances": usage.instances,
        "created": usage.created,
        "discarded": discarded,
        "memory": usage.memory,
        "memory-peak": usage.memory_peak,
        "cpu-seconds": usage.cpu.as_secs_f64(),
        "limits-exceeded": over,
    })
}

/// A moment of the monotonic clock as people write it.
fn on_the_wall(nanos: u64) -> Option<String> {
    let ago = i128::from(SystemClock.monotonic()) - i128::from(nanos);
    let ago = SignedDuration::from_nanos(i64::try_from(ago).ok()?);
    let time = Timestamp::now().checked_sub(ago).ok()?;
    Some(time.to_string())
}

/// A filter's figures by their short names.
#[derive(Default)]
struct Figures {
    calls: Map<String, Value>,
    body_bytes: Map<String, Value>,
    failures: Vec<Value>,
    others: Map<String, Value>,
}

impl Figures {
    fn of(readings: &[Reading]) -> Self {
        let mut figures = Figures::default();
        for reading in readings {
            figures.add(reading);
        }
        figures
    }

    fn add(&mut self, reading: &Reading) {
        let value = whole(reading.value);
        let phase = || reading.label("phase").unwrap_or_default().to_owned();
        match reading.name.as_str() {
            // Phases that it takes no part in are of no interest.
            "tidegate_filter_calls_total" | "tidegate_filter_body_bytes_total"
                if reading.value == 0.0 => {}
            "tidegate_filter_calls_total" => {
                self.calls.insert(phase(), value);
            }
            "tidegate_filter_body_bytes_total" => {
                self.body_bytes.insert(phase(), value);
            }
            "tidegate_filter_failures_total" => self.failures.push(json!({
                "phase": reading.label("phase"),
                "reason": reading.label("reason"),
                "count": value,
            })),
            "tidegate_filter_call_seconds" => self.timed("call-seconds", reading),
            "tidegate_filter_cpu_seconds" => self.timed("cpu-seconds", reading),
            "tidegate_filter_answers_total" => self.other("answers", value),
            "tidegate_filter_fail_open_total" => self.other("fail-open", value),
            "tidegate_filter_quarantines_total" => self.other("quarantines", value),
            _ => {}
        }
    }

    fn timed(&mut self, name: &str, reading: &Reading) {
        let value = json!({ "measured": reading.count, "sum": reading.value });
        self.other(name, value);
    }

    fn other(&mut self, name: &str, value: Value) {
        self.others.insert(name.to_owned(), value);
    }

    fn show(self) -> Value {
        let mut shown = self.others;
        shown.insert("calls".to_owned(), self.calls.into());
        shown.insert("body-bytes".to_owned(), self.body_bytes.into());
        shown.insert("failures".to_owned(), self.failures.into());
        shown.into()
    }
}

/// A count without a fraction.
fn whole(value: f64) -> Value {
    Value::from(value.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::Mutex;
    use tidegate_core::error::FilterError;
    use tidegate_core::filter::{Filter, WorkerServices};
    use tidegate_core::phase::Interests;

    #[test]
    fn figures_have_short_names() {
        let registry = Registry::new();
        let filter = ("filter", "a");
        let count = |name: &str, labels: &[(&str, &str)]| {
            let counter = registry.counter(Owner::Process, name, "", labels).unwrap();
            counter.add(3);
        };
        count(
            "tidegate_filter_calls_total",
            &[filter, ("phase", "request-head")],
        );
        count(
            "tidegate_filter_failures_total",
            &[filter, ("phase", "log"), ("reason", "trap")],
        );
        count("tidegate_filter_fail_open_total", &[filter]);
        count(
            "tidegate_filter_calls_total",
            &[("filter", "b"), ("phase", "log")],
        );
        let shown = Figures::of(&registry.read("filter", "a")).show();
        assert_eq!(
            shown,
            json!({
                "calls": { "request-head": 3 },
                "body-bytes": {},
                "failures": [{ "phase": "log", "reason": "trap", "count": 3 }],
                "fail-open": 3,
            })
        );
    }

    /// A filter whose use a test decides.
    #[derive(Debug)]
    struct Used(Arc<str>, Interests, Mutex<Usage>);

    impl FilterModule for Used {
        fn name(&self) -> &Arc<str> {
            &self.0
        }

        fn interests(&self) -> &Interests {
            &self.1
        }

        fn usage(&self) -> Usage {
            self.2.lock().unwrap().clone()
        }

        fn on_worker(&self, _: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError> {
            panic!("nobody calls it")
        }
    }

    #[test]
    fn counters_go_on_when_a_version_begins_anew() {
        let registry = Registry::new();
        let mut published = Published::default();
        let mut publish = |module: &Arc<Used>| {
            let live = LiveStatus {
                module: Some(Arc::clone(module) as Arc<dyn FilterModule>),
                quarantine: None,
            };
            published.publish_one(&registry, ("filter", "a"), &live);
            let read = registry.read("filter", "a");
            let value = |name: &str| {
                let found = read.iter().find(|it| it.name == name);
                found.map_or(0.0, |it| it.value)
            };
            [
                value("tidegate_filter_instances_created_total"),
                value("tidegate_filter_limits_exceeded_total"),
                value("tidegate_filter_memory_bytes"),
            ]
        };
        let module = |created| {
            let mut usage = Usage {
                created,
                memory: 10 * created,
                ..Usage::default()
            };
            usage.over[0] = created;
            Arc::new(Used(
                Arc::from("a"),
                Interests::default(),
                Mutex::new(usage),
            ))
        };
        let first = module(3);
        assert_eq!(publish(&first), [3.0, 3.0, 30.0]);
        assert_eq!(publish(&first), [3.0, 3.0, 30.0]);
        first.2.lock().unwrap().created = 5;
        assert_eq!(publish(&first), [5.0, 3.0, 30.0]);
        assert_eq!(publish(&module(2)), [7.0, 5.0, 20.0]);
    }

    #[test]
    fn a_moment_of_the_monotonic_clock_has_a_date() {
        let now = SystemClock.monotonic();
        let soon: Timestamp = on_the_wall(now + 60_000_000_000).unwrap().parse().unwrap();
        let away = soon.duration_since(Timestamp::now()).as_secs();
        assert!((58..=60).contains(&away), "{away}");
    }
}
