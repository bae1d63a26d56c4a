//! The table of imports, the exports' types and the records' layouts against the contract itself, as the canonical
//! ABI lowers it.

use tidegate_core::phase::Phase;
use wit_parser::abi::{AbiVariant, WasmSignature, WasmType};
use wit_parser::{Resolve, SizeAlign, WorldItem};

use super::guest::contract;
use crate::abi::native::{core_exports, core_imports};
use crate::detect::render_signature;

fn text(signature: &WasmSignature) -> String {
    let names = |types: &[WasmType]| -> Vec<&str> {
        types
            .iter()
            .map(|ty| match ty {
                WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
                WasmType::I64 | WasmType::PointerOrI64 => "i64",
                WasmType::F32 => "f32",
                WasmType::F64 => "f64",
            })
            .collect()
    };
    render_signature(&names(&signature.params), &names(&signature.results))
}

fn functions(items: &[&WorldItem], resolve: &Resolve) -> Vec<(String, wit_parser::Function)> {
    let mut functions = Vec::new();
    for item in items {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = &resolve.interfaces[*id];
        let name = interface.name.clone().unwrap();
        for function in interface.functions.values() {
            functions.push((name.clone(), function.clone()));
        }
    }
    functions
}

#[test]
fn every_import_of_the_contract_is_in_the_table_with_its_type() {
    let (resolve, world) = contract();
    let items: Vec<_> = resolve.worlds[world].imports.values().collect();
    let mut seen = 0;
    for (interface, function) in functions(&items, &resolve) {
        let known = core_imports::find(&interface, &function.name)
            .unwrap_or_else(|| panic!("{interface}.{} is missing", function.name));
        let signature = resolve.wasm_signature(AbiVariant::GuestImport, &function);
        assert_eq!(
            known.signature(),
            text(&signature),
            "{interface}.{}",
            function.name
        );
        // What has a list or string in its result needs the guest's allocator.
        let gives = function
            .result
            .as_ref()
            .is_some_and(|ty| holds_list(&resolve, ty));
        assert_eq!(known.gives, gives, "{interface}.{}", function.name);
        seen += 1;
    }
    assert_eq!(seen, core_imports::table().count());
}

fn holds_list(resolve: &Resolve, ty: &wit_parser::Type) -> bool {
    use wit_parser::{Type, TypeDefKind};
    match ty {
        Type::String => true,
        Type::Id(id) => match &resolve.types[*id].kind {
            TypeDefKind::List(_) => true,
            TypeDefKind::Type(ty) | TypeDefKind::Option(ty) => holds_list(resolve, ty),
            TypeDefKind::Record(record) => record
                .fields
                .iter()
                .any(|field| holds_list(resolve, &field.ty)),
            TypeDefKind::Tuple(tuple) => tuple.types.iter().any(|ty| holds_list(resolve, ty)),
            TypeDefKind::Result(result) => [&result.ok, &result.err]
                .into_iter()
                .flatten()
                .any(|ty| holds_list(resolve, ty)),
            _ => false,
        },
        _ => false,
    }
}

#[test]
fn every_callback_of_the_contract_is_a_phase_with_its_type() {
    let (resolve, world) = contract();
    let items: Vec<_> = resolve.worlds[world].exports.values().collect();
    let callbacks = functions(&items, &resolve);
    assert_eq!(callbacks.len(), Phase::ALL.len());
    for (_, function) in callbacks {
        let phase = Phase::ALL
            .into_iter()
            .find(|phase| phase.name() == function.name)
            .unwrap();
        let signature = resolve.wasm_signature(AbiVariant::GuestExport, &function);
        assert_eq!(core_exports::signature(phase), text(&signature), "{phase}");
    }
}

#[test]
fn results_have_the_sizes_that_are_written() {
    // (interface, function, size, alignment): what the core carrier begins its results with.
    let written = [
        ("exchange", "get", 12, 4),
        ("exchange", "get-all", 8, 4),
        ("exchange", "at", 20, 4),
        ("exchange", "set", 2, 1),
        ("exchange", "remove", 8, 4),
        ("exchange", "tls", 44, 4),
        ("metrics", "counter", 8, 4),
        ("store", "get", 16, 4),
        ("store", "set", 2, 1),
        ("store", "delete", 2, 1),
        ("store", "increment", 16, 8),
        ("limiter", "take", 24, 8),
        ("http-client", "call", 24, 4),
        ("environment", "get", 12, 4),
        ("callbacks", "configure", 32, 4),
    ];
    let (resolve, world) = contract();
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let world = &resolve.worlds[world];
    let items: Vec<_> = world
        .imports
        .values()
        .chain(world.exports.values())
        .collect();
    let functions = functions(&items, &resolve);
    for (interface, name, size, align) in written {
        let (_, function) = functions
            .iter()
            .find(|(known, function)| known == interface && function.name == name)
            .unwrap();
        let result = function.result.as_ref().unwrap();
        assert_eq!(sizes.size(result).size_wasm32(), size, "{interface}.{name}");
        assert_eq!(
            sizes.align(result).align_wasm32(),
            align,
            "{interface}.{name}"
        );
    }
}
