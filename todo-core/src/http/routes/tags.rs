//! `/users/{user_id}/tags`: the tags of a user's todos.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::Caller,
    error::{Error, FieldErrors},
    http::{
        conditions,
        endpoint::{
            AnswerDocs, BodyDocs, Charge, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            HeaderDocs, KeyAccess, Policy, QueryParameter, RequestContext, Schema, Statements, Tag,
        },
        extract::{Query, json_body},
        problem::ApiError,
        respond,
        routes::{
            docs::{
                self, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, OTHER_USER, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            todos::IF_NONE_MATCH_LIST,
        },
        schema::Member,
    },
    scopes::Scope,
    todos::{self, Tag as TodoTag},
    validate,
};

const TAGS: &str = "/users/{user_id}/tags";
const RENAME: &str = "/users/{user_id}/tags/rename";

/// Time limit of a change of all of a user's todos.
pub(super) const LONG: Duration = Duration::from_mins(2);

const NOT_FOUND: ErrorDocs =
    ErrorDocs { description: "No todo has the tag", example: |_| ApiError::NoSuch("tag") };
const INVALID_TAG: ErrorDocs = docs::invalid(|_| {
    ApiError::Core(Error::Invalid(field("to", "comma", "A tag cannot contain a comma.")))
});
const INVALID_NAME: ErrorDocs = docs::invalid(|_| {
    ApiError::Core(Error::Invalid(field("name", "missing", "Name is required.")))
});
const THE_TAGS: AnswerDocs = AnswerDocs {
    headers: &[HeaderDocs::ListETag],
    ..AnswerDocs::json(200, "The tags", "Tags", None)
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        TAGS,
        Policy { charge: Charge::Required, ..Policy::DEFAULT },
        // With `If-None-Match`, the first one looks up the version.
        Statements::new(2, 1),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(list_tags(request, caller))
        }),
        Docs {
            operation_id: "listTags",
            summary: "List tags",
            description: "Returns the tags of the user's todos in code point order, each with the \
                number of its open and completed todos. Those in the trash do not count.",
            tag: Tag::Todos,
            query: None,
            headers: IF_NONE_MATCH_LIST,
            body: None,
            answers: &[
                THE_TAGS,
                AnswerDocs {
                    status: 304,
                    description: "The client has this version of the tags",
                    schema: Schema::None,
                    ..THE_TAGS
                },
            ],
            errors: &[docs::BAD_REQUEST, UNAUTHORIZED, OTHER_USER, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        TAGS,
        Policy { deadline: Some(LONG), ..Policy::DEFAULT },
        // BEGIN, the todos, the change, COMMIT, for each 200 todos.
        Statements::new(4, 3),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(delete_tag(request, caller))
        }),
        Docs {
            operation_id: "deleteTag",
            summary: "Remove a tag from all todos",
            description: "Removes a tag from all todos of the user that have it, 200 at a time. \
                After an error, some are changed, and the same request changes the rest. Todos in \
                the trash keep it.",
            tag: Tag::Todos,
            query: Some(name_parameter),
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Removed",
                "ChangedTodos",
                Some(|| json!({ "message": "Tag deleted successfully", "changed_count": 3 })),
            )],
            errors: &[
                INVALID_NAME,
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
        RENAME,
        Policy { deadline: Some(LONG), ..Policy::DEFAULT },
        Statements::new(4, 3),
        Handler::Owner(KeyAccess::With(Scope::TodosWrite), |request, caller| {
            Box::pin(rename_tag(request, caller))
        }),
        Docs {
            operation_id: "renameTag",
            summary: "Rename a tag on all todos",
            description: "Renames a tag on all todos of the user that have it, 200 at a time. If \
                other todos have the new one already, the two become one. After an error, some \
                are changed, and the same request changes the rest. Todos in the trash keep the \
                old one.",
            tag: Tag::Todos,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<RenameTagBody>(
                || json!({ "from": "errand", "to": "shopping" }),
            )),
            answers: &[AnswerDocs::json(
                200,
                "Renamed",
                "ChangedTodos",
                Some(|| json!({ "message": "Tag renamed successfully", "changed_count": 3 })),
            )],
            errors: &[
                INVALID_TAG,
                UNAUTHORIZED,
                OTHER_USER,
                NOT_FOUND,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    ApiError::Malformed("", field("to", "missing", "To is required.").into())
                }),
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

json_body! {
    /// The body of a renaming.
    struct RenameTagBody as "RenameTag" {
        from: TodoTag,
        to: TodoTag,
    }
}

fn name_parameter() -> Vec<QueryParameter> {
    vec![QueryParameter {
        name: "name",
        is_required: true,
        schema: TodoTag::schema(),
        description: "The tag",
    }]
}

async fn list_tags(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let headers = &request.parts.headers;
    let hash = todos::tags_hash();
    if let Some(response) = conditions::known_list(core, &caller, headers, hash).await? {
        return Ok(response);
    }
    let tags = todos::tags(core, &caller).await?;
    let mut response = respond::json(StatusCode::OK, &tags);
    conditions::set_list_etag(&mut response, tags.version.as_ref());
    Ok(response)
}

async fn delete_tag(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let name = query.text("name", &mut errors);
    let tag = match &name {
        Some(name) => {
            errors.collect(TodoTag::parse(name).map_err(|errors| errors.of_field("name")))
        }
        None if errors.is_empty() => errors.collect(Err(validate::missing("name"))),
        None => None,
    };
    let Some(tag) = tag else { return Err(Error::from(errors).into()) };
    let changed = todos::delete_tag(request.api.core(), &caller, tag).await.map_err(no_tag)?;
    let body = json!({ "message": "Tag deleted successfully", "changed_count": changed });
    Ok(respond::json(StatusCode::OK, &body))
}

async fn rename_tag(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let RenameTagBody { from, to } = request.json().await?;
    let changed = todos::rename_tag(request.api.core(), &caller, from, to).await.map_err(no_tag)?;
    let body = json!({ "message": "Tag renamed successfully", "changed_count": changed });
    Ok(respond::json(StatusCode::OK, &body))
}

fn no_tag(error: Error) -> ApiError {
    match error {
        Error::NotFound => ApiError::NoSuch("tag"),
        error => error.into(),
    }
}
