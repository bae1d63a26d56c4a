//! The shipped limit over real connections: what a mock of the host can't show.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use tidegate_tests::client::{Reply, empty, get, get_with, post, with};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;
use tokio::sync::Semaphore;

/// The filter on everything.
fn limit(upstream: &Upstream, config: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url())
        .filter("limit", plugin("limit", Carrier::Core))
        .toml(config)
        .toml("[[route]]\nname = \"all\"\nupstream = \"main\"\nfilters = [\"limit\"]")
}

async fn ask(gateway: &Gateway, fields: &[(&str, &str)]) -> Reply {
    gateway.send(get_with("/", fields)).await
}

#[tokio::test]
async fn a_burst_passes_and_then_clients_are_told_when_to_come_back() {
    let upstream = Upstream::echo().await;
    let config = "[filter.limit.config]\nrate = 1\nper = \"hour\"\nburst = 3\nname = \"api\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    for left in [2, 1, 0] {
        let reply = ask(&gateway, &[]).await;
        assert_eq!(reply.status, StatusCode::OK);
        let shown = reply.field("ratelimit").unwrap();
        assert!(shown.starts_with(&format!("\"api\";r={left}")), "{shown}");
        assert_eq!(reply.field("ratelimit-policy"), Some("\"api\";q=3;w=10800"));
    }
    // What a client says of its address changes nothing.
    for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        let reply = ask(&gateway, &[(name, "9.9.9.9")]).await;
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
        let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        assert!(reply.field("ratelimit").unwrap().contains("r=0"));
    }
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_count() {
    let upstream = Upstream::echo().await;
    let gateway = limit(&upstream, "[filter.limit.config]\nrate = 1\nper = \"hour\"")
        .server("trusted-proxies = [\"127.0.0.0/8\"]")
        .start()
        .await;
    let status = async |client: &str| ask(&gateway, &[("x-forwarded-for", client)]).await.status;
    assert_eq!(status("192.0.2.1").await, StatusCode::OK);
    assert_eq!(status("192.0.2.2").await, StatusCode::OK);
    assert_eq!(status("192.0.2.1").await, StatusCode::TOO_MANY_REQUESTS);
    // An IPv6 client has a whole /64.
    assert_eq!(status("2001:db8:0:1::1").await, StatusCode::OK);
    assert_eq!(
        status("2001:db8:0:1:ffff::2").await,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(status("2001:db8:0:2::1").await, StatusCode::OK);
}

#[tokio::test]
async fn a_quota_is_exact_across_workers() {
    let upstream = Upstream::echo().await;
    let config = "[[filter.limit.config.rules]]\nrate = 40\nper = \"day\"\n\
                  [[filter.limit.config.rules]]\nname = \"other\"\nrate = 1000\nper = \"day\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    let clients = (0..8).map(|_| async {
        let mut client = gateway.http1().await;
        let mut passed = 0;
        for _ in 0..15 {
            passed += usize::from(client.send(get("/")).await.status == StatusCode::OK);
        }
        passed
    });
    let passed: usize = join_all(clients).await.into_iter().sum();
    assert_eq!((passed, upstream.requests()), (40, 40));
    // What the first rule refused took nothing from the second.
    let reply = ask(&gateway, &[]).await;
    let shown = reply.field("ratelimit").unwrap();
    assert!(shown.contains("\"other\";r=960"), "{shown}");
    let refused = gateway
        .metric(
            "tidegate_filter_limited_total",
            &[("filter", "limit"), ("rule", "default")],
        )
        .await;
    assert_eq!(refused, 81.0);
}

#[tokio::test]
async fn a_rate_is_exact_across_workers_as_long_as_somebody_asks() {
    let upstream = Upstream::echo().await;
    let config = "[filter.limit.config]\nrate = 100\nburst = 50\nquota-fields = \"none\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    let began = Instant::now();
    let clients = (0..4).map(|_| async {
        let mut client = gateway.http1().await;
        let (mut passed, mut asked) = (0_u32, 0_u32);
        while began.elapsed() < Duration::from_secs(3) {
            asked += 1;
            passed += u32::from(client.send(get("/")).await.status == StatusCode::OK);
        }
        (passed, asked)
    });
    let counted = join_all(clients).await;
    let elapsed = began.elapsed().as_secs_f64();
    let passed: u32 = counted.iter().map(|(passed, _)| passed).sum();
    let asked: u32 = counted.iter().map(|(_, asked)| asked).sum();
    let most = 50.0 + 100.0 * elapsed;
    let passed = f64::from(passed);
    assert!(passed <= most + 1.0, "{passed} of {most}");
    // A machine that is too busy to ask often enough can't use all of it.
    if f64::from(asked) > 2.0 * most {
        assert!(passed >= most * 0.98, "{passed} of {most}, {asked} asked");
    }
}

#[tokio::test]
async fn a_delay_makes_requests_wait_their_turn() {
    let upstream = Upstream::echo().await;
    let config = "[[filter.limit.config.rules]]\nrate = 5\nburst = 1\ndelay = \"600ms\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    let began = Instant::now();
    let asked = (0..6).map(|_| async {
        let reply = ask(&gateway, &[]).await;
        (reply.status, began.elapsed())
    });
    let mut replies = join_all(asked).await;
    replies.sort_by_key(|(_, after)| *after);
    let waited: Vec<_> = replies
        .iter()
        .filter(|(status, _)| *status == StatusCode::OK)
        .map(|(_, after)| *after)
        .collect();
    // The burst, and three turns of 200 ms each; the machine may have taken so long that one more came round.
    assert!((4..=5).contains(&waited.len()), "{replies:?}");
    for (turn, after) in (0..).zip(&waited).take(4) {
        assert!(*after >= Duration::from_millis(200) * turn, "{replies:?}");
    }
    let delayed = gateway.metric("tidegate_filter_delayed_total", &[]).await;
    assert!(delayed >= 3.0, "{delayed}");
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_come_back_however_they_end() {
    static GATE: Semaphore = Semaphore::const_new(0);
    let upstream = Upstream::serve(async |_| {
        GATE.acquire().await.unwrap().forget();
        Response::new(empty())
    })
    .await;
    let config = "[[filter.limit.config.rules]]\nconcurrent = 2\nkey = \"header:x-tenant\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    let tenant = |name: &'static str| get_with("/", &[("x-tenant", name)]);
    let mut first = gateway.http1().await;
    let mut second = gateway.http1().await;
    let mut held = Box::pin(first.send(tenant("a")));
    let mut gone = Box::pin(second.send(tenant("a")));
    until("two requests at the upstream", async || {
        tokio::select! {
            biased;
            reply = &mut held => panic!("{reply:?}"),
            reply = &mut gone => panic!("{reply:?}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => upstream.requests() == 2,
        }
    })
    .await;
    let reply = gateway.send(tenant("a")).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(reply.field("retry-after"), Some("1"));
    // One client goes away: its place is free again.
    drop(gone);
    drop(second);
    GATE.add_permits(2);
    until("a place for another", async || {
        GATE.add_permits(1);
        gateway.send(tenant("a")).await.status == StatusCode::OK
    })
    .await;
    assert_eq!(held.await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_a_response_cost_is_taken_from_the_next() {
    let upstream = Upstream::serve(async |_| {
        Response::builder()
            .header("x-tokens-used", "70")
            .body(empty())
            .unwrap()
    })
    .await;
    let config = "[[filter.limit.config.rules]]\nname = \"tokens\"\nrate = 100\nper = \"day\"\n\
                  cost = \"response:x-tokens-used\"";
    let gateway = limit(&upstream, config).workers(2).start().await;
    let shown = async || {
        let reply = ask(&gateway, &[]).await;
        (reply.status, reply.field("ratelimit").unwrap().to_owned())
    };
    let (status, left) = shown().await;
    assert!(status == StatusCode::OK && left.contains("r=30;"), "{left}");
    let (status, left) = shown().await;
    assert!(status == StatusCode::OK && left.contains("r=0;"), "{left}");
    let (status, _) = shown().await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn a_grpc_client_is_told_in_its_own_way() {
    let upstream = Upstream::echo().await;
    let config = "[filter.limit.config]\nrate = 1\nper = \"hour\"\nanswer = { status = 503 }";
    let gateway = limit(&upstream, config).start().await;
    let call = || with(post("/a.B/C", ""), &[("content-type", "application/grpc")]);
    let mut client = gateway.http2().await;
    assert_eq!(client.send(call()).await.status, StatusCode::OK);
    let reply = client.send(call()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.field("grpc-status"), Some("8"));
    assert!(reply.field("retry-after").is_some() && reply.body.is_empty());
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_dry_run_is_seen_in_the_figures_only() {
    let upstream = Upstream::echo().await;
    let config = "[filter.limit.config]\nrate = 1\nper = \"hour\"\ndry-run = true";
    let gateway = limit(&upstream, config).start().await;
    for _ in 0..4 {
        let reply = ask(&gateway, &[]).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.field("ratelimit"), None);
    }
    let would = gateway
        .metric("tidegate_filter_would_limit_total", &[("rule", "default")])
        .await;
    assert_eq!(would, 3.0);
}

#[tokio::test]
async fn many_made_up_keys_take_little_room_and_reset_nobody() {
    let upstream = Upstream::echo().await;
    let config = "[filter.limit.config]\nrate = 1\nper = \"day\"\nkey = \"header:x-key\"\nquota-fields = \"none\"";
    let gateway = limit(&upstream, config).start().await;
    let status = async |key: &str| ask(&gateway, &[("x-key", key)]).await.status;
    assert_eq!(status("mine").await, StatusCode::OK);
    let before = gateway.memory();
    let mut client = gateway.http1().await;
    let long = "x".repeat(4_000);
    for number in 0..2_000 {
        let key = format!("{long}{number}");
        let reply = client.send(get_with("/", &[("x-key", &key)])).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    assert_eq!(status("mine").await, StatusCode::TOO_MANY_REQUESTS);
    // Kept as they came, the keys alone would take 8 MB.
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 6_000, "{grown} KiB");
}

#[tokio::test]
async fn both_forms_of_the_module_do_the_same() {
    let upstream = Upstream::echo().await;
    for carrier in [Carrier::Core, Carrier::Component] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("limit", plugin("limit", carrier))
            .toml("[[filter.limit.config.rules]]\nname = \"a\"\nrate = 2\nper = \"hour\"")
            .toml("[[filter.limit.config.rules]]\nname = \"b\"\nconcurrent = 5")
            .toml("[[filter.limit.config.rules]]\nname = \"c\"\nrate = 9\nper = \"month\"\nrefill = \"calendar\"\ncount-in = \"store\"")
            .route("/*", "main", &["limit"])
            .start()
            .await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/").await.status, StatusCode::OK);
        }
        let reply = gateway.get("/").await;
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        let shown = reply.field("ratelimit").unwrap();
        assert!(
            shown.contains("\"a\";r=0;") && shown.contains("\"b\";r=4"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_mistake_is_told_at_its_line_with_a_remedy() {
    let config = "[[filter.limit.config.rules]]\nrate = 0\nper = \"fortnight\"\nkey = \"adress\"\ncost = \"x-cost\"\nbrust = 5";
    let upstream = Upstream::echo().await;
    let checked = limit(&upstream, config).check().await;
    let said = checked.said();
    assert_eq!(checked.code, Some(1), "{said}");
    for words in [
        "`rate` must be at least 1",
        "`per` is not a period",
        "write it as \"minute\" or \"10s\"",
        "`key` is not a key",
        "\"header:x-tenant\"",
        "`cost` is not a cost",
        "unknown key `brust`",
        "did you mean `burst`?",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    // What no schema can say, the filter does.
    let config = "[[filter.limit.config.rules]]\nrate = 1\nconcurrent = 1";
    let said = limit(&upstream, config).check().await.said();
    assert!(
        said.contains("`rules[0]`: `rate` and `concurrent` exclude each other"),
        "{said}"
    );
    let said = Setup::new()
        .filter("limit", plugin("limit", Carrier::Core))
        .run(&["inspect", "plugins/limit.wasm"])
        .await
        .stdout;
    assert!(said.contains("limit"), "{said}");
}

#[test]
fn the_module_keeps_its_bound() {
    let size = plugin("limit", Carrier::Core).len();
    assert!(size <= 200 * 1024, "{size} bytes");
}
