//! What the fuzz target of the configuration reaches of this crate. No part of any interface: it changes with what stands
//! behind it.

use std::path::Path;

use crate::config::environment::Environment;
use crate::config::{self, Options, Outcome};

/// What came of a configuration.
#[derive(Debug)]
pub struct Read {
    /// Whether it would be run with.
    pub accepted: bool,
    /// What has to be put right, as it is printed.
    pub mistakes: Vec<String>,
    /// The effective configuration, if there is one: what the admin pages show.
    pub shown: Option<String>,
}

/// Reads a configuration file as `tidegate check` does, without its filters. The environment has one variable, `TOKEN`.
pub fn read(file: &Path) -> Read {
    let options = Options {
        config: Some(file.to_owned()),
        ..Options::default()
    };
    let environment = Environment::fixed([("TOKEN", "s3cr3t")]);
    let Outcome {
        checked, mistakes, ..
    } = config::load(&options, &environment);
    Read {
        accepted: checked.is_some() && mistakes.is_empty(),
        mistakes: mistakes.iter().map(ToString::to_string).collect(),
        shown: checked.map(|checked| config::view::view(&checked).to_string()),
    }
}
