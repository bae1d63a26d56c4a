//! `tidegate schema`: the JSON Schema of the configuration.

use std::process::ExitCode;

use crate::cli::SchemaArgs;
use crate::config::schema;

/// Prints a schema.
pub(crate) fn run(args: &SchemaArgs) -> ExitCode {
    let schema = if args.filter {
        schema::filter()
    } else {
        schema::configuration()
    };
    super::result(&format!("{schema:#}\n"))
}
