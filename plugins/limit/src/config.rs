//! What the operator writes. Every key is documented here and nowhere else; what a rule makes of it stands in `rule`.

use std::fmt;

use tidegate_sdk::prelude::*;

use crate::key::{Key, Missing, is_token};
use crate::read::{Loose, from_loose, table, words};
use crate::words::{
    Amount, Count, DefaultCost, Method, Network, Period, RuleName, Status, V4Prefix, V6Prefix, Wait,
};

table! {
    /// One rule, or several in `rules`.
    pub struct Config {
        /// One rule, written short: its rate.
        "rate" => rate: Option<Amount>,
        /// Its period. Default: second.
        "per" => per: Option<Period>,
        /// Its burst. Default: the rate.
        "burst" => burst: Option<Amount>,
        /// Its key. Default: client.
        "key" => key: Option<Key>,
        /// Its name. Default: default.
        "name" => name: Option<RuleName>,
        /// Rules, of which a request must keep all.
        "rules" => rules: Vec<RuleConfig>,
        /// Who is not limited at all.
        "exempt" => exempt: Option<Exempt>,
        /// What a refusal looks like.
        "answer" => answer: Option<AnswerConfig>,
        /// Which fields tell clients where they stand. Default: ratelimit.
        "quota-fields" => quota_fields: QuotaFields,
        /// What happens when the store can't be reached. Default: local.
        "store-failure" => store_failure: StoreFailure,
        /// Whether all rules only count whom they would refuse. Default: false.
        "dry-run" => dry_run: bool,
        /// How many leading bits of an IPv4 address name one client. Default: 32.
        "ipv4-prefix" => ipv4_prefix: Option<V4Prefix>,
        /// How many leading bits of an IPv6 address name one client. Default: 64.
        "ipv6-prefix" => ipv6_prefix: Option<V6Prefix>,
    }
}

table! {
    /// One rule: either `rate` or `concurrent`.
    pub(crate) struct RuleConfig {
        /// Its name in fields, metrics and the store. Default: default.
        "name" => name: Option<RuleName>,
        /// How much comes back in each period.
        "rate" => rate: Option<Amount>,
        /// The period. Default: second.
        "per" => per: Option<Period>,
        /// How much may be asked for at once. Default: the rate.
        "burst" => burst: Option<Amount>,
        /// Whether it comes back evenly, or when a window of the calendar (UTC) begins. Default: steady.
        "refill" => refill: Refill,
        /// How many requests may be under way at a time.
        "concurrent" => concurrent: Option<Count>,
        /// Whose bucket a request takes from; a list joins several. Default: client.
        "key" => key: Key,
        /// What becomes of a request for which the key has no value. Default: client.
        "missing" => missing: Missing,
        /// As above, for this rule.
        "ipv4-prefix" => ipv4_prefix: Option<V4Prefix>,
        /// As above, for this rule.
        "ipv6-prefix" => ipv6_prefix: Option<V6Prefix>,
        /// The methods that it is for. Default: all.
        "methods" => methods: Vec<Method>,
        /// What a request takes: a number, or the field that says it. Default: 1.
        "cost" => cost: Cost,
        /// What is taken if that field is missing or no number. Default: 1 for a request's, 0 for a response's.
        "default-cost" => default_cost: Option<DefaultCost>,
        /// The most that the field can take. Default: the burst for a request's, no bound for a response's.
        "max-cost" => max_cost: Option<Amount>,
        /// How long a request may wait for its turn instead of being refused. Default: not at all.
        "delay" => delay: Option<Wait>,
        /// Other quotas for some: the consumer's own, else the first listed here for one of its roles.
        "quotas" => quotas: Vec<QuotaConfig>,
        /// Where it counts: in this process or in the proxy's store, which machines share or which survives a restart.
        /// Default: process.
        "count-in" => count_in: CountIn,
        /// Whether it only counts whom it would refuse. Default: false.
        "dry-run" => dry_run: bool,
    }
}

table! {
    /// The quota of a consumer or a role, in place of its rule's.
    pub(crate) struct QuotaConfig {
        /// The consumer that it is for.
        "consumer" => consumer: Option<String>,
        /// The role that it is for.
        "role" => role: Option<String>,
        /// How much comes back in each period.
        "rate" => rate: Option<Amount>,
        /// The period. Default: the rule's.
        "per" => per: Option<Period>,
        /// How much may be asked for at once. Default: the rate.
        "burst" => burst: Option<Amount>,
        /// How many requests may be under way at a time.
        "concurrent" => concurrent: Option<Count>,
        /// Whether the rule does not limit it. Default: false.
        "unlimited" => unlimited: bool,
    }
}

table! {
    /// Who is not limited.
    pub(crate) struct Exempt {
        /// Networks and addresses of clients.
        "clients" => clients: Vec<Network>,
        /// Consumers.
        "consumers" => consumers: Vec<String>,
        /// Roles.
        "roles" => roles: Vec<String>,
    }
}

table! {
    /// What a refusal looks like.
    pub(crate) struct AnswerConfig {
        /// Its status. Default: 429. A gRPC client gets RESOURCE_EXHAUSTED whatever stands here.
        "status" => status: Option<Status>,
        /// Its body. Default: a line of text, or a problem (RFC 9457) for JSON clients.
        "body" => body: Option<String>,
        /// What `body` is. Default: text/plain; charset=utf-8.
        "content-type" => content_type: Option<String>,
        /// More fields.
        "fields" => fields: Fields,
    }
}

words! {
    /// How a quota comes back.
    pub(crate) enum Refill {
        /// Evenly, all the time.
        #[default]
        "steady" => Steady,
        /// All at once, when the next second, minute, hour, day, week (Monday) or month begins.
        "calendar" => Calendar,
    }
}

words! {
    /// Where a rule counts.
    pub(crate) enum CountIn {
        /// In this process, exact across its workers, forgotten with it.
        #[default]
        "process" => Process,
        /// In the store of the proxy's configuration.
        "store" => Store,
    }
}

words! {
    /// Which fields tell clients where they stand.
    pub(crate) enum QuotaFields {
        /// `RateLimit-Policy` and `RateLimit`.
        #[default]
        "ratelimit" => Ratelimit,
        /// The older `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
        "x-ratelimit" => XRatelimit,
        /// All of them.
        "both" => Both,
        /// None.
        "none" => None,
    }
}

words! {
    /// What happens to requests when the store can't be reached.
    pub(crate) enum StoreFailure {
        /// The rule counts in this process until it can.
        #[default]
        "local" => Local,
        /// The rule lets them pass.
        "open" => Open,
        /// They are refused with 503.
        "closed" => Closed,
    }
}

/// What a request takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
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

from_loose!(Cost);

impl Cost {
    fn read(loose: Loose) -> Result<Self, String> {
        let text = match loose {
            Loose::Number(number @ 1..=0xffff_ffff) => {
                return Ok(Cost::Fixed(u32::try_from(number).unwrap_or(u32::MAX)));
            }
            Loose::Text(text) => text,
            _ => return Err("a cost is 1 to 4294967295, request:FIELD or response:FIELD".into()),
        };
        let (from, name) = text.split_once(':').unwrap_or((&text, ""));
        let field = Box::from(name.to_ascii_lowercase());
        match from {
            "request" if is_token(name) => Ok(Cost::Request(field)),
            "response" if is_token(name) => Ok(Cost::Response(field)),
            _ => Err([
                "`",
                &text,
                "` is no cost: write a number, request:FIELD or response:FIELD",
            ]
            .concat()),
        }
    }
}

/// Fields by name, in their order.
#[derive(Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl ConfigSchema for Fields {
    const SCHEMA: &'static str = r#"{"type":"object","additionalProperties":{"type":"string"}}"#;
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of fields")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, String>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}
