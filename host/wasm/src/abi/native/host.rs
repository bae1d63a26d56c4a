//! What every host function of the contract does, once for both carriers: plain functions over the state of an
//! instance and the current exchange. Knows no guest's memory and no component types.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use sha2::{Digest, Sha256};
use tidegate_core::certificate::CertificateFacts;
use tidegate_core::error::{Limit, Overrun};
use tidegate_core::exchange::{Exchange, Part, Refusal};
use tidegate_core::fields;
use tidegate_core::limiter::{
    self, Bucket, Demand, Entry, LimiterError, MAX_DEMANDS, MAX_LIMITER_KEY, Place, Verdict,
};
use tidegate_core::phase::Phase;
use tidegate_core::services::{
    CallError, CallFuture, Level, MAX_STORE_KEY, MAX_STORE_VALUE, StoreError,
};

use super::figures::cut;
use super::state::{Facts, Line, State};
use crate::fault::Over;
use crate::time::Next;

/// The longest line that a guest may log, in bytes.
pub(super) const MAX_LINE: u32 = 4 * 1024;
/// The most random bytes of one call.
const MAX_RANDOM: u32 = 4096;
/// The time of an HTTP call unless the guest says otherwise, and the longest that it may say.
const CALL_TIME: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// The longest answer of an HTTP call, in bytes.
const MAX_RESPONSE: u32 = 1024 * 1024;

// --- The exchange ---

/// All values of a field. `host` of a request is its authority.
pub(super) fn values<'a>(
    exchange: &'a Exchange,
    part: Part,
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    let authority = (part == Part::Request && name.eq_ignore_ascii_case("host"))
        .then(|| exchange.get(part, name))
        .flatten();
    let fields = exchange
        .fields(part)
        .and_then(|fields| fields::find_all(fields, name));
    authority
        .into_iter()
        .chain(fields.into_iter().flatten().map(|value| value.as_bytes()))
}

/// How many fields a part has.
pub(super) fn count(exchange: &Exchange, part: Part) -> u32 {
    exchange
        .fields(part)
        .map_or(0, |fields| u32::try_from(fields.len()).unwrap_or(u32::MAX))
}

/// Every field of a part, fields of one name together.
pub(super) fn all(exchange: &Exchange, part: Part) -> impl Iterator<Item = (&str, &[u8])> {
    exchange
        .fields(part)
        .into_iter()
        .flat_map(HeaderMap::iter)
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

pub(super) fn authority(exchange: &Exchange) -> &str {
    exchange
        .request
        .authority
        .as_ref()
        .map_or("", |authority| authority.as_str())
}

pub(super) fn status(exchange: &Exchange) -> u16 {
    exchange
        .response
        .as_ref()
        .map_or(0, |response| response.status.as_u16())
}

pub(super) fn protocol(exchange: &Exchange) -> &'static str {
    match exchange.request.version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 | Version::HTTP_09 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

pub(super) fn request_id(exchange: &Exchange) -> &str {
    exchange.request_id.to_str().unwrap_or_default()
}

/// What the client's certificate says.
pub(super) fn client_certificate(exchange: &Exchange) -> Option<&CertificateFacts> {
    let tls = exchange.client.tls.as_ref()?;
    tls.client_certificate.as_ref()?.facts()
}

// --- The chunk ---

fn has_chunk(exchange: &Exchange) -> bool {
    matches!(
        exchange.stage.phase,
        Phase::RequestBody | Phase::ResponseBody
    )
}

/// How many bytes a read of the chunk gives.
pub(super) fn readable(exchange: &Exchange, offset: u32, max: u32) -> u32 {
    if has_chunk(exchange) {
        u32::try_from(exchange.chunk.read(offset, max).len()).unwrap_or(u32::MAX)
    } else {
        0
    }
}

impl State {
    /// Puts bytes in place of the chunk, or behind it. Outside of a body's phase there is no chunk to change. What a
    /// guest makes of a chunk is bounded as what is collected for it is.
    pub(super) fn change_chunk(&self, bytes: &[u8], append: bool) -> wasmtime::Result<()> {
        let bound = u64::from(self.facts.limits.body);
        self.change(|exchange| {
            if !has_chunk(exchange) {
                return Ok(Ok(()));
            }
            let before = if append { exchange.chunk.len() } else { 0 };
            let after = before.saturating_add(bytes.len()) as u64;
            if after > bound && !bytes.is_empty() {
                return Ok(Err(too_long(bound, after)));
            }
            if append {
                exchange.chunk.append(bytes);
            } else {
                exchange.chunk.replace(bytes);
            }
            Ok(Ok(()))
        })
        .unwrap_or(Ok(()))
    }

    /// Whether a body that a guest made is within its bound. The bytes are not copied before that is known.
    pub(super) fn fits(&self, body: &[u8]) -> Result<(), Refusal> {
        let (bound, length) = (u64::from(self.facts.limits.body), body.len() as u64);
        if length > bound {
            self.refused(Limit::Body, bound, length);
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    /// Has the exchange wait when the callback has ended.
    pub(super) fn delay(&self, milliseconds: u32) -> Result<(), Refusal> {
        let phase = self.phase;
        self.change(|exchange| exchange.pace.delay(phase, milliseconds))
    }

    // --- Log, clock, random, environment ---

    pub(super) fn log_enabled(&self, level: Level) -> bool {
        self.facts.services.log.enabled(level)
    }

    pub(super) fn log_write(&self, level: Level, message: &str) {
        if !self.log_enabled(level) {
            return;
        }
        match self.facts.take_line() {
            Line::Written { suppressed } => {
                if suppressed > 0 {
                    self.log(Level::Warn, &format!("{suppressed} lines were suppressed"));
                }
                self.log(level, cut(message, MAX_LINE as usize));
            }
            Line::Suppressed { first } => {
                let bound = u64::from(self.facts.limits.log_rate);
                if first {
                    self.refused(Limit::LogRate, bound, bound + 1);
                } else {
                    self.facts.meter.over(Limit::LogRate);
                }
            }
        }
    }

    pub(super) fn monotonic(&self) -> u64 {
        self.facts.services.clock.monotonic()
    }

    pub(super) fn wall(&self) -> u64 {
        self.facts.services.clock.wall()
    }

    pub(super) fn environment(&self, name: &str) -> Option<&str> {
        self.facts.allow.env.get(name)?.as_deref()
    }

    // --- Store ---

    fn namespace(&self, namespace: &str, key: &str, value: usize) -> Result<(), StoreRefusal> {
        if !self.granted("store", &self.facts.allow.store, namespace) {
            return Err(StoreRefusal::NotGranted);
        }
        if key.len() > MAX_STORE_KEY || value > MAX_STORE_VALUE {
            return Err(StoreRefusal::TooLarge);
        }
        Ok(())
    }

    pub(super) fn store_get(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<Bytes>, StoreRefusal> {
        self.namespace(namespace, key, 0)?;
        Ok(self.facts.services.store.get(namespace, key)?)
    }

    pub(super) fn store_set(
        &self,
        namespace: &str,
        key: &str,
        value: &[u8],
        ttl: u64,
    ) -> Result<(), StoreRefusal> {
        self.namespace(namespace, key, value.len())?;
        let value = Bytes::copy_from_slice(value);
        let store = &self.facts.services.store;
        Ok(store.set(namespace, key, value, time_to_live(ttl))?)
    }

    pub(super) fn store_delete(&self, namespace: &str, key: &str) -> Result<bool, StoreRefusal> {
        self.namespace(namespace, key, 0)?;
        Ok(self.facts.services.store.delete(namespace, key)?)
    }

    pub(super) fn store_swap(
        &self,
        namespace: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl: u64,
    ) -> Result<bool, StoreRefusal> {
        self.namespace(namespace, key, value.len())?;
        let value = Bytes::copy_from_slice(value);
        let store = &self.facts.services.store;
        Ok(store.compare_and_swap(namespace, key, expected, value, time_to_live(ttl))?)
    }

    pub(super) fn store_increment(
        &self,
        namespace: &str,
        key: &str,
        delta: i64,
        ttl: u64,
    ) -> Result<i64, StoreRefusal> {
        self.namespace(namespace, key, 0)?;
        let store = &self.facts.services.store;
        Ok(store.increment(namespace, key, delta, time_to_live(ttl))?)
    }

    // --- Limiter ---

    /// Takes from the bucket of a key. A key that is too long to be kept stands for itself by its digest.
    pub(super) fn limiter_take(&self, key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
        let limiter = &self.facts.services.limiter;
        let space = &self.facts.name;
        if key.len() <= MAX_LIMITER_KEY {
            limiter.take(space, key, tokens, rate, burst)
        } else {
            let digest = crate::hex(&Sha256::digest(key.as_bytes()));
            limiter.take(space, &digest, tokens, rate, burst)
        }
    }

    /// Takes from a bucket if the tokens are there, or says what would be.
    pub(super) fn limiter_try(
        &self,
        place: Place,
        demand: &Demand<'_>,
        take: bool,
    ) -> Result<limiter::Level, LimiterError> {
        demand.check()?;
        self.may_wait_for(place)?;
        let limiter = &self.facts.services.limiter;
        if take {
            limiter.try_take(place, &self.facts.name, demand)
        } else {
            limiter.peek(place, &self.facts.name, demand)
        }
    }

    pub(super) fn limiter_take_all(
        &self,
        place: Place,
        demands: &[Demand<'_>],
    ) -> Result<Vec<limiter::Level>, LimiterError> {
        if demands.len() > MAX_DEMANDS {
            return Err(LimiterError::TooLarge);
        }
        for demand in demands {
            demand.check()?;
        }
        self.may_wait_for(place)?;
        let limiter = &self.facts.services.limiter;
        limiter.take_all(place, &self.facts.name, demands)
    }

    pub(super) fn limiter_charge(
        &self,
        place: Place,
        key: &str,
        tokens: i64,
        bucket: Bucket,
    ) -> Result<limiter::Level, LimiterError> {
        let demand = Demand {
            key,
            tokens: 0,
            bucket,
        };
        demand.check()?;
        let limiter = &self.facts.services.limiter;
        limiter.charge(place, &self.facts.name, key, tokens, &bucket)
    }

    /// Whether something may be asked of a place that may have to be waited for. The answer is the same whether it has to
    /// be or not, so that a filter works alike wherever it runs.
    fn may_wait_for(&self, place: Place) -> Result<(), LimiterError> {
        if place == Place::Shared && matches!(self.phase, Phase::Configure | Phase::Log) {
            return Err(LimiterError::NotNow);
        }
        Ok(())
    }

    /// Counts the exchange as in flight until it ends.
    pub(super) fn limiter_enter(
        &self,
        place: Place,
        key: &str,
        limit: u32,
    ) -> Result<Entry, LimiterError> {
        if let Some(entry) = self.limiter_entered(place, key)? {
            return Ok(entry);
        }
        let limiter = &self.facts.services.limiter;
        let (entry, permit) = limiter.enter(place, &self.facts.name, key, limit);
        if let (Some(permit), Some(exchange)) = (permit, self.exchange()) {
            let mut exchange = exchange.borrow_mut();
            exchange
                .pace
                .keep(place, &self.facts.name, key, entry, permit);
        }
        Ok(entry)
    }

    /// What was said when the exchange entered under a key before, if it did.
    fn limiter_entered(&self, place: Place, key: &str) -> Result<Option<Entry>, LimiterError> {
        if key.len() > MAX_LIMITER_KEY {
            return Err(LimiterError::TooLarge);
        }
        let of_request = matches!(
            self.phase,
            Phase::RequestHead | Phase::RequestBody | Phase::RequestTrailers
        );
        let exchange = self.exchange().filter(|_| of_request);
        let exchange = exchange.ok_or(LimiterError::NotNow)?.borrow();
        exchange.pace.entered(place, &self.facts.name, key)
    }

    // --- HTTP calls ---

    /// Checks a call and begins it. The guest's time stands still until [`State::woke`].
    pub(super) fn begin_call<'a>(
        &mut self,
        call: Call<'_>,
        call_fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<CallFuture, CallRefusal> {
        if matches!(self.phase, Phase::Configure | Phase::Log) {
            return Err(CallRefusal::NotNow);
        }
        if !self.granted("http", &self.facts.allow.http, call.upstream) {
            return Err(CallRefusal::NotGranted);
        }
        if self.local.http.is_none() {
            return Err(CallRefusal::NotNow);
        }
        if call.body.len() > self.facts.limits.body as usize {
            let bound = u64::from(self.facts.limits.body);
            self.refused(Limit::Body, bound, call.body.len() as u64);
            return Err(CallRefusal::InvalidRequest);
        }
        let request = request(&call, call_fields).ok_or(CallRefusal::InvalidRequest)?;
        let timeout = match call.timeout_ms {
            0 => CALL_TIME.0,
            some => Duration::from_millis(u64::from(some)).min(CALL_TIME.1),
        };
        let max = match call.max_response {
            0 => MAX_RESPONSE,
            some => some.min(MAX_RESPONSE),
        };
        self.take_call()?;
        let client = self.local.http.as_ref().ok_or(CallRefusal::NotNow)?;
        let future = client.call(call.upstream, request, timeout, max as usize);
        let waiting = Waiting(Arc::clone(&self.facts));
        self.allowance.pause(self.now());
        Ok(Box::pin(async move {
            let outcome = future.await;
            drop(waiting);
            outcome
        }))
    }

    /// Counts a call that is about to be made.
    fn take_call(&mut self) -> Result<(), CallRefusal> {
        let limits = &self.facts.limits;
        let id = self.read(|exchange| exchange.id);
        let (last, count) = self.called;
        let count = if last == id { count } else { 0 };
        if count >= limits.calls {
            self.refused(Limit::Calls, u64::from(limits.calls), u64::from(count) + 1);
            return Err(CallRefusal::NotNow);
        }
        let waiting = self.facts.calls.fetch_add(1, Ordering::Relaxed);
        if waiting >= limits.calls_at_once {
            self.facts.calls.fetch_sub(1, Ordering::Relaxed);
            let bound = u64::from(limits.calls_at_once);
            self.refused(Limit::CallsAtOnce, bound, u64::from(waiting) + 1);
            return Err(CallRefusal::NotNow);
        }
        self.called = (id, count + 1);
        Ok(())
    }

    /// Lets the guest's time run on. A guest without any left is ended as one that ran for too long, so that it can't
    /// live from call to call.
    pub(super) fn woke(&mut self) -> wasmtime::Result<()> {
        let now = self.now();
        self.allowance.resume(now);
        match self.allowance.look(now) {
            Next::Ticks(_) => Ok(()),
            Next::Over(over) => Err(wasmtime::Error::new(Over(over))),
        }
    }
}

/// One of the calls that wait; counted until it is dropped.
struct Waiting(Arc<Facts>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cold]
fn too_long(bound: u64, value: u64) -> wasmtime::Error {
    wasmtime::Error::new(Over(Overrun {
        limit: Limit::Body,
        bound,
        value,
        trap: String::new(),
    }))
}

/// Random bytes, as many as asked for within the bound.
pub(super) fn random(length: u32) -> wasmtime::Result<Vec<u8>> {
    let mut bytes = vec![0; length.min(MAX_RANDOM) as usize];
    getrandom::fill(&mut bytes).map_err(|error| {
        wasmtime::Error::msg(format!("the machine has no random bytes: {error}"))
    })?;
    Ok(bytes)
}

/// A random number.
pub(super) fn random_number() -> wasmtime::Result<u64> {
    let bytes = random(8)?;
    Ok(u64::from_le_bytes(
        bytes.as_slice().try_into().unwrap_or_default(),
    ))
}

fn time_to_live(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

/// Why the store did nothing. In the contract's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreRefusal {
    NotGranted,
    TooLarge,
    NotANumber,
    Unavailable,
}

impl From<StoreError> for StoreRefusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge => StoreRefusal::TooLarge,
            StoreError::NotANumber => StoreRefusal::NotANumber,
            StoreError::Unavailable => StoreRefusal::Unavailable,
        }
    }
}

/// A guest's HTTP call, without its fields.
pub(super) struct Call<'a> {
    pub(super) upstream: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
    pub(super) timeout_ms: u32,
    pub(super) max_response: u32,
}

fn request<'a>(
    call: &Call<'_>,
    call_fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<Request<Bytes>> {
    let method = Method::from_bytes(call.method.as_bytes()).ok()?;
    if method == Method::CONNECT || !call.path.starts_with('/') || call.path.contains('#') {
        return None;
    }
    let mut request = Request::new(Bytes::copy_from_slice(call.body));
    *request.method_mut() = method;
    *request.uri_mut() = call
        .path
        .parse::<http::uri::PathAndQuery>()
        .ok()
        .map(http::Uri::from)?;
    for (name, value) in call_fields {
        let name = fields::name(name).ok()?;
        let value = fields::value(value).ok()?;
        if fields::is_hosts(name.as_str()) {
            return None;
        }
        fields::room(request.headers(), &name, &value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// Why an HTTP call failed. In the contract's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallRefusal {
    NotGranted,
    InvalidRequest,
    Unreachable,
    TimedOut,
    ResponseTooLarge,
    Broken,
    NotNow,
}

impl From<CallError> for CallRefusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable => CallRefusal::Unreachable,
            CallError::TimedOut => CallRefusal::TimedOut,
            CallError::ResponseTooLarge => CallRefusal::ResponseTooLarge,
            CallError::Broken => CallRefusal::Broken,
            CallError::InvalidRequest => CallRefusal::InvalidRequest,
        }
    }
}
