//! Answers that a filter gives in place of the upstream.

use crate::host;
use crate::phase::{Flow, Refusal};

/// An answer in the making.
///
/// ```no_run
/// # use tidegate_sdk::prelude::*;
/// # fn refuse() -> Flow {
/// Answer::new(403).field("cache-control", "no-store").text("not for you\n").send()
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer is given with `send`"]
pub struct Answer {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Answer {
    /// An answer of that status (200 to 599) without fields and body.
    pub fn new(status: u16) -> Self {
        Answer {
            status,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a field. Framing is the host's: Content-Length and the like are refused.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, without saying what it is.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and says that it is text.
    pub fn text(self, text: &str) -> Self {
        self.field("content-type", "text/plain; charset=utf-8")
            .body(text)
    }

    /// Sets the body and says that it is JSON.
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.field("content-type", "application/json")
            .body(value.to_string())
    }

    /// Gives the answer to the host.
    ///
    /// # Errors
    /// What its status or a field is refused for, or [`Refusal::TooLate`] if a response has begun.
    pub fn give(&self) -> Result<(), Refusal> {
        host::answer(self.status, &self.fields, &self.body)
    }

    /// Gives the answer to the host and returns the flow that sends it. If the host refuses it, nobody else answers either: the
    /// host treats that as a failure of the filter.
    pub fn send(self) -> Flow {
        if let Err(refusal) = self.give() {
            crate::log::error!("the answer was refused: {refusal}");
        }
        Flow::Answer
    }
}
