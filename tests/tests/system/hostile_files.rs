//! Files that were made to harm whoever compiles or loads them. Each costs its filter a message with the file, the
//! bound and the value; what runs goes on, neighbours notice nothing, and the compiler is never the proxy's own process.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use http::StatusCode;
use rustix::process::{Signal, kill_process, test_kill_process};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Guest, sets_header};
use tidegate_tests::load::Load;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::{eventually, settled, until, within};

/// A filter on `/filtered`, and `/` for others.
async fn with_good_filter(upstream: &Upstream, keys: &str) -> Gateway {
    Setup::with_upstream("main", &upstream.url())
        .server(keys)
        .filter("version", sets_header("x-version", "1"))
        .route("/filtered", "main", &["version"])
        .route("/*", "main", &[])
        .start()
        .await
}

async fn version(gateway: &Gateway) -> Option<String> {
    let reply = gateway.get("/filtered").await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.field("x-version").map(str::to_owned)
}

/// Puts a file in place of the good one and waits until it is refused; gives the reason.
async fn refusal(gateway: &Gateway, bytes: &[u8]) -> String {
    fs::write(gateway.plugin_file("version.wasm"), bytes).unwrap();
    reason(gateway, &digest(bytes)).await
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why the file with this digest is refused.
async fn reason(gateway: &Gateway, digest: &str) -> String {
    eventually("the file to be refused", async || {
        let entry = gateway.plugin("version").await;
        let failed = entry["state"] == "failed" && entry["rejected-digest"] == digest;
        failed.then(|| entry["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

async fn mend(gateway: &Gateway, number: &str) {
    let good = sets_header("x-version", number);
    fs::write(gateway.plugin_file("version.wasm"), good).unwrap();
    until("the good version", async || {
        version(gateway).await.as_deref() == Some(number)
    })
    .await;
}

/// A filter with more text in its module.
fn with(text: &str) -> Vec<u8> {
    Guest::new().function(text).build()
}

/// A filter that the compiler takes seconds for, though nothing in it is over a bound.
fn slow() -> Vec<u8> {
    let mut text = String::new();
    for number in 0..8 {
        let _infallible = writeln!(
            text,
            "(func (export \"slow-{number}\") (param $a i64) (result i64) (local $b i64)"
        );
        for round in 0..10_000 {
            let _infallible = writeln!(
                text,
                "(local.set $b (i64.xor (local.get $a) (i64.mul (local.get $b) (i64.const {}))))\n\
                 (if (i64.eqz (local.get $b)) (then (local.set $a (i64.const {round}))))",
                number * 100_003 + round
            );
        }
        text += "(local.get $a))\n";
    }
    with(&text)
}

fn nested(depth: usize) -> String {
    format!("(func {} {})", "block ".repeat(depth), "end ".repeat(depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_much_is_refused_with_the_bound_and_the_value() {
    let upstream = Upstream::echo().await;
    let parameters = format!("(func (param{}))", " i32".repeat(100_000));
    // To translate them takes long, in which nobody asks for the load's answers.
    let bombs = [
        (
            with(&"(func)".repeat(1_000_000)),
            "functions, and a file may have 100000 at most",
        ),
        (
            with(&format!("(func {})", "(nop)".repeat(5 << 20))),
            "has 5242882 bytes, and a function may have 1048576 at most",
        ),
        (
            with(&nested(50_000)),
            "nests 50000 blocks, and a function may have 5000 at most",
        ),
        (
            with(&format!(
                "(func (br_table{} (i32.const 0)))",
                " 0".repeat(500_000)
            )),
            "entries in tables of branches, and a function may have 100000 at most",
        ),
        (
            with(&format!("(func (local{}))", " i64".repeat(50_000)).repeat(100)),
            "locals together, and a file may have 4000000 at most",
        ),
        // The format's own bound is lower.
        (with(&parameters), "function params"),
        (with(&"(data \"x\")".repeat(100_001)), "segments of data"),
    ];
    let gateway = with_good_filter(&upstream, "").await;
    let load = Load::start(&gateway, &[]).await;
    for (bomb, told) in bombs {
        let bomb_is = format!("{} bytes, {told}", bomb.len());
        let reason = refusal(&gateway, &bomb).await;
        assert!(reason.contains("version.wasm"), "{bomb_is}: {reason}");
        assert!(reason.contains(told), "{bomb_is}: {reason}");
        assert_eq!(version(&gateway).await.as_deref(), Some("1"), "{bomb_is}");
        gateway.logged(&["version.wasm", told]).await;
    }
    // 100 MiB that take no room on the disk.
    let file = fs::File::create(gateway.plugin_file("version.wasm")).unwrap();
    file.set_len(100 << 20).unwrap();
    gateway
        .logged(&[
            "version.wasm",
            "it has more than 67108864 bytes, which is the most that is read (`max-file` in [server.compile])",
        ])
        .await;
    mend(&gateway, "2").await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_just_within_the_bounds_is_compiled() {
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "").await;
    let guest = Guest::new()
        .sets_response_field("x-version", "deep")
        .function(&nested(4_900));
    fs::write(gateway.plugin_file("version.wasm"), guest.build()).unwrap();
    until("the deep one", async || {
        version(&gateway).await.as_deref() == Some("deep")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_takes_too_long_is_ended_and_others_are_served_meanwhile() {
    let upstream = Upstream::echo().await;
    let slow = slow();
    let gateway = with_good_filter(&upstream, "compile.time = \"300ms\"").await;
    let load = Load::start(&gateway, &[]).await;
    let before = gateway.memory();
    let reason = refusal(&gateway, &slow).await;
    assert!(
        reason.contains("the compiler was ended after 300ms")
            && reason.contains("`time` in [server.compile]"),
        "{reason}"
    );
    assert_eq!(version(&gateway).await.as_deref(), Some("1"));
    assert!(gateway.children().is_empty(), "{:?}", gateway.children());
    // The compiler's memory was not the proxy's: what came was the file, read and given back.
    let after = settled("the memory", || gateway.memory()).await;
    assert!(after < before + 24 * 1024, "{before} KiB, then {after} KiB");
    mend(&gateway, "2").await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_needs_too_much_memory_is_ended() {
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "compile.memory = \"256MiB\"").await;
    let load = Load::start(&gateway, &[]).await;
    // 14 KiB of which a compiler makes two million values: calls with a thousand results each, all dropped.
    let results = format!("(type $many (func (result{})))", " i64".repeat(1000));
    let calls = "(block (call $spring) (br 0))".repeat(2000);
    let text = format!("{results} (func $spring (type $many) (unreachable)) (func {calls})");
    let bomb = with(&text);
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    let reason = refusal(&gateway, &bomb).await;
    assert!(
        reason.contains("the compiler needed more than 256MiB")
            && reason.contains("`memory` in [server.compile]"),
        "{reason}"
    );
    mend(&gateway, "2").await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_that_breaks_takes_nobody_with_it() {
    let upstream = Upstream::echo().await;
    let file = slow();
    let gateway = with_good_filter(&upstream, "").await;
    let load = Load::start(&gateway, &[]).await;
    fs::write(gateway.plugin_file("version.wasm"), &file).unwrap();
    let compiler = eventually("a compiler", async || gateway.children().first().copied()).await;
    let path = format!("/proc/{}", compiler.as_raw_nonzero());
    // It is this program, under another name, with nothing of the proxy's environment and no socket.
    until("its own command line", async || {
        let command = fs::read(format!("{path}/cmdline")).unwrap();
        String::from_utf8_lossy(&command).contains("compile-filter")
    })
    .await;
    let environment = fs::read_to_string(format!("{path}/environ")).unwrap_or_default();
    assert!(!environment.contains("HOME"), "{environment}");
    kill_process(compiler, Signal::KILL).unwrap();
    let reason = reason(&gateway, &digest(&file)).await;
    assert!(
        reason.contains("the compiler broke on it (signal: 9"),
        "{reason}"
    );
    assert_eq!(version(&gateway).await.as_deref(), Some("1"));
    mend(&gateway, "2").await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compiler_ends_with_the_proxy() {
    let upstream = Upstream::echo().await;
    let mut gateway = with_good_filter(&upstream, "").await;
    let file = slow();
    fs::write(gateway.plugin_file("version.wasm"), &file).unwrap();
    let compiler = eventually("a compiler", async || gateway.children().first().copied()).await;
    gateway.signal(Signal::KILL);
    gateway.end().await;
    // It is gone, or waits for somebody to take note of that.
    until("the compiler's end", async || {
        let status = fs::read_to_string(format!("/proc/{}/stat", compiler.as_raw_nonzero()));
        test_kill_process(compiler).is_err() || status.is_ok_and(|status| status.contains(") Z "))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_inspect_have_the_same_bounds() {
    let setup = Setup::new()
        .filter("slow", slow())
        .filter("many", with(&"(func)".repeat(200_000)))
        .server("compile.time = \"300ms\"");
    let found = within("check", setup.check()).await;
    assert_eq!(found.code, Some(1), "{}", found.said());
    for told in [
        "plugins/slow.wasm: it can't be compiled: the compiler was ended after 300ms",
        "plugins/many.wasm: not a filter: it has 200009 functions, and a file may have 100000 at most",
    ] {
        assert!(found.stderr.contains(told), "{}", found.said());
    }
    let found = setup.run(&["inspect", "plugins/many.wasm"]).await;
    assert_eq!(found.code, Some(1));
    assert!(
        found.stdout.contains("and a file may have 100000 at most"),
        "{}",
        found.said()
    );
}

/// A file of 200 KiB is live soon after it was written, the process that compiles it included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_its_own_costs_a_reload_little() {
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "").await;
    let mut times = Vec::new();
    for number in 0..10 {
        let text = format!("large-{number}");
        let wasm = tidegate_tests::guests::large_sets_header("x-version", &text);
        let begin = Instant::now();
        fs::write(gateway.plugin_file("version.wasm"), wasm).unwrap();
        until("the large version", async || {
            version(&gateway).await.as_deref() == Some(&text)
        })
        .await;
        times.push(begin.elapsed());
        if times.len() >= 3 && times.iter().any(|time| *time < Duration::from_millis(800)) {
            break;
        }
    }
    times.sort();
    eprintln!("200 KiB live after {times:?}");
    // A debug build on a machine that is busy with other tests; docs/limits.md has the figures of a release build.
    assert!(times[0] < Duration::from_secs(2), "{times:?}");
}

/// Code that was compiled beforehand is never run, whoever made it and whatever it is called: not even what this very
/// proxy keeps in its cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiled_code_is_refused_by_its_content() {
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "cache = \"cache\"").await;
    let entries = fs::read_dir(gateway.folder().join("cache")).unwrap();
    let entry = entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .find(|bytes| bytes.starts_with(b"tidegate-cache"))
        .unwrap();
    let elf = entry.windows(4).position(|it| it == b"\x7fELF").unwrap();
    for (bytes, told) in [
        (&entry[elf..], "was compiled beforehand"),
        (&entry[..], "does not begin as WebAssembly does"),
    ] {
        let reason = refusal(&gateway, bytes).await;
        assert!(
            reason.contains("version.wasm") && reason.contains(told),
            "{reason}"
        );
        assert_eq!(version(&gateway).await.as_deref(), Some("1"));
    }
    mend(&gateway, "2").await;
}

/// Data that fills the memory which a filter may have, and data that is more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_data_cost_what_they_are_and_are_given_back() {
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "").await;
    let load = Load::start(&gateway, &[]).await;
    let with_data = |mib: usize, version: &str| {
        let data = "d".repeat(mib << 20);
        let pages = mib * 16 + 3;
        let text = Guest::new()
            .sets_response_field("x-version", version)
            .to_text();
        let text = text.replace(
            "(memory (export \"memory\") 2)",
            &format!("(memory (export \"memory\") {pages})"),
        );
        let end = text.rfind(')').unwrap();
        let text = format!("{}(data (i32.const 131072) \"{data}\"))", &text[..end]);
        tidegate_tests::guests::to_wasm(&text)
    };
    let before = settled("the memory", || gateway.memory()).await;
    fs::write(gateway.plugin_file("version.wasm"), with_data(40, "large")).unwrap();
    until("the large one", async || {
        version(&gateway).await.as_deref() == Some("large")
    })
    .await;
    // 64 MiB of data lie behind the bound of a file, which is the lower one.
    fs::write(gateway.plugin_file("version.wasm"), with_data(64, "x")).unwrap();
    gateway
        .logged(&["version.wasm", "more than 67108864 bytes"])
        .await;
    mend(&gateway, "2").await;
    until("the memory to be given back", async || {
        gateway.memory() < before + 16 * 1024
    })
    .await;
    load.finish().await;
}

/// A file that is written for seconds, by somebody who does not close it meanwhile: the last good version goes on, and
/// what is not whole yet is told once at the most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_slowly_is_told_of_once() {
    use std::io::Write as _;
    let upstream = Upstream::echo().await;
    let gateway = with_good_filter(&upstream, "").await;
    let wasm = Guest::new()
        .sets_response_field("x-version", "2")
        .padded(2048)
        .build();
    let load = Load::start(&gateway, &[]).await;
    let mut file = fs::File::create(gateway.plugin_file("version.wasm")).unwrap();
    for slice in wasm.chunks(wasm.len() / 10 + 1) {
        file.write_all(slice).unwrap();
        assert_eq!(version(&gateway).await.as_deref(), Some("1"));
        // The pace of whoever writes.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(file);
    until("the whole file", async || {
        version(&gateway).await.as_deref() == Some("2")
    })
    .await;
    load.finish().await;
    let told = gateway
        .log()
        .iter()
        .filter(|line| line.field("level") == Some("ERROR"))
        .count();
    assert!(told <= 1, "told {told} times: {:#?}", gateway.log());
}
