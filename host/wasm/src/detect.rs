//! What a file is, from its bytes alone: a native filter in one of its two carriers, another known thing, or
//! nothing. The file's name plays no part. Runs nothing and knows no engine.

use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::{EntityType, Types};
use wasmparser::{MemoryType, Parser, Payload, ValidPayload, Validator, WasmFeatures};

use tidegate_core::phase::Phase;

use crate::bounds;
use crate::contract;
use crate::engine::Kind;
use crate::error::LoadError;
use crate::manifest::{self, Manifest};

const PAGE: u64 = 64 * 1024;

/// A file of a kind that this version runs, as far as it can be known without an engine.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) imports: Vec<Item>,
    pub(crate) exports: Vec<Item>,
    pub(crate) memory: Memories,
    /// Elements at the beginning of the tables that it defines, all together.
    pub(crate) table: u64,
    pub(crate) manifest: Option<Manifest>,
}

/// An import or export. A core module's export has no module; a component's function stands under its
/// interface as module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) ty: ItemType,
}

/// What an import or export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemType {
    /// A core function, with its type as text: `(i32, i64) -> i32`.
    Function(String),
    /// A component's function. The component runtime checks its type.
    Lifted,
    Memory,
    /// Anything else, in a word.
    Other(&'static str),
}

/// The linear memories that a file defines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memories {
    pub(crate) count: usize,
    /// Bytes at the beginning, all together.
    pub(crate) min: u64,
    /// Bytes at most, if all of them say so.
    pub(crate) max: Option<u64>,
}

/// Reads a file of at most so many bytes. `bodies` says whether functions' bodies are looked at too; compiling does that
/// anyway.
pub(crate) fn read(bytes: &[u8], max_file: usize, bodies: bool) -> Result<Shape, LoadError> {
    before_parsing(bytes, max_file).map_err(LoadError::NotAFilter)?;
    bounds::sections(bytes).map_err(LoadError::NotAFilter)?;
    if bodies {
        bounds::functions(bytes).map_err(LoadError::NotAFilter)?;
    }
    let parts = parse(bytes, bodies).map_err(LoadError::NotAFilter)?;
    let component = parts.component;
    let (imports, exports) = if component {
        component_items(&parts)
    } else {
        core_items(&parts.types)
    };
    let kind = kind(component, &imports, &exports).map_err(LoadError::NotAFilter)?;
    let manifest = match parts.manifest {
        None => None,
        Some(json) => Some(manifest::read(json).map_err(LoadError::NotAFilter)?),
    };
    Ok(Shape {
        kind,
        imports,
        exports,
        memory: memories(&parts.memories, component).map_err(LoadError::NotAFilter)?,
        table: parts.table,
        manifest,
    })
}

impl Shape {
    /// The callbacks that it exports, in the order of phases.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        Phase::ALL
            .into_iter()
            .filter(|phase| {
                self.exports.iter().any(|export| {
                    callback_of(export)
                        .is_some_and(|found| matches!(found, Ok(c) if c.phase == *phase && !c.post))
                })
            })
            .collect()
    }
}

/// Reads an export's name as a callback, whatever the carrier.
pub(crate) fn callback_of(export: &Item) -> Option<Result<contract::Callback, contract::Version>> {
    if export.module.is_empty() {
        contract::callback(&export.name)
    } else {
        contract::callback(&format!("{}#{}", export.module, export.name))
    }
}

fn before_parsing(bytes: &[u8], max_file: usize) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if bytes.len() > max_file {
        return Err(format!(
            "the file has {} bytes, more than the {max_file} that are read",
            bytes.len()
        ));
    }
    if bytes.starts_with(b"\0asm") {
        return if bytes.len() < 8 {
            Err("the file is truncated: it ends within its first 8 bytes".to_owned())
        } else {
            Ok(())
        };
    }
    let head: &[u8] = bytes.get(..512).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head)
        .trim_start()
        .to_ascii_lowercase();
    let what = if bytes.starts_with(b"\x1f\x8b") {
        "the file is compressed with gzip: unpack it first"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "the file is a zip archive: unpack it first"
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        "the file is compressed with zstd: unpack it first"
    } else if bytes.starts_with(b"\x7fELF") {
        "the file is a native program, or was compiled beforehand; neither is ever run: give the .wasm itself, built for \
         wasm32-unknown-unknown"
    } else if ["(module", "(component", ";;", "(;"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        "the file is WebAssembly text: translate it with a tool such as wat2wasm first"
    } else if ["<!doctype", "<html", "<?xml"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        "the file is a web page: the download went wrong"
    } else if text.starts_with("version https://git-lfs") {
        "the file is a pointer of Git LFS: fetch the file itself"
    } else {
        "the file does not begin as WebAssembly does (with the bytes 00 61 73 6d)"
    };
    Err(what.to_owned())
}

fn damage(error: &wasmparser::BinaryReaderError, size: usize) -> String {
    let message = error.message();
    if error.offset() >= size || message.contains("unexpected end") {
        format!("the file is truncated: it ends at byte {size} in the middle of something")
    } else {
        format!(
            "the file is damaged, or uses a feature of WebAssembly that is not supported: {message} (at byte {})",
            error.offset()
        )
    }
}

struct Parts<'a> {
    component: bool,
    types: Types,
    memories: Vec<MemoryType>,
    table: u64,
    manifest: Option<&'a [u8]>,
    /// Names of a component's own imports and exports.
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
}

fn parse(bytes: &[u8], bodies: bool) -> Result<Parts<'_>, String> {
    let damaged = |error: wasmparser::BinaryReaderError| damage(&error, bytes.len());
    // What the engine compiles, and two features more, so that their refusal can name them.
    let features = WasmFeatures::WASM3
        .union(WasmFeatures::COMPONENT_MODEL)
        .union(WasmFeatures::THREADS)
        .union(WasmFeatures::MEMORY64)
        .difference(WasmFeatures::GC_TYPES.union(WasmFeatures::EXCEPTIONS));
    let mut validator = Validator::new_with_features(features);
    let mut allocations = wasmparser::FuncValidatorAllocations::default();
    let (mut memories, mut table, mut manifest) = (Vec::new(), 0_u64, None);
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let (mut depth, mut component, mut types) = (0_u32, false, None);
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(damaged)?;
        match &payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 {
                    component = *encoding == wasmparser::Encoding::Component;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    memories.push(memory.map_err(damaged)?);
                }
            }
            Payload::TableSection(section) => {
                for one in section.clone() {
                    table = table.saturating_add(one.map_err(damaged)?.ty.initial);
                }
            }
            Payload::CustomSection(section) if section.name() == manifest::SECTION => {
                manifest = manifest.or(Some(section.data()));
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.clone() {
                    imports.push(import.map_err(damaged)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section.clone() {
                    exports.push(export.map_err(damaged)?.name.name);
                }
            }
            _ => {}
        }
        match validator.payload(&payload).map_err(damaged)? {
            ValidPayload::Func(function, body) if bodies => {
                let mut function = function.into_validator(allocations);
                function.validate(&body).map_err(damaged)?;
                allocations = function.into_allocations();
            }
            ValidPayload::End(found) => {
                depth = depth.saturating_sub(1);
                types = Some(found);
            }
            _ => {}
        }
    }
    let types = types.ok_or_else(|| "the file is truncated".to_owned())?;
    Ok(Parts {
        component,
        types,
        memories,
        table,
        manifest,
        imports,
        exports,
    })
}

fn core_items(types: &Types) -> (Vec<Item>, Vec<Item>) {
    let types = types.as_ref();
    let item = |module: &str, name: &str, ty: EntityType| Item {
        module: module.to_owned(),
        name: name.to_owned(),
        ty: match ty {
            EntityType::Func(id) | EntityType::FuncExact(id) => {
                ItemType::Function(types.get(id).map_or_else(String::new, signature))
            }
            EntityType::Memory(_) => ItemType::Memory,
            EntityType::Table(_) => ItemType::Other("a table"),
            EntityType::Global(_) => ItemType::Other("a global"),
            EntityType::Tag(_) => ItemType::Other("a tag"),
        },
    };
    let imports = types.core_imports().into_iter().flatten();
    let exports = types.core_exports().into_iter().flatten();
    (
        imports
            .map(|(module, name, ty)| item(module, name, ty))
            .collect(),
        exports.map(|(name, ty)| item("", name, ty)).collect(),
    )
}

fn signature(ty: &wasmparser::SubType) -> String {
    match &ty.composite_type.inner {
        wasmparser::CompositeInnerType::Func(function) => {
            render_signature(function.params(), function.results())
        }
        _ => String::new(),
    }
}

/// A function's type as messages and the table of imports have it.
pub(crate) fn render_signature<T: std::fmt::Display>(params: &[T], results: &[T]) -> String {
    let list = |types: &[T]| {
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        types.join(", ")
    };
    match results {
        [] => format!("({})", list(params)),
        [one] => format!("({}) -> {one}", list(params)),
        more => format!("({}) -> ({})", list(params), list(more)),
    }
}

fn component_items(parts: &Parts<'_>) -> (Vec<Item>, Vec<Item>) {
    let types = parts.types.as_ref();
    let items = |names: &[&str], import: bool| {
        let mut items = Vec::new();
        for name in names {
            let found = if import {
                types.component_item_for_import(name)
            } else {
                types.component_item_for_export(name)
            };
            let functions: Vec<&String> = match found.map(|item| item.ty) {
                Some(ComponentEntityType::Instance(id)) => {
                    types.get(id).map_or_else(Vec::new, |instance| {
                        let functions = instance
                            .exports
                            .iter()
                            .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)));
                        functions.map(|(name, _)| name).collect()
                    })
                }
                _ => Vec::new(),
            };
            if functions.is_empty() {
                // A plain function, or an interface of types alone.
                items.push(Item {
                    module: (*name).to_owned(),
                    name: String::new(),
                    ty: ItemType::Other("an interface"),
                });
            }
            items.extend(functions.into_iter().map(|function| Item {
                module: (*name).to_owned(),
                name: function.clone(),
                ty: ItemType::Lifted,
            }));
        }
        items
    };
    (items(&parts.imports, true), items(&parts.exports, false))
}

/// Says which ABI a file speaks, or what else it is.
fn kind(component: bool, imports: &[Item], exports: &[Item]) -> Result<Kind, String> {
    if exports.iter().any(|export| callback_of(export).is_some()) {
        return Ok(if component {
            Kind::NativeComponent
        } else {
            Kind::NativeCore
        });
    }
    Err(match other_kind(component, imports, exports) {
        Some(known) => format!("it is {known}, which is not supported by this version"),
        None if imports
            .iter()
            .any(|item| item.module.starts_with(contract::PACKAGE)) =>
        {
            "it imports from tidegate:filter but exports no callback of tidegate:filter/callbacks"
                .to_owned()
        }
        None => format!(
            "it is a WebAssembly {}, but exports no callback of tidegate:filter/callbacks",
            if component { "component" } else { "module" }
        ),
    })
}

/// Recognises what other hosts run.
fn other_kind(component: bool, imports: &[Item], exports: &[Item]) -> Option<&'static str> {
    let exports_name = |test: &dyn Fn(&str) -> bool| exports.iter().any(|item| test(&item.name));
    let exports_interface =
        |prefix: &str| exports.iter().any(|item| item.module.starts_with(prefix));
    let imports_from = |prefix: &str| imports.iter().any(|item| item.module.starts_with(prefix));
    let allocates = |name: &str| name == "malloc" || name == "proxy_on_memory_allocate";
    if component {
        if exports_interface("wasi:http/incoming-handler@")
            || exports_interface("wasi:http/handler@")
        {
            Some("a wasi:http component")
        } else if exports_interface("wasi:cli/run@") {
            Some("a WASI command (a program that runs once and ends)")
        } else {
            None
        }
    } else if exports_name(&|name| name.starts_with("proxy_abi_version_"))
        || (exports_name(&|name| name.starts_with("proxy_on_")) && exports_name(&allocates))
    {
        Some("a proxy-wasm filter")
    } else if exports_name(&|name| name == "handle_request")
        && exports_name(&|name| name == "handle_response")
    {
        Some("an http-wasm filter")
    } else if imports_from("extism:host/") {
        Some("an Extism plugin")
    } else if imports_from("fastly_") {
        Some("a Fastly Compute application")
    } else if exports_name(&|name| name == "_start") {
        Some("a WASI command (a program that runs once and ends)")
    } else {
        None
    }
}

fn memories(found: &[MemoryType], component: bool) -> Result<Memories, String> {
    let mut sum = Memories {
        count: found.len(),
        min: 0,
        max: Some(0),
    };
    for memory in found {
        if memory.shared {
            return Err("it uses shared memory (threads), which is not supported".to_owned());
        }
        if memory.memory64 {
            return Err("it uses a 64-bit memory, which is not supported".to_owned());
        }
        let page = memory.page_size_log2.map_or(PAGE, |log2| 1 << log2.min(16));
        sum.min = sum.min.saturating_add(memory.initial.saturating_mul(page));
        sum.max = match (sum.max, memory.maximum) {
            (Some(sum), Some(max)) => Some(sum.saturating_add(max.saturating_mul(page))),
            _ => None,
        };
    }
    if !component && found.len() > 1 {
        return Err(format!(
            "it has {} memories, and a filter may have one",
            found.len()
        ));
    }
    if found.is_empty() {
        sum.max = None;
    }
    Ok(sum)
}
