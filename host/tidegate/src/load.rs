//! From a file to a filter that has accepted its configuration: read, compile, load. It must not know when this
//! happens, nor what runs already.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tidegate_core::filter::FilterModule;
use tidegate_core::services::Services;
use tidegate_wasm::{Allow, Compiled, Engine, EngineError, EngineOptions, LoadError, LoadOptions};

use crate::compiler;
use crate::config::checked::{Compile, Filter, Server};
use crate::plugins;

/// Why a file is no filter that could be put into service. The file itself is named by the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// It is no filter, or can't be linked, or refused its configuration.
    #[error("{0}")]
    Load(#[from] LoadError),
}

/// Makes the engine that the configuration asks for.
///
/// # Errors
/// See [`EngineError`].
pub(crate) fn engine(server: &Server) -> Result<Engine, EngineError> {
    Engine::new(EngineOptions {
        cache: server.cache.clone(),
        max_file: server.compile.max_file,
        compiler: compiler::with(server.compile),
        instances: server.filter_pool.instances,
        stack: server.filter_pool.stack,
    })
}

/// The engine when the configuration can't be read: without a cache, with the default bounds.
///
/// # Errors
/// See [`EngineError`].
pub(crate) fn engine_without_configuration() -> Result<Engine, EngineError> {
    let bounds = Compile::default();
    Engine::new(EngineOptions {
        max_file: bounds.max_file,
        compiler: compiler::with(bounds),
        ..EngineOptions::default()
    })
}

/// Reads and compiles a plugin. Heavy on the processor, unless it is in the cache.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn compile(engine: &Engine, file: &Path) -> Result<Arc<Compiled>, Fault> {
    let bytes = read(engine, file)?;
    Ok(engine.compile(&bytes)?)
}

/// Reads a plugin that is not larger than the engine takes.
///
/// # Errors
/// See [`plugins::read`].
pub(crate) fn read(engine: &Engine, file: &Path) -> io::Result<Vec<u8>> {
    let bound = u64::try_from(engine.max_file()).unwrap_or(u64::MAX);
    plugins::read(file, bound).map_err(|error| match error.kind() {
        kind @ io::ErrorKind::FileTooLarge => {
            io::Error::new(kind, format!("{error} (`max-file` in [server.compile])"))
        }
        _ => error,
    })
}

/// Links a compiled plugin and lets it read its configuration.
///
/// # Errors
/// See [`LoadError`].
pub(crate) fn load(
    engine: &Engine,
    compiled: &Arc<Compiled>,
    filter: &Filter,
    services: &Services,
) -> Result<Arc<dyn FilterModule>, LoadError> {
    let options = LoadOptions {
        name: Arc::clone(&filter.name),
        config: filter.config.clone(),
        allow: Allow {
            http: filter.allow.http.clone(),
            store: filter.allow.store.clone(),
            env: filter.allow.env.clone(),
        },
        limits: filter.limits,
        isolation: filter.isolation,
        services: services.clone(),
    };
    engine.load(compiled, options)
}
