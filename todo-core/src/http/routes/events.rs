//! `/users/{user_id}/events`: the changes of a user's todos as they happen.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::{
    auth::Caller,
    error::{Error, FieldErrors},
    http::{
        endpoint::{
            AnswerDocs, BodyForm, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            HeaderParameter, Policy, RequestContext, Schema, Statements, Tag,
        },
        events,
        extract::Query,
        problem::ApiError,
        routes::{
            changes::{EXPIRED, INVALID_SINCE, since_parameter},
            docs::{INTERNAL, OTHER_USER, TIMEOUT, UNAUTHORIZED, UNAVAILABLE},
        },
    },
    streams::StreamKind,
    todos::{self, ChangeCursor, Follower},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const TOO_MANY: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_STREAMS_PER_USER` open streams",
    example: |_| ApiError::Core(Error::TooManyStreams { limit: 5 }),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::GET,
    "/users/{user_id}/events",
    Policy { body: BodyForm::Live, ..Policy::DEFAULT },
    // The second one checks the session after an invalid value, or over the limit of streams.
    Statements::new(1, 2),
    Handler::Owner(|request, caller| Box::pin(follow(request, caller))),
    Docs {
        operation_id: "followChanges",
        summary: "Follow changes",
        description: "Sends each change as an event when it happens. An event's `id` is the \
            position after it, and its `data` a change as in the list of changes. With `since`, \
            or `Last-Event-ID`, which takes precedence, it begins after that position, else now. \
            It ends with the event `end` and a reason, for instance when the session ends and \
            after 15 minutes at the latest: the client then connects again. A comment is sent \
            every 15 seconds.",
        tag: Tag::Todos,
        query: Some(|| {
            vec![since_parameter("The `next` of a page of changes, or an event's `id`")]
        }),
        headers: &[HeaderParameter {
            name: "Last-Event-ID",
            description: "The `id` of the last event that the client has received",
            example: "8f14e45fceea167a.42",
        }],
        body: None,
        answers: &[AnswerDocs {
            status: 200,
            description: "The events (HTML standard, section 9.2)",
            media_type: "text/event-stream",
            schema: Schema::Type("string"),
            example: Some(example),
            headers: &[],
        }],
        errors: &[
            INVALID_SINCE,
            UNAUTHORIZED,
            OTHER_USER,
            EXPIRED,
            TOO_MANY,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
    },
)];

fn example() -> Value {
    json!(
        "retry: 3120\nid: 8f14e45fceea167a.41\n\n\
         event: deleted\nid: 8f14e45fceea167a.42\n\
         data: {\"type\":\"deleted\",\"id\":\"01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b12\"}\n\n\
         :\n\n\
         event: end\ndata: {\"reason\":\"max_age\",\"type\":\"end\"}\n\n"
    )
}

async fn follow(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let since = position(&request)?;
    let core = request.api.core();
    let follower = if request.parts.method == Method::HEAD {
        todos::check_position(core, &caller, since).await?;
        None
    } else {
        Some(Follower::open(core, &caller, since, StreamKind::ServerSentEvents).await?)
    };
    Ok(events::response(request.api, request.payer, follower))
}

/// The position after which the stream begins. `Last-Event-ID` is the later one: a browser that
/// connects again repeats the query of its first request.
fn position(request: &RequestContext<'_>) -> Result<Option<ChangeCursor>, ApiError> {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let since = query.read("since", &mut errors, |since| ChangeCursor::parse(since).map(Some));
    let since = errors.into_result(|| since).map_err(Error::from)?;
    let mut lines = request.parts.headers.get_all(LAST_EVENT_ID).iter();
    let last = match (lines.next(), lines.next()) {
        (Some(last), None) => last,
        (None, _) => return Ok(since),
        (Some(_), Some(_)) => return Err(INVALID_ID),
    };
    // A client that has not received an id may send an empty one.
    if last.is_empty() {
        return Ok(since);
    }
    let last = HeaderValue::to_str(last).map_err(|_| INVALID_ID)?;
    ChangeCursor::parse(last).map(Some).map_err(|_| INVALID_ID)
}

const INVALID_ID: ApiError =
    ApiError::BadRequest("The Last-Event-ID header must be the id of an event.");
