//! Bytes in both directions: streamed with backpressure, with the framing that belongs to them, with trailers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tidegate_tests::client::{Body, Client, Flood, empty, full, get, pieces, request, streamed};
use tidegate_tests::gateway::Setup;
use tidegate_tests::upstream::{Echo, Scripted, Upstream};
use tidegate_tests::wait::{settled, until, within};

const MIB: u64 = 1024 * 1024;

/// Answers with what it gets, as it gets it.
async fn mirror() -> Upstream {
    Upstream::stream(async |request: Request<Incoming>| {
        let body = request.into_body().map_err(Into::into).boxed();
        Response::new(body)
    })
    .await
}

#[tokio::test]
async fn large_bodies_arrive_unchanged_in_both_directions() {
    let upstream = mirror().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut bytes = vec![0_u8; 5 * 1024 * 1024];
    let mut state = 1_u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    let digest = Sha256::digest(&bytes);
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let sent = request(Method::POST, "/")
            .body(full(bytes.clone()))
            .unwrap();
        let reply = client.send(sent).await;
        assert_eq!(reply.body.len(), bytes.len());
        assert_eq!(Sha256::digest(&reply.body), digest);
    }
}

#[tokio::test]
async fn a_request_streams_while_it_is_sent() {
    let upstream = mirror().await;
    let gateway = Setup::before(&upstream).start().await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let (mut sender, body) = streamed();
        let sent = request(Method::POST, "/").body(body).unwrap();
        let response = client.start(sent).await.unwrap();
        let mut echoed = response.into_body().into_data_stream();
        for word in ["one", "two", "three"] {
            sender.send_data(Bytes::from(word)).await.unwrap();
            let came = within("the echo of a piece", echoed.next()).await;
            assert_eq!(came.unwrap().unwrap(), word);
        }
        drop(sender);
        ends(echoed).await;
    }
}

/// Checks that a body ends without bytes and without an error.
async fn ends(mut body: impl Stream<Item = Result<Bytes, hyper::Error>> + Unpin) {
    while let Some(piece) = within("the end", body.next()).await {
        // An empty frame that carries the end is no piece.
        assert_eq!(piece.unwrap(), Bytes::new());
    }
}

#[tokio::test]
async fn a_response_streams_while_it_is_made() {
    let (sender, body) = streamed();
    let shared = Arc::new(std::sync::Mutex::new(Some(body)));
    let upstream = Upstream::stream(move |_| {
        let body = shared.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    })
    .await;
    let gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    // The head is here before there is a body.
    let response = client.start(get("/events")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut sender = sender;
    let mut events = response.into_body().into_data_stream();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        sender.send_data(Bytes::from(event)).await.unwrap();
        let came = within("an event", events.next()).await;
        assert_eq!(came.unwrap().unwrap(), event);
    }
    drop(sender);
    ends(events).await;
}

#[tokio::test]
async fn a_length_stays_a_length_and_chunks_stay_chunks() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    let mut ask = async |bytes: &str| -> Echo {
        wire.send(bytes).await;
        let reply = wire.read_message().await;
        assert_eq!(reply.status(), 200, "{bytes:?}: {reply:?}");
        serde_json::from_slice(&reply.body).unwrap()
    };
    let seen = ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(seen.all("content-length"), ["3"]);
    assert_eq!(seen.field("transfer-encoding"), None);

    let chunked = "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let seen = ask(&format!("POST / HTTP/1.1\r\nHost: h\r\n{chunked}")).await;
    assert_eq!(seen.body, "abc");
    assert_eq!(seen.all("transfer-encoding"), ["chunked"]);
    assert_eq!(seen.field("content-length"), None);

    let upper = chunked.replace("chunked", "Chunked");
    for method in ["DELETE", "GET", "OPTIONS"] {
        let seen = ask(&format!("{method} / HTTP/1.1\r\nHost: h\r\n{upper}")).await;
        assert_eq!((seen.body.as_str(), seen.whole), ("abc", true), "{method}");
    }

    let seen = ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((seen.body.as_str(), seen.whole), ("", true));
    let seen = ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(seen.field("transfer-encoding"), None);
    assert_eq!(seen.field("content-length"), None);
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let upstream = Upstream::serve(async |seen: Echo| {
        let trailer = seen.trailer("x-sum").unwrap_or("none").to_owned();
        let body = pieces(&["got ", "it"], &[("x-check", "abc")]);
        Response::builder()
            .header("trailer", "x-check")
            .header("x-saw", trailer)
            .body(body)
            .unwrap()
    })
    .await;
    for endpoint in [upstream.url(), upstream.h2c()] {
        let gateway = Setup::with_upstream("main", &endpoint)
            .route("/*", "main", &[])
            .start()
            .await;
        for mut client in [gateway.http1().await, gateway.http2().await] {
            let sent = request(Method::POST, "/")
                .header("te", "trailers")
                .header("trailer", "x-sum")
                .body(pieces(&["a", "b"], &[("x-sum", "42")]))
                .unwrap();
            let reply = client.send(sent).await;
            assert_eq!(reply.field("x-saw"), Some("42"), "{endpoint} {client:?}");
            assert_eq!(reply.text(), "got it");
            let trailers = reply.trailers.expect("trailers");
            assert_eq!(trailers["x-check"], "abc", "{endpoint} {client:?}");
        }
    }
}

#[tokio::test]
async fn trailers_never_become_fields() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\n\
         X-Sum: 1\r\nHost: evil\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\
         Authorization: x\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    )
    .await;
    let reply = wire.read_message().await;
    // Refused whole or freed of what may not stand there.
    if reply.status() == 200 {
        let seen: Echo = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(seen.body, "a");
        assert_eq!(seen.all("host"), ["h"]);
        for name in ["authorization", "cookie", "content-length"] {
            assert_eq!(seen.field(name), None, "{name}");
        }
        for name in [
            "host",
            "content-length",
            "authorization",
            "cookie",
            "x-forwarded-for",
        ] {
            assert_eq!(seen.trailer(name), None, "{name}");
        }
    } else {
        assert_eq!(reply.status(), 400);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_framed_anew() {
    let upstream = Scripted::answering_once("HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nuntil the end").await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(get("/")).await;
        assert_eq!(reply.text(), "until the end");
        // The client's connection goes on.
        assert_eq!(client.send(get("/")).await.text(), "until the end");
    }
    let mut old = gateway.wire().await;
    old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let all = old.rest().await;
    assert!(all.ends_with("\r\n\r\nuntil the end"), "{all}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_held_back() {
    // Reads the head and nothing more.
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_until(b"\r\n\r\n").await?;
        std::future::pending().await
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let memory = gateway.memory();
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let mut wire = gateway.wire().await;
    let upload = tokio::spawn(async move {
        let length = 512 * MIB;
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        wire.send(head).await;
        let piece = vec![b'x'; 64 * 1024];
        loop {
            wire.send(&piece).await;
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    until("the upload to begin", async || {
        taken.load(Ordering::Relaxed) > 0
    })
    .await;
    let sent = settled("the upload to be held back", || {
        taken.load(Ordering::Relaxed)
    })
    .await;
    // What the kernel's socket buffers take on two connections is not ours to bound.
    assert!(sent < 64 * MIB, "{sent} bytes were taken");
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 16 * 1024, "the proxy grew by {grown} KiB");
    upload.abort();
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_held_back() {
    let upstream = Upstream::stream(async |_| Response::new(Flood::body(b'x', 512 * MIB))).await;
    let gateway = Setup::before(&upstream).start().await;
    for http2 in [false, true] {
        let memory = gateway.memory();
        let mut client = if http2 {
            gateway.http2().await
        } else {
            gateway.http1().await
        };
        let response = client.start(get("/")).await.unwrap();
        let memory = settled("the proxy's memory to stay", || gateway.memory())
            .await
            .saturating_sub(memory);
        assert!(memory < 16 * 1024, "the proxy grew by {memory} KiB");
        // Others are served meanwhile.
        assert_eq!(gateway.get("/").await.status, StatusCode::OK);
        drop(response);
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_at_the_upstream() {
    let gone = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&gone);
    let upstream = Scripted::start(move |_, mut wire| {
        let count = Arc::clone(&count);
        async move {
            wire.try_read_until(b"\r\n\r\n").await?;
            wire.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
                .await?;
            wire.read_to_end().await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    // While a response comes.
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    wire.read_head().await;
    wire.reset();
    until("the upstream to be told", async || {
        gone.load(Ordering::SeqCst) == 1
    })
    .await;
    // In the middle of an upload: what came so far is not passed off as whole.
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    wire.read_head().await;
    wire.reset();
    until("the upstream to be told", async || {
        gone.load(Ordering::SeqCst) == 2
    })
    .await;
    // By HTTP/2, with a reset of one stream.
    let mut client = gateway.http2().await;
    drop(client.start(get("/")).await.unwrap());
    until("the upstream to be told", async || {
        gone.load(Ordering::SeqCst) == 3
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_no_more_still_gets_its_answer() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        // The end may be seen with the request or behind it.
        for _ in 0..20 {
            let mut wire = gateway.wire().await;
            wire.send(request).await;
            wire.finish().await;
            let reply = wire.read_message().await;
            let expected = if request.contains("%00") { 400 } else { 200 };
            assert_eq!(reply.status(), expected, "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_bound_is_413() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .toml("[server.limits]\nmax-body = 1000")
        .start()
        .await;
    // Known from the start: nothing of it is read.
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
        .await;
    assert_eq!(wire.read_message().await.status(), 413);
    assert_eq!(upstream.requests(), 0);
    // Seen on the way.
    for http2 in [false, true] {
        let mut client = if http2 {
            gateway.http2().await
        } else {
            gateway.http1().await
        };
        let sent = request(Method::POST, "/")
            .body(Flood::body(b'x', 100_000))
            .unwrap();
        let response = client.start(sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert!(upstream.seen().iter().all(|seen| !seen.whole));
    // At the bound it goes through.
    let sent = request(Method::POST, "/")
        .body(full(vec![b'x'; 1000]))
        .unwrap();
    assert_eq!(gateway.send(sent).await.echo().body.len(), 1000);
}

#[tokio::test]
async fn an_empty_answer_is_whole() {
    let upstream = Upstream::serve(async |_| Response::new(empty())).await;
    let gateway = Setup::before(&upstream).start().await;
    let mut client: Client = gateway.http1().await;
    for _ in 0..3 {
        let reply = client.send(get("/")).await;
        assert_eq!(reply.field("content-length"), Some("0"));
        assert_eq!(reply.body.len(), 0);
    }
}

/// Checks that the harness's endless body is not collected by the client.
#[tokio::test]
async fn a_long_upload_goes_through_without_being_collected() {
    let upstream = Upstream::stream(async |request: Request<Incoming>| {
        let mut body = request.into_body().into_data_stream();
        let mut length = 0;
        while let Some(piece) = body.next().await {
            length += piece.unwrap().len();
        }
        let text: Body = full(length.to_string());
        Response::new(text)
    })
    .await;
    let gateway = Setup::before(&upstream).start().await;
    let memory = gateway.memory();
    let sent = request(Method::POST, "/")
        .body(Flood::body(b'x', 64 * MIB))
        .unwrap();
    let reply = gateway.send(sent).await;
    assert_eq!(reply.text(), (64 * MIB).to_string());
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 16 * 1024, "the proxy grew by {grown} KiB");
}
