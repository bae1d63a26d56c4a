//! The mock's exchange, and the rules on what may be changed when: the real host's, so that a refusal here is one there.

use super::fields::{self, Fields};
use super::path;
use crate::host::Part;
use crate::phase::{Phase, Refusal};
use crate::views::{CertificateFacts, TlsFacts};

/// One request and its response.
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
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) route: String,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) request_id: String,
    pub(crate) properties: Vec<(String, Vec<u8>)>,
    pub(crate) tls: Option<TlsFacts>,
    pub(crate) certificate: Option<CertificateFacts>,
    /// When the request's head was read, on the steady clock.
    pub(crate) began: u64,
    /// What the running callback asked to wait for, and what was waited, in milliseconds.
    pub(crate) delay: u32,
    pub(crate) delayed: u32,
    /// The callback that runs; none while the filter is made.
    pub(crate) phase: Option<Phase>,
    /// Whether the head of the direction that `phase` belongs to is still here.
    pub(crate) head_open: bool,
    /// Whether a part of the response has left.
    pub(crate) response_begun: bool,
}

impl Exchange {
    pub(super) fn fields(&self, part: Part) -> Option<&Fields> {
        match part {
            Part::Request => Some(&self.request),
            Part::RequestTrailers => self.request_trailers.as_ref(),
            Part::Response => self.response.as_ref(),
            Part::ResponseTrailers => self.response_trailers.as_ref(),
        }
    }

    /// The fields of a part that may be changed now, and the name of one of them.
    pub(super) fn changeable(
        &mut self,
        part: Part,
        name: &str,
    ) -> Result<(&mut Fields, String), Refusal> {
        self.open(part)?;
        let trailer = matches!(part, Part::RequestTrailers | Part::ResponseTrailers);
        let name = fields::name(name, trailer)?;
        let fields = match part {
            Part::Request => Some(&mut self.request),
            Part::RequestTrailers => self.request_trailers.as_mut(),
            Part::Response => self.response.as_mut(),
            Part::ResponseTrailers => self.response_trailers.as_mut(),
        };
        Ok((fields.ok_or(Refusal::Absent)?, name))
    }

    /// Whether a part is here to be changed.
    fn open(&self, part: Part) -> Result<(), Refusal> {
        let open = match (part, self.phase) {
            (Part::Request, Some(Phase::RequestHead))
            | (Part::RequestTrailers, Some(Phase::RequestTrailers))
            | (Part::Response, Some(Phase::ResponseHead))
            | (Part::ResponseTrailers, Some(Phase::ResponseTrailers)) => true,
            (Part::Request, Some(Phase::RequestBody))
            | (Part::Response, Some(Phase::ResponseBody)) => self.head_open,
            _ => false,
        };
        if open { Ok(()) } else { Err(Refusal::TooLate) }
    }

    pub(super) fn set_method(&mut self, method: &str) -> Result<(), Refusal> {
        self.open(Part::Request)?;
        if !fields::is_token(method) {
            return Err(Refusal::InvalidName);
        }
        if method == "CONNECT" {
            return Err(Refusal::Forbidden);
        }
        method.clone_into(&mut self.method);
        Ok(())
    }

    pub(super) fn set_scheme(&mut self, scheme: &str) -> Result<(), Refusal> {
        self.open(Part::Request)?;
        if !matches!(scheme, "http" | "https") {
            return Err(Refusal::InvalidName);
        }
        scheme.clone_into(&mut self.scheme);
        Ok(())
    }

    pub(super) fn set_authority(&mut self, authority: &str) -> Result<(), Refusal> {
        self.open(Part::Request)?;
        let host =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(host) {
            return Err(Refusal::InvalidName);
        }
        authority.clone_into(&mut self.authority);
        Ok(())
    }

    pub(super) fn set_path(&mut self, path: &str) -> Result<(), Refusal> {
        self.open(Part::Request)?;
        if path.len() > fields::MAX_VALUE {
            return Err(Refusal::TooLarge);
        }
        self.path = path::normalise(path).ok_or(Refusal::InvalidName)?;
        Ok(())
    }

    pub(super) fn set_query(&mut self, query: Option<&str>) -> Result<(), Refusal> {
        self.open(Part::Request)?;
        if query.is_some_and(|query| query.len() > fields::MAX_VALUE) {
            return Err(Refusal::TooLarge);
        }
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if query.is_some_and(|query| !query.bytes().all(allowed)) {
            return Err(Refusal::InvalidValue);
        }
        self.query = query.map(str::to_owned);
        Ok(())
    }

    pub(super) fn set_status(&mut self, status: u16) -> Result<(), Refusal> {
        self.open(Part::Response)?;
        self.status = final_status(status)?;
        Ok(())
    }

    pub(super) fn give_answer(
        &mut self,
        status: u16,
        given: &[(String, Vec<u8>)],
        body: &[u8],
    ) -> Result<(), Refusal> {
        let answerable = match self.phase {
            Some(
                Phase::RequestHead
                | Phase::RequestBody
                | Phase::RequestTrailers
                | Phase::ResponseHead,
            ) => true,
            Some(Phase::ResponseBody) => self.head_open,
            _ => false,
        };
        if !answerable || self.response_begun {
            return Err(Refusal::TooLate);
        }
        let status = final_status(status)?;
        let mut kept = Fields::new();
        for (name, value) in given {
            fields::append(&mut kept, fields::name(name, false)?, value)?;
        }
        self.answer = Some((status, kept, body.to_vec()));
        Ok(())
    }

    pub(super) fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::InvalidName);
        }
        if name.len() > 64 || value.len() > 4 * 1024 {
            return Err(Refusal::TooLarge);
        }
        let full = self.properties.len() == 64;
        let mut known = self.properties.iter_mut();
        match known.find(|(known, _)| known == name) {
            Some((_, held)) => *held = value.to_vec(),
            None if full => return Err(Refusal::TooLarge),
            None => self.properties.push((name.to_owned(), value.to_vec())),
        }
        Ok(())
    }

    pub(super) fn set_delay(&mut self, milliseconds: u32) -> Result<(), Refusal> {
        if !matches!(self.phase, Some(Phase::RequestHead | Phase::RequestBody)) {
            return Err(Refusal::TooLate);
        }
        if milliseconds > 60_000_u32.saturating_sub(self.delayed) {
            return Err(Refusal::TooLarge);
        }
        self.delay = milliseconds;
        Ok(())
    }

    /// Whether there is a piece of a body.
    pub(super) fn has_piece(&self) -> bool {
        matches!(self.phase, Some(Phase::RequestBody | Phase::ResponseBody))
    }
}

fn final_status(status: u16) -> Result<u16, Refusal> {
    if (200..600).contains(&status) {
        Ok(status)
    } else {
        Err(Refusal::InvalidName)
    }
}
