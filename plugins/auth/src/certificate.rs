//! Client certificates as credentials. The listener has verified them; here it is said whose they are. Knows no TLS.

use tidegate_sdk::CertificateFacts;
use tidegate_sdk::prelude::*;

use crate::config::{CertificateConfig, CertificateName};
use crate::identity::Identity;
use crate::refused::Refused;

/// Whose certificates are taken.
#[derive(Debug)]
pub(crate) struct Certificates {
    consumer: CertificateName,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    /// Whether longer names are meant too.
    begins: bool,
    consumer: Option<String>,
    roles: Vec<String>,
}

impl Certificates {
    /// # Errors
    /// Which rule is wrong, and how to put it right.
    pub(crate) fn new(config: &CertificateConfig) -> Result<Self, String> {
        let rules = config.allow.iter().enumerate().map(|(index, rule)| {
            let shortened = rule.name.strip_suffix('*');
            let name = shortened.unwrap_or(&rule.name);
            if name.is_empty() {
                return Err(format!(
                    "`client-certificate.allow[{index}].name` names nobody; leave `allow` out to take every certificate that was verified"
                ));
            }
            Ok(Rule {
                name: name.to_owned(),
                begins: shortened.is_some(),
                consumer: rule.consumer.clone(),
                roles: rule.roles.clone(),
            })
        });
        Ok(Certificates {
            consumer: config.consumer.unwrap_or(CertificateName::Subject),
            rules: rules.collect::<Result<_, String>>()?,
        })
    }

    /// Who asks, if the client has shown a certificate.
    ///
    /// # Errors
    /// [`Refused::Certificate`] for one that has no such name, or whose name nobody has allowed.
    pub(crate) fn identify(&self, request: &RequestHead) -> Result<Option<Identity>, Refused> {
        let Some(facts) = request.client_certificate() else {
            return Ok(None);
        };
        let name = self.name(facts).ok_or(Refused::Certificate)?;
        if self.rules.is_empty() {
            return Ok(Some(Identity::new(name, Vec::new())));
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.name == name || (rule.begins && name.starts_with(&rule.name)))
            .ok_or(Refused::Certificate)?;
        let consumer = rule.consumer.clone().unwrap_or(name);
        Ok(Some(Identity::new(consumer, rule.roles.clone())))
    }

    /// The name that the operator goes by.
    fn name(&self, facts: CertificateFacts) -> Option<String> {
        let first = |names: Vec<String>| names.into_iter().next();
        let name = match self.consumer {
            CertificateName::Subject => Some(facts.subject),
            CertificateName::CommonName => common_name(&facts.subject),
            CertificateName::Dns => first(facts.dns_names),
            CertificateName::Uri => first(facts.uris),
            CertificateName::Spiffe => spiffe(facts.uris),
            CertificateName::Email => first(facts.emails),
            CertificateName::Fingerprint => Some(facts.sha256),
        };
        name.filter(|name| !name.is_empty())
    }
}

/// The first common name of a distinguished name (RFC 4514). One with escapes in it is not read: a comma that is part of the name
/// would look like its end.
fn common_name(subject: &str) -> Option<String> {
    if subject.contains('\\') {
        return None;
    }
    let name = subject
        .split([',', '+'])
        .find_map(|part| part.trim_start().strip_prefix("CN="))?;
    Some(name.to_owned())
}

/// The SPIFFE id: the only URI, which has a trust domain and no query (SPIFFE X.509-SVID section 2).
fn spiffe(uris: Vec<String>) -> Option<String> {
    let [id] = <[String; 1]>::try_from(uris).ok()?;
    let rest = id.strip_prefix("spiffe://")?;
    let fits =
        !rest.starts_with('/') && !rest.is_empty() && !rest.contains(['?', '#', '%', '@', ':']);
    fits.then_some(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_sdk::test::{Harness, Request};

    use super::*;
    use crate::Auth;

    fn facts() -> CertificateFacts {
        CertificateFacts {
            subject: "CN=client,O=Example".to_owned(),
            sha256: "ab".repeat(32),
            dns_names: vec!["a.example".to_owned()],
            uris: vec!["spiffe://example.org/billing".to_owned()],
            emails: vec!["ada@example.org".to_owned()],
            ..CertificateFacts::default()
        }
    }

    fn ask(config: serde_json::Value, facts: Option<CertificateFacts>) -> Result<String, u16> {
        let mut auth = Harness::<Auth>::new(json!({ "client-certificate": config })).unwrap();
        let mut request = Request::get("/").field("x-consumer", "root");
        if let Some(facts) = facts {
            request = request.client_certificate(facts);
        }
        let outcome = auth.request(request);
        match outcome.answer {
            Some(answer) => Err(answer.status),
            None => Ok(format!(
                "{} {}",
                outcome.field("x-consumer").unwrap_or_default(),
                outcome.field("x-roles").unwrap_or_default()
            )),
        }
    }

    #[test]
    fn the_operator_says_which_name_counts() {
        for (name, expected) in [
            ("subject", "CN=client,O=Example "),
            ("common-name", "client "),
            ("dns", "a.example "),
            ("uri", "spiffe://example.org/billing "),
            ("spiffe", "spiffe://example.org/billing "),
            ("email", "ada@example.org "),
        ] {
            let found = ask(json!({ "consumer": name }), Some(facts()));
            assert_eq!(found.as_deref(), Ok(expected), "{name}");
        }
        assert_eq!(ask(json!({}), None), Err(401));
    }

    #[test]
    fn only_allowed_names_pass_with_their_roles() {
        let config = |name: &str| json!({"consumer": "spiffe", "allow": [{"name": name, "consumer": "billing", "roles": ["pay"]}]});
        for name in ["spiffe://example.org/billing", "spiffe://example.org/*"] {
            assert_eq!(
                ask(config(name), Some(facts())).as_deref(),
                Ok("billing pay")
            );
        }
        assert_eq!(
            ask(config("spiffe://example.org/bill"), Some(facts())),
            Err(403)
        );
    }

    #[test]
    fn a_name_that_is_not_there_or_not_plain_is_nobodys() {
        for (name, change) in [
            (
                "dns",
                CertificateFacts {
                    dns_names: vec![],
                    ..facts()
                },
            ),
            (
                "common-name",
                CertificateFacts {
                    subject: "O=x\\,CN=admin".to_owned(),
                    ..facts()
                },
            ),
            (
                "spiffe",
                CertificateFacts {
                    uris: vec!["https://a.example".to_owned()],
                    ..facts()
                },
            ),
            (
                "spiffe",
                CertificateFacts {
                    uris: vec!["spiffe://a/b".to_owned(), "spiffe://a/c".to_owned()],
                    ..facts()
                },
            ),
        ] {
            assert_eq!(
                ask(json!({ "consumer": name }), Some(change)),
                Err(403),
                "{name}"
            );
        }
    }
}
