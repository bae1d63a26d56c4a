//! Whether a request may be sent a second time, and where to: a pure decision. Knows neither sockets nor the
//! protocol, and sends nothing.

use http::{Method, Request};
use tidegate_core::body::Body;

/// What is known of an attempt that brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No connection came about.
    NoConnection,
    /// The connection gave the request back before any byte of it was sent.
    Unsent,
    /// The upstream said that it did not look at the request (RFC 9113 section 8.7).
    Unprocessed,
    /// The connection ended, and not one byte had come back since the request was sent.
    Silent,
    /// Anything else: the upstream may have acted on the request.
    Final,
}

/// What an attempt was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// Whether doing it twice is the same as doing it once.
    pub(crate) idempotent: bool,
    /// Whether the connection had served another request before.
    pub(crate) reused: bool,
    /// Whether it was a second attempt at the same endpoint already.
    pub(crate) repeated: bool,
    /// Whether the whole request is at hand: given back, or copied before.
    pub(crate) at_hand: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Report the failure.
    Stop,
    /// Send it to the same endpoint again, over another connection.
    SameEndpoint,
    /// Send it to the next endpoint, if there is one.
    OtherEndpoint,
}

/// Decides after an attempt that brought no response.
///
/// What never left goes anywhere. What may have left goes out again only if the upstream said that it did not look,
/// or if it may be repeated and what it went over was an old connection that ended without a word: that is how
/// an upstream closes a connection that had rested (RFC 9112 section 9.3.1). One repetition is enough: the second
/// attempt has a new connection.
pub(crate) fn next(loss: Loss, attempt: Attempt) -> Next {
    if !attempt.at_hand {
        return Next::Stop;
    }
    match loss {
        Loss::NoConnection => Next::OtherEndpoint,
        Loss::Unsent if !attempt.reused => Next::OtherEndpoint,
        _ if attempt.repeated => Next::Stop,
        Loss::Unsent | Loss::Unprocessed => Next::SameEndpoint,
        Loss::Silent if attempt.reused && attempt.idempotent => Next::SameEndpoint,
        Loss::Silent | Loss::Final => Next::Stop,
    }
}

/// Whether all of a request is here, so that a copy of it can be kept.
pub(crate) fn is_at_hand(request: &Request<Body>) -> bool {
    !matches!(request.body(), Body::Stream(_))
}

/// Whether sending a request of this method twice is the same as sending it once (RFC 9110 section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ]
    .contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD_GET: Attempt = Attempt {
        idempotent: true,
        reused: true,
        repeated: false,
        at_hand: true,
    };
    const OLD_POST: Attempt = Attempt {
        idempotent: false,
        ..OLD_GET
    };

    #[test]
    fn what_may_have_been_acted_on_is_never_sent_again() {
        let new_get = Attempt {
            reused: false,
            ..OLD_GET
        };
        for (loss, attempt) in [
            (Loss::Silent, OLD_POST),
            (Loss::Silent, new_get),
            (Loss::Final, OLD_GET),
            (Loss::Final, OLD_POST),
            (Loss::Final, new_get),
        ] {
            assert_eq!(next(loss, attempt), Next::Stop, "{loss:?} {attempt:?}");
        }
    }

    #[test]
    fn what_was_not_acted_on_is_sent_again() {
        let new_post = Attempt {
            reused: false,
            ..OLD_POST
        };
        for (loss, attempt, expected) in [
            (Loss::Silent, OLD_GET, Next::SameEndpoint),
            (Loss::Unsent, OLD_POST, Next::SameEndpoint),
            (Loss::Unsent, new_post, Next::OtherEndpoint),
            (Loss::Unprocessed, OLD_POST, Next::SameEndpoint),
            (Loss::Unprocessed, new_post, Next::SameEndpoint),
            (Loss::NoConnection, new_post, Next::OtherEndpoint),
        ] {
            assert_eq!(next(loss, attempt), expected, "{loss:?} {attempt:?}");
        }
    }

    #[test]
    fn once_is_enough_and_what_is_gone_is_gone() {
        let losses = [
            Loss::NoConnection,
            Loss::Unsent,
            Loss::Unprocessed,
            Loss::Silent,
            Loss::Final,
        ];
        for loss in losses {
            let again = Attempt {
                repeated: true,
                ..OLD_GET
            };
            assert_ne!(next(loss, again), Next::SameEndpoint, "{loss:?}");
            let gone = Attempt {
                at_hand: false,
                ..OLD_GET
            };
            assert_eq!(next(loss, gone), Next::Stop, "{loss:?}");
        }
    }
}
