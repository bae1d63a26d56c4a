//! Upstreams that are replaced: what their connections become, and that nothing of them stays.

use super::*;
use tokio::time::Instant;

fn upstream(url: &str) -> Arc<Upstream> {
    let endpoints = vec![url.parse().unwrap()];
    Upstream::new(UpstreamConfig::new("main", endpoints), &Names::default()).unwrap()
}

/// Answers every request on every connection, and counts the connections.
async fn serve(listener: TcpListener, connections: Arc<std::sync::atomic::AtomicUsize>) {
    loop {
        let mut socket = accept(&listener).await;
        connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::spawn_local(async move {
            while try_head(&mut socket).await.is_ok() {
                say(&mut socket, &ok("fine")).await;
            }
        });
    }
}

#[test]
fn an_endpoint_that_stays_keeps_its_connections() {
    run(async {
        let (listener, url) = listen("http").await;
        let connections = Arc::default();
        tokio::task::spawn_local(serve(listener, Arc::clone(&connections)));
        let mut tester = Tester::new(&[], |_| {});
        for _ in 0..100 {
            tester.upstream = upstream(&url);
            assert_eq!(tester.get_text().await, "fine");
        }
        assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 1);
        // Not all of the hundred are remembered: those that are gone and hold what their successor holds as well
        // go after a while.
        let pool = tester.client.pool();
        pool.expire(Instant::now() + Duration::from_secs(11));
        assert_eq!(pool.remembered(), (1, 1));
        assert_eq!(tester.get_text().await, "fine");
        assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(tester.counted("tidegate_upstream_connections_open{upstream=\"main\"} 1"));
        assert!(tester.counted("tidegate_upstream_connections_opened_total{upstream=\"main\"} 1"));
    });
}

#[test]
fn an_endpoint_that_goes_takes_its_connections_with_it() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[], |_| {});
        let old = upstream(&url);
        let request = Request::get("/")
            .header("host", "front.test")
            .body(Body::Empty)
            .unwrap();
        let server = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("fine")).await;
            closed(&mut socket).await
        });
        let sent = tester.client.send(&old, request, None).await.unwrap();
        assert_eq!(text(sent).await.unwrap(), "fine");
        let pool = tester.client.pool();
        let now = Instant::now();
        pool.expire(now);
        assert_eq!((pool.resting(), pool.remembered()), (1, (1, 1)));
        drop(old);
        // It waits a little for a successor.
        pool.expire(now);
        assert_eq!((pool.resting(), pool.remembered()), (1, (1, 1)));
        pool.expire(now + Duration::from_secs(11));
        assert_eq!(pool.remembered(), (0, 0));
        assert!(server.await.unwrap().is_empty());
        while !tester.counted("tidegate_upstream_connections_open{upstream=\"main\"} 0") {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_client_that_goes_leaves_no_connection() {
    run(async {
        let (listener, url) = listen("http").await;
        let tester = Tester::new(&[url], |_| {});
        let server = tokio::task::spawn_local(async move {
            let mut socket = accept(&listener).await;
            head(&mut socket).await;
            say(&mut socket, &ok("fine")).await;
            closed(&mut socket).await
        });
        assert_eq!(tester.get_text().await, "fine");
        drop(tester);
        assert!(server.await.unwrap().is_empty());
    });
}
