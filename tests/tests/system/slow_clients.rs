//! Clients that are slow, greedy or gone: bounded, and no burden to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tidegate_tests::client::{get, request, streamed};
use tidegate_tests::gateway::Setup;
use tidegate_tests::upstream::{Scripted, Upstream};
use tidegate_tests::wait::until;

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nbody-idle-timeout = \"300ms\"")
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    until("the upstream's view", async || upstream.requests() == 1).await;
    assert!(!upstream.seen()[0].whole);

    let (mut sender, body) = streamed();
    let sent = request(http::Method::POST, "/").body(body).unwrap();
    let mut client = gateway.http2().await;
    sender.send_data("half".into()).await.unwrap();
    let reply = client.try_send(sent).await;
    assert!(
        reply
            .as_ref()
            .map_or(true, |reply| reply.status == StatusCode::REQUEST_TIMEOUT),
        "{reply:?}"
    );
    assert!(upstream.seen().iter().all(|seen| !seen.whole));
}

#[tokio::test]
async fn a_response_that_nobody_takes_is_given_up() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given_up);
    let upstream = Scripted::start(move |_, mut wire| {
        let count = Arc::clone(&count);
        async move {
            let request = wire.try_read_message().await?;
            if !request.head.starts_with("GET /large") {
                return wire
                    .try_send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")
                    .await;
            }
            wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                .await?;
            while wire.try_send([b'x'; 4096]).await.is_ok() {}
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .toml("[server.limits]\nbody-idle-timeout = \"300ms\"")
        .start()
        .await;
    for (number, mut client) in [gateway.http1().await, gateway.http2().await]
        .into_iter()
        .enumerate()
    {
        let response = client.start(get("/large")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // Nothing of the body is taken.
        until(&format!("response {number} to be given up"), async || {
            given_up.load(Ordering::SeqCst) == number + 1
        })
        .await;
        assert_eq!(gateway.get("/").await.text(), "small");
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_not_waited_for() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nbody-idle-timeout = \"500ms\"\nmin-body-rate = \"100B\"")
        .start()
        .await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    let mut wire = gateway.wire().await;
    wire.send(head).await;
    // A byte now and then is never late for the bound of idleness, and far too slow all the same.
    let mut trickle = tokio::time::interval(Duration::from_millis(50));
    let answer = loop {
        tokio::select! {
            answer = wire.read_message() => break answer,
            _ = trickle.tick() => {}
        }
        let _closed_meanwhile = wire.try_send("x").await;
    };
    assert_eq!(answer.status(), 408);
    until("it to be counted", async || {
        let labels = [("reason", "timeout_body")];
        gateway
            .metric("tidegate_client_errors_total", &labels)
            .await
            > 0.5
    })
    .await;
    until("the upstream's view", async || upstream.requests() == 1).await;
    assert!(!upstream.seen()[0].whole);
}

#[tokio::test]
async fn who_has_an_answer_may_take_his_time() {
    // A conversation: the upstream answers at once, and says each byte after the client.
    let upstream = Upstream::stream(async |request: http::Request<hyper::body::Incoming>| {
        http::Response::new(http_body_util::BodyExt::boxed(
            http_body_util::BodyExt::map_err(request.into_body(), Into::into),
        ))
    })
    .await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nbody-idle-timeout = \"500ms\"\nmin-body-rate = \"100B\"")
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert!(wire.read_head().await.starts_with("HTTP/1.1 200 "));
    let mut trickle = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..30 {
        trickle.tick().await;
        wire.send("1\r\nx\r\n").await;
        assert_eq!(wire.try_read_chunk().await.unwrap().unwrap(), b"x");
    }
    wire.send("0\r\n\r\n").await;
    assert!(wire.try_read_chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn many_idle_connections_are_no_burden() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let memory = gateway.memory();
    let mut idle = Vec::new();
    for number in 0..500 {
        let mut wire = gateway.wire().await;
        if number % 2 == 0 {
            wire.send("GET / HTTP/1.1\r\nHost: h\r\nX-Half").await;
        }
        idle.push(wire);
    }
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 32 * 1024, "500 connections took {grown} KiB");
}

#[tokio::test]
async fn a_client_that_comes_and_goes_leaves_nothing_behind() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    gateway.get("/").await;
    let descriptors = gateway.descriptors();
    for number in 0..200 {
        let mut wire = gateway.wire().await;
        match number % 4 {
            0 => {}
            1 => wire.send("GET / HT").await,
            2 => wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await,
            _ => {
                wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx")
                    .await
            }
        }
        if number % 3 == 0 {
            wire.reset();
        }
    }
    until("all connections to be gone", async || {
        gateway.descriptors() <= descriptors + 70
    })
    .await;
    until("nobody to be connected", async || {
        gateway.metric("tidegate_connections_open", &[]).await < 0.5
    })
    .await;
    assert_eq!(gateway.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn many_clients_that_do_not_read_hold_little() {
    let upstream = Upstream::stream(async |_| {
        http::Response::new(tidegate_tests::client::Flood::body(b'x', 100 << 20))
    })
    .await;
    let gateway = Setup::before(&upstream).start().await;
    gateway.http1().await.start(get("/")).await.unwrap();
    let memory = gateway.memory();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(wire.read_head().await.starts_with("HTTP/1.1 200 "));
        clients.push(wire);
    }
    // Until nothing moves any more.
    let grown = tidegate_tests::wait::settled("memory to stand still", || {
        gateway.memory().saturating_sub(memory) / 256
    })
    .await
        * 256;
    assert!(grown < 50 * 1024, "50 clients took {grown} KiB");
}

#[tokio::test]
async fn events_arrive_one_by_one_through_filters() {
    let (sender, body) = streamed();
    let body = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::stream(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        let response = http::Response::builder().header("content-type", "text/event-stream");
        std::future::ready(response.body(body).unwrap())
    })
    .await;
    let filter = tidegate_tests::guests::Guest::new()
        .sets_request_field("x-a", "1")
        .sets_response_field("x-b", "2")
        .build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["first", "second"])
        .filter("first", &filter)
        .filter("second", &filter)
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = wire.read_head().await;
    assert!(head.contains("text/event-stream"), "{head}");
    let mut sender = sender;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        // The next one is not made before this one is here.
        let event = format!("data: {number}\n\n");
        let begun = std::time::Instant::now();
        sender.send_data(event.clone().into()).await.unwrap();
        let chunk = wire.try_read_chunk().await.unwrap().unwrap();
        slowest = slowest.max(begun.elapsed());
        assert_eq!(String::from_utf8(chunk).unwrap(), event);
    }
    // Some milliseconds, on a machine with nothing else to do.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
