//! One handler per route: decode, call, encode. The types of `auth` and `todos` validate values;
//! `problem` maps errors to statuses.

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
        events::{self, AuthEvent},
    },
    error::{Error, FieldError, FieldErrors},
    http::{
        Api, Body,
        budget::{Payer, Reservation, UNCHARGED_BYTES},
        list,
        problem::ApiError,
        request::{Form, Incoming, Query},
        routes::{Operation, PathParams},
    },
    timestamp,
    todos::{
        self, Description, Filters, Limit, ListQuery, NewTodo, Priority, SortBy, SortOrder, Status,
        Title, TodoPatch,
    },
    validate::FieldLabel,
};

type HandlerResult = Result<Response<Body>, ApiError>;

/// Maximum body size of the public routes: it contains no more than an account.
pub(crate) const PUBLIC_BODY_BYTES: usize = 8 << 10;

/// The response to signup and login.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuthResponse {
    user: User,
    /// A JWT for the `Authorization: Bearer` header.
    token: String,
    /// The same as `token`, under its OAuth 2.0 name.
    access_token: String,
    /// `bearer`
    token_type: &'static str,
    /// The end of the token's validity.
    #[serde(serialize_with = "timestamp::serialize")]
    expires_at: chrono::DateTime<chrono::Utc>,
}

impl From<Session> for AuthResponse {
    fn from(Session { user, token, expires_at }: Session) -> Self {
        Self { user, access_token: token.clone(), token, token_type: "bearer", expires_at }
    }
}

/// The response of the liveness probe.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(serialize_with = "timestamp::serialize")]
    timestamp: chrono::DateTime<chrono::Utc>,
}

/// A request as its handler receives it.
pub(crate) struct RequestContext<'a, 'b, B> {
    pub(crate) parts: &'a Parts,
    pub(crate) params: PathParams<'a>,
    pub(crate) body: &'a mut Incoming<'b, B>,
    /// The accounts charged for its bodies.
    pub(crate) payer: Payer,
}

impl<B> RequestContext<'_, '_, B>
where
    B: HttpBody<Data: Send> + Send,
{
    async fn form(&mut self, api: &Api) -> Result<Form, ApiError> {
        let max = api.config().max_body_bytes;
        self.body.json(&self.parts.headers, max, api.budget(), self.payer).await
    }

    /// Like [`RequestContext::form`], with the smaller limit of unauthenticated routes.
    async fn public_form(&mut self, api: &Api) -> Result<Form, ApiError> {
        let max = api.config().max_body_bytes.min(PUBLIC_BODY_BYTES);
        self.body.json(&self.parts.headers, max, api.budget(), self.payer).await
    }

    /// The todo's id; not found if it is not a UUID.
    fn todo_id(&self) -> Result<Uuid, ApiError> {
        parse_id(self.params.todo).ok_or(ApiError::Core(Error::NotFound))
    }
}

/// Runs the handler of `operation`. `caller` is `None` for public operations only.
pub(crate) async fn dispatch<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    caller: Option<Caller>,
    mut request: RequestContext<'_, '_, B>,
) -> HandlerResult {
    let Some(caller) = caller else { return public(api, operation, &mut request).await };
    let owner = check_owner(operation, &caller, request.params);
    let names_a_todo = owner.is_ok() && request.todo_id().is_ok();
    let result = match owner {
        Ok(()) => protected(api, operation, caller, &mut request).await,
        Err(failure) => Err(failure),
    };
    match result {
        // From the core, whose statement has checked the session.
        Err(failure @ ApiError::Core(Error::Forbidden | Error::NotFound)) if names_a_todo => {
            Err(failure)
        }
        // These come after the token in the order of checks, but no statement has checked the
        // session yet.
        Err(
            failure @ (ApiError::OtherUser
            | ApiError::Core(Error::Forbidden | Error::NotFound | Error::Invalid(_))
            | ApiError::UnsupportedMediaType
            | ApiError::BodyTimeout
            | ApiError::BadRequest(_)
            | ApiError::TooLarge(_)
            | ApiError::Malformed(..)),
        ) => {
            Box::pin(auth::check_session(api.core(), &caller)).await?;
            Err(failure)
        }
        result => result,
    }
}

/// Runs an operation without a caller.
async fn public<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let future = match operation {
        Operation::Signup => signup(api, request).boxed(),
        Operation::Login => login(api, request).boxed(),
        Operation::Health => return Ok(health(api)),
        Operation::Readiness => return Ok(readiness(api)),
        Operation::DatabaseHealth => database_health(api).boxed(),
        Operation::Metrics => return charge_response(api, request.payer, metrics(api)?),
        Operation::OpenApi => return Ok(bytes(StatusCode::OK, api.openapi())),
        Operation::Index => return Ok(bytes(StatusCode::OK, api.index())),
        _ => return Err(ApiError::MissingToken),
    };
    future.await
}

/// Runs an operation of a caller. Each future is boxed: unboxed, every request's future would be as
/// large as the largest, and its type would contain the types of all operations (a release build of
/// a server ran into rustc's depth limit).
async fn protected<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    operation: Operation,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let payer = request.payer;
    let future = match operation {
        Operation::Logout => logout(api, caller, api.client_ip(request.parts)).boxed(),
        Operation::CurrentUser => current_user(api, caller).boxed(),
        Operation::CreateTodo => create_todo(api, caller, request).boxed(),
        // It makes its own reservation.
        Operation::ListTodos => return list_todos(api, caller, request).boxed().await,
        Operation::GetTodo => get_todo(api, caller, request.todo_id()?).boxed(),
        Operation::ReplaceTodo => replace_todo(api, caller, request).boxed(),
        Operation::PatchTodo => patch_todo(api, caller, request).boxed(),
        Operation::DeleteTodo => delete_todo(api, caller, request).boxed(),
        Operation::CompleteTodo => complete_todo(api, caller, request).boxed(),
        _ => return Err(ApiError::NoRoute),
    };
    match (future.await, operation) {
        (Ok(response), Operation::GetTodo) => charge_response(api, payer, response),
        // A change that took effect is always confirmed: the response is small, and charged if
        // there is budget.
        (Ok(response), _) => Ok(attach_reservation(
            api.budget().try_reserve(payer, charged_size(&response)),
            response,
        )),
        (failed, _) => failed,
    }
}

/// Charges a whole response to the budget, or fails.
fn charge_response(api: &Api, payer: Payer, response: Response<Body>) -> HandlerResult {
    let size = charged_size(&response);
    if size == 0 {
        return Ok(response);
    }
    let reservation = api.budget().reserve(payer, size).ok_or(ApiError::BodyMemory)?;
    Ok(attach_reservation(Some(reservation), response))
}

/// The number of bytes to charge for a whole response.
fn charged_size(response: &Response<Body>) -> usize {
    response
        .body()
        .whole()
        .map(Bytes::len)
        .filter(|size| *size > UNCHARGED_BYTES)
        .unwrap_or_default()
}

/// Attaches the reservation to the response until it is sent.
fn attach_reservation(
    reservation: Option<Reservation>,
    response: Response<Body>,
) -> Response<Body> {
    match reservation {
        Some(reservation) if charged_size(&response) > 0 => {
            response.map(|body| match body.into_bytes() {
                Ok(bytes) => Arc::new(reservation).attach_to(bytes).into(),
                Err(chunks) => chunks,
            })
        }
        _ => response,
    }
}

async fn signup<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let client = api.client_ip(request.parts);
    let parsed = async {
        let mut form = request.public_form(api).await?;
        let email = form.text("email");
        let password = form.text("password");
        let name = form.text("name");
        form.finish()?;
        Ok(Signup::parse(&email, &password, &name)?)
    };
    let form =
        parsed.await.inspect_err(|failure| log_bad_form(AuthEvent::Signup, client, failure))?;
    let session = auth::signup(api.core(), client, form).await?;
    Ok(json(StatusCode::CREATED, &AuthResponse::from(session)))
}

async fn login<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let client = api.client_ip(request.parts);
    let parsed = async {
        let mut form = request.public_form(api).await?;
        let email = form.text("email");
        let password = form.text("password");
        form.finish()?;
        Ok(Credentials::parse(&email, &password)?)
    };
    let given =
        parsed.await.inspect_err(|failure| log_bad_form(AuthEvent::Login, client, failure))?;
    let session = auth::login(api.core(), client, given).await?;
    Ok(json(StatusCode::OK, &AuthResponse::from(session)))
}

/// Logs a signup or login whose form is invalid.
fn log_bad_form(attempted: AuthEvent, client: Option<IpAddr>, failure: &ApiError) {
    let reason = match failure {
        ApiError::Core(error) => events::reason(error),
        _ => "unreadable form",
    };
    events::failed(attempted, client, None, reason);
}

async fn logout(api: &Api, caller: Caller, client: Option<IpAddr>) -> HandlerResult {
    auth::end_session(api.core(), caller, client).await?;
    Ok(json(StatusCode::OK, &json!({ "message": "Successfully logged out" })))
}

async fn current_user(api: &Api, caller: Caller) -> HandlerResult {
    Ok(json(StatusCode::OK, &auth::current_user(api.core(), &caller).await?))
}

async fn get_todo(api: &Api, caller: Caller, id: Uuid) -> HandlerResult {
    Ok(json(StatusCode::OK, &todos::get(api.core(), &caller, id).await?))
}

async fn create_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let mut form = request.form(api).await?;
    let title = form.text("title");
    let description = form.nullable_text("description").flatten();
    let priority = form.optional_text("priority");
    form.finish()?;
    let new = new_todo(&title, description.as_deref(), priority.as_deref())?;
    let todo = todos::create(api.core(), &caller, new).await?;
    let mut response = json(StatusCode::CREATED, &todo);
    let location = format!("{}/users/{}/todos/{}", api.base_path(), todo.user_id, todo.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list_todos<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = Vec::new();
    let filters = Filters {
        status: query.read("status", &mut errors, Status::parse),
        sort_by: query.read("sort_by", &mut errors, SortBy::parse),
        order: query.read("order", &mut errors, SortOrder::parse),
    };
    let limit = query.read("limit", &mut errors, |limit| Limit::parse(limit).map(Some));
    let cursor = query.read("cursor", &mut errors, |cursor| Ok(Some(cursor.to_owned())));
    if !errors.is_empty() {
        return Err(Error::Invalid(errors).into());
    }
    let query = ListQuery { filters, limit, cursor };
    let list = list::body(api, &caller, query, request.payer).await?;
    let mut response = bytes(StatusCode::OK, list);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn replace_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let mut form = request.form(api).await?;
    let title = form.text("title");
    let priority = form.text("priority");
    let description = form.nullable_text("description").flatten();
    form.finish()?;
    let new = new_todo(&title, description.as_deref(), Some(&priority))?;
    let todo = todos::replace(api.core(), &caller, request.todo_id()?, new).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn patch_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let mut form = request.form(api).await?;
    let title = form.nullable_text("title");
    let description = form.nullable_text("description");
    let priority = form.nullable_text("priority");
    form.finish()?;
    let patch = todo_patch(title, description, priority)?;
    let todo = todos::patch(api.core(), &caller, request.todo_id()?, patch).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn complete_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let mut form = request.form(api).await?;
    let completed = form.boolean("completed");
    form.finish()?;
    let todo = todos::set_completed(api.core(), &caller, request.todo_id()?, completed).await?;
    Ok(json(StatusCode::OK, &todo))
}

async fn delete_todo<B: HttpBody<Data: Send> + Send>(
    api: &Api,
    caller: Caller,
    request: &mut RequestContext<'_, '_, B>,
) -> HandlerResult {
    let id = request.todo_id()?;
    todos::delete(api.core(), &caller, id).await?;
    let body = json!({ "message": "Todo deleted successfully", "deleted_id": id });
    Ok(json(StatusCode::OK, &body))
}

fn health(api: &Api) -> Response<Body> {
    json(StatusCode::OK, &Health { status: "healthy", timestamp: api.core().now() })
}

/// Ready unless draining. The database is not checked: all replicas share it, so that an outage
/// would take all of them out of service, and with them the responses that report it.
fn readiness(api: &Api) -> Response<Body> {
    if !api.is_draining() {
        return json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn database_health(api: &Api) -> HandlerResult {
    let core = api.core().clone();
    if api.0.database_check.is_healthy(|| async move { core.ping().await }).await {
        return Ok(json(StatusCode::OK, &json!({ "status": "healthy", "database": "connected" })));
    }
    let body = json!({ "status": "unhealthy", "error": "the database does not answer" });
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

pub(crate) fn metrics(api: &Api) -> HandlerResult {
    let mut response = bytes(StatusCode::OK, Bytes::from(api.metrics_text()?));
    // The media type of the exposition format, which scrapers request.
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Checks that the path's user is the caller; an id that is not a UUID is forbidden.
fn check_owner(
    operation: Operation,
    caller: &Caller,
    params: PathParams<'_>,
) -> Result<(), ApiError> {
    let is_own = match operation {
        Operation::Logout | Operation::CurrentUser => true,
        _ => parse_id(params.user) == Some(caller.user_id()),
    };
    match params.todo {
        _ if is_own => Ok(()),
        "" => Err(ApiError::OtherUser),
        _ => Err(ApiError::Core(Error::Forbidden)),
    }
}

/// Parses a UUID in the hyphenated form only (RFC 9562, section 4).
fn parse_id(id: &str) -> Option<Uuid> {
    if id.len() == 36 { Uuid::try_parse(id).ok() } else { None }
}

fn new_todo(
    title: &str,
    description: Option<&str>,
    priority: Option<&str>,
) -> Result<NewTodo, Error> {
    let mut errors = FieldErrors::default();
    let title = errors.collect(Title::parse(title));
    let description = errors.collect(description.map(Description::parse).transpose());
    let priority = errors.collect(priority.map_or(Ok(Priority::default()), Priority::parse));
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
    // Null removes a member (RFC 7396), and these two are required.
    let given = |name, value: Option<String>| {
        let message = || format!("{} cannot be null.", FieldLabel(name));
        value.ok_or_else(|| FieldError::new(name, "null", message()))
    };
    let parse_title = |title| Title::parse(&given("title", title)?);
    let title = errors.collect(title.map(parse_title).transpose());
    let description = errors.collect(
        description.map(|text| text.map(|text| Description::parse(&text)).transpose()).transpose(),
    );
    let priority = errors.collect(
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

/// A JSON response with `no-store`: it is personal.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut body = Vec::with_capacity(512);
    let mut response = match serde_json::to_writer(&mut body, value) {
        Ok(()) => bytes(status, Bytes::from(body)),
        Err(error) => {
            tracing::error!(%error, "response not serializable");
            bytes(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn bytes(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // Includes the headers of every response, so that the map does not grow.
    response.headers_mut().reserve(12);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
