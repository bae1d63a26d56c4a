//! The process among others: signals, bounds that the system sets, an environment with next to nothing in it.

use http::StatusCode;
use rustix::process::Signal;
use tidegate_tests::client::{Client, get, get_with, request};
use tidegate_tests::gateway::{Gateway, LogLine, Setup};
use tidegate_tests::guests::sets_header;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wire::Wire;

/// How many workers the log says there are.
fn workers(gateway: &Gateway) -> String {
    let log = gateway.log();
    let ready: &LogLine = log.iter().find(|line| line.says("ready")).unwrap();
    let rest = ready.text.split_once("\"workers\":").unwrap().1;
    rest.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn signals_that_ask_for_nothing_do_nothing() {
    let upstream = Upstream::echo().await;
    let mut gateway = Setup::before(&upstream).start().await;
    let mut client = gateway.http1().await;
    for signal in [
        Signal::USR2,
        Signal::PIPE,
        Signal::USR1,
        Signal::HUP,
        Signal::XFSZ,
    ] {
        gateway.signal(signal);
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
    }
    gateway.logged(&["SIGHUP"]).await;
    assert!(gateway.ended().is_none());
    // An interrupt is an end in good order.
    gateway.signal(Signal::INT);
    assert_eq!(gateway.end().await.code(), Some(0));
}

#[tokio::test]
async fn as_many_workers_as_the_process_may_use_cores() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .workers(0)
        .beforehand("taskset -p -c 0 $$ > /dev/null")
        .start()
        .await;
    assert_eq!(workers(&gateway), "1");
}

#[tokio::test]
async fn half_a_core_is_one_worker() {
    let upstream = Upstream::echo().await;
    // The first form of control groups, or the second; where neither may be made, the test has nothing to stand on.
    let script = r#"
        name=tidegate-test-$$
        one=/sys/fs/cgroup/cpu/$name two=/sys/fs/cgroup/$name
        if mkdir $one 2> /dev/null && echo 50000 > $one/cpu.cfs_quota_us; then
            echo $$ > $one/cgroup.procs; echo quota > quota
        elif mkdir $two 2> /dev/null && echo "50000 100000" 2> /dev/null > $two/cpu.max; then
            echo $$ > $two/cgroup.procs; echo quota > quota
        fi"#;
    let mut gateway = Setup::before(&upstream)
        .workers(0)
        .beforehand(script)
        .start()
        .await;
    if gateway.folder().join("quota").exists() {
        assert_eq!(workers(&gateway), "1");
    } else {
        eprintln!("passed over: control groups can't be made here");
    }
    let name = format!("tidegate-test-{}", gateway.process());
    gateway.signal(Signal::TERM);
    gateway.end().await;
    for folder in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        let _not_every_form_is_there = std::fs::remove_dir(format!("{folder}/{name}"));
    }
}

#[tokio::test]
async fn no_home_no_rights_and_no_files_but_its_own_are_enough() {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::with_upstream("main", &upstream.url())
        .route("/*", "main", &["mark"])
        .filter("mark", sets_header("x-mark", "1"));
    let script = if rustix::process::geteuid().is_root() {
        // Nobody in particular, who may write nowhere.
        "chmod -R a+rX .; unset HOME XDG_CACHE_HOME
        exec setpriv --reuid=64321 --regid=64321 --clear-groups --no-new-privs --bounding-set=-all \"$0\" \"$@\""
    } else {
        "unset HOME XDG_CACHE_HOME"
    };
    setup = setup.beforehand(script);
    let mut gateway = setup.start().await;
    assert_eq!(gateway.get("/").await.field("x-mark"), Some("1"));
    gateway
        .logged(&["WARN", "neither HOME nor XDG_CACHE_HOME"])
        .await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().await.code(), Some(0));
}

#[tokio::test]
async fn nothing_that_a_client_says_makes_a_series() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .route("/known/*", "main", &[])
        .start()
        .await;
    let series = async || {
        let text = gateway.admin("/metrics").await.text();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let ask = async |number: usize| {
        let mut client = gateway.http1().await;
        let host = [("host", &*format!("host-{number}.example"))];
        client
            .send(get_with(&format!("/known/{number}"), &host))
            .await;
        client
            .send(get_with(&format!("/other/{number}"), &host))
            .await;
        let method = http::Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        let odd = request(method, "/known/x").body(tidegate_tests::client::empty());
        client.send(odd.unwrap()).await;
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "GET /{number} HTTP/1.1\r\nBad{number}: \x01\r\n\r\n"
        ))
        .await;
        wire.read_to_end().await;
    };
    ask(0).await;
    let before = series().await;
    for number in 1..100 {
        ask(number).await;
    }
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn who_scrapes_and_reads_slowly_harms_nobody() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream).start().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut wire = Wire::connect(gateway.admin_address()).await;
        // Many requests in a row, none of whose answers is read.
        let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
        wire.send(asked).await;
        slow.push(wire);
    }
    let mut client = gateway.http1().await;
    for _ in 0..50 {
        assert_eq!(client.send(get("/")).await.status, StatusCode::OK);
    }
    // Others still are answered there.
    let status = Client::http1(gateway.admin_address())
        .await
        .send(get("/livez"))
        .await
        .status;
    assert_eq!(status, StatusCode::OK);
}
