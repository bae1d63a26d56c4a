//! The binary: reads the command line and hands over to a command. It must know no more than that.

mod cli;
mod commands;
mod config;
mod diagnostic;
mod load;
mod logging;
mod plugins;
mod run;
mod self_check;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
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
    }
}
