//! Tries a filter with the request that its configuration names, before it takes traffic. Nothing is left behind: what the
//! filter shares with others is replaced by stand-ins that keep nothing. It must not know what runs already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use tidegate_core::clock::SystemClock;
use tidegate_core::limiter::{
    Bucket, Demand, Entry, Level, Limiter, LimiterError, Permit, Place, Verdict,
};
use tidegate_core::metrics::Registry;
use tidegate_core::services::{Services, Store, StoreError};
use tidegate_wasm::{Compiled, Engine};
use tokio::runtime::{Builder, LocalOptions};

use crate::config::checked::{Filter, SelfCheck};
use crate::load;
use crate::logging::GuestLog;

/// How long it may take, waiting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a compiled filter what its configuration wants it to be asked, if anything.
///
/// # Errors
/// What it did instead, in words.
pub(crate) fn run(
    engine: &Engine,
    compiled: &Arc<Compiled>,
    filter: &Filter,
) -> Result<(), String> {
    let Some(check) = &filter.self_check else {
        return Ok(());
    };
    let asked = format!("self-check `{} {}`", check.method, check.target.path());
    let module = load::load(engine, compiled, filter, &services())
        .map_err(|error| format!("{asked}: {error}"))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| format!("{asked}: it can't be run: {error}"))?;
    let tried = tidegate_gateway::alone(module, request(check));
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, tried).await });
    let answer = match answer {
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            return Err(format!("{asked}: no answer within {seconds} s"));
        }
        Ok(Err(error)) => return Err(format!("{asked}: {error}")),
        Ok(Ok(answer)) => answer,
    };
    judge(check, answer.status(), answer.headers()).map_err(|why| format!("{asked}: {why}"))
}

fn request(check: &SelfCheck) -> Request<Bytes> {
    let mut request = Request::new(check.body.clone());
    *request.method_mut() = check.method.clone();
    *request.uri_mut() = check.target.clone().into();
    for (name, value) in &check.headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    request
}

/// Whether an answer is the one that is expected.
fn judge(check: &SelfCheck, status: StatusCode, fields: &HeaderMap) -> Result<(), String> {
    if status != check.status {
        return Err(format!(
            "the answer has status {}, and {} is expected",
            status.as_u16(),
            check.status.as_u16()
        ));
    }
    let differs = |(name, value): &&(HeaderName, HeaderValue)| {
        !fields.get_all(name).iter().any(|held| held == value)
    };
    match check.expected.iter().find(differs) {
        // Its value may be nobody's business.
        Some((name, _)) => Err(format!("the answer's field `{name}` is not as expected")),
        None => Ok(()),
    }
}

/// Services for a filter that serves nobody.
pub(crate) fn services() -> Services {
    Services {
        store: Arc::new(Nothing),
        limiter: Arc::new(Nothing),
        metrics: Arc::new(Registry::default()),
        log: Arc::new(GuestLog),
        clock: Arc::new(SystemClock),
    }
}

/// A store that keeps nothing and a limiter that refuses nothing: a check leaves no traces.
#[derive(Debug)]
struct Nothing;

impl Store for Nothing {
    fn get(&self, _: &str, _: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn set(&self, _: &str, _: &str, _: Bytes, _: Option<Duration>) -> Result<(), StoreError> {
        Ok(())
    }

    fn delete(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn compare_and_swap(
        &self,
        _: &str,
        _: &str,
        expected: Option<&[u8]>,
        _: Bytes,
        _: Option<Duration>,
    ) -> Result<bool, StoreError> {
        Ok(expected.is_none())
    }

    fn increment(
        &self,
        _: &str,
        _: &str,
        delta: i64,
        _: Option<Duration>,
    ) -> Result<i64, StoreError> {
        Ok(delta)
    }
}

impl Limiter for Nothing {
    fn take(&self, _: &str, _: &str, _: u32, _: f64, burst: u32) -> Verdict {
        Verdict {
            allowed: true,
            remaining: burst,
            ..Verdict::default()
        }
    }

    fn try_take(&self, _: Place, _: &str, demand: &Demand<'_>) -> Result<Level, LimiterError> {
        Ok(full(&demand.bucket))
    }

    fn peek(&self, _: Place, _: &str, demand: &Demand<'_>) -> Result<Level, LimiterError> {
        Ok(full(&demand.bucket))
    }

    fn take_all(
        &self,
        _: Place,
        _: &str,
        demands: &[Demand<'_>],
    ) -> Result<Vec<Level>, LimiterError> {
        Ok(demands.iter().map(|demand| full(&demand.bucket)).collect())
    }

    fn charge(
        &self,
        _: Place,
        _: &str,
        _: &str,
        _: i64,
        bucket: &Bucket,
    ) -> Result<Level, LimiterError> {
        Ok(full(bucket))
    }

    fn enter(&self, _: Place, _: &str, _: &str, _: u32) -> (Entry, Option<Permit>) {
        let entry = Entry {
            allowed: true,
            in_flight: 1,
        };
        (entry, None)
    }
}

fn full(bucket: &Bucket) -> Level {
    Level {
        allowed: true,
        remaining: bucket.capacity,
        ..Level::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn status_and_fields_must_be_as_expected() {
        let field = |value: &'static str| {
            let name = HeaderName::from_static("x-secret");
            (name, HeaderValue::from_static(value))
        };
        let check = SelfCheck {
            method: Method::GET,
            target: "/a?b".parse().unwrap(),
            headers: vec![],
            body: Bytes::new(),
            status: StatusCode::UNAUTHORIZED,
            expected: vec![field("right")],
        };
        assert_eq!(request(&check).uri(), "/a?b");
        let judge = |status, value| {
            let fields = [field(value)].into_iter().collect();
            judge(&check, status, &fields)
        };
        assert_eq!(judge(StatusCode::UNAUTHORIZED, "right"), Ok(()));
        let why = judge(StatusCode::UNAUTHORIZED, "wrong").unwrap_err();
        assert_eq!(why, "the answer's field `x-secret` is not as expected");
        let why = judge(StatusCode::OK, "right").unwrap_err();
        assert_eq!(why, "the answer has status 200, and 401 is expected");
    }
}
