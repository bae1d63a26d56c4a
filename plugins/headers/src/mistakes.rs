//! Collects what is wrong with a configuration, each mistake with the key that it stands at, so that the operator is told of
//! all of them at once. Knows no key by itself.

use std::fmt;

use tidegate_sdk::ConfigError;

/// The path of a key in the configuration, such as `request[1].set.x-a`.
#[derive(Clone, Debug)]
pub(crate) struct Place(String);

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<String>);

impl Place {
    /// A key at the top.
    pub(crate) fn top(key: &str) -> Self {
        Place(key.to_owned())
    }

    /// A key below.
    pub(crate) fn key(&self, key: &str) -> Self {
        Place([self.0.as_str(), ".", key].concat())
    }

    /// An element of a list.
    pub(crate) fn at(&self, index: usize) -> Self {
        Place([self.0.as_str(), "[", &index.to_string(), "]"].concat())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Mistakes {
    /// Adds one.
    pub(crate) fn add(&mut self, place: &Place, what: &str) {
        self.0.push(["`", &place.0, "`: ", what].concat());
    }

    /// What came out, or none with its mistake kept.
    pub(crate) fn take<T>(&mut self, place: &Place, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.add(place, &what)).ok()
    }

    /// # Errors
    /// All of them, in one line.
    pub(crate) fn end(self) -> Result<(), ConfigError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(self.0.join("; ").into())
        }
    }
}
