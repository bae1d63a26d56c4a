//! What is said about a configuration that can't be used, and what can be done about it.

use std::net::TcpListener;
use std::time::Instant;

use serde_json::Value;
use tidegate_tests::certs::Authority;
use tidegate_tests::gateway::{Finished, Setup};
use tidegate_tests::guests::{Guest, no_filter, sets_header};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::patience;

/// Checks a configuration as it stands.
async fn check(text: &str) -> Finished {
    let setup = Setup::new().file("tidegate.toml", text);
    setup.run(&["check", "--config", "tidegate.toml"]).await
}

const UPSTREAM: &str = "[upstream.main]\nendpoints = [\"http://127.0.0.1:9000\"]\n";

#[tokio::test]
async fn a_good_configuration_is_said_to_be_good() {
    let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
        .filter("mark", sets_header("x-a", "b"))
        .route("/*", "main", &["mark"]);
    let checked = setup.check().await;
    assert_eq!(checked.code, Some(0), "{}", checked.said());
}

/// Each mistake by itself: the place, and words that must be said of it.
#[tokio::test]
async fn every_mistake_is_named_with_its_place_and_a_remedy() {
    for (name, text, place, words) in [
        ("no TOML", "[server\n", "tidegate.toml:1:", vec![]),
        (
            "an unknown key",
            "[server]\nlissten = []\n",
            "tidegate.toml:2:1",
            vec!["lissten", "`listen`"],
        ),
        (
            "an unknown table",
            "[severs]\n",
            "tidegate.toml:1:2",
            vec!["severs", "server"],
        ),
        (
            "a wrong type",
            "[server]\nworkers = \"two\"\n",
            "tidegate.toml:2:11",
            vec!["workers"],
        ),
        (
            "a number out of range",
            "[server]\nworkers = -1\n",
            "tidegate.toml:2:11",
            vec![],
        ),
        (
            "a time that is none",
            "[server]\ndrain-timeout = \"soon\"\n",
            "tidegate.toml:2:17",
            vec!["soon"],
        ),
        (
            "an address that is none",
            "[server]\nlisten = [\"here\"]\n",
            "tidegate.toml:2:",
            vec!["here"],
        ),
        (
            "a network that is none",
            "[server]\ntrusted-proxies = [\"10.0.0.0/99\"]\n",
            "tidegate.toml:2:",
            vec!["10.0.0.0/99"],
        ),
        (
            "a key twice",
            "[server]\nworkers = 1\nworkers = 2\n",
            "tidegate.toml:3:",
            vec!["workers"],
        ),
        (
            "an endpoint that is none",
            "[upstream.main]\nendpoints = [\"ftp://x\"]\n",
            "tidegate.toml:2:",
            vec!["ftp"],
        ),
        (
            "no endpoints",
            "[upstream.main]\nendpoints = []\n",
            "tidegate.toml:2:",
            vec!["endpoints"],
        ),
        (
            "endpoints left out",
            "[upstream.main]\nconnect-timeout = \"1s\"\n",
            "tidegate.toml:1:",
            vec!["endpoints"],
        ),
        (
            "an unset variable",
            "[server]\nvia = \"${NOT_SET_ANYWHERE}\"\n",
            "tidegate.toml:2:",
            vec!["NOT_SET_ANYWHERE"],
        ),
        (
            "a certificate that is not there",
            "[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"none.pem\"\nkey = \"none.key\"\n",
            "tidegate.toml:3:",
            vec!["none.pem"],
        ),
    ] {
        let checked = check(text).await;
        let said = checked.said();
        assert_eq!(checked.code, Some(1), "{name}: {said}");
        assert!(said.contains(place), "{name}: no {place} in\n{said}");
        for word in words {
            assert!(said.contains(word), "{name}: no {word} in\n{said}");
        }
    }
}

#[tokio::test]
async fn routes_are_held_against_what_they_name() {
    for (name, routes, place, words) in [
        (
            "an unknown upstream",
            "[[route]]\nupstream = \"mian\"\n",
            "tidegate.toml:4:",
            vec!["mian", "`main`"],
        ),
        (
            "an unknown filter",
            "[[route]]\nupstream = \"main\"\nfilters = [\"auht\"]\n",
            "tidegate.toml:5:",
            vec!["auht"],
        ),
        (
            "a method that is none",
            "[[route]]\nmethods = [\"G E T\"]\n",
            "tidegate.toml:4:",
            vec!["G E T"],
        ),
        (
            "a path without a slash",
            "[[route]]\npath = \"users\"\n",
            "tidegate.toml:4:",
            vec!["users"],
        ),
        (
            "a path with a brace left open",
            "[[route]]\npath = \"/{id\"\n",
            "tidegate.toml:4:",
            vec!["{id"],
        ),
        (
            "a path with one parameter twice",
            "[[route]]\npath = \"/{id}/{id}\"\n",
            "tidegate.toml:4:",
            vec!["id"],
        ),
        (
            "a wildcard in the middle",
            "[[route]]\npath = \"/a*b/c\"\n",
            "tidegate.toml:4:",
            vec!["*"],
        ),
        (
            "a wildcard host in the middle",
            "[[route]]\nhost = \"a.*.example\"\n",
            "tidegate.toml:4:",
            vec!["a.*.example"],
        ),
        (
            "two names alike",
            "[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"a\"\npath = \"/b\"\n",
            "tidegate.toml:7:",
            vec!["`a`"],
        ),
        (
            "two routes alike",
            "[[route]]\npath = \"/{a}\"\n[[route]]\npath = \"/{b}\"\n",
            "tidegate.toml:5:",
            vec!["told from another"],
        ),
    ] {
        let checked = check(&format!("{UPSTREAM}{routes}")).await;
        let said = checked.said();
        assert_eq!(checked.code, Some(1), "{name}: {said}");
        assert!(said.contains(place), "{name}: no {place} in\n{said}");
        for word in words {
            assert!(said.contains(word), "{name}: no {word} in\n{said}");
        }
    }
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let text = "[server]\nlissten = []\nworkers = \"two\"\n\n[upstream.main]\nendpoints = [\"http://127.0.0.1:9000\"]\n\n\
                [[route]]\nupstream = \"other\"\nfilters = [\"nothing\"]\n";
    let setup = Setup::new()
        .file("tidegate.toml", text)
        .file("plugins/junk.wasm", "junk");
    let checked = setup.run(&["check", "--config", "tidegate.toml"]).await;
    let said = checked.said();
    assert_eq!(checked.code, Some(1));
    for word in ["lissten", "workers", "other", "nothing", "junk.wasm"] {
        assert!(said.contains(word), "no {word} in\n{said}");
    }
    // The line itself is shown.
    assert!(said.contains("workers = \"two\""), "{said}");
}

#[tokio::test]
async fn a_key_in_two_places_is_an_error_that_names_both() {
    let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
        .filter("mark", sets_header("x-a", "b"))
        .file("plugins/mark.toml", "failure = \"open\"\n")
        .toml("[filter.mark]\nfailure = \"closed\"")
        .route("/*", "main", &["mark"]);
    let checked = setup.check().await;
    let said = checked.said();
    assert_eq!(checked.code, Some(1), "{said}");
    assert!(said.contains("mark.toml:1:"), "{said}");
    assert!(said.contains("tidegate.toml:"), "{said}");
}

#[tokio::test]
async fn a_filter_that_can_not_be_used_is_told_with_its_own_words() {
    let unknown = Guest::new()
        .imports("env", "launch_rockets", "(func)")
        .build();
    let wrong_type = Guest::new()
        .imports(
            "tidegate:filter/exchange@0.1.0",
            "status",
            "(func (param f64))",
        )
        .build();
    let newer = Guest::new()
        .imports(
            "tidegate:filter/exchange@0.9.0",
            "get-the-weather",
            "(func)",
        )
        .build();
    let granted = Guest::new()
        .imports(
            "tidegate:filter/http-client@0.1.0",
            "call",
            "(func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32))",
        )
        .build();
    let refusing = Guest::new().refuses("the key `color` is no color").build();
    let truncated = {
        let bytes = sets_header("x-a", "b");
        bytes[..bytes.len() / 2].to_vec()
    };
    let html = b"<!DOCTYPE html><title>404</title>".to_vec();
    let text = Guest::new().to_text().into_bytes();
    for (name, bytes, words) in [
        ("garbage", b"garbage".to_vec(), vec![]),
        ("nothing", Vec::new(), vec![]),
        ("a web page", html, vec![]),
        ("the text form", text, vec![]),
        ("half a module", truncated, vec![]),
        ("no filter", no_filter(), vec!["not a filter"]),
        ("an unknown import", unknown, vec!["env", "launch_rockets"]),
        ("an import of another type", wrong_type, vec!["status"]),
        ("a newer contract", newer, vec!["0.9.0"]),
        (
            "a capability that is not granted",
            granted,
            vec!["http", "allow"],
        ),
        (
            "a refused configuration",
            refusing,
            vec!["configure", "the key `color` is no color"],
        ),
        (
            "a trap",
            Guest::new().traps_in("configure").build(),
            vec!["configure"],
        ),
        (
            "a loop",
            Guest::new().runs_in("configure", "(loop (br 0))").build(),
            vec!["configure"],
        ),
    ] {
        let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
            .filter("bad", bytes)
            .server("filter-defaults.limits.configure-time = \"200ms\"")
            .route("/*", "main", &["bad"]);
        let checked = setup.check().await;
        let said = checked.said();
        assert_eq!(checked.code, Some(1), "{name}: {said}");
        assert!(said.contains("bad.wasm"), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: no {word} in\n{said}");
        }
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_bad_configuration_starts_nothing() {
    let setup = Setup::with_upstream("main", "http://127.0.0.1:9000").route("/*", "mian", &[]);
    let ended = setup.fail_to_start().await;
    assert_eq!(ended.code, Some(1), "{}", ended.said());
    assert!(ended.stderr.contains("tidegate.toml:"), "{}", ended.stderr);
    assert!(ended.stderr.contains("mian"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_configuration_that_is_not_there_starts_nothing() {
    let ended = Setup::new().run(&["run", "--config", "none.toml"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.said());
    assert!(ended.stderr.contains("none.toml"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for text in [
        format!("[server]\nlisten = [\"{address}\"]\nadmin = \"127.0.0.1:0\"\n"),
        format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{address}\"\n"),
    ] {
        let setup = Setup::new().file("tidegate.toml", text);
        let start = Instant::now();
        let ended = setup.run(&["run", "--config", "tidegate.toml"]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.said());
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert!(start.elapsed() < patience() / 2, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_second_proxy_does_not_share_the_first_ones_port() {
    let upstream = Upstream::echo().await;
    let first = Setup::before(&upstream).workers(2).start().await;
    let address = first.http().to_string();
    let text =
        format!("[server]\nlisten = [\"{address}\"]\nadmin = \"127.0.0.1:0\"\nworkers = 2\n");
    let setup = Setup::new().file("tidegate.toml", text);
    let ended = setup.run(&["run", "--config", "tidegate.toml"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.said());
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[tokio::test]
async fn a_certificate_that_can_not_be_used_is_named() {
    let authority = Authority::new();
    let one = authority.issue(&["localhost"]);
    let other = authority.issue(&["localhost"]);
    for (name, certificate, key) in [
        ("no certificate", "nothing", one.key.as_str()),
        ("no key", one.certificate.as_str(), "nothing"),
        (
            "a key of another",
            one.certificate.as_str(),
            other.key.as_str(),
        ),
    ] {
        let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
            .file("cert.pem", certificate)
            .file("cert.key", key)
            .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
            .route("/*", "main", &[]);
        for ended in [setup.check().await, setup.fail_to_start().await] {
            let said = ended.said();
            assert_eq!(ended.code, Some(1), "{name}: {said}");
            assert!(said.contains("cert."), "{name}: {said}");
            let secret = one.key.lines().nth(1).unwrap();
            assert!(!said.contains(secret), "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_2() {
    let setup = Setup::new();
    for arguments in [
        ["run", "--no-such-option"].as_slice(),
        &["no-such-command"],
        &["run", "--listen", "here"],
        &["inspect"],
    ] {
        let ended = setup.run(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.said());
        assert!(!ended.stderr.is_empty());
    }
}

#[tokio::test]
async fn help_and_version_are_worth_reading() {
    let setup = Setup::new();
    let help = setup.run(&["--help"]).await;
    assert_eq!(help.code, Some(0));
    for word in ["run", "check", "inspect", "schema"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    for command in ["run", "check"] {
        let help = setup.run(&[command, "--help"]).await;
        for word in ["--config", "--plugins", "--listen", "--admin", "--upstream"] {
            assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
        }
    }
    let version = setup.run(&["--version"]).await;
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.contains("0.1.0"), "{}", version.stdout);
}

#[tokio::test]
async fn the_schema_is_json_and_knows_every_key() {
    let printed = Setup::new().run(&["schema"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let schema: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert!(schema["properties"]["server"].is_object(), "{schema}");
    for key in [
        "drain-timeout",
        "trusted-proxies",
        "preserve-host",
        "idle-connections",
    ] {
        assert!(printed.stdout.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[tokio::test]
async fn inspect_tells_what_a_file_is() {
    let setup = Setup::new()
        .file("mark.wasm", sets_header("x-a", "b"))
        .file("empty.wasm", no_filter())
        .file("junk.wasm", "junk");
    let seen = setup.run(&["inspect", "mark.wasm"]).await;
    assert_eq!(seen.code, Some(0), "{}", seen.said());
    for word in ["native core", "response-head", "0.1.0", "exchange"] {
        assert!(seen.stdout.contains(word), "{word}: {}", seen.stdout);
    }
    for file in ["empty.wasm", "junk.wasm"] {
        let seen = setup.run(&["inspect", file]).await;
        assert!(
            seen.said().contains("not a filter because"),
            "{file}: {}",
            seen.said()
        );
    }
    let seen = setup.run(&["inspect", "none.wasm"]).await;
    assert_eq!(seen.code, Some(1), "{}", seen.said());
    assert!(seen.stderr.contains("none.wasm"), "{}", seen.stderr);
}

#[tokio::test]
async fn variables_of_the_environment_are_put_in() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", "http://${HOST_OF_MAIN}")
        .env("HOST_OF_MAIN", &upstream.address().to_string())
        .filter("mark", sets_header("x-a", "b"))
        .toml("[[route]]\nname = \"${NAME:-unnamed}\"\nupstream = \"main\"")
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status, 200);
    let shown = gateway.admin("/config").await.text();
    assert!(shown.contains("unnamed"), "{shown}");
}

#[tokio::test]
async fn without_a_configuration_it_works_at_once() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new()
        .filter(
            "20-second",
            Guest::new()
                .appends_request_field("x-order", "second")
                .build(),
        )
        .filter(
            "10-first",
            Guest::new()
                .appends_request_field("x-order", "first")
                .build(),
        )
        .start_with(&[
            "run",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--upstream",
            &upstream.url(),
        ])
        .await;
    let seen = gateway.get("/any/thing").await.echo();
    assert_eq!(seen.target, "/any/thing");
    assert_eq!(seen.all("x-order"), ["first", "second"]);
}

#[tokio::test]
async fn options_win_over_the_file_that_lies_there() {
    let upstream = Upstream::echo().await;
    let setup = Setup::before(&upstream).file("other/mark.wasm", sets_header("x-a", "b"));
    let text = format!(
        "{}\nfilters = [\"mark\"]\n",
        setup
            .configuration()
            .replace("127.0.0.1:0", "127.0.0.1:1")
            .trim_end()
    );
    let gateway = setup
        .file("tidegate.toml", text)
        .start_with(&[
            "run",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--plugins",
            "other",
        ])
        .await;
    assert_eq!(gateway.addresses("http").len(), 2);
    assert_eq!(gateway.get("/").await.field("x-a"), Some("b"));
}
