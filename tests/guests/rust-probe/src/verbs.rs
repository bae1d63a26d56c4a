//! What a command can ask for in every phase: facts, properties, answers, services, faults. It must not know phases.

use std::fmt::{Debug, Display};

#[cfg(feature = "calls")]
use tidegate_sdk::http;
use tidegate_sdk::prelude::*;
use tidegate_sdk::{clock, env, limiter, metrics, random, store};

use crate::views::View;

/// What came of a command.
pub(crate) enum Outcome {
    Text(String),
    /// The phase is to return this.
    Flow(Flow),
}

/// The figures that commands move.
pub(crate) struct Figures {
    pub(crate) counter: metrics::Counter,
    pub(crate) gauge: metrics::Gauge,
    pub(crate) histogram: metrics::Histogram,
}

/// Bytes as text that may stand in a field.
pub(crate) fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

pub(crate) fn optional(value: Option<Vec<u8>>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| shown(&value))
}

/// `ok`, `ok VALUE` or the name of the refusal, as it stands in Rust.
pub(crate) fn result<T: Debug, E: Debug>(outcome: Result<T, E>) -> String {
    match outcome {
        Ok(value) => format!("ok {value:?}").replace("ok ()", "ok"),
        Err(error) => format!("{error:?}"),
    }
}

fn number<T: std::str::FromStr<Err: Display>>(word: &str) -> T {
    word.parse()
        .unwrap_or_else(|error| panic!("`{word}` in x-probe is no number: {error}"))
}

/// Runs a command; none if there is no such verb, or not with that many arguments.
pub(crate) fn run(words: &[&str], view: &dyn View, figures: &Figures) -> Option<Outcome> {
    facts(words, view)
        .or_else(|| services(words))
        .or_else(|| figure(words, figures))
        .map(Outcome::Text)
        .or_else(|| flow(words))
        .or_else(|| fault(words))
}

fn facts(words: &[&str], view: &dyn View) -> Option<String> {
    Some(match *words {
        ["property", name] => optional(view.property(name)),
        ["set-property", name, value] => result(view.set_property(name, value)),
        ["parameter", name] => optional(view.path_parameter(name).map(String::into_bytes)),
        ["request-field", name] => optional(view.request_field(name)),
        [fact] => view.fact(fact)?,
        _ => return None,
    })
}

fn services(words: &[&str]) -> Option<String> {
    let stored = |outcome: Result<Option<Vec<u8>>, store::StoreError>| match outcome {
        Ok(value) => optional(value),
        Err(error) => format!("{error:?}"),
    };
    let expected = |word: &'static str, given: &str| (given != word).then(|| given.to_owned());
    Some(match *words {
        ["store-get", space, key] => stored(store::get(space, key)),
        ["store-set", space, key, value, ttl] => {
            result(store::set(space, key, value.as_bytes(), number(ttl)))
        }
        ["store-delete", space, key] => result(store::delete(space, key)),
        ["store-swap", space, key, old, new, ttl] => {
            let old = expected("none", old);
            let old = old.as_deref().map(str::as_bytes);
            result(store::compare_and_swap(
                space,
                key,
                old,
                new.as_bytes(),
                number(ttl),
            ))
        }
        ["store-increment", space, key, delta, ttl] => {
            result(store::increment(space, key, number(delta), number(ttl)))
        }
        ["take", key, tokens, rate, burst] => {
            let verdict = limiter::take(key, number(tokens), number(rate), number(burst));
            format!("{} {}", verdict.allowed, verdict.remaining)
        }
        ["enter", place, key, limit] => {
            match limiter::enter(key, number(limit), self::place(place)?) {
                Ok(entry) => format!("{} {}", entry.allowed, entry.in_flight),
                Err(error) => format!("{error:?}"),
            }
        }
        ["take-all", place, ref demands @ ..] => {
            let demands: Option<Vec<_>> = demands
                .chunks(3)
                .map(|demand| match *demand {
                    [key, tokens, shape] => Some((key, number(tokens), bucket(place, shape)?)),
                    _ => None,
                })
                .collect();
            let demands = demands?;
            let demands: Vec<_> = demands
                .iter()
                .map(|(key, tokens, bucket)| limiter::Demand::new(bucket, key, *tokens))
                .collect();
            match limiter::take_all(self::place(place)?, &demands) {
                Ok(levels) => levels.into_iter().map(level).collect::<Vec<_>>().join(", "),
                Err(error) => format!("{error:?}"),
            }
        }
        [
            verb @ ("try-take" | "peek" | "charge"),
            place,
            key,
            tokens,
            shape,
        ] => {
            let bucket = bucket(place, shape)?;
            let outcome = match verb {
                "try-take" => bucket.take(key, number(tokens)),
                "peek" => bucket.peek(key, number(tokens)),
                _ => bucket.charge(key, number(tokens)),
            };
            outcome.map_or_else(|error| format!("{error:?}"), level)
        }
        #[cfg(feature = "calls")]
        ["call", upstream, method, path] => called(http::Call::new(method, path), upstream),
        #[cfg(feature = "calls")]
        ["call", upstream, method, path, body] => {
            called(http::Call::new(method, path).body(body), upstream)
        }
        #[cfg(feature = "calls")]
        ["call-within", upstream, path, milliseconds] => {
            let call = http::Call::new("GET", path).timeout_ms(number(milliseconds));
            called(call, upstream)
        }
        ["env", name] => optional(env::get(name).map(String::into_bytes)),
        ["random", length] => random::bytes(number(length)).len().to_string(),
        ["random-number"] => (random::number() != random::number()).to_string(),
        ["monotonic"] => clock::monotonic().to_string(),
        ["wall"] => clock::wall().to_string(),
        ["log", level, message] => {
            match level {
                "error" => log::error(message),
                "warn" => log::warn(message),
                "info" => log::info(message),
                "debug" => log::debug(message),
                _ => return None,
            }
            "ok".to_owned()
        }
        _ => return None,
    })
}

fn place(word: &str) -> Option<limiter::Place> {
    match word {
        "local" => Some(limiter::Place::Local),
        "shared" => Some(limiter::Place::Shared),
        _ => None,
    }
}

/// `CAPACITY/REFILL/PERIOD-MS`, or `CAPACITY@FULL-AT-MS`.
fn bucket(at: &str, shape: &str) -> Option<limiter::Bucket> {
    let bucket = if let Some((capacity, end)) = shape.split_once('@') {
        limiter::Bucket::until(number(capacity), number(end))
    } else {
        let mut numbers = shape.split('/').map(number);
        limiter::Bucket::refilling(numbers.next()?, numbers.next()?, numbers.next()?)
    };
    Some(limiter::Bucket {
        place: place(at)?,
        ..bucket
    })
}

fn level(level: limiter::Level) -> String {
    format!("{} {}", level.allowed, level.remaining)
}

#[cfg(feature = "calls")]
fn called(call: http::Call, upstream: &str) -> String {
    match call.send(upstream) {
        Ok(answer) => format!("{} {}", answer.status, shown(&answer.body)),
        Err(error) => format!("{error:?}"),
    }
}

fn figure(words: &[&str], figures: &Figures) -> Option<String> {
    match *words {
        ["count", delta] => figures.counter.add(number(delta)),
        ["gauge", value] => figures.gauge.set(number(value)),
        ["observe", value] => figures.histogram.observe(number(value)),
        // A figure can be defined while configuring only.
        ["define", name] => {
            return Some(result(
                metrics::Counter::define(name, "Late.", &[]).map(drop),
            ));
        }
        _ => return None,
    }
    Some("ok".to_owned())
}

fn flow(words: &[&str]) -> Option<Outcome> {
    Some(match *words {
        ["continue"] => Outcome::Flow(Flow::Continue),
        ["hold"] => Outcome::Flow(Flow::Hold),
        ["answer", status] => Outcome::Flow(Answer::new(number(status)).send()),
        ["answer", status, text] => Outcome::Flow(Answer::new(number(status)).text(text).send()),
        ["answer", status, text, name, value] => {
            let answer = Answer::new(number(status)).field(name, value);
            Outcome::Flow(answer.text(text).send())
        }
        // Gives an answer without sending it, so that a refusal can be seen.
        ["give", status, name, value] => {
            let answer = Answer::new(number(status)).field(name, value);
            Outcome::Text(result(answer.give()))
        }
        // Sends an answer that was never given.
        ["answer-nothing"] => Outcome::Flow(Flow::Answer),
        _ => return None,
    })
}

fn fault(words: &[&str]) -> Option<Outcome> {
    match *words {
        ["trap"] => panic!("the probe was told to trap"),
        ["spin"] => {
            let mut turns = 0_u64;
            loop {
                turns = std::hint::black_box(turns.wrapping_add(1));
            }
        }
        ["grow", mebibytes] => {
            let mut bytes = Vec::<u8>::new();
            let wanted = number::<usize>(mebibytes) << 20;
            let text = match bytes.try_reserve_exact(wanted) {
                Ok(()) => "ok",
                Err(_) => "refused",
            };
            std::hint::black_box(&bytes);
            Some(Outcome::Text(text.to_owned()))
        }
        _ => None,
    }
}
