//! Filters to run: those that were built beforehand, and small ones that tests write themselves, as text. It
//! knows the contract's core form by heart (sdk/README.md) and takes nothing from the host.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The two forms of one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A core module that speaks the contract's canonical form.
    Core,
    /// A component.
    Component,
}

/// Where cargo puts what it builds, with `plugins` and `guests` beside it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// A guest of `tests/guests`.
pub fn guest(name: &str, carrier: Carrier) -> Vec<u8> {
    built("guests", name, carrier)
}

/// A shipped filter or an example's.
pub fn plugin(name: &str, carrier: Carrier) -> Vec<u8> {
    built("plugins", name, carrier)
}

fn built(shelf: &str, name: &str, carrier: Carrier) -> Vec<u8> {
    let ending = match carrier {
        Carrier::Core => "wasm",
        Carrier::Component => "component.wasm",
    };
    let path = target().join(shelf).join(format!("{name}.{ending}"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask test`", path.display()))
}

/// The names of all guests that were built, without their endings.
pub fn all_guests() -> Vec<String> {
    let folder = target().join("guests");
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask test`", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".wasm").map(str::to_owned))
        .filter(|name| !name.ends_with(".component"))
        .collect();
    names.sort();
    names
}

/// Phases as `configure` returns them: one bit each, in the contract's order.
pub mod phase {
    pub const REQUEST_HEAD: u8 = 1;
    pub const REQUEST_BODY: u8 = 1 << 1;
    pub const RESPONSE_HEAD: u8 = 1 << 3;
    pub const RESPONSE_BODY: u8 = 1 << 4;
    pub const LOG: u8 = 1 << 6;
}

/// A filter written by a test: a core module in the contract's canonical form, made from text.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    phases: u8,
    /// What stands in memory from [`TEXT`] on.
    text: String,
    /// The bodies of callbacks, by name.
    request_head: String,
    request_body: String,
    response_head: String,
    response_body: String,
    log: String,
    configure: String,
    wishes: String,
    imports: String,
    functions: String,
}

/// Where a guest's text begins in its memory. Below lie the results of calls.
const TEXT: usize = 1024;

const EXCHANGE: &str = "tidegate:filter/exchange@0.1.0";

impl Guest {
    /// One that takes part in nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a text into memory and gives its place and length, as two constants.
    fn text(&mut self, text: &str) -> String {
        let at = TEXT + self.text.len();
        self.text += text;
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// Sets a field of the request (`part` 0) or of the response (2).
    fn set(&mut self, part: u8, name: &str, value: &str) -> String {
        let name = self.text(name);
        let value = self.text(value);
        format!("(call $set (i32.const {part}) {name} {value} (i32.const 16))\n")
    }

    /// Sets a field of every request.
    #[must_use]
    pub fn sets_request_field(mut self, name: &str, value: &str) -> Self {
        let call = self.set(0, name, value);
        self.request_head += &call;
        self.phases |= phase::REQUEST_HEAD;
        self
    }

    /// Sets a field of every response.
    #[must_use]
    pub fn sets_response_field(mut self, name: &str, value: &str) -> Self {
        let call = self.set(2, name, value);
        self.response_head += &call;
        self.phases |= phase::RESPONSE_HEAD;
        self
    }

    /// Adds a value to a field of every request, behind those that are there.
    #[must_use]
    pub fn appends_request_field(mut self, name: &str, value: &str) -> Self {
        let call = self.set(0, name, value).replace("$set", "$append");
        self.request_head += &call;
        self.phases |= phase::REQUEST_HEAD;
        self
    }

    /// Adds a value to a field of every response, behind those that are there.
    #[must_use]
    pub fn appends_response_field(mut self, name: &str, value: &str) -> Self {
        let call = self.set(2, name, value).replace("$set", "$append");
        self.response_head += &call;
        self.phases |= phase::RESPONSE_HEAD;
        self
    }

    /// Answers every request itself.
    #[must_use]
    pub fn answers(mut self, status: u16, body: &str) -> Self {
        let body = self.text(body);
        let _infallible = write!(
            self.request_head,
            "(call $answer (i32.const {status}) (i32.const 0) (i32.const 0) {body} (i32.const 16))\n\
             (return (i32.const 2))\n"
        );
        self.phases |= phase::REQUEST_HEAD;
        self
    }

    /// Wants the request's body whole up to so many bytes, and the rest as it comes if there are more.
    #[must_use]
    pub fn wants_request_body_up_to(mut self, limit: u32) -> Self {
        self.wishes = format!(
            "(i32.store8 (i32.const 136) (i32.const 1))\n\
             (i32.store (i32.const 140) (i32.const {limit}))\n\
             (i32.store8 (i32.const 144) (i32.const 1))\n"
        );
        self.phases |= phase::REQUEST_BODY;
        self
    }

    /// Sets a field of the request in its body's phase, if the head is still here.
    #[must_use]
    pub fn sets_request_field_in_body(mut self, name: &str, value: &str) -> Self {
        let call = self.set(0, name, value);
        self.request_body += &call;
        self.phases |= phase::REQUEST_BODY;
        self
    }

    /// Traps in each of these phases, named as the contract names them.
    #[must_use]
    pub fn traps_in(self, name: &str) -> Self {
        self.runs_in(name, "(unreachable)\n")
    }

    /// Runs instructions in a phase before the callback returns "proceed".
    #[must_use]
    pub fn runs_in(mut self, name: &str, instructions: &str) -> Self {
        let (code, bit) = match name {
            "configure" => (&mut self.configure, 0),
            "request-head" => (&mut self.request_head, phase::REQUEST_HEAD),
            "request-body" => (&mut self.request_body, phase::REQUEST_BODY),
            "response-head" => (&mut self.response_head, phase::RESPONSE_HEAD),
            "response-body" => (&mut self.response_body, phase::RESPONSE_BODY),
            "log" => (&mut self.log, phase::LOG),
            other => panic!("no such phase: {other}"),
        };
        code.push_str(instructions);
        self.phases |= bit;
        self
    }

    /// Refuses whatever configuration it is given, in these words.
    #[must_use]
    pub fn refuses(mut self, words: &str) -> Self {
        let words = self.text(words);
        let mut words = words.split_inclusive(')');
        let (at, length) = (words.next().unwrap(), words.next().unwrap());
        self.configure = format!(
            "(i32.store8 (i32.const 128) (i32.const 1))\n\
             (i32.store (i32.const 132) {at})\n\
             (i32.store (i32.const 136) {length})\n\
             (return (i32.const 128))\n"
        );
        self
    }

    /// Imports one function more, which nothing calls: `(func (param ...) (result ...))` or less.
    #[must_use]
    pub fn imports(mut self, module: &str, name: &str, signature: &str) -> Self {
        let _infallible = writeln!(self.imports, "(import \"{module}\" \"{name}\" {signature})");
        self
    }

    /// A function of its own, as text, that instructions can call.
    #[must_use]
    pub fn function(mut self, text: &str) -> Self {
        self.functions += text;
        self.functions += "\n";
        self
    }

    /// Functions that nothing calls but that must be compiled, of about so many KiB.
    #[must_use]
    pub fn padded(mut self, kib: usize) -> Self {
        // Each round of the inner text is about 8 bytes of code.
        for number in 0..kib {
            let _infallible = writeln!(
                self.functions,
                "(func (export \"pad-{number}\") (param $a i32) (result i32)"
            );
            for round in 0..85 {
                let factor = 64 + (number * 131 + round * 17) % 8000;
                let _infallible = writeln!(
                    self.functions,
                    "(local.set $a (i32.add (i32.mul (local.get $a) (i32.const {factor})) (i32.const {round})))"
                );
            }
            self.functions += "(local.get $a))\n";
        }
        self
    }

    /// The module in text form.
    pub fn to_text(&self) -> String {
        let callbacks = "tidegate:filter/callbacks@0.1.0";
        let data: String = self
            .text
            .bytes()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        format!(
            r#"(module
(import "{EXCHANGE}" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
(import "{EXCHANGE}" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
(import "{EXCHANGE}" "answer" (func $answer (param i32 i32 i32 i32 i32 i32)))
{imports}
(memory (export "memory") 2)
(data (i32.const {TEXT}) "{data}")
(global $free (mut i32) (i32.const 65536))
(func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
  (global.set $free (i32.add (local.get $at) (local.get $size)))
  (local.get $at))
(func (export "{callbacks}#configure") (param $at i32) (param $length i32) (result i32)
  ;; A result at 128: ok, then phases, then wishes that are all 0 (in a stream) unless something is put there.
  {configure} {wishes}
  (i32.store8 (i32.const 132) (i32.const {phases}))
  (i32.const 128))
(func (export "{callbacks}#request-head") (param $id i64) (param $end i32) (result i32)
  {request_head} (i32.const 0))
(func (export "{callbacks}#request-body") (param $id i64) (param $length i32) (param $end i32) (result i32)
  {request_body} (i32.const 0))
(func (export "{callbacks}#request-trailers") (param $id i64) (result i32) (i32.const 0))
(func (export "{callbacks}#response-head") (param $id i64) (param $end i32) (result i32)
  {response_head} (i32.const 0))
(func (export "{callbacks}#response-body") (param $id i64) (param $length i32) (param $end i32) (result i32)
  {response_body} (i32.const 0))
(func (export "{callbacks}#response-trailers") (param $id i64) (result i32) (i32.const 0))
(func (export "{callbacks}#log") (param $id i64) {log})
{functions}
)"#,
            imports = self.imports,
            configure = self.configure,
            wishes = self.wishes,
            phases = self.phases,
            request_head = self.request_head,
            request_body = self.request_body,
            response_head = self.response_head,
            response_body = self.response_body,
            log = self.log,
            functions = self.functions,
        )
    }

    /// The module.
    ///
    /// # Panics
    /// If its text is no module.
    pub fn build(&self) -> Vec<u8> {
        to_wasm(&self.to_text())
    }
}

/// A module from its text.
///
/// # Panics
/// If its text is no module.
pub fn to_wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A filter that sets a field of every response.
pub fn sets_header(name: &str, value: &str) -> Vec<u8> {
    Guest::new().sets_response_field(name, value).build()
}

/// The same, with about 200 KiB of code.
pub fn large_sets_header(name: &str, value: &str) -> Vec<u8> {
    Guest::new()
        .sets_response_field(name, value)
        .padded(196)
        .build()
}

/// An empty module: valid, but no filter.
pub fn no_filter() -> Vec<u8> {
    wat::parse_str("(module)").unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_a_guest_is_wasm() {
        let wasm = Guest::new()
            .sets_request_field("a", "b")
            .appends_request_field("a", "\u{e9}\"\\")
            .sets_response_field("a", "b")
            .appends_response_field("a", "b")
            .answers(403, "no")
            .refuses("why")
            .runs_in("request-body", "(nop)")
            .runs_in("response-body", "(nop)")
            .traps_in("log")
            .imports("env", "x", "(func)")
            .build();
        assert_eq!(&wasm[..4], b"\0asm");
        let size = large_sets_header("a", "b").len();
        assert!((190_000..260_000).contains(&size), "{size}");
    }
}
