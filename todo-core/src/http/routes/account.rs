//! `/auth/export` and the deletion of `/auth/me`: an account that its user takes along, or ends.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::{
    auth::{self, Caller, Client},
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, BodyForm, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            HeaderDocs, KeyAccess, Policy, RequestContext, Statements, Tag,
        },
        export,
        extract::{Optional, json_body},
        list::CHUNKED_LIST_BYTES,
        problem::ApiError,
        respond,
        routes::{
            auth::{ACCOUNT, LIMITED, unwrap_limited},
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            password::WRONG_PASSWORD,
        },
        schema::LoginPassword,
    },
};

const DELETED: &str = "Account deleted successfully";

const TOO_MANY_EXPORTS: ErrorDocs = ErrorDocs {
    description: "The user has had two exports within the last hour",
    example: |_| ApiError::Core(Error::RateLimited { retry_after: Duration::from_secs(2_042) }),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::DELETE,
        "/auth/me",
        Policy { rate_limit: Some("login"), ..ACCOUNT },
        // Two slots taken and given back, the account, the deletion.
        Statements::new(6, 8),
        Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(delete_account(request, caller))
        }),
        Docs {
            operation_id: "deleteAccount",
            summary: "Delete the account",
            description: "Deletes the account permanently, with everything that belongs to it: \
                all tokens and API keys of the user are rejected from now on, and the address is \
                free for a new account. `password` is required if the account has one; if not, the \
                session must have begun within the last 10 minutes. Wrong passwords are \
                rate-limited per client address, with failed logins, and per user.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<DeleteAccountBody>(
                || json!({ "password": "Correct1horse" }),
            )),
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "Message",
                Some(|| json!({ "message": DELETED })),
            )],
            errors: &[
                BAD_REQUEST,
                WRONG_PASSWORD,
                ErrorDocs {
                    description: "The account has no password, and the session is older than 10 \
                        minutes; an API key; or plain http where https is required",
                    example: |_| ApiError::Core(Error::ReauthenticationRequired),
                },
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    let message = "Password is required.";
                    ApiError::Malformed("", field("password", "missing", message).into())
                }),
                LIMITED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        "/auth/export",
        Policy { rate_limit: Some("export"), body: BodyForm::Stream, ..Policy::DEFAULT },
        // The limit, the account, its sessions, keys, lists and webhook, and two pages, each of
        // which may be empty.
        Statements::new(12, 2),
        Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(export_account(request, caller))
        }),
        Docs {
            operation_id: "exportAccount",
            summary: "Export the account",
            description: "Returns everything that is stored about the user: the account, its \
            sessions, API keys, lists and webhook, all todos and the trash. It is sent in chunks and is no \
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
    ),
];

json_body! {
    /// The body of the deletion of an account.
    struct DeleteAccountBody as "DeleteAccount" {
        password: Optional<LoginPassword>,
    }
}

async fn delete_account(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let DeleteAccountBody { password } = request.json().await?;
    let core = request.api.core();
    if let Some(LoginPassword(password)) = password.0 {
        let limited = auth::delete_account_limited(core, &caller, request.client, password).await;
        unwrap_limited(&request, limited)?;
    } else {
        let client = request.client.map_or(Client::Trusted, Client::At);
        let deleted = auth::delete_account_without_password(core, &caller, client).await;
        deleted.map_err(|error| match error {
            // The account has a password, so the member is required.
            Error::Invalid(errors) => ApiError::Malformed("", errors.into()),
            error => error.into(),
        })?;
    }
    Ok(respond::json(StatusCode::OK, &json!({ "message": DELETED })))
}

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
