//! Which names may be changed. The host refuses the same ones at request time; a mistake is better told at load.

/// Fields by which the proxy frames and routes messages.
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

/// Checks the name of a field that shall be changed and gives it in lower case.
///
/// # Errors
/// Why it can't be.
pub(crate) fn field(name: &str) -> Result<String, String> {
    if !is_token(name) {
        return Err(format!("`{name}` is no field name"));
    }
    let lower = name.to_ascii_lowercase();
    if HOSTS.contains(&lower.as_str()) {
        let instead = if lower == "host" {
            "; use `rewrite.host`"
        } else {
            ""
        };
        return Err(format!(
            "`{name}` is the proxy's own: it frames and routes messages by it{instead}"
        ));
    }
    Ok(lower)
}

/// Checks a cookie's name.
///
/// # Errors
/// Why it can't be one.
pub(crate) fn cookie(name: &str) -> Result<String, String> {
    if is_token(name) {
        Ok(name.to_owned())
    } else {
        Err(format!("`{name}` is no cookie's name"))
    }
}

/// Whether a text is a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}
