//! How long others of the same worker wait while a guest runs to its bound: by the clock, on one worker, as a neighbour
//! sees it who asks all the time. The bound is one of processor time, which a busy machine hands out in pieces; what the
//! worker waited for a processor is not the guest's doing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use tidegate_tests::client::get;
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::hostile;
use tidegate_tests::wait::patience;

/// What the issue allows beyond the guest's own bound.
const BEYOND: Duration = Duration::from_millis(5);
/// So many loops are looked at for one figure, the median.
const LOOPS: usize = 11;
/// How often the figure is taken: what disturbed it once may have been somebody else on this machine.
const TRIES: usize = 8;

/// A worker with a loop without end on `/loop`, and an answer of the proxy's own on every other path.
async fn with_a_loop(filter: &str) -> Gateway {
    Setup::new()
        .filter("bad", hostile::guest("loop"))
        .toml(&format!(
            "[filter.bad]\nconfig = \"1a\"\nquarantine = {{ failures = 0 }}\n{filter}"
        ))
        .toml("[[route]]\npath = \"/loop\"\nfilters = [\"bad\"]")
        .start()
        .await
}

/// Asks until it is told to stop, and gives the longest that an answer took.
fn longest(address: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    let mut longest = Duration::ZERO;
    let mut answer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        stream
            .write_all(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 404 "));
        longest = longest.max(begin.elapsed());
        // A pace that leaves the processor to the worker.
        thread::sleep(Duration::from_micros(200));
    }
    longest
}

/// The longest that the neighbour waits while something is done.
async fn beside(gateway: &Gateway, deed: impl AsyncFnOnce()) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let (address, told) = (gateway.http(), Arc::clone(&stop));
    let neighbour = thread::spawn(move || longest(address, &told));
    deed().await;
    stop.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || neighbour.join().unwrap())
        .await
        .unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How long the only worker has waited for a processor so far, ready to run: what others on this machine took. Nothing,
/// where the system does not tell.
fn kept_waiting(gateway: &Gateway) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.process())).unwrap();
    let worker = tasks.map(|task| task.unwrap().path()).find(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0")
    });
    let text = fs::read_to_string(worker.unwrap().join("schedstat")).unwrap_or_default();
    let waited = text.split_whitespace().nth(1);
    Duration::from_nanos(waited.map_or(0, |waited| waited.parse().unwrap()))
}

/// Holds the median delay against a bound. `of_one_turn` says that the guest holds the worker in one go, so that all that
/// the worker waited for a processor meanwhile is part of the delay and not the guest's doing.
async fn held_up_for(what: &str, gateway: &Gateway, bound: Duration, of_one_turn: bool) {
    let mut client = gateway.http1().await;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let mut longest = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..LOOPS {
            let before = kept_waiting(gateway);
            let wait = beside(gateway, async || {
                let reply = client.send(get("/loop")).await;
                assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
            });
            let wait = wait.await;
            let of_machine = kept_waiting(gateway) - before;
            kept.push(of_machine);
            let machine = if of_one_turn {
                of_machine
            } else {
                Duration::ZERO
            };
            longest.push(wait.saturating_sub(machine));
        }
        let (longest, kept) = (median(longest), median(kept));
        eprintln!("{what}: others wait for {longest:?}; the worker waited for {kept:?}");
        if longest <= bound {
            return;
        }
        seen.push((longest, kept));
    }
    panic!("{what}: others waited for longer than {bound:?} (and the worker itself): {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_holds_others_up_for_its_bound_and_no_longer() {
    let gateway = with_a_loop("limits = { time = \"20ms\" }").await;
    let bound = Duration::from_millis(20) + BEYOND;
    held_up_for("a loop of 20 ms", &gateway, bound, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_may_take_long_gives_way_all_the_time() {
    let gateway = with_a_loop("limits = { time = \"100ms\" }").await;
    // Here the machine's part is not known, and there may be some.
    let bound = Duration::from_millis(2) + 4 * BEYOND;
    held_up_for("a loop of 100 ms that gives way", &gateway, bound, false).await;
}
