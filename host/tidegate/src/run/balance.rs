//! Which worker serves a connection. The kernel deals connections to the workers' sockets by a hash of their addresses,
//! which leaves workers idle while others have several, as long as connections are few. So a worker that accepts one
//! while it has more than the least busy hands it over to that one. Knows no socket and no protocol.

use std::sync::Arc;

use tidegate_core::metrics::{Gauge, Registry};
use tokio::sync::mpsc;

/// A worker is not relieved before it has more than the least busy by this part of what that one has: where connections
/// are many, the kernel's dealing is even enough, and handing over is not free.
const SLACK: f64 = 4.0;

/// What a worker has to do, and how to give it more.
#[derive(Debug)]
struct Seat<T> {
    /// Its open connections: a figure, which serves as the measure as well.
    open: Gauge,
    hand: mpsc::UnboundedSender<Handed<T>>,
}

/// All workers, as one of them sees them.
#[derive(Debug)]
pub(crate) struct Balance<T> {
    own: usize,
    seats: Arc<[Seat<T>]>,
}

/// A connection is counted against a worker for as long as this is held.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

/// Something that another worker handed over, counted already.
#[derive(Debug)]
pub(crate) struct Handed<T> {
    /// What it is.
    pub(crate) what: T,
    /// Its place with the worker that has it now.
    pub(crate) counted: Counted,
}

/// Where a worker receives what others hand over.
pub(crate) type Hands<T> = mpsc::UnboundedReceiver<Handed<T>>;

/// Who serves what a worker accepted.
#[derive(Debug)]
pub(crate) enum Choice<'a, T> {
    /// That worker itself.
    Keep(Counted),
    /// A less busy one.
    Give(Recipient<'a, T>),
}

/// The worker that something is to be handed over to.
#[derive(Debug)]
pub(crate) struct Recipient<'a, T> {
    seat: &'a Seat<T>,
    counted: Counted,
}

impl Counted {
    fn new(open: &Gauge) -> Self {
        open.add(1.0);
        Counted(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Balances for so many workers.
pub(crate) fn among<T>(workers: usize, registry: &Registry) -> Vec<(Balance<T>, Hands<T>)> {
    let (seats, hands): (Vec<_>, Vec<_>) = (0..workers)
        .map(|worker| {
            let (hand, hands) = mpsc::unbounded_channel();
            let open = registry.gauge(
                "tidegate_worker_connections",
                "Client connections that are open, by worker.",
                &[("worker", &worker.to_string())],
            );
            // A figure that nobody sees counts all the same.
            let open = open.unwrap_or_default();
            (Seat { open, hand }, hands)
        })
        .unzip();
    let seats: Arc<[_]> = seats.into();
    hands
        .into_iter()
        .enumerate()
        .map(|(own, hands)| {
            let seats = Arc::clone(&seats);
            (Balance { own, seats }, hands)
        })
        .collect()
}

impl<T> Balance<T> {
    /// Who is to serve what this worker has just accepted.
    pub(crate) fn choose(&self) -> Choice<'_, T> {
        match self.relief() {
            None => Choice::Keep(self.keep()),
            Some(seat) => Choice::Give(Recipient {
                seat,
                counted: Counted::new(&seat.open),
            }),
        }
    }

    /// Counts what this worker serves itself, whatever others have.
    pub(crate) fn keep(&self) -> Counted {
        match self.seats.get(self.own) {
            Some(seat) => Counted::new(&seat.open),
            None => Counted::new(&Gauge::default()),
        }
    }

    /// The least busy worker, if it has so much less to do than this one that it had better have the next.
    fn relief(&self) -> Option<&Seat<T>> {
        let own = self.seats.get(self.own)?.open.get();
        let others = self.seats.iter().enumerate();
        let others = others.filter(|(at, _)| *at != self.own);
        let (theirs, least) = others
            .map(|(_, seat)| (seat.open.get(), seat))
            .min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        (own > theirs + (theirs / SLACK).floor()).then_some(least)
    }
}

impl<T> Recipient<'_, T> {
    /// Hands it over.
    ///
    /// # Errors
    /// That worker takes nothing any more, because the end is near: here it is again.
    pub(crate) fn give(self, what: T) -> Result<(), T> {
        let Recipient { seat, counted } = self;
        let handed = Handed { what, counted };
        let given = seat.hand.send(handed);
        given.map_err(|mpsc::error::SendError(back)| back.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type All = Vec<(Balance<u32>, Hands<u32>)>;

    /// Lets a worker accept something, and says who has it.
    fn accept(all: &mut All, worker: usize) -> (usize, Counted) {
        let given = match all[worker].0.choose() {
            Choice::Keep(counted) => return (worker, counted),
            Choice::Give(recipient) => recipient.give(7),
        };
        if given.is_err() {
            return (worker, all[worker].0.keep());
        }
        all.iter_mut()
            .enumerate()
            .find_map(|(at, (_, hands))| Some((at, hands.try_recv().ok()?.counted)))
            .unwrap()
    }

    fn open(all: &All) -> Vec<f64> {
        let seats = all[0].0.seats.iter();
        seats.map(|seat| seat.open.get()).collect()
    }

    fn among(workers: usize) -> All {
        super::among(workers, &Registry::new())
    }

    #[test]
    fn few_connections_are_spread_evenly_whoever_accepts_them() {
        let mut all = among(4);
        let held: Vec<_> = (0..16).map(|_| accept(&mut all, 2).1).collect();
        assert_eq!(open(&all), [4.0; 4]);
        drop(held);
        assert_eq!(open(&all), [0.0; 4]);
    }

    #[test]
    fn among_many_only_a_great_difference_counts() {
        let mut all = among(2);
        let mut held: Vec<_> = (0..200).map(|_| accept(&mut all, 0).1).collect();
        assert_eq!(open(&all).iter().sum::<f64>(), 200.0);
        held.clear();
        // As the kernel deals them: nearly even.
        for _ in 0..50 {
            held.extend([accept(&mut all, 0).1, accept(&mut all, 1).1]);
        }
        for _ in 0..12 {
            let (whose, counted) = accept(&mut all, 0);
            assert_eq!(whose, 0);
            held.push(counted);
        }
        let (whose, _) = accept(&mut all, 0);
        assert_eq!(whose, 0, "50 and 12 are within the slack");
        held.push(accept(&mut all, 0).1);
        assert_eq!(accept(&mut all, 0).0, 1);
    }

    #[test]
    fn one_worker_keeps_all() {
        let mut all = among(1);
        let held: Vec<_> = (0..5).map(|_| accept(&mut all, 0)).collect();
        assert!(held.iter().all(|(whose, _)| *whose == 0));
    }

    #[test]
    fn what_another_takes_no_more_stays() {
        let mut all = among(2);
        let first = accept(&mut all, 0);
        all[1].1.close();
        let (whose, _second) = accept(&mut all, 0);
        assert_eq!((first.0, whose), (0, 0));
        assert_eq!(open(&all), [2.0, 0.0]);
    }
}
