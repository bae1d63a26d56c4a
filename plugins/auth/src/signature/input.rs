//! Reads the fields Signature-Input and Signature (RFC 9421 section 4): structured fields (RFC 9651), of which exactly what
//! signatures need is taken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The most components of a signature.
const MAX_COMPONENTS: usize = 32;

/// What a signature covers, and what is said of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) label: String,
    pub(super) components: Vec<String>,
    pub(super) created: Option<i64>,
    pub(super) expires: Option<i64>,
    pub(super) key: Option<String>,
    pub(super) algorithm: Option<String>,
    /// The list and its parameters, as they were written: the last line of what is signed.
    pub(super) parameters: String,
}

/// Reads the field of one signature: `label=("@method" "date");created=1;keyid="k"`. Components have no parameters here.
pub(super) fn read(text: &str) -> Option<Input> {
    let (label, value) = text.trim().split_once('=')?;
    if !is_key(label) {
        return None;
    }
    let (list, mut rest) = value.strip_prefix('(')?.split_once(')')?;
    let mut components: Vec<String> = Vec::new();
    for word in list.split(' ').filter(|word| !word.is_empty()) {
        let name = word.strip_prefix('"')?.strip_suffix('"')?;
        let fits = name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-@_".contains(&byte)
        });
        if !fits
            || components.iter().any(|known| known == name)
            || components.len() == MAX_COMPONENTS
        {
            return None;
        }
        components.push(name.to_owned());
    }
    let mut input = Input {
        label: label.to_owned(),
        components,
        created: None,
        expires: None,
        key: None,
        algorithm: None,
        parameters: value.to_owned(),
    };
    let mut seen: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let parameter = rest.strip_prefix(';')?;
        let (name, behind) = parameter.split_once('=')?;
        if !is_key(name) || seen.contains(&name) {
            return None;
        }
        seen.push(name);
        let (text, behind) = match behind.strip_prefix('"') {
            Some(quoted) => {
                // None of the values that count has a quote or a backslash in it.
                let (text, behind) = quoted.split_once('"')?;
                if text.contains('\\') || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
                    return None;
                }
                (Text::Quoted(text), behind)
            }
            None => {
                let end = behind.find(';').unwrap_or(behind.len());
                let (text, behind) = behind.split_at_checked(end)?;
                (Text::Plain(text), behind)
            }
        };
        match (name, text) {
            ("created", Text::Plain(text)) => input.created = Some(number(text)?),
            ("expires", Text::Plain(text)) => input.expires = Some(number(text)?),
            ("keyid", Text::Quoted(text)) => input.key = Some(text.to_owned()),
            ("alg", Text::Quoted(text)) => input.algorithm = Some(text.to_owned()),
            ("created" | "expires" | "keyid" | "alg", _) => return None,
            // `nonce`, `tag` and others are signed and mean nothing here.
            _ => {}
        }
        rest = behind;
    }
    Some(input)
}

enum Text<'a> {
    Quoted(&'a str),
    Plain(&'a str),
}

/// The signature of a label: `label=:BASE64:`, and no other.
pub(super) fn signature(text: &str, label: &str) -> Option<Vec<u8>> {
    let (found, value) = text.trim().split_once('=')?;
    let value = value.strip_prefix(':')?.strip_suffix(':')?;
    (found == label)
        .then(|| STANDARD.decode(value).ok())
        .flatten()
}

fn is_key(text: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_lowercase() || first == '*')
        && text.bytes().all(fits)
}

fn number(text: &str) -> Option<i64> {
    (text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}
