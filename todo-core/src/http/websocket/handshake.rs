//! The opening handshake of a WebSocket (RFC 6455, section 4.2).

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header,
    request::Parts,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::{
    Api, Body, Origin,
    problem::ApiError,
    upgrade::{Upgrade, Upgraded},
};

/// The subprotocol of the messages; the only one.
const PROTOCOL: &str = "todo.v1";
/// The beginning of the subprotocol that has the token, for browsers: they cannot set
/// `Authorization`.
const BEARER: &str = "bearer.";
/// The version of the protocol.
pub(crate) const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A valid handshake: the response, and the connection after it.
pub(crate) struct Handshake {
    pub(crate) response: Response<Body>,
    pub(crate) upgraded: BoxFuture<'static, std::io::Result<Upgraded>>,
}

/// Checks the handshake of a request.
///
/// # Errors
/// It is not a handshake ([`ApiError::UpgradeRequired`]), not one of version 13, malformed, or from
/// a page whose origin is not allowed.
pub(crate) fn accept(api: &Api, parts: &Parts) -> Result<Handshake, ApiError> {
    let headers = &parts.headers;
    let is_handshake = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && tokens(headers, header::CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade"))
        && tokens(headers, header::UPGRADE).any(|it| it.eq_ignore_ascii_case("websocket"));
    let upgrade = parts.extensions.get::<Upgrade>().filter(|_| is_handshake);
    let upgrade = upgrade.ok_or(ApiError::UpgradeRequired)?;
    if only(headers, header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(ApiError::WebSocketVersion);
    }
    let key = only(headers, header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let is_key = |key: &&[u8]| BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    let key = key
        .filter(is_key)
        .ok_or(ApiError::BadRequest("The Sec-WebSocket-Key header must be 16 bytes in base64."))?;
    let mut protocols = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).peekable();
    let has_protocols = protocols.peek().is_some();
    if has_protocols && !protocols.any(|protocol| protocol == PROTOCOL) {
        return Err(ApiError::BadRequest("The WebSocket subprotocols must include todo.v1."));
    }
    check_origin(headers, &api.config().allowed_origins)?;
    let upgraded = upgrade.take().ok_or(ApiError::UpgradeRequired)?;

    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) {
        fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if has_protocols {
        fields.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    Ok(Handshake { response, upgraded })
}

/// The token in a subprotocol `bearer.<token>`, if there is exactly one.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let protocols = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let mut found = protocols.filter_map(|protocol| protocol.strip_prefix(BEARER));
    match (found.next(), found.next()) {
        (Some(token), None) => Some(token),
        _ => None,
    }
}

/// A browser sends the origin of its page, and the same-origin policy does not apply to WebSockets
/// (RFC 6455, section 10.2). Other clients send none.
fn check_origin(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), ApiError> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let is_allowed = |origin: &HeaderValue| {
        allowed.iter().any(|allowed| allowed.is_any() || allowed.is(origin.as_bytes()))
    };
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) if is_allowed(origin) => Ok(()),
        _ => Err(ApiError::OriginNotAllowed),
    }
}

/// The only value of a header.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The members of a list (RFC 9110, section 5.6.1).
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_one_of_the_subprotocols() {
        let parse = |values: &[&str]| {
            token(&headers(&header::SEC_WEBSOCKET_PROTOCOL, values)).map(str::to_owned)
        };
        for values in [
            &["todo.v1, bearer.a.b-c_d"][..],
            &["bearer.a.b-c_d ,todo.v1"],
            &["todo.v1", "bearer.a.b-c_d"],
        ] {
            assert_eq!(parse(values).as_deref(), Some("a.b-c_d"), "{values:?}");
        }
        for values in [
            &[][..],
            &["todo.v1"],
            &["Bearer.a"],
            &["bearer.a, bearer.b"],
            &["bearer.a", "bearer.a"],
        ] {
            assert_eq!(parse(values), None, "{values:?}");
        }
    }

    #[test]
    fn an_origin_must_be_allowed_and_may_be_absent() {
        let allowed = ["https://app.example".parse().unwrap()];
        let check = |values: &[&str], allowed: &[Origin]| {
            check_origin(&headers(&header::ORIGIN, values), allowed).is_ok()
        };
        assert!(check(&[], &allowed) && check(&["https://APP.example"], &allowed));
        for values in [&["https://evil.example"][..], &["null"], &[""], &["https://app.example"; 2]]
        {
            assert!(!check(values, &allowed), "{values:?}");
        }
        assert!(check(&["https://evil.example"], &[Origin::any()]));
        assert!(!check(&["https://app.example"], &[]));
    }
}
