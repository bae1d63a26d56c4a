//! `tidegate inspect`: what a file is, without running it.

use std::process::ExitCode;

use crate::cli::InspectArgs;
use crate::plugins::{self, MAX_PLUGIN};

/// Prints what a file is; fails if it is no filter.
pub(crate) fn run(args: &InspectArgs) -> ExitCode {
    let bytes = match plugins::read(&args.file, MAX_PLUGIN) {
        Ok(bytes) => bytes,
        Err(error) => {
            let file = args.file.display();
            super::message(&format!("{file}: can't be read: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let report = tidegate_wasm::inspect(&bytes);
    let text = if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => text,
            Err(error) => {
                super::message(&format!("tidegate: the result can't be written: {error}\n"));
                return ExitCode::FAILURE;
            }
        }
    } else {
        report.to_string()
    };
    let written = super::result(&format!("{}\n", text.trim_end()));
    if report.filter {
        written
    } else {
        ExitCode::FAILURE
    }
}
