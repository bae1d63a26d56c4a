//! A core module's state as it was when it had read its configuration, and putting an instance back to it: a new instance
//! in all that the guest can see, for a part of what making one costs. Knows nothing of exchanges.

use wasmtime::{AsContextMut, Extern, Global, Instance, Memory, Module, ModuleExport, Val};

use crate::detect::{Item, Shape};
use crate::expose;
use crate::touched::{PAGE, Touched};

/// The largest memory that is kept, and the most of one that is put back: what has more is as well made anew.
const MOST: usize = 16 * 1024 * 1024;
const MOST_WRITTEN: usize = 1024 * 1024;

/// Where the state of a module's instances stands, if all of it can be reached.
pub(super) struct Places {
    memory: ModuleExport,
    globals: Vec<ModuleExport>,
}

impl Places {
    /// `shape` is the file's, before anything was added to it.
    pub(super) fn of(module: &Module, shape: &Shape) -> Option<Self> {
        let forged = |export: &Item| export.name.starts_with(expose::OURS);
        if shape.exports.iter().any(forged) {
            return None;
        }
        module.get_export_index(expose::MARK)?;
        let globals = module
            .exports()
            .filter(|export| export.name().starts_with(expose::GLOBAL))
            .map(|export| module.get_export_index(export.name()))
            .collect::<Option<_>>()?;
        let memory = module.get_export_index("memory")?;
        Some(Places { memory, globals })
    }

    /// The same of one instance.
    pub(super) fn within(
        &self,
        mut store: impl AsContextMut,
        instance: &Instance,
    ) -> Option<State> {
        let mut get = |place| instance.get_module_export(&mut store, place);
        let memory = get(&self.memory).and_then(Extern::into_memory)?;
        let globals = self.globals.iter().map(|place| get(place)?.into_global());
        Some(State {
            globals: globals.collect::<Option<_>>()?,
            memory,
        })
    }
}

/// The state of an instance.
pub(super) struct State {
    memory: Memory,
    globals: Vec<Global>,
}

/// A state as it was.
#[derive(Debug)]
pub(super) struct Pristine {
    /// Bytes of memory.
    size: usize,
    /// For each page, the number of its copy, counted from 1; 0 for zeros.
    pages: Vec<u32>,
    copies: Vec<u8>,
    globals: Vec<Number>,
}

/// The value of a global.
#[derive(Clone, Copy, Debug)]
enum Number {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
}

impl Number {
    fn of(value: &Val) -> Option<Self> {
        match value {
            Val::I32(value) => Some(Number::I32(*value)),
            Val::I64(value) => Some(Number::I64(*value)),
            Val::F32(value) => Some(Number::F32(*value)),
            Val::F64(value) => Some(Number::F64(*value)),
            _ => None,
        }
    }

    fn value(self) -> Val {
        match self {
            Number::I32(value) => Val::I32(value),
            Number::I64(value) => Val::I64(value),
            Number::F32(value) => Val::F32(value),
            Number::F64(value) => Val::F64(value),
        }
    }
}

impl State {
    /// Keeps the state as it is. None if it is too large, or if nobody could tell later what changed.
    pub(super) fn keep(&self, mut store: impl AsContextMut) -> Option<Pristine> {
        Touched::get()?;
        let globals = self.globals.iter();
        let globals = globals.map(|global| Number::of(&global.get(&mut store)));
        let globals = globals.collect::<Option<_>>()?;
        let memory = self.memory.data(&store);
        let size = memory.len();
        if size > MOST || !size.is_multiple_of(PAGE) {
            return None;
        }
        let (mut pages, mut copies) = (Vec::with_capacity(size / PAGE), Vec::new());
        for page in memory.chunks_exact(PAGE) {
            if page.iter().all(|byte| *byte == 0) {
                pages.push(0);
            } else {
                copies.extend_from_slice(page);
                pages.push(u32::try_from(copies.len() / PAGE).ok()?);
            }
        }
        copies.shrink_to_fit();
        Some(Pristine {
            size,
            pages,
            copies,
            globals,
        })
    }

    /// Makes the state what it was. Says whether it is; if not, the instance is of no further use.
    pub(super) fn put_back(&self, mut store: impl AsContextMut, pristine: &Pristine) -> bool {
        self.memory_back(&mut store, pristine).is_some()
            && self.globals.len() == pristine.globals.len()
            && self
                .globals
                .iter()
                .zip(&pristine.globals)
                .all(|(global, was)| global.set(&mut store, was.value()).is_ok())
    }

    fn memory_back(&self, mut store: impl AsContextMut, pristine: &Pristine) -> Option<()> {
        let address = self.memory.data_ptr(&store).addr();
        let memory = self.memory.data_mut(&mut store);
        if memory.len() != pristine.size {
            return None;
        }
        let (mut written, mut whole) = (0, true);
        Touched::get()?.within(address, pristine.size, |pages| {
            written += pages.len();
            let numbers = pristine.pages.get(pages.start / PAGE..pages.end / PAGE);
            match (memory.get_mut(pages), numbers) {
                (Some(memory), Some(numbers)) if written <= MOST_WRITTEN => {
                    let chunks = memory.chunks_exact_mut(PAGE);
                    for (page, number) in chunks.zip(numbers) {
                        pristine.page_back(page, *number);
                    }
                }
                _ => whole = false,
            }
        })?;
        whole.then_some(())
    }
}

impl Pristine {
    fn page_back(&self, page: &mut [u8], number: u32) {
        let copy = (number as usize)
            .checked_sub(1)
            .and_then(|at| self.copies.get(at * PAGE..(at + 1) * PAGE));
        match copy {
            Some(copy) => page.copy_from_slice(copy),
            None => page.fill(0),
        }
    }
}
