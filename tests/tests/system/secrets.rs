//! What must not be seen: marked secrets are put wherever secrets go in, and looked for wherever anything comes out.

use tidegate_tests::certs::Authority;
use tidegate_tests::client::{get_with, with};
use tidegate_tests::gateway::Setup;
use tidegate_tests::guests::Guest;
use tidegate_tests::upstream::{DeadEnd, Upstream};
use tidegate_tests::wait::until;

/// Secrets of the operator.
const OPERATORS: [(&str, &str); 3] = [
    ("FROM_ENVIRONMENT", "marked-environment-7f3a"),
    ("IN_A_URL", "marked-endpoint-91bc"),
    ("NOT_USED_AT_ALL", "marked-unused-55aa"),
];
/// Secrets of clients, by field.
const CLIENTS: [(&str, &str); 4] = [
    ("authorization", "Bearer marked-bearer-2c4e"),
    ("cookie", "session=marked-cookie-8d1f"),
    ("x-api-key", "marked-key-6b7a"),
    ("proxy-authorization", "Basic marked-proxy-aa01"),
];

#[tokio::test]
async fn no_secret_comes_out_anywhere() {
    let upstream = Upstream::echo().await;
    let nobody = DeadEnd::new();
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let mut setup = Setup::with_upstream("main", &upstream.url())
        .upstream("gone", &nobody.url())
        .server("access-log = { format = \"json\", path = \"access.log\" }")
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key)
        .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
        .filter("plain", Guest::new().build())
        .filter("traps", Guest::new().traps_in("request-head").build())
        .toml(
            "[filter.plain.config]\ncolour = \"${FROM_ENVIRONMENT}\"\npassword = \"marked-written-3e9d\"\n\
             list = [\"a\", \"${FROM_ENVIRONMENT}\"]",
        )
        .toml("[[route]]\nname = \"all\"\npath = \"/*\"\nupstream = \"main\"\nfilters = [\"plain\"]\nheaders = {}")
        .toml("[[route]]\nname = \"gone\"\npath = \"/gone\"\nupstream = \"gone\"")
        .toml("[[route]]\nname = \"traps\"\npath = \"/traps\"\nupstream = \"main\"\nfilters = [\"traps\"]")
        .toml(
            "[[route]]\nname = \"matched\"\npath = \"/matched\"\nupstream = \"main\"\n\
             headers = { authorization = \"Bearer marked-route-c0de\" }",
        )
        // Everything that can be said is said.
        .env("RUST_LOG", "trace");
    for (name, value) in OPERATORS {
        setup = setup.env(name, value);
    }
    let checked = setup.check().await;
    // The environment is taken away from commands that the harness runs, but for what the test gives.
    let gateway = setup.start().await;
    let mut answers = String::new();
    for path in ["/", "/gone", "/traps", "/matched", "/..%2f", "/%00"] {
        let reply = gateway.send(get_with(path, &CLIENTS)).await;
        if reply.status != 200 {
            answers += &reply.text();
        }
        let mut http2 = gateway.http2().await;
        let mut request = with(tidegate_tests::client::get(path), &CLIENTS);
        *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
        if let Ok(reply) = http2.try_send(request).await
            && reply.status != 200
        {
            answers += &reply.text();
        }
    }
    let mut wire = gateway.wire().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: marked-broken-4455\r\nBad Field: x\r\n\r\n",
    )
    .await;
    answers += &wire.rest().await;
    // A configuration that is refused is told of, but not with what stood in it.
    let file = gateway.folder().join("tidegate.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = good.replace(
        &format!("endpoints = [\"{}\"]", upstream.url()),
        "endpoints = [\"ftp://user:${IN_A_URL}@host\"]",
    );
    assert_ne!(good, bad);
    std::fs::write(&file, bad).unwrap();
    until("the refusal", async || {
        gateway.metric("tidegate_configuration_up", &[]).await == 0.0
    })
    .await;
    let mut shown = checked.said() + &answers;
    for page in ["/", "/livez", "/readyz", "/metrics", "/plugins", "/config"] {
        shown += &gateway.admin(page).await.text();
    }
    for line in gateway.log() {
        shown += &line.text;
        shown.push('\n');
    }
    for line in gateway.stdout() {
        shown += &line;
    }
    until("the access log", async || {
        let log = std::fs::read_to_string(gateway.folder().join("access.log"));
        log.is_ok_and(|log| log.lines().count() >= 10)
    })
    .await;
    shown += &std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    let found = shown
        .lines()
        .filter(|line| line.contains("marked-"))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "{}", found.join("\n"));
    // Of the private key, no line and no part of one.
    let key: String = identity
        .key
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    for start in (0..key.len() - 24).step_by(8) {
        let part = &key[start..start + 24];
        assert!(!shown.contains(part), "a part of the private key: {part}");
    }
    // The answers say nothing of what answered, either.
    for internal in [
        "tidegate/",
        "0.1.0",
        &nobody.url()["http://".len()..],
        "plugins/",
        "wasm",
        "panicked",
    ] {
        assert!(!answers.contains(internal), "{internal}: {answers}");
    }
}
