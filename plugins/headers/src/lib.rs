//! Sets, appends, removes and renames header fields on the way in and out, and rewrites the path's beginning.

mod template;

use std::collections::BTreeMap;

use tidegate_sdk::prelude::*;

use crate::template::{Source, Template};

/// What the operator configures.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// What is done to the request, before it goes to the upstream.
    #[serde(default)]
    pub request: Rules,
    /// What is done to the response, the proxy's own answers included.
    #[serde(default)]
    pub response: Rules,
    /// How the path's beginning is rewritten.
    pub path: Option<PathRule>,
}

/// Changes of one direction, done in this order: remove, rename, set, append.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rules {
    /// Fields that are removed, all values of each.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Old names and new ones; every value moves.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Fields that get one value in place of all they had. Values may hold `{...}`.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Fields that get one value more. Values may hold `{...}`.
    #[serde(default)]
    pub append: BTreeMap<String, String>,
}

/// How the path's beginning is rewritten.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PathRule {
    /// The beginning that is taken away, at a segment's end. Other paths stay as they are.
    pub strip_prefix: Option<String>,
    /// The beginning that is put before.
    pub add_prefix: Option<String>,
}

/// Rules as they are carried out.
#[derive(Debug, Default)]
struct Compiled {
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    set: Vec<(String, Template)>,
    append: Vec<(String, Template)>,
}

/// The filter.
#[derive(Debug)]
pub struct Headers {
    request: Compiled,
    response: Compiled,
    strip: Option<String>,
    add: Option<String>,
}

#[filter(
    name = "headers",
    description = "Sets, appends, removes and renames header fields; rewrites the path's beginning."
)]
impl Filter for Headers {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        let path = config.path.unwrap_or(PathRule {
            strip_prefix: None,
            add_prefix: None,
        });
        Ok(Headers {
            request: compile("request", config.request)?,
            response: compile("response", config.response)?,
            strip: path
                .strip_prefix
                .map(|prefix| prefix_of("path.strip-prefix", &prefix))
                .transpose()?,
            add: path
                .add_prefix
                .map(|prefix| prefix_of("path.add-prefix", &prefix))
                .transpose()?,
        })
    }

    fn interests(&self, interests: &mut Interests) {
        if self.response.is_empty() {
            interests.remove(Phase::ResponseHead);
        }
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        for name in &self.request.remove {
            report("remove", name, request.remove(name).map(drop));
        }
        for (old, new) in &self.request.rename {
            let values = request.get_all(old);
            if !values.is_empty() {
                report("rename", old, request.remove(old).map(drop));
                for value in values {
                    report("rename", new, request.append(new, value));
                }
            }
        }
        for (name, template) in &self.request.set {
            let value = template.render(|source, out| fill(source, request, out));
            report("set", name, request.set(name, value));
        }
        for (name, template) in &self.request.append {
            let value = template.render(|source, out| fill(source, request, out));
            report("append", name, request.append(name, value));
        }
        if self.strip.is_some() || self.add.is_some() {
            let path = request.path();
            if let Some(rewritten) = rewrite(&path, self.strip.as_deref(), self.add.as_deref()) {
                report("rewrite", "path", request.set_path(&rewritten));
            }
        }
        Flow::Continue
    }

    fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
        for name in &self.response.remove {
            report("remove", name, response.remove(name).map(drop));
        }
        for (old, new) in &self.response.rename {
            let values = response.get_all(old);
            if !values.is_empty() {
                report("rename", old, response.remove(old).map(drop));
                for value in values {
                    report("rename", new, response.append(new, value));
                }
            }
        }
        for (name, template) in &self.response.set {
            let value = template.render(|source, out| fill_response(source, response, out));
            report("set", name, response.set(name, value));
        }
        for (name, template) in &self.response.append {
            let value = template.render(|source, out| fill_response(source, response, out));
            report("append", name, response.append(name, value));
        }
        Flow::Continue
    }
}

impl Compiled {
    fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.set.is_empty()
            && self.append.is_empty()
    }
}

fn compile(direction: &str, rules: Rules) -> Result<Compiled, String> {
    let place = |verb: &str| format!("{direction}.{verb}");
    let templates = |verb: &str, rules: BTreeMap<String, String>| {
        rules
            .into_iter()
            .map(|(name, value)| {
                check_name(&place(verb), &name)?;
                let template = Template::parse(&value)
                    .map_err(|error| format!("{}.{name}: {error}", place(verb)))?;
                if template.literal().is_some_and(|text| {
                    text.bytes()
                        .any(|byte| byte.is_ascii_control() && byte != b'\t')
                }) {
                    return Err(format!(
                        "{}.{name}: a value can't hold a control character",
                        place(verb)
                    ));
                }
                Ok((name.to_ascii_lowercase(), template))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    for name in &rules.remove {
        check_name(&place("remove"), name)?;
    }
    for (old, new) in &rules.rename {
        check_name(&place("rename"), old)?;
        check_name(&place("rename"), new)?;
    }
    Ok(Compiled {
        remove: rules.remove,
        rename: rules.rename.into_iter().collect(),
        set: templates("set", rules.set)?,
        append: templates("append", rules.append)?,
    })
}

/// Names that a filter may change; the host refuses the same ones, but a mistake is better told at load.
fn check_name(place: &str, name: &str) -> Result<(), String> {
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
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{place}: `{name}` is no field name"));
    }
    if HOSTS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!(
            "{place}: `{name}` is the proxy's own: it frames and routes messages by it"
        ));
    }
    Ok(())
}

fn prefix_of(place: &str, prefix: &str) -> Result<String, String> {
    let trimmed = prefix.trim_end_matches('/');
    if !prefix.starts_with('/') || prefix.contains(['?', '#']) {
        return Err(format!(
            "{place}: `{prefix}` must be a path that begins with `/`"
        ));
    }
    Ok(trimmed.to_owned())
}

/// The path with its beginning rewritten, or none if it stays as it is.
fn rewrite(path: &str, strip: Option<&str>, add: Option<&str>) -> Option<String> {
    let rest = match strip {
        None => path,
        Some(prefix) => {
            let rest = path.strip_prefix(prefix)?;
            if !rest.is_empty() && !rest.starts_with('/') {
                return None;
            }
            rest
        }
    };
    let rewritten = format!("{}{rest}", add.unwrap_or_default());
    Some(if rewritten.is_empty() {
        "/".to_owned()
    } else {
        rewritten
    })
}

fn report(verb: &str, name: &str, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        log::warn(&format!("could not {verb} `{name}`: {refusal}"));
    }
}

fn fill(source: &Source, request: &RequestHead, out: &mut Vec<u8>) {
    match source {
        Source::ClientAddress => out.extend(request.client_address().into_bytes()),
        Source::Route => out.extend(request.route().into_bytes()),
        Source::RequestId => out.extend(request.request_id().into_bytes()),
        Source::Method => out.extend(request.method().into_bytes()),
        Source::Path => out.extend(request.path().into_bytes()),
        Source::Query => out.extend(request.query().unwrap_or_default().into_bytes()),
        Source::Host => out.extend(request.authority().into_bytes()),
        Source::Scheme => out.extend(request.scheme().into_bytes()),
        Source::Parameter(name) => out.extend(
            request
                .path_parameter(name)
                .unwrap_or_default()
                .into_bytes(),
        ),
        Source::Header(name) => out.extend(request.get(name).unwrap_or_default()),
        Source::Response(_) => {}
        Source::Property(name) => out.extend(request.property(name).unwrap_or_default()),
    }
}

fn fill_response(source: &Source, response: &ResponseHead, out: &mut Vec<u8>) {
    match source {
        Source::ClientAddress => out.extend(response.client_address().into_bytes()),
        Source::Route => out.extend(response.route().into_bytes()),
        Source::RequestId => out.extend(response.request_id().into_bytes()),
        Source::Method => out.extend(response.method().into_bytes()),
        Source::Path => out.extend(response.path().into_bytes()),
        Source::Query => out.extend(response.query().unwrap_or_default().into_bytes()),
        Source::Host => out.extend(response.authority().into_bytes()),
        Source::Scheme => out.extend(response.scheme().into_bytes()),
        Source::Parameter(name) => out.extend(
            response
                .path_parameter(name)
                .unwrap_or_default()
                .into_bytes(),
        ),
        Source::Header(name) => out.extend(response.request_field(name).unwrap_or_default()),
        Source::Response(name) => out.extend(response.get(name).unwrap_or_default()),
        Source::Property(name) => out.extend(response.property(name).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
