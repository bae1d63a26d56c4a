//! The mock's functions, one for each of the contract's.

use super::super::Part;
use super::super::services::{CallError, CallResponse, StoreError, Verdict};
use super::{Fields, check_value, is_hosts, is_token, with};
use crate::phase::{Phase, Refusal};
use crate::services::http::Call;
use crate::views::TlsFacts;

pub(crate) fn get(part: Part, name: &str) -> Option<Vec<u8>> {
    if part == Part::Request && name.eq_ignore_ascii_case("host") {
        return Some(authority().into_bytes());
    }
    get_all(part, name).into_iter().next()
}

pub(crate) fn get_all(part: Part, name: &str) -> Vec<Vec<u8>> {
    with(|host| {
        let fields = host.exchange.fields(part).into_iter().flatten();
        fields
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            .collect()
    })
}

pub(crate) fn count(part: Part) -> u32 {
    with(|host| {
        host.exchange
            .fields(part)
            .map_or(0, |fields| u32::try_from(fields.len()).unwrap_or(u32::MAX))
    })
}

pub(crate) fn at(part: Part, index: u32) -> Option<(String, Vec<u8>)> {
    with(|host| host.exchange.fields(part)?.get(index as usize).cloned())
}

pub(crate) fn set(part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let name = name.to_ascii_lowercase();
    with(|host| {
        let fields = host.exchange.changeable(part, &name)?;
        check_value(value)?;
        let at = fields.iter().position(|(known, _)| *known == name);
        fields.retain(|(known, _)| *known != name);
        let at = at.unwrap_or(fields.len()).min(fields.len());
        fields.insert(at, (name, value.to_vec()));
        Ok(())
    })
}

pub(crate) fn append(part: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let name = name.to_ascii_lowercase();
    with(|host| {
        let fields = host.exchange.changeable(part, &name)?;
        check_value(value)?;
        if fields.len() >= 256 {
            return Err(Refusal::TooLarge);
        }
        let at = fields
            .iter()
            .rposition(|(known, _)| *known == name)
            .map_or(fields.len(), |at| at + 1);
        fields.insert(at, (name, value.to_vec()));
        Ok(())
    })
}

pub(crate) fn remove(part: Part, name: &str) -> Result<u32, Refusal> {
    let name = name.to_ascii_lowercase();
    with(|host| {
        let fields = host.exchange.changeable(part, &name)?;
        let before = fields.len();
        fields.retain(|(known, _)| *known != name);
        Ok(u32::try_from(before - fields.len()).unwrap_or(u32::MAX))
    })
}

pub(crate) fn method() -> String {
    with(|host| host.exchange.method.clone())
}

pub(crate) fn scheme() -> String {
    with(|host| host.exchange.scheme.clone())
}

pub(crate) fn authority() -> String {
    with(|host| host.exchange.authority.clone())
}

pub(crate) fn path() -> String {
    with(|host| host.exchange.path.clone())
}

pub(crate) fn query() -> Option<String> {
    with(|host| host.exchange.query.clone())
}

fn line(
    valid: bool,
    fault: Refusal,
    change: impl FnOnce(&mut super::Exchange),
) -> Result<(), Refusal> {
    with(|host| {
        if !host.exchange.may_change(Part::Request) {
            return Err(Refusal::TooLate);
        }
        if !valid {
            return Err(fault);
        }
        change(&mut host.exchange);
        Ok(())
    })
}

pub(crate) fn set_method(method: &str) -> Result<(), Refusal> {
    line(
        is_token(method) && method != "CONNECT",
        Refusal::InvalidName,
        |exchange| method.clone_into(&mut exchange.method),
    )
}

pub(crate) fn set_scheme(scheme: &str) -> Result<(), Refusal> {
    line(
        matches!(scheme, "http" | "https"),
        Refusal::InvalidName,
        |exchange| scheme.clone_into(&mut exchange.scheme),
    )
}

pub(crate) fn set_authority(authority: &str) -> Result<(), Refusal> {
    let valid = !authority.is_empty()
        && authority
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"@/?#".contains(&byte));
    line(valid, Refusal::InvalidName, |exchange| {
        authority.clone_into(&mut exchange.authority)
    })
}

/// The mock takes a path as it is; the real host normalises it.
pub(crate) fn set_path(path: &str) -> Result<(), Refusal> {
    let valid = path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
    line(valid, Refusal::InvalidName, |exchange| {
        path.clone_into(&mut exchange.path)
    })
}

pub(crate) fn set_query(query: Option<&str>) -> Result<(), Refusal> {
    let valid = query.is_none_or(|query| {
        query
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    });
    line(valid, Refusal::InvalidValue, |exchange| {
        exchange.query = query.map(str::to_owned)
    })
}

pub(crate) fn status() -> u16 {
    with(|host| host.exchange.status)
}

pub(crate) fn set_status(status: u16) -> Result<(), Refusal> {
    with(|host| {
        if !host.exchange.may_change(Part::Response) {
            return Err(Refusal::TooLate);
        }
        if !(200..600).contains(&status) {
            return Err(Refusal::InvalidName);
        }
        host.exchange.status = status;
        Ok(())
    })
}

pub(crate) fn answer(
    status: u16,
    fields: &[(String, Vec<u8>)],
    body: &[u8],
) -> Result<(), Refusal> {
    with(|host| {
        let exchange = &mut host.exchange;
        let answerable = match exchange.phase {
            Some(
                Phase::RequestHead
                | Phase::RequestBody
                | Phase::RequestTrailers
                | Phase::ResponseHead,
            ) => true,
            Some(Phase::ResponseBody) => exchange.head_open,
            _ => false,
        };
        if !answerable {
            return Err(Refusal::TooLate);
        }
        if !(200..600).contains(&status) {
            return Err(Refusal::InvalidName);
        }
        let mut kept = Fields::new();
        for (name, value) in fields {
            let name = name.to_ascii_lowercase();
            if !is_token(&name) {
                return Err(Refusal::InvalidName);
            }
            if is_hosts(&name) {
                return Err(Refusal::Forbidden);
            }
            check_value(value)?;
            kept.push((name, value.clone()));
        }
        exchange.answer = Some((status, kept, body.to_vec()));
        Ok(())
    })
}

pub(crate) fn client_address() -> String {
    with(|host| host.exchange.client.clone())
}

pub(crate) fn client_port() -> u16 {
    40_000
}

pub(crate) fn protocol() -> String {
    "HTTP/1.1".to_owned()
}

pub(crate) fn tls() -> Option<TlsFacts> {
    with(|host| host.exchange.tls.clone())
}

pub(crate) fn route() -> String {
    with(|host| host.exchange.route.clone())
}

pub(crate) fn path_parameter(name: &str) -> Option<String> {
    with(|host| {
        host.exchange
            .parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    })
}

pub(crate) fn request_id() -> String {
    "0123456789abcdef".to_owned()
}

pub(crate) fn property(name: &str) -> Option<Vec<u8>> {
    with(|host| host.exchange.properties.get(name).cloned())
}

pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::InvalidName);
    }
    if name.len() > 64 || value.len() > 4096 {
        return Err(Refusal::TooLarge);
    }
    with(|host| {
        host.exchange
            .properties
            .insert(name.to_owned(), value.to_vec())
    });
    Ok(())
}

pub(crate) fn body_read(offset: u32, max: u32) -> Vec<u8> {
    with(|host| {
        host.exchange
            .piece
            .iter()
            .skip(offset as usize)
            .take(max as usize)
            .copied()
            .collect()
    })
}

pub(crate) fn body_replace(bytes: &[u8]) {
    with(|host| host.exchange.piece = bytes.to_vec());
}

pub(crate) fn body_append(bytes: &[u8]) {
    with(|host| host.exchange.piece.extend_from_slice(bytes));
}

pub(crate) fn log(_: u8, message: &str) {
    with(|host| host.lines.push(message.to_owned()));
}

pub(crate) fn monotonic() -> u64 {
    with(|host| host.monotonic)
}

pub(crate) fn wall() -> u64 {
    with(|host| host.wall)
}

pub(crate) fn random_bytes(length: u32) -> Vec<u8> {
    (0..length.min(4096))
        .map(|_| random_number().to_le_bytes()[0])
        .collect()
}

/// The same numbers in every run.
pub(crate) fn random_number() -> u64 {
    with(|host| {
        host.random = host
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        host.random ^ (host.random >> 33)
    })
}

pub(crate) fn store_get(namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    check_key(key)?;
    with(|host| {
        let now = host.monotonic;
        let held = host.store.get(&(namespace.to_owned(), key.to_owned()));
        Ok(held
            .filter(|(_, expires)| *expires > now)
            .map(|(value, _)| value.clone()))
    })
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.len() > 512 {
        Err(StoreError::TooLarge)
    } else {
        Ok(())
    }
}

fn expiry(now: u64, ttl_ms: u64) -> u64 {
    if ttl_ms == 0 {
        u64::MAX
    } else {
        now.saturating_add(ttl_ms.saturating_mul(1_000_000))
    }
}

pub(crate) fn store_set(
    namespace: &str,
    key: &str,
    value: &[u8],
    ttl_ms: u64,
) -> Result<(), StoreError> {
    check_key(key)?;
    if value.len() > 64 * 1024 {
        return Err(StoreError::TooLarge);
    }
    with(|host| {
        let expires = expiry(host.monotonic, ttl_ms);
        host.store.insert(
            (namespace.to_owned(), key.to_owned()),
            (value.to_vec(), expires),
        );
    });
    Ok(())
}

pub(crate) fn store_delete(namespace: &str, key: &str) -> Result<bool, StoreError> {
    let held = store_get(namespace, key)?.is_some();
    with(|host| host.store.remove(&(namespace.to_owned(), key.to_owned())));
    Ok(held)
}

pub(crate) fn store_swap(
    namespace: &str,
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
    ttl_ms: u64,
) -> Result<bool, StoreError> {
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
    let held = store_get(namespace, key)?;
    let number = match &held {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(StoreError::NotANumber)?,
    };
    let sum: i64 = delta.checked_add(number).ok_or(StoreError::NotANumber)?;
    with(|host| {
        let key = (namespace.to_owned(), key.to_owned());
        let now = host.monotonic;
        let expires = host
            .store
            .get(&key)
            .filter(|_| held.is_some())
            .map_or_else(|| expiry(now, ttl_ms), |(_, e)| *e);
        host.store
            .insert(key, (sum.to_string().into_bytes(), expires));
    });
    Ok(sum)
}

/// The generic cell rate algorithm, as the host has it: one number a bucket, the time at which it is full.
pub(crate) fn limiter_take(key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
    if !(rate.is_finite() && rate > 0.0) || burst == 0 || tokens > burst {
        return Verdict {
            retry_after_ns: u64::MAX,
            ..Verdict::default()
        };
    }
    with(|host| {
        let each = 1e9 / rate;
        let whole = each * f64::from(burst);
        let missing = host
            .buckets
            .get(key)
            .copied()
            .unwrap_or(0)
            .saturating_sub(host.monotonic) as f64;
        let after = missing + each * f64::from(tokens);
        if after <= whole + 0.5 {
            host.buckets
                .insert(key.to_owned(), host.monotonic + after.round() as u64);
            Verdict {
                allowed: true,
                remaining: ((whole - after) / each + 1e-6) as u32,
                retry_after_ns: 0,
                reset_after_ns: after.round() as u64,
            }
        } else {
            Verdict {
                allowed: false,
                remaining: ((whole - missing) / each + 1e-6) as u32,
                retry_after_ns: (after - whole).round().max(1.0) as u64,
                reset_after_ns: missing.round() as u64,
            }
        }
    })
}

pub(crate) fn call(upstream: &str, call: &Call) -> Result<CallResponse, CallError> {
    with(|host| {
        if matches!(host.exchange.phase, None | Some(Phase::Log)) {
            return Err(CallError::NotNow);
        }
        host.calls
            .push((upstream.to_owned(), call.method.clone(), call.path.clone()));
        let limit = match call.max_response {
            0 => 1024 * 1024,
            limit => limit as usize,
        };
        host.replies
            .get_mut(upstream)
            .and_then(std::collections::VecDeque::pop_front)
            .unwrap_or(Err(CallError::NotGranted))
            .and_then(|reply| {
                if reply.body.len() > limit {
                    Err(CallError::ResponseTooLarge)
                } else {
                    Ok(reply)
                }
            })
    })
}

pub(crate) fn env_get(name: &str) -> Option<String> {
    with(|host| host.env.get(name).cloned())
}

fn define(name: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    let valid = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !valid(name) || !labels.iter().all(|(label, _)| valid(label)) {
        return Err(Refusal::InvalidName);
    }
    with(|host| {
        if host.exchange.phase.is_some() {
            return Err(Refusal::TooLate);
        }
        let name = labels.iter().fold(name.to_owned(), |name, (label, value)| {
            format!("{name},{label}={value}")
        });
        host.metrics.push((name, 0.0));
        Ok(u32::try_from(host.metrics.len() - 1).unwrap_or(u32::MAX))
    })
}

pub(crate) fn define_counter(name: &str, _: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    define(name, labels)
}

pub(crate) fn define_gauge(name: &str, _: &str, labels: &[(&str, &str)]) -> Result<u32, Refusal> {
    define(name, labels)
}

pub(crate) fn define_histogram(
    name: &str,
    _: &str,
    labels: &[(&str, &str)],
    _: &[f64],
) -> Result<u32, Refusal> {
    define(name, labels)
}

fn metric(metric: u32, change: impl FnOnce(&mut f64)) {
    with(|host| {
        if let Some((_, value)) = host.metrics.get_mut(metric as usize) {
            change(value);
        }
    });
}

pub(crate) fn metric_add(id: u32, delta: u64) {
    metric(id, |value| *value += delta as f64);
}

pub(crate) fn metric_set(id: u32, new: f64) {
    metric(id, |value| *value = new);
}

pub(crate) fn metric_observe(id: u32, seen: f64) {
    metric(id, |value| *value += seen);
}
