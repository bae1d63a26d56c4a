//! Tunnels: WebSocket with a real client and server, and other upgrades (RFC 9110 section 7.8).

use futures_util::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use tidegate_tests::client::{get, with};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Guest, sets_header};
use tidegate_tests::upstream::{Echo, Scripted, Upstream};
use tidegate_tests::wait::{until, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

/// A server that sends every message back; it tells in a field of its answer whether a filter has marked the
/// request. Gives it as an endpoint.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    endpoint
}

async fn echo(stream: TcpStream) {
    #[expect(
        clippy::result_large_err,
        reason = "the library's callback has this type"
    )]
    let answer = |request: &Request, mut response: Response| {
        for name in ["x-marked", "sec-websocket-protocol"] {
            if let Some(value) = request.headers().get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, answer).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            let _gone = socket.send(message).await;
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn connect(gateway: &Gateway) -> (Socket, Response) {
    let mut request = format!("ws://{}/socket", gateway.http())
        .into_client_request()
        .unwrap();
    let protocol = "chat".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(gateway.http()).await.unwrap();
    let (socket, response) = within(
        "the handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await
    .unwrap();
    let (head, _) = response.into_parts();
    (socket, Response::from_parts(head, ()))
}

async fn next(socket: &mut Socket) -> Message {
    within("a message", socket.next()).await.unwrap().unwrap()
}

fn before(endpoint: &str) -> Setup {
    Setup::with_upstream("main", endpoint)
        .filter(
            "mark",
            Guest::new()
                .sets_request_field("x-marked", "by a filter")
                .sets_response_field("x-answered", "by a filter")
                .build(),
        )
        .route("/*", "main", &["mark"])
}

#[tokio::test]
async fn messages_go_through_in_both_directions() {
    let gateway = before(&server().await).start().await;
    let (mut socket, response) = connect(&gateway).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for text in ["one", "two", "three"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text(text));
    }
    let large = Message::binary(vec![7_u8; 1024 * 1024]);
    socket.send(large.clone()).await.unwrap();
    assert_eq!(next(&mut socket).await, large);
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("p".into()));
    let bye = CloseFrame {
        code: CloseCode::Away,
        reason: "bye".into(),
    };
    socket.close(Some(bye.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(bye)));
}

#[tokio::test]
async fn filters_see_the_handshake_and_not_the_messages() {
    let gateway = before(&server().await).start().await;
    let (mut socket, response) = connect(&gateway).await;
    assert_eq!(response.headers()["x-marked"], "by a filter");
    assert_eq!(response.headers()["x-answered"], "by a filter");
    socket.send(Message::text("untouched")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("untouched"));
}

#[tokio::test]
async fn a_filter_can_refuse_the_handshake() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("no", Guest::new().answers(401, "who are you").build())
        .route("/*", "main", &["no"])
        .start()
        .await;
    let request = format!("ws://{}/socket", gateway.http());
    let stream = TcpStream::connect(gateway.http()).await.unwrap();
    let error = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_tunnel_outlives_a_change_of_filters() {
    let gateway = before(&server().await).start().await;
    let (mut socket, _) = connect(&gateway).await;
    let changed = sets_header("x-answered", "by another filter");
    std::fs::write(gateway.plugin_file("mark.wasm"), changed).unwrap();
    until("the change", async || {
        let (_, response) = connect(&gateway).await;
        response.headers()["x-answered"] == "by another filter"
    })
    .await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still here"));
}

#[tokio::test]
async fn the_end_of_one_side_is_the_end_of_the_other() {
    let gateway = before(&server().await).start().await;
    let (socket, _) = connect(&gateway).await;
    drop(socket);
    until("the tunnel's end", async || {
        gateway.metric("tidegate_connections_open", &[]).await < 0.5
    })
    .await;

    let upstream = Scripted::start(async |_, mut wire| {
        wire.try_read_until(b"\r\n\r\n").await?;
        wire.try_send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\nhello",
        )
        .await
    })
    .await;
    let gateway = before(&upstream.url()).start().await;
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n")
        .await;
    let head = wire.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(wire.rest().await, "hello");
}

#[tokio::test]
async fn any_protocol_can_be_switched_to_and_half_closed() {
    let upstream = Scripted::start(async |_, mut wire| {
        let head = wire.try_read_until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("\r\nupgrade: own/1\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        wire.try_send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: own/1\r\n\r\n",
        )
        .await?;
        // Answers only when the other side has said all it has to say.
        let (said, _) = wire.read_to_end().await;
        wire.try_send(said.to_ascii_uppercase()).await
    })
    .await;
    let gateway = before(&upstream.url()).start().await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: own/1\r\n\r\n",
    )
    .await;
    let head = wire.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    wire.send("said it all").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, "SAID IT ALL");
}

#[tokio::test]
async fn an_upstream_that_does_not_switch_answers_as_usual() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    for _ in 0..2 {
        let sent = with(
            get("/"),
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        );
        assert_eq!(client.send(sent).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_502() {
    let upstream = Scripted::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: own\r\n\r\n",
    )
    .await;
    let gateway = before(&upstream.url()).start().await;
    for mut client in [gateway.http1().await, gateway.http2().await] {
        let reply = client.send(get("/")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_forwarded_without_one() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(head).await;
        let head = wire.read_head().await;
        assert!(head.contains(" 200 "), "{head}");
        let seen: Echo = upstream.seen().pop().unwrap();
        assert_eq!(seen.field("upgrade"), None, "{head}");
        assert_eq!(seen.field("http2-settings"), None, "{head}");
    }
}

#[tokio::test]
async fn bytes_before_the_switch_are_not_streamed_ahead() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET /first HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: h\r\n\r\n",
    )
    .await;
    assert_eq!(wire.read_message().await.status(), 200);
    // What follows is the next request, or the connection closes.
    if let Ok(second) = wire.try_read_message().await {
        assert_eq!(second.status(), 200);
    }
    let targets: Vec<String> = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert!(
        targets == ["/first", "/second"] || targets == ["/first"],
        "{targets:?}"
    );
}
