//! Reading a request: the check of its head, the bearer token, the query and the JSON body. This
//! file checks shapes; the library's types validate values.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request::Parts};
use http_body::Body as HttpBody;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{
    error::{Error, FieldError},
    http::{
        budget::{Budget, Payer, Reservation, UNCHARGED_BYTES},
        problem::ApiError,
    },
    validate::FieldLabel,
};

/// Initial allocation for a body of more than one frame.
const MIN_CAPACITY: usize = 512;
/// Time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an unused body is read and discarded, so that its sender reads the response instead
/// of a reset.
const DRAIN_BYTES: usize = 8 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A sender that pauses for this long is not writing: it may be waiting for the response.
const DRAIN_PAUSE: Duration = Duration::from_millis(250);

/// The limits of a head: the length of the target, the number of headers, their total length.
/// Servers reject a head of twice the size, without a problem body.
const TARGET_BYTES: usize = 8 << 10;
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 << 10;

/// The labels of UTF-8 (WHATWG Encoding, section 4.2), and of US-ASCII, its subset.
const UTF_8: [&str; 8] = [
    "utf-8",
    "utf8",
    "unicode-1-1-utf-8",
    "unicode11utf8",
    "unicode20utf8",
    "x-unicode20utf8",
    "us-ascii",
    "ascii",
];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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

/// Decoded query parameters; one that is read must occur at most once.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Parses a parameter, or returns the default if it is absent.
    pub(crate) fn read<T: Default>(
        &self,
        name: &'static str,
        errors: &mut Vec<FieldError>,
        parse: impl FnOnce(&str) -> Result<T, FieldError>,
    ) -> T {
        let mut given = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let parsed = match (given.next(), given.next()) {
            (None, _) => return T::default(),
            (Some(value), None) => parse(value),
            (Some(_), Some(_)) => {
                let message = format!("{} must be given only once.", FieldLabel(name));
                Err(FieldError::new(name, "repeated", message))
            }
        };
        parsed.unwrap_or_else(|error| {
            errors.push(error);
            T::default()
        })
    }
}

/// A request body without its type, so that handlers need no type parameter.
pub(crate) trait RequestBody: Send {
    /// The next frame: its data, or nothing for trailers.
    fn poll_data(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Option<Bytes>, ApiError>>>;

    /// Whether no frame follows.
    fn is_end(&self) -> bool;

    /// Minimum length of the rest in bytes.
    fn min_bytes(&self) -> u64;
}

impl<B: HttpBody + Send> RequestBody for B {
    fn poll_data(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Option<Bytes>, ApiError>>> {
        let Some(frame) = ready!(self.poll_frame(cx)) else { return Poll::Ready(None) };
        let unreadable = |_| ApiError::BadRequest("The request body could not be read.");
        // `Bytes` are not copied by this.
        let data = |frame: http_body::Frame<B::Data>| {
            frame.into_data().ok().map(|mut data| data.copy_to_bytes(data.remaining()))
        };
        Poll::Ready(Some(frame.map(data).map_err(unreadable)))
    }

    fn is_end(&self) -> bool {
        self.is_end_stream()
    }

    fn min_bytes(&self) -> u64 {
        self.size_hint().lower()
    }
}

/// A request's body, for its handler.
pub(crate) struct Incoming<'a> {
    body: Pin<&'a mut dyn RequestBody>,
    was_read: &'a mut bool,
}

impl<'a> Incoming<'a> {
    /// `was_read` is set once a handler reads the body.
    pub(crate) fn new(body: Pin<&'a mut dyn RequestBody>, was_read: &'a mut bool) -> Self {
        Self { body, was_read }
    }

    /// Reads the body as a JSON object of at most `max` bytes. Its buffer is charged to `payer`.
    pub(crate) async fn json(
        &mut self,
        headers: &HeaderMap,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<Form, ApiError> {
        if !is_json(headers) {
            return Err(ApiError::UnsupportedMediaType);
        }
        // With `Expect: 100-continue`, the declared length is checked before the first byte is
        // requested.
        if self.body.min_bytes() > max as u64 {
            return Err(ApiError::TooLarge(max));
        }
        let (bytes, _held) = tokio::time::timeout(BODY_TIMEOUT, self.read(max, budget, payer))
            .await
            .unwrap_or(Err(ApiError::BodyTimeout))?;
        Form::parse(&bytes)
    }

    async fn read(
        &mut self,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<(Bytes, Option<Reservation>), ApiError> {
        *self.was_read = true;
        let mut whole = Vec::new();
        let mut held: Option<Reservation> = None;
        while let Some(frame) = next_data(self.body.as_mut()).await {
            let Some(data) = frame? else { continue };
            let size = whole.len() + data.len();
            if size > max {
                return Err(ApiError::TooLarge(max));
            }
            // Nearly every body is one frame, which needs no copy. Longer ones are copied: a
            // frame is a slice that keeps the whole connection buffer alive.
            if whole.is_empty() && self.body.is_end() {
                return Ok((data, None));
            }
            if size > whole.capacity() {
                let capacity = size.max(2 * whole.capacity()).max(MIN_CAPACITY).min(max);
                if capacity > UNCHARGED_BYTES {
                    let has_room = if let Some(held) = &mut held {
                        held.grow(capacity)
                    } else {
                        held = budget.reserve(payer, capacity);
                        held.is_some()
                    };
                    if !has_room {
                        return Err(ApiError::BodyMemory);
                    }
                }
                whole.reserve_exact(capacity - whole.len());
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.into(), held))
    }
}

async fn next_data(mut body: Pin<&mut dyn RequestBody>) -> Option<Result<Option<Bytes>, ApiError>> {
    poll_fn(|cx| body.as_mut().poll_data(cx)).await
}

/// Reads and discards the rest of a body, within limits.
pub(crate) async fn drain(mut body: Pin<&mut dyn RequestBody>) {
    if body.is_end() {
        return;
    }
    let read = async {
        let mut left = DRAIN_BYTES;
        while let Ok(Some(Ok(data))) =
            tokio::time::timeout(DRAIN_PAUSE, next_data(body.as_mut())).await
        {
            match left.checked_sub(data.map_or(0, |data| data.len())) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
}

/// Whether the single Content-Type is JSON in UTF-8, and the body not compressed. Codings are
/// case-insensitive (RFC 9110, section 8.4.1).
fn is_json(headers: &HeaderMap) -> bool {
    let is_plain = |codings: &HeaderValue| {
        codings.to_str().is_ok_and(|codings| {
            let mut codings = codings.split(',').map(str::trim);
            codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
        })
    };
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return false;
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let is_utf8 = parts.all(|parameter| {
        parameter.split_once('=').is_none_or(|(name, value)| {
            !name.eq_ignore_ascii_case("charset")
                || UTF_8.iter().any(|label| value.trim_matches('"').eq_ignore_ascii_case(label))
        })
    });
    is_json && is_utf8
}

/// The members of a JSON object, read one by one; errors of type or presence are collected.
#[derive(Debug)]
pub(crate) struct Form {
    members: BTreeMap<String, Value>,
    errors: Vec<FieldError>,
}

impl Form {
    /// Parses JSON. A leading byte order mark is skipped (RFC 8259, section 8.1).
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match serde_json::from_slice::<Members>(bytes) {
            Ok(Members::Object(members)) => Ok(Self { members, errors: Vec::new() }),
            Ok(Members::Repeated) => {
                Err(ApiError::Malformed("The request body names a member twice.", Vec::new()))
            }
            Err(error) if error.is_data() => {
                Err(ApiError::Malformed("The request body must be a JSON object.", Vec::new()))
            }
            Err(_) => Err(ApiError::Malformed("The request body is not valid JSON.", Vec::new())),
        }
    }

    /// A required string; empty if it is absent, and [`Form::finish`] then fails.
    pub(crate) fn text(&mut self, name: &'static str) -> String {
        match self.members.remove(name) {
            Some(Value::String(text)) => text,
            Some(_) => self.wrong(name, "must be a string"),
            None => self.missing(name),
        }
    }

    /// A string that may be absent, but not null.
    pub(crate) fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.members.remove(name)? {
            Value::String(text) => Some(text),
            _ => Some(self.wrong(name, "must be a string")),
        }
    }

    /// A string that may be null (`Some(None)`) or absent (`None`).
    pub(crate) fn nullable_text(&mut self, name: &'static str) -> Option<Option<String>> {
        match self.members.remove(name)? {
            Value::Null => Some(None),
            Value::String(text) => Some(Some(text)),
            _ => Some(Some(self.wrong(name, "must be a string or null"))),
        }
    }

    /// A required boolean.
    pub(crate) fn boolean(&mut self, name: &'static str) -> bool {
        match self.members.remove(name) {
            Some(Value::Bool(value)) => value,
            Some(_) => self.wrong(name, "must be true or false"),
            None => self.missing(name),
        }
    }

    /// Fails if a member was missing or of the wrong type. Unread members are ignored.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::Malformed("", self.errors))
    }

    fn wrong<T: Default>(&mut self, name: &'static str, message: &'static str) -> T {
        let message = format!("{} {message}.", FieldLabel(name));
        self.errors.push(FieldError::new(name, "wrong_type", message));
        T::default()
    }

    fn missing<T: Default>(&mut self, name: &'static str) -> T {
        let message = format!("{} is required.", FieldLabel(name));
        self.errors.push(FieldError::new(name, "missing", message));
        T::default()
    }
}

/// A JSON object with distinct member names; `serde_json` alone keeps the last duplicate.
enum Members {
    Object(BTreeMap<String, Value>),
    Repeated,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                let mut repeated = false;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let value: Value = map.next_value()?;
                    repeated |= members.insert(name.into_owned(), value).is_some();
                }
                Ok(if repeated { Members::Repeated } else { Members::Object(members) })
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

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

    #[test]
    fn only_json_in_utf_8_is_accepted() {
        let accepts = |value: &str| {
            let headers = HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                value.parse::<HeaderValue>().unwrap(),
            )]);
            is_json(&headers)
        };
        for valid in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/merge-patch+json",
            "application/json;charset=\"utf-8\"",
            "application/json; charset=utf8",
            "application/json; charset=US-ASCII",
            "application/json;",
        ] {
            assert!(accepts(valid), "{valid}");
        }
        for bad in [
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "application/json; charset=utf-16",
            "application/json; charset=",
            "",
            "json",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(!is_json(&HeaderMap::new()));

        let coded = |codings: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for coding in codings {
                headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
            }
            is_json(&headers)
        };
        assert!(coded(&["Identity"]) && coded(&["identity, IDENTITY", ""]));
        assert!(!coded(&["gzip"]) && !coded(&["identity", "gzip"]) && !coded(&["identity, br"]));
    }

    #[test]
    fn members_of_the_wrong_shape_are_reported() {
        let json = "\u{feff}{\"a\":\"x\",\"b\":null,\"c\":true,\"d\":1,\"other\":[{}]}";
        let mut form = Form::parse(json.as_bytes()).unwrap();
        assert_eq!(form.text("a"), "x");
        assert_eq!(form.nullable_text("b"), Some(None));
        assert_eq!(form.nullable_text("z"), None);
        assert!(form.boolean("c"));
        assert_eq!(form.optional_text("d"), Some(String::new()));
        form.text("e");
        let Err(ApiError::Malformed(_, errors)) = form.finish() else { panic!() };
        let reported: Vec<_> = errors.iter().map(|e| (e.field.as_ref(), e.code)).collect();
        assert_eq!(reported, [("d", "wrong_type"), ("e", "missing")]);
    }

    #[test]
    fn a_body_other_than_an_object_of_distinct_members_is_malformed() {
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"1",
            b"\"x\"",
            b"{",
            b"{}x",
            b"{\"a\":1,\"a\":2}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"{\"a\":1e999}",
            b"{'a':1}",
        ] {
            assert!(matches!(Form::parse(bad), Err(ApiError::Malformed(..))), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Form::parse(format!("{{\"a\":{deep}").as_bytes()).is_err());
    }

    #[test]
    fn a_repeated_parameter_is_an_error_and_an_unknown_one_is_not() {
        let query = Query::parse(&"/?a=1&a=2&b=%20x+y&c".parse().unwrap());
        let mut errors = Vec::new();
        let text = |value: &str| Ok(value.to_owned());
        assert_eq!(query.read("b", &mut errors, text), " x y");
        assert_eq!(query.read("c", &mut errors, text), "");
        assert_eq!(query.read("d", &mut errors, text), "");
        assert!(errors.is_empty());
        query.read("a", &mut errors, text);
        assert_eq!(errors[0].code, "repeated");
    }

    proptest! {
        #[test]
        fn no_body_panics_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&bytes);
        }
    }
}
