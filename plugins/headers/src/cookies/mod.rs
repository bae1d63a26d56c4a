//! Cookies as named values that rules change: those of a request, in its Cookie field, and those that a response sets, in its
//! Set-Cookie fields. What is not changed keeps its spelling.

mod attributes;
mod request;
mod response;

pub(crate) use attributes::Attributes;
pub(crate) use attributes::compile;
pub(crate) use request::find;

use tidegate_sdk::{Refusal, log};

use crate::condition::Part;
use crate::facts::Fields;
use crate::rule::Change;

/// Changes of cookies, ready to be carried out.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) part: Part,
    pub(crate) changes: Vec<Change>,
    pub(crate) attributes: attributes::Rules,
}

impl Compiled {
    /// Carries the changes out. The field is written only if they changed something.
    pub(crate) fn apply(&self, fields: &mut dyn Fields, drop_empty: bool, buffer: &mut Vec<u8>) {
        match self.part {
            Part::Request => {
                let mut jar = request::Jar::new(fields);
                for change in &self.changes {
                    change.apply(&mut jar, drop_empty, buffer);
                }
                let cookie = jar.end();
                write(
                    fields,
                    "cookie",
                    cookie.map(|cookie| cookie.into_iter().collect()),
                );
            }
            Part::Response => {
                let mut jar = response::Jar::new(fields);
                for change in &self.changes {
                    change.apply(&mut jar, drop_empty, buffer);
                }
                jar.give(&self.attributes);
                let cookies = jar.end();
                write(fields, "set-cookie", cookies);
            }
        }
    }
}

/// Puts lines in place of those that a field has; none if they did not change.
fn write(fields: &mut dyn Fields, name: &str, lines: Option<Vec<Vec<u8>>>) {
    let Some(lines) = lines else {
        return;
    };
    let mut result = fields.remove(name);
    for line in lines {
        result = result.and(fields.append(name, &line));
    }
    if let Err(refusal) = result {
        report(name, refusal);
    }
}

fn report(name: &str, refusal: Refusal) {
    log::warn(&["could not change `", name, "`: ", &refusal.to_string()].concat());
}

#[cfg(test)]
mod tests;
