//! Upstreams that answer before they have read the request, and clients that take their time to send it.

use super::*;
use crate::SendErrorKind;
use http_body::Frame;
use std::cell::Cell;
use std::rc::Rc;

/// A body without an end, given chunk by chunk, that counts what was taken.
struct Endless(Rc<Cell<usize>>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        const CHUNK: &[u8] = &[b'x'; 16 * 1024];
        self.0.set(self.0.get() + CHUNK.len());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(CHUNK)))))
    }
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
fn an_early_answer_survives_the_reset_that_follows_it() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        // A body larger than one read, so that the reset comes before it has been read.
        let long = "x".repeat(20_000);
        let answer = ok(&long).replace("200 OK", "413 Content Too Large");
        const TIMES: usize = 50;
        let upstream = tokio::task::spawn_local(async move {
            for _ in 0..TIMES {
                let mut socket = accept(&listener).await;
                let mut some = vec![0; 64 * 1024];
                socket.read_exact(&mut some).await.unwrap();
                say(&mut socket, &answer).await;
                // What it has not read makes of its end a reset.
            }
        });
        for _ in 0..TIMES {
            let taken = Rc::new(Cell::new(0));
            let body = Body::stream(Endless(taken.clone()));
            let sent = tester.send(Method::POST, body).await.unwrap();
            assert_eq!(sent.response.status(), 413);
            assert_eq!(text(sent).await.unwrap(), long);
            // The rest is not poured into a connection that is gone.
            assert!(taken.get() < 32 * 1024 * 1024, "{}", taken.get());
        }
        upstream.await.unwrap();
        assert_eq!(tester.client.pool().resting(), 0);
    });
}

#[test]
fn a_reset_without_an_answer_is_an_error() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            let mut some = vec![0; 64 * 1024];
            socket.read_exact(&mut some).await.unwrap();
        });
        let body = Body::stream(Endless(Rc::default()));
        let error = tester.send(Method::POST, body).await.unwrap_err();
        let kind = &error.kind;
        assert!(matches!(kind, SendErrorKind::ResetBeforeHead), "{error}");
    });
}

#[test]
fn an_upstream_that_reads_no_more_times_out() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT);
        let (done, end) = tokio::sync::oneshot::channel();
        let upstream = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            end.await.unwrap();
            closed(&mut socket).await;
        });
        let body = Body::stream(Endless(Rc::default()));
        let error = tester.send(Method::POST, body).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::HeadTimedOut), "{error}");
        done.send(()).unwrap();
        upstream.await.unwrap();
    });
}

/// A body that waits until it is told to end.
struct Waiting(tokio::sync::oneshot::Receiver<()>);

impl http_body::Body for Waiting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll(cx).map(|_| None)
    }
}

#[test]
fn a_client_that_sends_slowly_is_no_silent_upstream() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT);
        let (end, ended) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            // The body pauses for longer than the upstream's bound, then ends.
            let pause = tokio::time::timeout(SHORT * 3, socket.read_u8()).await;
            assert!(pause.is_err());
            end.send(()).unwrap();
            let mut last = [0; 5];
            socket.read_exact(&mut last).await.unwrap();
            assert_eq!(&last, b"0\r\n\r\n");
            say(&mut socket, &ok("patience")).await;
        });
        let body = Body::stream(Waiting(ended));
        let sent = tester.send(Method::POST, body).await.unwrap();
        assert_eq!(text(sent).await.unwrap(), "patience");
    });
}
