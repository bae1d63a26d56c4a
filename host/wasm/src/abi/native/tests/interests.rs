//! What a filter takes, and what its decisions may be.

use std::time::Duration;

use tidegate_core::error::Fault;
use tidegate_core::phase::{BodyMode, BodyWish, Flow, Overflow, Phase};

use super::guest::{CARRIERS, Carrier, Guest, assemble};
use super::world::{World, exchange, run, run_chunk};
use crate::LoadError;

#[test]
fn configure_is_handed_the_configuration_and_says_what_it_wants() {
    let guest = Guest::new()
        .configure("(call $tell (local.get $config) (local.get $config_length))")
        .on(Phase::RequestHead, "(i32.const 0)")
        .on(Phase::ResponseBody, "(i32.const 0)")
        .on(Phase::Log, "")
        // Whole, 512 bytes, refuse; stream, 4 MiB, stream.
        .interest(4, 1)
        .interest(9, 2)
        .interest(16, 0)
        .interest(22, 64)
        .interest(24, 1);
    for carrier in CARRIERS {
        let mut world = World::new();
        world.config = "{\"größe\": 1}".to_owned();
        let module = world.load(&guest.build(carrier)).unwrap();
        assert_eq!(world.log.take(), [world.config.as_str()]);
        let interests = module.interests();
        assert_eq!(interests.phases, guest.phases(), "{carrier:?}");
        assert_eq!(
            interests.request_body,
            BodyWish {
                mode: BodyMode::Whole,
                limit: 512,
                overflow: Overflow::Refuse
            }
        );
        // Over the operator's bound.
        assert_eq!(
            interests.response_body,
            BodyWish {
                mode: BodyMode::Stream,
                limit: 1024 * 1024,
                overflow: Overflow::Stream
            }
        );
    }
}

#[test]
fn no_bound_is_the_operators() {
    for carrier in CARRIERS {
        let mut world = World::new();
        world.limits.body = 77;
        let guest = Guest::new().on(Phase::RequestHead, "(i32.const 0)");
        let module = world.load(&guest.build(carrier)).unwrap();
        assert_eq!(module.interests().request_body.limit, 77, "{carrier:?}");
        assert_eq!(module.interests().response_body.mode, BodyMode::OnHold);
    }
}

#[test]
fn what_was_not_asked_for_is_not_called() {
    let guest = Guest::new()
        .on(Phase::RequestHead, "(i32.const 0)")
        .exports_only(Phase::ResponseHead, "unreachable")
        .exports_only(Phase::RequestBody, "unreachable");
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        for phase in [Phase::ResponseHead, Phase::RequestBody, Phase::Log] {
            let flow = run(&filter, phase, &exchange()).unwrap();
            assert_eq!(flow, Flow::Continue, "{carrier:?} {phase}");
        }
    }
}

#[test]
fn a_held_head_brings_the_body_though_it_was_not_asked_for() {
    let guest = Guest::new()
        .on(Phase::RequestHead, "(i32.const 1)")
        .exports_only(
            Phase::RequestBody,
            "(call $tell_number (i64.extend_i32_u (local.get $length))) (i32.const 0)",
        );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let (held, other) = (super::world::exchange_with_id(1), exchange());
        let flow = run(&filter, Phase::RequestHead, &held).unwrap();
        assert_eq!(flow, Flow::Hold);
        run_chunk(&filter, Phase::RequestBody, &other, b"abcd").unwrap();
        run_chunk(&filter, Phase::RequestBody, &held, b"abc").unwrap();
        assert_eq!(world.log.take(), ["3"], "{carrier:?}");
        run(&filter, Phase::Log, &held).unwrap();
        run_chunk(&filter, Phase::RequestBody, &held, b"abc").unwrap();
        assert_eq!(world.log.take(), [""; 0]);
    }
}

#[test]
fn decisions_that_mean_nothing_are_faults() {
    let cases = [
        (
            Phase::RequestHead,
            "(i32.const 2)",
            "without giving an answer",
        ),
        (
            Phase::RequestTrailers,
            "(i32.const 1)",
            "returned `hold` in request-trailers",
        ),
        (
            Phase::ResponseBody,
            "(i32.const 1)",
            "returned `hold` in response-body",
        ),
    ];
    for carrier in CARRIERS {
        for (phase, body, expected) in cases {
            let world = World::new();
            let filter = world.filter(&Guest::new().on(phase, body), carrier);
            let error = run(&filter, phase, &exchange()).unwrap_err();
            assert!(matches!(error.fault, Fault::Contract(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.phase, phase);
        }
        let world = World::new();
        let guest = Guest::new().on(Phase::RequestHead, "(i32.const 3)");
        let filter = world.filter(&guest, carrier);
        run(&filter, Phase::RequestHead, &exchange()).unwrap_err();
    }
}

#[test]
fn an_answer_of_an_earlier_call_is_not_sent() {
    let guest = Guest::new()
        .on(
            Phase::RequestHead,
            r#"(call $exchange.answer (i32.const 200) (i32.const 0) (i32.const 0) {""} (i32.const 64))
            (i32.const 0)"#,
        )
        .on(Phase::ResponseHead, "(i32.const 2)");
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        let error = run(&filter, Phase::ResponseHead, &exchange).unwrap_err();
        assert!(matches!(error.fault, Fault::Contract(_)), "{carrier:?}");
    }
}

#[test]
fn a_refused_configuration_is_told_in_the_guests_own_words() {
    let refuse =
        r#"(i32.store (i32.const 16) (i32.const 1)) (call $why {"key `rate`: no number"})"#;
    let guest = Guest::new()
        .on(Phase::RequestHead, "(i32.const 0)")
        .configure(refuse)
        .extra(
            "(func $why (param i32 i32)
                (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1)))",
        );
    for carrier in CARRIERS {
        let error = World::new().load(&guest.build(carrier)).unwrap_err();
        assert!(matches!(error, LoadError::Refused { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "filter `test` refused its configuration: key `rate`: no number"
        );
        assert_eq!(error.phase(), Some(Phase::Configure));
    }
}

#[test]
fn a_module_without_configure_takes_what_it_exports() {
    let world = World::new();
    let module = assemble(
        r#"(module
        (func (export "tidegate_filter_callbacks_0_1_1_request_head") (param i64 i32) (result i32)
            (i32.const 0))
        (func (export "tidegate_filter_callbacks_0_1_1_response_body") (param i64 i32 i32) (result i32)
            (i32.const 0)))"#,
    );
    let module = world.load(&module).unwrap();
    let phases: Vec<_> = module.interests().phases.iter().collect();
    assert_eq!(phases, [Phase::RequestHead, Phase::ResponseBody]);
    assert_eq!(module.interests().response_body.mode, BodyMode::Stream);
    let filter = world.on_worker(&*module).unwrap();
    let flow = run(&filter, Phase::RequestHead, &exchange()).unwrap();
    assert_eq!(flow, Flow::Continue);
}

#[test]
fn plain_names_are_the_same_as_the_canonical_ones() {
    let guest = Guest::new()
        .on(Phase::RequestHead, r#"(call $tell {"head"}) (i32.const 0)"#)
        .configure(r#"(call $tell {"configure"})"#);
    let mut text = guest.text();
    for phase in Phase::ALL {
        let canonical = format!("tidegate:filter/callbacks@0.1.1#{phase}");
        let plain: String = canonical
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        text = text.replace(&format!("\"{canonical}\""), &format!("\"{plain}\""));
    }
    assert!(!text.contains("callbacks@"));
    let world = World::new();
    let module = world.load(&assemble(&text)).unwrap();
    let filter = world.on_worker(&*module).unwrap();
    run(&filter, Phase::RequestHead, &exchange()).unwrap();
    assert_eq!(world.log.take(), ["configure", "configure", "head"]);
}

#[test]
fn initialize_runs_first_and_post_return_after_configure() {
    let guest = Guest::new()
        .on(Phase::RequestHead, "(i32.const 0)")
        .configure(r#"(call $tell {"configure"})"#)
        .extra(
            r#"(func (export "_initialize") (call $tell {"initialize"}))
            (func (export "cabi_post_tidegate:filter/callbacks@0.1.1#configure") (param i32)
                (call $tell_number (i64.extend_i32_u (local.get 0))))"#,
        );
    let world = World::new();
    world.load(&guest.build(Carrier::Core)).unwrap();
    assert_eq!(world.log.take(), ["initialize", "configure", "16"]);
}

#[test]
fn asking_for_a_phase_that_is_not_exported_is_refused() {
    let text = Guest::new()
        .on(Phase::RequestHead, "(i32.const 0)")
        .on(Phase::ResponseHead, "(i32.const 0)")
        .text()
        .replace(
            "#response-head\"",
            "#response-head\" (param i32)) (func (export \"x\"",
        );
    let text = text.replace(
        "(func (export \"tidegate:filter/callbacks@0.1.1#response-head\" (param i32)) ",
        "",
    );
    let error = World::new().load(&assemble(&text)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it does not export `tidegate:filter/callbacks@0.1.1#response-head`, which what its configure asked for \
         (response-head) needs"
    );
}

#[test]
fn holding_without_a_body_callback_is_a_fault() {
    let text = r#"(module
        (func (export "tidegate_filter_callbacks_0_1_1_request_head") (param i64 i32) (result i32)
            (i32.const 1)))"#;
    let world = World::new();
    let module = world.load(&assemble(text)).unwrap();
    let filter = world.on_worker(&*module).unwrap();
    let error = run(&filter, Phase::RequestHead, &exchange()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("exports no `tidegate:filter/callbacks@0.1.1#request-body`"),
        "{error}"
    );
}

#[test]
fn limits_have_the_documented_defaults() {
    let limits = crate::Limits::default();
    assert_eq!(limits.memory, 64 << 20);
    assert_eq!(limits.time, Duration::from_millis(20));
    assert_eq!(limits.body, 1 << 20);
}
