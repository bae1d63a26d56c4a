//! What each filter of a route takes part in, decided once when a snapshot is installed, so that an exchange asks nobody
//! for what nobody wants.

use tidegate_core::phase::{BodyMode, BodyWish, Interests, Overflow, Phase};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Direction {
    pub(crate) fn head(self) -> Phase {
        match self {
            Direction::Request => Phase::RequestHead,
            Direction::Response => Phase::ResponseHead,
        }
    }

    pub(crate) fn body(self) -> Phase {
        match self {
            Direction::Request => Phase::RequestBody,
            Direction::Response => Phase::ResponseBody,
        }
    }

    pub(crate) fn trailers(self) -> Phase {
        match self {
            Direction::Request => Phase::RequestTrailers,
            Direction::Response => Phase::ResponseTrailers,
        }
    }
}

/// One filter's place in a route's chain.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its position among the snapshot's filters.
    pub(crate) filter: usize,
    pub(crate) request: Needs,
    pub(crate) response: Needs,
    /// Whether it wants to know of the end.
    pub(crate) log: bool,
}

/// What a filter wants of one direction.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) head: bool,
    pub(crate) body: Wish,
    pub(crate) trailers: bool,
    /// Bounds for a body that is collected, also because the head's callback asked for it.
    pub(crate) whole: BodyWish,
}

/// How a filter wants a body, unless it holds the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Pieces,
    Whole,
}

impl Step {
    /// A filter without interests stands for one that never could be loaded.
    pub(crate) fn new(filter: usize, interests: Option<&Interests>) -> Self {
        let interests = interests.copied().unwrap_or_default();
        let needs = |direction: Direction, wish: BodyWish| Needs {
            head: interests.phases.has(direction.head()),
            body: match wish.mode {
                _ if !interests.phases.has(direction.body()) => Wish::Nothing,
                BodyMode::OnHold => Wish::Nothing,
                BodyMode::Stream => Wish::Pieces,
                BodyMode::Whole => Wish::Whole,
            },
            trailers: interests.phases.has(direction.trailers()),
            whole: wish,
        };
        Step {
            filter,
            request: needs(Direction::Request, interests.request_body),
            response: needs(Direction::Response, interests.response_body),
            log: interests.phases.has(Phase::Log),
        }
    }

    pub(crate) fn needs(&self, direction: Direction) -> &Needs {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }
}

impl Needs {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.head && self.body == Wish::Nothing && !self.trailers
    }
}

/// What a route's filters may still want to see of a head that has gone on: only then is it copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Later {
    /// Of the request, once it is on its way to the upstream.
    pub(crate) request: bool,
    /// Of the response, once it is on its way to the client.
    pub(crate) response: bool,
}

impl Later {
    pub(crate) fn of(steps: &[Step]) -> Self {
        // What is collected is judged before the head goes, but for a body that is too long and may stream then.
        let streams = |needs: &Needs| {
            needs.body == Wish::Pieces || needs.trailers || needs.whole.overflow == Overflow::Stream
        };
        Later {
            request: steps
                .iter()
                .any(|step| streams(&step.request) || !step.response.is_nothing() || step.log),
            response: steps.iter().any(|step| streams(&step.response) || step.log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::phase::Phases;

    #[test]
    fn a_head_is_kept_for_whoever_is_called_later() {
        let later = |phases: &[Phase], mode| {
            let interests = Interests {
                phases: phases.iter().copied().collect(),
                request_body: BodyWish {
                    mode,
                    ..BodyWish::default()
                },
                response_body: BodyWish {
                    mode,
                    ..BodyWish::default()
                },
            };
            let later = Later::of(&[Step::new(0, Some(&interests))]);
            (later.request, later.response)
        };
        let hold = BodyMode::OnHold;
        assert_eq!(Later::of(&[]), Later::default());
        assert_eq!(later(&[Phase::RequestHead], hold), (false, false));
        assert_eq!(
            later(&[Phase::RequestHead, Phase::RequestBody], hold),
            (false, false)
        );
        assert_eq!(
            later(&[Phase::RequestBody], BodyMode::Stream),
            (true, false)
        );
        assert_eq!(later(&[Phase::RequestTrailers], hold), (true, false));
        assert_eq!(later(&[Phase::ResponseHead], hold), (true, false));
        assert_eq!(
            later(&[Phase::ResponseBody], BodyMode::Stream),
            (true, true)
        );
        assert_eq!(
            later(&[Phase::ResponseBody], BodyMode::Whole),
            (true, false)
        );
        assert_eq!(later(&[Phase::ResponseTrailers], hold), (true, true));
        assert_eq!(later(&[Phase::Log], hold), (true, true));
        // A head that is held goes on before a body that is longer than what is collected.
        let interests = Interests {
            phases: Phases::NONE.with(Phase::ResponseHead),
            response_body: BodyWish {
                overflow: Overflow::Stream,
                ..BodyWish::default()
            },
            ..Interests::default()
        };
        assert!(Later::of(&[Step::new(0, Some(&interests))]).response);
    }

    #[test]
    fn a_body_on_hold_is_no_need_of_its_own() {
        let interests = Interests {
            phases: Phases::NONE
                .with(Phase::RequestHead)
                .with(Phase::RequestBody)
                .with(Phase::ResponseBody),
            request_body: BodyWish::default(),
            response_body: BodyWish {
                mode: BodyMode::Stream,
                ..BodyWish::default()
            },
        };
        let step = Step::new(3, Some(&interests));
        assert!(step.request.head);
        assert_eq!(step.request.body, Wish::Nothing);
        assert_eq!(step.response.body, Wish::Pieces);
        assert!(!step.response.is_nothing() && !step.log);
        assert!(Step::new(0, None).request.is_nothing());
    }
}
