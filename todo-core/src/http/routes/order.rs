//! `/users/{user_id}/todos/{todo_id}/move`: the manual order of a user's todos.

use http::Method;
use serde_json::json;

use crate::{
    auth::Caller,
    error::Error,
    http::{
        endpoint::{
            BodyDocs, Docs, Endpoint, Handler, HandlerResult, KeyAccess, Policy, RequestContext,
            Statements, Tag,
        },
        extract::{ChangeOrNull, Nullable, json_body},
        problem::ApiError,
        routes::{
            docs::{self, field},
            tags::LONG,
            todos::{IF_MATCH, THE_TODO, change_errors, change_response},
        },
    },
    scopes::Scope,
    todos::{self, ListId, TodoId},
};

const MOVE: &str = "/users/{user_id}/todos/{todo_id}/move";

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::POST,
    MOVE,
    Policy { deadline: Some(LONG), ..Policy::CHANGE },
    // If todos before the place have no position: BEGIN, four, COMMIT, for each 500 of them, and
    // the move again.
    Statements::new(8, 3),
    Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
        Box::pin(move_todo(request, caller))
    }),
    Docs {
        operation_id: "moveTodo",
        summary: "Move a todo",
        description: "Moves a todo directly after another one, or before all others if `after` is \
            null, in the user's one order of all todos, of which every list shows its part \
            (`sort_by=position`). Todos that were never moved are at its end, the oldest first. \
            With `list_id`, the todo is moved into that list too; null is the inbox. A repetition \
            of the request has no further effect, unless others moved todos meanwhile.",
        tag: Tag::Todos,
        query: None,
        headers: IF_MATCH,
        body: Some(BodyDocs::of::<MoveTodoBody>(
            || json!({ "after": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b12" }),
        )),
        answers: THE_TODO,
        errors: &change_errors(
            docs::invalid(|_| {
                let message = "After must be the id of another one of your todos.";
                ApiError::Core(Error::Invalid(field("after", "unknown", message)))
            }),
            docs::malformed(|_| {
                ApiError::Malformed("", field("after", "missing", "After is required.").into())
            }),
        ),
    },
)];

json_body! {
    /// The body of a move.
    struct MoveTodoBody as "MoveTodo" {
        after: Nullable<TodoId>,
        list_id: ChangeOrNull<ListId>,
    }
}

async fn move_todo(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let MoveTodoBody { after, list_id } = request.json().await?;
    let target = request.target()?;
    let core = request.api.core();
    let moved = todos::move_todo(core, &caller, target, after.0, list_id.0).await;
    change_response(request.api, &caller, target, moved).await
}
