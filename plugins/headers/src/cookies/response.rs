//! Set-Cookie fields: one cookie each, with attributes behind its value (RFC 6265 section 4.1).

use tidegate_sdk::Refusal;

use super::attributes::{Attribute, Rules};
use crate::facts::{Facts, Fields};

/// The cookies that a response sets.
pub(super) struct Jar<'a> {
    fields: &'a dyn Fields,
    cookies: Vec<Cookie>,
    changed: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    /// As they are written, without the semicolons.
    attributes: Vec<Vec<u8>>,
}

impl Cookie {
    fn parse(line: &[u8]) -> Self {
        let mut parts = line
            .split(|byte| *byte == b';')
            .map(|part| part.trim_ascii());
        let pair = parts.next().unwrap_or_default();
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = pair.split_at(at);
                (name, value.get(1..).unwrap_or_default())
            }
            None => (&b""[..], pair),
        };
        Cookie {
            name: name.to_vec(),
            value: value.to_vec(),
            attributes: parts.map(<[u8]>::to_vec).collect(),
        }
    }

    fn line(&self) -> Vec<u8> {
        let mut line = self.name.clone();
        if !self.name.is_empty() {
            line.push(b'=');
        }
        line.extend_from_slice(&self.value);
        for attribute in &self.attributes {
            line.extend_from_slice(b"; ");
            line.extend_from_slice(attribute);
        }
        line
    }

    /// Sets or removes one attribute. Says whether that changed anything.
    fn give(&mut self, attribute: &Attribute) -> bool {
        let is_it = |written: &Vec<u8>| {
            let mut parts = written.split(|byte| *byte == b'=');
            parts
                .next()
                .unwrap_or_default()
                .trim_ascii()
                .eq_ignore_ascii_case(attribute.name.as_bytes())
        };
        let before = self.attributes.clone();
        let at = self.attributes.iter().position(is_it);
        self.attributes.retain(|written| !is_it(written));
        if let Some(text) = &attribute.text {
            let at = at.unwrap_or(self.attributes.len());
            self.attributes.insert(at, text.as_bytes().to_vec());
        }
        self.attributes != before
    }
}

impl<'a> Jar<'a> {
    pub(super) fn new(fields: &'a dyn Fields) -> Self {
        let lines = fields.get_all("set-cookie");
        Jar {
            cookies: lines.iter().map(|line| Cookie::parse(line)).collect(),
            fields,
            changed: false,
        }
    }

    /// Gives cookies their attributes.
    pub(super) fn give(&mut self, rules: &Rules) {
        for cookie in &mut self.cookies {
            let name = cookie.name.clone();
            for attribute in rules.of(&name) {
                self.changed |= cookie.give(attribute);
            }
        }
    }

    /// The fields' lines, if anything changed.
    pub(super) fn end(self) -> Option<Vec<Vec<u8>>> {
        self.changed
            .then(|| self.cookies.iter().map(Cookie::line).collect())
    }
}

impl Fields for Jar<'_> {
    fn facts(&self) -> &dyn Facts {
        self.fields.facts()
    }

    fn has(&self, name: &str) -> bool {
        self.cookies.iter().any(|it| it.name == name.as_bytes())
    }

    fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        let found = self.cookies.iter().filter(|it| it.name == name.as_bytes());
        found.map(|cookie| cookie.value.clone()).collect()
    }

    fn names(&self) -> Vec<String> {
        let names = self.cookies.iter();
        names
            .filter_map(|cookie| String::from_utf8(cookie.name.clone()).ok())
            .collect()
    }

    /// The first cookie of the name keeps its attributes; others of the same name go.
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let at = self
            .cookies
            .iter()
            .position(|it| it.name == name.as_bytes());
        let mut cookie = at
            .and_then(|at| self.cookies.get(at).cloned())
            .unwrap_or_else(|| Cookie {
                name: name.as_bytes().to_vec(),
                value: Vec::new(),
                attributes: Vec::new(),
            });
        cookie.value = value.to_vec();
        self.cookies.retain(|it| it.name != name.as_bytes());
        self.cookies
            .insert(at.unwrap_or(self.cookies.len()), cookie);
        self.changed = true;
        Ok(())
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.cookies.push(Cookie {
            name: name.as_bytes().to_vec(),
            value: value.to_vec(),
            attributes: Vec::new(),
        });
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        let before = self.cookies.len();
        self.cookies.retain(|it| it.name != name.as_bytes());
        self.changed |= self.cookies.len() < before;
        Ok(())
    }
}
