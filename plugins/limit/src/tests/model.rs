//! Any run of requests against a model that is too simple to be wrong: levels as exact fractions, and a clock that a test
//! moves.

use proptest::prelude::*;

use super::*;

/// A bucket in units of `1 / period` tokens, so that a nanosecond adds `rate` of them and nothing is ever rounded.
struct Model {
    period_ns: u128,
    rate: u128,
    capacity: u128,
    level: u128,
}

impl Model {
    fn new(rate: u64, burst: u64, period_ns: u64) -> Self {
        let capacity = u128::from(burst) * u128::from(period_ns);
        Model {
            period_ns: period_ns.into(),
            rate: rate.into(),
            capacity,
            level: capacity,
        }
    }

    fn advance(&mut self, by: u64) {
        self.level = (self.level + self.rate * u128::from(by)).min(self.capacity);
    }

    fn has(&self, tokens: u64) -> bool {
        self.level >= u128::from(tokens) * self.period_ns
    }

    fn take(&mut self, tokens: u64) {
        self.level -= u128::from(tokens) * self.period_ns;
    }

    fn whole(&self) -> u128 {
        self.level / self.period_ns
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn two_rules_for_three_clients_agree_with_the_model(
        (fast, burst, slow) in (1_u64..50, 1_u64..20, 1_u64..40),
        cost in 1_u64..4,
        steps in prop::collection::vec((0_u64..400, 0_usize..3), 1..120),
    ) {
        let burst = burst.max(cost);
        let slow = slow.max(cost);
        let mut harness = limit(json!({"rules": [
            {"name": "fast", "rate": fast, "burst": burst, "cost": cost},
            {"name": "slow", "rate": slow, "per": "minute", "cost": cost, "key": "constant"},
        ]}));
        let clients = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        let mut own: Vec<Model> = clients.iter().map(|_| Model::new(fast, burst, 1_000_000_000)).collect();
        let mut shared = Model::new(slow, slow, 60_000_000_000);
        for (milliseconds, client) in steps {
            // Odd moments too: no rate divides them.
            let by = milliseconds * 1_000_003;
            harness.advance(Duration::from_nanos(by));
            own.iter_mut().for_each(|model| model.advance(by));
            shared.advance(by);
            let expected = own[client].has(cost) && shared.has(cost);
            let mut outcome = harness.request(from(clients[client]));
            prop_assert_eq!(outcome.answer.is_none(), expected);
            if expected {
                own[client].take(cost);
                shared.take(cost);
                let response = harness.response(&mut outcome, 200, &[], b"");
                let shown = response.field("ratelimit").unwrap();
                let expected = format!("\"fast\";r={};", own[client].whole());
                prop_assert!(shown.starts_with(&expected), "{} {}", shown, expected);
                let expected = format!("\"slow\";r={};", shared.whole());
                prop_assert!(shown.contains(&expected), "{} {}", shown, expected);
            }
            harness.end(outcome);
        }
    }

    #[test]
    fn whoever_waits_as_told_is_let_in(
        rate in 1_u64..1_000,
        burst in 1_u64..10,
        per in prop::sample::select(vec!["second", "minute", "hour", "day", "7s"]),
        idle in 0_u64..10_000_000_000,
    ) {
        let mut harness = limit(json!({"rate": rate, "per": per, "burst": burst}));
        for _ in 0..burst {
            prop_assert!(passes(&mut harness, Request::get("/")));
        }
        harness.advance(Duration::from_nanos(idle % 1_000_003));
        while let Some(refused) = answer(&mut harness, Request::get("/")) {
            let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
            harness.advance(Duration::from_secs(wait));
            prop_assert!(passes(&mut harness, Request::get("/")));
            break;
        }
    }
}
