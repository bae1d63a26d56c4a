//! How many instances are worth keeping where each exchange has one of its own: as many as were at work at once lately.
//! Exchanges come in bursts, and what was thrown away at the end of one would be made anew at the beginning of the next.

use std::hash::{BuildHasherDefault, Hasher};

/// Idle instances that are kept however little there is to do.
const LEAST: usize = 2;
/// What counts as lately: the exchanges of this and the last so many.
const LATELY: u32 = 256;

#[derive(Debug, Default)]
pub(super) struct Demand {
    /// The most at once among the exchanges that are counted now, and among those before.
    most: usize,
    before: usize,
    counted: u32,
}

impl Demand {
    /// So many are at work now.
    pub(super) fn busy(&mut self, busy: usize) {
        self.most = self.most.max(busy);
    }

    /// An exchange is over, and so many go on.
    pub(super) fn ended(&mut self, busy: usize) {
        self.counted += 1;
        if self.counted == LATELY {
            self.before = self.most;
            self.most = busy;
            self.counted = 0;
        }
    }

    /// How many there should be besides those that are at work.
    pub(super) fn idle(&self, busy: usize) -> usize {
        let most = self.most.max(self.before);
        most.saturating_sub(busy).max(LEAST)
    }
}

/// For tables by the exchanges' ids. Those are the gateway's own numbers, which nobody chooses.
pub(super) type Spread = BuildHasherDefault<Multiply>;

#[derive(Debug, Default)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Tables look at the highest and at the lowest bits.
        self.0 = (self.0 ^ id)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_remembered_for_a_while() {
        let mut demand = Demand::default();
        assert_eq!(demand.idle(0), LEAST);
        demand.busy(40);
        for _ in 0..LATELY {
            demand.ended(0);
            assert_eq!((demand.idle(0), demand.idle(30)), (40, 10));
        }
        for _ in 0..LATELY {
            demand.busy(1);
            demand.ended(0);
        }
        assert_eq!(demand.idle(0), LEAST);
    }
}
