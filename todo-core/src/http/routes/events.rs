//! `/users/{user_id}/events` and `/users/{user_id}/ws`: the changes of a user's todos as they
//! happen.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::{
    auth::{self, Caller},
    error::{Error, FieldErrors},
    http::{
        endpoint::{
            AnswerDocs, BodyForm, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, HeaderDocs,
            HeaderParameter, KeyAccess, Policy, RequestContext, Schema, Statements, Tag,
        },
        events,
        extract::Query,
        problem::ApiError,
        routes::{
            changes::{EXPIRED, INVALID_SINCE, since_parameter},
            docs::{self, INTERNAL, OTHER_USER, TIMEOUT, UNAUTHORIZED, UNAVAILABLE},
        },
        websocket::{
            self,
            handshake::{self, Handshake},
        },
    },
    request_id,
    scopes::Scope,
    streams::StreamKind,
    todos::{self, ChangeCursor, Follower},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const TOO_MANY: ErrorDocs = ErrorDocs {
    description: "The user has `MAX_STREAMS_PER_USER` open streams",
    example: |_| ApiError::Core(Error::TooManyStreams { limit: 5 }),
};

const UPGRADE_REQUIRED: ErrorDocs = ErrorDocs {
    description: "The request is not the handshake of a WebSocket over HTTP/1.1",
    example: |_| ApiError::UpgradeRequired,
};
const INVALID_HANDSHAKE: ErrorDocs =
    docs::invalid(|_| ApiError::BadRequest("The WebSocket subprotocols must include todo.v1."));
const OTHER_ORIGIN: ErrorDocs = docs::forbidden(|_| ApiError::OriginNotAllowed);

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        "/users/{user_id}/events",
        Policy { body: BodyForm::Live, ..Policy::DEFAULT },
        // The second one checks the session after an invalid value, or over the limit of streams.
        Statements::new(1, 2),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(follow(request, caller))
        }),
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
    ),
    Endpoint::of_api(
        Method::GET,
        "/users/{user_id}/ws",
        Policy { takes_protocol_token: true, ..Policy::DEFAULT },
        // The first one checks the session, the second reads the first page, after the response.
        Statements::new(2, 1),
        Handler::Owner(KeyAccess::With(Scope::TodosRead), |request, caller| {
            Box::pin(connect(request, caller))
        }),
        Docs {
            operation_id: "connectToChanges",
            summary: "Follow changes over a WebSocket",
            description: "Opens a WebSocket (RFC 6455) with the subprotocol `todo.v1`. A browser sends \
            its token as another subprotocol, `bearer.` and the token. The client's first and only \
            message is `{}`, or `{\"resume\": \"…\"}` with the `id` of an event. Each event is a \
            text of JSON with its `id`, its `event` and its `data`, as of `events`.",
            tag: Tag::Todos,
            query: None,
            headers: &[HeaderParameter {
                name: "Sec-WebSocket-Protocol",
                description: "`todo.v1`, and the token of a browser",
                example: "todo.v1, bearer.eyJ0eXAiOiJKV1Qi",
            }],
            body: None,
            answers: &[AnswerDocs {
                status: 101,
                description: "The connection is a WebSocket",
                media_type: "",
                schema: Schema::None,
                example: None,
                headers: &[HeaderDocs::WebSocket],
            }],
            errors: &[
                INVALID_HANDSHAKE,
                UNAUTHORIZED,
                OTHER_ORIGIN,
                UPGRADE_REQUIRED,
                TOO_MANY,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

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

async fn connect(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let Handshake { response, upgraded } = handshake::accept(request.api, request.parts)?;
    let core = request.api.core();
    auth::check_session(core, &caller).await?;
    let slot = core.streams().open(&caller, StreamKind::WebSocket)?;
    let api = request.api.clone();
    let serving = websocket::serve(api, caller, request.payer, slot, upgraded);
    match request_id::current() {
        Some(id) => tokio::spawn(request_id::scope(id, serving)),
        None => tokio::spawn(serving),
    };
    Ok(response)
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
