//! A rule made ready: for whom it is, which quota a request falls under and in which bucket it counts. Asks no limiter.

use tidegate_sdk::metrics::Counter;
use tidegate_sdk::prelude::*;

use crate::config::{Config, Cost, CountIn, RuleConfig};
use crate::key::{Facts, Missing, Part, Prefixes, write};
use crate::quota::{Quota, Wanted};
use crate::words::RuleName;

/// As many as the limiter takes from in one call.
const MOST: usize = 16;

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Box<str>,
    pub(crate) cost: Cost,
    pub(crate) default_cost: u64,
    pub(crate) max_cost: u64,
    /// Whether it counts in the operator's store.
    pub(crate) shared: bool,
    pub(crate) dry_run: bool,
    pub(crate) figures: Figures,
    methods: Vec<Box<str>>,
    parts: Vec<Part>,
    missing: Missing,
    prefixes: Prefixes,
    /// The rule's own, then those of consumers and roles.
    quotas: Vec<Quota>,
    /// Sorted by name.
    consumers: Vec<(Box<[u8]>, usize)>,
    /// In the order in which they are tried.
    roles: Vec<(Box<[u8]>, usize)>,
}

/// What is counted of a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Requests that were refused, or would have been.
    pub(crate) limited: Counter,
    /// Requests that had to wait.
    pub(crate) delayed: Option<Counter>,
    /// Requests for which the store could not be reached.
    pub(crate) unavailable: Option<Counter>,
}

/// The rules of a configuration, in its order.
pub(crate) fn rules(config: &mut Config) -> Result<Vec<Rule>, ConfigError> {
    let mut written = std::mem::take(&mut config.rules);
    let several = !written.is_empty();
    match (config.rate, several) {
        (Some(_), true) => {
            return Err(
                "`rate` and `rules` exclude each other: make one of the `rules` of it".into(),
            );
        }
        (None, false) => return Err("nothing is limited: add `rate`, or a table [[rules]]".into()),
        (None, true) => {
            let stray = [
                ("name", config.name.is_some()),
                ("per", config.per.is_some()),
                ("burst", config.burst.is_some()),
                ("key", config.key.is_some()),
            ];
            if let Some((key, _)) = stray.iter().find(|(_, written)| *written) {
                return Err([
                    "`",
                    key,
                    "` belongs to a rule: write it in each of the `rules`",
                ]
                .concat()
                .into());
            }
        }
        (Some(_), false) => written.push(RuleConfig {
            name: config.name.take(),
            rate: config.rate,
            per: config.per,
            burst: config.burst,
            key: config.key.take().unwrap_or_default(),
            ..RuleConfig::default()
        }),
    }
    if written.len() > MOST {
        return Err("`rules`: there are more than 16: spread them over several filters".into());
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(written.len());
    for (index, one) in written.into_iter().enumerate() {
        let place = match several {
            true => ["`rules[", itoa::Buffer::new().format(index), "]`: "].concat(),
            false => String::new(),
        };
        let rule = Rule::new(one, config).map_err(|error| [place.as_str(), &error].concat())?;
        if rules.iter().any(|other| other.name == rule.name) {
            let name = &rule.name;
            return Err([
                &place,
                "another rule is called `",
                name,
                "` too: give each a `name`",
            ]
            .concat()
            .into());
        }
        rules.push(rule);
    }
    Ok(rules)
}

impl Rule {
    fn new(written: RuleConfig, config: &Config) -> Result<Self, String> {
        let name = match &written.name {
            Some(RuleName(name)) => name.clone(),
            None => "default".into(),
        };
        let own = Wanted::of_rule(&written)?;
        let mut quotas = vec![Quota::new(&name, "", &own, &written)?];
        let (mut consumers, mut roles) = (Vec::new(), Vec::new());
        for (index, quota) in written.quotas.iter().enumerate() {
            let wrong = |error: &str| {
                ["`quotas[", itoa::Buffer::new().format(index), "]`: ", error].concat()
            };
            let (kind, whose) = match (&quota.consumer, &quota.role) {
                (Some(consumer), None) => ("\n=n", consumer),
                (None, Some(role)) => ("\n=r", role),
                _ => {
                    return Err(wrong(
                        "it is for a `consumer` or for a `role`: write one of them",
                    ));
                }
            };
            if whose.is_empty() || whose.len() > 64 || whose.bytes().any(|byte| byte < b' ') {
                return Err(wrong(
                    "the name has 1 to 64 bytes and no control characters",
                ));
            }
            let list = if quota.role.is_some() {
                &mut roles
            } else {
                &mut consumers
            };
            if list
                .iter()
                .any(|(known, _): &(Box<[u8]>, usize)| **known == *whose.as_bytes())
            {
                return Err(wrong(
                    "there is a quota for the same before it: leave one away",
                ));
            }
            // Consumers are looked up by name, so they stand in its order; roles in that of the configuration.
            let at = match quota.role {
                Some(_) => list.len(),
                None => list.partition_point(|(known, _)| **known < *whose.as_bytes()),
            };
            list.insert(at, (Box::from(whose.as_bytes()), quotas.len()));
            let made = match Wanted::of_quota(quota, &own).map_err(|error| wrong(&error))? {
                None => Quota::unlimited(),
                Some(wanted) => {
                    let tag = [kind, whose].concat();
                    Quota::new(&name, &tag, &wanted, &written).map_err(|error| wrong(&error))?
                }
            };
            quotas.push(made);
        }
        let default = Prefixes::default();
        let prefixes = Prefixes {
            v4: written
                .ipv4_prefix
                .or(config.ipv4_prefix)
                .map_or(default.v4, |prefix| prefix.0),
            v6: written
                .ipv6_prefix
                .or(config.ipv6_prefix)
                .map_or(default.v6, |prefix| prefix.0),
        };
        let free_by_default = matches!(written.cost, Cost::Response(_));
        let shared = written.count_in == CountIn::Store;
        let dry_run = written.dry_run || config.dry_run;
        let figures = Figures::define(&name, dry_run, written.delay.is_some(), shared)
            .map_err(|refusal| ["it can't be counted: ", &refusal.to_string()].concat())?;
        Ok(Rule {
            name,
            default_cost: written
                .default_cost
                .map_or(u64::from(!free_by_default), |cost| u64::from(cost.0)),
            max_cost: written.max_cost.map_or(u64::MAX, |most| most.0),
            cost: written.cost,
            shared,
            dry_run,
            figures,
            methods: written.methods.into_iter().map(|method| method.0).collect(),
            parts: written.key.0,
            missing: written.missing,
            prefixes,
            quotas,
            consumers,
            roles,
        })
    }

    /// Whether it is for requests of that method.
    pub(crate) fn is_for(&self, request: &RequestHead) -> bool {
        self.methods.is_empty() || {
            let method = request.method();
            self.methods.iter().any(|known| **known == *method)
        }
    }

    /// The number of the quota that a request falls under.
    pub(crate) fn choose(&self, facts: &Facts<'_>) -> usize {
        if !self.consumers.is_empty()
            && let Some(name) = facts.consumer()
            && let Ok(at) = self
                .consumers
                .binary_search_by(|(known, _)| (**known).cmp(name))
        {
            return self.consumers.get(at).map_or(0, |(_, number)| *number);
        }
        let mut listed = self.roles.iter();
        let chosen = listed.find(|(role, _)| facts.roles().any(|own| *own == **role));
        chosen.map_or(0, |(_, number)| *number)
    }

    /// A quota by its number.
    pub(crate) fn quota(&self, number: usize) -> Option<&Quota> {
        self.quotas.get(number)
    }

    /// The key of a request; none if it has none and passes for that.
    pub(crate) fn key(&self, quota: &Quota, facts: &Facts<'_>) -> Option<String> {
        let mut key = String::with_capacity(96);
        key.push_str(&quota.key);
        write(&mut key, &self.parts, self.missing, self.prefixes, facts).then_some(key)
    }

    /// What a field of the request says that it costs: something, and never so much that it could not pass at all.
    pub(crate) fn cost_of(&self, field: Option<&[u8]>, quota: &Quota) -> u64 {
        self.charge_of(field).min(quota.told).max(1)
    }

    /// What a field of the response says that it has cost.
    pub(crate) fn charge_of(&self, field: Option<&[u8]>) -> u64 {
        let said = field.and_then(number).unwrap_or(self.default_cost);
        said.min(self.max_cost)
    }
}

/// The number in a field: digits and nothing else. What is too large for 64 bits is the largest of them.
fn number(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

impl Figures {
    fn define(rule: &str, dry_run: bool, delays: bool, shared: bool) -> Result<Self, Refusal> {
        let labels = [("rule", rule)];
        let limited = match dry_run {
            false => Counter::define("limited_total", "Requests that a rule refused.", &labels)?,
            true => Counter::define(
                "would_limit_total",
                "Requests that a rule would have refused if it were no dry run.",
                &labels,
            )?,
        };
        let delayed =
            || Counter::define("delayed_total", "Requests that a rule made wait.", &labels);
        let unavailable = || {
            Counter::define(
                "store_unavailable_total",
                "Requests for which a rule could not reach the store.",
                &labels,
            )
        };
        Ok(Figures {
            limited,
            delayed: (delays && !dry_run).then(delayed).transpose()?,
            unavailable: shared.then(unavailable).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_cost() {
        assert_eq!(number(b" 17 "), Some(17));
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"99999999999999999999999"), Some(u64::MAX));
        for field in ["", "-1", "1.5", "1e9", "0x1", "1, 2"] {
            assert_eq!(number(field.as_bytes()), None, "{field}");
        }
    }
}
