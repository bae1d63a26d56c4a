//! A filter that is tried by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tidegate_core::exchange::Part;
use tidegate_core::phase::{Flow, Phase};

use super::harness::{Act, Fake, Seen, run};
use crate::{AloneError, alone};

const ALL: [Phase; 6] = [
    Phase::RequestHead,
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseHead,
    Phase::ResponseBody,
    Phase::Log,
];

async fn ask(filter: Fake, body: &'static str) -> Result<Response<Bytes>, AloneError> {
    let request = Request::post("/a/../b?c").header("host", "localhost");
    alone(Arc::new(filter), request.body(Bytes::from(body)).unwrap()).await
}

#[test]
fn it_sees_the_request_and_its_own_answer_counts() {
    run(async {
        let seen = Seen::default();
        let notes = seen.clone();
        let filter = Fake::new("a", &ALL, move |phase, _, exchange| {
            notes.add(phase.name());
            match phase {
                Phase::RequestHead => assert_eq!(exchange.request.target, "/b?c"),
                Phase::RequestBody if exchange.chunk.read(0, 9) == b"secret" => {
                    exchange.give_answer(403, [], Bytes::from("no")).unwrap();
                    return Flow::Answer;
                }
                Phase::ResponseHead => {
                    exchange.set(Part::Response, "x-seen", b"yes").unwrap();
                }
                _ => {}
            }
            Flow::Continue
        });
        let passed = ask(filter.clone(), "harmless").await.unwrap();
        assert_eq!(passed.status(), 200);
        assert_eq!(passed.headers()["x-seen"], "yes");
        assert_eq!(
            seen.take(),
            ["request-head", "request-body", "response-head", "log"]
        );
        let stopped = ask(filter, "secret").await.unwrap();
        assert_eq!(
            (stopped.status().as_u16(), &stopped.body()[..]),
            (403, &b"no"[..])
        );
    });
}

#[test]
fn a_failure_anywhere_is_told() {
    run(async {
        for at in [
            Phase::RequestHead,
            Phase::RequestBody,
            Phase::ResponseHead,
            Phase::Log,
        ] {
            for waits in [false, true] {
                let filter = Fake::acting("a", &ALL, move |phase, _, _| {
                    if phase != at {
                        Act::Flow(Flow::Continue)
                    } else if waits && phase != Phase::Log {
                        Act::WaitAndFail(Box::pin(tokio::task::yield_now()))
                    } else {
                        Act::Fail
                    }
                });
                match ask(filter, "body").await {
                    Err(AloneError::Filter(error)) => assert_eq!(error.phase, at),
                    other => panic!("{at}: {other:?}"),
                }
            }
        }
    });
}
