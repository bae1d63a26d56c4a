//! Balancers that speak the PROXY protocol: whom they name is the client, and nobody else may name anyone.

use std::time::Duration;

use tidegate_tests::certs::Authority;
use tidegate_tests::client::Tls;
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Echo, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::{End, Wire};

const ASK: &str = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
const LINE: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 12345 80\r\n";

/// Version 2 for the same client.
fn binary() -> Vec<u8> {
    let mut head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14".to_vec();
    head.extend([203, 0, 113, 9, 192, 0, 2, 1, 0x30, 0x39, 0, 80]);
    // An addition: what was negotiated.
    head.extend([1, 0, 5, b'h', b't', b't', b'p', b'1']);
    head
}

async fn behind_balancers(upstream: &Upstream, server: &str) -> Gateway {
    Setup::before(upstream)
        .server("proxy-protocol = [\"127.0.0.0/8\"]")
        .server(server)
        .start()
        .await
}

async fn echo_of(wire: &mut Wire) -> Echo {
    let reply = wire.read_message().await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

async fn failures(gateway: &Gateway, reason: &str) -> f64 {
    let name = "tidegate_proxy_protocol_failures_total";
    gateway.metric(name, &[("reason", reason)]).await
}

#[tokio::test]
async fn the_client_is_whom_the_balancer_names() {
    let upstream = Upstream::echo().await;
    let gateway = behind_balancers(&upstream, "").await;
    for head in [LINE.as_bytes().to_vec(), binary()] {
        for pieces in [1, 2, head.len()] {
            let mut wire = gateway.wire().await;
            for piece in head.chunks(head.len().div_ceil(pieces)) {
                wire.send(piece).await;
            }
            // The connection goes on as any other, for this client and no other.
            for _ in 0..2 {
                wire.send(ASK).await;
                let seen = echo_of(&mut wire).await;
                assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9"]);
                assert!(seen.field("forwarded").unwrap().contains("for=203.0.113.9"));
            }
        }
    }
    // In one segment, and for a balancer that asks for itself.
    let mut wire = gateway.wire().await;
    wire.send(format!("{LINE}{ASK}")).await;
    let seen = echo_of(&mut wire).await;
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9"]);
    let mut wire = gateway.wire().await;
    wire.send(format!("PROXY UNKNOWN\r\n{ASK}")).await;
    let seen = echo_of(&mut wire).await;
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn the_head_comes_before_tls() {
    let upstream = Upstream::echo().await;
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let gateway = Setup::before(&upstream)
        .without_listener()
        .server("proxy-protocol = [\"127.0.0.0/8\"]")
        .file("cert.pem", &identity.certificate)
        .file("key.pem", &identity.key)
        .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"")
        .start()
        .await;
    let config = || authority.client(&["http/1.1"]);
    let without = Tls::connect(gateway.https(), "localhost", config()).await;
    assert!(without.is_err());
    let tls = Tls::connect_behind(gateway.https(), &binary(), "localhost", config()).await;
    let mut wire = Wire::over_tls(tls.unwrap());
    wire.send(ASK).await;
    let seen = echo_of(&mut wire).await;
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9"]);
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn a_client_that_is_a_trusted_proxy_itself_is_believed_and_no_other() {
    let upstream = Upstream::echo().await;
    let gateway = behind_balancers(&upstream, "trusted-proxies = [\"203.0.113.0/24\"]").await;
    for (line, expected) in [
        (LINE, "6.6.6.6, 203.0.113.9"),
        (
            "PROXY TCP4 198.51.100.7 192.0.2.1 12345 80\r\n",
            "198.51.100.7",
        ),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(format!("{line}{ASK}")).await;
        let seen = echo_of(&mut wire).await;
        assert_eq!(seen.all("x-forwarded-for").join(", "), expected);
    }
}

#[tokio::test]
async fn a_connection_without_a_good_head_is_closed_without_a_word() {
    let upstream = Upstream::echo().await;
    let gateway = behind_balancers(&upstream, "limits.handshake-timeout = \"300ms\"").await;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(94));
    assert_eq!(long.len(), 110);
    let mut wrong_length = binary();
    *wrong_length.last_mut().unwrap() = b'1';
    wrong_length[30] = 9;
    let cases: [(&[u8], &str); 8] = [
        (ASK.as_bytes(), "absent"),
        (
            b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 99999\r\n",
            "malformed",
        ),
        (
            b"PROXY TCP6 203.0.113.9 192.0.2.1 12345 80\r\n",
            "malformed",
        ),
        (&wrong_length, "malformed"),
        (long.as_bytes(), "too-long"),
        (b"PROXY TCP4 203.0.113.9 ", "timeout"),
        (&binary()[..20], "timeout"),
        (b"", "timeout"),
    ];
    for (number, (head, reason)) in cases.into_iter().enumerate() {
        let before = failures(&gateway, reason).await;
        let mut wire = gateway.wire().await;
        wire.send(head).await;
        if reason != "timeout" {
            // It may be closed already.
            let _closed = wire.try_send(ASK).await;
        }
        let (bytes, _) = wire.read_to_end().await;
        assert!(bytes.is_empty(), "{number}: {bytes:?}");
        until("the failure to be counted", async || {
            failures(&gateway, reason).await > before + 0.5
        })
        .await;
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn nobody_else_may_speak_for_another() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("proxy-protocol = [\"192.0.2.0/24\"]")
        .start()
        .await;
    for head in [LINE.as_bytes().to_vec(), binary()] {
        let mut wire = gateway.wire().await;
        wire.send(head).await;
        wire.send(ASK).await;
        let (bytes, _) = wire.read_to_end().await;
        assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{bytes:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn each_client_behind_a_balancer_has_the_bound_of_a_source() {
    let upstream = Upstream::echo().await;
    let gateway = behind_balancers(&upstream, "limits.max-connections-per-source = 1").await;
    let mut first = gateway.wire().await;
    first.send(format!("{LINE}{ASK}")).await;
    echo_of(&mut first).await;
    let mut second = gateway.wire().await;
    second.send(format!("{LINE}{ASK}")).await;
    assert_eq!(second.read_message().await.status(), 503);
    assert_eq!(second.read_to_end().await, (Vec::new(), End::Closed));
    let mut other = gateway.wire().await;
    other
        .send(format!("PROXY TCP4 203.0.113.10 192.0.2.1 1 80\r\n{ASK}"))
        .await;
    echo_of(&mut other).await;
    drop(first);
    until("room for the client again", async || {
        let mut wire = gateway.wire().await;
        wire.send(format!("{LINE}{ASK}")).await;
        tokio::time::timeout(Duration::from_secs(5), wire.read_message())
            .await
            .is_ok_and(|reply| reply.status() == 200)
    })
    .await;
}
