//! What a filter's failures lead to, and what it must answer before it takes traffic. It runs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tidegate_gateway::QuarantineSettings;

use super::super::checked::SelfCheck;
use super::super::document::child;
use super::super::units::Time;
use super::super::written;
use super::{DAY, Resolver};

const HOUR: Duration = Duration::from_secs(3600);

impl Resolver<'_> {
    /// When filters are taken out of service that do not say otherwise.
    pub(super) fn quarantine_of_all(&mut self, written: written::Quarantine) {
        for (key, message) in mistakes(written) {
            let at = format!("/server/filter-defaults/quarantine/{key}");
            let mistake = self.at(&at, &message);
            self.notes.mistake(mistake);
        }
    }

    /// When a filter is taken out of service; none: never. A mistake that is not its own was told before.
    pub(super) fn quarantine(
        &mut self,
        name: &str,
        written: written::Quarantine,
    ) -> Option<QuarantineSettings> {
        for (key, message) in mistakes(written) {
            // `longest` may be too short only because of the filter's own `first`.
            let other = if key == "longest" { "first" } else { key };
            let own = [key, other].map(|key| format!("/quarantine/{key}"));
            let own = own.iter().find(|it| self.where_is(name, it).is_some());
            if let Some(below) = own {
                self.wrong(name, below, &message);
            }
        }
        (written.failures > 0).then_some(QuarantineSettings {
            failures: written.failures,
            window: written.window.0,
            first: written.first.0,
            longest: written.longest.0,
        })
    }

    /// What a new version of a filter must answer. None also if it can't be asked, which is noted.
    pub(super) fn self_check(
        &mut self,
        name: &str,
        written: Option<&written::SelfCheck>,
    ) -> Option<SelfCheck> {
        let written = written?;
        let before = self.notes.mistakes.len();
        let method = Method::from_bytes(written.method.as_bytes()).ok();
        let method = method.filter(|it| !matches!(*it, Method::CONNECT | Method::TRACE));
        if method.is_none() {
            let message = format!("`{}` is not a method that can be tried", written.method);
            self.wrong(name, "/self-check/method", &message);
        }
        let target = written.path.parse::<PathAndQuery>().ok();
        let target = target.filter(|_| written.path.starts_with('/'));
        if target.is_none() {
            let message = "`path` must begin with `/` and be a path with or without a query";
            self.wrong(name, "/self-check/path", message);
        }
        let mut headers = self.fields(name, "/self-check/headers", &written.headers);
        if !headers.iter().any(|(known, _)| *known == header::HOST) {
            headers.push((header::HOST, HeaderValue::from_static("localhost")));
        }
        let expect = &written.expect;
        let expected = self.fields(name, "/self-check/expect/headers", &expect.headers);
        let status = StatusCode::from_u16(expect.status).ok();
        if self.notes.mistakes.len() > before {
            return None;
        }
        Some(SelfCheck {
            method: method?,
            target: target?,
            headers,
            body: Bytes::from(written.body.clone().unwrap_or_default()),
            status: status?,
            expected,
        })
    }

    fn fields(
        &mut self,
        name: &str,
        below: &str,
        written: &BTreeMap<String, String>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = Vec::new();
        for (field, value) in written {
            let at = child(below, field);
            let parsed = (
                HeaderName::from_bytes(field.as_bytes()),
                HeaderValue::from_str(value),
            );
            match parsed {
                (Ok(field), Ok(value)) => fields.push((field, value)),
                (Err(_), _) => {
                    let message = format!("`{field}` is not the name of a header field");
                    self.wrong(name, &at, &message);
                }
                (_, Err(_)) => self.wrong(name, &at, "a header field can't have this value"),
            }
        }
        fields
    }

    fn wrong(&mut self, name: &str, below: &str, message: &str) {
        let mistake = self.at_setting(name, below, message);
        self.notes.mistake(mistake);
    }
}

/// The keys of settings that are out of their bounds, and what to say of each.
fn mistakes(written: written::Quarantine) -> Vec<(&'static str, String)> {
    let times = [
        ("window", written.window, HOUR),
        ("first", written.first, DAY),
        ("longest", written.longest, DAY),
    ];
    let outside = times
        .into_iter()
        .filter(|(_, time, most)| !(Duration::from_millis(1)..=*most).contains(&time.0));
    let mut mistakes: Vec<_> = outside
        .map(|(key, _, most)| {
            let message = format!("`{key}` must be between 1ms and {}", Time(most));
            (key, message)
        })
        .collect();
    if written.longest < written.first && mistakes.is_empty() {
        let message = format!(
            "`longest` ({}) must not be less than `first` ({})",
            written.longest, written.first
        );
        mistakes.push(("longest", message));
    }
    mistakes
}
