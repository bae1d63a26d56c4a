//! `[upstream.NAME]`: endpoints and their bounds. It resolves no host name.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::super::Options;
use super::super::checked::{Upstream, UpstreamTls};
use super::super::document::child;
use super::super::words::similar;
use super::super::written::{self, Written};
use super::{DAY, Resolver};
use crate::diagnostic::Mistake;
use crate::plugins::{NAME_RULE, is_name};

/// The upstream that `--upstream` names, and that a route without `upstream` takes.
pub(super) const DEFAULT: &str = "default";

/// Bounds of `max-head`.
const KIB4: u64 = 4 << 10;
const MIB: u64 = 1 << 20;

/// What stands before `://` in an endpoint.
const SCHEMES: [&str; 3] = ["http", "https", "h2c"];

/// Puts the command line's endpoints in.
pub(super) fn add_default(written: &mut Written, options: &Options) {
    if options.upstream.is_empty() {
        return;
    }
    written
        .upstream
        .entry(DEFAULT.to_owned())
        .or_insert_with(|| written::Upstream::new(Vec::new()))
        .endpoints
        .clone_from(&options.upstream);
}

impl Resolver<'_> {
    /// All upstreams, and the files of their authorities.
    pub(super) fn upstreams(&mut self) -> (Vec<Upstream>, Vec<PathBuf>) {
        let mut upstreams = Vec::new();
        let mut files = Vec::new();
        for (name, written) in &self.written.upstream {
            let pointer = child("/upstream", name);
            if !is_name(name) {
                let message = format!("`{name}` can't be the name of an upstream");
                let mistake = self.at_key(&pointer, &message).help(NAME_RULE);
                self.notes.mistake(mistake);
            }
            let at = |key: &str| format!("{pointer}/{key}");
            let connect = self.time(&at("connect-timeout"), written.connect_timeout, DAY);
            let response = self.time(&at("response-timeout"), written.response_timeout, DAY);
            let idle = self.time(&at("idle-timeout"), written.idle_timeout, DAY);
            let keep_alive = self.time(&at("keep-alive"), written.keep_alive, DAY);
            let max_age = self.time(&at("max-age"), written.max_age, DAY);
            let max_head = self.size(&at("max-head"), written.max_head, KIB4..=MIB);
            upstreams.push(Upstream {
                name: Arc::from(name.as_str()),
                endpoints: self.endpoints(name, &at("endpoints"), written),
                connect_timeout: connect,
                response_timeout: response,
                idle_timeout: idle,
                idle_connections: written.idle_connections,
                keep_alive,
                max_age,
                max_head: usize::try_from(max_head).unwrap_or(usize::MAX),
                max_fields: written.max_fields,
                tls: self.upstream_tls(&at("tls"), &written.tls, &mut files),
            });
        }
        (upstreams, files)
    }

    fn endpoints(&mut self, name: &str, pointer: &str, written: &written::Upstream) -> Vec<String> {
        let from_options = name == DEFAULT && !self.options.upstream.is_empty();
        let mut seen: Vec<&str> = Vec::new();
        for (index, text) in written.endpoints.iter().enumerate() {
            let at = format!("{pointer}/{index}");
            let wrong = match endpoint(text) {
                Ok(()) if seen.contains(&text.as_str()) => Err((
                    "stands twice".to_owned(),
                    "each endpoint gets an equal share; remove one".to_owned(),
                )),
                other => other,
            };
            seen.push(text);
            let Err((wrong, help)) = wrong else {
                continue;
            };
            let mistake = if from_options {
                Mistake::of("--upstream", &format!("`{text}` {wrong}")).help(help)
            } else if self.is_hidden(&at) {
                self.at(&at, "the value is not an endpoint")
            } else {
                self.wrong_text(&at, text, &wrong, &help)
            };
            self.notes.mistake(mistake);
        }
        written.endpoints.clone()
    }

    fn upstream_tls(
        &mut self,
        pointer: &str,
        written: &written::UpstreamTls,
        files: &mut Vec<PathBuf>,
    ) -> UpstreamTls {
        if written.insecure {
            let warning = self
                .at_key(
                    &format!("{pointer}/insecure"),
                    "certificates of this upstream are not checked: whoever sits in between can read and change \
                     everything",
                )
                .help("name its authority instead: `ca = \"ca.pem\"`");
            self.notes.warn(warning);
        }
        if let Some(name) = &written.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            let at = format!("{pointer}/server-name");
            let shown = self.quoted(&at, name);
            let mistake = self.at(&at, &format!("{shown} is not the name of a host"));
            self.notes.mistake(mistake);
        }
        let authorities = written.ca.as_ref().and_then(|file| {
            let file = self.base.join(file);
            let authorities = self.authorities(&format!("{pointer}/ca"), &file);
            files.push(file);
            authorities
        });
        UpstreamTls {
            authorities,
            server_name: written.server_name.clone(),
            insecure: written.insecure,
        }
    }
}

/// Whether a text is an endpoint; the error is what is wrong with it, and a remedy.
fn endpoint(text: &str) -> Result<(), (String, String)> {
    let example = || "write it as \"http://127.0.0.1:9000\"".to_owned();
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = if text.is_empty() || text.contains('/') {
            example()
        } else {
            format!("write it as \"http://{text}\"")
        };
        return Err(("is not a URL".to_owned(), help));
    };
    if !SCHEMES.contains(&scheme) {
        let help = match similar(scheme, SCHEMES) {
            Some(near) => format!("did you mean \"{near}://{rest}\"?"),
            None => "there are `http://`, `https://` and `h2c://` (HTTP/2 without TLS)".to_owned(),
        };
        return Err((
            format!("begins with `{scheme}://`, which is not spoken"),
            help,
        ));
    }
    let (authority, behind) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err((
            "holds a user's name".to_owned(),
            "let a filter set `authorization`".to_owned(),
        ));
    }
    if !matches!(behind, "" | "/") {
        return Err((
            "has a path".to_owned(),
            format!("write \"{scheme}://{authority}\"; the request's own path is used"),
        ));
    }
    match authority.parse::<http::uri::Authority>() {
        Ok(parsed) if !parsed.host().is_empty() && port_is_valid(&parsed) => Ok(()),
        _ => Err(("has no valid host and port".to_owned(), example())),
    }
}

fn port_is_valid(authority: &http::uri::Authority) -> bool {
    let behind = authority.as_str().strip_prefix(authority.host());
    match behind {
        Some("") => true,
        Some(_) => authority.port_u16().is_some_and(|port| port != 0),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_scheme_and_a_host_and_no_more() {
        for text in [
            "http://127.0.0.1:9000",
            "https://example.com/",
            "h2c://[::1]:50051",
            "http://users",
        ] {
            assert_eq!(endpoint(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:9000",
            "tcp://a:1",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u:p@a",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://a b",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert!(endpoint("htps://a").unwrap_err().1.contains("https://a"));
    }
}
