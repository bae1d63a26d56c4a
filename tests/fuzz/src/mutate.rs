//! Inputs made from inputs: a byte, a word, a stretch at a time. A seed gives the same inputs again.

/// Random numbers that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The longest input, in bytes.
const LONGEST: usize = 4096;

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound; 0 for the bound 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let number = self.next().checked_rem(bound).unwrap_or(0);
        usize::try_from(number).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes().first().copied().unwrap_or(0)
    }

    /// One of some; none of nothing.
    pub fn one<'a, T>(&mut self, some: &'a [T]) -> Option<&'a T> {
        some.get(self.below(some.len()))
    }
}

/// An input a few steps away from `input`, with words of a dictionary and parts of `other`.
pub fn mutate(input: &[u8], other: &[u8], dictionary: &[&str], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 => replace(&mut bytes, at, (at + 1).min(end), &[random.byte()]),
            1 => {
                let flipped = bytes
                    .get(at)
                    .map_or(0, |byte| byte ^ (1 << random.below(8)));
                replace(&mut bytes, at, (at + 1).min(end), &[flipped]);
            }
            2 => replace(&mut bytes, at, at, &[random.byte()]),
            3 => replace(&mut bytes, at, end, &[]),
            4 => {
                let again = bytes
                    .get(at..end)
                    .unwrap_or_default()
                    .repeat(1 + random.below(8));
                replace(&mut bytes, at, at, &again);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                replace(&mut bytes, at, end, other.get(from..to).unwrap_or_default());
            }
            _ => {
                let word = random.one(dictionary).map_or("", |word| *word);
                let end = if random.below(2) == 0 { at } else { end };
                replace(&mut bytes, at, end, word.as_bytes());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn replace(bytes: &mut Vec<u8>, from: usize, to: usize, with: &[u8]) {
    if from <= to && to <= bytes.len() {
        bytes.splice(from..to, with.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again_and_they_differ() {
        let run = |seed| {
            let mut random = Random::new(seed);
            let make = |_| mutate(b"GET / HTTP/1.1", b"other", &["word"], &mut random);
            (0..50).map(make).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let mut different = run(1);
        different.sort();
        different.dedup();
        assert!(different.len() > 30);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut random = Random::new(7);
        let mut input = Vec::new();
        for _ in 0..2000 {
            input = mutate(&input, &input, &["a word of some length"], &mut random);
            assert!(input.len() <= LONGEST);
        }
    }
}
