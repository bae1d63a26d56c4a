//! TLS downstream and upstream: versions, names, protocols, certificates that change.

use http::StatusCode;
use tidegate_tests::certs::{Authority, Identity};
use tidegate_tests::client::{Client, Tls, get, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{Echo, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::Wire;

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
