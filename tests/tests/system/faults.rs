//! What upstreams do wrong, and the one right answer to each: 502, 504, or a stream that is broken too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use tidegate_tests::client::{Flood, full, get, pieces, post, request};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::{DeadEnd, Echo, Scripted, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::Wire;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn before(upstream: &Scripted) -> Gateway {
    Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await
}

#[tokio::test]
async fn no_endpoint_that_listens_is_502() {
    let nobody = DeadEnd::new();
    let gateway = Setup::with_upstream("main", &nobody.url())
        .route("/*", "main", &[])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(post("/", "body")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        let id = reply.field("x-request-id").unwrap();
        assert!(reply.text().contains(id), "{reply:?}");
        assert!(!reply.text().contains("127.0.0.1"), "{reply:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let nobody = DeadEnd::new();
    let somebody = Upstream::echo().await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.both]\nendpoints = [\"{}\", \"{}\"]",
            nobody.url(),
            somebody.url()
        ))
        .route("/*", "both", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    for number in 0..6 {
        // Nothing was sent to the one that refused, so that a POST may go to the other.
        let reply = client.send(post("/", format!("{number}"))).await;
        assert_eq!(reply.echo().body, number.to_string());
    }
    assert_eq!(somebody.requests(), 6);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.slow]\nendpoints = [\"{}\"]\nresponse-timeout = \"200ms\"",
            upstream.url()
        ))
        .route("/*", "slow", &[])
        .start()
        .await;
    let reply = gateway.send(post("/", "body")).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn late_bytes_never_reach_the_next_request() {
    let upstream = Scripted::start(async |number, mut wire| {
        wire.try_read_message().await?;
        if number == 0 {
            // Answers only when the proxy has given up.
            let late = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
            let (_, _) = wire.read_to_end().await;
            return wire.try_send(late).await;
        }
        wire.try_send(OK).await?;
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.slow]\nendpoints = [\"{}\"]\nresponse-timeout = \"200ms\"",
            upstream.url()
        ))
        .route("/*", "slow", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    let reply = client.send(post("/", "x")).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(client.send(get("/")).await.text(), "ok");
}

#[tokio::test]
async fn an_upstream_that_breaks_before_its_answer_is_502() {
    let reset = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let gateway = before(&reset).await;
    assert_eq!(gateway.get("/").await.status, StatusCode::BAD_GATEWAY);

    let half = Scripted::answering_once("HTTP/1.1 200 OK\r\nContent-Le").await;
    let gateway = before(&half).await;
    let reply = gateway.send(post("/", "x")).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(half.connections(), 1);
}

#[tokio::test]
async fn what_is_no_http_is_502() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\n\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: empty\r\nContent-Length: 0\r\n\r\n",
        "<html>old style</html>",
        // Framing that could be read in two ways.
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ] {
        let upstream = Scripted::answering_once(garbage).await;
        let gateway = before(&upstream).await;
        let reply = gateway.get("/").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{garbage:?}");
    }
}

#[tokio::test]
async fn a_response_head_without_end_is_502() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(10_000));
    let long = format!(
        "HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n",
        "a".repeat(1024 * 1024)
    );
    for head in [many, long] {
        let upstream = Scripted::answering_once(head).await;
        let gateway = before(&upstream).await;
        let reply = gateway.get("/").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    }
}

/// Every way in which a response's body can break off.
const CUT: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nforty bytes that are really only some",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
];

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for cut in CUT {
        let upstream = Scripted::answering_once(cut).await;
        let gateway = before(&upstream).await;
        // HTTP/1.1: the connection closes early, without the last chunk.
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let all = wire.rest().await;
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{cut:?}: {all:?}");
        assert!(!all.ends_with("0\r\n\r\n"), "{cut:?}: {all:?}");
        assert_eq!(all.matches("HTTP/1.1").count(), 1, "{cut:?}: {all:?}");
        // HTTP/2: the stream is reset, the connection goes on.
        let mut client = gateway.http2().await;
        for _ in 0..2 {
            assert!(client.try_send(get("/")).await.is_err(), "{cut:?}");
        }
        // HTTP/1.0: an end in good order would be the end of the body.
        let mut old = gateway.wire().await;
        old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
        let (all, end) = old.read_to_end().await;
        let all = String::from_utf8_lossy(&all).to_lowercase();
        assert!(
            end == tidegate_tests::wire::End::Reset || all.contains("content-length: 100"),
            "{cut:?}: {all:?}"
        );
        until("the fault to be counted", async || {
            gateway.admin("/metrics").await.text().contains("truncated")
        })
        .await;
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_body_breaks_the_clients_too() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        wire.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await?;
        wire.reset();
        Ok(())
    })
    .await;
    let gateway = before(&upstream).await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        assert!(client.try_send(get("/")).await.is_err());
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_in_its_body_is_cut_off() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await?;
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.stalls]\nendpoints = [\"{}\"]\nidle-timeout = \"200ms\"",
            upstream.url()
        ))
        .route("/*", "stalls", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    let response = client.start(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        tidegate_tests::client::Reply::collect(response)
            .await
            .is_err()
    );
}

/// Serves requests on kept connections and closes each connection after the first answer, without saying so.
async fn forgetful(posts: Arc<AtomicUsize>) -> Scripted {
    Scripted::start(move |_, mut wire: Wire| {
        let posts = Arc::clone(&posts);
        async move {
            let request = wire.try_read_message().await?;
            if request.head.starts_with("POST") {
                posts.fetch_add(1, Ordering::SeqCst);
            }
            // Closed behind the answer, while the proxy may already be writing the next request.
            wire.try_send(OK).await?;
            Ok::<(), io::Error>(())
        }
    })
    .await
}

#[tokio::test]
async fn a_stale_connection_costs_no_get() {
    let upstream = forgetful(Arc::default()).await;
    let gateway = before(&upstream).await;
    let mut client = gateway.http1().await;
    for number in 0..300 {
        let reply = client.send(get("/")).await;
        assert_eq!(reply.status, StatusCode::OK, "request {number}");
    }
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let posts = Arc::new(AtomicUsize::new(0));
    let upstream = forgetful(Arc::clone(&posts)).await;
    let gateway = before(&upstream).await;
    let mut client = gateway.http1().await;
    let mut answered = 0;
    for _ in 0..300 {
        let reply = client.send(post("/", "pay")).await;
        match reply.status {
            StatusCode::OK => answered += 1,
            status => assert_eq!(status, StatusCode::BAD_GATEWAY),
        }
    }
    let posts = posts.load(Ordering::SeqCst);
    assert!(posts <= 300, "{posts} posts reached the upstream");
    assert!(posts >= answered, "{answered} answers to {posts} posts");
}

#[tokio::test]
async fn a_request_that_was_read_is_not_sent_to_another_endpoint() {
    let breaks = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let good = Upstream::echo().await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.both]\nendpoints = [\"{}\", \"{}\"]",
            breaks.url(),
            good.url()
        ))
        .route("/*", "both", &[])
        .start()
        .await;
    let mut client = gateway.http1().await;
    for _ in 0..6 {
        let _ok_or_502 = client.send(post("/", "pay")).await;
    }
    assert_eq!(breaks.connections() + good.requests(), 6);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_until(b"\r\n\r\n").await?;
        wire.read_exact(64 * 1024).await;
        wire.try_send(
            "HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much",
        )
        .await?;
        wire.finish().await;
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let gateway = before(&upstream).await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let sent = request(Method::POST, "/")
            .body(Flood::body(b'x', 1024 * 1024 * 1024))
            .unwrap();
        let response = client.start(sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let reply = tidegate_tests::client::Reply::collect(response).await;
        assert_eq!(reply.unwrap().text(), "too much");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_poison_nothing() {
    let upstream = Scripted::answering(format!(
        "{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    ))
    .await;
    let gateway = before(&upstream).await;
    let mut client = gateway.http1().await;
    for _ in 0..20 {
        assert_eq!(client.send(get("/")).await.text(), "ok");
    }
}

#[tokio::test]
async fn a_body_where_none_may_be_is_left_out() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
        ),
    ] {
        let upstream = Scripted::answering(head).await;
        let gateway = before(&upstream).await;
        let mut wire = gateway.wire().await;
        for _ in 0..5 {
            wire.send(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"))
                .await;
            let reply = wire.read_bare().await;
            assert!(
                [200, 204, 304].contains(&reply.status()),
                "{method} {head:?}: {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_not_waited_for() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        loop {
            wire.try_send("HTTP/1.1 100 Continue\r\n\r\n".repeat(100))
                .await?;
        }
    })
    .await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.main]\nendpoints = [\"{}\"]\nresponse-timeout = \"500ms\"",
            upstream.url()
        ))
        .route("/*", "main", &[])
        .start()
        .await;
    let status = gateway.get("/").await.status;
    assert!(
        status == StatusCode::BAD_GATEWAY || status == StatusCode::GATEWAY_TIMEOUT,
        "{status}"
    );
}

#[tokio::test]
async fn a_cut_upload_is_no_request_for_the_upstream() {
    let upload = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send(upload).await;
    until("its way to the upstream", async || {
        upstream.connections() == 1
    })
    .await;
    // Asked over another connection, the proxy has gone round its loop since.
    gateway.get("/").await;
    wire.reset();
    until("the upstream's view", async || upstream.requests() == 2).await;
    let seen: Vec<Echo> = upstream.seen();
    assert!(!seen[1].whole, "{seen:?}");
    // The proxy is none the worse.
    let reply = gateway
        .send(
            request(Method::POST, "/")
                .body(pieces(&["a"], &[]))
                .unwrap(),
        )
        .await;
    assert_eq!(reply.echo().body, "a");
    let reply = gateway
        .send(request(Method::POST, "/").body(full("b")).unwrap())
        .await;
    assert_eq!(reply.echo().body, "b");
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_is_not_used_again() {
    let upstream = Scripted::answering_once(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = before(&upstream).await;
    let mut client = gateway.http1().await;
    for number in 1..=20 {
        assert_eq!(client.send(post("/", "pay")).await.text(), "ok");
        assert_eq!(upstream.connections(), number);
    }
}

#[tokio::test]
async fn bytes_on_an_idle_connection_are_the_end_of_it() {
    let upstream = Scripted::start(async |_, mut wire| {
        loop {
            wire.try_read_message().await?;
            // The answer, and behind it something that nobody asked for.
            wire.try_send(OK).await?;
            wire.try_send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")
                .await?;
        }
    })
    .await;
    let gateway = before(&upstream).await;
    let mut client = gateway.http1().await;
    for _ in 0..20 {
        assert_eq!(client.send(get("/")).await.text(), "ok");
    }
}
