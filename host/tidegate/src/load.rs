//! From a file to a filter that has accepted its configuration: read, compile, load. It must not know when this
//! happens, nor what runs already.

use std::path::Path;
use std::sync::Arc;

use tidegate_core::filter::FilterModule;
use tidegate_core::services::Services;
use tidegate_wasm::{Allow, Compiled, Engine, EngineError, EngineOptions, LoadError, LoadOptions};

use crate::config::checked::{Filter, Server};
use crate::plugins::{self, MAX_PLUGIN};

/// Why a file is no filter that could be put into service. The file itself is named by the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
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
        instances: server.filter_pool.instances,
        stack: server.filter_pool.stack,
    })
}

/// Reads and compiles a plugin. Heavy on the processor, unless it is in the cache.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn compile(engine: &Engine, file: &Path) -> Result<Arc<Compiled>, Fault> {
    let bytes = plugins::read(file, MAX_PLUGIN)?;
    Ok(engine.compile(&bytes)?)
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
