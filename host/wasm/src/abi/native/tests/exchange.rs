//! The interfaces `exchange` and `body`: what a guest reads is what is there, what it changes is changed, and what
//! is refused is refused with its reason.

use std::task::Poll;
use std::time::Duration;

use tidegate_core::filter::Outcome;
use tidegate_core::phase::{Flow, Phase};
use tidegate_core::usage::Isolation;

use super::guest::{CARRIERS, Guest, RESULT};
use super::world::{SLEPT, World, both, enter, exchange, poll, run, run_chunk};

fn head(body: &str) -> Guest {
    let body = body.replace("{R}", RESULT);
    Guest::new().on(Phase::RequestHead, &format!("{body} (i32.const 0)"))
}

#[test]
fn fields_are_read_one_by_one_or_all() {
    let guest = head(
        r#"
        (call $exchange.get (i32.const 0) {"X-Two"} {R})
        (call $tell_byte {R}) (call $tell_at (i32.const 68))
        (call $exchange.get (i32.const 0) {"host"} {R})
        (call $tell_at (i32.const 68))
        (call $exchange.get (i32.const 0) {"x-absent"} {R})
        (call $tell_byte {R})
        (call $exchange.get (i32.const 2) {"accept"} {R})
        (call $tell_byte {R})
        (call $exchange.get-all (i32.const 0) {"x-two"} {R})
        (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
        (call $tell_at (i32.load {R}))
        (call $tell_at (i32.add (i32.load {R}) (i32.const 8)))
        (call $exchange.get-all (i32.const 1) {"x-two"} {R})
        (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
        (call $tell_number (i64.extend_i32_u (call $exchange.count (i32.const 0))))
        (call $exchange.at (i32.const 0) (i32.const 2) {R})
        (call $tell_byte {R}) (call $tell_at (i32.const 68)) (call $tell_at (i32.const 76))
        (call $exchange.at (i32.const 0) (i32.const 3) {R})
        (call $tell_byte {R})
        (call $exchange.all (i32.const 0) {R})
        (call $tell_number (i64.extend_i32_u (i32.load offset=4 {R})))
        (call $tell_at (i32.load {R}))
        (call $tell_at (i32.add (i32.load {R}) (i32.const 8)))
        (call $tell_at (i32.add (i32.load {R}) (i32.const 40)))"#,
    );
    both(
        &guest,
        Phase::RequestHead,
        &[
            "1",
            "one",
            "a.example:81",
            "0",
            "0",
            "2",
            "one",
            "two",
            "0",
            "3",
            "1",
            "x-two",
            "two",
            "0",
            "3",
            "accept",
            "a",
            "two",
        ],
    );
}

#[test]
fn fields_are_changed_and_refusals_have_their_reason() {
    let guest = head(
        r#"
        (call $exchange.set (i32.const 0) {"x-new"} {"1"} {R}) (call $tell_byte {R})
        (call $exchange.append (i32.const 0) {"x-new"} {"2"} {R}) (call $tell_byte {R})
        (call $exchange.remove (i32.const 0) {"x-two"} {R})
        (call $tell_byte {R}) (call $tell_byte (i32.const 68))
        (call $exchange.set (i32.const 0) {"a b"} {"1"} {R})
        (call $tell_byte {R}) (call $tell_byte (i32.const 65))
        (call $exchange.set (i32.const 0) {"x-a"} {"
"} {R})
        (call $tell_byte (i32.const 65))
        (call $exchange.append (i32.const 0) {"content-length"} {"1"} {R})
        (call $tell_byte (i32.const 65))
        (call $exchange.set (i32.const 2) {"x-a"} {"1"} {R})
        (call $tell_byte (i32.const 65))
        (call $exchange.remove (i32.const 2) {"x-a"} {R})
        (call $tell_byte {R}) (call $tell_byte (i32.const 68))"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        assert_eq!(
            run(&filter, Phase::RequestHead, &exchange).unwrap(),
            Flow::Continue
        );
        assert_eq!(
            world.log.take(),
            ["0", "0", "0", "2", "1", "0", "1", "2", "3", "1", "3"],
            "{carrier:?}"
        );
        let exchange = exchange.borrow();
        let values: Vec<_> = exchange.request.fields.get_all("x-new").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(!exchange.request.fields.contains_key("x-two"));
    }
}

#[test]
fn the_request_line_is_read_and_changed() {
    let guest = head(
        r#"
        (call $exchange.method {R}) (call $tell_at {R})
        (call $exchange.scheme {R}) (call $tell_at {R})
        (call $exchange.authority {R}) (call $tell_at {R})
        (call $exchange.path {R}) (call $tell_at {R})
        (call $exchange.query {R}) (call $tell_byte {R}) (call $tell_at (i32.const 68))
        (call $exchange.set-method {"PUT"} {R}) (call $tell_byte {R})
        (call $exchange.set-scheme {"http"} {R}) (call $tell_byte {R})
        (call $exchange.set-authority {"b.example"} {R}) (call $tell_byte {R})
        (call $exchange.set-path {"/x/../y"} {R}) (call $tell_byte {R})
        (call $exchange.set-query (i32.const 1) {"z"} {R}) (call $tell_byte {R})
        (call $exchange.path {R}) (call $tell_at {R})
        (call $exchange.set-query (i32.const 0) (i32.const 0) (i32.const 0) {R}) (call $tell_byte {R})
        (call $exchange.query {R}) (call $tell_byte {R})
        (call $exchange.set-method {"a b"} {R}) (call $tell_byte (i32.const 65))
        (call $exchange.set-path {"y"} {R}) (call $tell_byte (i32.const 65))
        (call $exchange.set-query (i32.const 1) {"a#b"} {R}) (call $tell_byte (i32.const 65))"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        assert_eq!(
            world.log.take(),
            [
                "GET",
                "https",
                "a.example:81",
                "/a/b",
                "1",
                "c=d",
                "0",
                "0",
                "0",
                "0",
                "0",
                "/y",
                "0",
                "0",
                "0",
                "0",
                "1"
            ],
            "{carrier:?}"
        );
        let exchange = exchange.borrow();
        assert_eq!(exchange.request.method, "PUT");
        assert_eq!(exchange.request.target, "/y");
        assert_eq!(exchange.request.scheme.as_str(), "http");
        assert_eq!(exchange.request.authority.as_ref().unwrap(), "b.example");
    }
}

#[test]
fn facts_are_told() {
    let guest = head(
        r#"
        (call $exchange.client-address {R}) (call $tell_at {R})
        (call $tell_number (i64.extend_i32_u (call $exchange.client-port)))
        (call $exchange.protocol {R}) (call $tell_at {R})
        (call $exchange.tls {R}) (call $tell_byte {R})
        (call $tell_at (i32.const 68)) (call $tell_at (i32.const 76))
        (call $tell_byte (i32.const 84)) (call $tell_at (i32.const 88))
        (call $tell_byte (i32.const 96))
        (call $exchange.route {R}) (call $tell_at {R})
        (call $exchange.path-parameter {"id"} {R}) (call $tell_byte {R}) (call $tell_at (i32.const 68))
        (call $exchange.path-parameter {"other"} {R}) (call $tell_byte {R})
        (call $exchange.request-id {R}) (call $tell_at {R})
        (call $tell_number (i64.extend_i32_u (call $exchange.status)))
        (call $tell_number (local.get $id)) (call $tell_number (i64.extend_i32_u (local.get $end)))"#,
    );
    both(
        &guest,
        Phase::RequestHead,
        &[
            "192.0.2.7",
            "4000",
            "HTTP/2",
            "1",
            "TLSv1.3",
            "TLS_AES_128_GCM_SHA256",
            "1",
            "a.example",
            "0",
            "the-route",
            "1",
            "4 2",
            "0",
            "id-7",
            "0",
            "7",
            "1",
        ],
    );
}

#[test]
fn properties_pass_from_filter_to_filter() {
    let writer = head(
        r#"(call $exchange.set-property {"who"} {"me"} {R}) (call $tell_byte {R})
        (call $exchange.set-property {""} {"me"} {R}) (call $tell_byte (i32.const 65))"#,
    );
    let reader = head(
        r#"(call $exchange.property {"who"} {R}) (call $tell_byte {R}) (call $tell_at (i32.const 68))
        (call $exchange.property {"else"} {R}) (call $tell_byte {R})"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let exchange = exchange();
        let filter = world.filter(&writer, carrier);
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        let filter = world.filter(&reader, carrier);
        run(&filter, Phase::RequestHead, &exchange).unwrap();
        assert_eq!(world.log.take(), ["0", "0", "1", "me", "0"], "{carrier:?}");
    }
}

#[test]
fn an_answer_is_given_with_fields_and_body() {
    // Two fields at 128: x-a: 1, x-b: 2.
    let guest = Guest::new()
        .on(
            Phase::RequestHead,
            r#"(call $pair (i32.const 128) {"x-a"} {"1"}) (call $pair (i32.const 144) {"x-b"} {"2"})
            (call $exchange.answer (i32.const 403) (i32.const 128) (i32.const 2) {"no"} (i32.const 64))
            (call $tell_byte (i32.const 64))
            (i32.const 2)"#,
        )
        .on(
            Phase::ResponseHead,
            r#"(call $tell_number (i64.extend_i32_u (call $exchange.status)))
            (call $exchange.set-status (i32.const 418) (i32.const 64)) (call $tell_byte (i32.const 64))
            (call $exchange.set-status (i32.const 101) (i32.const 64)) (call $tell_byte (i32.const 64))
            (i32.const 0)"#,
        )
        .extra(
            "(func $pair (param $at i32) (param i32 i32 i32 i32)
                (i32.store (local.get $at) (local.get 1))
                (i32.store offset=4 (local.get $at) (local.get 2))
                (i32.store offset=8 (local.get $at) (local.get 3))
                (i32.store offset=12 (local.get $at) (local.get 4)))",
        );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        let flow = run(&filter, Phase::RequestHead, &exchange).unwrap();
        assert_eq!(flow, Flow::Answer, "{carrier:?}");
        let answer = exchange.borrow_mut().answer.take().unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.fields["x-a"], "1");
        assert_eq!(answer.fields["x-b"], "2");
        assert_eq!(answer.body, "no");
        run(&filter, Phase::ResponseHead, &exchange).unwrap();
        assert_eq!(world.log.take(), ["0", "200", "0", "1"]);
        assert_eq!(exchange.borrow().response.as_ref().unwrap().status, 418);
    }
}

#[test]
fn a_chunk_is_read_replaced_and_added_to() {
    let guest = Guest::new().on(
        Phase::RequestBody,
        r#"(call $tell_number (i64.extend_i32_u (local.get $length)))
        (call $body.read (i32.const 1) (i32.const 3) (i32.const 64)) (call $tell_at (i32.const 64))
        (call $body.read (i32.const 9) (i32.const 3) (i32.const 64)) (call $tell_at (i32.const 64))
        (call $body.append {"!"})
        (call $body.read (i32.const 4) (i32.const -1) (i32.const 64)) (call $tell_at (i32.const 64))
        (call $body.replace {"bye"})
        (call $body.append {"?"})
        (i32.const 0)"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        run_chunk(&filter, Phase::RequestBody, &exchange, b"hello").unwrap();
        assert_eq!(world.log.take(), ["5", "ell", "", "o!"], "{carrier:?}");
        let chunk = std::mem::take(&mut exchange.borrow_mut().chunk);
        assert_eq!(chunk.into_bytes(), "bye?");
    }
}

#[test]
fn there_is_no_chunk_outside_of_a_bodys_phase() {
    let guest = head(
        r#"(call $body.append {"!"}) (call $body.replace {"!"})
        (call $body.read (i32.const 0) (i32.const 9) {R}) (call $tell_at {R})"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        run_chunk(&filter, Phase::RequestHead, &exchange, b"left over").unwrap();
        assert_eq!(world.log.take(), [""], "{carrier:?}");
        let chunk = std::mem::take(&mut exchange.borrow_mut().chunk);
        assert_eq!(chunk.into_bytes(), "left over");
    }
}

#[test]
fn there_is_no_exchange_in_configure() {
    let configure = r#"
        (call $exchange.get (i32.const 0) {"accept"} (i32.const 64)) (call $tell_byte (i32.const 64))
        (call $exchange.get-all (i32.const 0) {"accept"} (i32.const 64))
        (call $tell_byte (i32.const 68))
        (call $exchange.all (i32.const 0) (i32.const 64)) (call $tell_byte (i32.const 68))
        (call $exchange.path (i32.const 64)) (call $tell_at (i32.const 64))
        (call $exchange.client-address (i32.const 64)) (call $tell_at (i32.const 64))
        (call $tell_number (i64.extend_i32_u (call $exchange.client-port)))
        (call $exchange.set (i32.const 0) {"x-a"} {"1"} (i32.const 64)) (call $tell_byte (i32.const 65))
        (call $body.append {"!"})"#;
    let guest = head("").configure(configure);
    for carrier in CARRIERS {
        let world = World::new();
        world.load(&guest.build(carrier)).unwrap();
        let expected = ["0", "0", "0", "", "", "0", "3"];
        assert_eq!(world.log.take(), expected, "{carrier:?}");
    }
}

#[test]
fn trailers_are_read_and_changed_in_their_phase() {
    let guest = Guest::new().on(
        Phase::ResponseTrailers,
        r#"(call $exchange.set (i32.const 3) {"grpc-status"} {"0"} (i32.const 64))
        (call $tell_byte (i32.const 64))
        (call $exchange.set (i32.const 3) {"authorization"} {"0"} (i32.const 64))
        (call $tell_byte (i32.const 65))
        (call $exchange.get (i32.const 3) {"grpc-status"} (i32.const 64))
        (call $tell_at (i32.const 68))
        (i32.const 0)"#,
    );
    for carrier in CARRIERS {
        let world = World::new();
        let filter = world.filter(&guest, carrier);
        let exchange = exchange();
        enter(&exchange, Phase::ResponseTrailers, b"");
        run(&filter, Phase::ResponseTrailers, &exchange).unwrap();
        assert_eq!(world.log.take(), ["0", "2", "0"], "{carrier:?}");
    }
}

#[test]
fn a_filter_has_its_exchange_wait_when_its_callback_is_done() {
    let guest = Guest::new()
        .on(
            Phase::RequestHead,
            r#"(call $exchange.delay (i32.const 60001) (i32.const 64))
            (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 65))
            (call $exchange.delay (i32.const 250) (i32.const 64)) (call $tell_byte (i32.const 64))
            (i32.const 0)"#,
        )
        .on(
            Phase::ResponseHead,
            "(call $exchange.delay (i32.const 1) (i32.const 64))
            (call $tell_byte (i32.const 64)) (call $tell_byte (i32.const 65)) (i32.const 0)",
        );
    for carrier in CARRIERS {
        for isolation in [Isolation::Shared, Isolation::Exclusive, Isolation::Fresh] {
            let mut world = World::new();
            world.isolation = Some(isolation);
            let filter = world.filter(&guest, carrier);
            let exchange = exchange();
            SLEPT.set(Duration::ZERO);
            enter(&exchange, Phase::RequestHead, b"");
            let Outcome::Pending(mut waiting) = filter.call(Phase::RequestHead, true, &exchange)
            else {
                panic!("{carrier:?} {isolation:?}: it does not wait");
            };
            assert_eq!(world.log.take(), ["1", "4", "0"], "{carrier:?}");
            assert!(matches!(
                poll(&mut waiting),
                Poll::Ready(Ok(Flow::Continue))
            ));
            assert_eq!(SLEPT.get(), Duration::from_millis(250), "{carrier:?}");
            run(&filter, Phase::ResponseHead, &exchange).unwrap();
            assert_eq!(world.log.take(), ["1", "3"], "{carrier:?}");
            assert_eq!(SLEPT.get(), Duration::from_millis(250));
        }
    }
}

#[test]
fn the_clients_certificate_and_the_exchanges_age_are_told() {
    both(
        &Guest::new().on(
            Phase::RequestHead,
            r#"(call $exchange.client-certificate (i32.const 64))
            (call $tell_byte (i32.const 64)) (call $tell_at (i32.const 72)) (call $tell_at (i32.const 80))
            (call $tell_at (i32.const 88))
            (call $tell_number (i64.sub (i64.const 0) (i64.load (i32.const 96))))
            (call $tell_number (i64.load (i32.const 104)))
            (call $tell_number (i64.extend_i32_u (i32.load (i32.const 116))))
            (call $tell_number (i64.extend_i32_u (i32.load (i32.const 124))))
            (call $tell_at (i32.load (i32.const 120))) (call $tell_at (i32.add (i32.load (i32.const 120)) (i32.const 8)))
            (call $tell_at (i32.load (i32.const 128)))
            (call $tell_number (i64.extend_i32_u (i32.load (i32.const 140))))
            (call $tell_at (i32.load (i32.const 144)))
            (call $tell_number (i64.extend_i32_u (i64.lt_u (call $exchange.elapsed) (i64.const 600000000000))))
            (i32.const 0)"#,
        ),
        Phase::RequestHead,
        &[
            "1", "CN=ada,O=ex\\,ample", "CN=ca", "1f", "5", "4000000000", "64", "2", "a.example",
            "b.example", "spiffe://example/ada", "0", "192.0.2.1", "1",
        ],
    );
}

/// Whoever made a filter for the contract's first version need not make it again.
#[test]
fn a_filter_made_for_an_older_version_runs() {
    let guest = Guest::new().version("0.1.0").on(
        Phase::RequestHead,
        r#"(call $exchange.route (i32.const 64)) (call $tell_at (i32.const 64))
        (call $limiter.take {"key"} (i32.const 2) (f64.const 2.5) (i32.const 7) (i32.const 64))
        (call $tell_byte (i32.const 64)) (i32.const 0)"#,
    );
    both(&guest, Phase::RequestHead, &["the-route", "1"]);
    let world = World::new();
    for carrier in CARRIERS {
        let bytes = guest.build(carrier);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("@0.1.0") && !text.contains("@0.1.1"),
            "{carrier:?}"
        );
        assert!(world.load(&bytes).is_ok());
    }
}
