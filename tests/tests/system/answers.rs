//! The way back, by the bytes: an upstream's answer that could be read as two, or has more to it than its head says,
//! reaches the client as one answer or as 502 (RFC 9112 section 6.3).

use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::Scripted;

/// The statuses of all answers in these bytes.
fn statuses(answers: &str) -> Vec<&str> {
    answers
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, _)| answers.get(at + 9..at + 12))
        .filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

/// Everything that a client gets for one request and one more on the same connection, when the upstream's answer is
/// made of these bytes.
async fn answered(bytes: &str) -> (String, Gateway) {
    let upstream = Scripted::answering(bytes.as_bytes().to_vec()).await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    (wire.rest_or_open().await, gateway)
}

#[tokio::test]
async fn an_answer_that_could_be_two_is_none() {
    for (name, bytes) in [
        (
            "a length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a coding that is unknown",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nX-Evil: 1",
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\nX-Evil: 1",
        ),
        (
            "chunks in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX-Evil: 1",
        ),
        (
            "a length that is none",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nX-Evil: 1",
        ),
        (
            "a NUL",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 9\r\n\r\nX-Evil: 1",
        ),
        (
            "a CR in a value",
            "HTTP/1.1 200 OK\r\nX: a\rX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let (answers, _gateway) = answered(bytes).await;
        assert_eq!(statuses(&answers), ["502", "502"], "{name}: {answers:?}");
        assert!(!answers.contains("Evil"), "{name}: {answers:?}");
    }
}

#[tokio::test]
async fn a_folded_field_of_an_answer_is_unfolded_or_refused() {
    let folded = "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok";
    let (answers, _gateway) = answered(folded).await;
    let seen = statuses(&answers);
    if seen == ["200", "200"] {
        assert!(answers.contains("x-a: a b\r\n"), "{answers:?}");
    } else {
        assert_eq!(seen, ["502", "502"], "{answers:?}");
    }
    assert!(!answers.contains("\r\n "), "{answers:?}");
    let spaced = "HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 2\r\n\r\nok";
    let (answers, _gateway) = answered(spaced).await;
    assert!(!answers.to_lowercase().contains("x-a :"), "{answers:?}");
}

#[tokio::test]
async fn bytes_behind_an_answer_are_not_the_next_one() {
    let (answers, _gateway) = answered(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil",
    )
    .await;
    assert_eq!(statuses(&answers), ["200", "200"], "{answers:?}");
    assert!(!answers.to_lowercase().contains("evil"), "{answers:?}");
    let (answers, _gateway) = answered(
        "HTTP/1.1 204 No Content\r\nContent-Length: 51\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(statuses(&answers), ["204", "204"], "{answers:?}");
    assert!(!answers.to_lowercase().contains("evil"), "{answers:?}");
    assert!(
        !answers.to_lowercase().contains("content-length"),
        "{answers:?}"
    );
    let (answers, _gateway) = answered(
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 51\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(statuses(&answers), ["304", "304"], "{answers:?}");
    assert!(!answers.to_lowercase().contains("evil"), "{answers:?}");
}

#[tokio::test]
async fn head_keeps_the_length_and_no_byte_of_the_body() {
    let upstream =
        Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nX-Evil: 1").await;
    // A filter that gives HEAD and 204 a body gives it to nobody.
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .route("/own", "main", &["own"])
        .filter("own", Guest::new().answers(200, "own").build())
        .route("/empty", "main", &["empty"])
        .filter("empty", Guest::new().answers(204, "X-Evil").build())
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send(
        "HEAD /1 HTTP/1.1\r\nHost: h\r\n\r\nHEAD /own HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /empty HTTP/1.1\r\nHost: h\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    let first = wire.read_bare().await;
    assert_eq!(first.field("content-length"), Some("9"));
    let own = wire.read_bare().await;
    assert_eq!(own.field("content-length"), Some("3"), "{own:?}");
    let empty = wire.read_bare().await;
    assert_eq!(
        (empty.status(), empty.field("content-length")),
        (204, None),
        "{empty:?}"
    );
    assert_eq!(empty.field("transfer-encoding"), None);
    let last = wire.read_bare().await;
    assert_eq!(last.field("content-length"), Some("9"));
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn answers_arrive_byte_for_byte_with_a_filter_and_without() {
    // Many cookies, repeated fields, mixed case, bytes above 0x7f: never joined, never put in another order.
    let mut fields = String::new();
    for number in 0..20 {
        fields += &format!("Set-Cookie: c{number}=\"v, w\"; Path=/\r\n");
    }
    fields += "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nX-A: 4, 5\r\nWarning: 299 - \"caf\u{e9}\"\r\n";
    let bytes = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let upstream = Scripted::answering(bytes).await;
    let noop = Guest::new().sets_request_field("x-noop", "1").build();
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/plain", "main", &[])
        .route("/filtered", "main", &["noop"])
        .filter("noop", noop)
        .start()
        .await;
    let mut seen = Vec::new();
    for path in ["/plain", "/filtered"] {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        let reply = wire.read_message().await;
        let cookies: Vec<String> = (0..20)
            .map(|number| format!("c{number}=\"v, w\"; Path=/"))
            .collect();
        assert_eq!(reply.all("set-cookie"), cookies);
        assert_eq!(reply.all("x-a"), ["1", "3", "4, 5"]);
        assert_eq!(reply.all("warning"), ["299 - \"caf\u{e9}\""]);
        let lines: Vec<String> = reply
            .head
            .split("\r\n")
            .filter(|line| !line.starts_with("date:") && !line.starts_with("x-request-id"))
            .map(str::to_owned)
            .collect();
        seen.push(lines);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn an_early_answer_arrives_even_if_the_upstream_slams_the_door() {
    for number in 0..10 {
        let upstream = Scripted::start(async |_, mut wire| {
            wire.try_read_until(b"\r\n\r\n").await?;
            wire.try_read_exact(64 * 1024).await?;
            wire.try_send("HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                .await?;
            wire.reset();
            Ok(())
        })
        .await;
        let gateway = Setup::with_upstream("main", &upstream.url())
            .route("/*", "main", &[])
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
            .await;
        // It goes on sending for as long as it is taken.
        while !wire.has_something().await && wire.try_send([b'x'; 8192]).await.is_ok() {}
        let answer = wire.read_message().await;
        assert_eq!((answer.status(), &*answer.text()), (401, "no"), "{number}");
        // The rest of the body is not waited for.
        let rest = wire.rest_or_open().await;
        assert_eq!(rest, "", "{number}");
    }
}

#[tokio::test]
async fn an_interim_answer_now_and_then_does_not_stop_the_clock() {
    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_message().await?;
        let mut now_and_then = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            now_and_then.tick().await;
            wire.try_send("HTTP/1.1 102 Processing\r\n\r\n").await?;
        }
    })
    .await;
    let gateway = Setup::new()
        .toml(&format!(
            "[upstream.main]\nendpoints = [\"{}\"]\nresponse-timeout = \"700ms\"",
            upstream.url()
        ))
        .route("/*", "main", &[])
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status, 504);
}
