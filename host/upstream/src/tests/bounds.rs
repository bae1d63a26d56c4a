//! Broken and slow upstreams: what ends, how, and that nothing of it reaches the next request.

use super::*;
use crate::SendErrorKind;

/// Says some words in answer to one request, closes, and reports nothing.
async fn answer_and_close(listener: TcpListener, words: &'static str) {
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    say(&mut socket, words).await;
}

#[test]
fn a_truncated_body_is_an_error_after_what_came() {
    for words in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            tokio::task::spawn_local(answer_and_close(listener, words));
            let sent = tester.get().await.unwrap();
            let mut body = sent.response.into_body();
            let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(part, "part");
            let error = body.frame().await.unwrap().unwrap_err();
            assert!(matches!(error, BodyError::Broken(_)), "{error}");
            assert!(body.frame().await.is_none());
        });
    }
}

#[test]
fn what_is_no_http_is_an_invalid_response() {
    for words in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n"] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            tokio::task::spawn_local(answer_and_close(listener, words));
            let error = tester.get().await.unwrap_err();
            assert!(
                matches!(error.kind, SendErrorKind::InvalidResponse),
                "{error}"
            );
        });
    }
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT);
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            closed(&mut socket).await
        });
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::HeadTimedOut), "{error}");
        assert!(upstream.await.unwrap().is_empty());
        let line =
            "tidegate_upstream_failures_total{reason=\"head_timeout\",upstream=\"main\"} 1";
        assert!(tester.counted(line));
    });
}

#[test]
fn a_body_that_stalls_times_out_and_ends_the_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.idle_timeout = SHORT);
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(
                &mut socket,
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart",
            )
            .await;
            closed(&mut socket).await
        });
        let error = text(tester.get().await.unwrap()).await.unwrap_err();
        assert!(matches!(error, BodyError::TimedOut));
        upstream.await.unwrap();
    });
}

#[test]
fn a_body_that_nobody_reads_any_more_ends_the_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(
                &mut socket,
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart",
            )
            .await;
            closed(&mut socket).await
        });
        drop(tester.get().await.unwrap());
        upstream.await.unwrap();
    });
}

#[test]
fn a_request_that_is_given_up_ends_the_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let (seen, came) = tokio::sync::oneshot::channel();
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            seen.send(()).unwrap();
            closed(&mut socket).await
        });
        tokio::select! {
            _ = tester.get() => panic!("nobody answers"),
            came = came => came.unwrap(),
        }
        upstream.await.unwrap();
    });
}

#[test]
fn a_request_body_that_breaks_off_is_not_the_upstreams_fault() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            closed(&mut socket).await
        });
        let body = Script(vec![
            Ok(Bytes::from_static(b"part")),
            Err(BodyError::Broken("the client left".to_owned())),
        ]);
        let error = tester
            .send(Method::POST, Body::stream(body))
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind, SendErrorKind::RequestBody(BodyError::Broken(_))),
            "{error}"
        );
        // The upstream must not take it for complete.
        let seen = upstream.await.unwrap();
        assert!(!seen.ends_with(b"0\r\n\r\n"));
    });
}

#[test]
fn an_early_answer_is_passed_on_and_its_connection_not_used_again() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let mut first = accept(&listener).await;
            head(&mut first).await;
            say(&mut first, &ok("too much")).await;
            let mut second = accept(&listener).await;
            head(&mut second).await;
            say(&mut second, &ok("next")).await;
            closed(&mut first).await;
        });
        let body = Script(vec![Ok(Bytes::from_static(b"part"))]);
        let sent = tester.send(Method::POST, Body::stream(body)).await.unwrap();
        assert_eq!(text(sent).await.unwrap(), "too much");
        assert_eq!(tester.get_text().await, "next");
        upstream.await.unwrap();
    });
}

#[test]
fn bytes_after_a_response_are_nobodys() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut first = accept(&listener).await;
            head(&mut first).await;
            say(&mut first, &(ok("one") + &ok("poison"))).await;
            let mut second = accept(&listener).await;
            head(&mut second).await;
            say(&mut second, &ok("two")).await;
        });
        assert_eq!(tester.get_text().await, "one");
        assert_eq!(tester.get_text().await, "two");
    });
}
