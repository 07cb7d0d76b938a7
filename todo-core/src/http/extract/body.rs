//! Reading a request's body, within limits of size, time and memory, and draining the rest of it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as HttpBody;

use crate::http::{
    budget::{Budget, Payer, Reservation, UNCHARGED_BYTES},
    extract::Form,
    problem::ApiError,
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
        let (bytes, _held) = self.json_bytes(headers, max, budget, payer).await?;
        Form::parse(&bytes)
    }

    /// As [`Incoming::json`], with a charge for the size of the body: for one that is large, and
    /// whose values are kept.
    pub(crate) async fn charged_json(
        &mut self,
        headers: &HeaderMap,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<(Form, Option<Reservation>), ApiError> {
        let (bytes, mut held) = self.json_bytes(headers, max, budget, payer).await?;
        // A body of one frame was not copied.
        if held.is_none() && bytes.len() > UNCHARGED_BYTES {
            held = Some(budget.reserve(payer, bytes.len()).ok_or(ApiError::BodyMemory)?);
        }
        Ok((Form::parse(&bytes)?, held))
    }

    async fn json_bytes(
        &mut self,
        headers: &HeaderMap,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<(Bytes, Option<Reservation>), ApiError> {
        if !is_json(headers) {
            return Err(ApiError::UnsupportedMediaType);
        }
        self.bytes(max, budget, payer).await
    }

    /// Reads the body as the bytes of a file, of any media type.
    pub(crate) async fn file(
        &mut self,
        headers: &HeaderMap,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<Bytes, ApiError> {
        if !is_uncompressed(headers) {
            return Err(ApiError::WrongFileType);
        }
        let (bytes, _held) = self.bytes(max, budget, payer).await?;
        Ok(bytes)
    }

    async fn bytes(
        &mut self,
        max: usize,
        budget: &Budget,
        payer: Payer,
    ) -> Result<(Bytes, Option<Reservation>), ApiError> {
        // With `Expect: 100-continue`, the declared length is checked before the first byte is
        // requested.
        if self.body.min_bytes() > max as u64 {
            return Err(ApiError::TooLarge(max));
        }
        tokio::time::timeout(BODY_TIMEOUT, self.read(max, budget, payer))
            .await
            .unwrap_or(Err(ApiError::BodyTimeout))
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

/// Whether the body is not compressed. Codings are case-insensitive (RFC 9110, section 8.4.1).
fn is_uncompressed(headers: &HeaderMap) -> bool {
    let is_plain = |codings: &HeaderValue| {
        codings.to_str().is_ok_and(|codings| {
            let mut codings = codings.split(',').map(str::trim);
            codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
        })
    };
    headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain)
}

/// Whether the single Content-Type is JSON in UTF-8, and the body not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    if !is_uncompressed(headers) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
