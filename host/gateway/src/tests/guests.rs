//! What filters get from their worker: HTTP calls to upstreams, and an instance that is kept, or made when it can be.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tidegate_core::error::{Fault, FilterError};
use tidegate_core::filter::{Filter, FilterModule, WorkerServices};
use tidegate_core::phase::{Flow, Interests, Phase};
use tidegate_core::services::CallError;

use super::harness::{Fake, Gateway, Origin, Setup, run, status, until};
use crate::{Failure, FilterSlot, RouteSpec, Snapshot};

async fn call(
    gateway: &Gateway,
    upstream: &str,
    path: &str,
    timeout: Duration,
) -> Result<Response<Bytes>, CallError> {
    let request = Request::post(path)
        .header("x-own", "1")
        .header("connection", "x-own")
        .body(Bytes::from_static(b"question"))
        .unwrap();
    let http = Rc::clone(&gateway.worker.filter_services().http);
    http.call(upstream, request, timeout, 1000).await
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn calls_go_to_the_upstreams_in_force() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let answer = call(&gateway, "main", "/ask?a", LONG).await.unwrap();
        assert_eq!(answer.status(), 200);
        let sent = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(sent.starts_with("POST /ask?a HTTP/1.1\r\n"), "{sent}");
        let host = origin.url.strip_prefix("http://").unwrap();
        assert!(sent.contains(&format!("\r\nhost: {host}\r\n")), "{sent}");
        assert!(
            sent.ends_with("\r\n\r\nquestion") && !sent.contains("x-own"),
            "{sent}"
        );
        let long = format!("/{}", "a".repeat(1000));
        for (upstream, path, expected) in [
            ("other", "/", CallError::InvalidRequest),
            ("main", &*long, CallError::ResponseTooLarge),
        ] {
            let error = call(&gateway, upstream, path, LONG).await.unwrap_err();
            assert_eq!(error, expected);
        }
    });
}

#[test]
fn a_call_that_fails_says_how() {
    run(async {
        let silent =
            Origin::start(|mut wire, _| async move { drop(wire.until(b"never").await) }).await;
        let gateway = Setup::new(&silent, vec![]).start().await;
        let error = call(&gateway, "main", "/", Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error, CallError::TimedOut);
        for (answer, expected) in [
            ("", CallError::Broken),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
                CallError::Broken,
            ),
            ("no http\r\n\r\n", CallError::Broken),
        ] {
            let origin = Origin::start(move |mut wire, _| async move {
                let _ = wire.message().await;
                wire.send(answer).await;
            })
            .await;
            let gateway = Setup::new(&origin, vec![]).start().await;
            assert_eq!(
                call(&gateway, "main", "/", LONG).await.unwrap_err(),
                expected,
                "{answer:?}"
            );
        }
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let gateway = Setup::to(Some(super::harness::upstream(&url)), vec![])
            .start()
            .await;
        assert_eq!(
            call(&gateway, "main", "/", LONG).await.unwrap_err(),
            CallError::Unreachable
        );
    });
}

/// A filter of which an instance can be made only from some attempt on.
#[derive(Debug)]
struct Late {
    fake: Fake,
    attempts: AtomicUsize,
    good_from: usize,
}

impl FilterModule for Late {
    fn name(&self) -> &Arc<str> {
        FilterModule::name(&self.fake)
    }

    fn interests(&self) -> &Interests {
        FilterModule::interests(&self.fake)
    }

    fn on_worker(&self, services: &WorkerServices) -> Result<Rc<dyn Filter>, FilterError> {
        if self.attempts.fetch_add(1, Ordering::Relaxed) + 1 >= self.good_from {
            return self.fake.on_worker(services);
        }
        Err(FilterError {
            filter: Arc::clone(FilterModule::name(&self.fake)),
            phase: Phase::Configure,
            fault: Fault::Instantiate("not yet".to_owned()),
        })
    }
}

fn late(good_from: usize) -> Arc<Late> {
    Arc::new(Late {
        fake: Fake::new("late", &[Phase::RequestHead], |_, _, _| Flow::Continue),
        attempts: AtomicUsize::new(0),
        good_from,
    })
}

fn snapshot(routes: &[RouteSpec], module: &Arc<Late>) -> Arc<Snapshot> {
    let slot = FilterSlot {
        name: Arc::from("late"),
        module: Some(Arc::clone(module) as Arc<dyn FilterModule>),
        failure: Failure::Closed,
        quarantine: None,
    };
    Arc::new(Snapshot::new(vec![slot], routes.to_vec(), []).unwrap())
}

#[test]
fn a_filter_that_could_not_be_had_is_tried_again() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut routes = gateway.worker.live().snapshot.router.routes().to_vec();
        routes[0].filters = vec![0];
        let module = late(4);
        gateway.worker.install(snapshot(&routes, &module));
        // The first request tries at once; it and those that follow are answered by the policy.
        assert_eq!(status(&gateway.get("/").await), "503");
        assert_eq!(module.attempts.load(Ordering::Relaxed), 2);
        let mut asked = 0;
        while status(&gateway.get("/").await) == "503" {
            asked += 1;
            tokio::task::yield_now().await;
        }
        assert_eq!(module.attempts.load(Ordering::Relaxed), 4);
        assert!(asked >= 2, "an attempt was made for every request");
        until("nothing more to be made", || {
            module.attempts.load(Ordering::Relaxed) == 4
        })
        .await;
    });
}

#[test]
fn a_filter_that_stays_keeps_its_instance() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut routes = gateway.worker.live().snapshot.router.routes().to_vec();
        routes[0].filters = vec![0];
        let module = late(1);
        for _ in 0..3 {
            gateway.worker.install(snapshot(&routes, &module));
            assert_eq!(status(&gateway.get("/").await), "200");
        }
        assert_eq!(module.attempts.load(Ordering::Relaxed), 1);
        let other = late(1);
        gateway.worker.install(snapshot(&routes, &other));
        assert_eq!(other.attempts.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn old_snapshots_are_freed_when_their_last_exchange_ends() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let routes = gateway.worker.live().snapshot.router.routes().to_vec();
        let first = snapshot(&routes, &late(1));
        let weak = Arc::downgrade(&first);
        gateway.worker.install(first);
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
            .await;
        tokio::task::yield_now().await;
        gateway.worker.install(snapshot(&routes, &late(1)));
        wire.send("hi").await;
        assert_eq!(status(&wire.message().await.unwrap()), "200");
        until("the old one to be freed", || weak.upgrade().is_none()).await;
    });
}
