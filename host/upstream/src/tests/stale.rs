//! Connections that the upstream closed while they rested: what is sent again and what never is.

use super::*;
use crate::SendErrorKind;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

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

/// Answers once; then closes the connection when it has read a request and four bytes more, unanswered. Says how
/// many requests with four bytes came.
async fn close_on_second_with_body(listener: TcpListener) -> usize {
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    say(&mut socket, &ok("first")).await;
    for seen in 1.. {
        let request = head(&mut socket).await;
        if request.starts_with("GET ") {
            say(&mut socket, &ok("end")).await;
            return seen - 1;
        }
        let mut body = [0; 4];
        socket.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
        if seen == 2 {
            say(&mut socket, &ok("again")).await;
        } else {
            drop(socket);
            socket = accept(&listener).await;
        }
    }
    unreachable!()
}

#[test]
fn a_put_whose_body_is_at_hand_is_sent_again_whole() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let upstream = tokio::task::spawn_local(close_on_second_with_body(listener));
        assert_eq!(tester.get_text().await, "first");
        let sent = tester.send(Method::PUT, Body::full("body")).await.unwrap();
        assert_eq!(sent.attempts, 2);
        assert_eq!(text(sent).await.unwrap(), "again");
        assert_eq!(tester.get_text().await, "end");
        assert_eq!(upstream.await.unwrap(), 2);
    });
}

#[test]
fn what_streams_and_what_is_no_idempotent_method_is_not_sent_twice() {
    let streamed = || {
        let bytes = http_body_util::Full::new(Bytes::from_static(b"body"));
        Body::stream(bytes.map_err(|never| match never {}))
    };
    let with_length = |method: Method, body: Body| {
        Request::builder()
            .method(method)
            .uri("/")
            .header("host", "front.test")
            .header("content-length", "4")
            .body(body)
            .unwrap()
    };
    for request in [
        with_length(Method::PUT, streamed()),
        with_length(Method::POST, streamed()),
        with_length(Method::POST, Body::full("body")),
        with_length(Method::PATCH, Body::full("body")),
    ] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            let upstream = tokio::task::spawn_local(close_on_second_with_body(listener));
            assert_eq!(tester.get_text().await, "first");
            let sent = tester.client.send(&tester.upstream, request, None).await;
            let error = sent.unwrap_err();
            let kind = &error.kind;
            assert!(matches!(kind, SendErrorKind::ResetBeforeHead), "{error}");
            assert_eq!(error.attempts, 1);
            assert_eq!(tester.get_text().await, "end");
            assert_eq!(upstream.await.unwrap(), 1);
        });
    }
}

#[test]
fn a_get_of_whose_answer_a_byte_came_is_not_sent_twice() {
    for begun in ["H", "HTTP/1.1 100 Continue\r\n\r\n"] {
        run(async {
            let (listener, url) = listen("http").await;
            let tester = Tester::new(&[url], |_| {});
            tokio::task::spawn_local(async move {
                let mut socket = accept(&listener).await;
                head(&mut socket).await;
                say(&mut socket, &ok("first")).await;
                head(&mut socket).await;
                say(&mut socket, begun).await;
            });
            assert_eq!(tester.get_text().await, "first");
            let error = tester.get().await.unwrap_err();
            let kind = &error.kind;
            assert!(matches!(kind, SendErrorKind::ResetBeforeHead), "{error}");
            assert_eq!(error.attempts, 1);
        });
    }
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

/// Answers one to three requests on each connection, then closes it, and counts how often each path came.
async fn close_early(listener: TcpListener, seen: Rc<RefCell<HashMap<String, usize>>>) {
    for answers in (1..=3).cycle() {
        let mut socket = accept(&listener).await;
        let seen = seen.clone();
        tokio::task::spawn_local(async move {
            for _ in 0..answers {
                let Ok(head) = try_head(&mut socket).await else {
                    return;
                };
                let path = head.split(' ').nth(1).unwrap().to_owned();
                *seen.borrow_mut().entry(path).or_default() += 1;
                say(&mut socket, &ok("fine")).await;
            }
        });
    }
}

#[test]
fn an_upstream_that_closes_early_costs_no_get_and_doubles_no_post() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Rc::new(Tester::new(&[url], |_| {}));
        let seen = Rc::new(RefCell::new(HashMap::new()));
        let upstream = tokio::task::spawn_local(close_early(listener, seen.clone()));
        let posts = Rc::new(RefCell::new(Vec::new()));
        let mut users = Vec::new();
        // Several at once, so that connections rest while others are in use.
        for user in 0..4 {
            let (tester, posts) = (tester.clone(), posts.clone());
            users.push(tokio::task::spawn_local(async move {
                for turn in 0..250 {
                    assert_eq!(tester.get_text().await, "fine");
                    let path = format!("/{user}/{turn}");
                    let request = Request::post(&path)
                        .header("host", "front.test")
                        .body(Body::full(""))
                        .unwrap();
                    let sent = tester.client.send(&tester.upstream, request, None).await;
                    let answered = match sent {
                        Ok(sent) => text(sent).await.unwrap() == "fine",
                        Err(error) => {
                            let kind = &error.kind;
                            assert!(matches!(kind, SendErrorKind::ResetBeforeHead), "{error}");
                            false
                        }
                    };
                    posts.borrow_mut().push((path, answered));
                }
            }));
        }
        for user in users {
            user.await.unwrap();
        }
        let (seen, posts) = (seen.borrow(), posts.borrow());
        assert_eq!(posts.len(), 1000);
        for (path, answered) in posts.iter() {
            let times = seen.get(path).copied().unwrap_or(0);
            assert!(
                times <= 1 && times >= usize::from(*answered),
                "{path}: {times}"
            );
        }
        upstream.abort();
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
