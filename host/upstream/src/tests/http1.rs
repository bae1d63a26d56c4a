//! HTTP/1.1: what is on the wire, whose turn it is, and connections that are used again.

use super::*;

#[test]
fn a_request_goes_out_in_origin_form_and_a_connection_serves_many() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(std::slice::from_ref(&url), |_| {});
        let upstream = tokio::task::spawn_local(async move {
            // One connection for all of them: a second would never be accepted.
            let mut socket = accept(&listener).await;
            let mut heads = Vec::new();
            for body in ["one", "two", ""] {
                heads.push(head(&mut socket).await);
                say(&mut socket, &ok(body)).await;
            }
            heads.push(head(&mut socket).await);
            let chunked =
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nfour";
            say(&mut socket, chunked).await;
            heads
        });
        for body in ["one", "two", "", "four"] {
            let sent = tester.get().await.unwrap();
            assert_eq!((&*sent.endpoint, sent.attempts), (&*url, 1));
            assert_eq!(sent.response.version(), http::Version::HTTP_11);
            assert_eq!(text(sent).await.unwrap(), body);
        }
        for head in upstream.await.unwrap() {
            assert_eq!(head, "GET /path?query HTTP/1.1\r\nhost: front.test\r\n\r\n");
        }
        assert!(tester.counted("tidegate_upstream_attempts_total{upstream=\"main\"} 4"));
    });
}

#[test]
fn no_more_connections_rest_than_allowed_and_closing_ones_are_not_kept() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.idle_connections = 0);
        let upstream = tokio::task::spawn_local(async move {
            for body in ["one", "two"] {
                let mut socket = accept(&listener).await;
                head(&mut socket).await;
                say(&mut socket, &ok(body)).await;
                assert!(closed(&mut socket).await.is_empty());
            }
        });
        assert_eq!(tester.get_text().await, "one");
        assert_eq!(tester.get_text().await, "two");
        upstream.await.unwrap();
    });
}

#[test]
fn a_connection_that_has_rested_too_long_is_closed_unasked() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.keep_alive = SHORT);
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("one")).await;
            closed(&mut socket).await
        });
        assert_eq!(tester.get_text().await, "one");
        assert!(upstream.await.unwrap().is_empty());
    });
}

#[test]
fn the_upstream_says_how_long_a_connection_lives() {
    for fields in ["connection: close\r\n", "keep-alive: timeout=1\r\n"] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            let upstream = tokio::task::spawn_local(async move {
                let mut socket = accept(&listener).await;
                head(&mut socket).await;
                let answer =
                    ok("one").replace("content-length", &format!("{fields}content-length"));
                say(&mut socket, &answer).await;
                closed(&mut socket).await
            });
            assert_eq!(tester.get_text().await, "one");
            assert!(upstream.await.unwrap().is_empty());
            assert_eq!(tester.client.pool().resting(), 0);
        });
    }
}

#[test]
fn trailers_come_through_and_the_connection_is_used_again() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            assert!(head(&mut socket).await.contains("te: trailers\r\n"));
            let words = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n\
                         4\r\nbody\r\n0\r\nsum: 42\r\n\r\n";
            say(&mut socket, words).await;
            head(&mut socket).await;
            say(&mut socket, &ok("next")).await;
        });
        let request = Request::get("/")
            .header("host", "front.test")
            .header("te", "trailers")
            .body(Body::Empty)
            .unwrap();
        let sent = tester
            .client
            .send(&tester.upstream, request, None)
            .await
            .unwrap();
        let all = sent.response.into_body().collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["sum"], "42");
        assert_eq!(all.to_bytes(), "body");
        assert_eq!(tester.get_text().await, "next");
    });
}

#[test]
fn a_name_is_resolved_and_all_its_addresses_are_tried() {
    run(async {
        let (listener, url) = listen("http").await;
        // The name may have an IPv6 address too, where nobody listens.
        let url = url.replace("127.0.0.1", "localhost");
        let names = Names::default();
        let tester = Tester::named(std::slice::from_ref(&url), &names, |_| {});
        let registry = tester.registry.clone();
        tokio::task::spawn_local(async move {
            names.keep(&registry, crate::resolve::system).await;
        });
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("found")).await;
        });
        let sent = tester.get().await.unwrap();
        assert_eq!((&*sent.endpoint, sent.attempts), (&*url, 1));
        assert_eq!(text(sent).await.unwrap(), "found");
    });
}

#[test]
fn who_refuses_is_passed_over_for_the_next() {
    run(async {
        let (listener, url) = listen("http").await;
        let gone = nobody("http").await;
        let tester = Tester::new(&[gone, url.clone()], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            assert!(head(&mut socket).await.starts_with("POST "));
            let mut body = [0; 4];
            socket.read_exact(&mut body).await.unwrap();
            say(&mut socket, &ok("here")).await;
            body
        });
        let sent = tester.send(Method::POST, Body::full("body")).await.unwrap();
        assert_eq!((&*sent.endpoint, sent.attempts), (&*url, 2));
        assert_eq!(text(sent).await.unwrap(), "here");
        assert_eq!(&upstream.await.unwrap(), b"body");
        let failures =
            "tidegate_upstream_failures_total{reason=\"connect_refused\",upstream=\"main\"} 1";
        assert!(tester.counted(failures), "{}", tester.registry.encode());
    });
}

#[test]
fn no_more_than_three_endpoints_are_tried() {
    run(async {
        let gone = nobody("http").await;
        let tester = Tester::new(&vec![gone.clone(); 5], |_| {});
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, crate::SendErrorKind::Connect));
        assert_eq!(
            (error.attempts, error.endpoint.as_deref()),
            (3, Some(&*gone))
        );
        let none = Tester::new(&[], |_| {}).get().await.unwrap_err();
        assert!(matches!(none.kind, crate::SendErrorKind::NoEndpoint));
    });
}

#[test]
fn an_upgrade_passes_if_it_was_asked_for() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let switch = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            let mut socket = accept(&listener).await;
            assert!(head(&mut socket).await.contains("upgrade: echo\r\n"));
            say(&mut socket, switch).await;
            let word = socket.read_u8().await.unwrap();
            socket.write_u8(word + 1).await.unwrap();
            // The same without having been asked.
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, switch).await;
            closed(&mut socket).await
        });
        let request = Request::get("/")
            .header("host", "front.test")
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::Empty)
            .unwrap();
        let sent = tester
            .client
            .send(&tester.upstream, request, None)
            .await
            .unwrap();
        assert_eq!(sent.response.status(), 101);
        let mut tunnel = sent.upgraded.unwrap();
        tunnel.write_u8(1).await.unwrap();
        assert_eq!(tunnel.read_u8().await.unwrap(), 2);
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, crate::SendErrorKind::InvalidResponse));
        upstream.await.unwrap();
    });
}
