//! `/auth/export` and the deletion of `/auth/me`: an account that its user takes along, or ends.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};

use crate::{
    auth::{self, Caller},
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyForm, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, HeaderDocs,
            Policy, RequestContext, Statements, Tag,
        },
        export,
        list::CHUNKED_LIST_BYTES,
        problem::ApiError,
        respond,
        routes::{
            auth::unwrap_limited,
            docs::{BAD_REQUEST, INTERNAL, TIMEOUT, UNAUTHORIZED, UNAVAILABLE},
        },
    },
};

const TOO_MANY_EXPORTS: ErrorDocs = ErrorDocs {
    description: "The user has had two exports within the last hour",
    example: |_| ApiError::Core(Error::RateLimited { retry_after: Duration::from_secs(2_042) }),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::GET,
    "/auth/export",
    Policy { rate_limit: Some("export"), body: BodyForm::Stream, ..Policy::DEFAULT },
    // The limit, the account, its sessions, its keys, and one for each page, of which two may be
    // empty.
    Statements::new(8, 2),
    Handler::User(|request, caller| Box::pin(export_account(request, caller))),
    Docs {
        operation_id: "exportAccount",
        summary: "Export the account",
        description: "Returns everything that is stored about the user: the account, its \
            sessions and API keys, all todos and the trash. It is sent in chunks and is no \
            snapshot: a todo that exists throughout is there once, as it was when it was read. \
            Exports are rate-limited per user.",
        tag: Tag::Authentication,
        query: None,
        headers: &[],
        body: None,
        answers: &[AnswerDocs {
            headers: &[HeaderDocs::ContentDisposition],
            ..AnswerDocs::json(200, "The export, as a file", "Export", None)
        }],
        errors: &[BAD_REQUEST, UNAUTHORIZED, TOO_MANY_EXPORTS, INTERNAL, UNAVAILABLE, TIMEOUT],
    },
)];

async fn export_account(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let quota = auth::export::limit::EXPORTS;
    let window = auth::export::limit::WINDOW.to_std().unwrap_or_default();
    request.rate_limit.set("export", quota, window);
    // The memory first: a request that is rejected for lack of it counts as no export.
    let budget = request.api.budget();
    let held = budget.reserve_or_wait(request.payer, CHUNKED_LIST_BYTES).await;
    let held = held.ok_or(ApiError::BodyMemory)?;
    let limited = auth::export_limited(request.api.core(), &caller).await;
    let export = unwrap_limited(&request, limited)?;
    let mut response = respond::personal(StatusCode::OK, export::body(export, held));
    response.headers_mut().insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"todo-export.json\""),
    );
    Ok(response)
}
