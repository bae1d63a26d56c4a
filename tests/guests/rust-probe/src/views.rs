//! What a command can ask for in one phase only: its fields, its head, its piece of a body. It must not know services.

use tidegate_sdk::prelude::*;

use crate::verbs::{Outcome, optional, result, shown};

/// A view of an exchange, whichever phase it is.
pub(crate) trait View {
    /// Runs a command that this phase has; none if it has no such verb.
    fn verb(&mut self, words: &[&str]) -> Option<Outcome>;
    /// A fact that takes no argument.
    fn fact(&self, name: &str) -> Option<String>;
    fn property(&self, name: &str) -> Option<Vec<u8>>;
    fn set_property(&self, name: &str, value: &str) -> Result<(), Refusal>;
    fn path_parameter(&self, name: &str) -> Option<String>;
    fn request_field(&self, name: &str) -> Option<Vec<u8>>;
}

/// The view of an exchange that is over: it can't be changed.
pub(crate) struct Over<'a>(pub(crate) &'a Ended);

fn list(fields: impl Iterator<Item = (String, Vec<u8>)>) -> String {
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", shown(&value)))
        .collect();
    fields.join(" ")
}

/// Every field of a head or of trailers.
macro_rules! fields {
    ($view:ident, $words:ident) => {
        match *$words {
            ["get", name] => Some(optional($view.get(name))),
            ["get-all", name] => {
                let values: Vec<_> = $view
                    .get_all(name)
                    .iter()
                    .map(|value| shown(value))
                    .collect();
                Some(values.join(" "))
            }
            ["all"] => Some(list($view.iter())),
            ["fields"] => Some($view.count().to_string()),
            ["at", index] => {
                let field = $view.at(index.parse().unwrap_or(u32::MAX));
                Some(field.map_or_else(|| "none".to_owned(), |field| list([field].into_iter())))
            }
            ["set", name, value] => Some(result($view.set(name, value))),
            ["append", name, value] => Some(result($view.append(name, value))),
            ["remove", name] => Some(result($view.remove(name))),
            _ => None,
        }
    };
}

/// The request line as long as it can be changed.
macro_rules! line {
    ($view:ident, $words:ident) => {
        match *$words {
            ["set-method", method] => Some(result($view.set_method(method))),
            ["set-scheme", scheme] => Some(result($view.set_scheme(scheme))),
            ["set-authority", authority] => Some(result($view.set_authority(authority))),
            ["set-path", path] => Some(result($view.set_path(path))),
            ["set-query"] => Some(result($view.set_query(None))),
            ["set-query", query] => Some(result($view.set_query(Some(query)))),
            ["delay", milliseconds] => Some(result(
                $view.delay(milliseconds.parse().unwrap_or_default()),
            )),
            _ => None,
        }
    };
}

/// The response's status.
macro_rules! status {
    ($view:ident, $words:ident) => {
        match *$words {
            ["status"] => Some($view.status().to_string()),
            ["set-status", status] => {
                Some(result($view.set_status(status.parse().unwrap_or_default())))
            }
            _ => None,
        }
    };
}

/// A piece of a body, and the head that may still be here.
macro_rules! body {
    ($view:ident, $words:ident) => {
        match *$words {
            ["length"] => Some(format!("{} {}", $view.len(), $view.is_end())),
            ["read"] => Some(shown(&$view.read())),
            ["read", offset, max] => {
                let [offset, max] = [offset, max].map(|word| word.parse().unwrap_or_default());
                Some(shown(&$view.read_at(offset, max)))
            }
            ["replace"] => {
                $view.replace("");
                Some("ok".to_owned())
            }
            ["replace", bytes] => {
                $view.replace(bytes);
                Some("ok".to_owned())
            }
            ["upper"] => {
                let bytes = $view.read().to_ascii_uppercase();
                $view.replace(&bytes);
                Some("ok".to_owned())
            }
            ["add", bytes] => {
                $view.append(bytes);
                Some("ok".to_owned())
            }
            ["get", name] => Some(optional($view.get(name))),
            ["set", name, value] => Some(result($view.set(name, value))),
            ["append", name, value] => Some(result($view.append_field(name, value))),
            ["remove", name] => Some(result($view.remove(name))),
            _ => None,
        }
    };
}

macro_rules! end {
    ($view:ident, $words:ident) => {
        matches!(*$words, ["end"]).then(|| $view.is_end().to_string())
    };
}

macro_rules! view {
    ($ty:ty, |$this:ident, $words:ident| $verb:expr, |$inner:ident| $facts:expr) => {
        impl View for $ty {
            fn verb(&mut self, $words: &[&str]) -> Option<Outcome> {
                let $this = self;
                $verb.map(Outcome::Text)
            }

            fn fact(&self, name: &str) -> Option<String> {
                let $inner = self;
                let view = $facts;
                Some(match name {
                    "method" => view.method(),
                    "scheme" => view.scheme(),
                    "authority" => view.authority(),
                    "path" => view.path(),
                    "query" => view.query().unwrap_or_else(|| "none".to_owned()),
                    "client" => view.client_address(),
                    "port" => view.client_port().to_string(),
                    "protocol" => view.protocol(),
                    "route" => view.route(),
                    "request-id" => view.request_id(),
                    "elapsed" => view.elapsed().to_string(),
                    "certificate" => view
                        .client_certificate()
                        .map_or_else(|| "none".to_owned(), |facts| format!("{facts:?}")),
                    "tls" => view.tls().map_or_else(
                        || "none".to_owned(),
                        |tls| {
                            let server = tls.server_name.as_deref().unwrap_or("none");
                            let alpn = tls.alpn.as_deref().unwrap_or("none");
                            format!("{} {} {server} {alpn}", tls.version, tls.cipher)
                        },
                    ),
                    _ => return None,
                })
            }

            fn property(&self, name: &str) -> Option<Vec<u8>> {
                let $inner = self;
                $facts.property(name)
            }

            fn set_property(&self, name: &str, value: &str) -> Result<(), Refusal> {
                let $inner = self;
                $facts.set_property(name, value)
            }

            fn path_parameter(&self, name: &str) -> Option<String> {
                let $inner = self;
                $facts.path_parameter(name)
            }

            fn request_field(&self, name: &str) -> Option<Vec<u8>> {
                let $inner = self;
                $facts.request_field(name)
            }
        }
    };
}

view!(
    RequestHead,
    |view, words| fields!(view, words)
        .or_else(|| line!(view, words))
        .or_else(|| end!(view, words)),
    |view| view
);
view!(
    RequestBody,
    |view, words| body!(view, words).or_else(|| line!(view, words)),
    |view| view
);
view!(
    RequestTrailers,
    |view, words| fields!(view, words),
    |view| view
);
view!(
    ResponseHead,
    |view, words| fields!(view, words)
        .or_else(|| status!(view, words))
        .or_else(|| end!(view, words)),
    |view| view
);
view!(
    ResponseBody,
    |view, words| body!(view, words).or_else(|| status!(view, words)),
    |view| view
);
view!(
    ResponseTrailers,
    |view, words| fields!(view, words),
    |view| view
);
view!(
    Over<'_>,
    |view, words| match *words {
        ["status"] => Some(view.0.status().to_string()),
        ["get", name] => Some(optional(view.0.response_field(name))),
        _ => None,
    },
    |view| view.0
);
