//! One HTTP/1 connection of a client, from its first request to its last, in one task: `parse` reads heads, `link` is what the
//! exchange under way has of it, `response` writes, `wire` is the socket. Knows nothing of what is served.

mod link;
pub(crate) mod parse;
mod response;
mod wire;

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::Method;
use tidegate_core::clock;
use tidegate_core::http1::spare;
use tokio::time::Instant;

use self::link::Link;
pub(crate) use self::link::{ClientSide, RequestBody};
use self::parse::{Head, Parser};
use self::response::{Asked, Left, Sending};
use self::wire::{READ, Wire};
use crate::answer::ClientFault;
use crate::connection::{Connection, Drain};
use crate::serve;
use crate::settings::Limits;
use crate::stream::ClientStream;
use crate::tunnel;
use crate::upload::Incoming;
use crate::worker::Worker;

/// Serves a connection of which some bytes were read already to its end, tunnels included. `accepted` is when the client's
/// time began.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    io: Box<dyn ClientStream>,
    ahead: Vec<u8>,
    connection: &Rc<Connection>,
    accepted: Instant,
    mut drain: Drain,
) {
    let limits = &worker.shared.settings.limits;
    let link = Link::new(
        Wire::new(io, &ahead, limits.body_idle_timeout),
        &connection.signals,
    );
    drop(ahead);
    let _end = End(Rc::clone(&link));
    poll_fn(|cx| {
        link.own(cx);
        Poll::Ready(())
    })
    .await;
    let mut heads = Heads::new(limits, accepted);
    let news = drain.clone();
    let mut begun = pin!(drain.begun());
    let mut told: Option<Waker> = None;
    let mut is_draining = move |cx: &mut Context<'_>| {
        // Asked only if the answer can be another one.
        let knows = told.as_ref().is_some_and(|told| told.will_wake(cx.waker()));
        if knows && !news.has_news() {
            return false;
        }
        told = Some(cx.waker().clone());
        begun.as_mut().poll(cx).is_ready()
    };
    let unread = loop {
        let next = poll_fn(|cx| heads.poll_next(&link, cx, &mut is_draining)).await;
        let Some(head) = next else { break false };
        let number = connection.turns();
        let place = connection.enter(None);
        let body = link.begin(number, head.framing, head.expects);
        let is_refused = head.fault.is_some();
        let (version, is_head) = (head.parts.version, head.parts.method == Method::HEAD);
        let mut served = pin!(serve::serve(
            Rc::clone(&worker),
            Rc::clone(connection),
            place,
            head.parts,
            Incoming::Http1(body),
            head.fault,
        ));
        let response = poll_fn(|cx| match served.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => link.poll_meanwhile(cx).map(|()| None),
        })
        .await;
        let Some(response) = response else { return };
        let draining = poll_fn(|cx| Poll::Ready(is_draining(cx))).await;
        let asked = Asked {
            version,
            is_head,
            keeps: head.keeps && !draining && !link.is_unasked(),
        };
        let (mut sending, keeps) = {
            let mut wire = link.wire.borrow_mut();
            connection.signals.take_interim(wire.out.heads());
            let (frames, keeps) = response::head(&mut wire.out, &response, asked);
            let (parts, body) = response.into_parts();
            spare::give(parts.headers);
            (Sending::new(body, frames, &mut wire.out), keeps)
        };
        match poll_fn(|cx| sending.poll(&link, cx)).await {
            Left::Whole => {}
            Left::Broken => {
                if connection.signals.is_reset() {
                    link.wire.borrow().reset();
                }
                return;
            }
            Left::Gone => return,
        }
        drop(sending);
        if let Some((journey, upstream)) = connection.tunnel.take() {
            tunnel::join(journey, ClientSide(link), upstream).await;
            return;
        }
        if !keeps {
            break is_refused || !link.is_over() || !link.wire.borrow().read.is_empty();
        }
        if !poll_fn(|cx| link.poll_end(cx)).await {
            break true;
        }
        heads.since = Instant::from_std(clock::turn());
    };
    poll_fn(|cx| link.wire.borrow_mut().poll_close(unread, cx)).await;
}

/// Tells whoever still waits for a request's body that none will come.
struct End(Rc<Link>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The heads of a connection's requests, and how long a client may take over them.
struct Heads {
    parser: Parser,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// Since when the connection waits for a head, or for the rest of one.
    since: Instant,
    /// Whether one is on its way, and whether one ever came.
    begun: bool,
    ever: bool,
}

impl Heads {
    fn new(limits: &Limits, accepted: Instant) -> Self {
        Heads {
            parser: Parser::new(limits),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            since: accepted,
            begun: false,
            ever: false,
        }
    }

    /// The next head; none if there is none to come.
    fn poll_next(
        &mut self,
        link: &Link,
        cx: &mut Context<'_>,
        is_draining: &mut impl FnMut(&mut Context<'_>) -> bool,
    ) -> Poll<Option<Head>> {
        let wire = &mut *link.wire.borrow_mut();
        loop {
            match self.parser.advance(&wire.read) {
                Ok(Some(_)) => return Poll::Ready(Some(self.take(wire, None))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(self.take(wire, Some(fault)))),
            }
            match wire.poll_fill(READ, cx) {
                Poll::Ready(Ok(length)) if length > 0 => continue,
                // What is not whole will never be.
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let begun = self.parser.has_begun(&wire.read);
            if begun && !self.begun && self.ever {
                self.since = Instant::from_std(clock::turn());
            }
            self.begun = begun;
            if !begun {
                wire.trim();
                self.parser.trim();
                if is_draining(cx) {
                    return Poll::Ready(None);
                }
            }
            let patience = if self.ever && !begun {
                self.idle_timeout
            } else {
                self.header_timeout
            };
            ready!(wire.reading.poll_until(self.since + patience, cx));
            let fault = begun.then_some(ClientFault::HeadTimedOut);
            return Poll::Ready(fault.map(|fault| self.take(wire, Some(fault))));
        }
    }

    fn take(&mut self, wire: &mut Wire, fault: Option<ClientFault>) -> Head {
        (self.begun, self.ever) = (false, true);
        let length = self.parser.judged();
        let bytes = wire.read.get(..length).map(Bytes::copy_from_slice);
        wire.read.advance(length.min(wire.read.len()));
        self.parser.take(&bytes.unwrap_or_default(), fault)
    }
}
