//! A host for tests: one exchange at a time, a clock that stands still, and everything in plain sight. It follows the real host's
//! rules on what may be changed when, so that a test that passes here means something there.

pub(crate) mod calls;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Part;
use super::services::{CallError, CallResponse};
use crate::phase::{Phase, Refusal};
use crate::views::TlsFacts;

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// Fields in their order, names in lower case.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The exchange at hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) request: Fields,
    pub(crate) request_trailers: Option<Fields>,
    pub(crate) response: Option<Fields>,
    pub(crate) response_trailers: Option<Fields>,
    pub(crate) status: u16,
    pub(crate) piece: Vec<u8>,
    pub(crate) answer: Option<(u16, Fields, Vec<u8>)>,
    pub(crate) client: String,
    pub(crate) route: String,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) phase: Option<Phase>,
    pub(crate) head_open: bool,
}

/// Everything outside of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) exchange: Exchange,
    pub(crate) monotonic: u64,
    pub(crate) wall: u64,
    pub(crate) random: u64,
    pub(crate) store: HashMap<(String, String), (Vec<u8>, u64)>,
    pub(crate) buckets: HashMap<String, u64>,
    pub(crate) env: HashMap<String, String>,
    pub(crate) replies: HashMap<String, VecDeque<Result<CallResponse, CallError>>>,
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) lines: Vec<String>,
    pub(crate) metrics: Vec<(String, f64)>,
}

pub(crate) fn with<T>(act: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| act(&mut host.borrow_mut()))
}

impl Exchange {
    pub(crate) fn fields(&self, part: Part) -> Option<&Fields> {
        match part {
            Part::Request => Some(&self.request),
            Part::RequestTrailers => self.request_trailers.as_ref(),
            Part::Response => self.response.as_ref(),
            Part::ResponseTrailers => self.response_trailers.as_ref(),
        }
    }

    /// The fields that may be changed now.
    pub(crate) fn changeable(&mut self, part: Part, name: &str) -> Result<&mut Fields, Refusal> {
        if !self.may_change(part) {
            return Err(Refusal::TooLate);
        }
        if !is_token(name) {
            return Err(Refusal::InvalidName);
        }
        let trailing = matches!(part, Part::RequestTrailers | Part::ResponseTrailers);
        if is_hosts(name) || (trailing && NOT_IN_TRAILERS.contains(&name)) {
            return Err(Refusal::Forbidden);
        }
        let fields = match part {
            Part::Request => Some(&mut self.request),
            Part::RequestTrailers => self.request_trailers.as_mut(),
            Part::Response => self.response.as_mut(),
            Part::ResponseTrailers => self.response_trailers.as_mut(),
        };
        fields.ok_or(Refusal::Absent)
    }

    pub(crate) fn may_change(&self, part: Part) -> bool {
        match part {
            Part::Request => {
                self.phase == Some(Phase::RequestHead)
                    || (self.phase == Some(Phase::RequestBody) && self.head_open)
            }
            Part::RequestTrailers => self.phase == Some(Phase::RequestTrailers),
            Part::Response => {
                self.phase == Some(Phase::ResponseHead)
                    || (self.phase == Some(Phase::ResponseBody) && self.head_open)
            }
            Part::ResponseTrailers => self.phase == Some(Phase::ResponseTrailers),
        }
    }
}

const HOSTS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const NOT_IN_TRAILERS: [&str; 8] = [
    "authorization",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "set-cookie",
    "x-forwarded-for",
    "host",
];

pub(crate) fn is_hosts(name: &str) -> bool {
    HOSTS.contains(&name)
}

pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), Refusal> {
    if value.len() > 32 * 1024 {
        return Err(Refusal::TooLarge);
    }
    if value
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(Refusal::InvalidValue);
    }
    Ok(())
}
