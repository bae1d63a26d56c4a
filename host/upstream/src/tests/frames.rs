//! HTTP/2 upstreams that refuse, go away and break off, frame by frame (RFC 9113 section 6).

use super::*;
use crate::SendErrorKind;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;

/// `:status: 200`, as HPACK's static table has it.
const STATUS_200: &[u8] = &[0x88];

/// An upstream's side of one connection.
struct Frames(TcpStream);

impl Frames {
    /// Takes a connection and agrees on nothing special.
    async fn accept(listener: &TcpListener) -> Self {
        let mut socket = accept(listener).await;
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        let mut frames = Frames(socket);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The number of the next request's stream, or nothing when the client has left.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).await.ok()?;
            let [a, b, c, kind, _, d, e, f, g] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if kind == HEADERS {
                return Some(u32::from_be_bytes([d, e, f, g]));
            }
        }
    }

    async fn answer(&mut self, stream: u32, body: &str) {
        self.send(HEADERS, END_HEADERS, stream, STATUS_200).await;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await;
    }

    async fn reset(&mut self, stream: u32, reason: u8) {
        self.send(RST_STREAM, 0, stream, &[0, 0, 0, reason]).await;
    }

    async fn go_away(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        self.send(GOAWAY, 0, 0, &payload).await;
    }
}

#[test]
fn a_refused_stream_is_sent_again_even_if_it_is_a_post() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut frames = Frames::accept(&listener).await;
            let stream = frames.request().await.unwrap();
            frames.reset(stream, REFUSED_STREAM).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream, "second").await;
            // Nothing but refusals: once more is enough.
            while let Some(stream) = frames.request().await {
                frames.reset(stream, REFUSED_STREAM).await;
            }
        });
        let sent = tester.send(Method::POST, Body::full("x")).await.unwrap();
        assert_eq!(sent.attempts, 2);
        assert_eq!(text(sent).await.unwrap(), "second");
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::ResetBeforeHead));
        assert_eq!(error.attempts, 2);
        // A body that is gone can't be sent again.
        let body = Script(vec![Ok(Bytes::from_static(b"part"))]);
        let error = tester
            .send(Method::PUT, Body::stream(body))
            .await
            .unwrap_err();
        assert_eq!(error.attempts, 1);
        assert!(tester.counted("tidegate_upstream_retries_total{upstream=\"main\"} 2"));
        assert!(tester.counted("tidegate_upstream_connections_opened_total{upstream=\"main\"} 1"));
    });
}

#[test]
fn what_is_above_the_last_stream_of_a_goaway_is_sent_again_and_what_is_below_ends() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut old = Frames::accept(&listener).await;
            let first = old.request().await.unwrap();
            old.request().await.unwrap();
            old.go_away(first).await;
            let mut new = Frames::accept(&listener).await;
            let stream = new.request().await.unwrap();
            new.answer(stream, "new").await;
            old.answer(first, "old").await;
            let stream = new.request().await.unwrap();
            new.answer(stream, "new again").await;
            new.request().await;
        });
        let (first, second) = tokio::join!(
            async {
                let sent = tester.send(Method::POST, Body::full("1")).await.unwrap();
                (sent.attempts, text(sent).await.unwrap())
            },
            async {
                let sent = tester.send(Method::POST, Body::full("2")).await.unwrap();
                (sent.attempts, text(sent).await.unwrap())
            }
        );
        assert_eq!(first, (1, "old".to_owned()));
        assert_eq!(second, (2, "new".to_owned()));
        assert_eq!(tester.get_text().await, "new again");
    });
}

#[test]
fn a_stream_that_failed_may_have_been_acted_on() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut frames = Frames::accept(&listener).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream, "one").await;
            let stream = frames.request().await.unwrap();
            frames.reset(stream, INTERNAL_ERROR).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream, "two").await;
            frames.request().await;
        });
        assert_eq!(tester.get_text().await, "one");
        let error = tester.get().await.unwrap_err();
        assert_eq!(error.attempts, 1, "{error}");
        // It says nothing about its connection.
        assert_eq!(tester.get_text().await, "two");
    });
}

#[test]
fn a_connection_that_breaks_loses_a_post_but_no_get() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            for word in ["one", "two", "three"] {
                let mut frames = Frames::accept(&listener).await;
                let stream = frames.request().await.unwrap();
                frames.answer(stream, word).await;
                frames.request().await.unwrap();
            }
        });
        assert_eq!(tester.get_text().await, "one");
        let sent = tester.get().await.unwrap();
        assert_eq!(sent.attempts, 2);
        assert_eq!(text(sent).await.unwrap(), "two");
        let error = tester
            .send(Method::POST, Body::full("x"))
            .await
            .unwrap_err();
        assert_eq!(error.attempts, 1, "{error}");
        assert_eq!(tester.get_text().await, "three");
    });
}

#[test]
fn a_body_that_is_reset_or_too_short_is_truncated() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut frames = Frames::accept(&listener).await;
            let stream = frames.request().await.unwrap();
            frames.send(HEADERS, END_HEADERS, stream, STATUS_200).await;
            frames.send(DATA, 0, stream, b"part").await;
            frames.reset(stream, INTERNAL_ERROR).await;
            // `content-length: 9`: name 28 of the static table.
            let stream = frames.request().await.unwrap();
            let fields = [STATUS_200, &[0x0f, 0x0d, 1, b'9']].concat();
            frames.send(HEADERS, END_HEADERS, stream, &fields).await;
            frames.send(DATA, END_STREAM, stream, b"part").await;
            frames.request().await;
        });
        for _ in 0..2 {
            let error = text(tester.get().await.unwrap()).await.unwrap_err();
            assert!(matches!(error, BodyError::Broken(_)), "{error}");
        }
        let line = "tidegate_upstream_failures_total{reason=\"truncated\",upstream=\"main\"} 2";
        assert!(tester.counted(line), "{}", tester.registry.encode());
    });
}

#[test]
fn a_connection_on_which_nothing_is_heard_is_replaced() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |config| config.response_timeout = SHORT);
        tokio::task::spawn_local(async move {
            let mut silent = Frames::accept(&listener).await;
            let stream = silent.request().await.unwrap();
            silent.answer(stream, "one").await;
            silent.request().await.unwrap();
            let mut frames = Frames::accept(&listener).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream, "two").await;
            frames.request().await;
        });
        assert_eq!(tester.get_text().await, "one");
        let error = tester.get().await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::HeadTimedOut), "{error}");
        assert_eq!(tester.get_text().await, "two");
    });
}

#[test]
fn a_head_is_bounded() {
    run(async {
        let (listener, url) = listen("h2c").await;
        let tester = Tester::new(&[url], |_| {});
        tokio::task::spawn_local(async move {
            let mut frames = Frames::accept(&listener).await;
            let small = [0, 1, b'x', 1, b'y'];
            // Not over any bound: 250 small fields and one of 8100 bytes.
            let stream = frames.request().await.unwrap();
            let large = [&[0, 1, b'z', 0x7f, 0xa5, 0x3e][..], &[b'v'; 8100]].concat();
            let fields = [STATUS_200, &small.repeat(250), &large].concat();
            frames.send(HEADERS, END_HEADERS, stream, &fields).await;
            frames.send(DATA, END_STREAM, stream, b"fine").await;
            for count in [257, 3000] {
                let stream = frames.request().await.unwrap();
                let fields = [STATUS_200, &small.repeat(count)].concat();
                frames.send(HEADERS, END_HEADERS, stream, &fields).await;
            }
            frames.request().await;
        });
        assert_eq!(tester.get_text().await, "fine");
        for _ in 0..2 {
            let error = tester.get().await.unwrap_err();
            let kind = &error.kind;
            assert!(matches!(kind, SendErrorKind::InvalidResponse), "{error}");
        }
    });
}
