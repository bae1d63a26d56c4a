//! What the operator writes. Every key is documented here and nowhere else; what a rule makes of it stands in `rule`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use tidegate_sdk::prelude::*;

use crate::key::{Key, Missing, is_token};
use crate::words::{Method, Network, Period, RuleName, Status, V4Prefix, V6Prefix, Wait};

/// Rules on how much each client, consumer or tenant may ask for: one, written here, or several, in `rules`.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// One rule: how much comes back in each period. Several rules stand in `rules`.
    pub rate: Option<NonZeroU64>,
    /// One rule's period. Default: second.
    pub per: Option<Period>,
    /// One rule's burst: how much may be asked for at once. Default: the rate.
    pub burst: Option<NonZeroU64>,
    /// One rule's key: whose bucket a request takes from. Default: client.
    pub key: Option<Key>,
    /// One rule's name in fields and metrics. Default: default.
    pub name: Option<RuleName>,
    /// Rules, of which a request must keep all. A request that one of them refuses takes nothing from the others.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
    /// Who is not limited at all.
    pub exempt: Option<Exempt>,
    /// What a refusal looks like.
    pub answer: Option<AnswerConfig>,
    /// Which fields tell clients where they stand. Default: ratelimit.
    #[serde(default)]
    pub quota_fields: QuotaFields,
    /// What happens when the store can't be reached. Default: local.
    #[serde(default)]
    pub store_failure: StoreFailure,
    /// Whether all rules only count whom they would refuse. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// How many leading bits of an IPv4 address name one client. Default: 32.
    pub ipv4_prefix: Option<V4Prefix>,
    /// How many leading bits of an IPv6 address name one client. Default: 64.
    pub ipv6_prefix: Option<V6Prefix>,
}

/// One rule: either `rate` or `concurrent`.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name in fields, metrics and the store; no two rules have the same. Default: default.
    pub name: Option<RuleName>,
    /// How much comes back in each period.
    pub rate: Option<NonZeroU64>,
    /// The period. Default: second.
    pub per: Option<Period>,
    /// How much may be asked for at once. Default: the rate.
    pub burst: Option<NonZeroU64>,
    /// Whether it comes back bit by bit, or all of it when a window of the calendar (UTC) begins. Default: steady.
    #[serde(default)]
    pub refill: Refill,
    /// How many requests may be under way at a time.
    pub concurrent: Option<NonZeroU32>,
    /// Whose bucket a request takes from; a list joins several. Default: client.
    #[serde(default)]
    pub key: Key,
    /// What becomes of a request for which the key has no value. Default: client.
    #[serde(default)]
    pub missing: Missing,
    /// How many leading bits of an IPv4 address name one client. Default: that of the whole configuration.
    pub ipv4_prefix: Option<V4Prefix>,
    /// How many leading bits of an IPv6 address name one client. Default: that of the whole configuration.
    pub ipv6_prefix: Option<V6Prefix>,
    /// The methods that it is for. Default: all.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// What a request takes: a number, or the field that says it. Default: 1.
    #[serde(default)]
    pub cost: Cost,
    /// What is taken if the field of `cost` is missing or no number. Default: 1 for a request's field, 0 for a response's.
    pub default_cost: Option<u32>,
    /// The most that the field of `cost` can take. Default: the burst for a request's field, no bound for a response's.
    pub max_cost: Option<NonZeroU64>,
    /// How long a request may be made to wait for its turn instead of being refused. Default: not at all.
    pub delay: Option<Wait>,
    /// Other quotas for some consumers and roles: the consumer's own first, then the first of its roles listed here.
    #[serde(default)]
    pub quotas: Vec<QuotaConfig>,
    /// Where it counts: in this process, or in the operator's store, so that machines share it and it survives a restart.
    /// Default: process.
    #[serde(default)]
    pub count_in: CountIn,
    /// Whether it only counts whom it would refuse. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// What its refusal looks like. Default: that of the whole configuration.
    pub answer: Option<AnswerConfig>,
}

/// The quota of a consumer or a role, in place of its rule's.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct QuotaConfig {
    /// The consumer that it is for.
    pub consumer: Option<String>,
    /// The role that it is for.
    pub role: Option<String>,
    /// How much comes back in each period.
    pub rate: Option<NonZeroU64>,
    /// The period. Default: the rule's.
    pub per: Option<Period>,
    /// How much may be asked for at once. Default: the rate.
    pub burst: Option<NonZeroU64>,
    /// How many requests may be under way at a time.
    pub concurrent: Option<NonZeroU32>,
    /// Whether the rule does not limit it. Default: false.
    #[serde(default)]
    pub unlimited: bool,
}

/// Who is not limited.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exempt {
    /// Networks and addresses of clients.
    #[serde(default)]
    pub clients: Vec<Network>,
    /// Consumers.
    #[serde(default)]
    pub consumers: Vec<String>,
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// What a refusal looks like.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AnswerConfig {
    /// Its status. Default: 429. A gRPC client gets RESOURCE_EXHAUSTED whatever stands here.
    pub status: Option<Status>,
    /// Its body. Default: a line of text, or a problem (RFC 9457) for who asks for JSON.
    pub body: Option<String>,
    /// What `body` is. Default: text/plain; charset=utf-8.
    pub content_type: Option<String>,
    /// More fields.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

/// How a quota comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refill {
    /// Evenly, all the time.
    #[default]
    Steady,
    /// All at once, when the next second, minute, hour, day, week (Monday) or month begins.
    Calendar,
}

/// Where a rule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CountIn {
    /// In this process, exact across its workers, forgotten with it.
    #[default]
    Process,
    /// In the store of the proxy's configuration.
    Store,
}

/// Which fields tell clients where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaFields {
    /// `RateLimit-Policy` and `RateLimit`.
    #[default]
    Ratelimit,
    /// The older `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    XRatelimit,
    /// All of them.
    Both,
    /// None.
    None,
}

/// What happens to requests when the store can't be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoreFailure {
    /// The rule counts in this process until it can.
    #[default]
    Local,
    /// The rule lets them pass.
    Open,
    /// They are refused with 503.
    Closed,
}

/// What a request takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Always so much.
    Fixed(u32),
    /// What a field of the request says.
    Request(Box<str>),
    /// What a field of the response says, such as tokens that were used.
    Response(Box<str>),
}

impl Default for Cost {
    fn default() -> Self {
        Cost::Fixed(1)
    }
}

impl ConfigSchema for Cost {
    const SCHEMA: &'static str = r#"{"title":"cost","type":["integer","string"],"minimum":1,"maximum":4294967295,"pattern":"^(request|response):[^ ]+$","examples":[1,"response:x-tokens-used"]}"#;
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Cost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1, request:FIELD or response:FIELD")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Cost, E> {
                match u32::try_from(number) {
                    Ok(cost @ 1..) => Ok(Cost::Fixed(cost)),
                    _ => Err(E::custom("a cost is 1 to 4294967295")),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cost, E> {
                let (from, name) = text.split_once(':').unwrap_or((text, ""));
                let field = || Box::from(name.to_ascii_lowercase());
                match from {
                    "request" if is_token(name) => Ok(Cost::Request(field())),
                    "response" if is_token(name) => Ok(Cost::Response(field())),
                    _ => Err(E::custom("a cost is a number, request:FIELD or response:FIELD")),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
