//! The moments at which filters see an exchange, what they want of them, and what they decide.
//! Knows nothing of how a filter is run.

use std::fmt;

/// One kind of callback. The order is that in which an exchange passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Before any exchange: the filter reads its configuration.
    Configure,
    /// The request's head is here and has not left.
    RequestHead,
    /// A piece of the request's body is at hand.
    RequestBody,
    /// The request's trailers are here.
    RequestTrailers,
    /// The response's head is here and has not left.
    ResponseHead,
    /// A piece of the response's body is at hand.
    ResponseBody,
    /// The response's trailers are here.
    ResponseTrailers,
    /// The exchange is over.
    Log,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 8] = [
        Phase::Configure,
        Phase::RequestHead,
        Phase::RequestBody,
        Phase::RequestTrailers,
        Phase::ResponseHead,
        Phase::ResponseBody,
        Phase::ResponseTrailers,
        Phase::Log,
    ];

    /// The phase's name as the contract, the log and the metrics spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Configure => "configure",
            Phase::RequestHead => "request-head",
            Phase::RequestBody => "request-body",
            Phase::RequestTrailers => "request-trailers",
            Phase::ResponseHead => "response-head",
            Phase::ResponseBody => "response-body",
            Phase::ResponseTrailers => "response-trailers",
            Phase::Log => "log",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases(u8);

impl Phases {
    /// No phase at all.
    pub const NONE: Phases = Phases(0);

    /// This set with one phase more. [`Phase::Configure`] is no member of any set: it always runs.
    #[must_use]
    pub const fn with(self, phase: Phase) -> Phases {
        match phase {
            Phase::Configure => self,
            _ => Phases(self.0 | Self::bit(phase)),
        }
    }

    /// Whether a phase is in the set.
    pub const fn has(self, phase: Phase) -> bool {
        self.0 & Self::bit(phase) != 0
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Phases) -> Phases {
        Phases(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Phases) -> Phases {
        Phases(self.0 & other.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The phases of the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(move |phase| self.has(*phase))
    }

    const fn bit(phase: Phase) -> u8 {
        match phase {
            Phase::Configure => 0,
            Phase::RequestHead => 1,
            Phase::RequestBody => 1 << 1,
            Phase::RequestTrailers => 1 << 2,
            Phase::ResponseHead => 1 << 3,
            Phase::ResponseBody => 1 << 4,
            Phase::ResponseTrailers => 1 << 5,
            Phase::Log => 1 << 6,
        }
    }
}

impl FromIterator<Phase> for Phases {
    fn from_iter<I: IntoIterator<Item = Phase>>(phases: I) -> Self {
        phases.into_iter().fold(Phases::NONE, Phases::with)
    }
}

/// How a filter wants a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyMode {
    /// Each chunk as it comes, behind the head.
    Stream,
    /// All of it at once, before the head goes on.
    Whole,
    /// As [`BodyMode::Whole`] when the head's callback returns [`Flow::Hold`], else not at all.
    #[default]
    OnHold,
}

/// What becomes of a body over the bound of a filter that wants it whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// 413 for a request, 502 for a response.
    #[default]
    Refuse,
    /// What has come so far in one callback with the head still open, the rest in chunks.
    Stream,
}

/// A filter's wishes for one direction's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyWish {
    /// Whole, in chunks, or when asked for.
    pub mode: BodyMode,
    /// Bytes that may be collected. Never 0 once the loader has put the operator's bound in its place.
    pub limit: u32,
    /// What happens past `limit`.
    pub overflow: Overflow,
}

/// What a configured filter is called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interests {
    /// The phases that it takes part in.
    pub phases: Phases,
    /// Its wish for the request's body.
    pub request_body: BodyWish,
    /// Its wish for the response's body.
    pub response_body: BodyWish,
}

/// What a filter decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// On to the next filter.
    Continue,
    /// Keep the head until the whole body is here (head phases only).
    Hold,
    /// Send the answer that lies in [`Exchange::answer`](crate::exchange::Exchange::answer).
    Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set = Phases::NONE.with(Phase::RequestHead).with(Phase::Log);
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Phase::RequestHead, Phase::Log]
        );
        assert!(!set.has(Phase::ResponseHead));
        assert!(!set.has(Phase::Configure));
        assert_eq!(set.iter().collect::<Phases>(), set);
    }
}
