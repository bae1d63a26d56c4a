//! `tidegate run`: reads the configuration, says what is wrong with it, and starts the proxy.

use std::process::ExitCode;

use crate::config::environment::Environment;
use crate::config::{self, Options, Outcome};
use crate::run::{StartError, start};

/// Runs the proxy until it is told to end.
pub(crate) fn run(options: &Options) -> ExitCode {
    let Outcome {
        checked,
        mistakes,
        warnings,
        file,
    } = config::load(options, &Environment::Process);
    super::report(&mistakes, &[]);
    for warning in &warnings {
        tracing::warn!("{}", warning.in_a_line());
    }
    let Some(checked) = checked else {
        return ExitCode::FAILURE;
    };
    // A filter that a route names and that is nowhere is a slip of the pen, not a bad file.
    let missing = checked
        .filters
        .iter()
        .any(|filter| filter.used && filter.fault.is_some() && !filter.file.exists());
    if missing {
        return ExitCode::FAILURE;
    }
    let file = file.exists().then_some(file);
    let ended: Result<ExitCode, StartError> = start(options.clone(), checked, file, &mistakes);
    ended.unwrap_or_else(|error| {
        super::message(&format!("tidegate: {error}\n"));
        ExitCode::FAILURE
    })
}
