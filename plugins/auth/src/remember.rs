//! Bounded tables of what was found to be good, by a hash that nobody outside can predict. Only successes go in, so nobody
//! can fill a table with guesses; knows no clock, and not what it keeps.

use std::cell::OnceCell;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};
use tidegate_sdk::random;

/// A keyed hash; the key is made when it is first used.
#[derive(Debug, Default)]
pub(crate) struct Keyed(OnceCell<[u64; 2]>);

/// 128 bits: found again means the same bytes, for whoever does not know the key.
pub(crate) type Digest = u128;

impl Keyed {
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> Digest {
        let [first, second] = *self.0.get_or_init(|| [random::number(), random::number()]);
        let mut hasher = SipHasher13::new_with_keys(first, second);
        for part in parts {
            hasher.write(part);
            // A part's end is not another part's beginning.
            hasher.write_usize(part.len());
        }
        hasher.finish128().as_u128()
    }
}

/// How many places a digest may be at.
const WAYS: usize = 4;

/// A table of a fixed number of places. What was used longest ago goes first.
#[derive(Debug)]
pub(crate) struct Table<V> {
    places: Vec<Option<Place<V>>>,
    turn: u64,
}

#[derive(Debug)]
struct Place<V> {
    digest: Digest,
    /// When it was last used, in turns.
    used: u64,
    value: V,
}

impl<V> Table<V> {
    /// A table with about so many places; none with 0.
    pub(crate) fn new(places: u32) -> Self {
        let places = match places {
            0 => 0,
            some => (some.min(1 << 16) as usize).next_power_of_two().max(WAYS),
        };
        let mut all = Vec::new();
        all.resize_with(places, || None);
        Table {
            places: all,
            turn: 0,
        }
    }

    /// The places that a digest may be at.
    fn row(&mut self, digest: Digest) -> &mut [Option<Place<V>>] {
        let rows = self.places.len() / WAYS;
        if rows == 0 {
            return &mut [];
        }
        // A power of two.
        let row = (digest as usize) & (rows - 1);
        self.places
            .get_mut(row * WAYS..(row + 1) * WAYS)
            .unwrap_or_default()
    }

    pub(crate) fn get(&mut self, digest: Digest) -> Option<&V> {
        self.turn += 1;
        let turn = self.turn;
        let place = self
            .row(digest)
            .iter_mut()
            .flatten()
            .find(|place| place.digest == digest)?;
        place.used = turn;
        Some(&place.value)
    }

    pub(crate) fn put(&mut self, digest: Digest, value: V) {
        self.turn += 1;
        let used = self.turn;
        let row = self.row(digest);
        let known = row
            .iter()
            .position(|place| place.as_ref().is_some_and(|place| place.digest == digest));
        let oldest = || {
            let ages = row.iter().enumerate();
            ages.min_by_key(|(_, place)| place.as_ref().map_or(0, |place| place.used))
                .map(|(index, _)| index)
        };
        let index = known.or_else(oldest);
        if let Some(place) = index.and_then(|index| row.get_mut(index)) {
            *place = Some(Place {
                digest,
                used,
                value,
            });
        }
    }

    pub(crate) fn remove(&mut self, digest: Digest) {
        for place in self.row(digest) {
            if place.as_ref().is_some_and(|place| place.digest == digest) {
                *place = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_what_is_used_and_no_more_than_it_has_places() {
        let mut table = Table::new(8);
        for number in 0..1000_u128 {
            table.put(0, 0);
            table.put(number, number);
            assert_eq!(table.get(0), Some(&0), "used all the time");
        }
        assert!(table.places.iter().flatten().count() <= 8);
        table.remove(0);
        assert_eq!(table.get(0), None);
        let mut none = Table::new(0);
        none.put(1, 1);
        assert_eq!(none.get(1), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keyed = Keyed::default();
        assert_eq!(keyed.digest(&[b"a", b"b"]), keyed.digest(&[b"a", b"b"]));
        assert_ne!(keyed.digest(&[b"a", b"b"]), keyed.digest(&[b"ab", b""]));
        assert_ne!(
            keyed.digest(&[b"a"]),
            Keyed::default().digest(&[b"a"]),
            "another key"
        );
    }
}
