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
            let line = "tidegate_upstream_failures_total{reason=\"truncated\",upstream=\"main\"} 1";
            assert!(tester.counted(line));
        });
    }
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_only_if_that_was_not_reset() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let (read, was_read) = tokio::sync::oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            let words = "HTTP/1.1 200 OK\r\n\r\npart";
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, words).await;
            drop(socket);
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, words).await;
            was_read.await.unwrap();
            socket2::SockRef::from(&socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        });
        assert_eq!(tester.get_text().await, "part");
        let mut body = tester.get().await.unwrap().response.into_body();
        let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(part, "part");
        read.send(()).unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Broken(_)), "{error}");
    });
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
        let line = "tidegate_upstream_failures_total{reason=\"head_timeout\",upstream=\"main\"} 1";
        assert!(tester.counted(line));
    });
}

#[test]
fn a_head_that_comes_too_late_reaches_nobody() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT);
        let (late, now) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let mut first = accept(&listener).await;
            head(&mut first).await;
            now.await.unwrap();
            let _ = first.write_all(ok("late").as_bytes()).await;
            let mut second = accept(&listener).await;
            head(&mut second).await;
            say(&mut second, &ok("next")).await;
        });
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::HeadTimedOut), "{error}");
        late.send(()).unwrap();
        assert_eq!(tester.get_text().await, "next");
    });
}

#[test]
fn interim_responses_are_passed_over_and_do_not_stop_the_clock() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT * 5);
        tokio::task::spawn_local(async move {
            let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &(interim.repeat(3) + &ok("final"))).await;
            head(&mut socket).await;
            let flood = interim.repeat(100);
            while socket.write_all(flood.as_bytes()).await.is_ok() {}
        });
        assert_eq!(tester.get_text().await, "final");
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::HeadTimedOut), "{error}");
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
        let line = "tidegate_upstream_failures_total{reason=\"idle_timeout\",upstream=\"main\"} 1";
        assert!(tester.counted(line));
    });
}

#[test]
fn a_body_that_comes_in_parts_may_take_longer_than_the_bound() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.idle_timeout = SHORT * 10);
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
            for part in ["a", "b", "c", "d"] {
                // The client has nothing to say: each pause is shorter than the bound, all of them are longer.
                assert!(
                    tokio::time::timeout(SHORT * 4, socket.read_u8())
                        .await
                        .is_err()
                );
                say(&mut socket, part).await;
            }
        });
        assert_eq!(tester.get_text().await, "abcd");
    });
}

#[test]
fn a_client_that_reads_slowly_is_no_stalling_upstream() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.idle_timeout = SHORT);
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("whole")).await;
        });
        let sent = tester.get().await.unwrap();
        // Nobody reads for longer than the bound.
        let silence = std::future::pending::<()>();
        assert!(tokio::time::timeout(SHORT * 3, silence).await.is_err());
        assert_eq!(text(sent).await.unwrap(), "whole");
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
