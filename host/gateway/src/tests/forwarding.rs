//! What goes upstream and comes back besides what filters do (RFC 9110 section 7.6).

use super::harness::{Origin, Setup, Wire, body, run, status, until};

#[test]
fn our_hop_is_added_and_other_hops_are_believed_only_from_whom_we_trust() {
    run(async {
        let origin = Origin::echo().await;
        let request = "GET /x?y HTTP/1.1\r\nHost: Shop.Example:80\r\nX-Forwarded-For: 203.0.113.9\r\n\
                       X-Forwarded-Proto: https\r\nX-Forwarded-Host: edge\r\nX-Forwarded-Port: 1\r\n\
                       X-Real-IP: 1.1.1.1\r\nForwarded: for=203.0.113.9\r\nX-Request-Id: mine\r\n\r\n";
        let gateway = Setup::new(&origin, vec![]).start().await;
        let got = gateway.ask(request).await;
        let sent = body(&got).to_lowercase();
        for line in [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: shop.example:80",
            "forwarded: for=127.0.0.1;proto=http;host=\"shop.example:80\"",
            "x-request-id: mine",
            "host: shop.example:80",
        ] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
        }
        for name in ["x-forwarded-port", "x-real-ip", "203.0.113.9"] {
            assert!(!sent.contains(name), "{name}: {sent}");
        }
        assert_eq!(gateway.lines(1).await[0]["client"], "127.0.0.1");

        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
            .start()
            .await;
        let got = gateway.ask(request).await;
        let sent = body(&got).to_lowercase();
        for line in [
            "x-forwarded-for: 203.0.113.9, 127.0.0.1",
            "x-forwarded-proto: https",
            "x-forwarded-host: edge",
            "forwarded: for=203.0.113.9, for=127.0.0.1;proto=https;host=\"shop.example:80\"",
        ] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
        }
        assert_eq!(gateway.lines(1).await[0]["client"], "203.0.113.9");
    });
}

#[test]
fn connection_erases_nothing_of_ours() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let got = gateway
            .ask(
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: x-own, X-Forwarded-For, x-request-id, host, close\r\n\
                 X-Own: 1\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\nX_Under: 1\r\nX-Kept: 1\r\n\r\n",
            )
            .await;
        let sent = body(&got).to_lowercase();
        for line in [
            "x-forwarded-for: 127.0.0.1",
            "host: h",
            "te: trailers",
            "x-kept: 1",
        ] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
        }
        assert!(sent.contains("\r\nx-request-id: "), "{sent}");
        for name in ["x-own", "keep-alive", "x_under", "connection"] {
            assert!(!sent.contains(name), "{name}: {sent}");
        }
    });
}

#[test]
fn a_body_without_length_reaches_the_upstream_whatever_the_method() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        for method in ["GET", "DELETE", "POST"] {
            let got = gateway
                .ask(&format!(
                    "{method} / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
                ))
                .await;
            assert!(got.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{method}: {got}");
        }
    });
}

#[test]
fn interim_responses_go_to_those_who_know_them() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            while let Some(message) = wire.message().await {
                wire.send(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
                )
                .await;
                if message.starts_with("GET /slow") {
                    wire.until(b"never").await;
                }
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        for _ in 0..2 {
            wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            let hints = wire.head().await.unwrap();
            assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
            assert_eq!(body(&wire.message().await.unwrap()), "ok");
        }
        // They come before the final response does.
        wire.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 103"));
        drop(wire);
        let mut old = gateway.wire().await;
        old.send("GET / HTTP/1.0\r\n\r\n").await;
        let (got, _) = old.rest().await;
        assert!(
            got.starts_with("HTTP/1.0 200") && !got.contains("103"),
            "{got}"
        );
    });
}

#[test]
fn what_has_no_body_has_none() {
    run(async {
        for answer in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\netag: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: x\r\n\r\n",
        ] {
            let origin = Origin::start(move |mut wire, _| async move {
                while wire.head().await.is_some() {
                    wire.send(answer).await;
                }
            })
            .await;
            let gateway = Setup::new(&origin, vec![]).start().await;
            let mut wire = gateway.wire().await;
            for _ in 0..2 {
                wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
                let head = wire.head().await.unwrap();
                assert!(!head.contains("content-length"), "{head}");
                assert!(head.contains("\r\netag: x\r\n"), "{head}");
            }
        }
        let origin = Origin::start(|mut wire, _| async move {
            while wire.head().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        for _ in 0..2 {
            wire.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            let head = wire.head().await.unwrap();
            assert!(head.contains("\r\ncontent-length: 1234\r\n"), "{head}");
        }
    });
}

#[test]
fn a_broken_response_is_broken_for_the_client() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            if let Some(message) = wire.message().await {
                let long = message.starts_with("GET /length");
                let head = if long {
                    "content-length: 100"
                } else {
                    "transfer-encoding: chunked"
                };
                wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"))
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        for (request, reset) in [
            ("GET /length HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", true),
        ] {
            let mut wire = gateway.wire().await;
            wire.send(request).await;
            let (got, in_order) = wire.rest().await;
            assert_eq!(in_order, !reset, "{request:?}: {got}");
            if !reset {
                assert!(
                    got.starts_with("HTTP/1.1 200 OK\r\n") && got.contains("hello"),
                    "{got}"
                );
                assert!(!got.ends_with("0\r\n\r\n"), "{got}");
            }
        }
        for line in gateway.lines(3).await {
            assert_eq!(
                (line["status"].as_u64(), line["reason"].as_str()),
                (Some(200), Some("upstream_truncated"))
            );
        }
    });
}

const SWITCH: &str =
    "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\n";

#[test]
fn a_tunnel_carries_bytes_and_is_one_exchange() {
    run(async {
        let origin = Origin::start(|mut wire, seen| async move {
            seen.add(wire.head().await.unwrap());
            wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: CHAT/1\r\nX-A: 1\r\n\r\nhello ").await;
            let (said, _) = wire.rest().await;
            wire.send(said.to_uppercase()).await;
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        // Bytes that come too early wait until the upstream has switched; they are no request.
        wire.send(format!("{SWITCH}GET \0 early,")).await;
        let head = wire.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for line in ["connection: upgrade", "upgrade: CHAT/1", "x-a: 1"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
        }
        assert_eq!(wire.exactly(6).await.unwrap(), "hello ");
        let open = gateway.figure("tidegate_connections_open");
        assert!((open - 1.0).abs() < f64::EPSILON);
        wire.send(" late").await;
        tokio::io::AsyncWriteExt::shutdown(&mut wire.0)
            .await
            .unwrap();
        let (said, _) = wire.rest().await;
        assert_eq!(said, "GET \0 EARLY, LATE");
        gateway.all_closed().await;
        let sent = origin.seen.all()[0].to_lowercase();
        assert!(
            sent.contains("\r\nupgrade: chat/1\r\n")
                && sent.contains("\r\nconnection: upgrade\r\n"),
            "{sent}"
        );
        let line = &gateway.lines(1).await[0];
        assert_eq!(
            (
                line["status"].as_u64(),
                line["request-bytes"].as_u64(),
                line["response-bytes"].as_u64()
            ),
            (Some(101), Some(17), Some(23))
        );
    });
}

#[test]
fn a_switch_that_does_not_come_leaves_requests_behind_it_in_order() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "{SWITCH}GET /next HTTP/1.1\r\nHost: h\r\n\r\nGET /bad HTTP/1.1\nHost: h\r\n\r\n"
        ))
        .await;
        let first = wire.message().await.unwrap();
        assert!(
            body(&first).starts_with("GET /chat ") && first.contains("upgrade: chat/1"),
            "{first}"
        );
        assert!(body(&wire.message().await.unwrap()).starts_with("GET /next "));
        let (rest, _) = wire.rest().await;
        assert_eq!(status(&rest), "400", "{rest}");
        assert_eq!(origin.seen.all().len(), 2);
    });
}

#[test]
fn a_switch_to_what_was_not_asked_for_is_502() {
    run(async {
        let origin = Origin::start(|mut wire: Wire, _| async move {
            let _ = wire.head().await;
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
            )
            .await;
            let _ = wire.rest().await;
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let got = gateway.ask(SWITCH).await;
        assert_eq!(status(&got), "502", "{got}");
        for request in [
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        ] {
            let mut wire = gateway.wire().await;
            wire.send(request).await;
            let head = wire.head().await.unwrap();
            assert_eq!(status(&head), "502", "{request:?}: {head}");
        }
    });
}

#[test]
fn a_route_may_have_a_host_of_its_own() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![])
            .route(|route| route.preserve_host = false)
            .start()
            .await;
        let got = gateway.get("/").await;
        let address = origin.url.strip_prefix("http://").unwrap();
        assert!(
            body(&got).contains(&format!("\r\nhost: {address}\r\n")),
            "{got}"
        );
        assert!(body(&got).contains("\r\nx-forwarded-host: h\r\n"), "{got}");
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_goes_through() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            let _ = wire.head().await;
            let _ = wire.exactly(1000).await;
            wire.send("HTTP/1.1 413 Too Much\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
                .await;
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
            .await;
        wire.send("x".repeat(50_000)).await;
        let got = wire.message().await.unwrap();
        assert_eq!((status(&got), body(&got)), ("413", "big"), "{got}");
        let lines = gateway.lines(1).await;
        assert_eq!(lines[0]["status"], 413);
        until("nothing", || true).await;
    });
}
