//! Makes the hidden state of a core module reachable, so that an instance can be put back to its beginning: every global
//! that can change is exported too, under a name of the host's own. No code is changed, and a module whose state could not
//! be reached as a whole stays as it is. Knows no engine.

use std::borrow::Cow;

use wasmparser::{Encoding, ExternalKind, Operator, Parser, Payload, TypeRef, ValType};

/// Begins the names of the exports that are added. A file that has such names of its own is left alone, and what they say is
/// not believed.
pub(crate) const OURS: &str = "tidegate:host/";
/// Says that the module's state is its memory and its exported globals. Stands for its first function.
pub(crate) const MARK: &str = "tidegate:host/exposed";
/// Begins the names of globals.
pub(crate) const GLOBAL: &str = "tidegate:host/global/";

/// The most globals that are exposed. Compilers make one or two.
const GLOBALS: usize = 100;
const EXPORT_SECTION: u8 = 7;

/// The module with its globals exported, or the file as it is.
pub(crate) fn expose(file: &[u8]) -> Cow<'_, [u8]> {
    changing(file)
        .and_then(|globals| with_exports(file, &globals))
        .map_or(Cow::Borrowed(file), Cow::Owned)
}

/// The globals that can change. None if there is other state that can: in tables, in segments that can be dropped, in
/// memories that are not its own or more than one, in globals that hold references.
fn changing(file: &[u8]) -> Option<Vec<u32>> {
    let (mut changing, mut memories) = (Vec::new(), 0);
    for payload in Parser::new(0).parse_all(file) {
        match payload.ok()? {
            Payload::Version { encoding, .. } if encoding != Encoding::Module => return None,
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let TypeRef::Func(_) = import.ok()?.ty else {
                        return None;
                    };
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory.ok()?;
                    memories += 1;
                    if memory.shared || memory.memory64 || memory.page_size_log2.is_some() {
                        return None;
                    }
                }
            }
            Payload::GlobalSection(section) => {
                for (index, global) in (0..).zip(section) {
                    let ty = global.ok()?.ty;
                    let known = [ValType::I32, ValType::I64, ValType::F32, ValType::F64];
                    if ty.mutable && !known.contains(&ty.content_type) {
                        return None;
                    }
                    if ty.mutable {
                        changing.push(index);
                    }
                }
            }
            Payload::TagSection(_) => return None,
            Payload::ExportSection(section) => {
                for export in section {
                    if export.ok()?.name.starts_with(OURS) {
                        return None;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().ok()? {
                    if changes_more(&operator.ok()?) {
                        return None;
                    }
                }
            }
            _ => {}
        }
    }
    (memories == 1 && changing.len() <= GLOBALS).then_some(changing)
}

/// Whether an instruction changes something else than memory and globals.
fn changes_more(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::DataDrop { .. }
    )
}

/// The file with the exports added behind its own.
fn with_exports(file: &[u8], globals: &[u32]) -> Option<Vec<u8>> {
    let section = find_section(file, EXPORT_SECTION)?;
    let body = file.get(section.body.clone())?;
    let (count, read) = read_number(body)?;
    let mut exports = Vec::new();
    push_export(&mut exports, MARK, ExternalKind::Func, 0);
    for index in globals {
        let name = format!("{GLOBAL}{index}");
        push_export(&mut exports, &name, ExternalKind::Global, *index);
    }
    let mut new = Vec::with_capacity(body.len() + exports.len() + 5);
    let added = u32::try_from(globals.len()).ok()?.checked_add(1)?;
    push_number(&mut new, count.checked_add(added)?);
    new.extend_from_slice(body.get(read..)?);
    new.append(&mut exports);

    let mut whole = Vec::with_capacity(file.len() + new.len());
    whole.extend_from_slice(file.get(..section.start)?);
    whole.push(EXPORT_SECTION);
    push_number(&mut whole, u32::try_from(new.len()).ok()?);
    whole.append(&mut new);
    whole.extend_from_slice(file.get(section.body.end..)?);
    Some(whole)
}

struct Section {
    /// Where its head begins.
    start: usize,
    body: std::ops::Range<usize>,
}

fn find_section(file: &[u8], id: u8) -> Option<Section> {
    // Behind the magic number and the version.
    let mut start = 8;
    loop {
        let found = *file.get(start)?;
        let (length, read) = read_number(file.get(start + 1..)?)?;
        let from = start + 1 + read;
        let body = from..from.checked_add(length as usize)?;
        if found == id {
            return Some(Section { start, body });
        }
        start = body.end;
    }
}

fn push_export(out: &mut Vec<u8>, name: &str, kind: ExternalKind, index: u32) {
    push_number(out, u32::try_from(name.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(name.as_bytes());
    out.push(match kind {
        ExternalKind::Global => 3,
        _ => 0,
    });
    push_number(out, index);
}

/// Reads an unsigned LEB128 number, and says how many bytes it has.
fn read_number(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(number).ok()?, at + 1));
        }
    }
    None
}

fn push_number(out: &mut Vec<u8>, mut number: u32) {
    loop {
        let low = (number & 0x7F) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(text: &str) -> Option<Vec<String>> {
        let file = wat::parse_str(text).unwrap();
        let Cow::Owned(whole) = expose(&file) else {
            return None;
        };
        wasmparser::Validator::new().validate_all(&whole).unwrap();
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(&whole) {
            if let Payload::ExportSection(section) = payload.unwrap() {
                names.extend(section.into_iter().map(|it| it.unwrap().name.to_owned()));
            }
        }
        Some(names)
    }

    #[test]
    fn globals_that_can_change_are_exported() {
        let names = exposed(
            r#"(module (import "a" "b" (func)) (memory (export "memory") 1)
            (global (mut i32) (i32.const 1)) (global i32 (i32.const 2)) (global (mut f64) (f64.const 3))
            (table 1 funcref) (func (export "f") (drop (table.size 0)) (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0)))
            (data "x"))"#,
        );
        let expected = [
            "memory",
            "f",
            MARK,
            "tidegate:host/global/0",
            "tidegate:host/global/2",
        ];
        assert_eq!(names.unwrap(), expected);
    }

    #[test]
    fn a_long_list_of_exports_stays_whole() {
        let exports: String = (0..300)
            .map(|n| format!(r#"(export "f{n}" (func 0))"#))
            .collect();
        let names = exposed(&format!("(module (memory 1) (func) {exports})")).unwrap();
        assert_eq!(names.len(), 301);
        assert_eq!(names.last().map(String::as_str), Some(MARK));
    }

    #[test]
    fn other_state_is_reason_enough_to_leave_a_module_alone() {
        for text in [
            r#"(module (func (export "f")))"#,
            r#"(module (memory 1))"#,
            r#"(module (memory 1) (memory 1) (func (export "f")))"#,
            r#"(module (import "a" "m" (memory 1)) (func (export "f")))"#,
            r#"(module (import "a" "g" (global (mut i32))) (memory 1) (func (export "f")))"#,
            r#"(module (memory 1) (global (mut funcref) (ref.null func)) (func (export "f")))"#,
            r#"(module (memory 1) (func (export "tidegate:host/x")))"#,
            r#"(module (memory 1) (table 1 funcref) (func (export "f") (table.set (i32.const 0) (ref.null func))))"#,
            r#"(module (memory 1) (table 1 funcref) (func (export "f") (drop (table.grow (ref.null func) (i32.const 1)))))"#,
            r#"(module (memory 1) (data "x") (func (export "f") (data.drop 0)))"#,
            "(component)",
        ] {
            assert_eq!(exposed(text), None, "{text}");
        }
        assert!(matches!(
            expose(b"\0asm\x01\0\0\0\x07\xff"),
            Cow::Borrowed(_)
        ));
    }
}
