//! Routes of the workspace's own tests, which no document lists: streams whose source is a test's.

use std::{future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderValue, Method, StatusCode, header};

use crate::{
    error::Error,
    http::{
        Api, Body,
        endpoint::{
            BodyForm, Docs, Endpoint, Handler, HandlerResult, Policy, RequestContext, Statements,
            Tag,
        },
        problem::ApiError,
        respond,
    },
};

/// The deadline of the finite stream: shorter than the default of all routes.
const DEADLINE: Duration = Duration::from_millis(300);

/// Makes the source of a response's stream.
pub(crate) type Source =
    dyn Fn(&Api) -> BoxStream<'static, Result<Bytes, Error>> + Send + Sync + 'static;

/// The API over the same core with the routes below, whose responses are the streams that `source`
/// makes.
#[must_use]
pub fn with_test_routes(
    api: &Api,
    source: impl Fn(&Api) -> BoxStream<'static, Result<Bytes, Error>> + Send + Sync + 'static,
) -> Api {
    api.with_test_routes(Arc::new(source))
}

const fn test_endpoint(path: &'static str, policy: Policy, handler: Handler) -> Endpoint {
    Endpoint {
        method: Method::GET,
        path,
        is_api: false,
        is_probe: false,
        policy,
        statements: Statements::NONE,
        docs: Docs {
            operation_id: path,
            summary: path,
            description: path,
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[],
            errors: &[],
        },
        handler,
    }
}

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    // A live stream of events.
    test_endpoint(
        "/testing/live",
        Policy { body: BodyForm::Live, ..Policy::DEFAULT },
        Handler::Public(|request| Box::pin(ready(stream(&request, Body::live)))),
    ),
    // A finite stream, each of whose chunks has a deadline.
    test_endpoint(
        "/testing/finite",
        Policy { body: BodyForm::Stream, deadline: Some(DEADLINE), ..Policy::DEFAULT },
        Handler::Public(|request| Box::pin(ready(stream(&request, Body::stream)))),
    ),
    // A handler that never responds.
    test_endpoint(
        "/testing/late",
        Policy { deadline: Some(DEADLINE), ..Policy::DEFAULT },
        Handler::Public(|_| Box::pin(std::future::pending())),
    ),
    // A stream that its policy excludes.
    test_endpoint(
        "/testing/excluded",
        Policy::DEFAULT,
        Handler::Public(|request| Box::pin(ready(stream(&request, Body::live)))),
    ),
];

fn stream(
    request: &RequestContext<'_>,
    body: fn(BoxStream<'static, Result<Bytes, Error>>) -> Body,
) -> HandlerResult {
    let source = request.api.test_source().ok_or(ApiError::NoRoute)?;
    let mut response = respond::bytes(StatusCode::OK, body(source(request.api)));
    let events = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, events);
    Ok(response)
}
