//! One handler a route: decode, call, encode. What a value must be is for the types of `auth` and
//! `todos`; which error is which status is for `problem`.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    auth::{
        self, Caller, Credentials, Session, Signup, User,
        events::{self, Attempted},
    },
    error::{Error, FieldError, FieldErrors},
    http::{
        Api, Body,
        budget::{FREE, Held, Payer},
        list,
        problem::Failure,
        request::{Form, Incoming, Query},
        routes::{Ids, Operation},
    },
    text::Named,
    timestamp,
    todos::{
        self, Description, Filters, Limit, ListQuery, NewTodo, Order, Priority, SortBy, Status,
        Title, TodoPatch,
    },
};

type Answer = Result<Response<Body>, Failure>;

/// The most bytes that a body may have where no token is wanted: all it holds is an account.
pub(crate) const OPEN_BODY_BYTES: usize = 8 << 10;

/// What signing up and logging in answer.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuthAnswer {
    user: User,
    /// A JWT, to be sent as `Authorization: Bearer`.
    token: String,
    /// The same as `token`, by the name OAuth gives it.
    access_token: String,
    /// `bearer`
    token_type: &'static str,
    /// When the token stops being good.
    #[serde(serialize_with = "timestamp::serialize")]
    expires_at: chrono::DateTime<chrono::Utc>,
}

impl From<Session> for AuthAnswer {
    fn from(Session { user, token, expires_at }: Session) -> Self {
        Self { user, access_token: token.clone(), token, token_type: "bearer", expires_at }
    }
}

/// What a process that lives answers.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(serialize_with = "timestamp::serialize")]
    timestamp: chrono::DateTime<chrono::Utc>,
}

/// A request on its way to its handler.
pub(crate) struct Ask<'a, 'b, B> {
    pub(crate) parts: &'a Parts,
    pub(crate) ids: Ids<'a>,
    pub(crate) body: &'a mut Incoming<'b, B>,
    /// Who is charged for what its bodies take.
    pub(crate) payer: Payer,
}

impl<B> Ask<'_, '_, B>
where
    B: HttpBody<Data: Send> + Send,
{
    async fn form(&mut self, api: &Api) -> Result<Form, Failure> {
        let max = api.config().max_body_bytes;
        self.body.json(&self.parts.headers, max, api.budget(), self.payer).await
    }

    /// As [`Ask::form`], where nobody is known yet.
    async fn open_form(&mut self, api: &Api) -> Result<Form, Failure> {
        let max = api.config().max_body_bytes.min(OPEN_BODY_BYTES);
        self.body.json(&self.parts.headers, max, api.budget(), self.payer).await
    }

    /// The todo's id; one that is no UUID names no todo.
    fn todo_id(&self) -> Result<Uuid, Failure> {
        parse_id(self.ids.todo).ok_or(Failure::Core(Error::NotFound))
    }
}

/// Does what the route is for. Everything that `caller` is needed for has one by now.
pub(crate) async fn run<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    caller: Option<Caller>,
    mut ask: Ask<'_, '_, B>,
) -> Answer {
    let Some(caller) = caller else { return open(api, operation, &mut ask).await };
    let owner = check_owner(operation, &caller, ask.ids);
    let names_a_todo = owner.is_ok() && ask.todo_id().is_ok();
    let answer = match owner {
        Ok(()) => protected(api, operation, caller, &mut ask).await,
        Err(failure) => Err(failure),
    };
    match answer {
        // The core's: its statement has asked for the session.
        Err(failure @ Failure::Core(Error::Forbidden | Error::NotFound)) if names_a_todo => {
            Err(failure)
        }
        // These come after the token in the order of checks, but no statement has asked yet whether
        // its session lives.
        Err(
            failure @ (Failure::OtherUser
            | Failure::Core(Error::Forbidden | Error::NotFound | Error::Invalid(_))
            | Failure::UnsupportedMediaType
            | Failure::BodyTimeout
            | Failure::BadRequest(_)
            | Failure::TooLarge(_)
            | Failure::Malformed(..)),
        ) => {
            Box::pin(auth::check_session(api.core(), &caller)).await?;
            Err(failure)
        }
        answer => answer,
    }
}

/// What needs no caller.
async fn open<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let answer = match operation {
        Operation::Signup => signup(api, ask).boxed(),
        Operation::Login => login(api, ask).boxed(),
        Operation::Health => return Ok(health(api)),
        Operation::Readiness => return Ok(readiness(api)),
        Operation::DatabaseHealth => database_health(api).boxed(),
        Operation::Metrics => return charged(api, ask.payer, metrics(api)?),
        Operation::OpenApi => return Ok(bytes(StatusCode::OK, api.openapi())),
        Operation::Index => return Ok(bytes(StatusCode::OK, api.index())),
        _ => return Err(Failure::NoToken),
    };
    answer.await
}

/// What needs a caller. Each operation is boxed by itself: together they would be as large as the
/// largest, for every request, and whoever mounts this would carry the type of all of them in theirs
/// (a release build of a server ran into rustc's depth limit).
async fn protected<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let payer = ask.payer;
    let answer = match operation {
        Operation::Logout => logout(api, caller, api.client_ip(ask.parts)).boxed(),
        Operation::Me => me(api, caller).boxed(),
        Operation::CreateTodo => create_todo(api, caller, ask).boxed(),
        // It holds what it takes itself.
        Operation::ListTodos => return list_todos(api, caller, ask).boxed().await,
        Operation::GetTodo => get_todo(api, caller, ask.todo_id()?).boxed(),
        Operation::ReplaceTodo => replace_todo(api, caller, ask).boxed(),
        Operation::PatchTodo => patch_todo(api, caller, ask).boxed(),
        Operation::DeleteTodo => delete_todo(api, caller, ask).boxed(),
        Operation::CompleteTodo => complete_todo(api, caller, ask).boxed(),
        _ => return Err(Failure::NoRoute),
    };
    match (answer.await, operation) {
        (Ok(response), Operation::GetTodo) => charged(api, payer, response),
        // What took effect is told in any case: its answer is small, and charged if there is room.
        (Ok(response), _) => Ok(held(api.budget().try_take(payer, size(&response)), response)),
        (failed, _) => failed,
    }
}

/// Charges a whole answer, or refuses it.
fn charged(api: &Api, payer: Payer, response: Response<Body>) -> Answer {
    let size = size(&response);
    if size == 0 {
        return Ok(response);
    }
    let room = api.budget().take(payer, size).ok_or(Failure::BodyMemory)?;
    Ok(held(Some(room), response))
}

/// What is charged for a whole answer.
fn size(response: &Response<Body>) -> usize {
    response.body().whole().map(Bytes::len).filter(|size| *size > FREE).unwrap_or_default()
}

/// The answer, which holds its room until it is sent.
fn held(room: Option<Held>, response: Response<Body>) -> Response<Body> {
    match room {
        Some(room) if size(&response) > 0 => response.map(|body| match body.into_bytes() {
            Ok(bytes) => Arc::new(room).by(bytes).into(),
            Err(pieces) => pieces,
        }),
        _ => response,
    }
}

async fn signup<B: HttpBody<Data: Send> + Send>(api: &Api, ask: &mut Ask<'_, '_, B>) -> Answer {
    let client = api.client_ip(ask.parts);
    let parsed = async {
        let mut form = ask.open_form(api).await?;
        let (email, password) = (form.text("email"), form.text("password"));
        let name = form.text("name");
        form.finish()?;
        Ok(Signup::parse(&email, &password, &name)?)
    };
    let form = parsed.await.inspect_err(|failure| unread(Attempted::Signup, client, failure))?;
    let session = auth::signup(api.core(), client, form).await?;
    Ok(json(StatusCode::CREATED, &AuthAnswer::from(session)))
}

async fn login<B: HttpBody<Data: Send> + Send>(api: &Api, ask: &mut Ask<'_, '_, B>) -> Answer {
    let client = api.client_ip(ask.parts);
    let parsed = async {
        let mut form = ask.open_form(api).await?;
        let (email, password) = (form.text("email"), form.text("password"));
        form.finish()?;
        Ok(Credentials::parse(&email, &password)?)
    };
    let given = parsed.await.inspect_err(|failure| unread(Attempted::Login, client, failure))?;
    let session = auth::login(api.core(), client, given).await?;
    Ok(json(StatusCode::OK, &AuthAnswer::from(session)))
}

/// Logs an attempt that got no further than its form.
fn unread(attempted: Attempted, client: Option<IpAddr>, failure: &Failure) {
    let reason = match failure {
        Failure::Core(error) => events::reason(error),
        _ => "unreadable form",
    };
    events::failed(attempted, client, None, reason);
}

async fn logout(api: &Api, caller: Caller, client: Option<IpAddr>) -> Answer {
    auth::end_session(api.core(), caller, client).await?;
    Ok(json(StatusCode::OK, &json!({ "message": "Successfully logged out" })))
}

async fn me(api: &Api, caller: Caller) -> Answer {
    Ok(json(StatusCode::OK, &auth::me(api.core(), &caller).await?))
}

async fn get_todo(api: &Api, caller: Caller, id: Uuid) -> Answer {
    Ok(json(StatusCode::OK, &todos::get(api.core(), &caller, id).await?))
}

async fn create_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let mut form = ask.form(api).await?;
    let title = form.text("title");
    let description = form.nullable_text("description").flatten();
    let priority = form.optional_text("priority");
    form.finish()?;
    let new = new_todo(&title, description.as_deref(), priority.as_deref())?;
    let todo = todos::create(api.core(), &caller, new).await?;
    let mut response = json(StatusCode::CREATED, &todo);
    let location = format!("{}/users/{}/todos/{}", api.public_prefix(), todo.user_id, todo.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list_todos<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let query = Query::parse(&ask.parts.uri);
    let mut errors = Vec::new();
    let filters = Filters {
        status: query.read("status", &mut errors, Status::parse),
        sort_by: query.read("sort_by", &mut errors, SortBy::parse),
        order: query.read("order", &mut errors, Order::parse),
    };
    let limit = query.read("limit", &mut errors, |limit| Limit::parse(limit).map(Some));
    let cursor = query.read("cursor", &mut errors, |cursor| Ok(Some(cursor.to_owned())));
    if !errors.is_empty() {
        return Err(Error::Invalid(errors).into());
    }
    let query = ListQuery { filters, limit, cursor };
    let list = list::body(api, &caller, query, ask.payer).await?;
    let mut response = bytes(StatusCode::OK, list);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn replace_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let mut form = ask.form(api).await?;
    let (title, priority) = (form.text("title"), form.text("priority"));
    let description = form.nullable_text("description").flatten();
    form.finish()?;
    let new = new_todo(&title, description.as_deref(), Some(&priority))?;
    let todo = todos::replace(api.core(), &caller, ask.todo_id()?, new).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn patch_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let mut form = ask.form(api).await?;
    let title = form.nullable_text("title");
    let description = form.nullable_text("description");
    let priority = form.nullable_text("priority");
    form.finish()?;
    let patch = todo_patch(title, description, priority)?;
    let todo = todos::patch(api.core(), &caller, ask.todo_id()?, patch).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn complete_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let mut form = ask.form(api).await?;
    let completed = form.boolean("completed");
    form.finish()?;
    let todo = todos::set_completed(api.core(), &caller, ask.todo_id()?, completed).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn delete_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    ask: &mut Ask<'_, '_, B>,
) -> Answer {
    let id = ask.todo_id()?;
    todos::delete(api.core(), &caller, id).await?;
    let answer = json!({ "message": "Todo deleted successfully", "deleted_id": id });
    Ok(json(StatusCode::OK, &answer))
}

fn health(api: &Api) -> Response<Body> {
    json(StatusCode::OK, &Health { status: "healthy", timestamp: api.core().now() })
}

/// Not draining, and no more: the database is not asked. All replicas share it, so that an outage
/// would take every one of them out of service, and with them the answers that tell of it.
fn readiness(api: &Api) -> Response<Body> {
    if !api.is_draining() {
        return json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn database_health(api: &Api) -> Answer {
    let core = api.core().clone();
    if api.0.database_check.answers(|| async move { core.ping().await }).await {
        return Ok(json(StatusCode::OK, &json!({ "status": "healthy", "database": "connected" })));
    }
    let answer = json!({ "status": "unhealthy", "error": "the database does not answer" });
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &answer);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

pub(crate) fn metrics(api: &Api) -> Answer {
    let mut response = bytes(StatusCode::OK, Bytes::from(api.metrics()?));
    // The exposition format's own name, which scrapers ask for.
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The path's user must be the caller; an id that is no UUID is nobody's.
fn check_owner(operation: Operation, caller: &Caller, ids: Ids<'_>) -> Result<(), Failure> {
    let is_own = match operation {
        Operation::Logout | Operation::Me => true,
        _ => parse_id(ids.user) == Some(caller.user_id()),
    };
    match ids.todo {
        _ if is_own => Ok(()),
        "" => Err(Failure::OtherUser),
        _ => Err(Failure::Core(Error::Forbidden)),
    }
}

/// The hyphenated form (RFC 9562, section 4) and no other.
fn parse_id(id: &str) -> Option<Uuid> {
    if id.len() == 36 { Uuid::try_parse(id).ok() } else { None }
}

fn new_todo(
    title: &str,
    description: Option<&str>,
    priority: Option<&str>,
) -> Result<NewTodo, Error> {
    let mut errors = FieldErrors::default();
    let title = errors.note(Title::parse(title));
    let description = errors.note(description.map(Description::parse).transpose());
    let priority = errors.note(priority.map_or(Ok(Priority::default()), Priority::parse));
    match (title, description, priority) {
        (Some(title), Some(description), Some(priority)) => {
            Ok(NewTodo { title, description, priority })
        }
        _ => Err(errors.into_error()),
    }
}

fn todo_patch(
    title: Option<Option<String>>,
    description: Option<Option<String>>,
    priority: Option<Option<String>>,
) -> Result<TodoPatch, Error> {
    let mut errors = FieldErrors::default();
    // Null removes a member (RFC 7396), and these two cannot be without a value.
    let given = |name, value: Option<String>| {
        let message = || format!("{} cannot be null.", Named(name));
        value.ok_or_else(|| FieldError::new(name, "null", message()))
    };
    let parse_title = |title| Title::parse(&given("title", title)?);
    let title = errors.note(title.map(parse_title).transpose());
    let description = errors.note(
        description.map(|text| text.map(|text| Description::parse(&text)).transpose()).transpose(),
    );
    let priority = errors.note(
        priority
            .map(|word| given("priority", word).and_then(|word| Priority::parse(&word)))
            .transpose(),
    );
    match (title, description, priority) {
        (Some(title), Some(description), Some(priority)) => {
            Ok(TodoPatch { title, description, priority })
        }
        _ => Err(errors.into_error()),
    }
}

/// An answer of JSON that must not be kept: it is somebody's.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut body = Vec::with_capacity(512);
    let mut response = match serde_json::to_writer(&mut body, value) {
        Ok(()) => bytes(status, Bytes::from(body)),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            bytes(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn bytes(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // For those that every answer gets as well: the map does not have to grow.
    response.headers_mut().reserve(12);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
