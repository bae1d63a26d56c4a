//! Responses that are none, or that could be read in two ways: refused, and their connection closed.

use super::*;
use crate::{HeadBounds, SendErrorKind};

/// Sends a request to an upstream that says `words`, keeps its connection open, and waits for its end.
async fn refused(method: Method, words: String) -> SendError {
    let (listener, url) = listen("http").await;
    let tester = Tester::new(&[url], |_| {});
    let upstream = tokio::task::spawn_local(async move {
        let mut socket = accept(&listener).await;
        head(&mut socket).await;
        // It may have heard enough before the end.
        let _ = socket.write_all(words.as_bytes()).await;
        closed(&mut socket).await
    });
    let error = tester.send(method, Body::Empty).await.unwrap_err();
    assert!(upstream.await.unwrap().is_empty());
    let line = "tidegate_upstream_failures_total{reason=\"invalid_response\",upstream=\"main\"} 1";
    assert!(tester.counted(line), "{}", tester.registry.encode());
    error
}

#[test]
fn what_is_no_http_is_an_invalid_response() {
    for words in [
        "SSH-2.0-x\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: x\0y\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    ] {
        run(async {
            let error = refused(Method::GET, words.to_owned()).await;
            let kind = &error.kind;
            assert!(matches!(kind, SendErrorKind::InvalidResponse), "{error}");
        });
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_an_invalid_response() {
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4\r\ncontent-length: 4",
        "content-length: 4, 5",
        "content-length: +4",
        "content-length: 0x4",
        "content-length: 99999999999999999999999",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
    ] {
        for method in [Method::GET, Method::HEAD] {
            run(async {
                let words = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n");
                let error = refused(method, words).await;
                let kind = &error.kind;
                assert!(
                    matches!(kind, SendErrorKind::InvalidResponse),
                    "{fields}: {error}"
                );
            });
        }
    }
    run(async {
        let words = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        refused(Method::GET, words.to_owned()).await;
    });
}

#[test]
fn a_head_is_bounded_in_fields_and_bytes() {
    let fields = |count: usize| -> String {
        let lines = (0..count).map(|number| format!("x-{number}: v\r\n"));
        lines.collect()
    };
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let words = format!("HTTP/1.1 204 No Content\r\n{}\r\n", fields(256));
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &words).await;
            closed(&mut socket).await;
        });
        assert_eq!(tester.get().await.unwrap().response.headers().len(), 256);
    });
    for words in [
        format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(257)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(10_000)),
        format!(
            "HTTP/1.1 200 OK\r\nset-cookie: {}\r\n\r\n",
            "x".repeat(256 * 1024)
        ),
        format!("HTTP/1.1 200 {}", "x".repeat(1024 * 1024)),
    ] {
        run(async {
            let error = refused(Method::GET, words).await;
            let kind = &error.kind;
            assert!(matches!(kind, SendErrorKind::InvalidResponse), "{error}");
        });
    }
}

#[test]
fn the_bounds_of_a_head_can_be_set() {
    for (bytes, fields, count, length, good) in [
        (4096, 10, 10, 10, true),
        (4096, 10, 11, 10, false),
        (4096, 10, 1, 4000, true),
        (4096, 10, 1, 4096, false),
        (1 << 20, 1000, 1000, 10, true),
        (1 << 20, 1000, 1, 1 << 19, true),
        (1 << 20, 1000, 1001, 10, false),
        (1 << 20, 1000, 1, 1 << 20, false),
    ] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |config| {
                config.head = HeadBounds { bytes, fields };
            });
            let lines: String = (0..count)
                .map(|number| format!("x-{number}: {}\r\n", "v".repeat(length)))
                .collect();
            let words = format!("HTTP/1.1 204 No Content\r\n{lines}\r\n");
            tokio::task::spawn_local(async move {
                let mut socket = accept(&listener).await;
                head(&mut socket).await;
                // Whoever has seen enough closes in the middle.
                let _ = socket.write_all(words.as_bytes()).await;
                closed(&mut socket).await;
            });
            let answer = tester.get().await;
            assert_eq!(answer.is_ok(), good, "{count} of {length}");
        });
    }
}

#[test]
fn a_body_where_none_belongs_is_nobodys() {
    for (method, words) in [
        (Method::HEAD, ok("stray")),
        (
            Method::GET,
            "HTTP/1.1 204 No Content\r\n\r\nstray".to_owned(),
        ),
        (
            Method::GET,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nstray".to_owned(),
        ),
    ] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            tokio::task::spawn_local(async move {
                let mut first = accept(&listener).await;
                head(&mut first).await;
                say(&mut first, &words).await;
                let mut second = accept(&listener).await;
                head(&mut second).await;
                say(&mut second, &ok("next")).await;
            });
            let sent = tester.send(method.clone(), Body::Empty).await.unwrap();
            if method == Method::HEAD {
                assert_eq!(sent.response.headers()["content-length"], "5");
            }
            assert_eq!(text(sent).await.unwrap(), "");
            assert_eq!(tester.get_text().await, "next");
        });
    }
}

#[test]
fn words_on_a_connection_at_rest_end_it() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let (speak, now) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let mut first = accept(&listener).await;
            head(&mut first).await;
            say(&mut first, &ok("one")).await;
            now.await.unwrap();
            say(&mut first, &ok("unasked")).await;
            let mut second = accept(&listener).await;
            head(&mut second).await;
            say(&mut second, &ok("two")).await;
        });
        assert_eq!(tester.get_text().await, "one");
        assert_eq!(tester.client.pool().resting(), 1);
        speak.send(()).unwrap();
        while tester.client.pool().resting() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tester.get_text().await, "two");
    });
}
