//! One worker's connections at rest: HTTP/1.1 connections that wait for their next request, and HTTP/2
//! connections that take any number. Opens none.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tidegate_core::body::Body;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::upstream::{Identity, Target, UpstreamConfig};

/// How long a connection whose response is read may take to be ready again. It is ready at once, unless the
/// request's body still goes up: then it is better closed.
const SETTLE: Duration = Duration::from_secs(1);

/// An HTTP/1.1 connection. Dropped, it closes as soon as it has nothing to do.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Body>,
    pub(crate) driver: AbortHandle,
}

/// An HTTP/2 connection, and which one.
#[derive(Clone, Debug)]
pub(crate) struct Http2 {
    pub(crate) sender: http2::SendRequest<Body>,
    pub(crate) id: u64,
}

/// All connections at rest.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    shelves: RefCell<HashMap<Arc<Identity>, Shelf>>,
    sweeping: Cell<bool>,
    next_id: Cell<u64>,
}

/// The connections to one endpoint.
#[derive(Debug, Default)]
struct Shelf {
    /// The latest used is last and taken first, so that the others may expire.
    idle: Vec<(Http1, Instant)>,
    shared: Option<(Http2, Instant)>,
    /// Held by whoever opens the HTTP/2 connection, so that a burst opens one.
    gate: Rc<Mutex<()>>,
    speaks_http2: bool,
}

impl Pool {
    /// A connection that waits for a request.
    pub(crate) fn take(&self, identity: &Arc<Identity>) -> Option<Http1> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(identity)?;
        let now = Instant::now();
        while let Some((connection, until)) = shelf.idle.pop() {
            if until > now && connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// How many connections wait for a request and are still open.
    #[cfg(test)]
    pub(crate) fn resting(&self) -> usize {
        let shelves = self.shelves.borrow();
        let idle = shelves.values().flat_map(|shelf| &shelf.idle);
        idle.filter(|(held, _)| !held.sender.is_closed()).count()
    }

    fn put(self: &Rc<Self>, lease: &Lease, connection: Http1) {
        if lease.keep == 0 {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(lease.identity.clone()).or_default();
        if shelf.idle.len() >= lease.keep {
            // The oldest goes: it is the likeliest to be closed by the other side soon.
            shelf.idle.remove(0);
        }
        shelf.idle.push((connection, after(lease.keep_alive)));
        drop(shelves);
        self.sweep();
    }

    /// The HTTP/2 connection to an endpoint, unless it is the one to avoid.
    pub(crate) fn shared(
        &self,
        identity: &Arc<Identity>,
        keep_alive: Duration,
        avoid: Option<u64>,
    ) -> Option<Http2> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(identity)?;
        match &mut shelf.shared {
            Some((connection, until))
                if !connection.sender.is_closed() && avoid != Some(connection.id) =>
            {
                *until = after(keep_alive);
                Some(connection.clone())
            }
            _ => {
                shelf.shared = None;
                None
            }
        }
    }

    /// Keeps a new HTTP/2 connection for everyone.
    pub(crate) fn share(
        self: &Rc<Self>,
        identity: &Arc<Identity>,
        sender: http2::SendRequest<Body>,
        keep_alive: Duration,
    ) -> Http2 {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        let connection = Http2 { sender, id };
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(identity.clone()).or_default();
        shelf.speaks_http2 = true;
        shelf.shared = Some((connection.clone(), after(keep_alive)));
        drop(shelves);
        self.sweep();
        connection
    }

    /// What to hold while opening an HTTP/2 connection, if the endpoint is known to speak that.
    pub(crate) fn gate(&self, identity: &Arc<Identity>, certain: bool) -> Option<Rc<Mutex<()>>> {
        let mut shelves = self.shelves.borrow_mut();
        if certain {
            let shelf = shelves.entry(identity.clone()).or_default();
            return Some(shelf.gate.clone());
        }
        let shelf = shelves.get(identity)?;
        shelf.speaks_http2.then(|| shelf.gate.clone())
    }

    /// Sees to it that what has rested too long is closed even if nobody asks for it.
    fn sweep(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what has rested too long, and says when to look again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.shelves.borrow_mut().retain(|_, shelf| {
            let alive = |until: Instant| until > now;
            shelf
                .idle
                .retain(|(connection, until)| alive(*until) && !connection.sender.is_closed());
            shelf.shared = shelf
                .shared
                .take()
                .filter(|(connection, until)| alive(*until) && !connection.sender.is_closed());
            let idle = shelf.idle.iter().map(|(_, until)| *until);
            let soonest = idle
                .chain(shelf.shared.iter().map(|(_, until)| *until))
                .min();
            next = next.into_iter().chain(soonest).min();
            soonest.is_some() || Rc::strong_count(&shelf.gate) > 1
        });
        if next.is_none() {
            self.sweeping.set(false);
        }
        next
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(next) = pool.upgrade().and_then(|pool| pool.expire(Instant::now())) else {
            return;
        };
        tokio::time::sleep_until(next).await;
    }
}

/// The point in time after a while; a very long while is as good as for ever.
pub(crate) fn after(duration: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    Instant::now() + duration.min(FOR_EVER)
}

/// An HTTP/1.1 connection in use by one request. Dropped, it breaks the connection off: whoever gives up in the
/// middle must neither leave bytes behind for the next request nor keep the upstream at work.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Http1>,
    pool: Rc<Pool>,
    identity: Arc<Identity>,
    keep: usize,
    keep_alive: Duration,
}

impl Lease {
    pub(crate) fn new(
        pool: &Rc<Pool>,
        target: &Target,
        config: &UpstreamConfig,
        connection: Http1,
    ) -> Self {
        Lease {
            connection: Some(connection),
            pool: pool.clone(),
            identity: target.identity.clone(),
            keep: config.idle_connections,
            keep_alive: config.keep_alive,
        }
    }

    /// Where requests go in.
    pub(crate) fn sender(&mut self) -> Option<&mut http1::SendRequest<Body>> {
        self.connection.as_mut().map(|held| &mut held.sender)
    }

    /// The response is read to its end: the connection may rest.
    pub(crate) fn give_back(mut self) {
        let ready = self.sender().is_some_and(|sender| sender.is_ready());
        if ready {
            self.rest();
            return;
        }
        tokio::task::spawn_local(async move {
            let Some(sender) = self.sender() else { return };
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, sender.ready()).await {
                self.rest();
            }
        });
    }

    fn rest(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.clone().put(self, connection);
        }
    }

    /// The connection has become something else and ends when that does.
    pub(crate) fn let_go(mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.driver.abort();
        }
    }
}
