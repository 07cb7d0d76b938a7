//! Conditional requests (RFC 9110, section 13): the `ETag` of a todo, `If-Match` of its changes,
//! and `If-None-Match` of its reads.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    auth::Caller,
    core::Core,
    http::{Body, problem::ApiError, respond},
    todos::{self, Completion, List, ListVersion, QueryHash, Target, Todo, Version},
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

/// The response to a completion, with the `ETag` of the todo.
pub(crate) fn completion_response(completion: &Completion) -> Response<Body> {
    with_etag(respond::json(StatusCode::OK, completion), &completion.todo)
}

/// The response to a read: 304 if the client has this version already.
pub(crate) fn todo_or_not_modified(headers: &HeaderMap, todo: &Todo) -> Response<Body> {
    if !names(headers, &todo.version().to_string()) {
        return todo_response(StatusCode::OK, todo);
    }
    with_etag(not_modified(), todo)
}

/// The strong `ETag` of a response that is this list: its version, and the numbers of its todos.
pub(crate) fn list_etag(list: &List) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{}\"", list_state(list))).ok()
}

fn list_state(list: &List) -> String {
    format!("{}{COUNTS}{}.{}", list.version(), list.pending, list.completed)
}

/// What separates a version and the numbers of todos in the `ETag` of a list.
const COUNTS: char = '.';

/// A response that is one list, with its `ETag`.
pub(crate) fn list_response(status: StatusCode, list: &List) -> Response<Body> {
    let mut response = respond::json(status, list);
    set_etag(&mut response, list_etag(list));
    response
}

/// The response to a read: 304 if the client has this state of the list already.
pub(crate) fn list_or_not_modified(headers: &HeaderMap, list: &List) -> Response<Body> {
    if !names(headers, &list_state(list)) {
        return list_response(StatusCode::OK, list);
    }
    let mut response = not_modified();
    set_etag(&mut response, list_etag(list));
    response
}

/// The 304 to a client that has the present version of the list of a hash. Of a client that has no
/// version of it, none is looked up.
pub(crate) async fn known_list(
    core: &Core,
    caller: &Caller,
    headers: &HeaderMap,
    hash: QueryHash,
) -> Result<Option<Response<Body>>, ApiError> {
    if !may_know_list(headers, hash) {
        return Ok(None);
    }
    let version = todos::current_version(core, caller, hash).await?;
    Ok(knows_list(headers, &version).then(|| list_not_modified(&version)))
}

fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the client may have the present version of this list: a version of it that
/// `If-None-Match` names, or `*`.
pub(crate) fn may_know_list(headers: &HeaderMap, hash: QueryHash) -> bool {
    // A malformed header is ignored: the client then gets the list.
    match Tags::of(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        Some(Ok(Tags::Listed(tags))) => {
            let end = format!("-{hash}");
            tags.iter().any(|tag| tag.0.ends_with(end.as_bytes()))
        }
        Some(Err(Malformed)) | None => false,
    }
}

/// Whether `If-None-Match` names this version, by the weak comparison.
pub(crate) fn knows_list(headers: &HeaderMap, version: &ListVersion) -> bool {
    names(headers, &version.to_string())
}

/// Whether `If-None-Match` has this tag, by the weak comparison (RFC 9110, section 13.1.2), or `*`.
fn names(headers: &HeaderMap, wanted: &str) -> bool {
    match Tags::of(headers, &header::IF_NONE_MATCH) {
        Some(Ok(Tags::Any)) => true,
        Some(Ok(Tags::Listed(tags))) => tags.iter().any(|tag| tag.0 == wanted.as_bytes()),
        // A malformed list is ignored: the client then gets the representation.
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
    set_etag(response, etag);
}

/// The versions that `If-Match` allows; `None` for all.
///
/// A weak tag counts as the strong one: a proxy that compresses a response weakens its tag, and
/// every version has one representation only. The numbers of todos in the tag of a list do not
/// count: what changes a list does not depend on them.
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
    set_etag(&mut response, etag(todo));
    response
}

fn set_etag(response: &mut Response<Body>, etag: Option<HeaderValue>) {
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
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
        let text = std::str::from_utf8(self.0).ok()?;
        let version = text.split_once(COUNTS).map_or(text, |(version, _)| version);
        Version::parse(version).ok()
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
