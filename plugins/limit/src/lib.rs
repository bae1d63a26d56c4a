//! Limits how much each client, consumer or tenant may ask for: so much in each period, so many requests at a time, or
//! so much of what responses say that it cost. The buckets are the host's: exact across all workers.

mod answer;
mod calendar;
mod config;
mod decide;
mod exempt;
mod key;
mod quota;
mod read;
mod rule;
mod tell;
mod words;

use tidegate_sdk::limiter::Level;
use tidegate_sdk::prelude::*;

use crate::answer::Look;
pub use crate::config::Config;
use crate::config::{Cost, QuotaFields, StoreFailure};
use crate::decide::{Asked, Decision, ask, bucket, decide, remaining, reset};
use crate::exempt::Exemption;
use crate::key::Facts;
use crate::quota::whole_seconds;
use crate::rule::{Rule, rules};
use crate::tell::{Standing, fields};

/// The filter.
#[derive(Debug)]
pub struct Limit {
    rules: Vec<Rule>,
    exemption: Exemption,
    look: Look,
    quota_fields: QuotaFields,
    store_failure: StoreFailure,
    /// Whether a rule takes what the response says.
    charges: bool,
}

/// What is kept of a request until its response.
#[derive(Debug, Default)]
pub struct Told {
    /// Where the client stood with the first rule, for which most requests need no memory of their own.
    first: Option<Seen>,
    others: Vec<Seen>,
    owed: Vec<Owed>,
}

/// Where the client stood with a rule.
#[derive(Clone, Copy, Debug)]
struct Seen {
    rule: usize,
    quota: usize,
    level: Level,
}

impl Told {
    fn add(&mut self, seen: Seen) {
        match self.first {
            None => self.first = Some(seen),
            Some(_) => self.others.push(seen),
        }
    }
}

/// A request whose cost is not known yet.
#[derive(Debug)]
struct Owed {
    rule: usize,
    quota: usize,
    key: String,
}

#[filter(
    name = "limit",
    description = "Limits how much each client, consumer or tenant may ask for."
)]
impl Filter for Limit {
    type Config = Config;
    type State = Told;

    fn new(mut config: Config) -> Result<Self, ConfigError> {
        let rules = rules(&mut config)?;
        Ok(Limit {
            charges: rules
                .iter()
                .any(|rule| matches!(rule.cost, Cost::Response(_))),
            rules,
            exemption: Exemption::new(config.exempt.take())?,
            look: config
                .answer
                .take()
                .map(Look::new)
                .transpose()?
                .unwrap_or_default(),
            quota_fields: config.quota_fields,
            store_failure: config.store_failure,
        })
    }

    fn interests(&self, interests: &mut Interests) {
        if self.quota_fields == QuotaFields::None && !self.charges {
            interests.remove(Phase::ResponseHead);
        }
    }

    fn request_head(&self, request: &mut RequestHead, told: &mut Told) -> Flow {
        let facts = Facts::new(request);
        if self.exemption.covers(&facts) {
            return Flow::Continue;
        }
        let (mut one, mut several);
        let all: &mut [Asked<'_>] = if let [rule] = self.rules.as_slice() {
            one = ask(0, rule, &facts);
            one.as_mut_slice()
        } else {
            let rules = self.rules.iter().enumerate();
            several = rules
                .filter_map(|(index, rule)| ask(index, rule, &facts))
                .collect::<Vec<_>>();
            several.as_mut_slice()
        };
        match decide(all, self.store_failure) {
            Decision::Limited => self.refuse(&facts, all),
            Decision::Unavailable => answer::unavailable().send(),
            Decision::Pass(wait) => {
                self.remember(all, told);
                if wait > 0
                    && let Err(refusal) = request.delay(wait)
                {
                    log::warn(&["a request could not be delayed: ", &refusal.to_string()].concat());
                }
                Flow::Continue
            }
        }
    }

    fn response_head(&self, response: &mut ResponseHead, told: &mut Told) -> Flow {
        for owed in std::mem::take(&mut told.owed) {
            let field = match self.rules.get(owed.rule).map(|rule| &rule.cost) {
                Some(Cost::Response(name)) => response.get(name),
                _ => None,
            };
            if let Some(level) = self.charge(&owed, field.as_deref()) {
                let seen = told.first.iter_mut().chain(&mut told.others);
                for seen in seen.filter(|seen| seen.rule == owed.rule) {
                    seen.level = level;
                }
            }
        }
        fields(self.quota_fields, self.standings(told), |name, value| {
            // These are lists, to which another filter may have added. A head that has no room left goes without.
            let _ = match name.starts_with("ratelimit") {
                true => response.append(name, value),
                false => response.set(name, value),
            };
        });
        Flow::Continue
    }

    fn log(&self, _: &Ended, told: &mut Told) {
        // The client went away before there was a response: what it owes is what a response without the field costs.
        for owed in std::mem::take(&mut told.owed) {
            self.charge(&owed, None);
        }
    }
}

impl Limit {
    /// Keeps what the response phase needs.
    fn remember(&self, all: &mut [Asked<'_>], told: &mut Told) {
        if self.quota_fields != QuotaFields::None {
            all.iter().filter_map(seen).for_each(|seen| told.add(seen));
        }
        if self.charges {
            let owing = all.iter_mut();
            let owing = owing.filter(|asked| matches!(asked.rule.cost, Cost::Response(_)));
            told.owed.extend(owing.map(|asked| Owed {
                rule: asked.index,
                quota: asked.number,
                key: std::mem::take(&mut asked.key),
            }));
        }
    }

    /// Takes what a request has cost after all, even if that is more than there is.
    fn charge(&self, owed: &Owed, field: Option<&[u8]>) -> Option<Level> {
        let rule = self.rules.get(owed.rule)?;
        let quota = rule.quota(owed.quota)?;
        let cost = i64::try_from(rule.charge_of(field)).unwrap_or(i64::MAX);
        if cost == 0 && self.quota_fields == QuotaFields::None {
            return None;
        }
        let bucket = bucket(quota)?;
        if !rule.shared {
            return bucket.charge(&owed.key, cost).ok();
        }
        let charged = bucket.shared().charge(&owed.key, cost);
        if charged.is_err() && self.store_failure == StoreFailure::Local {
            return bucket.charge(&owed.key, cost).ok();
        }
        charged.ok()
    }

    fn standings<'a>(&'a self, told: &'a Told) -> impl Iterator<Item = Standing<'a>> + Clone {
        told.first.iter().chain(&told.others).filter_map(|seen| {
            let quota = self.rules.get(seen.rule)?.quota(seen.quota)?;
            Some(Standing {
                quota,
                remaining: remaining(quota, seen.level),
                reset_ns: reset(quota, seen.level),
            })
        })
    }

    /// Answers in place of the upstream, with the wait that all refusing rules ask for.
    fn refuse(&self, facts: &Facts<'_>, all: &[Asked<'_>]) -> Flow {
        let over = || all.iter().filter(|asked| asked.is_over());
        let names: Vec<&str> = over().map(|asked| &*asked.rule.name).collect();
        let mut answer = self.look.answer(facts, &names);
        let waits = over().filter_map(|asked| asked.level.map(|level| level.retry_after_ns));
        // What can never pass is not told to come back.
        if let Some(wait) = waits.max().filter(|wait| *wait != u64::MAX) {
            answer = answer.field(
                "retry-after",
                itoa::Buffer::new().format(whole_seconds(wait).max(1)),
            );
        }
        let mut told = Told::default();
        all.iter().filter_map(seen).for_each(|seen| told.add(seen));
        let mut lines = Vec::new();
        fields(self.quota_fields, self.standings(&told), |name, value| {
            lines.push((name, value.to_owned()));
        });
        for (name, value) in lines {
            answer = answer.field(name, value.as_str());
        }
        answer.send()
    }
}

/// Where a client stands with a rule, if it is told of it.
fn seen(asked: &Asked<'_>) -> Option<Seen> {
    let level = asked.level.filter(|_| !asked.rule.dry_run)?;
    Some(Seen {
        rule: asked.index,
        quota: asked.number,
        level,
    })
}

#[cfg(test)]
mod tests;
