//! Speaks the contract through generated bindings alone: what a language without an SDK of its own does. It counts the
//! bytes of each request's body and tells the count in the response, so state and every callback are in use.

use std::cell::RefCell;
use std::collections::BTreeMap;

use exports::tidegate::filter::callbacks::{Flow, Guest, Interests};
use tidegate::filter::exchange::{self, Part};
use tidegate::filter::types::{BodyMode, BodyWish, Overflow, Phases};

wit_bindgen::generate!({ path: "../../../sdk/wit", world: "filter" });

thread_local! {
    /// The bytes of each request's body so far, by the exchange's id.
    static COUNTS: RefCell<BTreeMap<u64, u64>> = const { RefCell::new(BTreeMap::new()) };
}

struct Raw;

const IN_PIECES: BodyWish = BodyWish {
    mode: BodyMode::Stream,
    limit: 0,
    overflow: Overflow::Refuse,
};

impl Guest for Raw {
    fn configure(config: String) -> Result<Interests, String> {
        if !matches!(config.trim(), "" | "{}") {
            return Err("wit-raw takes no configuration".to_owned());
        }
        Ok(Interests {
            phases: Phases::REQUEST_HEAD
                | Phases::REQUEST_BODY
                | Phases::RESPONSE_HEAD
                | Phases::LOG,
            request_body: IN_PIECES,
            response_body: IN_PIECES,
        })
    }

    fn request_head(id: u64, _end: bool) -> Flow {
        COUNTS.with_borrow_mut(|counts| counts.insert(id, 0));
        let _ = exchange::set(Part::Request, "x-raw", b"seen");
        Flow::Proceed
    }

    fn request_body(id: u64, length: u32, _end: bool) -> Flow {
        COUNTS.with_borrow_mut(|counts| *counts.entry(id).or_default() += u64::from(length));
        Flow::Proceed
    }

    fn request_trailers(_id: u64) -> Flow {
        Flow::Proceed
    }

    fn response_head(id: u64, _end: bool) -> Flow {
        let (count, alive) = COUNTS.with_borrow(|counts| {
            let count = counts.get(&id).copied().unwrap_or_default();
            (count, counts.len())
        });
        let _ = exchange::set(Part::Response, "x-raw-bytes", count.to_string().as_bytes());
        // How many exchanges have state: a test sees that `log` freed those before.
        let _ = exchange::set(Part::Response, "x-raw-alive", alive.to_string().as_bytes());
        Flow::Proceed
    }

    fn response_body(_id: u64, _length: u32, _end: bool) -> Flow {
        Flow::Proceed
    }

    fn response_trailers(_id: u64) -> Flow {
        Flow::Proceed
    }

    fn log(id: u64) {
        COUNTS.with_borrow_mut(|counts| counts.remove(&id));
    }
}

export!(Raw);
