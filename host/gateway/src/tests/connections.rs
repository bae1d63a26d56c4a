//! How long a client may take, and how connections end.

use std::time::Duration;

use super::harness::{Origin, Setup, body, run, status, until};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

fn hasty(origin: &Origin) -> Setup {
    Setup::new(origin, vec![]).settings(|settings| {
        settings.limits.header_timeout = SHORT;
        settings.limits.idle_timeout = LONG;
    })
}

#[test]
fn who_is_slow_with_a_head_is_sent_away() {
    run(async {
        let origin = Origin::echo().await;
        for (begin, expected) in [
            ("", ""),
            ("\r\n", ""),
            ("PRI * HT", ""),
            ("G", "408"),
            ("GET / HT", "408"),
            ("GET / HTTP/1.1\r\nHost: h\r\n", "408"),
            ("GET / HTTP/1.1\r\nHost: h\r\nX-Ha", "408"),
        ] {
            let gateway = hasty(&origin).start().await;
            let mut wire = gateway.wire().await;
            wire.send(begin).await;
            let (got, _) = wire.rest().await;
            assert_eq!(status(&got), expected, "{begin:?}: {got:?}");
            if expected == "408" {
                let series = "tidegate_client_errors_total{reason=\"timeout_header\"}";
                assert!(
                    (gateway.figure(series) - 1.0).abs() < f64::EPSILON,
                    "{begin:?}"
                );
                assert_eq!(gateway.lines(1).await[0]["status"], 408);
            }
            gateway.all_closed().await;
        }
        // The same for a second request, while the time between two is another.
        let gateway = hasty(&origin).start().await;
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(status(&wire.message().await.unwrap()), "200");
        tokio::time::sleep(2 * SHORT).await;
        wire.send("GET /second HTTP/1.1\r\nHost: h\r\n").await;
        let (got, _) = wire.rest().await;
        assert_eq!(status(&got), "408", "{got}");
        assert_eq!(origin.seen.all().len(), 1);
    });
}

#[test]
fn a_connection_may_rest_for_so_long_but_not_while_it_is_served() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            while wire.message().await.is_some() {
                tokio::time::sleep(3 * SHORT).await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| settings.limits.idle_timeout = SHORT)
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(body(&wire.message().await.unwrap()), "ok");
        let (got, in_order) = wire.rest().await;
        assert_eq!((got.as_str(), in_order), ("", true));
    });
}

#[test]
fn a_response_that_nobody_takes_is_given_up() {
    run(async {
        let origin = Origin::start(|mut wire, seen| async move {
            let _ = wire.message().await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
                .await;
            let piece = vec![b'x'; 64 * 1024];
            while tokio::io::AsyncWriteExt::write_all(&mut wire.0, &piece)
                .await
                .is_ok()
            {}
            seen.add("given up");
        })
        .await;
        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| settings.limits.body_idle_timeout = SHORT)
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the upstream to be told", || !origin.seen.all().is_empty()).await;
        gateway.all_closed().await;
        assert_eq!(gateway.lines(1).await[0]["status"], 499);
        drop(wire);
    });
}

#[test]
fn a_drain_lets_what_runs_end_and_nothing_begin() {
    run(async {
        let gate = std::sync::Arc::new(tokio::sync::Notify::new());
        let wait = std::sync::Arc::clone(&gate);
        let origin = Origin::start(move |mut wire, seen| {
            let wait = std::sync::Arc::clone(&wait);
            async move {
                while let Some(message) = wire.message().await {
                    seen.add(message);
                    wait.notified().await;
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await;
                }
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut idle = gateway.wire().await;
        idle.send("GET /idle HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the first", || origin.seen.all().len() == 1).await;
        gate.notify_one();
        assert_eq!(status(&idle.message().await.unwrap()), "200");
        let mut silent = gateway.wire().await;
        let mut busy = gateway.wire().await;
        busy.send("GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the second", || origin.seen.all().len() == 2).await;
        gateway.drain.drain();
        assert_eq!(idle.rest().await, (String::new(), true));
        assert_eq!(silent.rest().await, (String::new(), true));
        gate.notify_one();
        let (got, _) = busy.rest().await;
        assert!(
            got.contains("connection: close") && got.ends_with("ok"),
            "{got}"
        );
        gateway.all_closed().await;
    });
}

#[test]
fn a_row_of_requests_is_answered_in_order() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        let row: String = (0..20)
            .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .collect();
        wire.send(row).await;
        for n in 0..20 {
            let got = wire.message().await.unwrap();
            assert!(body(&got).starts_with(&format!("GET /{n} ")), "{got}");
        }
        let requests = "tidegate_requests_total{class=\"2xx\",route=\"all\"}";
        until("all to be counted", || {
            (gateway.figure(requests) - 20.0).abs() < f64::EPSILON
        })
        .await;
    });
}

#[test]
fn http_1_0_is_closed_behind_its_answer() {
    run(async {
        let origin = Origin::answering(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut wire = gateway.wire().await;
        wire.send("GET / HTTP/1.0\r\n\r\n").await;
        let (got, in_order) = wire.rest().await;
        assert!(
            got.starts_with("HTTP/1.0 200") && got.ends_with("\r\n\r\nok") && in_order,
            "{got}"
        );
    });
}
