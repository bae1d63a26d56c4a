//! Files that are no filters, and filters that may not be loaded: what is said of them.

use tidegate_core::phase::Phase;

use super::guest::{CARRIERS, Guest, assemble};
use super::world::{World, engine};
use crate::{LoadError, inspect};

fn refusal(bytes: &[u8]) -> String {
    let error = engine().compile(bytes).map(|_| ()).unwrap_err();
    let report = inspect(bytes);
    assert!(!report.filter);
    assert!(
        report.kind.starts_with("not a filter because "),
        "{}",
        report.kind
    );
    error.to_string()
}

fn refused_text(text: &str) -> String {
    refusal(&assemble(text))
}

/// A module with one phase and more.
fn with(more: &str) -> String {
    format!(
        r#"(module {more}
        (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))"#
    )
}

#[test]
fn files_that_are_no_wasm_are_named_for_what_they_are() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "the file is empty"),
        (
            b"garbage garbage garbage",
            "does not begin as WebAssembly does",
        ),
        (b"\0as", "does not begin as WebAssembly does"),
        (b"\0asm\x01", "truncated"),
        (b"\0asm\x09\0\0\0", "damaged"),
        (b"\x1f\x8b\x08aaaaaa", "gzip"),
        (b"PK\x03\x04aaaa", "zip"),
        (b"\x7fELF\x02\x01", "native program"),
        (b"  (module (func))", "WebAssembly text"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for carrier in CARRIERS {
        let guest = Guest::new().on(Phase::RequestHead, r#"(call $tell {"a"}) (i32.const 0)"#);
        let whole = guest.build(carrier);
        assert!(inspect(&whole).filter);
        for length in 0..whole.len() {
            let report = inspect(&whole[..length]);
            // The format can't tell a module that ends just before its last data or custom sections from a whole one.
            assert!(
                !report.filter || [0, 11].contains(&whole[length]),
                "{carrier:?} cut to {length}: {}",
                report.kind
            );
        }
    }
}

#[test]
fn other_hosts_filters_are_recognised() {
    let cases = [
        (
            r#"(module (func (export "proxy_abi_version_0_2_1")))"#,
            "a proxy-wasm filter",
        ),
        (
            r#"(module (func (export "proxy_on_request_headers")) (func (export "malloc")))"#,
            "a proxy-wasm filter",
        ),
        (
            r#"(module (func (export "handle_request") (result i64) i64.const 0)
            (func (export "handle_response") (param i32 i32)))"#,
            "an http-wasm filter",
        ),
        (
            r#"(module (import "extism:host/env" "input_length" (func (result i64))))"#,
            "an Extism plugin",
        ),
        (
            r#"(module (import "fastly_http_req" "new" (func (param i32) (result i32)))
            (func (export "_start")))"#,
            "a Fastly Compute application",
        ),
        (r#"(module (func (export "_start")))"#, "a WASI command"),
        (
            r#"(component (component $c) (instance $i (instantiate $c))
            (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
            "a wasi:http component",
        ),
    ];
    for (text, expected) in cases {
        let message = refused_text(text);
        assert!(message.contains(expected), "{message}");
        assert!(
            message.contains("not supported by this version"),
            "{message}"
        );
    }
    assert!(
        refused_text("(module)").contains("it is a WebAssembly module, but exports no callback")
    );
    assert!(refused_text("(component)").contains("it is a WebAssembly component"));
    let message = refused_text(
        r#"(module (import "tidegate:filter/clock@0.1.0" "wall" (func (result i64))))"#,
    );
    assert!(message.contains("but exports no callback"), "{message}");
    let message = refused_text(
        r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32) i32.const 0))"#,
    );
    assert!(message.contains("exports no phase"), "{message}");
}

#[test]
fn unknown_imports_are_named_with_what_there_is() {
    let memory = r#"(memory (export "memory") 1)"#;
    let cases = [
        (
            r#"(import "tidegate:filter/clock@0.1.0" "sleep" (func))"#,
            "`tidegate:filter/clock@0.1.0 sleep`, which this host does not have: clock has monotonic, wall",
        ),
        (
            r#"(import "tidegate:filter/clocks@0.1.0" "wall" (func))"#,
            "tidegate:filter@0.1.1 has exchange, body, log, metrics",
        ),
        (
            r#"(import "tidegate:filter/clock" "wall" (func))"#,
            "imported with their version",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#,
            "a filter has no WASI; build for wasm32-unknown-unknown",
        ),
        (
            r#"(import "env" "helper" (func))"#,
            "the linker did not find",
        ),
        (
            r#"(import "env" "memory" (memory 1))"#,
            "brings its own memory",
        ),
        (
            r#"(import "other" "thing" (global i32))"#,
            "imports from tidegate:filter@0.1.1 only",
        ),
    ];
    for (import, expected) in cases {
        let memory = if import.contains("(memory 1)") {
            ""
        } else {
            memory
        };
        let message = refused_text(&with(&format!("{import} {memory}")));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_newer_contract_is_refused_clearly() {
    let memory = r#"(memory (export "memory") 1)"#;
    for more in [
        r#"(import "tidegate:filter/clock@0.2.0" "wall" (func (result i64)))"#,
        r#"(import "tidegate:filter/clock@0.1.2" "sleep" (func))"#,
        r#"(func (export "tidegate:filter/callbacks@1.0.0#idle"))"#,
        r#"(func (export "tidegate_filter_callbacks_0_2_0_request_head") (param i64 i32) (result i32) (i32.const 0))"#,
    ] {
        let message = refused_text(&with(&format!("{more} {memory}")));
        assert!(
            message.contains("this host speaks 0.1.1: update tidegate"),
            "{message}"
        );
    }
    // The same in a component.
    let newer = r#"(component
        (import "tidegate:filter/clock@0.2.0" (instance (export "wall" (func (result u64)))))
        (core module $m (func (export "log") (param i64)))
        (core instance $i (instantiate $m))
        (func $log (param "id" u64) (canon lift (core func $i "log")))
        (component $c (import "log" (func $log (param "id" u64))) (export "log" (func $log)))
        (instance $callbacks (instantiate $c (with "log" (func $log))))
        (export "tidegate:filter/callbacks@0.1.0" (instance $callbacks)))"#;
    let message = refused_text(newer);
    assert!(message.contains("made for contract 0.2.0"), "{message}");
    // The contract's own version runs, though it is no complete component of the world.
    let ours = newer.replace("0.2.0", "0.1.0");
    let compiled = engine().compile(&assemble(&ours)).unwrap();
    assert_eq!(compiled.contract(), "0.1.0");
    World::new().load(&assemble(&ours)).unwrap();
}

#[test]
fn wrong_types_are_named_with_the_right_ones() {
    let memory = r#"(memory (export "memory") 1)"#;
    let cases = [
        (
            r#"(import "tidegate:filter/clock@0.1.0" "wall" (func (result i32)))"#,
            "import `tidegate:filter/clock@0.1.0 wall` must have the type () -> i64, but has () -> i32",
        ),
        (
            r#"(func (export "tidegate_filter_callbacks_0_1_0_request_head") (param i32 i32) (result i32) (i32.const 0))"#,
            "export `tidegate_filter_callbacks_0_1_0_request_head` must have the type (i64, i32) -> i32, but has (i32, i32) -> i32",
        ),
        (
            r#"(global (export "tidegate_filter_callbacks_0_1_0_request_head") i32 (i32.const 0))"#,
            "but has a global",
        ),
        (
            r#"(func (export "cabi_realloc") (param i32) (result i32) (i32.const 0))"#,
            "export `cabi_realloc` must have the type (i32, i32, i32, i32) -> i32",
        ),
        (
            r#"(func (export "_initialize") (param i32))"#,
            "export `_initialize` must have the type ()",
        ),
        (
            r#"(func (export "tidegate:filter/callbacks@0.1.0#idle"))"#,
            "is no callback: there are configure, request-head",
        ),
    ];
    for (more, expected) in cases {
        let message = refused_text(&with(&format!("{more} {memory}")));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_is_handed_over_needs_memory_and_allocator() {
    let message = refused_text(&with(
        r#"(import "tidegate:filter/exchange@0.1.0" "path" (func (param i32)))
        (memory (export "memory") 1)"#,
    ));
    assert!(
        message.contains("does not export `cabi_realloc` of type (i32, i32, i32, i32) -> i32"),
        "{message}"
    );
    assert!(
        message.contains("tidegate:filter/exchange@0.1.0 path"),
        "{message}"
    );
    let message = refused_text(&with(
        r#"(import "tidegate:filter/exchange@0.1.0" "path" (func (param i32)))"#,
    ));
    assert!(message.contains("its memory as `memory`"), "{message}");
    let message = refused_text(&with(
        r#"(memory (export "memory") 1)
        (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32) (i32.const 0))"#,
    ));
    assert!(message.contains("handed the configuration"), "{message}");
    // Who is handed nothing needs no allocator.
    let module = assemble(&with(
        r#"(import "tidegate:filter/clock@0.1.0" "wall" (func (result i64)))
        (memory (export "memory") 1)"#,
    ));
    World::new().load(&module).unwrap();
}

#[test]
fn features_that_are_not_supported_are_named() {
    for (more, expected) in [
        (r#"(memory (export "memory") 1 2 shared)"#, "shared memory"),
        (r#"(memory (export "memory") i64 1)"#, "64-bit memory"),
        (r#"(memory (export "memory") 1) (memory 1)"#, "2 memories"),
    ] {
        let message = refused_text(&with(more));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_reaches_outside_must_be_granted() {
    let call = r#"(call $http-client.call {"users"} {"GET"} {"/"} (i32.const 0) (i32.const 0) {""}
        (i32.const 0) (i32.const 0) (i32.const 64))"#;
    let cases = [
        (
            call,
            "filter `test` imports tidegate:filter/http-client but is not granted an upstream; add \
             `allow = { http = [\"UPSTREAM\"] }` to [filter.test]",
        ),
        (
            r#"(call $store.delete {"a"} {"b"} (i32.const 64))"#,
            "filter `test` imports tidegate:filter/store but is not granted a namespace; add \
             `allow = { store = [\"test\"] }` to [filter.test]",
        ),
        (
            r#"(call $environment.get {"a"} (i32.const 64))"#,
            "filter `test` imports tidegate:filter/environment but is not granted a value; add \
             `allow = { env = [\"VARIABLE\"] }` to [filter.test]",
        ),
    ];
    for carrier in CARRIERS {
        for (body, expected) in cases {
            let guest = Guest::new().on(Phase::RequestHead, &format!("{body} (i32.const 0)"));
            let bytes = guest.build(carrier);
            let mut world = World::new();
            world.load(&bytes).unwrap();
            world.allow = crate::Allow::default();
            let error = world.load(&bytes).unwrap_err();
            assert!(matches!(error, LoadError::NotGranted { .. }), "{error:?}");
            assert_eq!(error.to_string(), expected, "{carrier:?}");
            assert_eq!(inspect(&bytes).capabilities.len(), 1);
        }
    }
}

#[test]
fn a_component_with_a_wrong_type_is_refused() {
    let text = r#"(component
        (core module $m (func (export "log") (param i32)))
        (core instance $i (instantiate $m))
        (func $log (param "id" u32) (canon lift (core func $i "log")))
        (component $c (import "log" (func $log (param "id" u32))) (export "log" (func $log)))
        (instance $callbacks (instantiate $c (with "log" (func $log))))
        (export "tidegate:filter/callbacks@0.1.0" (instance $callbacks)))"#;
    let error = World::new().load(&assemble(text)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tidegate:filter/callbacks@0.1.1#log"),
        "{error}"
    );
}

#[test]
fn a_report_is_readable_and_whole() {
    let manifest = concat!(
        r#"{"name": "n", "version": "1.2.3", "description": "Does\u001b[31m it.","#,
        r#""config-schema": {"type": "object"}, "later": true,"#,
        r#""capabilities": [{"kind": "store", "why": "to count"}]}"#
    );
    let guest = Guest::new()
        .on(
            Phase::RequestHead,
            r#"(call $store.delete {"a"} {"b"} (i32.const 64)) (i32.const 0)"#,
        )
        .extra(&format!("(@custom \"tidegate:manifest\" {manifest:?})"));
    for carrier in CARRIERS {
        let bytes = guest.build(carrier);
        let report = inspect(&bytes);
        assert!(report.filter, "{}", report.kind);
        assert_eq!(report.contract.as_deref(), Some("0.1.1"));
        assert_eq!(report.phases.len(), 8);
        let mut imports = report.imports.clone();
        imports.sort();
        imports.dedup();
        assert!(imports.contains(&"tidegate:filter/store@0.1.1 delete".to_owned()));
        let manifest = report.manifest.as_ref().unwrap();
        assert_eq!(manifest.version, "1.2.3");
        assert!(manifest.config_schema.is_some());
        assert_eq!(engine().compile(&bytes).unwrap().manifest(), Some(manifest));
        let text = report.to_string();
        for line in [
            "phases        configure",
            "needs grants  store",
            "memory        128.0 KiB, up to the operator's limit",
            "wants         store: to count",
            "contract      0.1.1",
            "tidegate:filter/store@0.1.1: delete",
        ] {
            assert!(text.contains(line), "{carrier:?}: {line} in\n{text}");
        }
        assert!(
            !text.contains('\u{1b}'),
            "the file's words can't steer a terminal"
        );
    }
    let bad = with(r#"(@custom "tidegate:manifest" "{")"#);
    assert!(refused_text(&bad).contains("its manifest (custom section"));
}

#[test]
fn a_function_that_came_later_than_the_version_that_is_named_is_said_to_have() {
    for (import, ty) in [
        ("exchange@0.1.0\" \"delay", "(param i32 i32)"),
        ("limiter@0.1.0\" \"enter", "(param i32 i32 i32 i32 i32)"),
    ] {
        let message = refused_text(&with(&format!(
            r#"(import "tidegate:filter/{import}" (func {ty})) (memory (export "memory") 1)"#
        )));
        assert!(message.contains("came with contract 0.1.1"), "{message}");
        assert!(message.contains("@0.1.1, not @0.1.0"), "{message}");
    }
    // And of a file that is made for a later version, as an older host says of one for this.
    let message = refused_text(&with(
        r#"(import "tidegate:filter/exchange@0.1.2" "delay" (func (param i32 i32))) (memory (export "memory") 1)"#,
    ));
    assert!(message.contains("made for contract 0.1.2"), "{message}");
    assert!(
        message.contains("this host speaks 0.1.1: update tidegate"),
        "{message}"
    );
}
