//! The Cookie field: pairs in one line (RFC 6265 section 5.4), or in several, as HTTP/2 may send them.

use tidegate_sdk::Refusal;

use crate::facts::{Facts, Fields};

/// The cookies of a request.
pub(super) struct Jar<'a> {
    fields: &'a dyn Fields,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    changed: bool,
}

/// The first value of a cookie in the lines of the Cookie field.
pub(crate) fn find(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    let (_, value) = pairs(lines).find(|(known, _)| *known == name.as_bytes())?;
    Some(value.to_vec())
}

fn pairs(lines: &[Vec<u8>]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .map(|pair| pair.trim_ascii())
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = pair.split_at(at);
                (name, value.get(1..).unwrap_or_default())
            }
            // A name without a value is a value without a name, for browsers.
            None => (&b""[..], pair),
        })
}

impl<'a> Jar<'a> {
    pub(super) fn new(fields: &'a dyn Fields) -> Self {
        let lines = fields.get_all("cookie");
        let pairs = pairs(&lines).map(|(name, value)| (name.to_vec(), value.to_vec()));
        Jar {
            pairs: pairs.collect(),
            fields,
            changed: false,
        }
    }

    /// The field's line, none for no field, if anything changed.
    pub(super) fn end(self) -> Option<Option<Vec<u8>>> {
        if !self.changed {
            return None;
        }
        let mut line = Vec::new();
        for (name, value) in &self.pairs {
            if !line.is_empty() {
                line.extend_from_slice(b"; ");
            }
            line.extend_from_slice(name);
            if !name.is_empty() {
                line.push(b'=');
            }
            line.extend_from_slice(value);
        }
        Some((!line.is_empty()).then_some(line))
    }
}

impl Fields for Jar<'_> {
    fn facts(&self) -> &dyn Facts {
        self.fields.facts()
    }

    fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name.as_bytes())
    }

    fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        let found = self
            .pairs
            .iter()
            .filter(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value.clone()).collect()
    }

    fn names(&self) -> Vec<String> {
        let names = self.pairs.iter();
        names
            .filter_map(|(name, _)| String::from_utf8(name.clone()).ok())
            .collect()
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let at = self
            .pairs
            .iter()
            .position(|(known, _)| known == name.as_bytes());
        self.pairs.retain(|(known, _)| known != name.as_bytes());
        let at = at.unwrap_or(self.pairs.len());
        self.pairs
            .insert(at, (name.as_bytes().to_vec(), value.to_vec()));
        self.changed = true;
        Ok(())
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.pairs.push((name.as_bytes().to_vec(), value.to_vec()));
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        let before = self.pairs.len();
        self.pairs.retain(|(known, _)| known != name.as_bytes());
        self.changed |= self.pairs.len() < before;
        Ok(())
    }
}
