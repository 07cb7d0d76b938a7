//! The check of a request's head, and its bearer token.

use http::{HeaderMap, Method, Uri, Version, header, request::Parts};

use crate::{error::Error, http::problem::ApiError};

/// The limits of a head: the length of the target, the number of headers, their total length.
/// Servers reject a head of twice the size, without a problem body.
const TARGET_BYTES: usize = 8 << 10;
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 << 10;

/// Rejects requests that RFC 9112 and RFC 9110 forbid but HTTP servers accept by default. Required:
/// exactly one valid Host on HTTP/1.1 (RFC 9112, section 3.2); an ASCII target in origin form, or
/// in absolute form, whose authority then counts as the Host (section 3.2.2).
pub(crate) fn check_request_head(parts: &Parts) -> Result<(), ApiError> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    if target + authority > TARGET_BYTES {
        return Err(ApiError::UriTooLong);
    }
    if parts.headers.len() > HEADERS || header_bytes(&parts.headers) > HEADER_BYTES {
        return Err(ApiError::HeadTooLarge);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(ApiError::BadRequest("There must be exactly one Host header.")),
        (Some(host), None) if !host.to_str().is_ok_and(is_host) => {
            return Err(ApiError::BadRequest(
                "The Host header must be a host and an optional port.",
            ));
        }
        (None, None) if parts.version == Version::HTTP_11 => {
            return Err(ApiError::BadRequest("There must be a Host header."));
        }
        _ => {}
    }
    if !is_target(&parts.uri) && !is_server_options(&parts.method, &parts.uri) {
        let detail = "The request target must be a path in ASCII, or an http address of one.";
        return Err(ApiError::BadRequest(detail));
    }
    Ok(())
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The size of the target and the headers in bytes.
pub(crate) fn head_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    target + header_bytes(&parts.headers)
}

/// Whether this is `OPTIONS *`, for the server and not a route (RFC 9110, section 9.3.7).
pub(crate) fn is_server_options(method: &Method, uri: &Uri) -> bool {
    method == Method::OPTIONS && uri.path() == "*"
}

fn is_target(uri: &Uri) -> bool {
    // HTTP/2 carries scheme and authority beside the path (RFC 9113, section 8.3.1).
    let is_ours = match (uri.scheme_str(), uri.authority()) {
        (None, None) => true,
        (Some("http" | "https"), Some(authority)) => is_host(authority.as_str()),
        _ => false,
    };
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    is_ours && uri.path().starts_with('/') && target.is_ascii()
}

fn is_host(host: &str) -> bool {
    let (name, port) = if let Some(host) = host.strip_prefix('[') {
        let Some((name, port)) = host.split_once(']') else { return false };
        if name.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("ip", port)
    } else {
        host.find(':').map_or((host, ""), |colon| host.split_at(colon))
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        && (port.is_empty() || port.starts_with(':'))
        && digits.len() <= 5
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The token of the single `Authorization: Bearer` header (RFC 6750, section 2.1); the scheme is
/// case-insensitive.
///
/// # Errors
/// [`ApiError::MissingToken`] without the header, [`Error::Unauthenticated`] for any other value.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let invalid = || ApiError::Core(Error::Unauthenticated);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(ApiError::MissingToken)?;
    if values.next().is_some() {
        return Err(invalid());
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_matches(' ')) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_accepted(uri: &str, hosts: &[&str]) -> bool {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        check_request_head(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn a_request_needs_one_valid_host_and_a_plain_path() {
        for host in ["example.com", "localhost:8000", "127.0.0.1", "[::1]:80", "[::1]", "a_b.c~d:"]
        {
            assert!(is_accepted("/x?y=z", &[host]), "{host}");
        }
        for host in [
            "", "a b", "a/b", "a,b", "u@a", "a:b", "a:123456", "[::1", "[[::1]", "[x]", "[::1]x",
            ":80", "a:8:0", "a?b", "a#b", "bü.de",
        ] {
            assert!(!is_accepted("/", &[host]), "{host}");
        }
        assert!(!is_accepted("/", &[]) && !is_accepted("/", &["a", "a"]));
        assert!(!is_accepted("*", &["a"]));
        for target in ["http://a/x", "HTTPS://B:8?x", "http://[::1]", "http://a/x?y=http://u@b"] {
            assert!(is_accepted(target, &["a"]), "{target}");
            assert!(!is_accepted(target, &[]) && !is_accepted(target, &["a/b"]), "{target}");
        }
        for target in ["http://u@a/x", "http://u:p@a/x", "ftp://a/x", "a:80", "http://:80/x"] {
            assert!(!is_accepted(target, &["a"]), "{target}");
        }
        let long = format!("http://{}/{}", "a".repeat(4100), "b".repeat(4100));
        assert!(!is_accepted(&long, &["a"]));
    }

    #[test]
    fn bearer_accepts_one_header_and_one_scheme() {
        let parse = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("authorization", value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(parse(&["Bearer abc"]).unwrap(), "abc");
        assert_eq!(parse(&["bEARER  abc "]).unwrap(), "abc");
        assert!(matches!(parse(&[]), Err(ApiError::MissingToken)));
        for bad in [&["Basic abc"][..], &["abc"], &["Bearer"], &["Bearer a", "Bearer a"]] {
            assert!(matches!(parse(bad), Err(ApiError::Core(Error::Unauthenticated))), "{bad:?}");
        }
    }
}
