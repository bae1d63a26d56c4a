//! Endpoints that are given by name, and names that lead elsewhere while requests run. The name server is the system's
//! hosts file, over which the proxy has one of the test's own.

use http::StatusCode;
use tidegate_tests::gateway::Setup;
use tidegate_tests::wait::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers every request with a word.
fn serve(listener: TcpListener, word: &'static str) {
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok(count) = socket.read_buf(&mut held).await
                    && count > 0
                {
                    if held.ends_with(b"\r\n\r\n") {
                        held.clear();
                        let length = word.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{word}");
                        socket.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
}

/// Two listeners at one port of two addresses, and the port.
async fn pair() -> (TcpListener, TcpListener, u16) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        // Somebody else may have the port there.
        if let Ok(other) = TcpListener::bind(("127.0.0.2", port)).await {
            return (one, other, port);
        }
    }
}

#[tokio::test]
async fn a_name_is_followed_to_where_it_leads_and_its_last_addresses_stay() {
    let (one, other, port) = pair().await;
    serve(one, "one");
    serve(other, "other");
    let setup = Setup::with_upstream("main", &format!("http://api.test:{port}"))
        .server("dns-refresh = \"1s\"")
        .route("/*", "main", &[])
        .file("hosts", "127.0.0.1 localhost\n");
    let Some(setup) = setup.with_own_mounts("mount --bind hosts /etc/hosts") else {
        return;
    };
    let gateway = setup.start().await;
    // Written in place: the mount is of the file, not of its name.
    let hosts = gateway.folder().join("hosts");
    let say =
        |line: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{line}\n")).unwrap();
    // It does not resolve at first, which is told apart from an upstream that refuses.
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    gateway.logged(&["api.test", "does not resolve"]).await;
    let labels = [("upstream", "main"), ("reason", "dns")];
    let failures = gateway.metric("tidegate_upstream_failures_total", &labels);
    assert!(failures.await >= 1.0);
    say("127.0.0.1 api.test");
    until("the name's first address", async || {
        gateway.get("/").await.status == StatusCode::OK
    })
    .await;
    // A client that stays has the same connection to the upstream all the time, until the name leads elsewhere.
    let mut client = gateway.http1().await;
    let mut ask = async || {
        let reply = client.send(tidegate_tests::client::get("/")).await;
        assert_eq!(reply.status, StatusCode::OK);
        reply.text()
    };
    assert_eq!(ask().await, "one");
    say("");
    gateway
        .logged(&["api.test", "its last addresses stay in use"])
        .await;
    assert_eq!(ask().await, "one");
    say("127.0.0.2 api.test");
    until("the other address", async || ask().await == "other").await;
    let failed = [("result", "failed")];
    assert!(gateway.metric("tidegate_dns_lookups_total", &failed).await >= 1.0);
}
