//! Who may read the admin pages: nobody who was sent there by a page of another site, under whatever name that site
//! reaches this machine (DNS rebinding). Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::uri::{Authority, Uri};
use http::{Method, StatusCode};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What it gets.
    pub(crate) status: StatusCode,
    /// In words.
    pub(crate) why: &'static str,
}

/// Whether a request may be answered.
pub(crate) fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |status, why| Err(Refusal { status, why });
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => return refuse(StatusCode::BAD_REQUEST, "exactly one Host field is needed"),
    };
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = host.filter(is_here) else {
        return refuse(
            StatusCode::FORBIDDEN,
            "the Host field must be an address or localhost",
        );
    };
    if uri.authority().is_some_and(|authority| !is_here(authority)) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the target must be an address or localhost",
        );
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|it| it.parse::<Uri>().ok());
        let same = origin.is_some_and(|origin| origin.authority() == Some(&host));
        if !same {
            return refuse(StatusCode::FORBIDDEN, "another site may not read this");
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return refuse(StatusCode::FORBIDDEN, "another site may not read this");
        }
    }
    if method != Method::GET && method != Method::HEAD {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "nothing can be changed here; use GET",
        );
    }
    Ok(())
}

/// Whether a name can't be one that another site's owner points here.
fn is_here(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match v6 {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn judge(fields: &[(&'static str, &str)]) -> Result<(), u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let uri = Uri::from_static("/config");
        check(&Method::GET, &uri, &headers).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn only_addresses_and_localhost_are_names_for_it() {
        for host in [
            "localhost",
            "LocalHost:9901",
            "127.0.0.1",
            "127.0.0.1:9901",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9901",
        ] {
            assert_eq!(judge(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1x",
            "127.1",
            "0x7f000001",
            "localhost.",
            "localhost@evil.example",
            "evil.example@localhost",
            "[::1",
            "::1",
            "[evil]",
            "",
        ] {
            assert_eq!(judge(&[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(judge(&[]), Err(400));
        assert_eq!(
            judge(&[("host", "localhost"), ("host", "localhost")]),
            Err(400)
        );
    }

    #[test]
    fn other_sites_are_refused() {
        let with = |name, value| judge(&[("host", "localhost:9901"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:9901"), Ok(()));
        for origin in ["http://evil.example", "http://localhost:3000", "null", ""] {
            assert_eq!(with("origin", origin), Err(403), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        for site in ["cross-site", "same-site", "?"] {
            assert_eq!(with("sec-fetch-site", site), Err(403), "{site}");
        }
    }

    #[test]
    fn a_foreign_name_in_the_target_is_refused_too() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let uri = Uri::from_static("http://evil.example/config");
        assert!(check(&Method::GET, &uri, &headers).is_err());
    }

    #[test]
    fn nothing_can_be_changed() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let uri = Uri::from_static("/");
        for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::PUT] {
            let refusal = check(&method, &uri, &headers).unwrap_err();
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        }
        assert!(check(&Method::HEAD, &uri, &headers).is_ok());
    }
}
