//! The description of a route, as it stands beside its handler in `http::routes`: method, path,
//! access, limits, documentation and the handler itself. The matcher, `Allow`, 405, the labels of
//! metrics and logs, the OpenAPI document and the lists of the tests are all made from it.

use std::{fmt, net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response, request::Parts};
use serde_json::Value;

#[cfg(feature = "identity")]
use crate::ids::IdentityId;
use crate::{
    auth::Caller,
    error::Error,
    http::{
        Api, ApiOptions, Body,
        budget::{Payer, Reservation, SHARE_DIVISOR},
        conditions,
        extract::{Incoming, JsonBody},
        matcher::PathParams,
        problem::ApiError,
        rate_limit::ReportedLimit,
        routes,
    },
    ids::{ListId, SessionId, TodoId},
    scopes::Scope,
    todos::{ListTarget, Target},
};

/// One route of the API: a method of a path.
pub struct Endpoint {
    pub(crate) method: Method,
    /// Below the API's prefix if [`Endpoint::is_api`], else from the root.
    pub(crate) path: &'static str,
    pub(crate) is_api: bool,
    /// Whether it is a health probe: exempt from the https requirement, and served to connections
    /// over capacity.
    pub(crate) is_probe: bool,
    pub(crate) policy: Policy,
    pub(crate) statements: Statements,
    pub(crate) docs: Docs,
    pub(crate) handler: Handler,
}

/// The clients that may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every client.
    Public,
    /// A client with the token of a live session.
    User,
    /// The user whose id is in the path.
    Owner,
}

/// The API keys that may use a route, beside the tokens of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAccess {
    /// None: the route is about credentials, or about the account.
    Never,
    /// Those with this scope.
    With(Scope),
}

impl KeyAccess {
    /// Whether the caller may use the route: it has no key, or one with the scope.
    pub(crate) fn allows(self, caller: &Caller) -> bool {
        match self {
            Self::Never => caller.require_no_key().is_ok(),
            Self::With(scope) => caller.require(scope).is_ok(),
        }
    }

    /// The error for a caller whose key may not use the route.
    pub(crate) fn refusal(self) -> Error {
        let required = match self {
            Self::Never => None,
            Self::With(scope) => Some(scope),
        };
        Error::InsufficientScope { required }
    }
}

/// Maximum number of SQL statements that a route runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statements {
    /// For a response with a status below 400; a list of more than 500 todos runs more.
    pub success: usize,
    /// For a response with another status.
    pub failure: usize,
}

impl Statements {
    pub(crate) const NONE: Self = Self { success: 0, failure: 0 };

    pub(crate) const fn new(success: usize, failure: usize) -> Self {
        Self { success, failure }
    }
}

/// The limits of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) request_body: BodyLimit,
    pub(crate) charge: Charge,
    /// The name of its rate limit, if it has one.
    pub(crate) rate_limit: Option<&'static str>,
    /// Maximum time until the response is ready, and between two chunks of a finite stream, if it
    /// is not [`ApiOptions::request_timeout`].
    pub(crate) deadline: Option<Duration>,
    pub(crate) body: BodyForm,
    /// Whether the token may be in a WebSocket's subprotocol: a browser cannot set `Authorization`.
    pub(crate) takes_protocol_token: bool,
}

/// The maximum size of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLimit {
    /// That of [`ApiOptions::max_body_bytes`].
    Default,
    /// A lower one, in bytes.
    AtMost(usize),
    /// A higher one, in bytes, as far as one client's share of the memory of bodies allows.
    AtLeast(usize),
}

/// The forms that the response body of a route may have. A whole body is always possible: an error
/// and a short export are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Whole,
    /// A stream with an end; made by [`Body::stream`].
    Stream,
    /// A live stream; made by [`Body::live`].
    Live,
}

impl BodyForm {
    pub(crate) fn allows(self, body: &Body) -> bool {
        body.whole().is_some()
            || match self {
                Self::Whole => false,
                Self::Stream => !body.is_live(),
                Self::Live => body.is_live(),
            }
    }
}

/// How a whole response body is charged to the memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Not at all: it is small, or shared by all responses, or the handler charges it.
    Never,
    /// Always; without budget, the response is a 503.
    Required,
    /// If there is budget: a change that took effect is always confirmed.
    IfAvailable,
}

impl Policy {
    pub(crate) const DEFAULT: Self = Self {
        request_body: BodyLimit::Default,
        charge: Charge::Never,
        rate_limit: None,
        deadline: None,
        body: BodyForm::Whole,
        takes_protocol_token: false,
    };
    /// The policy of routes that change something.
    pub(crate) const CHANGE: Self = Self { charge: Charge::IfAvailable, ..Self::DEFAULT };

    /// The maximum size of the request body in bytes with these options.
    pub(crate) fn max_body(&self, options: &ApiOptions) -> usize {
        let default = options.max_body_bytes;
        match self.request_body {
            BodyLimit::Default => default,
            BodyLimit::AtMost(bytes) => default.min(bytes),
            BodyLimit::AtLeast(bytes) => {
                default.max(bytes.min(options.body_memory_bytes / SHARE_DIVISOR))
            }
        }
    }

    /// The time limit of the response with these options.
    pub(crate) fn deadline(&self, options: &ApiOptions) -> Duration {
        self.deadline.unwrap_or(options.request_timeout)
    }
}

/// The documentation of a route in the OpenAPI document.
#[derive(Clone, Copy)]
pub(crate) struct Docs {
    pub(crate) operation_id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) tag: Tag,
    /// The query parameters.
    pub(crate) query: Option<fn() -> Vec<QueryParameter>>,
    /// The request headers besides those of every route.
    pub(crate) headers: &'static [HeaderParameter],
    pub(crate) body: Option<BodyDocs>,
    /// The responses without a problem body; the success first.
    pub(crate) answers: &'static [AnswerDocs],
    /// The responses with a problem body, besides those of every route.
    pub(crate) errors: &'static [ErrorDocs],
}

/// The group of a route in the OpenAPI document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Authentication,
    Todos,
    Lists,
    Trash,
    Operations,
}

/// A query parameter.
pub(crate) struct QueryParameter {
    pub(crate) name: &'static str,
    pub(crate) is_required: bool,
    pub(crate) schema: Value,
    pub(crate) description: &'static str,
}

/// A request header; none is required.
pub(crate) struct HeaderParameter {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) example: &'static str,
}

/// The JSON body of a request, or a file.
#[derive(Clone, Copy)]
pub(crate) struct BodyDocs {
    pub(crate) schema: &'static str,
    pub(crate) json_schema: fn() -> Value,
    pub(crate) example: fn() -> Value,
    /// The media types of a body that is a file, beside application/json.
    pub(crate) files: &'static [&'static str],
}

impl BodyDocs {
    /// The documentation of the body `B`.
    pub(crate) const fn of<B: JsonBody>(example: fn() -> Value) -> Self {
        Self { schema: B::SCHEMA, json_schema: B::schema, example, files: &[] }
    }
}

/// A response without a problem body.
#[derive(Clone, Copy)]
pub(crate) struct AnswerDocs {
    pub(crate) status: u16,
    pub(crate) description: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) schema: Schema,
    /// Absent if the schema has an example.
    pub(crate) example: Option<fn() -> Value>,
    pub(crate) headers: &'static [HeaderDocs],
}

/// The schema of a response.
#[derive(Clone, Copy)]
pub(crate) enum Schema {
    /// One of the document's schemas, by name.
    Named(&'static str),
    /// Any value of this JSON type.
    Type(&'static str),
    /// No body.
    None,
}

/// A header of a response besides those of every response.
#[derive(Clone, Copy)]
pub(crate) enum HeaderDocs {
    /// `Location`, with a description.
    Location(&'static str),
    RetryAfter,
    /// `ETag` of the todo.
    ETag,
    /// `ETag` of a list of todos, of tags or of lists.
    ListETag,
    /// `ETag` of one list.
    ETagOfList,
    /// `Idempotency-Replayed`.
    Replayed,
    /// `Content-Disposition` of a file.
    ContentDisposition,
    /// `Set-Cookie` of a sign-in.
    #[cfg(feature = "identity")]
    FlowCookie,
    /// `Sec-WebSocket-Accept` and `Sec-WebSocket-Protocol`.
    WebSocket,
}

impl AnswerDocs {
    /// A JSON response.
    pub(crate) const fn json(
        status: u16,
        description: &'static str,
        schema: &'static str,
        example: Option<fn() -> Value>,
    ) -> Self {
        let schema = Schema::Named(schema);
        let media_type = "application/json";
        Self { status, description, media_type, schema, example, headers: &[] }
    }
}

/// A response with a problem body. The example has its status.
#[derive(Clone, Copy)]
pub(crate) struct ErrorDocs {
    pub(crate) description: &'static str,
    pub(crate) example: fn(max_body_bytes: usize) -> ApiError,
}

/// The result of a handler.
pub(crate) type HandlerResult = Result<Response<Body>, ApiError>;

/// The future of a handler. It is boxed: unboxed, the future of every request would be as large as
/// the largest, and its type would contain the types of all handlers.
pub(crate) type HandlerFuture<'a> = BoxFuture<'a, HandlerResult>;

/// The handler of a route, by the access that it requires.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Public(for<'a> fn(RequestContext<'a>) -> HandlerFuture<'a>),
    User(KeyAccess, for<'a> fn(RequestContext<'a>, Caller) -> HandlerFuture<'a>),
    Owner(KeyAccess, for<'a> fn(RequestContext<'a>, Caller) -> HandlerFuture<'a>),
}

/// A request as its handler receives it.
pub(crate) struct RequestContext<'a> {
    pub(crate) api: &'a Api,
    pub(crate) parts: &'a Parts,
    pub(crate) params: PathParams<'a>,
    /// Whether the user in the path is the caller's id at the issuer of its token.
    pub(crate) names_caller: bool,
    /// The client's address, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// The rate limit that the response reports; its state is set by the handler.
    pub(crate) rate_limit: &'a ReportedLimit,
    /// The accounts charged for its bodies.
    pub(crate) payer: Payer,
    /// The body, and its maximum size in bytes.
    pub(crate) body: Incoming<'a>,
    pub(crate) max_body: usize,
}

impl RequestContext<'_> {
    /// Reads and parses the body.
    pub(crate) async fn json<B: JsonBody>(&mut self) -> Result<B, ApiError> {
        let budget = self.api.budget();
        let form = self.body.json(&self.parts.headers, self.max_body, budget, self.payer).await?;
        B::read(form)
    }

    /// As [`RequestContext::json`], with the memory of the body charged until the reservation is
    /// dropped: for a body whose values are as large.
    pub(crate) async fn large_json<B: JsonBody>(
        &mut self,
    ) -> Result<(B, Option<Reservation>), ApiError> {
        let budget = self.api.budget();
        let headers = &self.parts.headers;
        let (form, held) =
            self.body.charged_json(headers, self.max_body, budget, self.payer).await?;
        Ok((B::read(form)?, held))
    }

    /// Reads the body as a file, whose head `has_type` accepts.
    pub(crate) async fn file(
        &mut self,
        has_type: impl FnOnce(&HeaderMap) -> bool,
    ) -> Result<Bytes, ApiError> {
        if !has_type(&self.parts.headers) {
            return Err(ApiError::WrongFileType);
        }
        let budget = self.api.budget();
        self.body.file(&self.parts.headers, self.max_body, budget, self.payer).await
    }

    /// The todo to change, with the versions that `If-Match` allows.
    pub(crate) fn target(&self) -> Result<Target, ApiError> {
        let versions = conditions::allowed_versions(&self.parts.headers)?;
        let id = self.todo_id()?;
        match versions {
            None => Ok(id.into()),
            Some(versions) => Ok(Target::any_of(id, &versions).map_err(Error::from)?),
        }
    }

    /// The list to change, with the versions that `If-Match` allows.
    pub(crate) fn list_target(&self) -> Result<ListTarget, ApiError> {
        let versions = conditions::allowed_versions(&self.parts.headers)?;
        let id = self.list_id()?;
        match versions {
            None => Ok(id.into()),
            Some(versions) => Ok(ListTarget::any_of(id, &versions).map_err(Error::from)?),
        }
    }

    /// The list's id; not found if it is not a UUID.
    pub(crate) fn list_id(&self) -> Result<ListId, ApiError> {
        self.params.list_id().ok_or(ApiError::NoSuch("list"))
    }

    /// The id of an identity, if it is a UUID.
    #[cfg(feature = "identity")]
    pub(crate) fn identity_id(&self) -> Option<IdentityId> {
        self.params.identity_id()
    }

    /// The id of a session or a key, if it is a UUID.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.params.session_id()
    }

    /// The todo's id; not found if it is not a UUID.
    pub(crate) fn todo_id(&self) -> Result<TodoId, ApiError> {
        self.params.todo_id().ok_or(ApiError::Core(Error::NotFound))
    }
}

impl Endpoint {
    /// A route below the API's prefix.
    pub(crate) const fn of_api(
        method: Method,
        path: &'static str,
        policy: Policy,
        statements: Statements,
        handler: Handler,
        docs: Docs,
    ) -> Self {
        Self { method, path, is_api: true, is_probe: false, policy, statements, docs, handler }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path with the names of its parameters in braces, with the API's routes below `prefix`.
    #[must_use]
    pub fn full_path(&self, prefix: &str) -> String {
        if self.is_api { format!("{prefix}{}", self.path) } else { self.path.to_owned() }
    }

    /// The clients that may use it.
    #[must_use]
    pub fn access(&self) -> Access {
        match self.handler {
            Handler::Public(_) => Access::Public,
            Handler::User(..) => Access::User,
            Handler::Owner(..) => Access::Owner,
        }
    }

    /// The API keys that may use it; `None` if every client may use it.
    #[must_use]
    pub fn key_access(&self) -> Option<KeyAccess> {
        match self.handler {
            Handler::Public(_) => None,
            Handler::User(keys, _) | Handler::Owner(keys, _) => Some(keys),
        }
    }

    /// Whether it is a health probe.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Maximum number of SQL statements that it runs.
    #[must_use]
    pub fn statements(&self) -> Statements {
        self.statements
    }

    /// Its name in the OpenAPI document, such as `createTodo`.
    #[must_use]
    pub fn operation_id(&self) -> &'static str {
        self.docs.operation_id
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = self.access();
        let operation_id = self.operation_id();
        f.debug_struct("Endpoint")
            .field("operation_id", &operation_id)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("access", &access)
            .finish_non_exhaustive()
    }
}

/// Every route, in the order of the OpenAPI document.
pub fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    let by_file = [
        routes::auth::ENDPOINTS,
        routes::sessions::ENDPOINTS,
        routes::password::ENDPOINTS,
        routes::keys::ENDPOINTS,
        #[cfg(feature = "identity")]
        routes::identities::ENDPOINTS,
        #[cfg(feature = "identity")]
        routes::oauth::ENDPOINTS,
        routes::account::ENDPOINTS,
        routes::mail::ENDPOINTS,
        routes::todos::ENDPOINTS,
        routes::bulk::ENDPOINTS,
        routes::order::ENDPOINTS,
        routes::tags::ENDPOINTS,
        routes::lists::ENDPOINTS,
        routes::trash::ENDPOINTS,
        routes::exchange::ENDPOINTS,
        routes::changes::ENDPOINTS,
        routes::events::ENDPOINTS,
        #[cfg(feature = "webhook")]
        routes::webhook::ENDPOINTS,
        routes::health::ENDPOINTS,
        routes::meta::ENDPOINTS,
    ];
    by_file.into_iter().flatten()
}
