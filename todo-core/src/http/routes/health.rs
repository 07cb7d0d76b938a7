//! `/health`: the probes of supervisors, load balancers and alerts.

use std::future::ready;

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::{
    http::{
        Api, Body,
        endpoint::{
            AnswerDocs, Docs, Endpoint, Handler, HandlerResult, HeaderDocs, Policy, RequestContext,
            Statements, Tag,
        },
        respond,
        routes::docs::{BAD_REQUEST, INTERNAL},
    },
    timestamp,
};

/// The endpoint of a probe.
const fn probe(
    path: &'static str,
    statements: Statements,
    handler: Handler,
    docs: Docs,
) -> Endpoint {
    Endpoint {
        method: Method::GET,
        path,
        is_api: false,
        is_probe: true,
        policy: Policy::DEFAULT,
        statements,
        docs,
        handler,
    }
}

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    probe(
        "/health",
        Statements::NONE,
        Handler::Public(|request| Box::pin(ready(Ok(health(request.api))))),
        Docs {
            operation_id: "health",
            summary: "Liveness",
            description: "For supervisors: 200 as long as the process responds, independent of \
                the database.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "The process is running",
                "Health",
                Some(|| json!({ "status": "healthy", "timestamp": "2026-11-23T09:30:00.123456Z" })),
            )],
            errors: &[BAD_REQUEST, INTERNAL],
        },
    ),
    probe(
        "/health/ready",
        Statements::NONE,
        Handler::Public(|request| Box::pin(ready(Ok(readiness(request.api))))),
        Docs {
            operation_id: "readiness",
            summary: "Readiness",
            description: "For load balancers: 503 once the server is shutting down, while it \
                still serves requests. The database is not checked.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[
                AnswerDocs::json(
                    200,
                    "The server is ready for requests",
                    "Ready",
                    Some(|| json!({ "status": "ready" })),
                ),
                AnswerDocs {
                    headers: &[HeaderDocs::RetryAfter],
                    ..AnswerDocs::json(
                        503,
                        "The server is shutting down",
                        "Draining",
                        Some(|| json!({ "status": "draining" })),
                    )
                },
            ],
            errors: &[BAD_REQUEST, INTERNAL],
        },
    ),
    probe(
        "/health/db",
        Statements::new(1, 1),
        Handler::Public(|request| Box::pin(database_health(request))),
        Docs {
            operation_id: "databaseHealth",
            summary: "Database health",
            description: "For alerts: queries the database, and responds within two seconds with \
                the result.",
            tag: Tag::Operations,
            query: None,
            headers: &[],
            body: None,
            answers: &[
                AnswerDocs::json(
                    200,
                    "The database responds",
                    "DatabaseHealth",
                    Some(|| json!({ "status": "healthy", "database": "connected" })),
                ),
                AnswerDocs {
                    headers: &[HeaderDocs::RetryAfter],
                    ..AnswerDocs::json(
                        503,
                        "The database does not respond",
                        "Unhealthy",
                        Some(
                            || json!({ "status": "unhealthy", "error": "the database does not answer" }),
                        ),
                    )
                },
            ],
            errors: &[BAD_REQUEST, INTERNAL],
        },
    ),
];

/// The response of the liveness probe.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(serialize_with = "timestamp::serialize")]
    timestamp: chrono::DateTime<chrono::Utc>,
}

fn health(api: &Api) -> Response<Body> {
    let health = Health { status: "healthy", timestamp: api.core().now() };
    respond::json(StatusCode::OK, &health)
}

/// Ready unless draining. The database is not checked: all replicas share it, so that an outage
/// would take all of them out of service, and with them the responses that report it.
fn readiness(api: &Api) -> Response<Body> {
    if !api.is_draining() {
        return respond::json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let body = json!({ "status": "draining" });
    let mut response = respond::json(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn database_health(request: RequestContext<'_>) -> HandlerResult {
    let core = request.api.core().clone();
    if request.api.database_check().is_healthy(|| async move { core.ping().await }).await {
        let body = json!({ "status": "healthy", "database": "connected" });
        return Ok(respond::json(StatusCode::OK, &body));
    }
    let body = json!({ "status": "unhealthy", "error": "the database does not answer" });
    let mut response = respond::json(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}
