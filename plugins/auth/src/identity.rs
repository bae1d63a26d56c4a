//! Who asks, and how the upstream and later filters are told: fields that nobody else can have set, and properties. Knows no
//! method.

use tidegate_sdk::prelude::*;

use crate::config::HeadersConfig;
use crate::place::field_name;

/// Who asks, ready to be passed on: everything that can be put together beforehand is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    /// The roles as they are passed on; empty for none.
    joined: String,
    /// Further fields.
    pub(crate) fields: Vec<(String, String)>,
    /// Further properties.
    pub(crate) properties: Vec<(String, String)>,
}

impl Identity {
    /// A role with a comma in it would be two: such a one is left out.
    pub(crate) fn new(name: String, mut roles: Vec<String>) -> Self {
        roles.retain(|role| !role.is_empty() && !role.contains(','));
        Identity {
            name,
            joined: roles.join(","),
            roles,
            ..Identity::default()
        }
    }
}

/// The fields that tell who asks.
#[derive(Debug)]
pub(crate) struct Outgoing {
    consumer: String,
    roles: String,
    method: String,
    /// Every spelling of every such field, unless there are too many to ask for each.
    spellings: Vec<String>,
    /// The fields that have too many: compared with each field that there is.
    many: Vec<String>,
}

/// The most spellings that are asked for one by one.
const SPELLINGS: usize = 24;

impl Outgoing {
    /// `others` are fields that methods fill.
    ///
    /// # Errors
    /// A name that no field can have.
    pub(crate) fn new(
        config: &HeadersConfig,
        others: impl Iterator<Item = String>,
    ) -> Result<Self, String> {
        let name = |own: &Option<String>, key, default: &str| match own.as_deref() {
            None => Ok(default.to_owned()),
            Some("") => Ok(String::new()),
            Some(own) => field_name(own, key),
        };
        let mut outgoing = Outgoing {
            consumer: name(&config.consumer, "headers.consumer", "x-consumer")?,
            roles: name(&config.roles, "headers.roles", "x-roles")?,
            method: name(&config.method, "headers.method", "")?,
            spellings: Vec::new(),
            many: Vec::new(),
        };
        let own = [&outgoing.consumer, &outgoing.roles, &outgoing.method];
        let mut names: Vec<String> = own.into_iter().cloned().chain(others).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        for name in names {
            let hyphens = name.bytes().filter(|byte| *byte == b'-').count();
            if hyphens < 4 && outgoing.spellings.len() + (1 << hyphens) <= SPELLINGS {
                outgoing.spellings.extend(spellings(&name));
            } else {
                outgoing.many.push(name);
            }
        }
        Ok(outgoing)
    }

    /// Takes out what a client says of its own identity, whichever way it is spelled: upstreams that read fields as variables
    /// take `X_Consumer` and `X-Consumer` for one.
    pub(crate) fn remove_claimed(&self, request: &mut RequestHead) {
        for name in &self.spellings {
            let _ = request.remove(name);
        }
        if self.many.is_empty() {
            return;
        }
        let claimed: Vec<String> = request
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.many.iter().any(|own| reads_as(name, own)))
            .collect();
        for name in claimed {
            let _ = request.remove(&name);
        }
    }

    /// Tells the upstream and later filters who asks, and how that was found out.
    pub(crate) fn pass_on(
        &self,
        request: &mut RequestHead,
        identity: &Identity,
        method: &'static str,
    ) {
        let Identity {
            name,
            joined,
            fields,
            properties,
            ..
        } = identity;
        let _ = request.set_property("auth-method", method);
        if !name.is_empty() {
            set(request, &self.consumer, name);
            let _ = request.set_property("consumer", name);
        }
        if !joined.is_empty() {
            set(request, &self.roles, joined);
            let _ = request.set_property("roles", joined);
        }
        set(request, &self.method, method);
        for (field, value) in fields {
            set(request, field, value);
        }
        for (property, value) in properties {
            if let Err(refusal) = request.set_property(property, value) {
                log::warn!("the property `{property}` could not be set: {refusal}");
            }
        }
    }
}

/// Sets a field, if there is to be one of that name.
fn set(request: &mut RequestHead, name: &str, value: &str) {
    if name.is_empty() {
        return;
    }
    // A value with control characters in it is left out rather than cut: half a name is another name.
    if let Err(refusal) = request.set(name, value) {
        log::warn!("`{name}` could not be passed on: {refusal}");
    }
}

/// A name with each of its hyphens as it is, and as an underscore.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![String::with_capacity(name.len())];
    for letter in name.chars() {
        if letter == '-' {
            let mut others = all.clone();
            others.iter_mut().for_each(|one| one.push('_'));
            all.iter_mut().for_each(|one| one.push('-'));
            all.append(&mut others);
        } else {
            all.iter_mut().for_each(|one| one.push(letter));
        }
    }
    all
}

/// Whether servers may take a field for `own`, which has hyphens only.
fn reads_as(name: &str, own: &str) -> bool {
    name.len() == own.len()
        && name.bytes().zip(own.bytes()).all(|(given, own)| {
            let given = if given == b'_' { b'-' } else { given };
            given.eq_ignore_ascii_case(&own)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_in_every_way() {
        let mut all = spellings("x-a-b");
        all.sort_unstable();
        assert_eq!(all, ["x-a-b", "x-a_b", "x_a-b", "x_a_b"]);
        assert!(reads_as("X_a-B", "x-a-b"));
        assert!(!reads_as("x-a-c", "x-a-b"));
        assert!(!reads_as("x-a-bb", "x-a-b"));
    }

    #[test]
    fn a_role_with_a_comma_is_not_two() {
        let roles = ["a", "b,admin", ""].map(str::to_owned).to_vec();
        let identity = Identity::new("ada".to_owned(), roles);
        assert_eq!((identity.joined.as_str(), identity.roles.len()), ("a", 1));
    }
}
