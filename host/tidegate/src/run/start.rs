//! From a checked configuration to a running process: everything that can fail at the start fails here, in the order in
//! which it is cheap to find out.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use tidegate_core::clock::{Clock, SystemClock};
use tidegate_core::metrics::Registry;
use tidegate_core::services::Services;
use tidegate_gateway::Shared;
use tidegate_gateway::access_log::{AccessLog, Format};
use tidegate_gateway::state::{MemoryStore, TokenBuckets};
use tidegate_wasm::EngineError;
use tokio::runtime::{Builder, LocalOptions};

use super::bounds::{Bounds, OfSources};
use super::build::{self, BuildError};
use super::control::Control;
use super::descriptors::make_room;
use super::filters::Tools;
use super::inherited;
use super::listen::ListenError;
use super::listeners::{self, OpenError};
use super::pass::Reader;
use super::tls::TlsError;
use crate::config::Options;
use crate::config::checked::{self, AccessFormat, Checked};
use crate::diagnostic::Mistake;
use crate::load;
use crate::logging::{self, GuestLog};

/// Bytes of the store that filters share.
const STORE: usize = 64 << 20;

/// Why the process could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// An address is taken or not allowed.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// An address can't be served.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// No wasm on this machine.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// No TLS.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The configuration can't be put together.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// The access log can't be opened.
    #[error("the access log can't be written to {path}: {error}")]
    AccessLog { path: String, error: io::Error },
    /// No threads, no runtime, no signals.
    #[error("{what} can't be had: {error}")]
    System {
        what: &'static str,
        error: io::Error,
    },
    /// A worker ended that should not have.
    #[error(
        "worker {0} ended; the process ends with it, since its connections would not be served"
    )]
    Worker(usize),
    /// The first look at the filters failed in a way that no filter may cause.
    #[error("the filters can't be loaded")]
    Loader,
}

/// Everything that the control thread begins with.
pub(crate) struct Parts {
    pub(crate) reader: Reader,
    pub(crate) checked: Checked,
    pub(crate) shared: Arc<Shared>,
    pub(crate) bounds: Arc<Bounds>,
    pub(crate) registry: Arc<Registry>,
}

/// Runs the proxy until it is told to end. `file` is the configuration's file, if there is one; `mistakes` were told
/// already.
///
/// # Errors
/// See [`StartError`].
pub(crate) fn start(
    options: Options,
    checked: Checked,
    file: Option<PathBuf>,
    mistakes: &[Mistake],
) -> Result<ExitCode, StartError> {
    inherited::take();
    listeners::probe(&checked.server)?;
    let registry = Arc::new(Registry::new());
    report_panics(&registry);
    logging::count_in(&registry);
    let homeless = |name: &str| std::env::var_os(name).is_none_or(|it| it.is_empty());
    if checked.server.cache.is_none() && homeless("HOME") && homeless("XDG_CACHE_HOME") {
        tracing::warn!(
            "compiled filters are not kept for the next start: neither HOME nor XDG_CACHE_HOME is set; `cache` in [server] names a folder"
        );
    }
    let engine = load::engine(&checked.server)?;
    let access_log = access_log(checked.server.access_log.as_ref(), &registry)?;
    let shared = Arc::new(Shared {
        settings: build::settings(&checked.server),
        registry: Arc::clone(&registry),
        access_log,
    });
    let limits = &checked.server.limits;
    let connections = make_room(limits.max_connections, checked.server.workers);
    let bounds = Arc::new(Bounds::new(connections, limits.handshake_timeout));
    bounds.change_sources(OfSources::of(&checked.server));
    bounds.export(&registry);
    let tools = Tools {
        engine,
        services: services(&registry),
    };
    let reader = Reader::new(options, tools, checked.clone(), file, mistakes);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| StartError::System {
            what: "a runtime",
            error,
        })?;
    let ended = runtime.block_on(Control::run(Parts {
        reader,
        checked,
        shared,
        bounds,
        registry,
    }));
    // A look that still runs is of no use any more.
    runtime.shutdown_background();
    ended
}

/// Opens the access log, if there is to be one.
pub(crate) fn access_log(
    wanted: Option<&checked::AccessLog>,
    registry: &Registry,
) -> Result<Option<AccessLog>, StartError> {
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let format = match wanted.format {
        AccessFormat::Text => Format::Text,
        AccessFormat::Json => Format::Json,
    };
    let log = AccessLog::start(wanted.path.clone(), format, registry);
    log.map(Some).map_err(|error| StartError::AccessLog {
        path: wanted.path.as_ref().map_or_else(
            || "standard output".to_owned(),
            |path| path.display().to_string(),
        ),
        error,
    })
}

fn services(registry: &Arc<Registry>) -> Services {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Services {
        store: Arc::new(
            MemoryStore::new(Arc::clone(&clock), STORE).counted_in(Arc::clone(registry)),
        ),
        limiter: Arc::new(TokenBuckets::new(Arc::clone(&clock))),
        metrics: Arc::clone(registry),
        log: Arc::new(GuestLog),
        clock,
    }
}

/// A panic ends the task that it happens in. It is logged and counted; what it says may hold anything, so only its place
/// is told.
fn report_panics(registry: &Registry) {
    let help = "Panics, each of which ended a connection or a task.";
    let owner = tidegate_core::metrics::Owner::Process;
    let counter = registry
        .counter(owner, "tidegate_panics_total", help, &[])
        .unwrap_or_default();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counter.increment();
        // Where a panic ends the process, the log's own thread may not come to write.
        if cfg!(panic = "abort") {
            before(panic);
        }
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place,
            thread = thread.name(),
            "a panic: this is a mistake in tidegate; please report it"
        );
    }));
}

/// Locks, whatever became of the thread that held it before.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
