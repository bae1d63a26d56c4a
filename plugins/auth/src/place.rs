//! Where credentials stand in a request: fields, the query, cookies. Finds them, counts them, takes them out; knows nothing of
//! what they mean.

use tidegate_sdk::prelude::*;

use crate::config::TokenPlace;
use crate::refused::Refused;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Authorization, with the scheme Bearer.
    Bearer,
    /// The whole value of a field.
    Field(String),
    Query(String),
    Cookie(String),
}

impl Place {
    /// # Errors
    /// A name that no field can have.
    pub(crate) fn read(place: &TokenPlace, key: &str) -> Result<Self, String> {
        Ok(match place {
            TokenPlace::Header(name) if name.eq_ignore_ascii_case("authorization") => Place::Bearer,
            TokenPlace::Header(name) => Place::Field(field_name(name, key)?),
            TokenPlace::Query(name) => Place::Query(name.clone()),
            TokenPlace::Cookie(name) => Place::Cookie(name.clone()),
        })
    }

    /// The places of a token: those that are configured, else Authorization.
    ///
    /// # Errors
    /// A name that no field can have.
    pub(crate) fn of_tokens(from: &[TokenPlace], key: &str) -> Result<Vec<Self>, String> {
        if from.is_empty() {
            return Ok(vec![Place::Bearer]);
        }
        from.iter().map(|place| Place::read(place, key)).collect()
    }

    /// Adds what stands here.
    fn find(&self, request: &RequestHead, found: &mut Vec<Vec<u8>>) -> Result<(), Refused> {
        match self {
            Place::Bearer => found.extend(bearer(request)?),
            Place::Field(name) => found.append(&mut request.get_all(name)),
            Place::Query(name) => {
                if let Some(query) = request.query() {
                    found.extend(parameters(&query, name));
                }
            }
            Place::Cookie(name) => {
                for cookies in request.get_all("cookie") {
                    found.extend(cookie(&cookies, name));
                }
            }
        }
        Ok(())
    }

    /// Takes out what stands here.
    pub(crate) fn hide(&self, request: &mut RequestHead) {
        match self {
            Place::Bearer => {
                let _ = request.remove("authorization");
            }
            Place::Field(name) => {
                let _ = request.remove(name);
            }
            Place::Query(name) => hide_parameter(request, name),
            Place::Cookie(name) => hide_cookie(request, name),
        }
    }
}

/// The one credential that stands at some places; none if there is none.
///
/// # Errors
/// [`Refused::Ambiguous`] for more than one: nobody can say which one counts.
pub(crate) fn only(places: &[Place], request: &RequestHead) -> Result<Option<Vec<u8>>, Refused> {
    let mut found = Vec::new();
    for place in places {
        place.find(request, &mut found)?;
    }
    let first = found.pop();
    if found.is_empty() {
        Ok(first)
    } else {
        Err(Refused::Ambiguous)
    }
}

/// The one value of Authorization behind a scheme.
///
/// # Errors
/// [`Refused::Ambiguous`] for a second Authorization field, of whatever scheme.
pub(crate) fn authorization(
    request: &RequestHead,
    scheme: &str,
) -> Result<Option<Vec<u8>>, Refused> {
    let mut values = request.get_all("authorization");
    let Some(mut value) = values.pop() else {
        return Ok(None);
    };
    if !values.is_empty() {
        return Err(Refused::Ambiguous);
    }
    let named = value
        .get(..scheme.len())
        .is_some_and(|begins| begins.eq_ignore_ascii_case(scheme.as_bytes()));
    match value.get(scheme.len()) {
        Some(b' ') if named => {}
        // The scheme alone is a credential that says nothing.
        None if named => return Ok(Some(Vec::new())),
        _ => return Ok(None),
    }
    let spaces = value
        .iter()
        .skip(scheme.len())
        .take_while(|byte| **byte == b' ')
        .count();
    value.drain(..scheme.len() + spaces);
    Ok(Some(value))
}

/// A bearer token (RFC 6750 section 2.1).
fn bearer(request: &RequestHead) -> Result<Option<Vec<u8>>, Refused> {
    let token = authorization(request, "Bearer")?;
    match &token {
        Some(token) if token.iter().any(|byte| matches!(byte, b' ' | b',')) => {
            Err(Refused::Ambiguous)
        }
        _ => Ok(token),
    }
}

/// A field's name in lower case.
///
/// # Errors
/// What is wrong with it, under the key that holds it.
pub(crate) fn field_name(name: &str, key: &str) -> Result<String, String> {
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(format!(
            "`{key}`: `{name}` must be a field name of letters, digits and hyphens"
        ))
    }
}

/// All values of a query's parameter, with `%XX` decoded.
fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is(key, name).then(|| decode(value))
    })
}

/// Whether a part of a query stands for a name, however it is escaped.
fn is(key: &str, name: &str) -> bool {
    key == name || (key.contains(['%', '+']) && decode(key) == name.as_bytes())
}

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    out
}

fn hide_parameter(request: &mut RequestHead, name: &str) {
    let Some(query) = request.query() else {
        return;
    };
    let mut rest = String::with_capacity(query.len());
    for pair in query.split('&') {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        if !is(key, name) {
            if !rest.is_empty() {
                rest.push('&');
            }
            rest.push_str(pair);
        }
    }
    if rest.len() != query.len() {
        let rest = Some(rest.as_str()).filter(|rest| !rest.is_empty());
        if let Err(refusal) = request.set_query(rest) {
            log::warn!("the key stays in the query: {refusal}");
        }
    }
}

/// Each cookie of a field, as its name and value.
fn pairs(cookies: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cookies.split(|byte| *byte == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let middle = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(middle)?;
        Some((name, value.get(1..)?))
    })
}

fn cookie(cookies: &[u8], name: &str) -> Vec<Vec<u8>> {
    pairs(cookies)
        .filter(|(known, _)| *known == name.as_bytes())
        .map(|(_, value)| {
            let quoted = value
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""));
            quoted.unwrap_or(value).to_vec()
        })
        .collect()
}

fn hide_cookie(request: &mut RequestHead, name: &str) {
    let mut rest: Vec<u8> = Vec::new();
    let mut gone = false;
    for cookies in request.get_all("cookie") {
        for (known, value) in pairs(&cookies) {
            if known == name.as_bytes() {
                gone = true;
                continue;
            }
            if !rest.is_empty() {
                rest.extend_from_slice(b"; ");
            }
            rest.extend_from_slice(known);
            rest.push(b'=');
            rest.extend_from_slice(value);
        }
    }
    if !gone {
        return;
    }
    let _ = if rest.is_empty() {
        request.remove("cookie").map(|_| ())
    } else {
        request.set("cookie", &rest)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_however_they_are_escaped() {
        let found: Vec<_> = parameters("a=1&%61=2%20x+y&b=3&a", "a").collect();
        assert_eq!(found, [&b"1"[..], b"2 x y", b""]);
        assert_eq!(decode("%zz%4"), b"%zz%4");
    }

    #[test]
    fn cookies_are_found_among_others() {
        assert_eq!(cookie(b"a=1; key=x=y; b", "key"), [b"x=y"]);
        assert_eq!(cookie(b"key=\"q\";key=r", "key"), [b"q", b"r"]);
        assert!(cookie(b"xkey=1; k=2", "key").is_empty());
    }
}
