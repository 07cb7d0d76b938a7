//! `/users/{user_id}/lists`: a user's lists of todos.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::{
    auth::Caller,
    error::{Error, Quota},
    http::{
        Api, conditions,
        endpoint::{
            AnswerDocs, BodyDocs, Charge, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            HeaderDocs, KeyAccess, Policy, RequestContext, Schema, Statements, Tag,
        },
        extract::{Change, ChangeOrNull, OrNull, json_body},
        idempotency,
        problem::ApiError,
        respond,
        routes::{
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, OTHER_USER, TIMEOUT,
                TOO_LARGE, UNAUTHORIZED, UNAVAILABLE, field,
            },
            tags::LONG,
            todos::{IF_NONE_MATCH_LIST, KEY, if_match, if_none_match},
        },
        schema::responses::{EXAMPLE_OF_LIST_ETAG, example_list},
    },
    scopes::Scope,
    todos::{self, List, ListAnswer, ListColor, ListName, ListPatch, ListTarget, NewList},
};

const LISTS: &str = "/users/{user_id}/lists";
const LIST: &str = "/users/{user_id}/lists/{list_id}";

const OTHER_USERS_LIST: ErrorDocs = docs::forbidden(|_| ApiError::NotYours("list"));
const NOT_FOUND: ErrorDocs =
    ErrorDocs { description: "There is no such list", example: |_| ApiError::NoSuch("list") };
const INVALID_NAME: ErrorDocs = docs::invalid(|_| {
    ApiError::Core(Error::Invalid(field("name", "blank", "Name cannot be empty.")))
});
const NO_NAME: ErrorDocs = ErrorDocs {
    description: "The body is not JSON of the request's shape, or the `Idempotency-Key` was used \
        for another request",
    example: |_| ApiError::Malformed("", field("name", "missing", "Name is required.").into()),
};
const BAD_NAME: ErrorDocs = docs::malformed(|_| {
    let message = "Name must be a string or null.";
    ApiError::Malformed("", field("name", "wrong_type", message).into())
});
const QUOTA_EXCEEDED: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_LISTS_PER_USER` lists; or a request with the same \
        `Idempotency-Key` is still running; or the answers of the user's keys exceed 32 MiB",
    example: |_| ApiError::Core(Error::QuotaExceeded { of: Quota::Lists, limit: 200, used: 200 }),
};
const OUTDATED: ErrorDocs = ErrorDocs {
    description: "`If-Match` names no version of the list; `current` is the list",
    example: |_| ApiError::OutdatedList(Box::new(example_list())),
};
const THE_LISTS: AnswerDocs = AnswerDocs {
    headers: &[HeaderDocs::ListETag],
    ..AnswerDocs::json(200, "The lists", "Lists", None)
};
const A_LIST: AnswerDocs = AnswerDocs {
    headers: &[HeaderDocs::ETagOfList],
    ..AnswerDocs::json(200, "The list", "List", None)
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::POST,
        LISTS,
        Policy::CHANGE,
        // With a key BEGIN, the key, the list, the answer, COMMIT.
        Statements::new(5, 5),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(create_list(request, caller))
        }),
        Docs {
            operation_id: "createList",
            summary: "Create a list",
            description: "Creates a list of the caller. `Location` is its path. Two lists may \
                have one name.",
            tag: Tag::Lists,
            query: None,
            headers: KEY,
            body: Some(BodyDocs::of::<NewListBody>(
                || json!({ "name": "Groceries", "color": "#ff8800" }),
            )),
            answers: &[AnswerDocs {
                headers: &[
                    HeaderDocs::Location("The path of the list"),
                    HeaderDocs::ETagOfList,
                    HeaderDocs::Replayed,
                ],
                ..AnswerDocs::json(201, "The list", "List", None)
            }],
            errors: &[
                INVALID_NAME,
                UNAUTHORIZED,
                OTHER_USER,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                NO_NAME,
                QUOTA_EXCEEDED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        LISTS,
        Policy { charge: Charge::Required, ..Policy::DEFAULT },
        // With `If-None-Match`, the first one looks up the version.
        Statements::new(2, 1),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(list_lists(request, caller))
        }),
        Docs {
            operation_id: "listLists",
            summary: "List the lists",
            description: "Returns the user's lists in the order of their creation, each with the \
                number of its open and completed todos.",
            tag: Tag::Lists,
            query: None,
            headers: IF_NONE_MATCH_LIST,
            body: None,
            answers: &[
                THE_LISTS,
                AnswerDocs {
                    status: 304,
                    description: "The client has this version of the lists",
                    schema: Schema::None,
                    ..THE_LISTS
                },
            ],
            errors: &[BAD_REQUEST, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        LIST,
        Policy { charge: Charge::Required, ..Policy::DEFAULT },
        // After the first statement, which affects no row, a second one finds the reason.
        Statements::new(1, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(get_list(request, caller))
        }),
        Docs {
            operation_id: "getList",
            summary: "Get a list",
            description: "Returns one list of the caller, with the number of its open and \
                completed todos. The todos are those of `GET …/todos?list=<id>`.",
            tag: Tag::Lists,
            query: None,
            headers: &[if_none_match(EXAMPLE_OF_LIST_ETAG)],
            body: None,
            answers: &[
                A_LIST,
                AnswerDocs {
                    status: 304,
                    description: "The client has this state of the list",
                    schema: Schema::None,
                    ..A_LIST
                },
            ],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USERS_LIST,
                NOT_FOUND,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::PATCH,
        LIST,
        Policy::CHANGE,
        // For a 412, a third one reads the list.
        Statements::new(1, 3),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(patch_list(request, caller))
        }),
        Docs {
            operation_id: "patchList",
            summary: "Update a list",
            description: "Updates the given members (RFC 7396): absent ones are unchanged, a null \
                color is cleared. `If-Match` compares the name and the color only: todos that \
                came or went meanwhile do not matter.",
            tag: Tag::Lists,
            query: None,
            headers: &[if_match(EXAMPLE_OF_LIST_ETAG)],
            body: Some(BodyDocs::of::<PatchListBody>(|| json!({ "color": null }))),
            answers: &[A_LIST],
            errors: &[
                INVALID_NAME,
                UNAUTHORIZED,
                OTHER_USERS_LIST,
                NOT_FOUND,
                BODY_TIMEOUT,
                OUTDATED,
                TOO_LARGE,
                MEDIA_TYPE,
                BAD_NAME,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        LIST,
        Policy { deadline: Some(LONG), ..Policy::DEFAULT },
        // The list, its todos, and whether there are more; one for each further 200 todos.
        Statements::new(3, 3),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(delete_list(request, caller))
        }),
        Docs {
            operation_id: "deleteList",
            summary: "Delete a list and its todos",
            description: "Deletes a list, and moves its todos to the trash, or deletes them \
                permanently without one. The list is gone at once. The response comes when all \
                todos are moved; after an error, the server moves the rest by itself. A todo that \
                is restored is then in the inbox.",
            tag: Tag::Lists,
            query: None,
            headers: &[if_match(EXAMPLE_OF_LIST_ETAG)],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "DeletedList",
                Some(|| {
                    json!({
                        "message": "List deleted successfully",
                        "deleted_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b21",
                        "deleted_count": 3,
                    })
                }),
            )],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USERS_LIST,
                NOT_FOUND,
                OUTDATED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

json_body! {
    /// The body of a new list.
    struct NewListBody as "NewList" {
        name: ListName,
        color: OrNull<ListColor>,
    }
}

json_body! {
    /// The body of a merge patch (RFC 7396).
    struct PatchListBody as "PatchList" {
        name: Change<ListName>,
        color: ChangeOrNull<ListColor>,
    }
}

async fn create_list(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let NewListBody { name, color } = request.json().await?;
    let new = NewList::new(name).color(color.0);
    let core = request.api.core();
    let answer = match idempotency::key(&request.parts.headers)? {
        None => ListAnswer::Created(todos::create_list(core, &caller, new).await?),
        Some(key) => todos::create_list_or_replay(core, &caller, key, new).await?,
    };
    let (list, stored) = match answer {
        ListAnswer::Created(list) => (list, None),
        ListAnswer::Replayed(answer) => (todos::stored_list(&answer)?, Some(answer)),
    };
    let mut response = conditions::list_response(StatusCode::CREATED, &list);
    if let Some(stored) = stored {
        *response.body_mut() = Bytes::from(stored).into();
        idempotency::mark_replayed(&mut response);
    }
    let user = caller.user_id();
    let location = format!("{}/users/{user}/lists/{}", request.api.base_path(), list.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list_lists(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let headers = &request.parts.headers;
    let hash = todos::lists_hash();
    if let Some(response) = conditions::known_list(core, &caller, headers, hash).await? {
        return Ok(response);
    }
    let lists = todos::lists(core, &caller).await?;
    let mut response = respond::json(StatusCode::OK, &lists);
    conditions::set_list_etag(&mut response, lists.version.as_ref());
    Ok(response)
}

async fn get_list(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let id = request.list_id()?;
    let list = todos::get_list(request.api.core(), &caller, id).await.map_err(about_list)?;
    Ok(conditions::list_or_not_modified(&request.parts.headers, &list))
}

async fn patch_list(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let PatchListBody { name, color } = request.json().await?;
    let mut patch = ListPatch::new();
    patch.name = name.0;
    patch.color = color.0;
    let target = request.list_target()?;
    let changed = todos::patch_list(request.api.core(), &caller, target, patch).await;
    match changed {
        Ok(list) => Ok(conditions::list_response(StatusCode::OK, &list)),
        Err(error) => Err(change_failure(request.api, &caller, target, error).await),
    }
}

async fn delete_list(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let target = request.list_target()?;
    match todos::delete_list(request.api.core(), &caller, target).await {
        Ok(deleted) => {
            let body = json!({
                "message": "List deleted successfully",
                "deleted_id": target.id(),
                "deleted_count": deleted,
            });
            Ok(respond::json(StatusCode::OK, &body))
        }
        Err(error) => Err(change_failure(request.api, &caller, target, error).await),
    }
}

/// The error response to a change: a 412 has the current list.
async fn change_failure(api: &Api, caller: &Caller, target: ListTarget, error: Error) -> ApiError {
    if !matches!(error, Error::PreconditionFailed) {
        return about_list(error);
    }
    let current: Result<List, Error> = todos::get_list(api.core(), caller, target.id()).await;
    match current {
        Ok(current) => ApiError::OutdatedList(Box::new(current)),
        Err(error) => about_list(error),
    }
}

/// The errors of todos that also a list has.
fn about_list(error: Error) -> ApiError {
    match error {
        Error::NotFound => ApiError::NoSuch("list"),
        Error::Forbidden => ApiError::NotYours("list"),
        error => error.into(),
    }
}
