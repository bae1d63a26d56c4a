//! Field maps that are used again: making one for each head, and letting it grow, costs more than reading the head. Knows no
//! fields.

use std::cell::RefCell;

use http::HeaderMap;

/// The most maps that a thread keeps.
const MAX_SPARE: usize = 64;
/// The largest map that is kept, and the room that a new one has, in fields.
const MAX_CAPACITY: usize = 64;
const CAPACITY: usize = 24;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for the fields of most heads.
pub fn take() -> HeaderMap {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| HeaderMap::with_capacity(CAPACITY))
}

/// Takes a map whose fields nobody needs any more. The thread keeps up to 64 of them, of up to 64 fields each.
pub fn give(mut map: HeaderMap) {
    if !(CAPACITY..=MAX_CAPACITY).contains(&map.capacity()) {
        return;
    }
    map.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE {
            spare.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_map_comes_back_empty_and_only_if_it_is_of_a_usual_size() {
        let mut map = take();
        let capacity = map.capacity();
        assert!(capacity >= CAPACITY);
        map.append("secret", HeaderValue::from_static("x"));
        map.append("secret", HeaderValue::from_static("y"));
        give(map);
        let again = take();
        assert!(again.is_empty() && again.capacity() == capacity);
        assert_eq!(again.get_all("secret").iter().count(), 0);
        for size in [0, 1000] {
            give(HeaderMap::with_capacity(size));
            assert!(SPARE.with_borrow(Vec::is_empty));
        }
        for _ in 0..MAX_SPARE + 10 {
            give(HeaderMap::with_capacity(CAPACITY));
        }
        assert_eq!(SPARE.with_borrow(Vec::len), MAX_SPARE);
    }
}
