//! The real host, through the generated bindings. Translates names and nothing else.

use super::Part;
use crate::bindings::tidegate::filter as wit;
use crate::phase::Refusal;
use crate::services::http::{Call, CallError, CallResponse};
use crate::services::limiter::{
    Bucket, Demand, Entry, Level as BucketLevel, LimiterError, Place, Verdict,
};
use crate::services::log::Level;
use crate::services::store::StoreError;
use crate::views::{CertificateFacts, TlsFacts};

fn part(part: Part) -> wit::exchange::Part {
    match part {
        Part::Request => wit::exchange::Part::Request,
        Part::RequestTrailers => wit::exchange::Part::RequestTrailers,
        Part::Response => wit::exchange::Part::Response,
        Part::ResponseTrailers => wit::exchange::Part::ResponseTrailers,
    }
}

fn refusal(refusal: wit::types::Refusal) -> Refusal {
    match refusal {
        wit::types::Refusal::InvalidName => Refusal::InvalidName,
        wit::types::Refusal::InvalidValue => Refusal::InvalidValue,
        wit::types::Refusal::Forbidden => Refusal::Forbidden,
        wit::types::Refusal::TooLate => Refusal::TooLate,
        wit::types::Refusal::TooLarge => Refusal::TooLarge,
        wit::types::Refusal::Absent => Refusal::Absent,
    }
}

pub(crate) fn get(of: Part, name: &str) -> Option<Vec<u8>> {
    wit::exchange::get(part(of), name)
}

pub(crate) fn get_all(of: Part, name: &str) -> Vec<Vec<u8>> {
    wit::exchange::get_all(part(of), name)
}

pub(crate) fn count(of: Part) -> u32 {
    wit::exchange::count(part(of))
}

pub(crate) fn at(of: Part, index: u32) -> Option<(String, Vec<u8>)> {
    wit::exchange::at(part(of), index)
}

pub(crate) fn set(of: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    wit::exchange::set(part(of), name, value).map_err(refusal)
}

pub(crate) fn append(of: Part, name: &str, value: &[u8]) -> Result<(), Refusal> {
    wit::exchange::append(part(of), name, value).map_err(refusal)
}

pub(crate) fn remove(of: Part, name: &str) -> Result<u32, Refusal> {
    wit::exchange::remove(part(of), name).map_err(refusal)
}

macro_rules! read {
    ($($name:ident -> $ty:ty),* $(,)?) => {
        $(pub(crate) fn $name() -> $ty { wit::exchange::$name() })*
    };
}

read! {
    method -> String,
    scheme -> String,
    authority -> String,
    path -> String,
    query -> Option<String>,
    status -> u16,
    client_address -> String,
    client_port -> u16,
    protocol -> String,
    route -> String,
    request_id -> String,
    elapsed -> u64,
}

macro_rules! write {
    ($($name:ident($ty:ty)),* $(,)?) => {
        $(pub(crate) fn $name(value: $ty) -> Result<(), Refusal> { wit::exchange::$name(value).map_err(refusal) })*
    };
}

write! {
    set_method(&str),
    set_scheme(&str),
    set_authority(&str),
    set_path(&str),
    set_query(Option<&str>),
    set_status(u16),
}

pub(crate) fn tls() -> Option<TlsFacts> {
    wit::exchange::tls().map(|facts| TlsFacts {
        version: facts.version,
        cipher: facts.cipher,
        server_name: facts.server_name,
        alpn: facts.alpn,
    })
}

pub(crate) fn client_certificate() -> Option<CertificateFacts> {
    wit::exchange::client_certificate().map(|facts| CertificateFacts {
        subject: facts.subject,
        issuer: facts.issuer,
        serial: facts.serial,
        not_before: facts.not_before,
        not_after: facts.not_after,
        sha256: facts.sha256,
        dns_names: facts.dns_names,
        uris: facts.uris,
        emails: facts.emails,
        ip_addresses: facts.ip_addresses,
    })
}

pub(crate) fn delay(milliseconds: u32) -> Result<(), Refusal> {
    wit::exchange::delay(milliseconds).map_err(refusal)
}

pub(crate) fn path_parameter(name: &str) -> Option<String> {
    wit::exchange::path_parameter(name)
}

pub(crate) fn property(name: &str) -> Option<Vec<u8>> {
    wit::exchange::property(name)
}

pub(crate) fn set_property(name: &str, value: &[u8]) -> Result<(), Refusal> {
    wit::exchange::set_property(name, value).map_err(refusal)
}

pub(crate) fn answer(
    status: u16,
    fields: &[(String, Vec<u8>)],
    body: &[u8],
) -> Result<(), Refusal> {
    let fields: Vec<_> = fields.iter().collect();
    wit::exchange::answer(status, &fields, body).map_err(refusal)
}

pub(crate) fn body_read(offset: u32, max: u32) -> Vec<u8> {
    wit::body::read(offset, max)
}

pub(crate) fn body_replace(bytes: &[u8]) {
    wit::body::replace(bytes);
}

pub(crate) fn body_append(bytes: &[u8]) {
    wit::body::append(bytes);
}

fn level(level: Level) -> wit::log::Level {
    match level {
        Level::Error => wit::log::Level::Error,
        Level::Warn => wit::log::Level::Warn,
        Level::Info => wit::log::Level::Info,
        Level::Debug => wit::log::Level::Debug,
        Level::Trace => wit::log::Level::Trace,
    }
}

pub(crate) fn log_enabled(of: Level) -> bool {
    wit::log::enabled(level(of))
}

pub(crate) fn log_write(of: Level, message: &str) {
    wit::log::write(level(of), message);
}

pub(crate) fn monotonic() -> u64 {
    wit::clock::monotonic()
}

pub(crate) fn wall() -> u64 {
    wit::clock::wall()
}

pub(crate) fn random_bytes(length: u32) -> Vec<u8> {
    wit::random::bytes(length)
}

pub(crate) fn random_number() -> u64 {
    wit::random::number()
}

fn store_error(error: wit::store::StoreError) -> StoreError {
    match error {
        wit::store::StoreError::NotGranted => StoreError::NotGranted,
        wit::store::StoreError::TooLarge => StoreError::TooLarge,
        wit::store::StoreError::NotANumber => StoreError::NotANumber,
        wit::store::StoreError::Unavailable => StoreError::Unavailable,
    }
}

pub(crate) fn store_get(namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    wit::store::get(namespace, key).map_err(store_error)
}

pub(crate) fn store_set(
    namespace: &str,
    key: &str,
    value: &[u8],
    ttl_ms: u64,
) -> Result<(), StoreError> {
    wit::store::set(namespace, key, value, ttl_ms).map_err(store_error)
}

pub(crate) fn store_delete(namespace: &str, key: &str) -> Result<bool, StoreError> {
    wit::store::delete(namespace, key).map_err(store_error)
}

pub(crate) fn store_swap(
    namespace: &str,
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
    ttl_ms: u64,
) -> Result<bool, StoreError> {
    wit::store::compare_and_swap(namespace, key, expected, value, ttl_ms).map_err(store_error)
}

pub(crate) fn store_increment(
    namespace: &str,
    key: &str,
    delta: i64,
    ttl_ms: u64,
) -> Result<i64, StoreError> {
    wit::store::increment(namespace, key, delta, ttl_ms).map_err(store_error)
}

pub(crate) fn limiter_take(key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
    let verdict = wit::limiter::take(key, tokens, rate, burst);
    Verdict {
        allowed: verdict.allowed,
        remaining: verdict.remaining,
        retry_after_ns: verdict.retry_after_ns,
        reset_after_ns: verdict.reset_after_ns,
    }
}

fn place(place: Place) -> wit::limiter::Place {
    match place {
        Place::Local => wit::limiter::Place::Local,
        Place::Shared => wit::limiter::Place::Shared,
    }
}

fn bucket(bucket: &Bucket) -> wit::limiter::Bucket {
    wit::limiter::Bucket {
        capacity: bucket.capacity,
        refill: bucket.refill,
        period_ms: bucket.period_ms,
        full_at_ms: bucket.full_at_ms,
    }
}

fn demand<'a>(of: &Demand<'a>) -> wit::limiter::Demand<'a> {
    wit::limiter::Demand {
        key: of.key,
        tokens: of.tokens,
        bucket: bucket(of.bucket),
    }
}

fn bucket_level(level: wit::limiter::Level) -> BucketLevel {
    BucketLevel {
        allowed: level.allowed,
        remaining: level.remaining,
        retry_after_ns: level.retry_after_ns,
        reset_after_ns: level.reset_after_ns,
    }
}

fn limiter_error(error: wit::limiter::LimiterError) -> LimiterError {
    match error {
        wit::limiter::LimiterError::TooLarge => LimiterError::TooLarge,
        wit::limiter::LimiterError::Invalid => LimiterError::Invalid,
        wit::limiter::LimiterError::Unavailable => LimiterError::Unavailable,
        wit::limiter::LimiterError::NotNow => LimiterError::NotNow,
    }
}

pub(crate) fn limiter_try_take(of: &Demand<'_>) -> Result<BucketLevel, LimiterError> {
    wit::limiter::try_take(place(of.bucket.place), of.key, of.tokens, bucket(of.bucket))
        .map(bucket_level)
        .map_err(limiter_error)
}

pub(crate) fn limiter_peek(of: &Demand<'_>) -> Result<BucketLevel, LimiterError> {
    wit::limiter::peek(place(of.bucket.place), of.key, of.tokens, bucket(of.bucket))
        .map(bucket_level)
        .map_err(limiter_error)
}

pub(crate) fn limiter_take_all(
    at: Place,
    demands: &[Demand<'_>],
) -> Result<Vec<BucketLevel>, LimiterError> {
    let demands: Vec<_> = demands.iter().map(demand).collect();
    let levels = wit::limiter::take_all(place(at), &demands).map_err(limiter_error)?;
    Ok(levels.into_iter().map(bucket_level).collect())
}

pub(crate) fn limiter_charge(
    of: &Bucket,
    key: &str,
    tokens: i64,
) -> Result<BucketLevel, LimiterError> {
    wit::limiter::charge(place(of.place), key, tokens, bucket(of))
        .map(bucket_level)
        .map_err(limiter_error)
}

pub(crate) fn limiter_enter(at: Place, key: &str, limit: u32) -> Result<Entry, LimiterError> {
    wit::limiter::enter(place(at), key, limit)
        .map(|entry| Entry {
            allowed: entry.allowed,
            in_flight: entry.in_flight,
        })
        .map_err(limiter_error)
}

pub(crate) fn call(upstream: &str, call: &Call) -> Result<CallResponse, CallError> {
    let fields: Vec<_> = call.fields.iter().collect();
    let request = wit::http_client::CallRequest {
        method: &call.method,
        path: &call.path,
        fields: &fields,
        body: &call.body,
        timeout_ms: call.timeout_ms,
        max_response_bytes: call.max_response,
    };
    wit::http_client::call(upstream, request)
        .map(|response| CallResponse {
            status: response.status,
            fields: response.fields,
            body: response.body,
        })
        .map_err(|error| match error {
            wit::http_client::CallError::NotGranted => CallError::NotGranted,
            wit::http_client::CallError::InvalidRequest => CallError::InvalidRequest,
            wit::http_client::CallError::Unreachable => CallError::Unreachable,
            wit::http_client::CallError::TimedOut => CallError::TimedOut,
            wit::http_client::CallError::ResponseTooLarge => CallError::ResponseTooLarge,
            wit::http_client::CallError::Broken => CallError::Broken,
            wit::http_client::CallError::NotNow => CallError::NotNow,
        })
}

pub(crate) fn env_get(name: &str) -> Option<String> {
    wit::environment::get(name)
}

pub(crate) fn define_counter(
    name: &str,
    help: &str,
    with: &[(&str, &str)],
) -> Result<u32, Refusal> {
    wit::metrics::counter(name, help, with).map_err(refusal)
}

pub(crate) fn define_gauge(name: &str, help: &str, with: &[(&str, &str)]) -> Result<u32, Refusal> {
    wit::metrics::gauge(name, help, with).map_err(refusal)
}

pub(crate) fn define_histogram(
    name: &str,
    help: &str,
    with: &[(&str, &str)],
    bounds: &[f64],
) -> Result<u32, Refusal> {
    wit::metrics::histogram(name, help, with, bounds).map_err(refusal)
}

pub(crate) fn metric_add(metric: u32, delta: u64) {
    wit::metrics::add(metric, delta);
}

pub(crate) fn metric_set(metric: u32, value: f64) {
    wit::metrics::set(metric, value);
}

pub(crate) fn metric_observe(metric: u32, value: f64) {
    wit::metrics::observe(metric, value);
}
