//! Fuzz targets: functions of bytes that panic when something does not hold which must hold whatever the bytes are. Two
//! drivers call them: `cargo fuzz` (the folder `fuzz`, where a nightly compiler is at hand) and the small one of
//! this crate, `cargo xtask fuzz`. A target must not know which.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "panicking is how a target says what did not hold"
)]

pub mod driver;
pub mod mutate;
mod source;
pub mod targets;

use std::path::PathBuf;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What the command line calls it, and the folder of its corpus.
    pub name: &'static str,
    /// Tries some bytes. Gives a number for what happened: bytes with a new one are worth keeping.
    pub fuzz: fn(&[u8]) -> u64,
    /// Words that mean something to what is tried.
    pub dictionary: &'static [&'static str],
}

impl Target {
    /// Where inputs that tell something lie, to begin with.
    pub fn corpus(&self) -> PathBuf {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
        PathBuf::from(root).join(self.name)
    }
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    targets::auth_basic::TARGET,
    targets::auth_keys::TARGET,
    targets::auth_token::TARGET,
    targets::configuration::TARGET,
    targets::forwarding::TARGET,
    targets::framing::TARGET,
    targets::header_replace::TARGET,
    targets::header_template::TARGET,
    targets::host_calls::TARGET,
    targets::route::TARGET,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_corpus_that_holds() {
        for target in TARGETS {
            let seeds = driver::seeds(&target).unwrap();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                (target.fuzz)(&seed);
            }
        }
    }
}
