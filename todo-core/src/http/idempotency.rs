//! The header fields of requests that may be repeated
//! (draft-ietf-httpapi-idempotency-key-header).

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::{
    http::{Body, problem::ApiError},
    todos::IdempotencyKey,
};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, if it has one: bare, or in double quotes (RFC 9651, section 3.3.3).
///
/// # Errors
/// It is not a key, or there are several.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    const INVALID: ApiError = ApiError::BadRequest(
        "The Idempotency-Key header must be 1 to 255 visible ASCII characters.",
    );
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(INVALID);
    }
    let text = HeaderValue::to_str(value).map_err(|_| INVALID)?;
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    IdempotencyKey::parse(bare).map(Some).map_err(|_| INVALID)
}

/// Marks the response to a repetition.
pub(crate) fn mark_replayed(response: &mut Response<Body>) {
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bare_or_quoted() {
        let parsed = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).map(|key| key.map(|key| key.as_str().to_owned()))
        };
        assert_eq!(parsed(&[]).unwrap(), None);
        for (value, expected) in
            [("a-1", "a-1"), ("\"a-1\"", "a-1"), ("\"", "\""), ("\"\"\"", "\"")]
        {
            assert_eq!(parsed(&[value.as_bytes()]).unwrap().as_deref(), Some(expected));
        }
        for values in [&[&b""[..]][..], &[b"\"\""], &[b"a b"], &[b"\xff"], &[b"a", b"a"]] {
            assert!(parsed(values).is_err(), "{values:?}");
        }
    }
}
