//! Time, in nanoseconds. In tests both clocks stand still until [`Harness::advance`](crate::test::Harness::advance) moves them.

/// Nanoseconds from an arbitrary start, never backwards: for measuring how long something took.
///
/// ```
/// use tidegate_sdk::clock;
///
/// let began = clock::monotonic();
/// let milliseconds = (clock::monotonic() - began) / 1_000_000;
/// # assert_eq!(milliseconds, 0);
/// ```
pub fn monotonic() -> u64 {
    crate::host::monotonic()
}

/// Nanoseconds since 1970-01-01T00:00:00Z: for dates that somebody else wrote. It may jump when the machine's clock is set.
///
/// ```
/// let seconds = tidegate_sdk::clock::wall() / 1_000_000_000;
/// # let _ = seconds;
/// ```
pub fn wall() -> u64 {
    crate::host::wall()
}
