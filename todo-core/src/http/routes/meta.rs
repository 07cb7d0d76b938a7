//! The routes about the API itself: metrics, the OpenAPI document and the index.

use std::future::ready;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::http::{
    Api,
    endpoint::{
        AnswerDocs, Charge, Docs, Endpoint, Handler, HandlerResult, Policy, Schema, Statements, Tag,
    },
    respond,
    routes::docs::{BAD_REQUEST, INTERNAL},
};

/// The path of the route that may be on a separate listener.
pub(crate) const METRICS: &str = "/metrics";

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::GET,
        path: METRICS,
        is_api: false,
        is_probe: false,
        policy: Policy { charge: Charge::Required, ..Policy::DEFAULT },
        statements: Statements::NONE,
        docs: Docs {
            operation_id: "metrics",
            summary: "Prometheus metrics",
            description: "Metrics in Prometheus' text format. No label contains an id, an address \
                or a raw path.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs {
                status: 200,
                description: "The metrics",
                media_type: "text/plain",
                schema: Schema::Type("string"),
                example: Some(|| {
                    json!("# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight 1\n")
                }),
                headers: &[],
            }],
            errors: &[BAD_REQUEST, INTERNAL],
        },
        handler: Handler::Public(|request| Box::pin(ready(metrics(request.api)))),
    },
    Endpoint {
        method: Method::GET,
        path: "/openapi.json",
        is_api: false,
        is_probe: false,
        policy: Policy::DEFAULT,
        statements: Statements::NONE,
        docs: Docs {
            operation_id: "openapi",
            summary: "OpenAPI document",
            description: "Returns this document, in OpenAPI 3.1.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs {
                schema: Schema::Type("object"),
                ..AnswerDocs::json(
                    200,
                    "The OpenAPI document",
                    "",
                    Some(|| json!({ "openapi": "3.1.0" })),
                )
            }],
            errors: &[BAD_REQUEST, INTERNAL],
        },
        handler: Handler::Public(|request| {
            Box::pin(ready(Ok(respond::bytes(StatusCode::OK, request.api.openapi()))))
        }),
    },
    Endpoint {
        method: Method::GET,
        path: "/",
        is_api: false,
        is_probe: false,
        policy: Policy::DEFAULT,
        statements: Statements::NONE,
        docs: Docs {
            operation_id: "index",
            summary: "API index",
            description: "Returns the name and version of the API, and links to its other \
                resources.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "The index",
                "Index",
                Some(|| {
                    json!({
                        "message": "Todo API is running.",
                        "name": "Todo API",
                        "version": env!("CARGO_PKG_VERSION"),
                        "links": { "openapi": "/openapi.json" },
                    })
                }),
            )],
            errors: &[BAD_REQUEST, INTERNAL],
        },
        handler: Handler::Public(|request| {
            Box::pin(ready(Ok(respond::bytes(StatusCode::OK, request.api.index()))))
        }),
    },
];

/// The metrics as text; also for the separate listener.
pub(crate) fn metrics(api: &Api) -> HandlerResult {
    let mut response = respond::bytes(StatusCode::OK, Bytes::from(api.metrics_text()?));
    // The media type of the exposition format, which scrapers request.
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
