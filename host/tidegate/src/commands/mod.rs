//! One file a command. Results go to standard output, messages to standard error; a reader that went away is no error.

pub(crate) mod check;
pub(crate) mod inspect;
pub(crate) mod run;
pub(crate) mod schema;

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::diagnostic::Mistake;

/// Writes a result.
fn result(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            message(&format!("tidegate: the result can't be written: {error}\n"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes a message.
pub(crate) fn message(text: &str) {
    // Nobody is left to be told of a failure.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes mistakes and warnings for a person to read.
pub(crate) fn report(mistakes: &[Mistake], warnings: &[Mistake]) {
    let mut text = String::new();
    for mistake in mistakes {
        text.push_str(&format!("{mistake}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    message(&text);
}
