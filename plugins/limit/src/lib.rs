//! Lets each client, consumer or tenant through so many times, and answers 429 behind that. The buckets are the host's:
//! exact across all workers.

mod key;
mod rate;

use tidegate_sdk::limiter::{self, Verdict};
use tidegate_sdk::prelude::*;

use crate::rate::Period;

/// What the operator configures.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Requests that may come in each period, once the burst is used up.
    pub rate: u32,
    /// The period. Default: second.
    #[serde(default)]
    pub per: Period,
    /// Requests that may come at once. Default: the rate.
    pub burst: Option<u32>,
    /// Whose bucket a request takes from. Default: client.
    #[serde(default)]
    pub key: KeyKind,
    /// With `key = "header"`: the field whose value is the key. A request without it counts by its client address.
    pub header: Option<String>,
    /// How many bits of an IPv6 address name one client. Default: 64.
    pub ipv6_prefix: Option<u8>,
    /// The rule's name in the RateLimit fields. Default: default.
    pub name: Option<String>,
}

/// Whose bucket a request takes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// The client's address.
    #[default]
    Client,
    /// A field of the request.
    Header,
    /// The consumer that an earlier filter (auth) found; without one, the client's address.
    Consumer,
}

/// The filter.
#[derive(Debug)]
pub struct Limit {
    config: Config,
    burst: u32,
    rate: f64,
    prefix: u8,
    name: String,
    policy: String,
}

/// What is told with the response.
#[derive(Debug, Default)]
pub struct Told {
    state: Option<String>,
}

#[filter(
    name = "limit",
    description = "Limits how often each client, consumer or tenant may ask."
)]
impl Filter for Limit {
    type Config = Config;
    type State = Told;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let burst = config.burst.unwrap_or(config.rate);
        if config.rate == 0 || burst == 0 {
            return Err("`rate` and `burst` must be at least 1".into());
        }
        let prefix = config.ipv6_prefix.unwrap_or(64);
        if prefix > 128 {
            return Err("`ipv6-prefix` must be at most 128".into());
        }
        if (config.key == KeyKind::Header) != config.header.is_some() {
            return Err("`key = \"header\"` and `header = \"NAME\"` go together".into());
        }
        let name = config.name.clone().unwrap_or_else(|| "default".to_owned());
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err("`name` takes letters, digits, hyphens and underscores".into());
        }
        Ok(Limit {
            rate: rate::per_second(config.rate, config.per),
            policy: rate::policy(&name, burst, config.rate, config.per),
            burst,
            prefix,
            name,
            config,
        })
    }

    fn request_head(&self, request: &mut RequestHead, told: &mut Told) -> Flow {
        let verdict = limiter::take(&self.key(request), 1, self.rate, self.burst);
        let state = self.state(&verdict);
        if verdict.allowed {
            told.state = Some(state);
            return Flow::Continue;
        }
        Answer::new(429)
            .field(
                "retry-after",
                rate::whole_seconds(verdict.retry_after_ns)
                    .max(1)
                    .to_string(),
            )
            .field("ratelimit-policy", &self.policy)
            .field("ratelimit", &state)
            .text("too many requests\n")
            .send()
    }

    fn response_head(&self, response: &mut ResponseHead, told: &mut Told) -> Flow {
        if let Some(state) = told.state.take() {
            // A head that has no room left goes without.
            let _ = response.set("ratelimit-policy", &self.policy);
            let _ = response.set("ratelimit", state);
        }
        Flow::Continue
    }
}

impl Limit {
    fn key(&self, request: &RequestHead) -> String {
        let value = match self.config.key {
            KeyKind::Client => None,
            KeyKind::Header => self
                .config
                .header
                .as_deref()
                .and_then(|name| request.get(name))
                .map(|value| key::value('h', &value)),
            KeyKind::Consumer => request
                .property("consumer")
                .map(|value| key::value('c', &value)),
        };
        value.unwrap_or_else(|| key::address(&request.client_address(), self.prefix))
    }

    fn state(&self, verdict: &Verdict) -> String {
        rate::state(&self.name, verdict.remaining, verdict.reset_after_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_sdk::serde_json::json;
    use tidegate_sdk::test::{Harness, Request};

    fn limit(config: tidegate_sdk::serde_json::Value) -> Harness<Limit> {
        Harness::new(config).unwrap()
    }

    fn status(harness: &mut Harness<Limit>, request: Request) -> u16 {
        harness
            .request(request)
            .answer
            .map_or(200, |answer| answer.status)
    }

    #[test]
    fn the_sixth_of_five_is_told_how_long_to_wait() {
        let mut harness = limit(json!({"rate": 1, "per": "second", "burst": 5}));
        for _ in 0..5 {
            assert_eq!(status(&mut harness, Request::get("/")), 200);
        }
        let answer = harness.request(Request::get("/")).answer.unwrap();
        assert_eq!(answer.status, 429);
        let field = |name: &str| {
            answer
                .fields
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| String::from_utf8(v.clone()).unwrap())
        };
        assert_eq!(field("retry-after").as_deref(), Some("1"));
        assert_eq!(field("ratelimit").as_deref(), Some("\"default\";r=0;t=5"));
        assert_eq!(
            field("ratelimit-policy").as_deref(),
            Some("\"default\";q=5;w=5")
        );
        harness.advance(Duration::from_secs(1));
        assert_eq!(status(&mut harness, Request::get("/")), 200);
        assert_eq!(status(&mut harness, Request::get("/")), 429);
    }

    #[test]
    fn clients_headers_and_consumers_have_buckets_of_their_own() {
        let mut harness = limit(json!({"rate": 1}));
        assert_eq!(
            status(&mut harness, Request::get("/").client("192.0.2.1")),
            200
        );
        assert_eq!(
            status(&mut harness, Request::get("/").client("192.0.2.2")),
            200
        );
        assert_eq!(
            status(&mut harness, Request::get("/").client("192.0.2.1")),
            429
        );
        assert_eq!(
            status(&mut harness, Request::get("/").client("2001:db8::1")),
            200
        );
        assert_eq!(
            status(&mut harness, Request::get("/").client("2001:db8::2")),
            429
        );

        let mut harness = limit(json!({"rate": 1, "key": "header", "header": "x-tenant"}));
        assert_eq!(
            status(&mut harness, Request::get("/").field("x-tenant", "a")),
            200
        );
        assert_eq!(
            status(&mut harness, Request::get("/").field("x-tenant", "b")),
            200
        );
        assert_eq!(
            status(&mut harness, Request::get("/").field("x-tenant", "a")),
            429
        );
        assert_eq!(status(&mut harness, Request::get("/")), 200);
        assert_eq!(status(&mut harness, Request::get("/")), 429);
    }

    #[test]
    fn what_was_let_through_is_told_where_it_stands() {
        let mut harness = limit(json!({"rate": 10, "per": "minute", "name": "api"}));
        let mut outcome = harness.request(Request::get("/"));
        let response = harness.response(&mut outcome, 200, &[], b"");
        let fields: Vec<_> = response
            .fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_slice()))
            .collect();
        assert!(
            fields.contains(&("ratelimit", &b"\"api\";r=9;t=6"[..])),
            "{fields:?}"
        );
    }

    #[test]
    fn mistakes_are_refused() {
        for config in [
            json!({}),
            json!({"rate": 0}),
            json!({"rate": 1, "burst": 0}),
            json!({"rate": 1, "key": "header"}),
            json!({"rate": 1, "header": "x"}),
            json!({"rate": 1, "ipv6-prefix": 129}),
            json!({"rate": 1, "per": "week"}),
            json!({"rate": 1, "name": "a b"}),
            json!({"rates": 1}),
        ] {
            assert!(Harness::<Limit>::new(config.clone()).is_err(), "{config}");
        }
    }
}
