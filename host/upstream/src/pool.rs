//! One worker's connections at rest: HTTP/1.1 connections that wait for their next request, and HTTP/2
//! connections that take any number. Opens none and sends nothing.
//!
//! Requests reach their endpoint's [`Shelf`] by the upstream's number and the endpoint's position. Upstreams that agree
//! on an endpoint and its TLS settings share its shelf, also across reloads.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as ArcWeak};
use std::time::Duration;

use tidegate_core::clock;
use tidegate_core::metrics::Registry;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::http1::Http1;
use crate::http2::Http2;
use crate::metrics::Figures;
use crate::names::Origin;
use crate::timer::{after, later};
use crate::upstream::{Identity, Target, Upstream};

/// How often, at the least, what rests is looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How long the connections of an upstream that a reload took away wait for its successor.
const GRACE: Duration = Duration::from_secs(10);

/// All connections at rest.
#[derive(Debug)]
pub(crate) struct Pool {
    registry: Arc<Registry>,
    worker: usize,
    known: RefCell<HashMap<u64, Rc<Known>>>,
    shelves: RefCell<HashMap<Arc<Identity>, Weak<Shelf>>>,
    sweeping: Cell<bool>,
}

/// An upstream as this worker knows it.
#[derive(Debug)]
pub(crate) struct Known {
    upstream: ArcWeak<Upstream>,
    pub(crate) figures: Rc<Figures>,
    places: Vec<Place>,
    /// Since when nobody else has the upstream.
    orphaned: Cell<Option<Instant>>,
}

/// An endpoint and its connections.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) target: Arc<Target>,
    pub(crate) shelf: Rc<Shelf>,
}

/// Where a connection began: what decides how long it is of use, whatever it does.
#[derive(Debug)]
pub(crate) struct Age {
    born: Instant,
    origin: Option<Origin>,
}

impl Age {
    /// A connection that is new, perhaps to an address of a name.
    pub(crate) fn new(origin: Option<Origin>) -> Self {
        Age {
            born: Instant::now(),
            origin,
        }
    }

    /// Whether it leads to where its name led once.
    pub(crate) fn is_astray(&self) -> bool {
        self.origin.as_ref().is_some_and(Origin::is_gone)
    }

    /// Until when it may rest, if it begins now.
    fn rests_until(&self, bounds: Bounds) -> Instant {
        after(bounds.keep_alive).min(later(self.born, bounds.max_age))
    }
}

/// How long a connection is of use: without a request, and in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) keep_alive: Duration,
    pub(crate) max_age: Duration,
}

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// The latest used is last and taken first, so that the others may expire.
    idle: RefCell<VecDeque<(Box<Http1>, Instant)>>,
    shared: RefCell<Option<(Rc<Http2>, Instant)>>,
    /// Held by whoever opens the HTTP/2 connection, so that a burst opens one.
    pub(crate) gate: Mutex<()>,
    speaks_http2: Cell<bool>,
}

impl Known {
    /// Every endpoint once, beginning with the one whose turn it is.
    pub(crate) fn turn(&self, upstream: &Upstream) -> impl Iterator<Item = &Place> {
        let first = upstream.next_turn();
        self.places
            .iter()
            .cycle()
            .skip(first)
            .take(self.places.len())
    }

    fn holds_connections(&self) -> bool {
        self.places.iter().any(|place| !place.shelf.is_empty())
    }
}

impl Shelf {
    /// An HTTP/1.1 connection that waits for a request.
    pub(crate) fn take(&self) -> Option<Box<Http1>> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::from_std(clock::turn());
        while let Some((mut connection, until)) = idle.pop_back() {
            if until > now && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// The HTTP/2 connection, if there is one that takes requests.
    pub(crate) fn shared(&self, bounds: Bounds) -> Option<Rc<Http2>> {
        let mut shared = self.shared.borrow_mut();
        match &mut *shared {
            Some((connection, until)) if !connection.is_closed() && !connection.age.is_astray() => {
                let now = Instant::now();
                let dies = later(connection.age.born, bounds.max_age);
                if dies <= now {
                    // What is under way on it is finished there.
                    *shared = None;
                    return None;
                }
                *until = dies.min(later(now, bounds.keep_alive));
                Some(connection.clone())
            }
            _ => {
                *shared = None;
                None
            }
        }
    }

    /// Gives an HTTP/2 connection to nobody any more. Requests that are under way end with it.
    pub(crate) fn retire(&self, connection: &Rc<Http2>) {
        let mut shared = self.shared.borrow_mut();
        if matches!(&*shared, Some((held, _)) if Rc::ptr_eq(held, connection)) {
            *shared = None;
        }
    }

    /// Whether the endpoint has spoken HTTP/2 before.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.speaks_http2.get()
    }

    fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.shared.borrow().is_none()
    }

    /// Closes what has rested too long, and says when the next will have.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|(connection, until)| {
            connection.flow.trim();
            *until > now && connection.is_quiet()
        });
        let mut shared = self.shared.borrow_mut();
        let is_over = |held: &Http2| held.is_closed() || held.age.is_astray();
        if matches!(&*shared, Some((held, until)) if *until <= now || is_over(held)) {
            *shared = None;
        }
        let idle = idle.iter().map(|(_, until)| *until);
        idle.chain(shared.iter().map(|(_, until)| *until)).min()
    }
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Self {
        Pool {
            registry,
            worker,
            known: RefCell::default(),
            shelves: RefCell::default(),
            sweeping: Cell::new(false),
        }
    }

    /// What this worker has of an upstream.
    pub(crate) fn known(&self, upstream: &Arc<Upstream>) -> Rc<Known> {
        if let Some(known) = self.known.borrow().get(&upstream.number()) {
            return known.clone();
        }
        let name = upstream.name().clone();
        let places = upstream.targets().iter().map(|target| Place {
            target: target.clone(),
            shelf: self.shelf(&target.identity),
        });
        let known = Rc::new(Known {
            upstream: Arc::downgrade(upstream),
            figures: Rc::new(Figures::new(self.registry.clone(), self.worker, name)),
            places: places.collect(),
            orphaned: Cell::new(None),
        });
        let held = known.clone();
        self.known.borrow_mut().insert(upstream.number(), held);
        // A new upstream is a sign of a reload: there may be old ones to forget.
        self.expire(Instant::now());
        known
    }

    fn shelf(&self, identity: &Arc<Identity>) -> Rc<Shelf> {
        let mut shelves = self.shelves.borrow_mut();
        if let Some(shelf) = shelves.get(identity).and_then(Weak::upgrade) {
            return shelf;
        }
        let shelf = Rc::new(Shelf::default());
        shelves.insert(identity.clone(), Rc::downgrade(&shelf));
        shelf
    }

    /// Lets an HTTP/1.1 connection rest, beside no more than `keep` - 1 others.
    pub(crate) fn put(
        self: &Rc<Self>,
        shelf: &Shelf,
        connection: Box<Http1>,
        keep: usize,
        bounds: Bounds,
    ) {
        let until = connection.age.rests_until(bounds);
        if keep == 0 || bounds.keep_alive.is_zero() || connection.age.is_astray() {
            return;
        }
        let mut idle = shelf.idle.borrow_mut();
        while idle.len() >= keep {
            // The oldest goes: it is the likeliest to be closed by the other side soon.
            idle.pop_front();
        }
        idle.push_back((connection, until));
        drop(idle);
        self.sweep();
    }

    /// Keeps a new HTTP/2 connection for everyone.
    pub(crate) fn share(self: &Rc<Self>, shelf: &Shelf, new: &Rc<Http2>, bounds: Bounds) {
        shelf.speaks_http2.set(true);
        let entry = (new.clone(), new.age.rests_until(bounds));
        *shelf.shared.borrow_mut() = Some(entry);
        self.sweep();
    }

    /// Sees to it that what has rested too long is closed even if nobody asks for it.
    fn sweep(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what has rested too long, forgets upstreams that are gone, and says when to look again.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.known.borrow_mut().retain(|_, known| {
            for place in &known.places {
                let soonest = place.shelf.expire(now);
                next = next.into_iter().chain(soonest).min();
            }
            if known.upstream.strong_count() > 0 {
                return true;
            }
            let since = known.orphaned.get().unwrap_or(now);
            known.orphaned.set(Some(since));
            known.holds_connections() && now.saturating_duration_since(since) < GRACE
        });
        self.shelves
            .borrow_mut()
            .retain(|_, shelf| shelf.strong_count() > 0);
        next.map(|next| next.min(now + SWEEP))
    }

    /// How many HTTP/1.1 connections rest and are still open.
    #[cfg(test)]
    pub(crate) fn resting(&self) -> usize {
        let shelves = self.shelves.borrow();
        let shelves = shelves.values().filter_map(Weak::upgrade);
        shelves
            .map(|shelf| {
                let mut idle = shelf.idle.borrow_mut();
                idle.retain_mut(|(held, _)| held.is_quiet());
                idle.len()
            })
            .sum()
    }

    /// How many upstreams and endpoints are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> (usize, usize) {
        (self.known.borrow().len(), self.shelves.borrow().len())
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        let Some(held) = pool.upgrade() else { return };
        let Some(next) = held.expire(Instant::now()) else {
            held.sweeping.set(false);
            return;
        };
        drop(held);
        tokio::time::sleep_until(next).await;
    }
}
