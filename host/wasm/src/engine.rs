//! The process-wide engine: compiles files, counts time for the guests, and loads filters. Knows no ABI but by the
//! one call each.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tidegate_core::filter::FilterModule;
use wasmtime::component::Component;
use wasmtime::{EngineWeak, Module};

use crate::abi;
use crate::bounds;
use crate::cache::Cache;
use crate::compile::{self, Compiler};
use crate::detect::{self, Shape};
use crate::error::{EngineError, LoadError};
use crate::manifest::Manifest;
use crate::options::LoadOptions;
use crate::pool;
use crate::time::TICK;

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The folder of the compile cache, made if it is missing; none: no cache. Nobody else may be able to write
    /// into it: it holds code that runs in this process.
    pub cache: Option<PathBuf>,
    /// The largest file that is compiled, in bytes.
    pub max_file: usize,
    /// Who compiles; none: the process itself, with no bound but on the file and its parts. A process that has
    /// something to lose has another process do it.
    pub compiler: Option<Arc<dyn Compiler>>,
    /// The most instances of all filters and workers together. Address space is reserved for them, memory is not.
    pub instances: u32,
    /// Bytes of stack that a guest's call may use.
    pub stack: usize,
}

/// Counts what is done to a file before it is compiled: code that was made of less is not taken from the cache.
const PREPARED: u32 = 1;

impl Default for EngineOptions {
    /// No cache, 64 MiB, the process itself, 1000 instances, 512 KiB.
    fn default() -> Self {
        EngineOptions {
            cache: None,
            max_file: bounds::FILE,
            compiler: None,
            instances: 1000,
            stack: 512 * 1024,
        }
    }
}

/// Compiles and loads filters. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    runtime: wasmtime::Engine,
    /// What the runtime and its settings are, as far as compiled code depends on them.
    compatibility: u64,
    cache: Option<Cache>,
    max_file: usize,
    compiler: Option<Arc<dyn Compiler>>,
    /// Files that are compiled now, by digest, so that one file is one piece of code.
    compiled: Mutex<HashMap<String, Weak<Compiled>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("cache", &self.0.cache)
            .finish_non_exhaustive()
    }
}

/// Compiled code, not linked.
#[derive(Clone)]
pub(crate) enum Binary {
    Core(Module),
    Component(Component),
}

impl Binary {
    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Binary::Core(module) => module.serialize(),
            Binary::Component(component) => component.serialize(),
        }
    }
}

impl Engine {
    /// Makes an engine and starts the thread that counts time for the guests. The thread ends when the engine and
    /// everything made by it is gone. A cache folder that can't be used is a warning, not an error.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let runtime = pool::runtime(options.instances, options.stack)
            .map_err(|error| EngineError::Runtime(format!("{error:#}")))?;
        let weak = runtime.weak();
        thread::Builder::new()
            .name("tidegate-ticks".to_owned())
            .spawn(move || tick(&weak))
            .map_err(EngineError::Ticker)?;
        let mut hasher = DefaultHasher::new();
        runtime.precompile_compatibility_hash().hash(&mut hasher);
        PREPARED.hash(&mut hasher);
        Ok(Engine(Arc::new(Inner {
            compatibility: hasher.finish(),
            runtime,
            cache: options.cache.as_deref().and_then(Cache::open),
            max_file: options.max_file,
            compiler: options.compiler,
            compiled: Mutex::default(),
        })))
    }

    /// The largest file that is compiled, in bytes.
    pub fn max_file(&self) -> usize {
        self.0.max_file
    }

    /// Compiles a file, or takes it from the cache. Heavy on the processor: not for the request's path.
    ///
    /// # Errors
    /// See [`LoadError`]: everything that can be said without knowing the filter's configuration.
    pub fn compile(&self, bytes: &[u8]) -> Result<Arc<Compiled>, LoadError> {
        let digest = crate::hex(&Sha256::digest(bytes));
        if let Some(known) = self.lock().get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let shape = detect::read(bytes, self.0.max_file, false)?;
        let checked = abi::check(&shape)?;
        let (contract, capabilities) = (checked.contract(), checked.capabilities());
        let binary = self.binary(bytes, &digest, shape.kind)?;
        let linked = checked.link(&shape, &binary)?;
        let compiled = Arc::new(Compiled {
            digest,
            contract,
            capabilities,
            shape,
            linked,
        });
        let mut known = self.lock();
        known.retain(|_, compiled| compiled.strong_count() > 0);
        known.insert(compiled.digest.clone(), Arc::downgrade(&compiled));
        Ok(compiled)
    }

    /// Links a compiled file, checks what it was granted, makes one instance and configures it.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(
        &self,
        compiled: &Arc<Compiled>,
        options: LoadOptions,
    ) -> Result<Arc<dyn FilterModule>, LoadError> {
        compiled.linked.load(&compiled.shape, options)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Compiled>>> {
        self.0
            .compiled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn binary(&self, bytes: &[u8], digest: &str, kind: Kind) -> Result<Binary, LoadError> {
        let key = format!("{digest}-{:016x}", self.0.compatibility);
        let cache = self.0.cache.as_ref();
        if let Some(content) = cache.and_then(|cache| cache.get(&key)) {
            match self.revive(&content, kind) {
                Ok(binary) => return Ok(binary),
                Err(error) => {
                    tracing::debug!(key, "a cached filter is compiled anew: {error:#}");
                    cache.inspect(|cache| cache.remove(&key));
                }
            }
        }
        let (binary, content) = self.build(bytes, kind).map_err(LoadError::Compile)?;
        if let Some(cache) = cache {
            match content.map_or_else(|| binary.serialize(), Ok) {
                Ok(content) => cache.put(&key, &content),
                Err(error) => tracing::warn!("a filter can't be cached: {error:#}"),
            }
        }
        Ok(binary)
    }

    /// Compiles, and gives the code for the cache too if it is at hand.
    fn build(&self, bytes: &[u8], kind: Kind) -> Result<(Binary, Option<Vec<u8>>), String> {
        let Some(compiler) = &self.0.compiler else {
            return compile::here(&self.0.runtime, kind, bytes).map(|binary| (binary, None));
        };
        let content = compiler.compile(kind, bytes)?;
        let binary = self
            .revive(&content, kind)
            .map_err(|error| format!("the compiler's result can't be used: {error:#}"))?;
        Ok((binary, Some(content)))
    }

    /// Makes code of a cache entry, or of what the compiler gave.
    #[expect(
        unsafe_code,
        reason = "the runtime trusts compiled code that it is given; there is no other way to keep it or to have it made elsewhere"
    )]
    fn revive(&self, content: &[u8], kind: Kind) -> wasmtime::Result<Binary> {
        let runtime = &self.0.runtime;
        // SAFETY: the content must come from `serialize` or `precompile_*` of this runtime. Either a `Compiler` gave it,
        // whose implementation vouches for that; or it was written by `Engine::binary` into a folder that belongs to
        // this process's user and that nobody else may write into (`Cache::open`), its checksum was compared
        // (`Cache::get`), and its key names the file's content. The runtime's version and settings are part of the key,
        // and the runtime compares them once more in both cases.
        unsafe {
            match kind {
                Kind::NativeCore => Module::deserialize(runtime, content).map(Binary::Core),
                Kind::NativeComponent => {
                    Component::deserialize(runtime, content).map(Binary::Component)
                }
            }
        }
    }
}

/// Counts time until nobody needs it any more. A thread that was woken late makes up for what it missed, so that
/// ticks stay as long as they should be on a busy machine too.
fn tick(engine: &EngineWeak) {
    let began = Instant::now();
    let mut ticks = 0;
    while let Some(engine) = engine.upgrade() {
        let due = began.elapsed().as_nanos() / TICK.as_nanos();
        // After a machine slept, there is nothing to make up for.
        for _ in 0..due.saturating_sub(ticks).min(100) {
            engine.increment_epoch();
        }
        ticks = due;
        drop(engine);
        let next = TICK.saturating_mul(u32::try_from(ticks + 1).unwrap_or(u32::MAX));
        thread::sleep(next.saturating_sub(began.elapsed()).max(TICK / 4));
    }
}

/// A compiled and linked file. Shared by all filters that are made from it.
pub struct Compiled {
    digest: String,
    contract: String,
    capabilities: Vec<&'static str>,
    shape: Shape,
    linked: abi::Linked,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &self.digest)
            .field("kind", &self.shape.kind)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How the filter is carried.
    pub fn kind(&self) -> Kind {
        self.shape.kind
    }

    /// The version of the contract that it was made for.
    pub fn contract(&self) -> &str {
        &self.contract
    }

    /// What it says of itself.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.shape.manifest.as_ref()
    }

    /// The keys under `allow` without which it is not loaded: `http`, `store`, `env`.
    pub fn capabilities(&self) -> &[&'static str] {
        &self.capabilities
    }

    /// Bytes of memory that an instance begins with.
    pub fn memory(&self) -> u64 {
        self.shape.memory.min
    }
}

/// The carriers and ABIs that this version runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A core module that speaks the native contract's canonical form.
    NativeCore,
    /// A component of the native contract's world.
    NativeComponent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::NativeCore => "native core",
            Kind::NativeComponent => "native component",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const FILTER: &str = r#"(module
        (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))"#;

    fn engine(cache: &std::path::Path) -> Engine {
        Engine::new(EngineOptions {
            cache: Some(cache.to_owned()),
            ..EngineOptions::default()
        })
        .unwrap()
    }

    fn entry(cache: &std::path::Path) -> (PathBuf, Vec<u8>) {
        let mut entries = std::fs::read_dir(cache).unwrap();
        let path = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none());
        (path.clone(), std::fs::read(path).unwrap())
    }

    #[test]
    fn a_file_is_compiled_once_and_known_by_its_content() {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let bytes = wat::parse_str(FILTER).unwrap();
        let one = engine.compile(&bytes).unwrap();
        let two = engine.compile(&bytes).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.digest(), crate::hex(&Sha256::digest(&bytes)));
        assert_eq!(one.kind(), Kind::NativeCore);
        // Nothing is kept for who is gone.
        drop((one, two));
        let other = wat::parse_str(FILTER.replace("log", "request-trailers")).unwrap();
        let error = engine.compile(&other).unwrap_err();
        assert!(matches!(error, LoadError::WrongType { .. }), "{error}");
        engine.compile(&bytes).unwrap();
        assert_eq!(engine.lock().len(), 1);
    }

    #[test]
    fn a_restart_takes_the_code_from_the_cache_and_a_damaged_entry_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let bytes = wat::parse_str(FILTER).unwrap();
        engine(&cache).compile(&bytes).unwrap();
        let (path, whole) = entry(&cache);
        // Proof that the entry is used: its time of last use changes, and its content is not written again.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        engine(&cache).compile(&bytes).unwrap();
        let used = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert!(used > std::time::UNIX_EPOCH);

        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, damaged).unwrap();
        engine(&cache).compile(&bytes).unwrap();
        assert_eq!(entry(&cache).1.len(), whole.len());
        assert!(
            engine(&cache)
                .0
                .cache
                .as_ref()
                .unwrap()
                .get(path.file_stem().unwrap().to_str().unwrap())
                .is_some()
        );
    }

    #[test]
    fn an_entry_that_is_whole_but_no_code_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let bytes = wat::parse_str(FILTER).unwrap();
        let first = engine(&cache);
        first.compile(&bytes).unwrap();
        let (path, _) = entry(&cache);
        let key = path.file_stem().unwrap().to_str().unwrap().to_owned();
        first.0.cache.as_ref().unwrap().put(&key, b"no code at all");
        engine(&cache).compile(&bytes).unwrap();
        assert!(entry(&cache).1.len() > 100);
    }

    #[test]
    fn a_cache_that_can_not_be_used_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let engine = engine(&file.join("cache"));
        engine.compile(&wat::parse_str(FILTER).unwrap()).unwrap();
    }

    /// Compiles in this process, and counts; or says what it was told to say.
    #[derive(Debug, Default)]
    struct Elsewhere {
        says: Option<Result<Vec<u8>, String>>,
        calls: AtomicUsize,
    }

    #[expect(unsafe_code, reason = "what is given is not run unless it is code")]
    // SAFETY: it gives what `precompile` gave, or what the runtime refuses.
    unsafe impl Compiler for Elsewhere {
        fn compile(&self, kind: Kind, file: &[u8]) -> Result<Vec<u8>, String> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            match &self.says {
                Some(result) => result.clone(),
                None => compile::precompile(kind, file),
            }
        }
    }

    #[test]
    fn what_somebody_else_compiled_is_kept_and_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = wat::parse_str(FILTER).unwrap();
        let compiler = Arc::new(Elsewhere::default());
        for _ in 0..2 {
            let options = EngineOptions {
                cache: Some(folder.path().join("cache")),
                compiler: Some(Arc::clone(&compiler) as Arc<dyn Compiler>),
                ..EngineOptions::default()
            };
            let compiled = Engine::new(options).unwrap().compile(&bytes).unwrap();
            assert_eq!(compiled.kind(), Kind::NativeCore);
        }
        assert_eq!(compiler.calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_the_compiler_says_is_told_and_what_is_no_code_is_refused() {
        for (says, told) in [
            (Err("it broke".to_owned()), "it can't be compiled: it broke"),
            (
                Ok(b"not code".to_vec()),
                "it can't be compiled: the compiler's result can't be used",
            ),
        ] {
            let options = EngineOptions {
                compiler: Some(Arc::new(Elsewhere {
                    says: Some(says),
                    ..Elsewhere::default()
                })),
                ..EngineOptions::default()
            };
            let engine = Engine::new(options).unwrap();
            let bytes = wat::parse_str(FILTER).unwrap();
            let error = engine.compile(&bytes).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[test]
    fn a_file_over_the_bound_is_refused_unread() {
        let bytes = wat::parse_str(FILTER).unwrap();
        let engine = Engine::new(EngineOptions {
            max_file: bytes.len() - 1,
            ..EngineOptions::default()
        })
        .unwrap();
        let error = engine.compile(&bytes).unwrap_err().to_string();
        assert!(
            error.contains(&format!("more than the {}", bytes.len() - 1)),
            "{error}"
        );
    }

    #[test]
    fn a_function_that_no_filter_needs_is_refused_before_it_is_compiled() {
        let huge = format!(
            "(module (func {}) {}",
            "(nop)".repeat(2 << 20),
            FILTER.trim_start_matches("(module")
        );
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let error = engine.compile(&wat::parse_str(huge).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it can't be compiled: function 1 of its code has 2097154 bytes, and a function may have 1048576 at most"
        );
    }

    #[test]
    fn the_ticks_end_with_the_engine() {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let weak = engine.0.runtime.weak();
        drop(engine);
        // The thread holds the engine for the time of one tick only.
        while weak.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
