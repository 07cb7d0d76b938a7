//! `/users/{user_id}/trash`: a user's deleted todos.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::Caller,
    error::{Error, FieldErrors, Quota},
    http::{
        conditions::todo_response,
        endpoint::{
            AnswerDocs, Charge, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, HeaderDocs,
            KeyAccess, Policy, QueryParameter, RequestContext, Statements, Tag,
        },
        extract::Query,
        idempotency,
        problem::ApiError,
        respond,
        routes::{
            docs::{
                BAD_REQUEST, INTERNAL, INVALID_LIMIT, OTHER_USER, TIMEOUT, UNAUTHORIZED,
                UNAVAILABLE, page_parameters,
            },
            todos::KEY,
        },
    },
    scopes::Scope,
    todos::{self, Limit},
};

const TRASH: &str = "/users/{user_id}/trash";
const TRASHED: &str = "/users/{user_id}/trash/{todo_id}";
const RESTORE: &str = "/users/{user_id}/trash/{todo_id}/restore";

const NOT_FOUND: ErrorDocs = ErrorDocs {
    description: "The todo is not in the user's trash",
    example: |_| ApiError::Core(Error::NotFound),
};
const QUOTA_EXCEEDED: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_TODOS_PER_USER` todos; or a request with the same \
        `Idempotency-Key` is still running; or the answers of the user's keys exceed 32 MiB",
    example: |_| {
        ApiError::Core(Error::QuotaExceeded { of: Quota::Todos, limit: 50_000, used: 50_000 })
    },
};

const KEY_REUSED: ErrorDocs = ErrorDocs {
    description: "The `Idempotency-Key` was used for another request",
    example: |_| ApiError::Core(Error::KeyReused),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        TRASH,
        Policy { charge: Charge::Required, ..Policy::DEFAULT },
        // An empty page has no total.
        Statements::new(2, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(list_trash(request, caller))
        }),
        Docs {
            operation_id: "listTrash",
            summary: "List deleted todos",
            description: "Returns one page of the deleted todos, the last deleted first. Each is \
                deleted permanently at `expires_at`.",
            tag: Tag::Trash,
            query: Some(trash_parameters),
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The deleted todos", "TrashPage", None)],
            errors: &[INVALID_LIMIT, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        TRASH,
        Policy::DEFAULT,
        // One for each 500 todos, and one more.
        Statements::new(22, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(empty_trash(request, caller))
        }),
        Docs {
            operation_id: "emptyTrash",
            summary: "Empty the trash",
            description: "Deletes all todos in the trash permanently. After an error, some of \
                them may be deleted.",
            tag: Tag::Trash,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Emptied",
                "Emptied",
                Some(|| json!({ "message": "Trash emptied successfully", "deleted_count": 3 })),
            )],
            errors: &[BAD_REQUEST, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        TRASHED,
        Policy::DEFAULT,
        Statements::new(1, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(delete_trashed(request, caller))
        }),
        Docs {
            operation_id: "deleteTrashedTodo",
            summary: "Delete a todo permanently",
            description: "Deletes a todo in the trash permanently.",
            tag: Tag::Trash,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "Deleted",
                Some(|| {
                    json!({
                        "message": "Todo deleted permanently",
                        "deleted_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
                    })
                }),
            )],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USER,
                NOT_FOUND,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        RESTORE,
        Policy::CHANGE,
        // With a key those of a bulk: see there.
        Statements::new(7, 6),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(restore(request, caller))
        }),
        Docs {
            operation_id: "restoreTodo",
            summary: "Restore a deleted todo",
            description: "Takes a todo out of the trash: it is as it was, with a new `updated_at`.",
            tag: Tag::Trash,
            query: None,
            headers: KEY,
            body: None,
            answers: &[AnswerDocs {
                headers: &[HeaderDocs::ETag, HeaderDocs::Replayed],
                ..AnswerDocs::json(200, "The todo", "Todo", None)
            }],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USER,
                NOT_FOUND,
                QUOTA_EXCEEDED,
                KEY_REUSED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

fn trash_parameters() -> Vec<QueryParameter> {
    page_parameters("The `next_cursor` of the previous page")
}

async fn list_trash(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let limit = query.read("limit", &mut errors, |limit| Limit::parse(limit).map(Some));
    let cursor = query.text("cursor", &mut errors);
    let (limit, cursor) = errors.into_result(|| (limit, cursor)).map_err(Error::from)?;
    let page = todos::list_trash(request.api.core(), &caller, limit, cursor).await?;
    Ok(respond::json(StatusCode::OK, &page))
}

async fn restore(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let id = request.todo_id()?;
    let core = request.api.core();
    let Some(key) = idempotency::key(&request.parts.headers)? else {
        let todo = todos::restore(core, &caller, id).await?;
        return Ok(todo_response(StatusCode::OK, &todo));
    };
    let (answer, is_replay) = todos::restore_or_replay(core, &caller, key, id).await?;
    let mut response = todo_response(StatusCode::OK, &todos::stored_todo(&answer)?);
    *response.body_mut() = Bytes::from(answer).into();
    if is_replay {
        idempotency::mark_replayed(&mut response);
    }
    Ok(response)
}

async fn delete_trashed(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let id = request.todo_id()?;
    todos::delete_trashed(request.api.core(), &caller, id).await?;
    let body = json!({ "message": "Todo deleted permanently", "deleted_id": id });
    Ok(respond::json(StatusCode::OK, &body))
}

async fn empty_trash(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let deleted = todos::empty_trash(request.api.core(), &caller).await?;
    let body = json!({ "message": "Trash emptied successfully", "deleted_count": deleted });
    Ok(respond::json(StatusCode::OK, &body))
}
