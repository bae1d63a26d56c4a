//! How the latest reading of the configuration and its certificates went, for the admin pages and the figures. Decides
//! nothing.

use jiff::Timestamp;
use serde::Serialize;

use super::pass::Configuration;

/// Whether what lies on disk is what is in force.
#[derive(Debug, Serialize)]
pub(crate) struct Standing {
    /// `ok`: it is. `refused`: it can't be used, and what was in force before still is.
    state: &'static str,
    /// When that became so.
    since: String,
    /// When what is in force came into force.
    in_force_since: String,
    /// Why it is refused.
    mistakes: Vec<String>,
}

impl Standing {
    /// After a start with a configuration that can be used.
    pub(crate) fn good(now: Timestamp) -> Self {
        Standing {
            state: "ok",
            since: now.to_string(),
            in_force_since: now.to_string(),
            mistakes: Vec::new(),
        }
    }

    /// Takes note of what came of a look.
    pub(crate) fn follow(&mut self, configuration: &Configuration, now: Timestamp) {
        match configuration {
            // Put back to what it was is as good as put right.
            Configuration::Same if self.is_good() => {}
            Configuration::Same => {
                *self = Standing {
                    in_force_since: std::mem::take(&mut self.in_force_since),
                    ..Standing::good(now)
                };
            }
            Configuration::Changed { .. } => *self = Standing::good(now),
            Configuration::Refused { mistakes, .. } => {
                if self.is_good() {
                    self.since = now.to_string();
                }
                self.state = "refused";
                self.mistakes.clone_from(mistakes);
            }
        }
    }

    /// Whether what lies on disk is in force.
    pub(crate) fn is_good(&self) -> bool {
        self.mistakes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_refusal_lasts_until_it_is_put_right_and_what_is_in_force_keeps_its_age() {
        let refused = |what: &str, again| Configuration::Refused {
            mistakes: vec![what.to_owned()],
            again,
        };
        let mut standing = Standing::good(at(1));
        standing.follow(&Configuration::Same, at(2));
        assert_eq!(
            (standing.state, &*standing.since),
            ("ok", &*at(1).to_string())
        );
        standing.follow(&refused("a", false), at(3));
        standing.follow(&refused("b", false), at(4));
        standing.follow(&refused("b", true), at(5));
        assert!(!standing.is_good());
        assert_eq!(standing.state, "refused");
        assert_eq!(standing.since, at(3).to_string());
        assert_eq!(standing.mistakes, ["b"]);
        standing.follow(&Configuration::Same, at(6));
        assert!(standing.is_good());
        assert_eq!(standing.since, at(6).to_string());
        assert_eq!(standing.in_force_since, at(1).to_string());
        let changed = Configuration::Changed {
            warnings: Vec::new(),
        };
        standing.follow(&changed, at(7));
        assert_eq!(standing.in_force_since, at(7).to_string());
    }
}
