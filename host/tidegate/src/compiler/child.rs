//! The compiler's own process: gives up what it does not need, then makes code of the file on standard input. It must
//! not know who asked, reads no configuration and opens nothing.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use clap::{Args, ValueEnum};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use tidegate_wasm::{Kind, precompile};

use crate::config::units::{Size, Time};

/// The subcommand's name. It is for this program's own use and not in its help.
pub(crate) const COMMAND: &str = "compile-filter";
/// The exit status when there is no code and standard error says why.
pub(crate) const REFUSED: i32 = 3;
/// Files that it may have open: those that it was given, and what its runtime takes.
const FILES: u64 = 32;

/// What the compiler is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompileArgs {
    /// How the filter is carried
    kind: Carrier,
    /// Memory that it may have
    #[arg(long)]
    memory: Size,
    /// Time on all processors together
    #[arg(long)]
    processor_time: Time,
    /// The most bytes of code
    #[arg(long)]
    code: Size,
}

/// [`Kind`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Carrier {
    Core,
    Component,
}

/// A kind as the command line has it.
pub(super) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::NativeCore => "core",
        Kind::NativeComponent => "component",
    }
}

/// Compiles standard input to standard output.
pub(crate) fn run(args: &CompileArgs) -> ExitCode {
    if let Err(error) = confine(args) {
        return refuse(&format!("the compiler can't be confined: {error}"));
    }
    let kind = match args.kind {
        Carrier::Core => Kind::NativeCore,
        Carrier::Component => Kind::NativeComponent,
    };
    // A thread has a deeper stack than the program.
    let worker = thread::Builder::new().spawn(move || work(kind));
    let worked = worker.map_err(|error| error.to_string()).and_then(|it| {
        it.join()
            .unwrap_or_else(|_| Err("the compiler failed on it".to_owned()))
    });
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => refuse(&reason),
    }
}

fn work(kind: Kind) -> Result<(), String> {
    let passing_on = |error: io::Error| format!("the compiler can't pass on its work: {error}");
    let mut file = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut file)
        .map_err(passing_on)?;
    let code = precompile(kind, &file)?;
    let mut out = io::stdout().lock();
    out.write_all(&code)
        .and_then(|()| out.flush())
        .map_err(passing_on)
}

fn refuse(reason: &str) -> ExitCode {
    crate::commands::message(reason);
    u8::try_from(REFUSED).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Gives up whatever a compiler does not need, for good. Memory is bounded as the kernel counts data: what is only
/// reserved, as allocators do for each thread, costs nothing.
fn confine(args: &CompileArgs) -> io::Result<()> {
    // Whoever asked is gone: nobody waits for the code any more.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    let seconds = args.processor_time.0.as_secs().saturating_add(1);
    for (resource, bound) in [
        (Resource::Data, args.memory.0),
        (Resource::Fsize, args.code.0),
        (Resource::Nofile, FILES),
        (Resource::Core, 0),
    ] {
        limit(resource, bound, bound)?;
    }
    // The signal at the first bound says what happened; at the second one the kernel just ends it.
    limit(Resource::Cpu, seconds, seconds.saturating_add(1))?;
    Ok(())
}

fn limit(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    // No more than is allowed already.
    let before = rustix::process::getrlimit(resource).maximum;
    let maximum = before.map_or(maximum, |before| before.min(maximum));
    let new = Rlimit {
        current: Some(current.min(maximum)),
        maximum: Some(maximum),
    };
    Ok(setrlimit(resource, new)?)
}
