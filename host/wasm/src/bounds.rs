//! How much a file may hold before anything is built of it. Reading a few counts costs next to nothing, while what is
//! made of them costs memory and time without end: the validator, the linker and above all the compiler grow with them.
//! Knows no engine; what is no WebAssembly is let through, for others to say so in better words.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// The largest file, in bytes, where the operator says nothing else.
pub(crate) const FILE: usize = 64 * 1024 * 1024;

/// Functions with code, in all modules of a file together. The largest interpreters that are compiled to wasm have a
/// third of it.
const FUNCTIONS: u64 = 100_000;
/// Bytes of one function's code. The compiler takes more than proportional time for long ones.
const FUNCTION: u64 = 1024 * 1024;
/// Locals of all functions together: each costs the compiler time, though a thousand of them are three bytes in the
/// file.
const LOCALS: u64 = 4_000_000;
/// Blocks inside of blocks. A `switch` makes as many as it has cases.
const NESTING: u64 = 5_000;
/// Entries of all tables of branches of one function.
const BRANCHES: u64 = 100_000;
/// Modules, components and instances inside of a component.
const PARTS: u64 = 1_000;
/// Types, and globals.
const DEFINITIONS: u64 = 100_000;
/// Imports, and exports.
const NAMES: u64 = 10_000;
/// Segments of data, and of elements.
const SEGMENTS: u64 = 100_000;

/// Reads the counts at the beginning of every section. Looks into no function.
///
/// # Errors
/// What there is too much of, and how much there may be.
pub(crate) fn sections(bytes: &[u8]) -> Result<(), String> {
    let mut sums = Sums::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else {
            return Ok(());
        };
        let (sum, bound, what) = match &payload {
            Payload::TypeSection(it) => sums.types.add(it.count(), "types"),
            Payload::ComponentTypeSection(it) => sums.types.add(it.count(), "types"),
            Payload::CoreTypeSection(it) => sums.types.add(it.count(), "types"),
            Payload::GlobalSection(it) => sums.globals.add(it.count(), "globals"),
            Payload::ImportSection(it) => sums.imports.add(it.count(), "imports"),
            Payload::ComponentImportSection(it) => sums.imports.add(it.count(), "imports"),
            Payload::ExportSection(it) => sums.exports.add(it.count(), "exports"),
            Payload::ComponentExportSection(it) => sums.exports.add(it.count(), "exports"),
            Payload::ComponentAliasSection(it) => sums.aliases.add(it.count(), "aliases"),
            Payload::ComponentCanonicalSection(it) => sums
                .canonical
                .add(it.count(), "lifted and lowered functions"),
            Payload::FunctionSection(it) => sums.functions.add(it.count(), "functions"),
            Payload::CodeSectionStart { count, .. } => sums.bodies.add(*count, "functions"),
            Payload::DataSection(it) => sums.data.add(it.count(), "segments of data"),
            Payload::ElementSection(it) => sums.elements.add(it.count(), "segments of elements"),
            Payload::InstanceSection(it) => sums.parts.add(it.count(), "parts"),
            Payload::ComponentInstanceSection(it) => sums.parts.add(it.count(), "parts"),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                sums.parts.add(1, "parts")
            }
            _ => continue,
        };
        within(sum, bound, || format!("it has {sum} {what}, and a file"))?;
    }
    Ok(())
}

/// Looks into every function: how long it is, and how much it asks of the compiler.
///
/// # Errors
/// What there is too much of, and how much there may be.
pub(crate) fn functions(bytes: &[u8]) -> Result<(), String> {
    let (mut number, mut locals) = (0_u64, 0_u64);
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else {
            return Ok(());
        };
        if let Payload::CodeSectionEntry(body) = payload {
            number += 1;
            let length = body.range().len() as u64;
            within(length, FUNCTION, || {
                format!("function {number} of its code has {length} bytes, and a function")
            })?;
            // What can't be read is the validator's to name.
            let Ok(found) = Function::read(&body) else {
                return Ok(());
            };
            locals = locals.saturating_add(found.locals);
            within(locals, LOCALS, || {
                format!("its functions have {locals} locals together, and a file")
            })?;
            within(found.nesting, NESTING, || {
                let nesting = found.nesting;
                format!("function {number} of its code nests {nesting} blocks, and a function")
            })?;
            within(found.branches, BRANCHES, || {
                let branches = found.branches;
                format!(
                    "function {number} of its code has {branches} entries in tables of branches, and a function"
                )
            })?;
        }
    }
    Ok(())
}

fn within(found: u64, bound: u64, what: impl FnOnce() -> String) -> Result<(), String> {
    if found <= bound {
        return Ok(());
    }
    Err(format!("{} may have {bound} at most", what()))
}

/// What was counted so far.
#[derive(Debug, Default)]
struct Sums {
    types: Sum<DEFINITIONS>,
    globals: Sum<DEFINITIONS>,
    imports: Sum<NAMES>,
    exports: Sum<NAMES>,
    aliases: Sum<DEFINITIONS>,
    canonical: Sum<NAMES>,
    functions: Sum<FUNCTIONS>,
    bodies: Sum<FUNCTIONS>,
    data: Sum<SEGMENTS>,
    elements: Sum<SEGMENTS>,
    parts: Sum<PARTS>,
}

#[derive(Debug, Default)]
struct Sum<const BOUND: u64>(u64);

impl<const BOUND: u64> Sum<BOUND> {
    fn add<'a>(&mut self, count: u32, what: &'a str) -> (u64, u64, &'a str) {
        self.0 = self.0.saturating_add(u64::from(count));
        (self.0, BOUND, what)
    }
}

/// What one function asks of the compiler.
struct Function {
    locals: u64,
    nesting: u64,
    branches: u64,
}

impl Function {
    fn read(body: &FunctionBody<'_>) -> wasmparser::Result<Function> {
        let mut function = Function {
            locals: 0,
            nesting: 0,
            branches: 0,
        };
        for group in body.get_locals_reader()? {
            function.locals += u64::from(group?.0);
        }
        let mut depth = 0_u64;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    depth += 1;
                    function.nesting = function.nesting.max(depth);
                }
                Operator::End => depth = depth.saturating_sub(1),
                Operator::BrTable { targets } => function.branches += u64::from(targets.len()),
                _ => {}
            }
        }
        Ok(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(format!("(module {text})")).unwrap()
    }

    fn both(bytes: &[u8]) -> Result<(), String> {
        sections(bytes).and_then(|()| functions(bytes))
    }

    #[test]
    fn what_is_ordinary_passes_and_what_is_no_wasm_is_left_to_others() {
        let ordinary = module("(func (block (loop (br_if 0 (i32.const 0)))))");
        assert_eq!(both(&ordinary), Ok(()));
        for cut in 0..ordinary.len() {
            assert_eq!(both(&ordinary[..cut]), Ok(()));
        }
        assert_eq!(both(b"<html>"), Ok(()));
    }

    #[test]
    fn counts_are_bounded_and_the_message_has_the_number_and_the_bound() {
        let functions = module(&"(func)".repeat(100_001));
        assert_eq!(
            both(&functions).unwrap_err(),
            "it has 100001 functions, and a file may have 100000 at most"
        );
        let exports: String = (0..10_001)
            .map(|number| format!("(export \"{number}\" (func 0))"))
            .collect();
        assert_eq!(
            both(&module(&format!("(func){exports}"))).unwrap_err(),
            "it has 10001 exports, and a file may have 10000 at most"
        );
        let imports = "(import \"a\" \"b\" (func))".repeat(10_001);
        assert_eq!(
            both(&module(&imports)).unwrap_err(),
            "it has 10001 imports, and a file may have 10000 at most"
        );
    }

    #[test]
    fn counts_of_a_component_s_modules_are_added_up() {
        let half = format!("(core module {})", "(func)".repeat(50_001));
        let bytes = wat::parse_str(format!("(component {half} {half})")).unwrap();
        assert_eq!(
            both(&bytes).unwrap_err(),
            "it has 100002 functions, and a file may have 100000 at most"
        );
        let bytes = wat::parse_str(format!("(component {})", "(core module)".repeat(1_001)));
        // The text format's own reader may refuse it as well.
        if let Ok(bytes) = bytes {
            let error = both(&bytes).unwrap_err();
            assert!(error.contains("1001 parts"), "{error}");
        }
    }

    #[test]
    fn a_function_is_bounded_in_length_locals_nesting_and_branches() {
        let long = module(&format!("(func {})", "(nop)".repeat(1024 * 1024)));
        assert_eq!(
            both(&long).unwrap_err(),
            "function 1 of its code has 1048578 bytes, and a function may have 1048576 at most"
        );
        let locals = format!("(func (local{}))", " i32".repeat(50_000)).repeat(81);
        assert_eq!(
            both(&module(&locals)).unwrap_err(),
            "its functions have 4050000 locals together, and a file may have 4000000 at most"
        );
        let nested = format!("(func {} {})", "block ".repeat(5_001), "end ".repeat(5_001));
        assert_eq!(
            both(&module(&nested)).unwrap_err(),
            "function 1 of its code nests 5001 blocks, and a function may have 5000 at most"
        );
        let branches = format!("(func (br_table{} (i32.const 0)))", " 0".repeat(100_002));
        assert_eq!(
            both(&module(&branches)).unwrap_err(),
            "function 1 of its code has 100001 entries in tables of branches, and a function may have 100000 at most"
        );
    }
}
