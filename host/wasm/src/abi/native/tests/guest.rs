//! Builds guests: a body of WebAssembly text for each callback, with the imports that it uses declared and strings
//! placed in memory.

use std::collections::BTreeMap;
use std::fmt::Write;

use tidegate_core::phase::{Phase, Phases};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, UnresolvedPackageGroup};

use crate::abi::native::core_imports;
use crate::contract::{OURS_TEXT, PACKAGE};

/// Where results are put by convention.
pub(super) const RESULT: &str = "(i32.const 64)";

/// How a guest is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Core,
    Component,
}

pub(super) const CARRIERS: [Carrier; 2] = [Carrier::Core, Carrier::Component];

/// A guest to be built. In bodies, `{"text"}` stands for pointer and length of a string, `$interface.function`
/// calls the host, `$tell`, `$tell_at`, `$tell_number` log what they are given.
#[derive(Clone, Default)]
pub(super) struct Guest {
    bodies: BTreeMap<Phase, String>,
    configure: String,
    interests: [u8; 28],
    extra: String,
    realloc: Option<String>,
    /// The contract's version that it names, if not this host's.
    version: Option<&'static str>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let mut guest = Guest::default();
        // Bodies on hold, the operator's bound, refuse.
        guest.interests[4] = 2;
        guest.interests[16] = 2;
        guest
    }

    /// Takes a phase with this body.
    pub(super) fn on(mut self, phase: Phase, body: &str) -> Self {
        self.bodies.insert(phase, body.to_owned());
        let bit = Phase::ALL.iter().position(|known| *known == phase).unwrap() - 1;
        self.interests[0] |= 1 << bit;
        self
    }

    /// Exports a phase with this body, but does not ask for it.
    pub(super) fn exports_only(mut self, phase: Phase, body: &str) -> Self {
        let interests = self.interests;
        self = self.on(phase, body);
        self.interests = interests;
        self
    }

    /// Runs this in `configure`, before it returns its interests.
    pub(super) fn configure(mut self, body: &str) -> Self {
        body.clone_into(&mut self.configure);
        self
    }

    /// Sets a byte of the record of interests.
    pub(super) fn interest(mut self, at: usize, value: u8) -> Self {
        self.interests[at] = value;
        self
    }

    /// Adds fields to the module.
    pub(super) fn extra(mut self, fields: &str) -> Self {
        self.extra.push_str(fields);
        self
    }

    /// Puts this in place of the body of `cabi_realloc`.
    pub(super) fn realloc(mut self, body: &str) -> Self {
        self.realloc = Some(body.to_owned());
        self
    }

    /// Names this version of the contract, and as a component has only what that version had.
    pub(super) fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    fn versioned(&self) -> &'static str {
        self.version.unwrap_or(OURS_TEXT)
    }

    /// The phases that it has bodies for.
    pub(super) fn phases(&self) -> Phases {
        self.bodies.keys().copied().collect()
    }

    /// The module as text. A component must export every callback, so those that were not given do nothing.
    pub(super) fn text(&self) -> String {
        let version = self.versioned();
        let mut strings = Strings::default();
        let mut functions = String::new();
        for phase in Phase::ALL.into_iter().skip(1) {
            let parameters = match phase {
                Phase::RequestHead | Phase::ResponseHead => "(param $id i64) (param $end i32)",
                Phase::RequestBody | Phase::ResponseBody => {
                    "(param $id i64) (param $length i32) (param $end i32)"
                }
                _ => "(param $id i64)",
            };
            let result = if phase == Phase::Log {
                ""
            } else {
                "(result i32)"
            };
            let nothing = if phase == Phase::Log {
                ""
            } else {
                "(i32.const 0)"
            };
            let body = strings.place(self.bodies.get(&phase).map_or(nothing, |body| body));
            let _ = writeln!(
                functions,
                "(func (export \"tidegate:filter/callbacks@{version}#{phase}\") {parameters} {result} {body})"
            );
        }
        let configure = strings.place(&self.configure);
        let extra = strings.place(&self.extra);
        let realloc = strings.place(self.realloc.as_deref().unwrap_or(
            "(local $at i32)
             (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
             (local.set $at (global.get $heap))
             (global.set $heap (i32.add (global.get $heap) (local.get $size)))
             (local.get $at)",
        ));
        let code = format!("{functions}{configure}{extra}{realloc}$log.write");
        let imports = imports(&code, version);
        let interests: String = self
            .interests
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(module
            {imports}
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 65536))
            (data (i32.const 16) "\00\00\00\00{interests}")
            {data}
            (func $tell (param $at i32) (param $length i32)
                (call $log.write (i32.const 2) (local.get $at) (local.get $length)))
            (func $tell_at (param $at i32)
                (call $tell (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))))
            (func $tell_number (param $value i64) (local $at i32)
                (local.set $at (i32.const 1023))
                (loop $more
                    (i32.store8 (local.get $at) (i32.add (i32.const 48)
                        (i32.wrap_i64 (i64.rem_u (local.get $value) (i64.const 10)))))
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (local.set $value (i64.div_u (local.get $value) (i64.const 10)))
                    (br_if $more (i64.ne (local.get $value) (i64.const 0))))
                (call $tell (i32.add (local.get $at) (i32.const 1))
                    (i32.sub (i32.const 1023) (local.get $at))))
            (func $tell_byte (param $at i32)
                (call $tell_number (i64.extend_i32_u (i32.load8_u (local.get $at)))))
            (func $cabi_realloc (export "cabi_realloc")
                (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
                (result i32) {realloc})
            (func (export "tidegate:filter/callbacks@{version}#configure")
                (param $config i32) (param $config_length i32) (result i32)
                {configure} (i32.const 16))
            {functions}
            {extra})"#,
            data = strings.data,
        )
    }

    /// Builds it.
    pub(super) fn build(&self, carrier: Carrier) -> Vec<u8> {
        let module = assemble(&self.text());
        match carrier {
            Carrier::Core => module,
            Carrier::Component => component_of(module, self.versioned()),
        }
    }
}

/// Translates text.
pub(super) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The contract as it is written.
pub(super) fn contract() -> (Resolve, wit_parser::WorldId) {
    contract_of(OURS_TEXT)
}

/// The contract as it was in a version: what came later says so, and is left out.
fn contract_of(version: &str) -> (Resolve, wit_parser::WorldId) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/wit/filter.wit");
    let package = |version: &str| format!("package {PACKAGE}@{version};");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(&package(OURS_TEXT)));
    let text = if version == OURS_TEXT {
        text
    } else {
        first(&text).replace(&package(OURS_TEXT), &package(version))
    };
    let mut resolve = Resolve::default();
    let group = UnresolvedPackageGroup::parse("filter.wit", &text).unwrap();
    let package = resolve.push_group(group).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    (resolve, world)
}

/// The first version's contract: without what says that it came later.
fn first(text: &str) -> String {
    let mut parts = text.split("@since(version = ");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts {
        let brace = part.find('{').unwrap_or(usize::MAX);
        let semicolon = part.find(';').unwrap_or(usize::MAX);
        let end = if brace < semicolon {
            part.find('}')
        } else {
            Some(semicolon)
        };
        kept += &part[end.unwrap() + 1..];
    }
    kept
}

/// Makes a component of a core module that names a version of the contract.
fn component_of(mut module: Vec<u8>, version: &str) -> Vec<u8> {
    let (resolve, world) = contract_of(version);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}

/// Declares the host functions that some code calls.
pub(super) fn imports(code: &str, version: &str) -> String {
    core_imports::table()
        .filter(|import| {
            let name = format!("${}.{}", import.interface, import.name);
            code.match_indices(&name).any(|(at, _)| {
                let next = code[at + name.len()..].chars().next();
                !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-')
            })
        })
        .map(|import| declaration(import, version))
        .collect()
}

/// Declares one host function.
pub(super) fn declaration(import: &core_imports::Import, version: &str) -> String {
    let signature = import.signature().replace(',', "");
    let (params, result) = signature.split_once(')').unwrap();
    let params = params.trim_start_matches('(');
    let result = result.trim_start_matches(" ->").trim();
    format!(
        "(import \"tidegate:filter/{0}@{version}\" \"{1}\" (func ${0}.{1} (param {params}) (result {result})))\n",
        import.interface, import.name
    )
}

/// Strings of a guest, placed one after the other.
#[derive(Default)]
struct Strings {
    data: String,
    used: usize,
}

impl Strings {
    fn place(&mut self, body: &str) -> String {
        let mut placed = String::new();
        let mut rest = body;
        while let Some((before, after)) = rest.split_once("{\"") {
            let (text, after) = after.split_once("\"}").unwrap();
            let at = 2048 + self.used;
            self.used += text.len() + 1;
            let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let _ = writeln!(self.data, "(data (i32.const {at}) \"{escaped}\")");
            let _ = write!(
                placed,
                "{before}(i32.const {at}) (i32.const {})",
                text.len()
            );
            rest = after;
        }
        assert!(self.used < 60_000);
        placed + rest
    }
}
