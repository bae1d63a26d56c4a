//! HTTP/2: one connection for all, and what the head becomes.

use super::*;
use http::{Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves HTTP/2 on one connection and answers with what it was asked.
pub(super) async fn serve<T>(io: T)
where
    T: AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request: Request<Incoming>| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(!request.headers().contains_key("host"));
        let words = format!("{} {}", request.method(), request.uri());
        Ok::<_, std::convert::Infallible>(Response::new(Body::full(words)))
    });
    let _ = hyper::server::conn::http2::Builder::new(Local)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

#[test]
fn many_requests_share_one_connection() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            // A second connection would never be accepted.
            serve(accept(&listener).await).await;
        });
        let (one, two, three) = tokio::join!(tester.get_text(), tester.get_text(), async {
            let sent = tester.send(Method::POST, Body::full("x")).await.unwrap();
            text(sent).await.unwrap()
        });
        assert_eq!(one, "GET http://front.test/path?query");
        assert_eq!(two, one);
        assert_eq!(three, "POST http://front.test/path?query");
        assert!(tester.counted("tidegate_upstream_attempts_total{upstream=\"main\"} 3"));
    });
}

#[test]
fn a_connection_that_went_away_is_replaced() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        let (end, ended) = tokio::sync::oneshot::channel();
        let upstream = tokio::task::spawn_local(async move {
            let mut first = tokio::task::spawn_local(serve(accept(&listener).await));
            ended.await.unwrap();
            first.abort();
            let _ = (&mut first).await;
            serve(accept(&listener).await).await;
        });
        assert_eq!(tester.get_text().await, "GET http://front.test/path?query");
        end.send(()).unwrap();
        // The requests of the old connection are lost or given back; those that are safe to repeat never fail.
        for _ in 0..3 {
            assert_eq!(tester.get_text().await, "GET http://front.test/path?query");
        }
        let sent = tester.send(Method::POST, Body::full("x")).await.unwrap();
        assert_eq!(
            text(sent).await.unwrap(),
            "POST http://front.test/path?query"
        );
        upstream.abort();
    });
}

#[test]
fn an_upstream_that_takes_one_stream_at_a_time_serves_many_requests() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        let most = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
        let seen = most.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let most = seen.clone();
                async move {
                    let (now, peak) = most.get();
                    most.set((now + 1, peak.max(now + 1)));
                    tokio::task::yield_now().await;
                    let (now, peak) = most.get();
                    most.set((now - 1, peak));
                    Ok::<_, std::convert::Infallible>(Response::new(Body::full("fine")))
                }
            });
            let io = TokioIo::new(accept(&listener).await);
            let _ = hyper::server::conn::http2::Builder::new(Local)
                .max_concurrent_streams(1)
                .serve_connection(io, service)
                .await;
        });
        // The first learns the bound; the others are held to it.
        assert_eq!(tester.get_text().await, "fine");
        let all = tokio::join!(
            tester.get_text(),
            tester.get_text(),
            tester.get_text(),
            tester.get_text()
        );
        assert!(
            [all.0, all.1, all.2, all.3]
                .iter()
                .all(|word| word == "fine")
        );
        assert_eq!(most.get(), (0, 1));
        assert!(tester.counted("tidegate_upstream_retries_total{upstream=\"main\"} 0"));
    });
}

#[test]
fn who_speaks_no_http2_is_an_error() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            say(&mut socket, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
            closed(&mut socket).await;
        });
        let error = tester.get().await.unwrap_err();
        let kind = &error.kind;
        assert!(
            matches!(kind, crate::SendErrorKind::InvalidResponse),
            "{error}"
        );
    });
}
