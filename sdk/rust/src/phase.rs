//! What a filter wants to be called for, and what it decides.

/// A phase of an exchange, as in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The request's head is here.
    RequestHead = 0,
    /// A piece of the request's body is at hand.
    RequestBody = 1,
    /// The request's trailers are here.
    RequestTrailers = 2,
    /// The response's head is here.
    ResponseHead = 3,
    /// A piece of the response's body is at hand.
    ResponseBody = 4,
    /// The response's trailers are here.
    ResponseTrailers = 5,
    /// The exchange is over.
    Log = 6,
}

/// How a filter takes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    /// Piece by piece; the head has gone on.
    Stream,
    /// All at once, with the head still here.
    Whole,
    /// Only if the head's phase returned [`Flow::Hold`].
    OnHold,
}

/// What becomes of a body over the limit of a filter that takes it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// 413 for a request, 502 for a response.
    Refuse,
    /// The filter gets it piece by piece.
    Stream,
}

/// How a filter takes one direction's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWish {
    /// Whole, in pieces, or on demand.
    pub mode: BodyMode,
    /// Bytes that may be collected; 0 takes the operator's bound.
    pub limit: u32,
    /// What happens past the limit.
    pub overflow: Overflow,
}

/// What a filter is called for: the phases that it wrote, less those that its configuration makes pointless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interests {
    phases: u8,
    /// The request's body.
    pub request_body: BodyWish,
    /// The response's body.
    pub response_body: BodyWish,
}

impl Interests {
    /// Interests in the given phases.
    #[expect(
        clippy::indexing_slicing,
        reason = "a constant function has no iterators, and the index is checked in the line above"
    )]
    pub const fn new(phases: &[Phase], request_body: BodyWish, response_body: BodyWish) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < phases.len() {
            bits |= 1 << phases[at] as u8;
            at += 1;
        }
        Interests {
            phases: bits,
            request_body,
            response_body,
        }
    }

    /// Whether a phase is among them.
    pub const fn has(&self, phase: Phase) -> bool {
        self.phases & (1 << phase as u8) != 0
    }

    /// Adds a phase.
    pub const fn add(&mut self, phase: Phase) {
        self.phases |= 1 << phase as u8;
    }

    /// Takes a phase out: the filter is not called for it, and it costs nothing.
    pub const fn remove(&mut self, phase: Phase) {
        self.phases &= !(1 << phase as u8);
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) const fn bits(&self) -> u8 {
        self.phases
    }
}

/// What a filter decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// On to the next filter.
    Continue,
    /// Head phases only: keep the head, collect the body, call the body's phase with all of it.
    Hold,
    /// Send the answer that was given with [`Answer::send`](crate::Answer::send).
    Answer,
}

/// Why the host refused a change. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, method, status or path.
    InvalidName,
    /// A character that may not stand in a value.
    InvalidValue,
    /// The host answers for this field.
    Forbidden,
    /// What would be changed has left, or has not come yet.
    TooLate,
    /// Over a bound.
    TooLarge,
    /// Not part of this exchange.
    Absent,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Refusal::InvalidName => "the name is not valid",
            Refusal::InvalidValue => "the value has a character that may not stand there",
            Refusal::Forbidden => "this field is the host's",
            Refusal::TooLate => "it has left already, or has not come yet",
            Refusal::TooLarge => "it is over the bound",
            Refusal::Absent => "there is no such thing in this exchange",
        })
    }
}

impl core::error::Error for Refusal {}
