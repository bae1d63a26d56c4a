//! A set of positions in a route's chain. Costs nothing for the first 64.

use std::cell::{Cell, RefCell};

#[derive(Debug, Default)]
pub(crate) struct Marks {
    low: Cell<u64>,
    high: RefCell<Vec<usize>>,
}

impl Marks {
    pub(crate) fn set(&self, position: usize) {
        if position < 64 {
            self.low.set(self.low.get() | 1 << position);
        } else if !self.has(position) {
            self.high.borrow_mut().push(position);
        }
    }

    pub(crate) fn has(&self, position: usize) -> bool {
        if position < 64 {
            self.low.get() & 1 << position != 0
        } else {
            self.high.borrow().contains(&position)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_marked_one_by_one() {
        let marks = Marks::default();
        for position in [0, 63, 64, 200] {
            assert!(!marks.has(position));
            marks.set(position);
            marks.set(position);
            assert!(marks.has(position));
        }
        assert!(!marks.has(1) && !marks.has(65));
    }
}
