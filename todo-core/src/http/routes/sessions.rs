//! `/auth/sessions`: the caller's sessions.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::{self, Caller},
    core::Core,
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess, Policy,
            RequestContext, Statements, Tag,
        },
        problem::ApiError,
        respond,
        routes::docs::{BAD_REQUEST, INTERNAL, TIMEOUT, UNAUTHORIZED, UNAVAILABLE},
    },
};

const SESSIONS: &str = "/auth/sessions";
const SESSION: &str = "/auth/sessions/{session_id}";

const NOT_FOUND: ErrorDocs = ErrorDocs {
    description: "The user has no such session",
    example: |_| ApiError::NoSuch("session"),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        SESSIONS,
        Policy::DEFAULT,
        Statements::new(1, 1),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(list(request, caller))),
        Docs {
            operation_id: "listSessions",
            summary: "List the sessions",
            description: "Returns the live sessions of the user, the newest first: at most 100. \
                API keys are not among them.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The sessions", "Sessions", None)],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        SESSIONS,
        Policy::DEFAULT,
        // The tokens of other issuers, and the sessions.
        Statements::new(2, 3),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(end_others(request, caller))),
        Docs {
            operation_id: "endOtherSessions",
            summary: "End all other sessions",
            description: "Ends all sessions of the user but this one: their tokens are rejected \
                from now on. API keys stay.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "The number of sessions that ended",
                "EndedSessions",
                Some(|| json!({ "ended": 2 })),
            )],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        SESSION,
        Policy::DEFAULT,
        Statements::new(1, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(end(request, caller))),
        Docs {
            operation_id: "endSession",
            summary: "End a session",
            description: "Ends a session of the user: its token is rejected from now on.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Ended",
                "Message",
                Some(|| json!({ "message": "Session ended successfully" })),
            )],
            errors: &[BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
];

async fn list(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let sessions = auth::sessions(request.api.core(), &caller).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "sessions": sessions })))
}

async fn end_others(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let ended = auth::end_other_sessions_from(request.api.core(), &caller, request.client).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "ended": ended })))
}

async fn end(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let id = credential_id(core, &caller, request.session_id(), "session").await?;
    let ended = auth::end_session_from(core, &caller, id, request.client).await;
    ended.map_err(|error| no_such("session", error))?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Session ended successfully" })))
}

/// The id of a session, a key or an identity in the path; `thing` names it for the error. An absent
/// id was not a UUID: it is not found, after the caller's session was checked.
pub(crate) async fn credential_id<I>(
    core: &Core,
    caller: &Caller,
    id: Option<I>,
    thing: &'static str,
) -> Result<I, ApiError> {
    if let Some(id) = id {
        return Ok(id);
    }
    auth::check_session(core, caller).await?;
    Err(ApiError::NoSuch(thing))
}

/// The error of an operation on `thing`, by its name if there is none.
pub(crate) fn no_such(thing: &'static str, error: Error) -> ApiError {
    match error {
        Error::NotFound => ApiError::NoSuch(thing),
        error => error.into(),
    }
}
