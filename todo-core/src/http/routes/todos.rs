//! `/users/{user_id}/todos`: a user's todos.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::{
    auth::Caller,
    error::{Error, FieldError, FieldErrors, Quota},
    http::{
        Api,
        conditions::{self, completion_response, todo_or_not_modified, todo_response},
        endpoint::{
            AnswerDocs, BodyDocs, BodyForm, Charge, Docs, Endpoint, ErrorDocs, Handler,
            HandlerResult, HeaderDocs, HeaderParameter, KeyAccess, Policy, QueryParameter,
            RequestContext, Schema, Statements, Tag,
        },
        extract::{Change, ChangeOrNull, OrDefault, OrNull, Query, json_body},
        idempotency, list,
        problem::ApiError,
        respond,
        routes::docs::{
            self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, INVALID_LIMIT, MEDIA_TYPE, OTHER_USER,
            TIMEOUT, TOO_LARGE, UNAUTHORIZED, UNAVAILABLE, field, page_parameters,
        },
        schema::{
            self, reference,
            responses::{EXAMPLE_ETAG, EXAMPLE_LIST_ETAG, example_todo},
            with_default,
        },
    },
    scopes::Scope,
    todos::{
        self, Answer, Description, Details, Due, DueBound, DueFilter, Filters, Limit, ListFilter,
        ListId, ListQuery, NewTodo, Priority, QueryHash, Recurrence, Reminders, Search, SortBy,
        SortOrder, Status, Tags, Target, TimeZone, Title, Todo, TodoPatch,
    },
};

const TODOS: &str = "/users/{user_id}/todos";
const TODO: &str = "/users/{user_id}/todos/{todo_id}";
const COMPLETE: &str = "/users/{user_id}/todos/{todo_id}/complete";

/// The 403 of a route of one todo.
const OTHER_USERS_TODO: ErrorDocs = docs::forbidden(|_| ApiError::Core(Error::Forbidden));
const NOT_FOUND: ErrorDocs = ErrorDocs {
    description: "There is no such todo",
    example: |_| ApiError::Core(Error::NotFound),
};
const INVALID_TITLE: ErrorDocs = docs::invalid(|_| {
    ApiError::Core(Error::Invalid(field("title", "blank", "Title cannot be empty.")))
});
const NO_TITLE: ErrorDocs = docs::malformed(|_| {
    ApiError::Malformed("", field("title", "missing", "Title is required.").into())
});
const NOT_COMPLETED: ErrorDocs = docs::malformed(|_| {
    ApiError::Malformed("", field("completed", "missing", "Completed is required.").into())
});
const NO_TITLE_OR_KEY_REUSED: ErrorDocs = ErrorDocs {
    description: "The body is not JSON of the request's shape, or the `Idempotency-Key` was used \
        for another request",
    ..NO_TITLE
};
const QUOTA_EXCEEDED: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_TODOS_PER_USER` todos, or a request with the same \
        `Idempotency-Key` is still running",
    example: |_| {
        ApiError::Core(Error::QuotaExceeded { of: Quota::Todos, limit: 50_000, used: 50_000 })
    },
};
const NO_ROOM_FOR_NEXT: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_TODOS_PER_USER` todos, and no room for the next occurrence",
    ..QUOTA_EXCEEDED
};
const OUTDATED: ErrorDocs = ErrorDocs {
    description: "`If-Match` names no version of the todo; `current` is the todo",
    example: |_| ApiError::Outdated(Box::new(example_todo())),
};
/// The errors of a change of one todo, with a body.
pub(super) const fn change_errors(invalid: ErrorDocs, malformed: ErrorDocs) -> [ErrorDocs; 12] {
    [
        invalid,
        UNAUTHORIZED,
        OTHER_USERS_TODO,
        NOT_FOUND,
        BODY_TIMEOUT,
        OUTDATED,
        TOO_LARGE,
        MEDIA_TYPE,
        malformed,
        INTERNAL,
        UNAVAILABLE,
        TIMEOUT,
    ]
}
const EDIT_ERRORS: &[ErrorDocs] = &change_errors(INVALID_TITLE, NO_TITLE);
const COMPLETE_ERRORS: &[ErrorDocs] = &[
    BAD_REQUEST,
    UNAUTHORIZED,
    OTHER_USERS_TODO,
    NOT_FOUND,
    BODY_TIMEOUT,
    NO_ROOM_FOR_NEXT,
    OUTDATED,
    TOO_LARGE,
    MEDIA_TYPE,
    NOT_COMPLETED,
    INTERNAL,
    UNAVAILABLE,
    TIMEOUT,
];
const READ_ERRORS: &[ErrorDocs] =
    &[BAD_REQUEST, UNAUTHORIZED, OTHER_USERS_TODO, NOT_FOUND, INTERNAL, UNAVAILABLE, TIMEOUT];
const DELETE_ERRORS: &[ErrorDocs] = &[
    BAD_REQUEST,
    UNAUTHORIZED,
    OTHER_USERS_TODO,
    NOT_FOUND,
    OUTDATED,
    INTERNAL,
    UNAVAILABLE,
    TIMEOUT,
];
const A_TODO: AnswerDocs =
    AnswerDocs { headers: &[HeaderDocs::ETag], ..AnswerDocs::json(200, "The todo", "Todo", None) };
pub(super) const THE_TODO: &[AnswerDocs] = &[A_TODO];
const THE_COMPLETION: &[AnswerDocs] = &[AnswerDocs {
    headers: &[HeaderDocs::ETag],
    ..AnswerDocs::json(200, "The todo", "Completion", None)
}];
const THE_TODO_OR_NOT_MODIFIED: &[AnswerDocs] = &[
    A_TODO,
    AnswerDocs {
        status: 304,
        description: "The client has this version of the todo",
        schema: Schema::None,
        ..A_TODO
    },
];
pub(super) const KEY: &[HeaderParameter] = &[HeaderParameter {
    name: "Idempotency-Key",
    description: "A random key of 1 to 255 visible ASCII characters, which the client sends again \
        with each repetition of the request. Within 24 hours a repetition gets the first answer, \
        with `Idempotency-Replayed: true` (draft-ietf-httpapi-idempotency-key-header)",
    example: "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
}];
pub(super) const IF_MATCH: &[HeaderParameter] = &[if_match(EXAMPLE_ETAG)];
const IF_NONE_MATCH: &[HeaderParameter] = &[if_none_match(EXAMPLE_ETAG)];

pub(super) const fn if_match(example: &'static str) -> HeaderParameter {
    HeaderParameter {
        name: "If-Match",
        description: "The change takes effect only if what it changes has one of these `ETag`s, \
            at most 4; `*` allows all (RFC 9110, section 13.1.1)",
        example,
    }
}

pub(super) const fn if_none_match(example: &'static str) -> HeaderParameter {
    HeaderParameter {
        name: "If-None-Match",
        description: "The response is 304 without a body if it would have one of these `ETag`s \
            (RFC 9110, section 13.1.2)",
        example,
    }
}

const THE_LIST: AnswerDocs = AnswerDocs {
    headers: &[HeaderDocs::ListETag],
    ..AnswerDocs::json(200, "The todos", "TodoList", None)
};
const THE_LIST_OR_NOT_MODIFIED: &[AnswerDocs] = &[
    THE_LIST,
    AnswerDocs {
        status: 304,
        description: "The client has this version of the list",
        schema: Schema::None,
        ..THE_LIST
    },
];
pub(super) const IF_NONE_MATCH_LIST: &[HeaderParameter] = &[HeaderParameter {
    name: "If-None-Match",
    description: "The response is 304 without a body if the list has one of these `ETag`s, which \
        takes the time of a look-up (RFC 9110, section 13.1.2)",
    example: EXAMPLE_LIST_ETAG,
}];

/// After the first statement, which affects no row, a second one finds the reason.
const STATEMENTS: Statements = Statements::new(1, 2);
/// For a 412, a third one reads the todo.
const CHANGE_STATEMENTS: Statements = Statements::new(1, 3);
/// A recurring todo is read, then changed by a transaction with up to four; both again if another
/// request changes it meanwhile.
const COMPLETE_STATEMENTS: Statements = Statements::new(8, 8);

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::POST,
        TODOS,
        Policy::CHANGE,
        STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(create_todo(request, caller))
        }),
        Docs {
            operation_id: "createTodo",
            summary: "Create a todo",
            description: "Creates a todo of the caller. `Location` is its path.",
            tag: Tag::Todos,
            query: None,
            headers: KEY,
            body: Some(BodyDocs::of::<NewTodoBody>(
                || json!({ "title": "Buy milk", "description": "two litres", "priority": "high" }),
            )),
            answers: &[AnswerDocs {
                headers: &[
                    HeaderDocs::Location("The path of the todo"),
                    HeaderDocs::ETag,
                    HeaderDocs::Replayed,
                ],
                ..AnswerDocs::json(201, "The todo", "Todo", None)
            }],
            errors: &[
                INVALID_TITLE,
                UNAUTHORIZED,
                OTHER_USER,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                NO_TITLE_OR_KEY_REUSED,
                QUOTA_EXCEEDED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        TODOS,
        // It makes its own reservation.
        Policy { body: BodyForm::Stream, ..Policy::DEFAULT },
        // With `If-None-Match`, the first one looks up the version. An empty page is followed by
        // its total.
        Statements::new(3, 3),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(list_todos(request, caller))
        }),
        Docs {
            operation_id: "listTodos",
            summary: "List todos",
            description: "Returns one page with `limit` or `cursor`, else the whole list, up to \
                10,000 todos. Pagination is by key: a todo that exists throughout is returned \
                exactly once.",
            tag: Tag::Todos,
            query: Some(list_parameters),
            headers: IF_NONE_MATCH_LIST,
            body: None,
            answers: THE_LIST_OR_NOT_MODIFIED,
            errors: &[INVALID_LIMIT, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        TODO,
        Policy { charge: Charge::Required, ..Policy::DEFAULT },
        STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(get_todo(request, caller))
        }),
        Docs {
            operation_id: "getTodo",
            summary: "Get a todo",
            description: "Returns one todo of the caller.",
            tag: Tag::Todos,
            query: None,
            headers: IF_NONE_MATCH,
            body: None,
            answers: THE_TODO_OR_NOT_MODIFIED,
            errors: READ_ERRORS,
        },
    ),
    Endpoint::of_api(
        Method::PUT,
        TODO,
        Policy::CHANGE,
        CHANGE_STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(replace_todo(request, caller))
        }),
        Docs {
            operation_id: "replaceTodo",
            summary: "Replace a todo",
            description: "Replaces title, priority and description; `completed` is unchanged.",
            tag: Tag::Todos,
            query: None,
            headers: IF_MATCH,
            body: Some(BodyDocs::of::<ReplaceTodoBody>(
                || json!({ "title": "Buy oat milk", "priority": "low" }),
            )),
            answers: THE_TODO,
            errors: EDIT_ERRORS,
        },
    ),
    Endpoint::of_api(
        Method::PATCH,
        TODO,
        Policy::CHANGE,
        CHANGE_STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(patch_todo(request, caller))
        }),
        Docs {
            operation_id: "patchTodo",
            summary: "Update a todo",
            description: "Updates the given members (RFC 7396): absent ones are unchanged, a null \
                description is cleared.",
            tag: Tag::Todos,
            query: None,
            headers: IF_MATCH,
            body: Some(BodyDocs::of::<PatchTodoBody>(|| json!({ "description": null }))),
            answers: THE_TODO,
            errors: EDIT_ERRORS,
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        TODO,
        Policy::DEFAULT,
        CHANGE_STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(delete_todo(request, caller))
        }),
        Docs {
            operation_id: "deleteTodo",
            summary: "Delete a todo",
            description: "Moves a todo to the trash, or deletes it permanently without one: it is \
                a 404 until it is restored.",
            tag: Tag::Todos,
            query: None,
            headers: IF_MATCH,
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "Deleted",
                Some(|| {
                    json!({
                        "message": "Todo deleted successfully",
                        "deleted_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11",
                    })
                }),
            )],
            errors: DELETE_ERRORS,
        },
    ),
    Endpoint::of_api(
        Method::PATCH,
        COMPLETE,
        Policy::CHANGE,
        COMPLETE_STATEMENTS,
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(complete_todo(request, caller))
        }),
        Docs {
            operation_id: "completeTodo",
            summary: "Complete or reopen a todo",
            description: "Sets `completed`. `completed_at` is set on completion, unchanged if the todo \
                is already completed, and cleared on reopening. The completion of a todo with a \
                recurrence makes its next occurrence, whose id is `next_id`; to complete it twice \
                makes one. Reopening deletes the next occurrence, unless it was changed or \
                completed.",
            tag: Tag::Todos,
            query: None,
            headers: IF_MATCH,
            body: Some(BodyDocs::of::<CompleteTodoBody>(|| json!({ "completed": true }))),
            answers: THE_COMPLETION,
            errors: COMPLETE_ERRORS,
        },
    ),
];

fn list_parameters() -> Vec<QueryParameter> {
    let parameter = |name, schema, description| QueryParameter {
        name,
        is_required: false,
        schema,
        description,
    };
    let mut parameters = vec![
        parameter(
            "status",
            with_default(reference("Status"), &Status::All),
            "Filter by completion",
        ),
        parameter(
            "sort_by",
            with_default(reference("SortBy"), &SortBy::CreatedAt),
            "Field to sort by",
        ),
        parameter("order", with_default(reference("Order"), &SortOrder::Desc), "Sort direction"),
    ];
    let bound = || {
        json!({ "anyOf": [
            { "type": "string", "format": "date" },
            { "type": "string", "format": "date-time" },
        ] })
    };
    parameters.extend([
        parameter(
            "tag",
            schema::tags(Filters::MAX_TAGS),
            "A tag that a todo has; several times: all of them",
        ),
        parameter(
            "any_tag",
            schema::tags(Filters::MAX_TAGS),
            "A tag that a todo may have; several times: one of them",
        ),
        parameter("due", reference("DueFilter"), "Filter by due date"),
        parameter("due_before", bound(), "A date or a time before which a todo is due"),
        parameter("due_after", bound(), "A date or a time at which a todo is due, or later"),
        parameter(
            "time_zone",
            <TimeZone as schema::Member>::schema(),
            "The time zone of the filters by due date; by default UTC",
        ),
        parameter(
            "list",
            json!({ "anyOf": [
                { "type": "string", "format": "uuid", "pattern": schema::UUID },
                { "type": "string", "enum": ["inbox"] },
            ] }),
            "The id of a list, or `inbox` for the todos in no list",
        ),
        parameter(
            "q",
            json!({ "type": "string", "minLength": 1, "maxLength": Search::MAX_CHARS }),
            "A search: up to 8 terms, each a part of the title, the description or a tag. \
             `\"a phrase\"` is one term, `-term` excludes todos; case does not matter",
        ),
        parameter(
            "include_total",
            json!({ "type": "boolean", "default": true }),
            "false: `total` is null, which saves counting the todos of some filters",
        ),
    ]);
    parameters
        .extend(page_parameters("The `next_cursor` of the previous page, with the same filters"));
    parameters
}

json_body! {
    /// The body of a new todo.
    pub(super) struct NewTodoBody as "NewTodo" {
        title: Title,
        description: OrNull<Description>,
        priority: OrDefault<Priority>,
        tags: ChangeOrNull<Tags>,
        due: ChangeOrNull<Due>,
        recurrence: ChangeOrNull<Recurrence>,
        reminders: ChangeOrNull<Reminders>,
        list_id: ChangeOrNull<ListId>,
    }
}

json_body! {
    /// The body of a replacement.
    struct ReplaceTodoBody as "ReplaceTodo" {
        title: Title,
        description: OrNull<Description>,
        priority: Priority,
        tags: ChangeOrNull<Tags>,
        due: ChangeOrNull<Due>,
        recurrence: ChangeOrNull<Recurrence>,
        reminders: ChangeOrNull<Reminders>,
        list_id: ChangeOrNull<ListId>,
    }
}

json_body! {
    /// The body of a merge patch (RFC 7396).
    pub(super) struct PatchTodoBody as "PatchTodo" {
        title: Change<Title>,
        description: ChangeOrNull<Description>,
        priority: Change<Priority>,
        tags: ChangeOrNull<Tags>,
        due: ChangeOrNull<Due>,
        recurrence: ChangeOrNull<Recurrence>,
        reminders: ChangeOrNull<Reminders>,
        list_id: ChangeOrNull<ListId>,
    }
}

json_body! {
    /// The body of a completion.
    struct CompleteTodoBody as "CompleteTodo" {
        completed: bool,
    }
}

/// The details of a body that has all of their members.
macro_rules! details {
    ($body:ident) => {
        Details {
            tags: $body.tags.0.map(Option::unwrap_or_default),
            due: $body.due.0,
            recurrence: $body.recurrence.0,
            reminders: $body.reminders.0.map(Option::unwrap_or_default),
            list_id: $body.list_id.0,
        }
    };
}

impl From<NewTodoBody> for NewTodo {
    fn from(body: NewTodoBody) -> Self {
        let details = details!(body);
        Self {
            title: body.title,
            description: body.description.0,
            priority: body.priority.0,
            details,
        }
    }
}

impl From<ReplaceTodoBody> for NewTodo {
    fn from(body: ReplaceTodoBody) -> Self {
        let details = details!(body);
        Self {
            title: body.title,
            description: body.description.0,
            priority: body.priority,
            details,
        }
    }
}

impl From<PatchTodoBody> for TodoPatch {
    fn from(body: PatchTodoBody) -> Self {
        let details = details!(body);
        Self {
            title: body.title.0,
            description: body.description.0,
            priority: body.priority.0,
            details,
        }
    }
}

async fn create_todo(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let new = request.json::<NewTodoBody>().await?.into();
    let core = request.api.core();
    let answer = match idempotency::key(&request.parts.headers)? {
        None => Answer::Created(todos::create(core, &caller, new).await?.into()),
        Some(key) => todos::create_or_replay(core, &caller, key, new).await?,
    };
    let (todo, stored) = match answer {
        Answer::Created(todo) => (*todo, None),
        Answer::Replayed(answer) => (todos::stored_todo(&answer)?, Some(answer)),
    };
    let mut response = todo_response(StatusCode::CREATED, &todo);
    if let Some(stored) = stored {
        *response.body_mut() = Bytes::from(stored).into();
        idempotency::mark_replayed(&mut response);
    }
    let location = format!("{}/users/{}/todos/{}", request.api.base_path(), todo.user_id, todo.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The query of a list.
fn list_query(query: &Query) -> Result<ListQuery, FieldErrors> {
    let mut errors = FieldErrors::none();
    let bound = |name| move |text: &str| DueBound::parse_as(name, text).map(Some);
    let tag = |name| move |text: &str| todos::Tag::parse_as(name, text);
    let filters = Filters {
        status: query.read("status", &mut errors, Status::parse),
        sort_by: query.read("sort_by", &mut errors, SortBy::parse),
        order: query.read("order", &mut errors, SortOrder::parse),
        tags: query.read_all("tag", &mut errors, tag("tag")),
        any_tags: query.read_all("any_tag", &mut errors, tag("any_tag")),
        due: query.read("due", &mut errors, |due| DueFilter::parse(due).map(Some)),
        due_before: query.read("due_before", &mut errors, bound("due_before")),
        due_after: query.read("due_after", &mut errors, bound("due_after")),
        time_zone: query.read("time_zone", &mut errors, |zone| TimeZone::parse(zone).map(Some)),
        list: query.read("list", &mut errors, |list| ListFilter::parse(list).map(Some)),
        q: query.read("q", &mut errors, |q| Search::parse(q).map(Some)),
    };
    let limit = query.read("limit", &mut errors, |limit| Limit::parse(limit).map(Some));
    let cursor = query.text("cursor", &mut errors);
    let include_total = query.read("include_total", &mut errors, |include| match include {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => {
            let message = "Include total must be true or false.";
            Err(FieldError::new("include_total", "invalid", message))
        }
    });
    errors.collect(filters.check());
    let include_total = include_total.unwrap_or(true);
    errors.into_result(|| ListQuery { filters, limit, cursor, include_total })
}

async fn list_todos(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = list_query(&Query::parse(&request.parts.uri)).map_err(Error::from)?;
    let headers = &request.parts.headers;
    // Of a client that has no version of this list, none is looked up.
    let hash = QueryHash::of(&query, request.api.core().now());
    if conditions::may_know_list(headers, hash) {
        let version = todos::list_version(request.api.core(), &caller, &query).await?;
        if conditions::knows_list(headers, &version) {
            return Ok(conditions::list_not_modified(&version));
        }
    }
    let (list, version) = list::body(request.api, &caller, query, request.payer).await?;
    let mut response = respond::personal(StatusCode::OK, list);
    conditions::set_list_etag(&mut response, version.as_ref());
    Ok(response)
}

async fn get_todo(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let todo = todos::get(request.api.core(), &caller, request.todo_id()?).await?;
    Ok(todo_or_not_modified(&request.parts.headers, &todo))
}

async fn replace_todo(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let new = request.json::<ReplaceTodoBody>().await?.into();
    let target = request.target()?;
    let changed = todos::replace(request.api.core(), &caller, target, new).await;
    change_response(request.api, &caller, target, changed).await
}

async fn patch_todo(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let patch = request.json::<PatchTodoBody>().await?.into();
    let target = request.target()?;
    let changed = todos::patch(request.api.core(), &caller, target, patch).await;
    change_response(request.api, &caller, target, changed).await
}

async fn complete_todo(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let CompleteTodoBody { completed } = request.json().await?;
    let target = request.target()?;
    match todos::set_completed(request.api.core(), &caller, target, completed).await {
        Ok(completion) => Ok(completion_response(&completion)),
        Err(error) => Err(change_failure(request.api, &caller, target, error).await),
    }
}

async fn delete_todo(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let target = request.target()?;
    if let Err(error) = todos::delete(request.api.core(), &caller, target).await {
        return Err(change_failure(request.api, &caller, target, error).await);
    }
    let body = json!({ "message": "Todo deleted successfully", "deleted_id": target.id() });
    Ok(respond::json(StatusCode::OK, &body))
}

pub(super) async fn change_response(
    api: &Api,
    caller: &Caller,
    target: Target,
    changed: Result<Todo, Error>,
) -> HandlerResult {
    match changed {
        Ok(todo) => Ok(todo_response(StatusCode::OK, &todo)),
        Err(error) => Err(change_failure(api, caller, target, error).await),
    }
}

/// The error response to a change: a 412 has the current todo.
async fn change_failure(api: &Api, caller: &Caller, target: Target, error: Error) -> ApiError {
    if !matches!(error, Error::PreconditionFailed) {
        return error.into();
    }
    match todos::get(api.core(), caller, target.id()).await {
        Ok(current) => ApiError::Outdated(Box::new(current)),
        Err(error) => error.into(),
    }
}
