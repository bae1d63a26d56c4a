//! Connections that the upstream closed while they rested: what is sent again and what never is.

use super::*;
use crate::SendErrorKind;

/// Answers once, then closes the connection as soon as the next request is there, unanswered. Says what that
/// was, and what came over the next connection, which it answers.
async fn close_on_second(listener: TcpListener) -> [String; 2] {
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    say(&mut socket, &ok("first")).await;
    let second = head(&mut socket).await;
    drop(socket);
    let mut socket = accept(&listener).await;
    let third = head(&mut socket).await;
    say(&mut socket, &ok("again")).await;
    [second, third]
}

#[test]
fn a_get_is_sent_again_on_a_new_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(close_on_second(listener));
        assert_eq!(tester.get_text().await, "first");
        let sent = tester.get().await.unwrap();
        assert_eq!(sent.attempts, 2);
        assert_eq!(text(sent).await.unwrap(), "again");
        let [second, third] = upstream.await.unwrap();
        assert_eq!(second, third);
        assert!(tester.counted("tidegate_upstream_attempts_total{upstream=\"main\"} 3"));
    });
}

#[test]
fn a_post_is_not_sent_twice() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(close_on_second(listener));
        assert_eq!(tester.get_text().await, "first");
        let error = tester.send(Method::POST, Body::Empty).await.unwrap_err();
        assert!(
            matches!(error.kind, SendErrorKind::ResetBeforeHead),
            "{error}"
        );
        assert_eq!(error.attempts, 1);
        // What comes next is another request, not the same once more.
        assert_eq!(tester.get_text().await, "again");
        let [second, third] = upstream.await.unwrap();
        assert!(second.starts_with("POST ") && third.starts_with("GET "));
    });
}

#[test]
fn a_put_with_a_body_is_not_sent_twice() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(close_on_second(listener));
        assert_eq!(tester.get_text().await, "first");
        let error = tester.send(Method::PUT, Body::full("x")).await.unwrap_err();
        assert_eq!(error.attempts, 1);
        assert_eq!(tester.get_text().await, "again");
        upstream.await.unwrap();
    });
}

#[test]
fn a_new_connection_that_closes_is_not_tried_again() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
        });
        let error = tester.get().await.unwrap_err();
        assert!(
            matches!(error.kind, SendErrorKind::ResetBeforeHead),
            "{error}"
        );
        assert_eq!(error.attempts, 1);
        upstream.await.unwrap();
    });
}

#[test]
fn an_upstream_that_closes_early_costs_no_get_and_doubles_no_post() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let received = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = received.clone();
        tokio::task::spawn_local(async move {
            for answers in (1..=3).cycle() {
                let mut socket = accept(&listener).await;
                for _ in 0..answers {
                    if head(&mut socket).await.starts_with("POST ") {
                        seen.set(seen.get() + 1);
                    }
                    say(&mut socket, &ok("fine")).await;
                }
            }
        });
        let mut answered = 0;
        let mut sent = 0;
        for _ in 0..300 {
            for _ in 0..2 {
                assert_eq!(tester.get_text().await, "fine");
            }
            sent += 1;
            match tester.send(Method::POST, Body::Empty).await {
                Ok(sent) => {
                    assert_eq!(text(sent).await.unwrap(), "fine");
                    answered += 1;
                }
                Err(error) => assert!(matches!(error.kind, SendErrorKind::ResetBeforeHead)),
            }
        }
        let received = received.get();
        assert!(
            answered <= received && received <= sent,
            "{answered} {received} {sent}"
        );
    });
}

#[test]
fn a_post_that_was_not_begun_goes_out_on_a_new_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let (end, ended) = tokio::sync::oneshot::channel();
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("first")).await;
            ended.await.unwrap();
            drop(socket);
            let mut socket = accept(&listener).await;
            assert!(head(&mut socket).await.starts_with("POST "));
            say(&mut socket, &ok("second")).await;
        });
        assert_eq!(tester.get_text().await, "first");
        end.send(()).unwrap();
        // The pool lets go of a connection as soon as its end has been seen.
        while tester.client.pool().resting() > 0 {
            tokio::task::yield_now().await;
        }
        let sent = tester.send(Method::POST, Body::full("x")).await.unwrap();
        assert_eq!(text(sent).await.unwrap(), "second");
        upstream.await.unwrap();
    });
}
