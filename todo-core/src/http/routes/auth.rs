//! `/auth`: accounts and sessions.

use std::{net::IpAddr, time::Duration};

use http::{Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::{
    auth::{
        self, Caller, Credentials, Email, Limited, Name, Password, ProfileChange, Session,
        SessionLabel, Signup, TimeZone, User,
        events::{self, AuthEvent},
    },
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, BodyLimit, Docs, Endpoint, ErrorDocs, Handler, HandlerResult,
            KeyAccess, Policy, RequestContext, Statements, Tag,
        },
        extract::{Change, ChangeOrNull, json_body},
        problem::ApiError,
        respond,
        routes::docs::{
            self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
            UNAUTHORIZED, UNAVAILABLE, field,
        },
        schema::LoginPassword,
    },
    scopes::Scope,
    timestamp,
};

/// The policy of routes whose body is an account, or less.
pub(crate) const ACCOUNT: Policy =
    Policy { request_body: BodyLimit::AtMost(8 << 10), ..Policy::DEFAULT };
pub(crate) const LIMITED: ErrorDocs = ErrorDocs {
    description: "Too many attempts from this client",
    example: |_| ApiError::Core(Error::RateLimited { retry_after: Duration::from_secs(42) }),
};
pub(super) const MALFORMED: ErrorDocs = docs::malformed(|_| {
    ApiError::Malformed("", field("password", "missing", "Password is required.").into())
});

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: "/auth/signup",
        is_api: true,
        is_probe: false,
        policy: Policy { rate_limit: Some("signup"), ..ACCOUNT },
        // One for the rate limit.
        statements: Statements::new(2, 3),
        docs: Docs {
            operation_id: "signup",
            summary: "Sign up",
            description: "Creates an account and its first session. Signups are rate-limited per \
                client address.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<SignupBody>(|| {
                json!({
                    "email": "ada@example.com", "password": "Correct1horse", "name": "Ada Lovelace",
                })
            })),
            answers: &[AnswerDocs::json(201, "The account and its first session", "Auth", None)],
            errors: &[
                BAD_REQUEST,
                ErrorDocs {
                    description: "An account with this e-mail exists",
                    example: |_| ApiError::Core(Error::EmailTaken),
                },
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED,
                LIMITED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
        handler: Handler::Public(|request| Box::pin(signup(request))),
    },
    Endpoint {
        method: Method::POST,
        path: "/auth/login",
        is_api: true,
        is_probe: false,
        policy: Policy { rate_limit: Some("login"), ..ACCOUNT },
        // Two for the rate limit.
        statements: Statements::new(4, 5),
        docs: Docs {
            operation_id: "login",
            summary: "Log in",
            description: "Creates a session. The errors for a wrong e-mail and a wrong password \
                are indistinguishable. Failures are rate-limited per client address.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<LoginBody>(
                || json!({ "email": "ada@example.com", "password": "Correct1horse" }),
            )),
            answers: &[AnswerDocs::json(200, "A session", "Auth", None)],
            errors: &[
                BAD_REQUEST,
                ErrorDocs {
                    description: "Wrong e-mail or password",
                    example: |_| ApiError::Core(Error::InvalidCredentials),
                },
                ErrorDocs {
                    description: "The e-mail address is not confirmed, as \
                        `REQUIRE_VERIFIED_EMAIL` requires",
                    example: |_| ApiError::Core(Error::EmailUnverified),
                },
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED,
                LIMITED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
        handler: Handler::Public(|request| Box::pin(login(request))),
    },
    Endpoint {
        method: Method::POST,
        path: "/auth/logout",
        is_api: true,
        is_probe: false,
        policy: Policy::DEFAULT,
        statements: Statements::new(1, 1),
        docs: Docs {
            operation_id: "logout",
            summary: "Log out",
            description: "Ends this session: its token is rejected from now on.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Logged out",
                "Message",
                Some(|| json!({ "message": "Successfully logged out" })),
            )],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
        handler: Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(logout(request, caller))
        }),
    },
    Endpoint {
        method: Method::GET,
        path: "/auth/me",
        is_api: true,
        is_probe: false,
        policy: Policy::DEFAULT,
        statements: Statements::new(1, 1),
        docs: Docs {
            operation_id: "getCurrentUser",
            summary: "Get the current user",
            description: "Returns the account of the authenticated user.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The account", "User", None)],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
        handler: Handler::User(KeyAccess::With(Scope::AccountRead), |request, caller| {
            Box::pin(current_user(request, caller))
        }),
    },
    Endpoint {
        method: Method::PATCH,
        path: "/auth/me",
        is_api: true,
        is_probe: false,
        policy: ACCOUNT,
        statements: Statements::new(1, 1),
        docs: Docs {
            operation_id: "updateCurrentUser",
            summary: "Update the current user",
            description: "Updates the given members of the account (RFC 7396): absent members are \
                unchanged, and a null `time_zone` is cleared.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<PatchUserBody>(
                || json!({ "name": "Ada King", "time_zone": "Europe/London", "reminder_mail": true }),
            )),
            answers: &[AnswerDocs::json(200, "The account", "User", None)],
            errors: &[
                docs::invalid(|_| {
                    let message = "Name must be at least 2 characters.";
                    ApiError::Core(Error::Invalid(field("name", "too_short", message)))
                }),
                UNAUTHORIZED,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    let message = "Name must be a string or null.";
                    ApiError::Malformed("", field("name", "wrong_type", message).into())
                }),
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
        handler: Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(update_user(request, caller))
        }),
    },
];

/// The response to signup and login.
#[derive(Serialize)]
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
        let token = String::from(token);
        Self { user, access_token: token.clone(), token, token_type: "bearer", expires_at }
    }
}

json_body! {
    /// The body of a signup.
    struct SignupBody as "Signup" {
        email: Email,
        password: Password,
        name: Name,
    }
}

json_body! {
    /// The body of a login.
    struct LoginBody as "Login" {
        email: Email,
        password: LoginPassword,
    }
}

json_body! {
    /// The body of a merge patch (RFC 7396) of the account.
    struct PatchUserBody as "PatchUser" {
        name: Change<Name>,
        time_zone: ChangeOrNull<TimeZone>,
        reminder_mail: Change<bool>,
    }
}

async fn signup(mut request: RequestContext<'_>) -> HandlerResult {
    let client = request.client;
    let body = request.json().await;
    let SignupBody { email, password, name } =
        body.inspect_err(|failure| log_bad_form(AuthEvent::Signup, client, failure))?;
    let mut form = Signup::new(email, password, name);
    form.label = session_label(&request);
    let limited = auth::signup_limited(request.api.core(), client, form).await;
    let session = unwrap_limited(&request, limited)?;
    Ok(respond::json(StatusCode::CREATED, &AuthResponse::from(session)))
}

async fn login(mut request: RequestContext<'_>) -> HandlerResult {
    let client = request.client;
    let body = request.json().await;
    let LoginBody { email, password } =
        body.inspect_err(|failure| log_bad_form(AuthEvent::Login, client, failure))?;
    let mut given = Credentials::new(email, password.0);
    given.label = session_label(&request);
    let limited = auth::login_limited(request.api.core(), client, given).await;
    let session = unwrap_limited(&request, limited)?;
    Ok(respond::json(StatusCode::OK, &AuthResponse::from(session)))
}

/// The label of a session that the request creates.
pub(crate) fn session_label(request: &RequestContext<'_>) -> Option<SessionLabel> {
    let user_agent = request.parts.headers.get(header::USER_AGENT)?;
    SessionLabel::from_user_agent(&String::from_utf8_lossy(user_agent.as_bytes()))
}

/// The result of a rate-limited operation; the response reports the state of the limit.
pub(crate) fn unwrap_limited<T>(
    request: &RequestContext<'_>,
    limited: Limited<T>,
) -> Result<T, Error> {
    if let Some(state) = limited.state {
        request.rate_limit.set_state(state);
    }
    limited.result
}

/// Logs a signup or login whose form is invalid.
fn log_bad_form(attempted: AuthEvent, client: Option<IpAddr>, failure: &ApiError) {
    let reason = match failure {
        ApiError::Core(error) => events::reason(error),
        _ => "unreadable form",
    };
    events::failed(attempted, client, None, reason);
}

async fn logout(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    auth::log_out(request.api.core(), caller, request.client).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Successfully logged out" })))
}

async fn current_user(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let user = auth::current_user(request.api.core(), &caller).await?;
    Ok(respond::json(StatusCode::OK, &user))
}

async fn update_user(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let PatchUserBody { name, time_zone, reminder_mail } = request.json().await?;
    let mut change = ProfileChange::new();
    change.name = name.0;
    change.time_zone = time_zone.0;
    change.reminder_mail = reminder_mail.0;
    let user = auth::update_profile(request.api.core(), &caller, change).await?;
    Ok(respond::json(StatusCode::OK, &user))
}
