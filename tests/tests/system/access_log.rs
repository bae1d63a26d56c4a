//! One line a request, which nobody can forge and which holds no worker up.

use serde_json::Value;
use tidegate_tests::client::{get_with, post};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::{DeadEnd, Upstream};
use tidegate_tests::wait::eventually;

/// The lines of the file so far, once there are so many.
async fn lines(gateway: &Gateway, count: usize) -> Vec<String> {
    let path = gateway.folder().join("access.log");
    eventually(&format!("{count} lines"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
    .await
}

fn logging(upstream: &Upstream, format: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url()).server(&format!(
        "access-log = {{ format = \"{format}\", path = \"access.log\" }}"
    ))
}

#[tokio::test]
async fn a_json_line_tells_what_happened() {
    let upstream = Upstream::echo().await;
    let nobody = DeadEnd::new();
    let gateway = logging(&upstream, "json")
        .upstream("gone", &nobody.url())
        .filter("no", Guest::new().answers(403, "no").build())
        .toml("[[route]]\nname = \"good\"\npath = \"/good/*\"\nupstream = \"main\"")
        .toml("[[route]]\nname = \"refused\"\npath = \"/no\"\nupstream = \"main\"\nfilters = [\"no\"]")
        .toml("[[route]]\nname = \"gone\"\npath = \"/gone\"\nupstream = \"gone\"")
        .start()
        .await;
    let good = gateway.send(post("/good/x?y=z", "12345")).await;
    gateway.get("/no").await;
    gateway.get("/gone").await;
    gateway.get("/nothing").await;
    let lines: Vec<Value> = lines(&gateway, 4)
        .await
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let statuses: Vec<u64> = lines
        .iter()
        .map(|line| line["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 403, 502, 404]);
    let line = &lines[0];
    let text = line.to_string();
    assert_eq!(line["method"], "POST", "{text}");
    assert_eq!(line["route"], "good", "{text}");
    assert!(text.contains("/good/x"), "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
    assert!(text.contains(&upstream.address().to_string()), "{text}");
    let id = good.echo().field("x-request-id").unwrap().to_owned();
    assert!(text.contains(&id), "{text}");
    assert!(text.contains(&good.body.len().to_string()), "{text}");
    assert!(lines[1].to_string().contains("\"no\""), "{}", lines[1]);
}

#[tokio::test]
async fn a_text_line_is_in_the_combined_format() {
    let upstream = Upstream::echo().await;
    let gateway = logging(&upstream, "text")
        .route("/*", "main", &[])
        .start()
        .await;
    gateway
        .send(get_with(
            "/x?y",
            &[("user-agent", "test/1"), ("referer", "http://r.example/")],
        ))
        .await;
    let line = lines(&gateway, 1).await.remove(0);
    assert!(line.starts_with("127.0.0.1 "), "{line}");
    assert!(line.contains("\"GET /x?y HTTP/1.1\" 200 "), "{line}");
    assert!(line.contains("\"http://r.example/\" \"test/1\""), "{line}");
}

#[tokio::test]
async fn nobody_writes_lines_of_their_own() {
    let upstream = Upstream::echo().await;
    for format in ["text", "json"] {
        let gateway = logging(&upstream, format)
            .route("/*", "main", &[])
            .start()
            .await;
        let mut wire = gateway.wire().await;
        wire.send(
            b"GET /a%22?q='\\ HTTP/1.1\r\nHost: h\r\nUser-Agent: evil\" 200 \xff\xe9 \t\"{\\\r\n\
              Referer: \"\\\" - \r\n\r\n",
        )
        .await;
        assert_eq!(wire.read_message().await.status(), 200);
        let line = &lines(&gateway, 1).await[0];
        assert!(
            line.chars().all(|character| !character.is_control()),
            "{line:?}"
        );
        if format == "json" {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line:?}");
        } else {
            // Quotation marks of the client are escaped: three quoted parts, six marks.
            let bare = line.replace("\\\\", "").replace("\\\"", "");
            assert_eq!(bare.matches('"').count(), 6, "{line:?}");
        }
    }
}

#[tokio::test]
async fn standard_output_is_a_place_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::before(&upstream)
        .server("access-log = { format = \"json\", path = \"-\" }")
        .start()
        .await;
    gateway.get("/seen").await;
    eventually("a line", async || {
        let lines = gateway.stdout();
        lines
            .iter()
            .any(|line| line.contains("/seen"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_no_request_up() {
    let upstream = Upstream::echo().await;
    let setup =
        Setup::before(&upstream).server("access-log = { format = \"json\", path = \"pipe\" }");
    let pipe = setup.folder().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    // Held open for reading, and never read: after 64 KiB every write would block.
    let reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let gateway = setup.start().await;
    let mut wire = gateway.wire().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(500)).repeat(10);
    for _ in 0..1000 {
        wire.send(&long).await;
        for _ in 0..10 {
            assert_eq!(wire.read_message().await.status(), 200);
        }
    }
    eventually("lines to be dropped and counted", async || {
        let dropped = gateway
            .metric("tidegate_access_log_dropped_total", &[])
            .await;
        (dropped > 0.0).then_some(())
    })
    .await;
    drop(reader);
}
