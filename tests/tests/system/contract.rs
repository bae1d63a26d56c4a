//! The native contract from end to end, for both of its carriers and both ways of running a guest: the same guest,
//! told by a field of the request what to do (tests/guests/README.md), must be told the same by the host.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use http::{Method, Response, StatusCode};
use tidegate_tests::certs::Authority;
use tidegate_tests::client::{Client, Reply, full, get_with, pieces, post, request, with};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, guest};
use tidegate_tests::upstream::{DeadEnd, Echo, Scripted, Upstream};
use tidegate_tests::wait::until;
use tidegate_tests::wire::Message;
use tokio::sync::Semaphore;

/// One form of the guest.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// `rust-probe` can make calls and may have to wait; `sync-probe` is the same without them.
    guest: &'static str,
    carrier: Carrier,
}

impl Probe {
    /// The guest as the filter `probe` on everything before `main`.
    fn before(self, upstream: &Upstream) -> Setup {
        self.configured(upstream, "")
    }

    /// The same with this inside of its configuration.
    fn configured(self, upstream: &Upstream, config: &str) -> Setup {
        self.with(&upstream.url(), config, "\"main\"")
    }

    /// The same with these upstreams granted.
    fn with(self, url: &str, config: &str, http: &str) -> Setup {
        Setup::with_upstream("main", url)
            .filter("probe", guest(self.guest, self.carrier))
            .toml(&format!(
                "[filter.probe]\nconfig = {{ {config} }}\n\
                 allow = {{ http = [{http}], store = [\"space\"], env = [\"GRANTED\", \"UNSET\"] }}"
            ))
            .toml("[[route]]\nname = \"all\"\npath = \"/*\"\nupstream = \"main\"\nfilters = [\"probe\"]")
    }
}

/// Makes a test of each form of the guest.
macro_rules! conformance {
    ($(#[$meta:meta])* async fn $name:ident($probe:ident: Probe) $body:block) => {
        conformance!(@ [
            core_that_may_wait: "rust-probe" Core,
            component_that_may_wait: "rust-probe" Component,
            core: "sync-probe" Core,
            component: "sync-probe" Component,
        ] $(#[$meta])* $name $probe $body);
    };
    (may wait: $(#[$meta:meta])* async fn $name:ident($probe:ident: Probe) $body:block) => {
        conformance!(@ [
            core: "rust-probe" Core,
            component: "rust-probe" Component,
        ] $(#[$meta])* $name $probe $body);
    };
    (@ [$($form:ident: $guest:literal $carrier:ident,)*] $(#[$meta:meta])* $name:ident $probe:ident $body:block) => {
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn holds($probe: Probe) $body

            $(
                #[tokio::test]
                async fn $form() {
                    holds(Probe { guest: $guest, carrier: Carrier::$carrier }).await;
                }
            )*
        }
    };
}

/// A GET that carries commands.
fn told(commands: &str) -> http::Request<tidegate_tests::client::Body> {
    get_with("/path", &[("x-probe", commands)])
}

/// What the commands gave that ran before the response's head left.
fn results(reply: &Reply) -> Vec<&str> {
    let lines = reply.all("x-probe").into_iter();
    lines
        .map(|line| line.split_once(" => ").unwrap().1)
        .collect()
}

/// Sends commands on a GET and holds what they gave against what is expected.
async fn gives(gateway: &Gateway, commands: &[(&str, &str)]) {
    let text: Vec<&str> = commands.iter().map(|(command, _)| *command).collect();
    let reply = gateway.send(told(&text.join("; "))).await;
    let expected: Vec<String> = commands
        .iter()
        .map(|(command, result)| format!("{} => {result}", command.replace('~', " ")))
        .collect();
    assert_eq!(reply.all("x-probe"), expected, "{reply:?}");
}

// --- Fields ---

conformance! {
    async fn fields_are_read_one_by_one_or_all(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let mut sent = told(
            "request-head get x-a; request-head get X-A; request-head get none; request-head get-all x-a; \
             request-head at 9999; response-head get x-upstream; response-head get content-type",
        );
        for value in ["one", "two"] {
            sent.headers_mut().append("x-a", value.parse().unwrap());
        }
        let reply = gateway.send(sent).await;
        assert_eq!(
            results(&reply),
            ["\"one\"", "\"one\"", "none", "\"one\" \"two\"", "none", "\"echo\"", "\"application/json\""]
        );
        let reply = gateway.send(told("request-head all; request-head fields; request-head at 0")).await;
        let lines = results(&reply);
        assert!(lines[0].contains("x-probe=\"request-head all;"), "{lines:?}");
        assert_eq!(lines[1].parse::<usize>().unwrap(), lines[0].matches("=\"").count(), "{lines:?}");
        assert!(lines[0].starts_with(lines[2]), "{lines:?}");
    }
}

conformance! {
    async fn fields_are_set_appended_and_removed(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let sent = with(
            told(
                "request-head set x-new 1; request-head append x-new 2; request-head set X-Old new; \
                 request-head remove x-gone; request-head remove x-never; \
                 response-head set x-out 1; response-head append x-out 2; response-head remove x-upstream",
            ),
            &[("x-old", "a"), ("x-old", "b"), ("x-gone", "a"), ("x-gone", "b")],
        );
        let reply = gateway.send(sent).await;
        assert_eq!(results(&reply), ["ok", "ok", "ok", "ok 2", "ok 0", "ok", "ok", "ok 1"]);
        let seen = reply.echo();
        assert_eq!(seen.all("x-new"), ["1", "2"]);
        assert_eq!(seen.all("x-old"), ["new"]);
        assert_eq!(seen.field("x-gone"), None);
        assert_eq!(reply.all("x-out"), ["1", "2"]);
        assert_eq!(reply.field("x-upstream"), None);
    }
}

conformance! {
    async fn a_change_that_is_refused_has_a_reason_and_no_effect(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        gives(&gateway, &[
            ("request-head set bad~name 1", "InvalidName"),
            ("request-head set content-length 5", "Forbidden"),
            ("request-head set transfer-encoding chunked", "Forbidden"),
            ("request-head set host evil", "Forbidden"),
            ("request-head set connection x", "Forbidden"),
            ("request-head remove content-length", "Forbidden"),
            ("request-head append upgrade x", "Forbidden"),
            ("request-head set-method G~T", "InvalidName"),
            ("request-head set-path relative", "InvalidName"),
            ("request-head set-path /a%00", "InvalidName"),
            ("request-head set-authority u@h", "InvalidName"),
            ("response-head set-status 99", "InvalidName"),
            ("response-head set-status 600", "InvalidName"),
        ]).await;
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/path"));
        assert_eq!(seen.host(), Some("localhost"));
    }
}

conformance! {
    async fn a_head_does_not_grow_without_bound(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        // The commands stand in the head too, so that a value would be there twice.
        let long = "a".repeat(20_000);
        let reply = gateway.send(told(&format!(
            "request-head set x-a {long}; request-head set x-b {long}; request-head set x-c {long}; request-head set x-d 1"
        ))).await;
        assert_eq!(results(&reply), ["TooLarge", "TooLarge", "TooLarge", "ok"]);
        let seen = reply.echo();
        assert_eq!((seen.field("x-a"), seen.field("x-d")), (None, Some("1")));
    }
}

// --- The request's line and the facts around it ---

conformance! {
    async fn the_request_line_is_changed(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let reply = gateway.send(told(
            "request-head set-method PUT; request-head set-path /a/../b/%7Ec; request-head path; \
             request-head set-query x=1&y; request-head query; request-head set-authority other.example:8080; \
             request-head authority; request-head method",
        )).await;
        assert_eq!(results(&reply), [
            "ok", "ok", "/b/~c", "ok", "x=1&y", "ok", "other.example:8080", "PUT",
        ]);
        let seen = reply.echo();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/b/~c?x=1&y"));
        assert_eq!(seen.host(), Some("other.example:8080"));

        let sent = get_with("/path?gone", &[("x-probe", "request-head query; request-head set-query; request-head query")]);
        let reply = gateway.send(sent).await;
        assert_eq!(results(&reply), ["gone", "ok", "none"]);
        assert_eq!(reply.echo().target, "/path");
    }
}

conformance! {
    async fn facts_are_told(probe: Probe) {
        let authority = Authority::new();
        let identity = authority.issue(&["localhost"]);
        let upstream = Upstream::echo().await;
        let gateway = probe
            .before(&upstream)
            .file("cert.pem", &identity.certificate)
            .file("cert.key", &identity.key)
            .toml("[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"")
            .toml("[[route]]\nname = \"user\"\npath = \"/users/{id}/*\"\nupstream = \"main\"\nfilters = [\"probe\"]")
            .start()
            .await;
        let facts = "request-head method; request-head scheme; request-head authority; request-head path; \
                     request-head query; request-head client; request-head protocol; request-head route; \
                     request-head parameter id; request-head parameter *; request-head parameter none; \
                     request-head tls; request-head end; response-head status; response-head path";
        let sent = || get_with("/users/a%20b/x/y?q=1", &[("x-probe", facts), ("host", "h.example")]);
        let reply = gateway.send(sent()).await;
        assert_eq!(results(&reply), [
            "GET", "http", "h.example", "/users/a%20b/x/y", "q=1", "127.0.0.1", "HTTP/1.1", "user",
            "\"a b\"", "\"x/y\"", "none", "none", "true", "200", "/users/a%20b/x/y",
        ]);
        let config = authority.client_of(&[&rustls::version::TLS13], &["h2"]);
        let mut client = Client::tls(gateway.https(), "localhost", config).await.unwrap();
        let reply = client.send(sent()).await;
        let results = results(&reply);
        assert_eq!((results[1], results[6]), ("https", "HTTP/2"));
        let tls: Vec<&str> = results[11].split(' ').collect();
        assert_eq!((tls[0], tls[2], tls[3]), ("TLSv1.3", "localhost", "h2"), "{tls:?}");
        assert!(tls[1].starts_with("TLS"), "{tls:?}");
        let id = gateway.send(told("request-head request-id")).await;
        assert_eq!(Some(self::results(&id)[0]), id.echo().field("x-request-id"));
    }
}

conformance! {
    async fn a_trusted_proxys_client_is_the_client(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe
            .before(&upstream)
            .server("trusted-proxies = [\"127.0.0.0/8\"]")
            .start()
            .await;
        let sent = with(
            told("request-head client; request-head scheme; request-head request-id"),
            &[
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
                ("x-forwarded-proto", "https"),
                ("x-request-id", "from-the-edge"),
            ],
        );
        let reply = gateway.send(sent).await;
        assert_eq!(results(&reply), ["203.0.113.9", "https", "from-the-edge"]);
    }
}

conformance! {
    async fn properties_are_left_for_the_next_filter(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe
            .before(&upstream)
            .toml("[filter.second]\nuse = \"probe\"\nallow = { http = [\"main\"], store = [\"space\"], env = [\"GRANTED\"] }")
            .toml("[[route]]\npath = \"/two\"\nupstream = \"main\"\nfilters = [\"probe\", \"second\"]")
            .start()
            .await;
        let commands = "request-head property who; request-head set-property who ada; response-head property who";
        let reply = gateway.send(get_with("/two", &[("x-probe", commands)])).await;
        // The response passes the second one first.
        assert_eq!(results(&reply), ["\"ada\"", "ok", "\"ada\"", "none", "ok", "\"ada\""]);
    }
}

// --- Answers ---

conformance! {
    async fn a_filter_answers_in_every_head_phase(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        for (phase, requests) in [("request-head", 0), ("response-head", 1)] {
            for mut client in [gateway.http1().await, gateway.http2().await] {
                let before = upstream.requests();
                let reply = client.send(told(&format!("{phase} answer 418 short~and~stout x-why tea"))).await;
                assert_eq!(reply.status, StatusCode::IM_A_TEAPOT, "{phase}");
                assert_eq!(reply.text(), "short and stout");
                assert_eq!(reply.field("content-length"), Some("15"));
                assert_eq!(reply.field("x-why"), Some("tea"));
                assert_eq!(reply.field("x-upstream"), None);
                assert_eq!(upstream.requests() - before, requests, "{phase}");
            }
        }
        // To a HEAD there is a length and no body.
        let sent = with(
            request(Method::HEAD, "/").body(full("")).unwrap(),
            &[("x-probe", "request-head answer 403 four")],
        );
        let reply = gateway.send(sent).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::FORBIDDEN, 0));
        assert_eq!(reply.field("content-length"), Some("4"));
    }
}

conformance! {
    async fn an_answer_that_can_not_be_given_is_refused(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        gives(&gateway, &[
            ("request-head give 99 x-a b", "InvalidName"),
            ("request-head give 200 bad~name b", "InvalidName"),
            ("request-head give 200 x-a b", "ok"),
        ]).await;
        let reply = gateway.send(told("request-head answer-nothing")).await;
        assert!(reply.status.is_server_error(), "{reply:?}");
    }
}

// --- Bodies ---

conformance! {
    async fn a_body_streams_through_and_is_changed(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        for mut client in [gateway.http1().await, gateway.http2().await] {
            let sent = with(post("/", "some text"), &[("x-probe", "request-body upper; request-body add !; response-body upper")]);
            let reply = client.send(sent).await;
            assert!(reply.text().contains("\"BODY\":\"SOME TEXT!"), "{reply:?}");
            assert!(!reply.text().contains("content-length"), "{reply:?}");
        }
        let sent = with(post("/", "gone"), &[("x-probe", "request-body replace; response-body replace short")]);
        let reply = gateway.send(sent).await;
        assert!(reply.text().starts_with("short"), "{reply:?}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.body.as_str(), seen.whole), ("", true));
    }
}

conformance! {
    async fn pieces_are_given_as_they_come(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let sent = request(Method::POST, "/")
            .header("x-probe", "request-body length; request-body read 1 2; request-body read 99 5; request-body get x-probe-none")
            .body(pieces(&["abcdef"], &[]))
            .unwrap();
        gateway.send(sent).await;
        gateway.logged(&["request-body length => 6"]).await;
        gateway.logged(&["request-body read 1 2 => ", "bc"]).await;
        gateway.logged(&["request-body read 99 5 => "]).await;
        // The head has left: it is too late to change it.
        let sent = with(post("/", "abc"), &[("x-probe", "request-body set x-late 1; request-body set-path /late")]);
        let seen = gateway.send(sent).await.echo();
        assert_eq!(seen.field("x-late"), None);
        assert_eq!(seen.target, "/");
        gateway.logged(&["request-body set x-late 1 => TooLate"]).await;
        gateway.logged(&["request-body set-path /late => TooLate"]).await;
    }
}

conformance! {
    async fn a_whole_body_decides_on_the_head(probe: Probe) {
        let upstream = Upstream::echo().await;
        for config in ["request-body = \"whole\"", "request-body = \"on-hold\""] {
            let gateway = probe.configured(&upstream, config).start().await;
            let hold = if config.contains("hold") { "request-head hold; " } else { "" };
            for mut client in [gateway.http1().await, gateway.http2().await] {
                let before = upstream.requests();
                let commands = format!("{hold}request-body length; request-body answer 403 bad~words");
                let sent = request(Method::POST, "/")
                    .header("x-probe", commands)
                    .body(pieces(&["some ", "bad ", "words"], &[]))
                    .unwrap();
                let reply = client.send(sent).await;
                assert_eq!(reply.status, StatusCode::FORBIDDEN, "{config}");
                assert_eq!(reply.text(), "bad words");
                assert_eq!(upstream.requests(), before, "the head had left");
                gateway.logged(&["request-body length => 14 true"]).await;

                let commands = format!("{hold}request-body upper; request-body set x-checked yes; request-body set-path /checked");
                let sent = request(Method::POST, "/")
                    .header("x-probe", commands)
                    .header("trailer", "x-sum")
                    .body(pieces(&["a", "b", "c"], &[("x-sum", "1")]))
                    .unwrap();
                let seen = client.send(sent).await.echo();
                assert_eq!(seen.body, "ABC");
                assert_eq!(seen.field("x-checked"), Some("yes"));
                assert_eq!(seen.target, "/checked");
                assert_eq!(seen.trailer("x-sum"), Some("1"));
            }
        }
    }
}

conformance! {
    async fn a_whole_body_has_its_length_made_right(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.configured(&upstream, "request-body = \"whole\", response-body = \"whole\"").start().await;
        let sent = with(post("/", "abc"), &[("x-probe", "request-body add defg; response-body replace tiny")]);
        let reply = gateway.send(sent).await;
        assert_eq!(reply.field("content-length"), Some("4"));
        assert_eq!(reply.text(), "tiny");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.body, "abcdefg");
        assert_eq!(seen.all("content-length"), ["7"]);
        let sent = with(post("/", "abc"), &[("x-probe", "request-body replace; response-body replace")]);
        let reply = gateway.send(sent).await;
        assert_eq!(reply.field("content-length"), Some("0"));
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.body.as_str(), seen.whole), ("", true));
        assert_ne!(seen.field("content-length"), Some("3"));
    }
}

conformance! {
    async fn a_whole_response_can_still_be_another_one(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.configured(&upstream, "response-body = \"whole\"").start().await;
        for mut client in [gateway.http1().await, gateway.http2().await] {
            let sent = told("response-body set-status 203; response-body set x-judged yes; response-body status");
            let reply = client.send(sent).await;
            assert_eq!(reply.status.as_u16(), 203);
            assert_eq!(reply.field("x-judged"), Some("yes"));
            let reply = client.send(told("response-body answer 502 leaked")).await;
            assert_eq!((reply.status, reply.text().as_str()), (StatusCode::BAD_GATEWAY, "leaked"));
            assert_eq!(reply.field("x-upstream"), None);
        }
    }
}

conformance! {
    async fn a_body_over_the_bound_is_413_or_502(probe: Probe) {
        let upstream = Upstream::serve(async |seen: Echo| {
            Response::new(full(vec![b'x'; if seen.target == "/large" { 2000 } else { 10 }]))
        })
        .await;
        let gateway = probe
            .configured(&upstream, "request-body = \"whole\", response-body = \"whole\", limit = 1000")
            .start()
            .await;
        for mut client in [gateway.http1().await, gateway.http2().await] {
            let before = upstream.requests();
            assert_eq!(client.send(post("/", vec![b'x'; 1000])).await.status, StatusCode::OK);
            let over = request(Method::POST, "/").body(pieces(&["x".repeat(600).as_str(), "x".repeat(600).as_str()], &[])).unwrap();
            assert_eq!(client.send(over).await.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(upstream.requests() - before, 1);
        }
        let reply = gateway.send(post("/", vec![b'x'; 1001])).await;
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        let reply = gateway.get("/large").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    }
}

conformance! {
    async fn a_body_that_nobody_holds_is_not_touched(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe
            .configured(&upstream, "request-body = \"on-hold\", response-body = \"on-hold\"")
            .start()
            .await;
        let sent = with(post("/", "abc"), &[("x-probe", "request-body upper; response-body upper")]);
        let reply = gateway.send(sent).await;
        let seen = reply.echo();
        assert_eq!(seen.body, "abc");
        assert_eq!(seen.all("content-length"), ["3"]);
        assert!(reply.field("content-length").is_some());
    }
}

conformance! {
    async fn trailers_are_read_and_changed(probe: Probe) {
        let upstream = Upstream::serve(async |seen: Echo| {
            let text = serde_json::to_string(&seen).unwrap();
            Response::builder()
                .header("trailer", "x-check")
                .body(pieces(&[text.as_str()], &[("x-check", "abc")]))
                .unwrap()
        })
        .await;
        // Over HTTP/1.1 only those trailers are sent that were announced.
        let gateway = probe.with(&upstream.h2c(), "", "\"main\"").start().await;
        for mut client in [gateway.http1().await, gateway.http2().await] {
            let sent = request(Method::POST, "/")
                .header("te", "trailers")
                .header("trailer", "x-sum")
                .header(
                    "x-probe",
                    "request-trailers get x-sum; request-trailers set x-sum 2; request-trailers append x-more 3; \
                     response-trailers get x-check; response-trailers set x-check def; response-trailers set content-length 1",
                )
                .body(pieces(&["a"], &[("x-sum", "1")]))
                .unwrap();
            let reply = client.send(sent).await;
            let trailers = reply.trailers.clone().expect("trailers");
            assert_eq!(trailers["x-check"], "def");
            let seen = reply.echo();
            assert_eq!(seen.trailer("x-sum"), Some("2"));
            assert_eq!(seen.trailer("x-more"), Some("3"));
        }
        gateway.logged(&["response-trailers set content-length 1 => Forbidden"]).await;
    }
}

// --- The end ---

conformance! {
    async fn log_runs_once_for_every_exchange(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let logged = |mark: &str| {
            let lines = gateway.log();
            lines.iter().filter(|line| line.text.contains(&format!("log property {mark} => "))).count()
        };
        gateway.send(told("log property whole; log status; log get x-upstream")).await;
        until("the log phase", async || logged("whole") == 1).await;
        gateway.logged(&["log status => 200"]).await;
        gateway.send(told("request-head answer 403 no; log property answered; log status")).await;
        until("the log phase", async || logged("answered") == 1).await;
        gateway.logged(&["log status => 403"]).await;
        // A client that goes away before its request is whole.
        let mut wire = gateway.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nX-Probe: log property left\r\n\r\nhalf").await;
        until("the request to be under way", async || gateway.metric("tidegate_filter_calls_total", &[]).await > 5.0).await;
        wire.reset();
        until("the log phase", async || logged("left") == 1).await;
        assert_eq!((logged("whole"), logged("answered"), logged("left")), (1, 1, 1));
    }
}

// --- Services ---

conformance! {
    async fn the_store_keeps_swaps_and_counts(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).workers(2).start().await;
        gives(&gateway, &[
            ("request-head store-get space k", "none"),
            ("request-head store-set space k v1 0", "ok"),
            ("request-head store-get space k", "\"v1\""),
            ("request-head store-swap space k wrong v2 0", "ok false"),
            ("request-head store-swap space k v1 v2 0", "ok true"),
            ("request-head store-get space k", "\"v2\""),
            ("request-head store-increment space k 1 0", "NotANumber"),
            ("request-head store-delete space k", "ok true"),
            ("request-head store-delete space k", "ok false"),
            ("request-head store-swap space k none v3 0", "ok true"),
            ("request-head store-swap space k none v4 0", "ok false"),
            ("request-head store-increment space n 5 0", "ok 5"),
            ("request-head store-increment space n -7 0", "ok -2"),
            ("request-head store-get other k", "NotGranted"),
            ("request-head store-set other k v 0", "NotGranted"),
        ]).await;
        // Other exchanges, on whichever worker, see it; a short life ends.
        for _ in 0..10 {
            gives(&gateway, &[("request-head store-get space k", "\"v3\"")]).await;
        }
        gives(&gateway, &[("request-head store-set space brief v 50", "ok")]).await;
        until("the value to expire", async || {
            results(&gateway.send(told("request-head store-get space brief")).await) == ["none"]
        }).await;
    }
}

conformance! {
    async fn counting_is_exact_across_workers(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).workers(2).start().await;
        // Ten clients with a connection each, so that both workers have some.
        let asks = (0..10).map(|_| async {
            let mut client = gateway.http1().await;
            let mut allowed = 0;
            for _ in 0..20 {
                let reply = client.send(told("request-head take key 1 0.001 50; request-head store-increment space n 1 0")).await;
                allowed += usize::from(results(&reply)[0].starts_with("true"));
            }
            allowed
        });
        let allowed: usize = join_all(asks).await.into_iter().sum();
        assert_eq!(allowed, 50);
        gives(&gateway, &[("request-head store-increment space n 0 0", "ok 200")]).await;
    }
}

conformance! {
    async fn the_limiter_takes_tokens(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        gives(&gateway, &[
            ("request-head take a 1 0.001 3", "true 2"),
            ("request-head take a 2 0.001 3", "true 0"),
            ("request-head take a 1 0.001 3", "false 0"),
            ("request-head take b 1 0.001 3", "true 2"),
            ("request-head take c 4 0.001 3", "false 3"),
            ("request-head take d 1 0 3", "false 0"),
            ("request-head take e 1 1 0", "false 0"),
        ]).await;
        // It fills up again.
        gives(&gateway, &[("request-head take f 1 20 1", "true 0")]).await;
        until("a token", async || {
            results(&gateway.send(told("request-head take f 1 20 1")).await)[0].starts_with("true")
        }).await;
    }
}

conformance! {
    async fn buckets_are_taken_from_looked_at_and_charged(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        for place in ["local", "shared"] {
            let commands = [
                ("try-take {} a 1 3/1/86400000", "true 2"),
                ("peek {} a 2 3/1/86400000", "true 0"),
                ("peek {} a 3 3/1/86400000", "false 2"),
                ("try-take {} a 3 3/1/86400000", "false 2"),
                ("charge {} a 10 3/1/86400000", "false 0"),
                ("charge {} a -8 3/1/86400000", "true 0"),
                ("charge {} a -100 3/1/86400000", "true 3"),
                ("try-take {} a 4 3/1/86400000", "false 3"),
                // A quota that ends in some centuries, and one that has ended.
                ("try-take {} q 4 5@9000000000000", "true 1"),
                ("try-take {} q 2 5@9000000000000", "false 1"),
                ("try-take {} p 5 5@1", "true 0"),
                ("try-take {} p 5 5@1", "true 0"),
                ("try-take {} a 1 0/1/1", "Invalid"),
                ("try-take {} a 1 1/1/0", "Invalid"),
                ("take-all {} x 1 2/1/86400000 y 1 1/1/86400000", "true 1, true 0"),
                ("take-all {} x 1 2/1/86400000 y 1 1/1/86400000", "true 1, false 0"),
                ("peek {} x 1 2/1/86400000", "true 0"),
            ];
            let commands: Vec<_> = commands
                .iter()
                .map(|(command, result)| (format!("request-head {}", command.replace("{}", place)), *result))
                .collect();
            let commands: Vec<_> = commands.iter().map(|(command, result)| (command.as_str(), *result)).collect();
            gives(&gateway, &commands).await;
        }
    }
}

conformance! {
    async fn several_workers_take_from_one_bucket_exactly(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).workers(2).start().await;
        let asks = (0..10).map(|_| async {
            let mut client = gateway.http1().await;
            let mut allowed = 0;
            for _ in 0..20 {
                let commands = "request-head take-all shared key 1 50/1/86400000 other 2 1000/1/86400000";
                let reply = client.send(told(commands)).await;
                allowed += usize::from(results(&reply)[0].starts_with("true"));
            }
            allowed
        });
        let allowed: usize = join_all(asks).await.into_iter().sum();
        assert_eq!(allowed, 50);
        gives(&gateway, &[("request-head peek shared other 0 1000/1/86400000", "true 900")]).await;
    }
}

conformance! {
    async fn requests_are_in_flight_until_they_end_in_whatever_way(probe: Probe) {
        let release = Arc::new(Semaphore::new(0));
        let arrived = Arc::new(AtomicUsize::new(0));
        let shared = (Arc::clone(&release), Arc::clone(&arrived));
        let slow = Upstream::serve(move |request| {
            let (release, arrived) = shared.clone();
            async move {
                if request.field("x-slow").is_some() {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    release.acquire().await.unwrap().forget();
                }
                Response::new(full("at last"))
            }
        })
        .await;
        let gateway = probe.with(&slow.url(), "", "\"main\"").workers(2).start().await;
        let twice = "request-head enter local k 2; request-head enter local k 2; request-head set x-slow 1";
        let once = "request-head enter local k 2";
        // One waits for its answer, and so does another, whose client leaves.
        let mut first = gateway.http1().await;
        let first = tokio::spawn(async move { first.send(told(twice)).await });
        until("the first", async || arrived.load(Ordering::SeqCst) == 1).await;
        let mut leaves = gateway.wire().await;
        leaves.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-probe: {twice}\r\n\r\n")).await;
        until("the second", async || arrived.load(Ordering::SeqCst) == 2).await;
        gives(&gateway, &[
            ("request-head enter local k 2", "false 2"),
            ("request-head enter shared k 1", "true 1"),
            ("request-head enter local other 1", "true 1"),
            ("response-head enter local k 2", "NotNow"),
        ]).await;
        leaves.reset();
        until("its place", async || results(&gateway.send(told(once)).await)[0] == "true 2").await;
        release.add_permits(2);
        let reply = first.await.unwrap();
        assert_eq!(results(&reply)[..2], ["true 1", "true 1"]);
        until("all places", async || results(&gateway.send(told(once)).await)[0] == "true 1").await;
        // A filter that fails takes no place with it. (It may take what its instance noted of exchanges that wait, so
        // that none may wait here.)
        let trapped = gateway.send(told("request-head enter local k 9; request-head trap")).await;
        assert!(trapped.status.is_server_error());
        until("no place kept", async || results(&gateway.send(told(once)).await)[0] == "true 1").await;
    }
}

conformance! {
    async fn a_request_that_is_delayed_waits_and_others_do_not(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).workers(1).start().await;
        let began = std::time::Instant::now();
        let delayed = gateway.send(told(
            "request-head delay 60001; request-head delay 400; response-head elapsed; response-head delay 1"
        ));
        let others = async {
            let mut client = gateway.http1().await;
            for _ in 0..10 {
                client.send(told("request-head method")).await;
            }
            began.elapsed()
        };
        let (reply, others) = futures_util::future::join(delayed, others).await;
        let results = results(&reply);
        assert_eq!((results[0], results[1]), ("TooLarge", "ok"));
        assert!(results[2].parse::<u64>().unwrap() >= 400_000_000, "{results:?}");
        assert!(began.elapsed() >= std::time::Duration::from_millis(400));
        assert!(others < began.elapsed(), "{others:?}");
        // An answer waits too, and what comes after a body.
        let began = std::time::Instant::now();
        let reply = gateway.send(told("request-head delay 200; request-head answer 401")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert!(began.elapsed() >= std::time::Duration::from_millis(200));
    }
}

conformance! {
    async fn only_granted_variables_are_read(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe
            .before(&upstream)
            .env("GRANTED", "yes")
            .env("SECRET", "no")
            .start()
            .await;
        gives(&gateway, &[
            ("request-head env GRANTED", "\"yes\""),
            ("request-head env UNSET", "none"),
            ("request-head env SECRET", "none"),
            ("request-head env PATH", "none"),
        ]).await;
    }
}

conformance! {
    async fn time_and_chance_are_there(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).start().await;
        let reply = gateway.send(told(
            "request-head monotonic; request-head monotonic; request-head wall; request-head random 16; \
             request-head random 9999; request-head random-number",
        )).await;
        let results = results(&reply);
        let number = |index: usize| results[index].parse::<u128>().unwrap();
        assert!(number(0) <= number(1));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(now.as_nanos().abs_diff(number(2)) < 60_000_000_000, "{results:?}");
        assert_eq!(results[3..], ["16", "4096", "true"]);
    }
}

conformance! {
    async fn lines_and_figures_are_shown(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe.before(&upstream).workers(2).start().await;
        gateway.send(told("request-head log warn careful~now; request-head log debug unheard")).await;
        let line = gateway.logged(&["careful now"]).await;
        assert_eq!(line.field("level"), Some("WARN"));
        assert_eq!(line.field("filter"), Some("probe"), "{line:?}");
        assert!(line.field("request_id").is_some() || line.text.contains("request"), "{line:?}");
        assert!(!gateway.log().iter().any(|line| line.says("unheard")));

        for _ in 0..4 {
            gateway.send(told("request-head count 5; request-head gauge 2.5; request-head observe 7; request-head define late")).await;
        }
        let metric = async |name: &str, labels: &[(&str, &str)]| gateway.metric(name, labels).await;
        until("the counter", async || {
            (metric("tidegate_filter_probe_count", &[("filter", "probe"), ("kind", "probe")]).await - 20.0).abs() < 0.1
        }).await;
        assert!((metric("tidegate_filter_probe_gauge", &[("filter", "probe")]).await - 2.5).abs() < 0.1);
        assert!((metric("tidegate_filter_probe_size_count", &[]).await - 4.0).abs() < 0.1);
        assert!((metric("tidegate_filter_probe_size_bucket", &[("le", "1")]).await).abs() < 0.1);
        assert!((metric("tidegate_filter_probe_size_bucket", &[("le", "10")]).await - 4.0).abs() < 0.1);
    }
}

// --- Calls ---

conformance! {
    may wait:
    async fn a_call_gets_its_answer(probe: Probe) {
        let upstream = Upstream::echo().await;
        let other = Upstream::serve(async |seen: Echo| {
            Response::builder()
                .status(StatusCode::CREATED)
                .body(full(format!("{} {} {}", seen.method, seen.target, seen.body)))
                .unwrap()
        })
        .await;
        let gateway = probe
            .with(&upstream.url(), "", "\"main\", \"other\"")
            .upstream("other", &other.url())
            .start()
            .await;
        gives(&gateway, &[
            ("request-head call other GET /x?y", "201 \"GET /x?y \""),
            ("request-head call other POST /z words", "201 \"POST /z words\""),
            ("request-head call other GET relative", "InvalidRequest"),
        ]).await;
        let reply = gateway.send(told("response-head call other PUT /w more")).await;
        assert_eq!(results(&reply), ["201 \"PUT /w more\""]);
        // In a body phase, and afterwards the exchange goes on.
        let sent = with(post("/", "body"), &[("x-probe", "request-body call other GET /b")]);
        assert_eq!(gateway.send(sent).await.echo().body, "body");
        gateway.logged(&["request-body call other GET /b => 201"]).await;
    }
}

conformance! {
    may wait:
    async fn a_call_that_fails_has_a_reason(probe: Probe) {
        let upstream = Upstream::echo().await;
        let slow = Upstream::serve(async |_| std::future::pending().await).await;
        let large = Upstream::serve(async |_| Response::new(full(vec![b'x'; 2 << 20]))).await;
        let nobody = DeadEnd::new();
        let gateway = probe
            .with(&upstream.url(), "", "\"main\", \"slow\", \"large\", \"nobody\"")
            .upstream("slow", &slow.url())
            .upstream("large", &large.url())
            .upstream("nobody", &nobody.url())
            .upstream("forbidden", &upstream.url())
            .start()
            .await;
        gives(&gateway, &[
            ("request-head call forbidden GET /", "NotGranted"),
            ("request-head call unknown GET /", "NotGranted"),
            ("request-head call nobody GET /", "Unreachable"),
            ("request-head call large GET /", "ResponseTooLarge"),
            ("request-head call-within slow / 100", "TimedOut"),
        ]).await;
        gateway.send(told("log call main GET /")).await;
        gateway.logged(&["log call main GET / => NotNow"]).await;
        assert!(upstream.seen().iter().all(|seen| seen.target == "/path"));
    }
}

conformance! {
    may wait:
    async fn a_call_parks_only_its_own_exchange(probe: Probe) {
        let upstream = Upstream::echo().await;
        let release = Arc::new(Semaphore::new(0));
        let arrived = Arc::new(AtomicUsize::new(0));
        let shared = (Arc::clone(&release), Arc::clone(&arrived));
        let slow = Upstream::serve(move |_| {
            let (release, arrived) = shared.clone();
            async move {
                arrived.fetch_add(1, Ordering::SeqCst);
                release.acquire().await.unwrap().forget();
                Response::new(full("at last"))
            }
        })
        .await;
        let gateway = probe
            .with(&upstream.url(), "", "\"main\", \"slow\"")
            .upstream("slow", &slow.url())
            .start()
            .await;
        let mut parked = Vec::new();
        for _ in 0..5 {
            let mut client = gateway.http1().await;
            parked.push(tokio::spawn(async move {
                client.send(told("request-head call slow GET /; request-head set x-kept own")).await
            }));
        }
        until("the calls to arrive", async || arrived.load(Ordering::SeqCst) == 5).await;
        // The one worker serves others meanwhile, through the same filter.
        for _ in 0..10 {
            let reply = gateway.send(told("request-head method")).await;
            assert_eq!(results(&reply), ["GET"]);
        }
        // A client that leaves takes its call with it.
        parked.pop().unwrap().abort();
        release.add_permits(5);
        for waiting in parked {
            let reply = waiting.await.unwrap();
            assert_eq!(results(&reply), ["200 \"at last\"", "ok"]);
            assert_eq!(reply.echo().field("x-kept"), Some("own"));
        }
    }
}

// --- Faults ---

conformance! {
    async fn a_guest_that_fails_is_replaced(probe: Probe) {
        let upstream = Upstream::echo().await;
        let gateway = probe
            .before(&upstream)
            .toml("[filter.probe.limits]\nmemory = \"8MiB\"\ntime = \"1s\"")
            .start()
            .await;
        for (command, kind) in [
            ("request-head trap", "trap"),
            ("response-head trap", "trap"),
            ("request-head spin", "timeout"),
        ] {
            let reply = gateway.send(told(command)).await;
            assert!(reply.status.is_server_error(), "{command}: {reply:?}");
            until(&format!("{kind} to be counted"), async || {
                gateway.metric("tidegate_filter_failures_total", &[("filter", "probe"), ("reason", kind)]).await > 0.5
            }).await;
            // The next exchange finds a good one.
            gives(&gateway, &[("request-head method", "GET")]).await;
        }
        gives(&gateway, &[("request-head grow 64", "refused"), ("request-head grow 1", "ok")]).await;
        assert_eq!(gateway.plugin("probe").await["state"], "ok");
    }
}

conformance! {
    async fn a_capability_must_be_granted(probe: Probe) {
        let setup = Setup::with_upstream("main", "http://127.0.0.1:9000")
            .filter("probe", guest(probe.guest, probe.carrier))
            .route("/*", "main", &["probe"]);
        let checked = setup.check().await;
        let said = checked.said();
        assert_eq!(checked.code, Some(1), "{said}");
        for words in ["probe.wasm", "tidegate:filter/", "add `allow = {", "[filter.probe]"] {
            assert!(said.contains(words), "no {words} in\n{said}");
        }
    }
}

conformance! {
    async fn a_refused_configuration_is_told_in_the_guests_words(probe: Probe) {
        let upstream = Upstream::echo().await;
        let setup = probe.configured(&upstream, "fail = \"the moon is full\"");
        let checked = setup.check().await;
        assert_eq!(checked.code, Some(1), "{}", checked.said());
        assert!(checked.said().contains("the moon is full"), "{}", checked.said());
    }
}

conformance! {
    async fn inspect_and_plugins_tell_what_it_is(probe: Probe) {
        let upstream = Upstream::echo().await;
        let setup = probe.before(&upstream);
        let seen = setup.run(&["inspect", "plugins/probe.wasm"]).await;
        let kind = match probe.carrier {
            Carrier::Core => "native core",
            Carrier::Component => "native component",
        };
        assert_eq!(seen.code, Some(0), "{}", seen.said());
        for word in [kind, "0.1.0", "store", "env", "tests call the store"] {
            assert!(seen.stdout.contains(word), "no {word} in {}", seen.stdout);
        }
        let gateway = setup.start().await;
        let entry = gateway.plugin("probe").await;
        let shown = entry["kind"].as_str().unwrap().replace('-', " ");
        assert!(shown.contains(kind), "{entry}");
    }
}

/// What one end of an exchange got: a head in lines, sorted only by what the proxy puts in, and a body.
fn shown(message: &Message) -> (Vec<String>, String) {
    let lines = message.head.lines().filter(|line| {
        let line = line.to_lowercase();
        !line.starts_with("x-request-id:") && !line.starts_with("date:")
    });
    (lines.map(str::to_owned).collect(), message.text())
}

/// A filter that looks on and changes nothing leaves nothing changed.
#[tokio::test]
async fn who_only_looks_on_changes_no_byte() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let upstream = Scripted::start(move |_, mut wire| {
        let log = Arc::clone(&log);
        async move {
            loop {
                let request = wire.try_read_message().await?;
                log.lock().unwrap().push(shown(&request));
                let mut answer = b"HTTP/1.1 207 Many Things\r\nX-Bytes: caf\xe9\r\n".to_vec();
                for number in 0..20 {
                    answer.extend(format!("Set-Cookie: c{number}=v; Path=/\r\n").bytes());
                }
                answer.extend(b"X-Twice: 1\r\nContent-Length: 4\r\nX-Twice: 2\r\n\r\nbody");
                wire.try_send(answer).await?;
            }
        }
    })
    .await;
    let mut setup = Setup::with_upstream("main", &upstream.url()).route("/none", "main", &[]);
    for (name, guest_name, carrier) in [
        ("core-waits", "rust-probe", Carrier::Core),
        ("component-waits", "rust-probe", Carrier::Component),
        ("core", "sync-probe", Carrier::Core),
        ("component", "sync-probe", Carrier::Component),
    ] {
        let http = if guest_name == "rust-probe" {
            "http = [\"main\"], "
        } else {
            ""
        };
        setup = setup
            .filter(name, guest(guest_name, carrier))
            .toml(&format!(
                "[filter.{name}]\n\
                 config = {{ request-body = \"on-hold\", response-body = \"on-hold\" }}\n\
                 allow = {{ {http}store = [\"s\"], env = [\"E\"] }}"
            ))
            .route(&format!("/{name}"), "main", &[name]);
    }
    let gateway = setup.start().await;
    let mut got = Vec::new();
    for path in ["none", "core-waits", "component-waits", "core", "component"] {
        let mut wire = gateway.wire().await;
        let mut request =
            format!("POST /{path} HTTP/1.1\r\nHost: h\r\nX-Mixed: Case\r\n").into_bytes();
        request.extend(
            b"Cookie: a=1\r\nX-Twice: 1\r\nCookie: b=2\r\nX-Twice: 2\r\nX-Bytes: caf\xe9\r\n",
        );
        request.extend(b"X-Empty:\r\nContent-Length: 5\r\n\r\nbytes");
        wire.send(request).await;
        got.push(shown(&wire.read_message().await));
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    for (index, (head, body)) in seen.iter().enumerate().skip(1) {
        assert_eq!(head[1..], seen[0].0[1..], "{index}: the request changed");
        assert_eq!(body, &seen[0].1);
        assert_eq!(got[index], got[0], "{index}: the response changed");
    }
}

/// State stays with its exchange and ends with it, for a guest that was made without the SDK.
#[tokio::test]
async fn state_ends_with_its_exchange() {
    let upstream = Upstream::echo().await;
    for carrier in [Carrier::Core, Carrier::Component] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("raw", guest("wit-raw", carrier))
            .route("/*", "main", &["raw"])
            .start()
            .await;
        for length in [0, 5, 100_000] {
            let reply = gateway.send(post("/", vec![b'x'; length])).await;
            assert_eq!(reply.echo().field("x-raw"), Some("seen"));
            assert_eq!(
                reply.field("x-raw-bytes"),
                Some(length.to_string().as_str())
            );
            assert_eq!(reply.field("x-raw-alive"), Some("1"), "{carrier:?}");
        }
    }
}

/// Both carriers of one guest mix in a chain, and each keeps its own configuration.
#[tokio::test]
async fn carriers_mix_in_a_chain() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::with_upstream("main", &upstream.url())
        .filter("tag", guest("tag", Carrier::Core))
        .filter("tag-component", guest("tag", Carrier::Component))
        .toml("[filter.tag]\nconfig = { value = \"core\" }")
        .toml("[filter.tag-component]\nconfig = { value = \"component\" }")
        .toml(
            "[[route]]\nupstream = \"main\"\n\
             filters = [\"tag\", \"tag-component\", { use = \"tag\", config = { value = \"quiet\", requests-only = true } }]",
        )
        .start()
        .await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.echo().all("x-tag"), ["core", "component", "quiet"]);
    assert_eq!(reply.all("x-tag"), ["component", "core"]);
}

/// What benchmarks call a small filter does what it is measured for, in both carriers.
#[tokio::test]
async fn the_small_filter_reads_one_field_and_sets_two() {
    let upstream = Upstream::echo().await;
    for carrier in [Carrier::Core, Carrier::Component] {
        let gateway = Setup::with_upstream("main", &upstream.url())
            .filter("small", guest("small", carrier))
            .toml("[filter.small]\nconfig = { name = \"x-small\" }")
            .route("/*", "main", &["small"])
            .start()
            .await;
        let reply = gateway
            .send(get_with("/", &[("user-agent", "tester")]))
            .await;
        assert_eq!(reply.echo().field("x-small"), Some("tester"));
        assert_eq!(reply.field("x-small"), Some("seen"), "{carrier:?}");
    }
}

/// Every guest that is built takes part in some test.
#[test]
fn every_guest_has_a_test() {
    let sources = include_str!("contract.rs");
    for name in tidegate_tests::guests::all_guests() {
        assert!(
            sources.contains(&format!("\"{name}\"")),
            "{name} has no test"
        );
    }
}
