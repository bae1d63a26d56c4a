//! Connections over workers: few of them leave no worker idle, and none is lost on its way from one to another.

use http::StatusCode;
use tidegate_tests::certs::Authority;
use tidegate_tests::client::{Client, get};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;
use tokio::task::JoinSet;

async fn by_worker(gateway: &Gateway, workers: usize) -> Vec<f64> {
    let text = gateway.admin("/metrics").await.text();
    (0..workers)
        .map(|worker| {
            let labels = [("worker", &*worker.to_string())];
            tidegate_tests::gateway::sum_of(&text, "tidegate_worker_connections", &labels)
        })
        .collect()
}

#[tokio::test]
async fn few_connections_are_spread_over_all_workers() {
    let upstream = Upstream::echo().await;
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let gateway = Setup::before(&upstream)
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key)
        .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
        .workers(4)
        .start()
        .await;
    // Clear and under TLS alike.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(gateway.http1().await);
        let tls = Client::tls(gateway.https(), "localhost", authority.client(&["h2"])).await;
        clients.push(tls.unwrap());
    }
    for client in &mut clients {
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
    }
    assert_eq!(by_worker(&gateway, 4).await, [4.0; 4]);
    drop(clients);
    until("all to be closed", async || {
        by_worker(&gateway, 4).await == [0.0; 4]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_lost_between_workers_and_the_end_ends_all() {
    let upstream = Upstream::echo().await;
    // The test's own upstream may be slow to accept so many at once on a busy machine.
    let mut gateway = Setup::new()
        .toml(&format!(
            "[upstream.main]\nendpoints = [\"{}\"]\nconnect-timeout = \"1m\"",
            upstream.url()
        ))
        .route("/*", "main", &[])
        .workers(4)
        .start()
        .await;
    let address = gateway.http();
    let mut clients = JoinSet::new();
    for number in 0..200_usize {
        clients.spawn(async move {
            for turn in 0..5 {
                let mut client = Client::http1(address).await;
                let reply = client.send(get("/")).await;
                assert_eq!(reply.status, StatusCode::OK, "{number} {turn}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(
        gateway
            .metric("tidegate_connections_handed_over_total", &[])
            .await
            > 0.0
    );
    // Those that were handed over are part of the end like all others.
    let mut connected = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.http1().await;
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
        connected.push(client);
    }
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.end().await.success());
    gateway.logged(&["all connections have ended"]).await;
}
