//! Random numbers from the host's generator, fit for secrets. In tests they are the same in every run.

/// Random bytes, `length` of them but at most 4096.
///
/// ```
/// assert_eq!(tidegate_sdk::random::bytes(16).len(), 16);
/// ```
pub fn bytes(length: u32) -> Vec<u8> {
    crate::host::random_bytes(length)
}

/// A number of 64 bits, each value as likely as any other.
///
/// ```
/// let one_in_ten = tidegate_sdk::random::number() % 10 == 0;
/// # let _ = one_in_ten;
/// ```
pub fn number() -> u64 {
    crate::host::random_number()
}
