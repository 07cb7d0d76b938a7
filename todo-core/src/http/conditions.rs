//! Conditional requests (RFC 9110, section 13): the `ETag` of a todo, `If-Match` of its changes,
//! and `If-None-Match` of its reads.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    http::{Body, problem::ApiError, respond},
    todos::{ListQuery, ListVersion, QueryHash, Target, Todo, Version},
};

/// An entity tag (RFC 9110, section 8.8.3), without its quotes and without `W/`.
struct EntityTag<'a>(&'a [u8]);

/// The value of a conditional header.
enum Tags<'a> {
    /// `*`: any representation.
    Any,
    Listed(Vec<EntityTag<'a>>),
}

/// The strong `ETag` of a response that is this todo. The todo's version also determines its JSON.
pub(crate) fn etag(todo: &Todo) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{}\"", todo.version())).ok()
}

/// A response that is one todo, with its `ETag`.
pub(crate) fn todo_response(status: StatusCode, todo: &Todo) -> Response<Body> {
    with_etag(respond::json(status, todo), todo)
}

/// The response to a read: 304 if the client has this version already.
pub(crate) fn todo_or_not_modified(headers: &HeaderMap, todo: &Todo) -> Response<Body> {
    // A malformed list is ignored: the client then gets the todo.
    let is_known = match Tags::of(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        // The weak comparison (RFC 9110, section 13.1.2).
        Some(Ok(Tags::Listed(tags))) => {
            tags.iter().any(|tag| tag.version() == Some(todo.version()))
        }
        Some(Err(Malformed)) | None => false,
    };
    if !is_known {
        return todo_response(StatusCode::OK, todo);
    }
    with_etag(not_modified(), todo)
}

fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the client may have the present version of this list: a version of it that
/// `If-None-Match` names, or `*`.
pub(crate) fn may_know_list(headers: &HeaderMap, query: &ListQuery) -> bool {
    // A malformed header is ignored: the client then gets the list.
    match Tags::of(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        Some(Ok(Tags::Listed(tags))) => {
            let end = format!("-{}", QueryHash::of(query));
            tags.iter().any(|tag| tag.0.ends_with(end.as_bytes()))
        }
        Some(Err(Malformed)) | None => false,
    }
}

/// Whether `If-None-Match` names this version, by the weak comparison.
pub(crate) fn knows_list(headers: &HeaderMap, version: &ListVersion) -> bool {
    match Tags::of(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        Some(Ok(Tags::Listed(tags))) => {
            let version = version.to_string();
            tags.iter().any(|tag| tag.0 == version.as_bytes())
        }
        Some(Err(Malformed)) | None => false,
    }
}

/// The response to a client that has this version of a list.
pub(crate) fn list_not_modified(version: &ListVersion) -> Response<Body> {
    let mut response = not_modified();
    set_list_etag(&mut response, Some(version));
    response
}

/// Sets the weak `ETag` of a list.
pub(crate) fn set_list_etag(response: &mut Response<Body>, version: Option<&ListVersion>) {
    let etag = version.and_then(|version| HeaderValue::try_from(format!("W/\"{version}\"")).ok());
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
}

/// The versions that `If-Match` allows; `None` for all.
///
/// A weak tag counts as the strong one: a proxy that compresses a response weakens its tag, and
/// every version has one representation only.
///
/// # Errors
/// The header is malformed, or has more than [`Target::MAX_VERSIONS`] tags.
pub(crate) fn allowed_versions(headers: &HeaderMap) -> Result<Option<Vec<Version>>, ApiError> {
    let tags = match Tags::of(headers, &header::IF_MATCH) {
        None | Some(Ok(Tags::Any)) => return Ok(None),
        Some(Ok(Tags::Listed(tags))) => tags,
        Some(Err(Malformed)) => {
            return Err(ApiError::BadRequest(
                "The If-Match header must be * or entity tags in double quotes.",
            ));
        }
    };
    if tags.len() > Target::MAX_VERSIONS {
        return Err(ApiError::BadRequest("The If-Match header must have at most 4 entity tags."));
    }
    // A tag that is not a version of a todo matches none.
    Ok(Some(tags.iter().filter_map(EntityTag::version).collect()))
}

fn with_etag(mut response: Response<Body>, todo: &Todo) -> Response<Body> {
    if let Some(etag) = etag(todo) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The value is not `*` and not a list of entity tags.
struct Malformed;

impl<'a> Tags<'a> {
    /// The header's value; its lines are one list (RFC 9110, section 5.3). `None` without it.
    fn of(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<Self, Malformed>> {
        let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes).peekable();
        lines.peek()?;
        Some(Self::parse(lines))
    }

    fn parse(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, Malformed> {
        let mut tags = Vec::new();
        let mut has_any = false;
        for mut rest in lines {
            // A recipient accepts empty elements (RFC 9110, section 5.6.1).
            loop {
                rest = rest.trim_ascii_start();
                let Some((&first, after)) = rest.split_first() else { break };
                rest = match first {
                    b',' => after,
                    b'*' => {
                        has_any = true;
                        element_end(after)?
                    }
                    _ => {
                        let (tag, after) = EntityTag::parse(rest)?;
                        tags.push(tag);
                        element_end(after)?
                    }
                };
            }
        }
        match (has_any, tags.is_empty()) {
            (true, true) => Ok(Self::Any),
            (false, false) => Ok(Self::Listed(tags)),
            _ => Err(Malformed),
        }
    }
}

/// The rest after an element of a list, which a comma or the end must follow.
fn element_end(rest: &[u8]) -> Result<&[u8], Malformed> {
    let rest = rest.trim_ascii_start();
    match rest.first() {
        None | Some(b',') => Ok(rest),
        Some(_) => Err(Malformed),
    }
}

impl<'a> EntityTag<'a> {
    /// Parses the tag at the start of `text`, and returns the rest.
    fn parse(text: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let quoted = text.strip_prefix(b"W/").unwrap_or(text);
        let rest = quoted.strip_prefix(b"\"").ok_or(Malformed)?;
        let end = rest.iter().position(|byte| *byte == b'"').ok_or(Malformed)?;
        let (opaque, rest) = (&rest[..end], &rest[end + 1..]);
        // `etagc`, which excludes blanks and controls.
        if opaque.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
            return Err(Malformed);
        }
        Ok((Self(opaque), rest))
    }

    fn version(&self) -> Option<Version> {
        Version::parse(std::str::from_utf8(self.0).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(lines: &[&str]) -> Option<String> {
        let parsed = Tags::parse(lines.iter().map(|line| line.as_bytes())).ok()?;
        Some(match parsed {
            Tags::Any => "*".to_owned(),
            Tags::Listed(tags) => tags
                .iter()
                .map(|tag| String::from_utf8_lossy(tag.0).into_owned())
                .collect::<Vec<_>>()
                .join("|"),
        })
    }

    #[test]
    fn lists_of_entity_tags_are_parsed() {
        for (lines, expected) in [
            (&["*"][..], "*"),
            (&[" * "], "*"),
            (&[r#""a""#], "a"),
            (&[r#"W/"a""#], "a"),
            (&[r#""""#], ""),
            (&[r#""a,b" , "c""#], "a,b|c"),
            (&[r#", ,"a",, "b","#], "a|b"),
            (&[r#""a""#, r#"W/"b""#], "a|b"),
            (&[r#""a\""#], r"a\"),
        ] {
            assert_eq!(tags(lines).as_deref(), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn other_values_are_malformed() {
        for lines in [
            &[""][..],
            &[" , "],
            &["a"],
            &[r#""a"#],
            &[r#"a""#],
            &[r#""a" "b""#],
            &[r#""a"b"#],
            &[r#"w/"a""#],
            &[r#"W/ "a""#],
            &[r#""a b""#],
            &[r#"*, "a""#],
            &["**"],
            &["*", r#""a""#],
        ] {
            assert_eq!(tags(lines), None, "{lines:?}");
        }
    }
}
