//! The same over HTTP/2, where streams end one by one and a window can be closed.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tidegate_core::phase::{Flow, Phase};
use tokio::net::TcpStream;

use super::harness::{Fake, Gateway, Origin, Seen, Setup, run, until, within};

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

struct Client {
    sender: http2::SendRequest<Body>,
    /// Done when the connection is.
    ended: tokio::task::JoinHandle<()>,
}

impl Client {
    async fn to(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (sender, connection) = http2::Builder::new(Local)
            .initial_stream_window_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let ended = tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Client { sender, ended }
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        within("a response", self.sender.send_request(request)).await
    }

    async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(get(path)).await
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://h{path}"))
        .body(Empty::new().boxed())
        .unwrap()
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://h{path}"))
}

async fn text(response: Response<Incoming>) -> hyper::Result<String> {
    let body = within("a body", response.into_body().collect()).await?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

#[test]
fn requests_go_through_and_are_checked_alike() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut client = Client::to(&gateway).await;
        let request = post("/a/../b?c")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(Full::new(Bytes::from("hi")).boxed())
            .unwrap();
        let sent = text(client.send(request).await.unwrap()).await.unwrap();
        assert!(sent.starts_with("POST /b?c HTTP/1.1\r\n"), "{sent}");
        for line in [
            "host: h",
            "cookie: a=1; b=2",
            "content-length: 2",
            "te: trailers",
        ] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
        }
        assert!(sent.ends_with("\r\n\r\nhi"), "{sent}");
        let bad = Request::get("http://h/..%2fa")
            .body(Empty::new().boxed())
            .unwrap();
        assert_eq!(client.send(bad).await.unwrap().status(), 400);
        let other = Request::get("http://h/").header("host", "other");
        let other = other.body(Empty::new().boxed()).unwrap();
        assert_eq!(client.send(other).await.unwrap().status(), 400);
        let mut many = get("/");
        for number in 0..101 {
            let value = number.to_string().parse().unwrap();
            many.headers_mut().append("x-many", value);
        }
        assert_eq!(client.send(many).await.unwrap().status(), 431);
        let lines = gateway.lines(4).await;
        assert_eq!(lines[0]["protocol"], "HTTP/2");
        assert_eq!(lines[0]["request-bytes"], 2);
    });
}

#[test]
fn grpc_gets_its_status_where_it_looks_for_it() {
    run(async {
        let no = Fake::new("no", &[Phase::RequestHead], |_, _, exchange| {
            let text = Bytes::from_static(b"who are you?\nmore");
            exchange.give_answer(401, [], text).unwrap();
            Flow::Answer
        });
        for (filters, status, message) in [
            (vec![no], "16", "who are you?"),
            (vec![], "14", "502 no upstream is configured"),
        ] {
            let gateway = Setup::to(None, filters).start().await;
            let mut client = Client::to(&gateway).await;
            let request = post("/service/Method")
                .header("content-type", "application/grpc+proto")
                .body(Full::new(Bytes::from("x")).boxed())
                .unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], status);
            assert_eq!(response.headers()["grpc-message"], message);
            assert_eq!(text(response).await.unwrap(), "");
        }
    });
}

#[test]
fn a_stream_that_nobody_takes_is_reset_and_no_other() {
    run(async {
        let origin = Origin::start(|mut wire, seen| async move {
            let Some(message) = wire.message().await else {
                return;
            };
            if !message.starts_with("GET /large") {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                return;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
                .await;
            let piece = vec![b'x'; 16 * 1024];
            while tokio::io::AsyncWriteExt::write_all(&mut wire.0, &piece)
                .await
                .is_ok()
            {}
            seen.add("given up");
        })
        .await;
        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| settings.limits.body_idle_timeout = Duration::from_millis(100))
            .start()
            .await;
        let mut client = Client::to(&gateway).await;
        let large = client.get("/large").await.unwrap();
        assert_eq!(large.status(), 200);
        until("the upstream to be told", || !origin.seen.all().is_empty()).await;
        assert!(text(large).await.is_err());
        assert_eq!(text(client.get("/").await.unwrap()).await.unwrap(), "ok");
        let statuses: Vec<_> = gateway
            .lines(2)
            .await
            .iter()
            .map(|line| line["status"].clone())
            .collect();
        assert_eq!(statuses, [499, 200]);
    });
}

#[test]
fn a_response_that_breaks_resets_its_stream_and_no_other() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            if let Some(message) = wire.message().await {
                let length = if message.starts_with("GET /cut") {
                    10
                } else {
                    4
                };
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nhalf"
                ))
                .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let mut client = Client::to(&gateway).await;
        for _ in 0..3 {
            let cut = client.get("/cut").await.unwrap();
            assert_eq!(cut.status(), 200);
            assert!(text(cut).await.is_err());
            assert_eq!(text(client.get("/").await.unwrap()).await.unwrap(), "half");
        }
        assert_eq!(gateway.lines(1).await[0]["reason"], "upstream_truncated");
    });
}

#[test]
fn a_stream_that_the_client_resets_ends_its_exchange() {
    run(async {
        let notes = Seen::default();
        let log = notes.clone();
        let filter = Fake::new(
            "log",
            &[Phase::RequestHead, Phase::Log],
            move |phase, _, _| {
                log.add(phase.name());
                Flow::Continue
            },
        );
        let origin = Origin::start(|mut wire, seen| async move {
            let _ = wire.head().await;
            seen.add("arrived");
            let _ = wire.rest().await;
            seen.add("left");
        })
        .await;
        let gateway = Setup::new(&origin, vec![filter]).start().await;
        let client = Client::to(&gateway).await;
        let mut sender = client.sender.clone();
        let waiting =
            tokio::task::spawn_local(async move { sender.send_request(get("/")).await.map(drop) });
        until("the request to arrive", || origin.seen.all() == ["arrived"]).await;
        waiting.abort();
        until("the upstream to be told", || {
            origin.seen.all() == ["arrived", "left"]
        })
        .await;
        let line = &gateway.lines(1).await[0];
        assert_eq!(
            (line["status"].as_u64(), line["reason"].as_str()),
            (Some(499), Some("client_abort"))
        );
        assert_eq!(notes.all(), ["request-head", "log"]);
    });
}

#[test]
fn a_connection_rests_only_for_so_long() {
    run(async {
        let origin = Origin::start(|mut wire, _| async move {
            while wire.message().await.is_some() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![])
            .settings(|settings| {
                settings.limits.header_timeout = Duration::from_millis(100);
                settings.limits.idle_timeout = Duration::from_millis(100);
            })
            .start()
            .await;
        // Without a stream, and behind one; while one runs it is not at rest.
        let silent = Client::to(&gateway).await;
        within("the end", silent.ended).await.unwrap();
        let mut client = Client::to(&gateway).await;
        assert_eq!(text(client.get("/").await.unwrap()).await.unwrap(), "ok");
        within("the end", client.ended).await.unwrap();
        gateway.all_closed().await;
    });
}

#[test]
fn a_drain_lets_streams_end() {
    run(async {
        let gate = std::sync::Arc::new(tokio::sync::Notify::new());
        let wait = std::sync::Arc::clone(&gate);
        let origin = Origin::start(move |mut wire, seen| {
            let wait = std::sync::Arc::clone(&wait);
            async move {
                let _ = wire.message().await;
                seen.add("arrived");
                wait.notified().await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let client = Client::to(&gateway).await;
        let mut sender = client.sender.clone();
        let running = tokio::task::spawn_local(async move { sender.send_request(get("/")).await });
        until("the request to arrive", || !origin.seen.all().is_empty()).await;
        gateway.drain.drain();
        gate.notify_one();
        assert_eq!(text(running.await.unwrap().unwrap()).await.unwrap(), "ok");
        within("the end", client.ended).await.unwrap();
        gateway.all_closed().await;
    });
}

#[test]
fn a_flood_of_resets_is_counted_and_ended() {
    run(async {
        let origin = Origin::echo().await;
        let gateway = Setup::new(&origin, vec![]).start().await;
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let mut bytes = length[1..].to_vec();
            bytes.extend([kind, flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(payload);
            bytes
        };
        // `GET http://h/` from the static table, but for the authority.
        let head = [0x82, 0x86, 0x84, 0x41, 1, b'h'];
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        for number in 0..5000 {
            bytes.extend(frame(1, 5, 2 * number + 1, &head));
            bytes.extend(frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
        }
        let mut wire = gateway.wire().await;
        wire.send(bytes).await;
        let _ = wire.rest().await;
        let series = "tidegate_client_errors_total{reason=\"h2_abuse\"}";
        until("the abuse to be counted", || {
            (gateway.figure(series) - 1.0).abs() < f64::EPSILON
        })
        .await;
        gateway.all_closed().await;
    });
}
