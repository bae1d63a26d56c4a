//! The fields that tell a client where it stands: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers)
//! and the older `X-RateLimit-*`. Knows no limiter.

use crate::config::QuotaFields;
use crate::quota::{Quota, push_number, whole_seconds};

/// Where a client stands with one rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) quota: &'a Quota,
    pub(crate) remaining: u64,
    /// Nanoseconds until the quota is whole; none if no time makes it so.
    pub(crate) reset_ns: Option<u64>,
}

/// Gives the fields for some rules, one after the other.
pub(crate) fn fields<'a>(
    kinds: QuotaFields,
    standings: impl Iterator<Item = Standing<'a>> + Clone,
    mut give: impl FnMut(&'static str, &str),
) {
    let (standard, older) = match kinds {
        QuotaFields::None => return,
        QuotaFields::Ratelimit => (true, false),
        QuotaFields::XRatelimit => (false, true),
        QuotaFields::Both => (true, true),
    };
    if standard {
        let (mut policies, mut states) = (String::new(), String::with_capacity(64));
        let mut one = None;
        for standing in standings.clone() {
            if states.is_empty() {
                one = Some(&standing.quota.policy);
            } else {
                if let Some(first) = one.take() {
                    policies.push_str(first);
                }
                policies.push_str(", ");
                policies.push_str(&standing.quota.policy);
                states.push_str(", ");
            }
            states.push_str(&standing.quota.state);
            push_number(&mut states, standing.remaining);
            if let Some(reset) = standing.reset_ns {
                states.push_str(";t=");
                push_number(&mut states, whole_seconds(reset));
            }
        }
        if !states.is_empty() {
            give("ratelimit-policy", one.map_or(&*policies, |policy| policy));
            give("ratelimit", &states);
        }
    }
    // There is room for one rule only: the one that is nearest to its end.
    if older && let Some(nearest) = standings.min_by_key(|standing| standing.remaining) {
        let number = |number| itoa::Buffer::new().format::<u64>(number).to_owned();
        give("x-ratelimit-limit", &number(nearest.quota.told));
        give("x-ratelimit-remaining", &number(nearest.remaining));
        if let Some(reset) = nearest.reset_ns {
            give("x-ratelimit-reset", &number(whole_seconds(reset)));
        }
    }
}
