//! A body that a filter wants to judge before the head goes on: collected up to a bound, shown in one piece, and handed on
//! as the filter left it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::phase::{BodyWish, Overflow};

use crate::answer::{ClientFault, Failure};
use crate::call::Given;
use crate::chain::{Chain, Stop};
use crate::filter_body::FilterBody;
use crate::plan::{Direction, Needs};

/// As much of a body as was collected.
struct Held {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    /// Whether there is more of it.
    over: bool,
}

impl Chain {
    /// Collects the body, lets the filter judge it with the head still here, and hands on what became of it.
    pub(crate) async fn whole(
        self: &Rc<Self>,
        position: usize,
        needs: &Needs,
        direction: Direction,
        mut body: Body,
    ) -> Result<Body, Stop> {
        let held = self.hold(&needs.whole, direction, &mut body).await?;
        let moment = self.moment(position, direction.body(), true, !held.over);
        let done = self.call(moment, Given::Piece(held.bytes.clone())).await?;
        let Given::Piece(mut judged) = done.given else {
            return Ok(body);
        };
        let mut changed = done.changed;
        if held.over {
            if !done.left_out {
                self.length_changes(direction);
            }
            let rest = FilterBody::new(self, position, direction, body, true, needs.trailers);
            return Ok(Body::stream(rest.behind(judged, changed)));
        }
        let mut trailers = held.trailers;
        if needs.trailers
            && let Some(given) = trailers.take()
        {
            let moment = self.moment(position, direction.trailers(), true, true);
            let done = self.call(moment, Given::Trailers(given)).await?;
            if done.left_out {
                // Nothing has left yet: the body is what it was before this filter, too.
                judged = held.bytes;
                changed = false;
            }
            if let Given::Trailers(judged) = done.given {
                trailers = Some(judged);
            }
        }
        if changed {
            self.length_changes(direction);
        }
        Ok(match trailers {
            None => Body::full(judged),
            Some(trailers) => Body::stream(WithTrailers::new(judged, trailers)),
        })
    }

    /// Collects up to the bound, and one piece more if the rest may stream.
    async fn hold(
        &self,
        wish: &BodyWish,
        direction: Direction,
        body: &mut Body,
    ) -> Result<Held, Stop> {
        let limit = wish.limit as usize;
        let refused = || -> Stop {
            match direction {
                Direction::Request => Failure::Client(ClientFault::BodyTooLarge).into(),
                Direction::Response => Failure::ResponseTooLarge.into(),
            }
        };
        // What says from the start that it is too long need not be read.
        if wish.overflow == Overflow::Refuse && body.size_hint().lower() > u64::from(wish.limit) {
            return Err(refused());
        }
        let mut pieces = Pieces::default();
        let mut trailers = None;
        let mut over = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(direction, &error))?;
            match frame.into_data() {
                Ok(data) => pieces.add(data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if pieces.len() > limit {
                if wish.overflow == Overflow::Refuse {
                    return Err(refused());
                }
                over = !body.is_end_stream();
                break;
            }
        }
        Ok(Held {
            bytes: pieces.into_bytes(),
            trailers,
            over,
        })
    }
}

/// Pieces in one; a single one is not copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    more: BytesMut,
}

impl Pieces {
    fn add(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.more.extend_from_slice(&piece);
    }

    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}

/// Bytes that are here, and trailers behind them.
struct WithTrailers {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl WithTrailers {
    fn new(bytes: Bytes, trailers: HeaderMap) -> Self {
        WithTrailers {
            bytes,
            trailers: Some(trailers),
        }
    }
}

impl HttpBody for WithTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let trailers = self.trailers.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    // No exact size: with one, there would be no place for the trailers in HTTP/1.1.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
