//! Listening sockets that outlive the process: a restart under load refuses nobody.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::{patience, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A socket that listens, which processes that are started from here have too.
fn listening() -> TcpListener {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    socket
}

/// As systemd would start it: descriptor 3 and the two variables. Smaller shells know no descriptors above 9.
fn passing(number: RawFd) -> String {
    format!(
        "exec bash -c 'exec 3<&{number}; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"' \"$0\" \"$@\""
    )
}

async fn with_socket(upstream: &Upstream, socket: &TcpListener) -> Gateway {
    let address = socket.local_addr().unwrap();
    Setup::before(upstream)
        .without_listener()
        .workers(2)
        .server(&format!("listen = [\"{address}\"]"))
        .beforehand(&passing(socket.as_raw_fd()))
        .start()
        .await
}

/// What clients saw that connect anew for each request.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    /// Connections that were closed before a byte of the answer; the request may be sent again.
    closed: AtomicUsize,
    stop: AtomicBool,
}

/// Asks until it is told to stop. A refused connection is a failure, and so is half an answer.
async fn ask(address: std::net::SocketAddr, seen: Arc<Seen>) {
    while !seen.stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let sent = stream.write_all(request).await;
        let read = tokio::time::timeout(patience(), stream.read_to_end(&mut answer));
        let read = read.await.unwrap();
        if answer.is_empty() && (sent.is_err() || read.is_err() || read.is_ok_and(|it| it == 0)) {
            seen.closed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.ends_with(b"}"), "{answer:?}");
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_over_without_a_refused_connection() {
    let upstream = Upstream::echo().await;
    let socket = listening();
    let address = socket.local_addr().unwrap();
    let mut gateway = with_socket(&upstream, &socket).await;
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(ask(address, Arc::clone(&seen))))
        .collect();
    let more = async || {
        let goal = seen.answered.load(Ordering::Relaxed) + 100;
        until("more answers", async || {
            seen.answered.load(Ordering::Relaxed) >= goal
        })
        .await;
    };
    for _ in 0..3 {
        more().await;
        // The new one is there before the old one is told to end.
        let next = with_socket(&upstream, &socket).await;
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.end().await.code(), Some(0));
        gateway = next;
    }
    more().await;
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // Only what was accepted in the moment of the signal and had not asked yet.
    let closed = seen.closed.load(Ordering::Relaxed);
    assert!(closed <= 12, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_between_two_processes_waits_and_is_served() {
    let upstream = Upstream::echo().await;
    let socket = listening();
    let address = socket.local_addr().unwrap();
    let mut gateway = with_socket(&upstream, &socket).await;
    gateway.signal(Signal::TERM);
    gateway.end().await;
    let mut early = TcpStream::connect(address).await.unwrap();
    early
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let gateway = with_socket(&upstream, &socket).await;
    let mut answer = Vec::new();
    early.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
    // What it starts itself has no such socket.
    let facts = fs::read_to_string(format!("/proc/{}/fdinfo/3", gateway.process())).unwrap();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    assert!(flags & 0o2_000_000 != 0, "{facts}");
    gateway
        .logged(&["a listening socket was passed", &address.to_string()])
        .await;
}

#[tokio::test]
async fn what_is_no_listening_socket_is_told_and_not_used() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .beforehand("exec 3</dev/null; export LISTEN_PID=$$ LISTEN_FDS=2")
        .start()
        .await;
    gateway
        .logged(&["a descriptor that was passed is no listening TCP socket"])
        .await;
    assert_eq!(gateway.get("/").await.status, 200);
}
