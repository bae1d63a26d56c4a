//! TLS downstream and upstream: versions, names, protocols, certificates that change.

use http::StatusCode;
use rustls::HandshakeKind;
use tidegate_tests::certs::{Authority, Identity};
use tidegate_tests::client::{Client, Tls, get, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Echo, Scripted, Upstream};
use tidegate_tests::wait::{until, within};
use tidegate_tests::wire::Wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A listener with one certificate after the other, for the names of their files.
fn secured(mut setup: Setup, identities: &[(&str, &Identity)]) -> Setup {
    for (name, identity) in identities {
        setup = setup
            .file(&format!("{name}.pem"), &identity.certificate)
            .file(&format!("{name}.key"), &identity.key);
    }
    setup
}

fn entry(listen: &str, name: &str) -> String {
    format!(
        "[[server.tls]]\nlisten = [\"{listen}\"]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\""
    )
}

/// A proxy before the upstream, with one certificate for `localhost`.
async fn gateway(authority: &Authority, upstream: &Upstream) -> Gateway {
    let identity = authority.issue(&["localhost"]);
    secured(Setup::before(upstream), &[("cert", &identity)])
        .toml(&entry("127.0.0.1:0", "cert"))
        .start()
        .await
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_either_http() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offer, expected) in [
            (vec!["h2", "http/1.1"], http::Version::HTTP_2),
            (vec!["http/1.1"], http::Version::HTTP_11),
            (vec![], http::Version::HTTP_11),
        ] {
            let config = authority.client_of(&[version], &offer);
            let mut client = Client::tls(gateway.https(), "localhost", config)
                .await
                .unwrap();
            let reply = client.send(post("/x", "body")).await;
            assert_eq!(reply.version, expected, "{version:?} {offer:?}");
            let seen = reply.echo();
            assert_eq!(seen.body, "body");
            assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        }
    }
}

#[tokio::test]
async fn a_client_that_knows_no_common_protocol_is_refused() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    let config = authority.client(&["foo"]);
    assert!(
        Tls::connect(gateway.https(), "localhost", config)
            .await
            .is_err()
    );
    // Others are served.
    let config = authority.client(&["h2"]);
    assert!(
        Tls::connect(gateway.https(), "localhost", config)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_asked_for() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let first = authority.issue(&["localhost", "first.example"]);
    let second = authority.issue(&["second.example", "*.wild.example"]);
    let setup = secured(
        Setup::before(&upstream).without_listener(),
        &[("first", &first), ("second", &second)],
    );
    // One port for both: it must be known beforehand.
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let gateway = setup
        .toml(&entry(&listen, "first"))
        .toml(&entry(&listen, "second"))
        .start()
        .await;
    for (name, expected) in [
        ("first.example", &first),
        ("second.example", &second),
        ("SECOND.example", &second),
        ("a.wild.example", &second),
    ] {
        let tls = Tls::connect(gateway.https(), name, authority.client(&[]))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tls.certificate(), expected.der(), "{name}");
    }
    // An unknown name gets the first one, which its client then refuses.
    let unknown = Tls::connect(gateway.https(), "other.example", authority.client(&[])).await;
    assert!(unknown.is_err());
}

/// A port that was free a moment ago. Only where two entries must name the same one.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn what_is_no_tls_is_closed() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    for bytes in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\x16\x03\x01\x00\x05hello",
    ] {
        let mut wire = Wire::connect(gateway.https()).await;
        wire.send(bytes).await;
        let rest = wire.rest().await;
        assert!(!rest.contains("200"), "{rest}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_ended() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::echo().await;
    let gateway = secured(Setup::before(&upstream), &[("cert", &identity)])
        .toml(&entry("127.0.0.1:0", "cert"))
        .toml("[server.limits]\nhandshake-timeout = \"300ms\"")
        .start()
        .await;
    for begin in ["", "\x16\x03\x01\x02\x00\x01\x00"] {
        let mut wire = Wire::connect(gateway.https()).await;
        wire.send(begin).await;
        wire.read_to_end().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    let mut before = Client::tls(gateway.https(), "localhost", authority.client(&["h2"]))
        .await
        .unwrap();
    let renewed = authority.issue(&["localhost"]);
    let put = |name: &str, text: &str| {
        let draft = gateway.folder().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, gateway.folder().join(name)).unwrap();
    };
    // Key and certificate do not fit each other in between.
    put("cert.key", &renewed.key);
    put("cert.pem", &renewed.certificate);
    until("the new certificate", async || {
        let tls = Tls::connect(gateway.https(), "localhost", authority.client(&[])).await;
        tls.is_ok_and(|tls| tls.certificate() == renewed.der())
    })
    .await;
    // Who was connected still is.
    assert_eq!(before.send(get("/")).await.status, StatusCode::OK);
    // A broken one leaves the good one in place.
    put("cert.pem", "-----BEGIN CERTIFICATE-----\nbroken");
    gateway.logged(&["cert.pem"]).await;
    let tls = Tls::connect(gateway.https(), "localhost", authority.client(&[])).await;
    assert_eq!(tls.unwrap().certificate(), renewed.der());
}

#[tokio::test]
async fn an_upstream_is_reached_over_tls_and_checked() {
    let authority = Authority::new();
    let upstream = Upstream::echo_tls(&authority.issue(&["localhost", "127.0.0.1"])).await;
    let stranger = Upstream::echo_tls(&Authority::new().issue(&["localhost", "127.0.0.1"])).await;
    let misnamed = Upstream::echo_tls(&authority.issue(&["other.example"])).await;
    let with_tls = |name: &str, url: &str, tls: &str| {
        format!("[upstream.{name}]\nendpoints = [\"{url}\"]\ntls = {{ {tls} }}")
    };
    let believed = "ca = \"ca.pem\"";
    let gateway = Setup::new()
        .file("ca.pem", authority.pem())
        .toml(&with_tls("good", &upstream.url(), believed))
        .toml(&with_tls("stranger", &stranger.url(), believed))
        .toml(&with_tls("misnamed", &misnamed.url(), believed))
        .toml(&with_tls(
            "renamed",
            &misnamed.url(),
            "ca = \"ca.pem\", server-name = \"other.example\"",
        ))
        .toml(&with_tls("careless", &stranger.url(), "insecure = true"))
        .route("/good", "good", &[])
        .route("/stranger", "stranger", &[])
        .route("/misnamed", "misnamed", &[])
        .route("/renamed", "renamed", &[])
        .route("/careless", "careless", &[])
        .start()
        .await;
    for path in ["/good", "/renamed", "/careless"] {
        for _ in 0..2 {
            let seen: Echo = gateway.send(post(path, "body")).await.echo();
            assert_eq!((seen.target.as_str(), seen.body.as_str()), (path, "body"));
            assert_eq!(seen.version, "HTTP/2.0");
        }
    }
    assert_eq!(upstream.connections(), 1);
    for path in ["/stranger", "/misnamed"] {
        let reply = gateway.get(path).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{path}");
    }
    assert_eq!(stranger.requests(), 2, "only the careless ones");
}

/// A ClientHello as an old program sends it: with this version, one suite that is no longer used, and the signatures
/// that it knows only if it is new enough for that.
fn old_hello(minor: u8, signatures: bool) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    if signatures {
        // signature_algorithms: ecdsa_secp256r1_sha256.
        hello.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    }
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, minor.min(1), 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn every_handshake_that_fails_is_counted_by_its_reason_and_reaches_nobody() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::echo().await;
    let gateway = secured(Setup::before(&upstream), &[("cert", &identity)])
        .toml(&entry("127.0.0.1:0", "cert"))
        .toml("[server.limits]\nhandshake-timeout = \"500ms\"")
        .start()
        .await;
    let counted = async |reason: &str, times: f64| {
        let name = "tidegate_tls_handshake_failures_total";
        until(
            &format!("{times} handshakes that fail by {reason}"),
            async || gateway.metric(name, &[("reason", reason)]).await >= times,
        )
        .await;
    };
    // SSL 3.0, TLS 1.0 and TLS 1.1 get the alert protocol_version (70), or handshake_failure (40) if they are so old
    // that they say nothing of signatures.
    for minor in 0..=2 {
        for (signatures, alert) in [(true, 70), (false, 40)] {
            let mut wire = Wire::connect(gateway.https()).await;
            wire.send(old_hello(minor, signatures)).await;
            let (answer, _) = wire.read_to_end().await;
            assert_eq!(answer.last(), Some(&alert), "3.{minor}: {answer:?}");
        }
    }
    counted("version", 6.0).await;
    // TLS 1.2 is offered, but no suite that is safe.
    let mut wire = Wire::connect(gateway.https()).await;
    wire.send(old_hello(3, true)).await;
    wire.read_to_end().await;
    counted("incompatible", 1.0).await;
    let refused = Tls::connect(gateway.https(), "localhost", authority.client(&["foo"])).await;
    assert!(refused.is_err());
    counted("alpn", 1.0).await;
    // The client does not know who vouches, or asked for another name.
    let stranger = Authority::new();
    for (name, trusted) in [("localhost", &stranger), ("other.example", &authority)] {
        let refused = Tls::connect(gateway.https(), name, trusted.client(&[])).await;
        assert!(refused.is_err());
    }
    counted("certificate", 2.0).await;
    let mut wire = Wire::connect(gateway.https()).await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.read_to_end().await;
    counted("not-tls", 1.0).await;
    // Empty fragments of a hello.
    let mut wire = Wire::connect(gateway.https()).await;
    wire.send([22, 3, 1, 0, 0].repeat(3)).await;
    wire.read_to_end().await;
    let mut wire = Wire::connect(gateway.https()).await;
    wire.send(&old_hello(3, true)[..20]).await;
    wire.finish().await;
    wire.read_to_end().await;
    counted("closed", 1.0).await;
    let mut wire = Wire::connect(gateway.https()).await;
    wire.read_to_end().await;
    counted("timeout", 1.0).await;
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.metric("tidegate_panics_total", &[]).await, 0.0);
    let mut client = Client::tls(gateway.https(), "localhost", authority.client(&[]))
        .await
        .unwrap();
    assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_asks_for_no_name_or_for_an_address_gets_the_first_certificate() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost", "127.0.0.1"]);
    let other = authority.issue(&["other.example"]);
    let upstream = Upstream::echo().await;
    let setup = secured(
        Setup::before(&upstream).without_listener(),
        &[("first", &identity), ("second", &other)],
    );
    let listen = format!("127.0.0.1:{}", free_port());
    let gateway = setup
        .toml(&entry(&listen, "first"))
        .toml(&entry(&listen, "second"))
        .start()
        .await;
    // An address is never sent as a name; without SNI there is no name either.
    let mut nameless = authority.client(&[]);
    nameless.enable_sni = false;
    for (name, config) in [
        ("127.0.0.1", authority.client(&[])),
        ("localhost", nameless),
    ] {
        let tls = Tls::connect(gateway.https(), name, config).await.unwrap();
        assert_eq!(tls.certificate(), identity.der(), "{name}");
    }
}

#[tokio::test]
async fn who_agreed_on_http_2_and_speaks_http_1_is_closed_and_the_other_way_round() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    for (offer, bytes) in [
        ("h2", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
        (
            "http/1.1",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
    ] {
        let mut tls = Tls::connect(gateway.https(), "localhost", authority.client(&[offer]))
            .await
            .unwrap();
        tls.0.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _a_reset_is_an_end_too = within("the end", tls.0.read_to_end(&mut rest)).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200"), "{offer}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_session_is_resumed_on_every_worker_and_after_a_reload() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::echo().await;
    let gateway = secured(Setup::before(&upstream), &[("cert", &identity)])
        .toml(&entry("127.0.0.1:0", "cert"))
        .workers(3)
        .start()
        .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // The clones share what they remember of sessions.
        let config = authority.client_of(&[version], &["http/1.1"]);
        let handshake = async || {
            let mut tls = Tls::connect(gateway.https(), "localhost", config.clone())
                .await
                .unwrap();
            // Tickets of TLS 1.3 come with the first answer.
            tls.0
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            // An end without close_notify would be an error here.
            tls.0.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
            tls.0.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(handshake().await, HandshakeKind::Full);
        for _ in 0..12 {
            assert_eq!(handshake().await, HandshakeKind::Resumed, "{version:?}");
        }
        let renewed = authority.issue(&["localhost"]);
        std::fs::write(gateway.folder().join("cert.key"), &renewed.key).unwrap();
        std::fs::write(gateway.folder().join("cert.pem"), &renewed.certificate).unwrap();
        until("the new certificate", async || {
            let tls = Tls::connect(gateway.https(), "localhost", authority.client(&[])).await;
            tls.unwrap().certificate() == renewed.der()
        })
        .await;
        assert_eq!(handshake().await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_inside_tls_sent_no_request() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    for bytes in [
        &b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345"[..],
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"GET / HTTP/1.1\r\nHost: localh",
    ] {
        let mut tls = Tls::connect(
            gateway.https(),
            "localhost",
            authority.client(&["http/1.1"]),
        )
        .await
        .unwrap();
        tls.0.write_all(bytes).await.unwrap();
        tls.0.flush().await.unwrap();
        // The socket ends without close_notify.
        let (socket, _) = tls.0.into_inner();
        drop(socket);
    }
    until("the end of all connections", async || {
        gateway.metric("tidegate_connections_open", &[]).await == 0.0
    })
    .await;
    let seen = upstream.seen();
    assert!(seen.iter().all(|request: &Echo| !request.whole), "{seen:?}");
}

#[tokio::test]
async fn many_handshakes_that_stall_hold_nobody_up() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let upstream = Upstream::echo().await;
    let gateway = secured(Setup::before(&upstream), &[("cert", &identity)])
        .toml(&entry("127.0.0.1:0", "cert"))
        .toml("[server.limits]\nhandshake-timeout = \"3s\"")
        .start()
        .await;
    let mut stalled = Vec::new();
    for number in 0..500_usize {
        let mut wire = Wire::connect(gateway.https()).await;
        // Nothing, half a hello, or a part that grows by a byte a turn.
        wire.send(&old_hello(3, true)[..number % 3 * 15]).await;
        stalled.push(wire);
    }
    for turn in 0..20 {
        let mut client = Client::tls(gateway.https(), "localhost", authority.client(&[]))
            .await
            .unwrap();
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
        // A byte now and then wins no time: it runs from the beginning.
        let dripping = stalled.iter_mut().skip(1).step_by(3);
        for wire in dripping {
            let _closed_by_then = wire.try_send([turn]).await;
        }
    }
    for mut wire in stalled {
        let _closed_or_reset = wire.read_to_end().await;
    }
    let name = "tidegate_tls_handshake_failures_total";
    until("500 failures", async || {
        gateway.metric(name, &[]).await >= 500.0
    })
    .await;
}

#[tokio::test]
async fn a_request_in_the_smallest_of_records_is_a_request() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&authority, &upstream).await;
    let mut config = authority.client(&["http/1.1"]);
    config.max_fragment_size = Some(32);
    let mut client = Client::tls(gateway.https(), "localhost", config)
        .await
        .unwrap();
    let body = "x".repeat(100_000);
    let reply = client.send(post("/", body.clone())).await;
    assert_eq!(reply.echo().body, body);
}

#[tokio::test]
async fn what_an_upstream_broke_off_has_no_good_end_inside_tls_either() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    for broken in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    ] {
        let upstream = Scripted::answering_once(broken).await;
        let gateway = secured(
            Setup::with_upstream("main", &upstream.url()).route("/*", "main", &[]),
            &[("cert", &identity)],
        )
        .toml(&entry("127.0.0.1:0", "cert"))
        .start()
        .await;
        // Where nothing but the end of the connection ends the body, `close_notify` would say that it is whole.
        for version in ["1.0", "1.1"] {
            let mut tls = Tls::connect(
                gateway.https(),
                "localhost",
                authority.client(&["http/1.1"]),
            )
            .await
            .unwrap();
            let request = format!("GET / HTTP/{version}\r\nHost: localhost\r\n\r\n");
            tls.0.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let end = within("the end", tls.0.read_to_end(&mut answer)).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(text.contains("part"), "{version}: {text}");
            let is_cut = text.contains("content-length: 100") || !text.ends_with("0\r\n\r\n");
            assert!(is_cut, "{version}: {text}");
            if !text.contains("content-length") && !text.contains("transfer-encoding") {
                assert!(end.is_err(), "{version}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn unknown_names_are_refused_where_that_is_wanted() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost", "127.0.0.1"]);
    let upstream = Upstream::echo().await;
    let gateway = secured(Setup::before(&upstream), &[("cert", &identity)])
        .server("tls-unknown-names = \"refuse\"")
        .toml(&entry("127.0.0.1:0", "cert"))
        .start()
        .await;
    for name in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let tls = Tls::connect(gateway.https(), name, authority.client(&[])).await;
        assert!(tls.is_ok(), "{name}");
    }
    let refused = Tls::connect(gateway.https(), "other.example", authority.client(&[])).await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("AccessDenied"), "{text}");
    until("the figure", async || {
        let name = "tidegate_tls_handshake_failures_total";
        gateway.metric(name, &[("reason", "sni")]).await == 1.0
    })
    .await;
}
