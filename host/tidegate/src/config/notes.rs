//! What is found on the way through the configuration: mistakes, warnings, and what they make uncertain. It collects
//! and decides nothing.

use crate::diagnostic::Mistake;

/// Everything found so far.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// What has to be put right.
    pub(crate) mistakes: Vec<Mistake>,
    /// What may be meant, but had better be known.
    pub(crate) warnings: Vec<Mistake>,
    /// Pointers into the configuration file to what was left out because of a mistake. What follows from that is no
    /// mistake of its own.
    left_out: Vec<String>,
}

impl Notes {
    /// Notes a mistake.
    pub(crate) fn mistake(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Notes a warning.
    pub(crate) fn warn(&mut self, warning: Mistake) {
        self.warnings.push(warning);
    }

    /// Notes that a part of the configuration file was left out.
    pub(crate) fn leave_out(&mut self, pointer: &str) {
        self.left_out.push(pointer.to_owned());
    }

    /// Whether something at this place, above or below it was left out.
    pub(crate) fn is_uncertain(&self, pointer: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.left_out
            .iter()
            .any(|out| within(out, pointer) || within(pointer, out))
    }
}
