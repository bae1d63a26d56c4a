//! A filter from the macro to the end of an exchange, on the mock host: the order of calls, state, bodies, refusals, services.
#![expect(
    clippy::unwrap_used,
    reason = "filters and helpers of tests fail by panics, as tests do"
)]

use std::time::Duration;

use tidegate_sdk::http::{Call, CallError, CallResponse};
use tidegate_sdk::log::Level;
use tidegate_sdk::metrics::{Counter, Gauge, Histogram};
use tidegate_sdk::prelude::*;
use tidegate_sdk::serde_json::{self, Value, json};
use tidegate_sdk::test::{Harness, Request, Response};
use tidegate_sdk::{BodyMode, BodyWish, Overflow, clock, env, store};

/// Notes every call in its state, and tells them in the log at the end.
struct Diary {
    stream: bool,
}

#[derive(Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct DiaryConfig {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    requests_only: bool,
}

#[derive(Default)]
struct Page(Vec<String>);

mod diary {
    use super::*;

    #[filter(
        name = "diary",
        description = "Says \"what\" happened.",
        version = "1.2.3",
        store = "to keep it",
        http = "to send it",
        optional_env = "to sign it",
        request_body = "whole",
        limit = 8,
        overflow = "stream",
        memory = 1048576,
        call_ms = 5
    )]
    impl Filter for Diary {
        type Config = DiaryConfig;
        type State = Page;

        fn new(config: DiaryConfig) -> Result<Self, ConfigError> {
            if config.stream && config.requests_only {
                return Err("`stream` and `requests_only` exclude each other".into());
            }
            Ok(Diary {
                stream: config.stream,
            })
        }

        fn interests(&self, interests: &mut Interests) {
            if self.stream {
                interests.request_body.mode = BodyMode::Stream;
            }
        }

        fn request_head(&self, request: &mut RequestHead, page: &mut Page) -> Flow {
            page.0
                .push(format!("head {} {}", request.path(), request.is_end()));
            Flow::Continue
        }

        fn request_body(&self, body: &mut RequestBody, page: &mut Page) -> Flow {
            let head = body.set("x-late", "1").is_ok();
            let text = String::from_utf8(body.read()).unwrap();
            page.0.push(format!("body {text} {} {head}", body.is_end()));
            body.replace(text.to_uppercase());
            Flow::Continue
        }

        fn request_trailers(&self, trailers: &mut RequestTrailers, page: &mut Page) -> Flow {
            page.0.push(format!("trailers {}", trailers.count()));
            trailers.append("x-added", "1").unwrap();
            Flow::Continue
        }

        fn response_head(&self, response: &mut ResponseHead, page: &mut Page) -> Flow {
            page.0.push(format!("response {}", response.status()));
            if response.get("x-hold").is_some() {
                Flow::Hold
            } else {
                Flow::Continue
            }
        }

        fn response_body(&self, body: &mut ResponseBody, page: &mut Page) -> Flow {
            let text = String::from_utf8(body.read()).unwrap();
            page.0.push(format!("piece {text} {}", body.is_end()));
            if text.contains("secret") {
                return Answer::new(502).text("hidden\n").send();
            }
            body.append("!");
            Flow::Continue
        }

        fn response_trailers(&self, trailers: &mut ResponseTrailers, page: &mut Page) -> Flow {
            page.0.push("response trailers".to_owned());
            trailers.remove("x-sum").unwrap();
            Flow::Continue
        }

        fn log(&self, ended: &Ended, page: &mut Page) {
            log::info!("{}: {}", ended.status(), page.0.join(", "));
        }
    }
}

#[test]
fn a_body_is_taken_whole_with_the_head_still_open() {
    let mut harness = Harness::<Diary>::new(json!({})).unwrap();
    let request = Request::new("POST", "/a")
        .body_chunks(["ab", "cd"])
        .trailer("x-sum", "4");
    let mut outcome = harness.request(request);
    assert_eq!(outcome.request.body, b"ABCD");
    assert_eq!(outcome.field("x-late").as_deref(), Some("1"));
    assert_eq!(outcome.trailers().unwrap().len(), 2);

    let response = Response::new(200)
        .body_chunks(["hi", "ho"])
        .trailer("x-sum", "4");
    let response = harness.respond(&mut outcome, response);
    assert_eq!(response.body, b"hi!ho!!");
    assert_eq!(response.trailers, Some(Vec::new()));

    assert_eq!(harness.exchanges(), 1);
    harness.end(outcome);
    assert_eq!(harness.exchanges(), 0);
    assert_eq!(
        harness.lines_at(Level::Info),
        [
            "200: head /a false, body abcd true true, trailers 1, response 200, piece hi false, piece ho false, \
             piece  true, response trailers"
        ]
    );
}

#[test]
fn a_body_over_the_bound_streams_on() {
    let mut harness = Harness::<Diary>::new(json!({})).unwrap();
    let outcome =
        harness.request(Request::new("POST", "/").body_chunks(["01234", "56789", "abc", "def"]));
    assert_eq!(outcome.request.body, b"0123456789ABCDEF");
    harness.end(outcome);
    assert_eq!(
        harness.lines(),
        [
            "0: head / false, body 0123456789 false true, body abc false false, body def false false, body  true false"
        ]
    );
}

#[test]
fn a_streamed_body_comes_when_the_head_has_left() {
    let mut harness = Harness::<Diary>::new(json!({"stream": true})).unwrap();
    assert_eq!(harness.interests().request_body.mode, BodyMode::Stream);
    let outcome = harness.request(Request::new("POST", "/").body_chunks(["ab", "cd"]));
    assert_eq!(outcome.field("x-late"), None);
    harness.end(outcome);
    assert_eq!(
        harness.lines(),
        ["0: head / false, body ab false false, body cd true false"]
    );
}

#[test]
fn a_head_is_held_until_the_body_was_judged() {
    let mut harness = Harness::<Diary>::new(json!({})).unwrap();
    let mut outcome = harness.request(Request::get("/"));
    let response = Response::new(200)
        .field("x-hold", "1")
        .body_chunks(["a sec", "ret"]);
    let response = harness.respond(&mut outcome, response);
    assert_eq!(
        (response.status, response.body.as_slice()),
        (502, &b"hidden\n"[..])
    );
}

#[test]
fn the_manifest_says_what_the_macro_and_the_types_say() {
    let harness = Harness::<Diary>::new(json!({})).unwrap();
    let manifest = harness.manifest();
    assert_eq!(manifest["name"], "diary");
    assert_eq!(manifest["version"], "1.2.3");
    assert_eq!(manifest["description"], "Says \"what\" happened.");
    assert_eq!(manifest["contract"], "0.1.0");
    assert_eq!(
        manifest["config-schema"]["properties"]["stream"]["type"],
        "boolean"
    );
    assert_eq!(
        manifest["capabilities"],
        json!([{"kind": "store", "why": "to keep it"}, {"kind": "http", "why": "to send it"},
            {"kind": "env", "optional": true, "why": "to sign it"}])
    );
    assert_eq!(
        manifest["limits"],
        json!({"memory": 1_048_576, "call-ms": 5, "body": 8})
    );
    assert_eq!(
        harness.interests().request_body,
        BodyWish {
            mode: BodyMode::Whole,
            limit: 8,
            overflow: Overflow::Stream
        }
    );
    let message = Harness::<Diary>::new(json!({"stream": 1}))
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("`stream`: "), "{message}");
}

/// Does what the request's `x-do` says.
struct Doer {
    seen: Counter,
}

mod doer {
    use super::*;

    #[filter(name = "doer", description = "", store = "a", http = "b", env = "c")]
    impl Filter for Doer {
        fn new((): ()) -> Result<Self, ConfigError> {
            let bad = Gauge::define("Bad", "", &[]).unwrap_err();
            assert_eq!(bad, Refusal::InvalidName);
            assert_eq!(
                Histogram::define("h", "", &[], &[2.0, 1.0]).unwrap_err(),
                Refusal::InvalidValue
            );
            assert_eq!(Call::new("GET", "/").send("judge"), Err(CallError::NotNow));
            Ok(Doer {
                seen: Counter::define("seen_total", "Seen.", &[("kind", "all")])?,
            })
        }

        fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
            self.seen.add(2);
            let what = request.get_str("x-do").unwrap_or_default();
            match what.as_str() {
                "hold" => Flow::Hold,
                "nothing" => Flow::Answer,
                "call" => {
                    let call = Call::new("POST", "/judge")
                        .field("x-a", "1")
                        .body("b")
                        .timeout_ms(9);
                    let text = match call.send("judge") {
                        Ok(response) => format!("{} {:?}", response.status, response.get("X-Why")),
                        Err(error) => error.to_string(),
                    };
                    Answer::new(200).text(&text).send()
                }
                "refusals" => Answer::new(200).json(&refusals(request)).send(),
                _ => Flow::Continue,
            }
        }
    }

    fn refusals(request: &mut RequestHead) -> Value {
        let told = |result: Result<(), Refusal>| format!("{result:?}");
        let long = "a".repeat(33 * 1024);
        json!({
            "content-length": told(request.set("Content-Length", "1")),
            "host": told(request.append("host", "a")),
            "upgrade": told(request.remove("upgrade").map(drop)),
            "space": told(request.set("a b", "1")),
            "line": told(request.set("a", "1\r\n2")),
            "long": told(request.set("a", &long)),
            "good": told(request.set("A-b", "caf\u{e9}\t")),
            "connect": told(request.set_method("CONNECT")),
            "method": told(request.set_method("A B")),
            "scheme": told(request.set_scheme("ftp")),
            "authority": told(request.set_authority("user@host")),
            "path": told(request.set_path("/a/../%62?c")),
            "query": told(request.set_query(Some("a#b"))),
            "property": told(request.set_property(&"n".repeat(65), "v")),
            "answer": told(Answer::new(101).give()),
            "answer-field": told(Answer::new(200).field("connection", "close").give()),
        })
    }
}

fn done(harness: &mut Harness<Doer>, what: &str) -> String {
    harness
        .request(Request::get("/").field("x-do", what))
        .answer
        .unwrap()
        .text()
}

#[test]
fn what_the_host_refuses_the_mock_refuses() {
    let mut harness = Harness::<Doer>::new(json!({})).unwrap();
    let text = done(&mut harness, "refusals");
    let told: Value = serde_json::from_str(&text).unwrap();
    for (what, expected) in [
        ("content-length", "Err(Forbidden)"),
        ("host", "Err(Forbidden)"),
        ("upgrade", "Err(Forbidden)"),
        ("space", "Err(InvalidName)"),
        ("line", "Err(InvalidValue)"),
        ("long", "Err(TooLarge)"),
        ("good", "Ok(())"),
        ("connect", "Err(Forbidden)"),
        ("method", "Err(InvalidName)"),
        ("scheme", "Err(InvalidName)"),
        ("authority", "Err(InvalidName)"),
        ("path", "Err(InvalidName)"),
        ("query", "Err(InvalidValue)"),
        ("property", "Err(TooLarge)"),
        ("answer", "Err(InvalidName)"),
        ("answer-field", "Err(Forbidden)"),
    ] {
        assert_eq!(told[what], expected, "{what}");
    }
}

#[test]
fn calls_are_answered_as_the_test_says() {
    let mut harness = Harness::<Doer>::new(json!({})).unwrap();
    assert_eq!(done(&mut harness, "call"), "the upstream is not granted");
    let fields = vec![("x-why".to_owned(), b"so".to_vec())];
    harness.reply(
        "judge",
        Ok(CallResponse {
            status: 204,
            fields,
            body: Vec::new(),
        }),
    );
    harness.reply("judge", Err(CallError::TimedOut));
    assert_eq!(done(&mut harness, "call"), "204 Some([115, 111])");
    assert_eq!(
        done(&mut harness, "call"),
        "the upstream did not answer in time"
    );
    assert_eq!(
        done(&mut harness, "call"),
        "no endpoint of the upstream could be reached"
    );
    assert_eq!(harness.calls().len(), 3);
    let (upstream, call) = harness.whole_calls().remove(0);
    assert_eq!(upstream, "judge");
    assert_eq!(
        call,
        Call::new("POST", "/judge")
            .field("x-a", "1")
            .body("b")
            .timeout_ms(9)
    );
    assert_eq!(harness.metric("seen_total,kind=all"), Some(8.0));
    assert_eq!(harness.metric("seen_total"), None);
}

#[test]
#[should_panic(expected = "there is no answer")]
fn an_answer_that_was_not_given_fails_the_test() {
    let mut harness = Harness::<Doer>::new(json!({})).unwrap();
    harness.request(Request::get("/").field("x-do", "nothing"));
}

#[test]
fn a_hold_without_a_body_phase_does_no_harm() {
    let mut harness = Harness::<Doer>::new(json!({})).unwrap();
    let outcome = harness.request(Request::post("/", b"body").field("x-do", "hold"));
    assert_eq!(outcome.request.body, b"body");
    let body = vec![b'x'; 1024 * 1024 + 1];
    let outcome = harness.request(Request::post("/", &body).field("x-do", "hold"));
    assert_eq!(outcome.answer.unwrap().status, 413);
}

/// Counts in the store, as seen by one harness and not by another.
struct Shared;

mod shared {
    use super::*;

    #[filter(name = "shared", description = "", store = "to count")]
    impl Filter for Shared {
        fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
            let told = match store::increment("counts", &request.path(), 1, 1_000) {
                Ok(count) => format!("{count} at {}", clock::monotonic() / 1_000_000),
                Err(error) => error.to_string(),
            };
            let _ = request.set("x-told", told);
            let _ = request.set("x-env", env::get("NAME").unwrap_or_default());
            Flow::Continue
        }
    }
}

#[test]
fn time_moves_only_when_it_is_moved() {
    let mut first = Harness::<Shared>::with_env(json!({}), &[("NAME", "first")]).unwrap();
    let mut second = Harness::<Shared>::new(json!({})).unwrap();
    let told = |harness: &mut Harness<Shared>| {
        harness.request(Request::get("/a")).field("x-told").unwrap()
    };
    assert_eq!(told(&mut first), "1 at 1000");
    assert_eq!(told(&mut first), "2 at 1000");
    assert_eq!(told(&mut second), "1 at 1000");
    first.advance(Duration::from_millis(999));
    assert_eq!(told(&mut first), "3 at 1999");
    first.advance(Duration::from_millis(1));
    assert_eq!(told(&mut first), "1 at 2000");
    assert_eq!(first.stored("counts", "/a").as_deref(), Some(&b"1"[..]));
    first.store("counts", "/a", "none");
    assert_eq!(told(&mut first), "the value is not a number in range");
    first.refuse_store("counts");
    assert_eq!(told(&mut first), "the namespace is not granted");
    assert_eq!(
        first.request(Request::get("/")).field("x-env").as_deref(),
        Some("first")
    );
    second.set_env("NAME", "second");
    assert_eq!(
        second.request(Request::get("/")).field("x-env").as_deref(),
        Some("second")
    );
}
