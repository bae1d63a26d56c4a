//! The program as a whole: reads the command line and hands over to a command. The binary is nothing but a call of
//! [`main`]; it is a library so that fuzz targets reach what they try.

mod cli;
mod commands;
mod compiler;
mod config;
mod diagnostic;
mod load;
mod logging;
mod plugins;
#[doc(hidden)]
pub mod probe;
mod run;
mod self_check;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What it says goes to whoever started it, as it is.
    #[cfg(target_os = "linux")]
    if let Command::CompileFilter(args) = &cli.command {
        return compiler::child::run(args);
    }
    compiler::this_is_the_program();
    let _log = match logging::start(&cli.log) {
        Ok(guard) => guard,
        Err(error) => {
            commands::message(&format!("tidegate: logging can't start: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    match cli.command {
        Command::Run(args) => commands::run::run(&args.options()),
        Command::Check(args) => commands::check::run(&args.options()),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Schema(args) => commands::schema::run(&args),
        #[cfg(target_os = "linux")]
        Command::CompileFilter(args) => compiler::child::run(&args),
    }
}
