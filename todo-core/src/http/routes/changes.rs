//! `/users/{user_id}/changes`: the log of changes of a user's todos.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::Caller,
    error::{Error, FieldErrors},
    http::{
        endpoint::{
            AnswerDocs, Charge, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess,
            Policy, QueryParameter, RequestContext, Statements, Tag,
        },
        extract::Query,
        problem::ApiError,
        respond,
        routes::docs::{self, INTERNAL, OTHER_USER, TIMEOUT, UNAUTHORIZED, UNAVAILABLE, field},
    },
    scopes::Scope,
    todos::{self, ChangeCursor, Limit},
};

pub(crate) const INVALID_SINCE: ErrorDocs = docs::invalid(|_| {
    let message = "Since must be the next of a page of changes.";
    ApiError::Core(Error::Invalid(field("since", "invalid", message)))
});
pub(crate) const EXPIRED: ErrorDocs = ErrorDocs {
    description: "The log does not reach back to `since`: list all todos again",
    example: |_| ApiError::Core(Error::CursorExpired),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::GET,
    "/users/{user_id}/changes",
    Policy { charge: Charge::Required, ..Policy::DEFAULT },
    // The second one checks the session after an invalid value.
    Statements::new(1, 2),
    Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
        Box::pin(list_changes(request, caller))
    }),
    Docs {
        operation_id: "listChanges",
        summary: "List changes",
        description: "Returns what has changed since a position, each todo, tag and list once, as it is now. \
            Without `since` it returns the position of now: a client takes it, lists all todos, \
            and then follows the changes, until `has_more` is false, and from time to time.",
        tag: Tag::Todos,
        query: Some(parameters),
        headers: &[],
        body: None,
        answers: &[AnswerDocs::json(200, "The changes", "ChangePage", None)],
        errors: &[INVALID_SINCE, UNAUTHORIZED, OTHER_USER, EXPIRED, INTERNAL, UNAVAILABLE, TIMEOUT],
    },
)];

fn parameters() -> Vec<QueryParameter> {
    vec![
        since_parameter("The `next` of the page before"),
        QueryParameter {
            name: "limit",
            is_required: false,
            schema: json!({ "type": "integer", "minimum": 1, "maximum": Limit::MAX }),
            description: "Maximum number of entries of the log that the page covers",
        },
    ]
}

pub(crate) fn since_parameter(description: &'static str) -> QueryParameter {
    let schema = json!({ "type": "string", "pattern": "^[A-Za-z0-9]{1,64}\\.[0-9]{1,18}$" });
    QueryParameter { name: "since", is_required: false, schema, description }
}

async fn list_changes(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let since = query.read("since", &mut errors, |since| ChangeCursor::parse(since).map(Some));
    let limit = query.read("limit", &mut errors, |limit| Limit::parse(limit).map(Some));
    let (since, limit) = errors.into_result(|| (since, limit)).map_err(Error::from)?;
    let page = todos::changes(request.api.core(), &caller, since, limit).await?;
    Ok(respond::json(StatusCode::OK, &page))
}
