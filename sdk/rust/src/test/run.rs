//! The order in which the proxy calls a filter for one direction of an exchange. Decides nothing that the filter decides.

use super::Harness;
use crate::filter::Exported;
use crate::host::mock::{self, Fields};
use crate::phase::{BodyMode, Flow, Overflow, Phase};

/// The bytes that the proxy collects unless the filter or the operator says otherwise.
const WHOLE: usize = 1024 * 1024;

/// One callback's circumstances.
#[derive(Clone, Copy)]
struct Now {
    phase: Phase,
    head_open: bool,
    end: bool,
}

impl<F: Exported> Harness<F> {
    /// The head, the body in pieces or whole, the trailers. Gives the body and the trailers that go on.
    pub(super) fn direction(
        &self,
        id: u64,
        head: Phase,
        pieces: Vec<Vec<u8>>,
        trailers: Option<Fields>,
    ) -> (Vec<u8>, Option<Fields>) {
        let (body, wish) = match head {
            Phase::RequestHead => (Phase::RequestBody, self.interests.request_body),
            _ => (Phase::ResponseBody, self.interests.response_body),
        };
        let nothing = (Vec::new(), None);
        let end = pieces.is_empty() && trailers.is_none();
        let mut flow = Flow::Continue;
        if self.interests.has(head) {
            flow = self.call(
                id,
                Now {
                    phase: head,
                    head_open: true,
                    end,
                },
            );
        }
        let takes = self.interests.has(body);
        let whole = flow == Flow::Hold || (takes && wish.mode == BodyMode::Whole);
        let streams = takes && wish.mode == BodyMode::Stream && !end;
        let limit = if wish.limit == 0 {
            WHOLE
        } else {
            wish.limit as usize
        };
        let total: usize = pieces.iter().map(Vec::len).sum();
        let sent = if flow == Flow::Answer {
            None
        } else if whole && total <= limit {
            self.piece(
                id,
                pieces.concat(),
                Now {
                    phase: body,
                    head_open: true,
                    end: true,
                },
            )
        } else if whole && wish.overflow == Overflow::Refuse {
            self.host.borrow_mut().exchange.answer = Some(too_large(head));
            None
        } else if whole {
            self.overflow(id, body, pieces, limit)
        } else if streams {
            self.stream(id, body, pieces, trailers.is_none())
        } else {
            Some(pieces.concat())
        };
        let Some(sent) = sent else { return nothing };
        match trailers.map(|trailers| self.trailers(id, head, trailers)) {
            None => (sent, None),
            Some(Some(trailers)) => (sent, Some(trailers)),
            Some(None) => nothing,
        }
    }

    /// Piece by piece. The end comes with the last piece, or behind it if trailers follow.
    fn stream(&self, id: u64, phase: Phase, pieces: Vec<Vec<u8>>, end: bool) -> Option<Vec<u8>> {
        let mut sent = Vec::new();
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            let end = end && index + 1 == count;
            sent.append(&mut self.piece(
                id,
                piece,
                Now {
                    phase,
                    head_open: false,
                    end,
                },
            )?);
        }
        if !end {
            let now = Now {
                phase,
                head_open: false,
                end: true,
            };
            sent.append(&mut self.piece(id, Vec::new(), now)?);
        }
        Some(sent)
    }

    /// What has come when the bound is passed, with the head still here, and the rest piece by piece.
    fn overflow(
        &self,
        id: u64,
        phase: Phase,
        pieces: Vec<Vec<u8>>,
        limit: usize,
    ) -> Option<Vec<u8>> {
        let mut rest = pieces.into_iter();
        let mut held = Vec::new();
        while held.len() <= limit
            && let Some(mut piece) = rest.next()
        {
            held.append(&mut piece);
        }
        let mut sent = self.piece(
            id,
            held,
            Now {
                phase,
                head_open: true,
                end: false,
            },
        )?;
        sent.append(&mut self.stream(id, phase, rest.collect(), false)?);
        Some(sent)
    }

    /// One body callback; none if the filter answered.
    fn piece(&self, id: u64, piece: Vec<u8>, now: Now) -> Option<Vec<u8>> {
        self.host.borrow_mut().exchange.piece = piece;
        let flow = self.call(id, now);
        let piece = std::mem::take(&mut self.host.borrow_mut().exchange.piece);
        (flow != Flow::Answer).then_some(piece)
    }

    /// The trailers' callback, if the filter takes it; none if it answered.
    fn trailers(&self, id: u64, head: Phase, trailers: Fields) -> Option<Fields> {
        let phase = match head {
            Phase::RequestHead => Phase::RequestTrailers,
            _ => Phase::ResponseTrailers,
        };
        if !self.interests.has(phase) {
            return Some(trailers);
        }
        let place = |exchange: &mut mock::Exchange, trailers| match phase {
            Phase::RequestTrailers => std::mem::replace(&mut exchange.request_trailers, trailers),
            _ => std::mem::replace(&mut exchange.response_trailers, trailers),
        };
        place(&mut self.host.borrow_mut().exchange, Some(trailers));
        let flow = self.call(
            id,
            Now {
                phase,
                head_open: false,
                end: true,
            },
        );
        let left = place(&mut self.host.borrow_mut().exchange, None);
        if flow == Flow::Answer { None } else { left }
    }

    #[expect(clippy::panic, reason = "a test harness fails tests")]
    fn call(&self, id: u64, now: Now) -> Flow {
        let Now {
            phase,
            head_open,
            end,
        } = now;
        let length = {
            let mut host = self.host.borrow_mut();
            host.exchange.phase = Some(phase);
            host.exchange.head_open = head_open;
            host.exchange.answer = None;
            host.exchange.delay = 0;
            host.current = id;
            u32::try_from(host.exchange.piece.len()).unwrap_or(u32::MAX)
        };
        let slot = &self.slot;
        let flow = mock::inside(&self.host, || match phase {
            Phase::RequestHead => slot.request_head(id, end),
            Phase::RequestBody => slot.request_body(id, length, end),
            Phase::RequestTrailers => slot.request_trailers(id),
            Phase::ResponseHead => slot.response_head(id, end),
            Phase::ResponseBody => slot.response_body(id, length, end),
            Phase::ResponseTrailers => slot.response_trailers(id),
            Phase::Log => Flow::Continue,
        });
        {
            let exchange = &mut self.host.borrow_mut().exchange;
            exchange.delayed += std::mem::take(&mut exchange.delay);
        }
        match flow {
            Flow::Hold if !matches!(phase, Phase::RequestHead | Phase::ResponseHead) => {
                panic!("the filter returned `Flow::Hold` from {phase:?}: only a head can be held")
            }
            Flow::Answer if self.host.borrow().exchange.answer.is_none() => {
                panic!(
                    "the filter returned `Flow::Answer` from {phase:?}, but there is no answer: none was given, or it was refused"
                )
            }
            _ => flow,
        }
    }
}

/// What the proxy says to a body over the bound.
fn too_large(head: Phase) -> (u16, Fields, Vec<u8>) {
    (
        if head == Phase::RequestHead { 413 } else { 502 },
        Vec::new(),
        Vec::new(),
    )
}
