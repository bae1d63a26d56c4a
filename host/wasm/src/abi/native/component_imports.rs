//! The contract's imports for the component runtime, each a translation to the functions of `host`.

use tidegate_core::exchange::{Part, Refusal};
use tidegate_core::limiter::{Bucket, Demand, Level, LimiterError, Place};
use tidegate_core::services::Level as LogLevel;

use super::component::bindings::tidegate::filter::{
    body, clock, environment, exchange, limiter, log, metrics, random, store, types,
};
use super::figures::Define;
use super::host::{self, StoreRefusal};
use super::state::State;

type Done<T> = wasmtime::Result<T>;

fn part(part: exchange::Part) -> Part {
    match part {
        exchange::Part::Request => Part::Request,
        exchange::Part::RequestTrailers => Part::RequestTrailers,
        exchange::Part::Response => Part::Response,
        exchange::Part::ResponseTrailers => Part::ResponseTrailers,
    }
}

fn refusal(refusal: Refusal) -> types::Refusal {
    match refusal {
        Refusal::InvalidName => types::Refusal::InvalidName,
        Refusal::InvalidValue => types::Refusal::InvalidValue,
        Refusal::Forbidden => types::Refusal::Forbidden,
        Refusal::TooLate => types::Refusal::TooLate,
        Refusal::TooLarge => types::Refusal::TooLarge,
        Refusal::Absent => types::Refusal::Absent,
    }
}

fn field((name, value): (&str, &[u8])) -> types::Field {
    (name.to_owned(), value.to_vec())
}

type Changed<T = ()> = Done<Result<T, types::Refusal>>;

impl types::Host for State {}

impl exchange::Host for State {
    fn get(&mut self, place: exchange::Part, name: String) -> Done<Option<Vec<u8>>> {
        Ok(self.read(|exchange| exchange.get(part(place), &name).map(<[u8]>::to_vec)))
    }

    fn get_all(&mut self, place: exchange::Part, name: String) -> Done<Vec<Vec<u8>>> {
        Ok(self.read(|exchange| {
            host::values(exchange, part(place), &name)
                .map(<[u8]>::to_vec)
                .collect()
        }))
    }

    fn count(&mut self, place: exchange::Part) -> Done<u32> {
        Ok(self.read(|exchange| host::count(exchange, part(place))))
    }

    fn at(&mut self, place: exchange::Part, index: u32) -> Done<Option<types::Field>> {
        Ok(self.read(|exchange| {
            host::all(exchange, part(place))
                .nth(index as usize)
                .map(field)
        }))
    }

    fn all(&mut self, place: exchange::Part) -> Done<Vec<types::Field>> {
        Ok(self.read(|exchange| host::all(exchange, part(place)).map(field).collect()))
    }

    fn set(&mut self, place: exchange::Part, name: String, value: Vec<u8>) -> Changed {
        let outcome = self.change(|exchange| exchange.set(part(place), &name, &value));
        Ok(outcome.map_err(refusal))
    }

    fn append(&mut self, place: exchange::Part, name: String, value: Vec<u8>) -> Changed {
        let outcome = self.change(|exchange| exchange.append(part(place), &name, &value));
        Ok(outcome.map_err(refusal))
    }

    fn remove(&mut self, place: exchange::Part, name: String) -> Changed<u32> {
        let outcome = self.change(|exchange| exchange.remove(part(place), &name));
        Ok(outcome.map_err(refusal))
    }

    fn method(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.method.to_string()))
    }

    fn set_method(&mut self, method: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_method(&method))
            .map_err(refusal))
    }

    fn scheme(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.scheme.to_string()))
    }

    fn set_scheme(&mut self, scheme: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_scheme(&scheme))
            .map_err(refusal))
    }

    fn authority(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::authority(exchange).to_owned()))
    }

    fn set_authority(&mut self, authority: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_authority(&authority))
            .map_err(refusal))
    }

    fn path(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.request.target.path().to_owned()))
    }

    fn set_path(&mut self, path: String) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_path(&path))
            .map_err(refusal))
    }

    fn query(&mut self) -> Done<Option<String>> {
        Ok(self.read(|exchange| exchange.request.target.query().map(str::to_owned)))
    }

    fn set_query(&mut self, query: Option<String>) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_query(query.as_deref()))
            .map_err(refusal))
    }

    fn status(&mut self) -> Done<u16> {
        Ok(self.read(host::status))
    }

    fn set_status(&mut self, status: u16) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_status(status))
            .map_err(refusal))
    }

    fn answer(&mut self, status: u16, fields: Vec<types::Field>, body: Vec<u8>) -> Changed {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        let outcome = self.fits(&body).and_then(|()| {
            self.change(|exchange| exchange.give_answer(status, fields, body.into()))
        });
        Ok(outcome.map_err(refusal))
    }

    fn client_address(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.client.address.to_string()))
    }

    fn client_port(&mut self) -> Done<u16> {
        Ok(self.read(|exchange| exchange.client.peer.port()))
    }

    fn protocol(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::protocol(exchange).to_owned()))
    }

    fn tls(&mut self) -> Done<Option<exchange::TlsFacts>> {
        Ok(self.read(|exchange| {
            let facts = exchange.client.tls.as_ref()?;
            Some(exchange::TlsFacts {
                version: facts.version.to_owned(),
                cipher: facts.cipher.clone(),
                server_name: facts.server_name.clone(),
                alpn: facts.alpn.clone(),
            })
        }))
    }

    fn route(&mut self) -> Done<String> {
        Ok(self.read(|exchange| exchange.route.as_ref().to_owned()))
    }

    fn path_parameter(&mut self, name: String) -> Done<Option<String>> {
        Ok(self.read(|exchange| exchange.parameter(&name).map(str::to_owned)))
    }

    fn request_id(&mut self) -> Done<String> {
        Ok(self.read(|exchange| host::request_id(exchange).to_owned()))
    }

    fn property(&mut self, name: String) -> Done<Option<Vec<u8>>> {
        Ok(self.read(|exchange| exchange.property(&name).map(<[u8]>::to_vec)))
    }

    fn set_property(&mut self, name: String, value: Vec<u8>) -> Changed {
        Ok(self
            .change(|exchange| exchange.set_property(&name, &value))
            .map_err(refusal))
    }

    fn elapsed(&mut self) -> Done<u64> {
        Ok(self.read(|exchange| exchange.pace.elapsed()))
    }

    fn delay(&mut self, milliseconds: u32) -> Changed {
        Ok(State::delay(self, milliseconds).map_err(refusal))
    }

    fn client_certificate(&mut self) -> Done<Option<exchange::CertificateFacts>> {
        Ok(self.read(|exchange| {
            let facts = host::client_certificate(exchange)?.clone();
            Some(exchange::CertificateFacts {
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
        }))
    }
}

impl body::Host for State {
    fn read(&mut self, offset: u32, max: u32) -> Done<Vec<u8>> {
        Ok(State::read(self, |exchange| {
            let length = host::readable(exchange, offset, max);
            exchange.chunk.read(offset, length).to_vec()
        }))
    }

    fn replace(&mut self, bytes: Vec<u8>) -> Done<()> {
        self.change_chunk(&bytes, false)
    }

    fn append(&mut self, bytes: Vec<u8>) -> Done<()> {
        self.change_chunk(&bytes, true)
    }
}

fn log_level(level: log::Level) -> LogLevel {
    match level {
        log::Level::Error => LogLevel::Error,
        log::Level::Warn => LogLevel::Warn,
        log::Level::Info => LogLevel::Info,
        log::Level::Debug => LogLevel::Debug,
        log::Level::Trace => LogLevel::Trace,
    }
}

impl log::Host for State {
    fn enabled(&mut self, of: log::Level) -> Done<bool> {
        Ok(self.log_enabled(log_level(of)))
    }

    fn write(&mut self, of: log::Level, message: String) -> Done<()> {
        self.log_write(log_level(of), &message);
        Ok(())
    }
}

fn borrowed(labels: &[metrics::Label]) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

impl metrics::Host for State {
    fn counter(&mut self, name: String, help: String, labels: Vec<metrics::Label>) -> Changed<u32> {
        let outcome = self.define(Define::Counter, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn gauge(&mut self, name: String, help: String, labels: Vec<metrics::Label>) -> Changed<u32> {
        let outcome = self.define(Define::Gauge, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn histogram(
        &mut self,
        name: String,
        help: String,
        labels: Vec<metrics::Label>,
        bounds: Vec<f64>,
    ) -> Changed<u32> {
        let define = Define::Histogram(&bounds);
        let outcome = self.define(define, &name, &help, &borrowed(&labels));
        Ok(outcome.map_err(refusal))
    }

    fn add(&mut self, metric: u32, delta: u64) -> Done<()> {
        State::add(self, metric, delta);
        Ok(())
    }

    fn set(&mut self, metric: u32, value: f64) -> Done<()> {
        State::set(self, metric, value);
        Ok(())
    }

    fn observe(&mut self, metric: u32, value: f64) -> Done<()> {
        State::observe(self, metric, value);
        Ok(())
    }
}

impl clock::Host for State {
    fn monotonic(&mut self) -> Done<u64> {
        Ok(State::monotonic(self))
    }

    fn wall(&mut self) -> Done<u64> {
        Ok(State::wall(self))
    }
}

impl random::Host for State {
    fn bytes(&mut self, length: u32) -> Done<Vec<u8>> {
        host::random(length)
    }

    fn number(&mut self) -> Done<u64> {
        host::random_number()
    }
}

fn store_refusal(refusal: StoreRefusal) -> store::StoreError {
    match refusal {
        StoreRefusal::NotGranted => store::StoreError::NotGranted,
        StoreRefusal::TooLarge => store::StoreError::TooLarge,
        StoreRefusal::NotANumber => store::StoreError::NotANumber,
        StoreRefusal::Unavailable => store::StoreError::Unavailable,
    }
}

type Stored<T> = Done<Result<T, store::StoreError>>;

impl store::Host for State {
    fn get(&mut self, namespace: String, key: String) -> Stored<Option<Vec<u8>>> {
        let outcome = self.store_get(&namespace, &key);
        Ok(outcome
            .map(|value| value.map(|value| value.to_vec()))
            .map_err(store_refusal))
    }

    fn set(&mut self, namespace: String, key: String, value: Vec<u8>, ttl_ms: u64) -> Stored<()> {
        let outcome = self.store_set(&namespace, &key, &value, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }

    fn delete(&mut self, namespace: String, key: String) -> Stored<bool> {
        let outcome = self.store_delete(&namespace, &key);
        Ok(outcome.map_err(store_refusal))
    }

    fn compare_and_swap(
        &mut self,
        namespace: String,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> Stored<bool> {
        let outcome = self.store_swap(&namespace, &key, expected.as_deref(), &value, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }

    fn increment(
        &mut self,
        namespace: String,
        key: String,
        delta: i64,
        ttl_ms: u64,
    ) -> Stored<i64> {
        let outcome = self.store_increment(&namespace, &key, delta, ttl_ms);
        Ok(outcome.map_err(store_refusal))
    }
}

impl limiter::Host for State {
    fn take(&mut self, key: String, tokens: u32, rate: f64, burst: u32) -> Done<limiter::Verdict> {
        let verdict = self.limiter_take(&key, tokens, rate, burst);
        Ok(limiter::Verdict {
            allowed: verdict.allowed,
            remaining: verdict.remaining,
            retry_after_ns: verdict.retry_after,
            reset_after_ns: verdict.reset_after,
        })
    }

    fn try_take(
        &mut self,
        at: limiter::Place,
        key: String,
        tokens: u64,
        shape: limiter::Bucket,
    ) -> Limited<limiter::Level> {
        let demand = Demand {
            key: &key,
            tokens,
            bucket: bucket(&shape),
        };
        let outcome = self.limiter_try(place(at), &demand, true);
        Ok(outcome.map(level).map_err(limiter_refusal))
    }

    fn peek(
        &mut self,
        at: limiter::Place,
        key: String,
        tokens: u64,
        shape: limiter::Bucket,
    ) -> Limited<limiter::Level> {
        let demand = Demand {
            key: &key,
            tokens,
            bucket: bucket(&shape),
        };
        let outcome = self.limiter_try(place(at), &demand, false);
        Ok(outcome.map(level).map_err(limiter_refusal))
    }

    fn take_all(
        &mut self,
        at: limiter::Place,
        demands: Vec<limiter::Demand>,
    ) -> Limited<Vec<limiter::Level>> {
        let demands: Vec<_> = demands.iter().map(asked).collect();
        let outcome = self.limiter_take_all(place(at), &demands);
        Ok(outcome
            .map(|levels| levels.into_iter().map(level).collect())
            .map_err(limiter_refusal))
    }

    fn charge(
        &mut self,
        at: limiter::Place,
        key: String,
        tokens: i64,
        shape: limiter::Bucket,
    ) -> Limited<limiter::Level> {
        let outcome = self.limiter_charge(place(at), &key, tokens, bucket(&shape));
        Ok(outcome.map(level).map_err(limiter_refusal))
    }

    fn enter(&mut self, at: limiter::Place, key: String, limit: u32) -> Limited<limiter::Entry> {
        let outcome = self.limiter_enter(place(at), &key, limit);
        Ok(outcome
            .map(|entry| limiter::Entry {
                allowed: entry.allowed,
                in_flight: entry.in_flight,
            })
            .map_err(limiter_refusal))
    }
}

type Limited<T> = Done<Result<T, limiter::LimiterError>>;

fn place(place: limiter::Place) -> Place {
    match place {
        limiter::Place::Local => Place::Local,
        limiter::Place::Shared => Place::Shared,
    }
}

fn bucket(bucket: &limiter::Bucket) -> Bucket {
    Bucket {
        capacity: bucket.capacity,
        refill: bucket.refill,
        period_ms: bucket.period_ms,
        full_at_ms: bucket.full_at_ms,
    }
}

fn asked(demand: &limiter::Demand) -> Demand<'_> {
    Demand {
        key: &demand.key,
        tokens: demand.tokens,
        bucket: bucket(&demand.bucket),
    }
}

fn level(level: Level) -> limiter::Level {
    limiter::Level {
        allowed: level.allowed,
        remaining: level.remaining,
        retry_after_ns: level.retry_after,
        reset_after_ns: level.reset_after,
    }
}

fn limiter_refusal(error: LimiterError) -> limiter::LimiterError {
    match error {
        LimiterError::TooLarge => limiter::LimiterError::TooLarge,
        LimiterError::Invalid => limiter::LimiterError::Invalid,
        LimiterError::Unavailable => limiter::LimiterError::Unavailable,
        LimiterError::NotNow => limiter::LimiterError::NotNow,
    }
}

impl environment::Host for State {
    fn get(&mut self, name: String) -> Done<Option<String>> {
        Ok(State::environment(self, &name).map(str::to_owned))
    }
}
