//! TLS: which certificates are taken, and which protocol is agreed on.

use super::*;
use crate::SendErrorKind;
use crate::upstream::TlsOptions;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate that signs itself, for `upstream.test`, and a server that shows it.
fn server(protocols: &[&str]) -> (CertificateDer<'static>, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["upstream.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

fn trusting(ca: CertificateDer<'static>) -> impl FnOnce(&mut UpstreamConfig) {
    move |config| {
        config.tls = TlsOptions {
            ca: vec![ca],
            insecure: false,
            server_name: Some("upstream.test".to_owned()),
        }
    }
}

#[test]
fn http2_is_agreed_on_and_the_name_is_the_configured_one() {
    run(async {
        let (listener, url) = listen("https").await;
        let (certificate, acceptor) = server(&["h2", "http/1.1"]);
        let tester = Tester::new(&[url], trusting(certificate));
        tokio::task::spawn_local(async move {
            let stream = acceptor.accept(accept(&listener).await).await.unwrap();
            assert_eq!(stream.get_ref().1.server_name(), Some("upstream.test"));
            http2::serve(stream).await;
        });
        assert_eq!(tester.get_text().await, "GET https://front.test/path?query");
        assert_eq!(tester.get_text().await, "GET https://front.test/path?query");
    });
}

#[test]
fn http1_is_spoken_with_who_has_no_other() {
    run(async {
        let (listener, url) = listen("https").await;
        let (_, acceptor) = server(&[]);
        let tester = Tester::new(&[url], |config| config.tls.insecure = true);
        tokio::task::spawn_local(async move {
            let mut stream = acceptor.accept(accept(&listener).await).await.unwrap();
            for body in ["one", "two"] {
                head(&mut stream).await;
                stream.write_all(ok(body).as_bytes()).await.unwrap();
            }
        });
        assert_eq!(tester.get_text().await, "one");
        assert_eq!(tester.get_text().await, "two");
    });
}

#[test]
fn a_strangers_certificate_or_another_name_is_refused() {
    let strangers: [fn(&mut UpstreamConfig, CertificateDer<'static>); 2] = [
        |config, _| config.tls.server_name = Some("upstream.test".to_owned()),
        |config, certificate| {
            config.tls.ca = vec![certificate];
            config.tls.server_name = Some("other.test".to_owned());
        },
    ];
    for stranger in strangers {
        run(async {
            let (listener, url) = listen("https").await;
            let (certificate, acceptor) = server(&["http/1.1"]);
            let tester = Tester::new(&[url], |config| stranger(config, certificate));
            tokio::task::spawn_local(async move {
                let _ = acceptor.accept(accept(&listener).await).await;
            });
            let error = tester.get().await.unwrap_err();
            assert!(matches!(error.kind, SendErrorKind::Tls), "{error}");
            assert!(error.detail.contains("certificate"), "{error}");
        });
    }
}

#[test]
fn a_handshake_that_does_not_end_times_out() {
    run(async {
        let (listener, url) = listen("https").await;
        let tester = Tester::new(&[url], |config| config.connect_timeout = SHORT);
        let upstream =
            tokio::task::spawn_local(async move { closed(&mut accept(&listener).await).await });
        let error = tester.get().await.unwrap_err();
        assert!(
            matches!(error.kind, SendErrorKind::ConnectTimedOut),
            "{error}"
        );
        upstream.await.unwrap();
    });
}

#[test]
fn an_end_without_a_goodbye_is_a_truncation() {
    run(async {
        let (listener, url) = listen("https").await;
        let (certificate, acceptor) = server(&["http/1.1"]);
        let tester = Tester::new(&[url], trusting(certificate));
        tokio::task::spawn_local(async move {
            let mut stream = acceptor.accept(accept(&listener).await).await.unwrap();
            head(&mut stream).await;
            let open_ended = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npart";
            stream.write_all(open_ended).await.unwrap();
            stream.flush().await.unwrap();
            // The socket ends; TLS does not.
            drop(stream);
            let mut stream = acceptor.accept(accept(&listener).await).await.unwrap();
            head(&mut stream).await;
            stream.write_all(ok("whole").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        });
        let error = text(tester.get().await.unwrap()).await.unwrap_err();
        assert!(matches!(error, BodyError::Broken(_)), "{error}");
        // With a length it is known that nothing is missing.
        assert_eq!(tester.get_text().await, "whole");
    });
}

#[test]
fn an_upgrade_is_not_offered_http2() {
    run(async {
        let (listener, url) = listen("https").await;
        let (certificate, acceptor) = server(&["h2", "http/1.1"]);
        let tester = Tester::new(&[url], trusting(certificate));
        let upstream = tokio::task::spawn_local(async move {
            let stream = acceptor.accept(accept(&listener).await).await.unwrap();
            stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
        });
        let request = Request::get("/")
            .header("host", "front.test")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Body::Empty)
            .unwrap();
        let sent = tester.client.send(&tester.upstream, request, None).await;
        assert!(sent.is_err());
        assert_eq!(upstream.await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    });
}
