//! The mock's services: a store, scripted answers to HTTP calls, and a record of lines and figures.

use std::collections::VecDeque;

use super::{Figure, Kind, with};
use crate::phase::{Phase, Refusal};
use crate::services::http::{Call, CallError, CallResponse};
use crate::services::log::Level;
use crate::services::store::StoreError;

// --- Log, clock, random, environment ---

pub(crate) fn log_enabled(_: Level) -> bool {
    true
}

pub(crate) fn log_write(level: Level, message: &str) {
    let end = message.floor_char_boundary(4 * 1024);
    let message = message.get(..end).unwrap_or(message).to_owned();
    with(|host| host.lines.push((level, message)));
}

pub(crate) fn monotonic() -> u64 {
    with(|host| host.monotonic)
}

pub(crate) fn wall() -> u64 {
    with(|host| host.wall)
}

pub(crate) fn random_bytes(length: u32) -> Vec<u8> {
    let bytes = (0..length.min(4096)).map(|_| random_number().to_be_bytes());
    bytes.map(|[first, ..]| first).collect()
}

/// The same numbers in every run.
pub(crate) fn random_number() -> u64 {
    with(|host| {
        host.random = host.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (host.random ^ (host.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 31)
    })
}

pub(crate) fn env_get(name: &str) -> Option<String> {
    with(|host| host.env.get(name).cloned())
}

// --- Store ---

fn check(namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
    if with(|host| host.refused.iter().any(|refused| refused == namespace)) {
        return Err(StoreError::NotGranted);
    }
    if with(|host| host.store_down) {
        return Err(StoreError::Unavailable);
    }
    if key.len() > 512 || value.len() > 64 * 1024 {
        return Err(StoreError::TooLarge);
    }
    Ok(())
}

fn key_of(namespace: &str, key: &str) -> (String, String) {
    (namespace.to_owned(), key.to_owned())
}

/// When a value that is set now expires.
fn expiry(ttl_ms: u64) -> u64 {
    match ttl_ms {
        0 => u64::MAX,
        _ => monotonic().saturating_add(ttl_ms.saturating_mul(1_000_000)),
    }
}

/// A value and when it expires, if it has not.
fn held(namespace: &str, key: &str) -> Option<(Vec<u8>, u64)> {
    with(|host| {
        let held = host.store.get(&key_of(namespace, key))?;
        (held.1 > host.monotonic).then(|| held.clone())
    })
}

fn put(namespace: &str, key: &str, value: Vec<u8>, expires: u64) {
    with(|host| host.store.insert(key_of(namespace, key), (value, expires)));
}

pub(crate) fn store_get(namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    check(namespace, key, &[])?;
    Ok(held(namespace, key).map(|(value, _)| value))
}

pub(crate) fn store_set(
    namespace: &str,
    key: &str,
    value: &[u8],
    ttl_ms: u64,
) -> Result<(), StoreError> {
    check(namespace, key, value)?;
    put(namespace, key, value.to_vec(), expiry(ttl_ms));
    Ok(())
}

pub(crate) fn store_delete(namespace: &str, key: &str) -> Result<bool, StoreError> {
    let held = store_get(namespace, key)?.is_some();
    with(|host| host.store.remove(&key_of(namespace, key)));
    Ok(held)
}

pub(crate) fn store_swap(
    namespace: &str,
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
    ttl_ms: u64,
) -> Result<bool, StoreError> {
    check(namespace, key, value)?;
    if store_get(namespace, key)?.as_deref() != expected {
        return Ok(false);
    }
    store_set(namespace, key, value, ttl_ms).map(|()| true)
}

pub(crate) fn store_increment(
    namespace: &str,
    key: &str,
    delta: i64,
    ttl_ms: u64,
) -> Result<i64, StoreError> {
    check(namespace, key, &[])?;
    let (number, expires) = match held(namespace, key) {
        None => (0, expiry(ttl_ms)),
        Some((value, expires)) => {
            let text = std::str::from_utf8(&value).map_err(|_| StoreError::NotANumber)?;
            (text.parse().map_err(|_| StoreError::NotANumber)?, expires)
        }
    };
    let sum = delta.checked_add(number).ok_or(StoreError::NotANumber)?;
    put(namespace, key, sum.to_string().into_bytes(), expires);
    Ok(sum)
}

// --- HTTP calls ---

pub(crate) fn call(upstream: &str, call: &Call) -> Result<CallResponse, CallError> {
    with(|host| {
        if matches!(host.exchange.phase, None | Some(Phase::Log)) {
            return Err(CallError::NotNow);
        }
        let Some(replies) = host.replies.get_mut(upstream) else {
            return Err(CallError::NotGranted);
        };
        if !call.path.starts_with('/') || !super::fields::is_token(&call.method) {
            return Err(CallError::InvalidRequest);
        }
        host.calls.push((upstream.to_owned(), call.clone()));
        let response = VecDeque::pop_front(replies).unwrap_or(Err(CallError::Unreachable))?;
        let most = if call.max_response == 0 {
            1024 * 1024
        } else {
            call.max_response as usize
        };
        if response.body.len() > most {
            return Err(CallError::ResponseTooLarge);
        }
        Ok(response)
    })
}

// --- Metrics ---

pub(crate) fn define_counter(name: &str, _: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    define(Kind::Counter, name, labels)
}

pub(crate) fn define_gauge(name: &str, _: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    define(Kind::Gauge, name, labels)
}

pub(crate) fn define_histogram(
    name: &str,
    _: &str,
    labels: &[(&str, &str)],
    bounds: &[f64],
) -> Result<u32, Refusal> {
    let grows = bounds
        .windows(2)
        .all(|pair| matches!(pair, [low, high] if low < high));
    if !grows || !bounds.iter().all(|bound| bound.is_finite()) {
        return Err(Refusal::InvalidValue);
    }
    define(Kind::Histogram, name, labels)
}

fn define(kind: Kind, name: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    let valid = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    with(|host| {
        if host.exchange.phase.is_some() {
            return Err(Refusal::TooLate);
        }
        if !valid(name) || !labels.iter().all(|(label, _)| valid(label)) {
            return Err(Refusal::InvalidName);
        }
        if labels
            .iter()
            .any(|(label, _)| matches!(*label, "filter" | "le"))
        {
            return Err(Refusal::Forbidden);
        }
        if host
            .figures
            .iter()
            .any(|known| known.name == name && known.kind != kind)
        {
            return Err(Refusal::InvalidName);
        }
        if host.figures.len() == 100 {
            return Err(Refusal::TooLarge);
        }
        let number = u32::try_from(host.figures.len()).map_err(|_| Refusal::TooLarge)?;
        let labels = labels
            .iter()
            .map(|(label, value)| format!(",{label}={value}"))
            .collect();
        host.figures.push(Figure {
            kind,
            name: name.to_owned(),
            labels,
            value: 0.0,
        });
        Ok(number)
    })
}

fn change(kind: Kind, metric: u32, change: impl FnOnce(&mut f64)) {
    with(|host| {
        if let Some(figure) = host.figures.get_mut(metric as usize)
            && figure.kind == kind
        {
            change(&mut figure.value);
        }
    });
}

#[expect(clippy::cast_precision_loss, reason = "a test counts less than 2^53")]
pub(crate) fn metric_add(metric: u32, delta: u64) {
    change(Kind::Counter, metric, |value| *value += delta as f64);
}

pub(crate) fn metric_set(metric: u32, new: f64) {
    change(Kind::Gauge, metric, |value| *value = new);
}

pub(crate) fn metric_observe(metric: u32, seen: f64) {
    change(Kind::Histogram, metric, |value| *value += seen);
}
