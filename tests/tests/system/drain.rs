//! How the proxy ends: what runs is finished, nothing new begins, and nobody waits longer than configured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use rustix::process::Signal;
use tidegate_tests::client::{Reply, full, get};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;
use tidegate_tests::wire::Wire;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// An upstream that answers when it is told to.
async fn slow() -> (Upstream, Arc<Semaphore>) {
    let release = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&release);
    let upstream = Upstream::serve(move |seen| {
        let wait = Arc::clone(&wait);
        async move {
            if seen.target == "/slow" {
                wait.acquire().await.unwrap().forget();
            }
            Response::new(full("done"))
        }
    })
    .await;
    (upstream, release)
}

async fn until_refused(gateway: &Gateway) {
    until("new connections to be refused", async || {
        TcpStream::connect(gateway.http()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn what_runs_is_finished_and_nothing_new_begins() {
    for signal in [Signal::TERM, Signal::INT] {
        let (upstream, release) = slow().await;
        let mut gateway = Setup::before(&upstream).start().await;
        let mut http1 = gateway.http1().await;
        let mut http2 = gateway.http2().await;
        let mut idle = gateway.wire().await;
        idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(idle.read_message().await.status(), 200);
        let running = tokio::spawn(async move { http1.send(get("/slow")).await });
        let streaming = tokio::spawn(async move {
            let reply = http2.send(get("/slow")).await;
            (reply, http2)
        });
        until("both to arrive", async || upstream.requests() == 3).await;

        gateway.signal(signal);
        // Idle connections end at once, and nobody gets in.
        assert_eq!(idle.rest().await, "");
        until_refused(&gateway).await;
        assert!(gateway.ended().is_none());

        release.add_permits(2);
        let reply: Reply = running.await.unwrap();
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::OK, "done")
        );
        assert_eq!(reply.field("connection"), Some("close"));
        let (reply, mut http2) = streaming.await.unwrap();
        assert_eq!(reply.text(), "done");
        http2.closed().await;
        assert_eq!(gateway.end().await.code(), Some(0));
    }
}

#[tokio::test]
async fn who_is_not_finished_in_time_is_cut_off() {
    let (upstream, _release) = slow().await;
    let mut gateway = Setup::before(&upstream)
        .server("drain-timeout = \"300ms\"")
        .start()
        .await;
    let mut client = gateway.http1().await;
    let running = tokio::spawn(async move { client.try_send(get("/slow")).await });
    until("the request to arrive", async || upstream.requests() == 1).await;
    let start = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.end().await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(running.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (upstream, _release) = slow().await;
    let mut gateway = Setup::before(&upstream)
        .server("drain-timeout = \"1h\"")
        .start()
        .await;
    let mut client = gateway.http1().await;
    let running = tokio::spawn(async move { client.try_send(get("/slow")).await });
    until("the request to arrive", async || upstream.requests() == 1).await;
    gateway.signal(Signal::TERM);
    until_refused(&gateway).await;
    assert!(gateway.ended().is_none());
    gateway.signal(Signal::INT);
    assert_eq!(gateway.end().await.code(), Some(130));
    assert!(running.await.unwrap().is_err());
}

#[tokio::test]
async fn with_nothing_to_finish_it_ends_at_once() {
    let (upstream, _release) = slow().await;
    let mut gateway = Setup::before(&upstream).workers(2).start().await;
    gateway.get("/").await;
    let start = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn readiness_ends_before_service_does() {
    let (upstream, release) = slow().await;
    let mut gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    let running = tokio::spawn(async move { client.send(get("/slow")).await });
    until("the request to arrive", async || upstream.requests() == 1).await;
    gateway.signal(Signal::TERM);
    until("readiness to end", async || {
        gateway.admin("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(gateway.admin("/livez").await.status, StatusCode::OK);
    release.add_permits(1);
    assert_eq!(running.await.unwrap().text(), "done");
    gateway.end().await;
}

#[tokio::test]
async fn a_body_under_way_is_finished_too() {
    let (sender, body) = tidegate_tests::client::streamed();
    let shared = std::sync::Mutex::new(Some(body));
    let upstream = Upstream::stream(move |_| {
        let body = shared.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    })
    .await;
    let mut gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    let response = client.start(get("/")).await.unwrap();
    let mut sender = sender;
    sender.send_data("before ".into()).await.unwrap();
    gateway.signal(Signal::TERM);
    until_refused(&gateway).await;
    sender.send_data("after".into()).await.unwrap();
    drop(sender);
    let reply = Reply::collect(response).await.unwrap();
    assert_eq!(reply.text(), "before after");
    assert_eq!(gateway.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_tunnel_is_closed_at_the_limit() {
    let upstream = tidegate_tests::upstream::Scripted::start(async |_, mut wire: Wire| {
        wire.try_read_until(b"\r\n\r\n").await?;
        wire.try_send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\n",
        )
        .await?;
        wire.read_to_end().await;
        Ok(())
    })
    .await;
    let mut gateway = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &[])
        .server("drain-timeout = \"300ms\"")
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\n")
        .await;
    assert!(wire.read_head().await.starts_with("HTTP/1.1 101"));
    gateway.signal(Signal::TERM);
    gateway.end().await;
    wire.read_to_end().await;
}
