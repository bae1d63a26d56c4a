//! The command line: what may be written there, and the help. It must not know what any command does.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

#[cfg(target_os = "linux")]
use crate::compiler::child;
use crate::config::{self, Admin};

/// Version and commit.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("TIDEGATE_COMMIT"),
    ")"
);

const EXAMPLES: &str = "\
Examples:
  tidegate run --upstream http://127.0.0.1:9000
      Forward everything to one server, through every filter in ./plugins.
  tidegate check --config gateway.toml
      Say what is wrong with a configuration and its filters, without opening a port.
  tidegate inspect plugins/auth.wasm
      Say what a file is and what it will need.

Exit status:
  0  all went well
  1  it failed; the message on standard error says why
  2  the command line is wrong";

const RUN_HELP: &str = "\
Without a configuration file it listens on 127.0.0.1:8080, shows its state on 127.0.0.1:9901, and sends every request \
through every filter of ./plugins in the order of their file names: `10-auth.wasm` is the filter `auth`, the number only \
orders. What the command line says comes before what the file says.

Files may change at any time. New, changed and removed filters and a changed configuration take effect without a \
dropped request; a file that can't be used leaves what runs in place, and log and admin pages say why.

Signals:
  SIGTERM, SIGINT  end, once running requests have (`drain-timeout`); twice: at once
  SIGHUP           read configuration and filters again, and open the access log anew
  SIGUSR1          open the access log anew

Examples:
  tidegate run --upstream http://127.0.0.1:9000 --upstream http://127.0.0.1:9001
  tidegate run --config gateway.toml --log-format json
  tidegate run --listen 0.0.0.0:80 --admin off --log-level warn,tidegate=debug

Exit status:
  0    it was told to end, and running requests have ended or were cut off at `drain-timeout`
  1    it could not start: the configuration or an address is wrong; or a worker failed
  2    the command line is wrong
  130  a second signal ended it at once";

const CHECK_HELP: &str = "\
Reads the configuration and compiles, links and configures every filter, as `tidegate run` would, but opens no port. \
All mistakes are told at once on standard error, each as `FILE:LINE:COLUMN: what is wrong` with the line and what to do; \
a filter's mistake names the file and gives the filter's own words. Without mistakes, a summary goes to standard output.

Exit status:
  0  no mistakes; there may be warnings
  1  there are mistakes
  2  the command line is wrong";

const INSPECT_HELP: &str = "\
Reads a .wasm file without running it: its kind (native core, native component, or why it is not a filter), the \
phases that it takes part in, what it imports, what it will have to be granted, its memory and its size, and the version \
of the contract that it was made for.

Exit status:
  0  it is a filter that this version runs
  1  it is not, or the file can't be read
  2  the command line is wrong";

const SCHEMA_HELP: &str = "\
Editors use it to complete and check the file while it is written. For one that understands `#:schema` comments, write \
the schema to a file and begin the configuration with `#:schema ./tidegate.schema.json`.

Examples:
  tidegate schema > tidegate.schema.json
  tidegate schema --filter > filter.schema.json";

/// An HTTP reverse proxy whose behaviour is written as WebAssembly filters.
///
/// Put .wasm files into a folder and run it: requests and responses pass through the filters. A changed file is live
/// at once, without a dropped request. A filter is sandboxed and reaches only what it is granted.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the program speaks of itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// How log lines look: text, json, or text on a terminal and json otherwise
    #[arg(long, value_name = "FORMAT", default_value = "auto", global = true)]
    pub(crate) log_format: LogFormat,
    /// Which log lines are written: error, warn, info, debug or trace, and as `info,tidegate=debug` for a part of the
    /// program. `filter` is what the filters say. [default: the variable RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level, global = true)]
    pub(crate) log_level: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
    Auto,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy
    #[command(after_help = RUN_HELP)]
    Run(ConfigArgs),
    /// Say what is wrong with the configuration and the filters
    #[command(after_help = CHECK_HELP)]
    Check(ConfigArgs),
    /// Say what a .wasm file is
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
    /// Print the JSON Schema of the configuration
    #[command(after_help = SCHEMA_HELP)]
    Schema(SchemaArgs),
    /// Compile one filter, for the program itself
    #[cfg(target_os = "linux")]
    #[command(name = child::COMMAND, hide = true)]
    CompileFilter(child::CompileArgs),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: ./tidegate.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of filters; it need not exist [default: ./plugins]
    #[arg(short, long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// An address with port to listen on for HTTP/1.1 and HTTP/2 without TLS; may be given several times, port 0 lets
    /// the system choose [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDR", value_parser = address)]
    listen: Vec<SocketAddr>,
    /// The address of the admin pages, or `off` [default: 127.0.0.1:9901]
    #[arg(short, long, value_name = "ADDR", value_parser = admin)]
    admin: Option<Admin>,
    /// A server to forward to (http://, https:// or h2c://); may be given several times to take turns. It defines the
    /// upstream `default`, which is also that of routes that name none
    #[arg(short, long, value_name = "URL")]
    upstream: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE.wasm")]
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The schema of a NAME.toml beside a filter in place of that of the configuration file
    #[arg(long)]
    pub(crate) filter: bool,
}

impl ConfigArgs {
    /// The same, as the configuration takes it.
    pub(crate) fn options(self) -> config::Options {
        config::Options {
            config: self.config,
            plugins: self.plugins,
            listen: self.listen,
            admin: self.admin,
            upstream: self.upstream,
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| config::address_help(text))
}

fn admin(text: &str) -> Result<Admin, String> {
    match text {
        "off" => Ok(Admin::Off),
        text => address(text).map(Admin::At),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; write error, warn, info, debug or trace, or as info,tidegate=debug"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_come_through() {
        let cli = Cli::try_parse_from([
            "tidegate",
            "run",
            "-c",
            "a.toml",
            "--listen",
            "[::1]:80",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--upstream",
            "http://a",
            "--log-level",
            "info,tidegate=debug",
        ])
        .unwrap();
        let Command::Run(args) = cli.command else {
            panic!("not run");
        };
        let options = args.options();
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.admin, Some(Admin::Off));
        assert_eq!(cli.log.log_format, LogFormat::Auto);
    }

    #[test]
    fn wrong_usage_says_what_would_be_right() {
        let error = Cli::try_parse_from(["tidegate", "run", "--listen", ":80"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("0.0.0.0:80"), "{error}");
        assert!(Cli::try_parse_from(["tidegate", "run", "--log-level", "=loud="]).is_err());
        assert!(Cli::try_parse_from(["tidegate"]).is_err());
    }
}
