//! Changes header fields, cookies and request lines, redirects, gives fixed answers, and sets the fields that browsers ask for.
//!
//! The request's phase: CORS, redirects, fixed answers, rules on the request, rewrites. The response's phase: signatures,
//! security, caching, rules on the response, CORS. What the filter answers itself passes the same steps as a response.

mod condition;
mod config;
mod cookies;
mod cors;
mod facts;
mod mistakes;
mod named;
mod names;
mod net;
mod number;
mod one_or_many;
mod pattern;
mod presets;
#[doc(hidden)]
#[cfg(not(target_arch = "wasm32"))]
pub mod probe;
mod query;
mod redirect;
mod regex;
mod respond;
mod rewrite;
mod rule;
mod shared_schema;
mod table;
mod template;
mod time;
mod view;

use std::cell::RefCell;

use tidegate_sdk::log;
use tidegate_sdk::prelude::*;

pub use crate::config::Config;
use crate::config::Plan;
use crate::facts::{Fields, Incoming, Outgoing, Own};
use crate::presets::server;

/// The filter.
#[derive(Debug)]
pub struct Headers {
    plan: Plan,
    /// Where values are put together.
    buffer: RefCell<Vec<u8>>,
}

#[filter(
    name = "headers",
    description = "Changes fields, cookies and request lines, redirects, answers, and sets CORS, security and cache fields."
)]
impl Filter for Headers {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Headers {
            plan: config.plan()?,
            buffer: RefCell::default(),
        })
    }

    fn interests(&self, interests: &mut Interests) {
        if self.plan.leaves_requests() {
            interests.remove(Phase::RequestHead);
        }
        if self.plan.leaves_responses() {
            interests.remove(Phase::ResponseHead);
        }
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        let buffer = &mut *self.buffer.borrow_mut();
        let mut incoming = Incoming::new(request);
        if let Some(flow) = self.answer(&incoming, buffer) {
            return flow;
        }
        for rule in &self.plan.request {
            rule.apply(&mut incoming, buffer);
        }
        for rewrite in &self.plan.rewrites {
            if rewrite.apply(&mut incoming, buffer).is_err() {
                return Answer::new(400)
                    .text("the request can't be sent on\n")
                    .send();
            }
        }
        Flow::Continue
    }

    fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
        let buffer = &mut *self.buffer.borrow_mut();
        self.finish(&mut Outgoing::new(response), buffer);
        Flow::Continue
    }
}

impl Headers {
    /// What is answered without asking the upstream.
    fn answer(&self, incoming: &Incoming<'_>, buffer: &mut Vec<u8>) -> Option<Flow> {
        if let Some(answer) = self
            .plan
            .cors
            .as_ref()
            .and_then(|cors| cors.answer(incoming, buffer))
        {
            return Some(answer.send());
        }
        let mut redirects = self.plan.redirects.iter();
        if let Some((status, location)) =
            redirects.find_map(|redirect| redirect.of(incoming, buffer))
        {
            let fields = vec![("location".to_owned(), location)];
            return Some(self.send(incoming, status, fields, |_| Vec::new(), buffer));
        }
        let mut responds = self.plan.responds.iter();
        let respond = responds.find(|respond| {
            let when = respond.when.as_ref();
            when.is_none_or(|when| when.holds(incoming, buffer))
        })?;
        let fill = |own: &mut Own<'_>| respond.fill(own);
        Some(self.send(incoming, respond.status, Vec::new(), fill, buffer))
    }

    /// Sends an answer as a response of an upstream would leave.
    fn send(
        &self,
        incoming: &Incoming<'_>,
        status: u16,
        fields: Vec<(String, Vec<u8>)>,
        fill: impl FnOnce(&mut Own<'_>) -> Vec<u8>,
        buffer: &mut Vec<u8>,
    ) -> Flow {
        let mut own = Own {
            request: incoming,
            status,
            fields,
        };
        let body = fill(&mut own);
        self.finish(&mut own, buffer);
        let answer = Answer::new(status).body(body);
        let fields = own.fields.into_iter();
        fields
            .fold(answer, |answer, (name, value)| answer.field(&name, value))
            .send()
    }

    /// What is done to every response.
    fn finish(&self, fields: &mut dyn Fields, buffer: &mut Vec<u8>) {
        if self.plan.hide_server {
            server::hide(fields);
        }
        if let Some(security) = &self.plan.security {
            security.apply(fields, buffer);
        }
        for cache in &self.plan.cache {
            if cache.apply(fields, buffer) {
                break;
            }
        }
        for rule in &self.plan.response {
            rule.apply(fields, buffer);
        }
        if let Some(cors) = &self.plan.cors
            && let Err(refusal) = cors.apply(fields, buffer)
        {
            log::warn(
                &[
                    "could not say what other origins may do: ",
                    &refusal.to_string(),
                ]
                .concat(),
            );
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
