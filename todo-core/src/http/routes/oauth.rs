//! `/auth/oauth`: sign-in with a provider, for browsers and apps.

use std::future::ready;

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{self, InvalidHeaderValue},
};
use serde_json::json;

use crate::{
    auth::{Caller, Client},
    error::{BoxError, Error, FieldErrors},
    http::{
        Body,
        endpoint::{
            AnswerDocs, BodyDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, HeaderDocs,
            KeyAccess, Policy, QueryParameter, RequestContext, Schema, Statements, Tag,
        },
        extract::{OrNull, Query, json_body},
        problem::ApiError,
        respond,
        routes::{
            auth::{ACCOUNT, AuthResponse, LIMITED, session_label, unwrap_limited},
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            identities::{REAUTHENTICATION, TAKEN},
            sessions::no_such,
        },
        schema::GrantText,
    },
    sign_in::{self, NewSignIn, ProviderRedirect, Redirection},
    validate,
};

/// The name of what a path names.
const PROVIDER: &str = "provider";

const NO_PROVIDER: ErrorDocs =
    ErrorDocs { description: "There is no such provider", example: |_| ApiError::NoSuch(PROVIDER) };
const NOT_ALLOWED: ErrorDocs = docs::invalid(|_| {
    let message = "Redirect uri must be one of the addresses that the service allows.";
    ApiError::Core(Error::Invalid(field("redirect_uri", "not_allowed", message)))
});
const INVALID_GRANT: ErrorDocs = ErrorDocs {
    description: "The sign-in or its code is used, expired, or of another client",
    example: |_| ApiError::Core(Error::InvalidGrant),
};
const MALFORMED_CODE: ErrorDocs = docs::malformed(|_| {
    ApiError::Malformed("", field("code", "missing", "Code is required.").into())
});

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::GET,
        "/auth/oauth",
        Policy::DEFAULT,
        Statements::NONE,
        Handler::Public(|request| Box::pin(ready(Ok(providers(&request))))),
        Docs {
            operation_id: "listSignInProviders",
            summary: "List the providers",
            description: "Returns the providers with which users can sign in.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The providers", "SignInProviders", None)],
            errors: &[BAD_REQUEST, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        "/auth/oauth/{provider}/start",
        Policy { rate_limit: Some("oauth"), ..Policy::DEFAULT },
        // For the rate limit.
        Statements::new(1, 2),
        Handler::Public(|request| Box::pin(start(request))),
        Docs {
            operation_id: "startSignIn",
            summary: "Begin a sign-in",
            description: "The address for a browser: it goes on to the provider, and comes back \
                to `redirect_uri` with `code` for `exchangeSignInCode`, or with `error`: \
                `access_denied`, `temporarily_unavailable` or `account_exists` (the address that \
                the provider has verified has an account: log in with its password, and add the \
                identity). Both come with `state`. Starts are rate-limited per client address.",
            tag: Tag::Authentication,
            query: Some(start_parameters),
            headers: &[],
            body: None,
            answers: &[redirection(
                302,
                "To the provider, or back to the app if it does not answer",
                &[HeaderDocs::Location("The address"), HeaderDocs::FlowCookie],
            )],
            errors: &[NOT_ALLOWED, NO_PROVIDER, LIMITED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        "/auth/oauth/{provider}/callback",
        Policy { rate_limit: Some("oauth"), ..Policy::DEFAULT },
        // One for the rate limit.
        Statements::new(2, 2),
        Handler::Public(|request| Box::pin(callback(request))),
        Docs {
            operation_id: "endSignIn",
            summary: "Take a sign-in back to the app",
            description: "The address for a browser that comes back from the provider. Requests \
                are rate-limited per client address. A HEAD, and a browser that only prefetches, \
                get a 400 and use nothing up.",
            tag: Tag::Authentication,
            query: Some(callback_parameters),
            headers: &[],
            body: None,
            answers: &[redirection(
                303,
                "To the app",
                &[HeaderDocs::Location("The app's address, with `code` or `error`")],
            )],
            errors: &[INVALID_GRANT, NO_PROVIDER, LIMITED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/oauth/token",
        ACCOUNT,
        Statements::new(3, 3),
        Handler::Public(|request| Box::pin(exchange(request))),
        Docs {
            operation_id: "exchangeSignInCode",
            summary: "Exchange a code for a session",
            description: "Creates a session by the code of a sign-in, once and within a minute, \
                with the verifier of its `code_challenge` (RFC 7636). A wrong verifier uses the \
                code up.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<ExchangeBody>(
                || json!({ "code": EXAMPLE_CODE, "code_verifier": EXAMPLE_VERIFIER }),
            )),
            answers: &[AnswerDocs::json(200, "A session", "Auth", None)],
            errors: &[
                INVALID_GRANT,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED_CODE,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/oauth/{provider}/link",
        ACCOUNT,
        Statements::new(1, 1),
        Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(start_addition(request, caller))
        }),
        Docs {
            operation_id: "startAddition",
            summary: "Begin to add an identity",
            description: "Returns the address of the provider's page. The browser comes back to \
                `redirect_uri` with `code` for `addSignInIdentity`, or with `error`, and with \
                `state`. The session must have begun within the last 10 minutes.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<AdditionBody>(
                || json!({ "redirect_uri": EXAMPLE_REDIRECT, "state": "af0ifjsldkj" }),
            )),
            answers: &[AnswerDocs::json(200, "The page", "SignInPage", None)],
            errors: &[
                NOT_ALLOWED,
                UNAUTHORIZED,
                REAUTHENTICATION,
                NO_PROVIDER,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    let message = "Redirect uri is required.";
                    ApiError::Malformed("", field("redirect_uri", "missing", message).into())
                }),
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/oauth/link",
        Policy { rate_limit: Some("oauth"), ..ACCOUNT },
        // The session, one for the rate limit, and two for the identity.
        Statements::new(4, 4),
        Handler::User(KeyAccess::Never, |request, caller| {
            Box::pin(complete_addition(request, caller))
        }),
        Docs {
            operation_id: "addSignInIdentity",
            summary: "Add an identity of a provider",
            description: "Adds the identity of a code to the account of the user who has begun \
                it, within a minute: from then on it can be used for sign-ins. The session must \
                have begun within the last 10 minutes. A user has at most 20 identities. An \
                identity that the user has already is returned. Requests are rate-limited per \
                client address.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<CompleteAdditionBody>(|| json!({ "code": EXAMPLE_CODE }))),
            answers: &[AnswerDocs::json(201, "The identity", "Identity", None)],
            errors: &[
                INVALID_GRANT,
                UNAUTHORIZED,
                REAUTHENTICATION,
                TAKEN,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED_CODE,
                LIMITED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

const EXAMPLE_CODE: &str = "AZOMbpCyfDOaZR2belLA3lDPUV5GvbQnH-tbx0VwQ7I";
/// RFC 7636, appendix B.
const EXAMPLE_VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const EXAMPLE_REDIRECT: &str = "https://app.example.com/signed-in";

json_body! {
    /// The body that exchanges a code.
    struct ExchangeBody as "ExchangeSignInCode" {
        code: GrantText,
        code_verifier: GrantText,
    }
}

json_body! {
    /// The body that begins the addition of an identity.
    struct AdditionBody as "StartAddition" {
        redirect_uri: GrantText,
        state: OrNull<GrantText>,
    }
}

json_body! {
    /// The body that adds an identity.
    struct CompleteAdditionBody as "AddSignInIdentity" {
        code: GrantText,
    }
}

const fn redirection(
    status: u16,
    description: &'static str,
    headers: &'static [HeaderDocs],
) -> AnswerDocs {
    let media_type = "application/json";
    AnswerDocs { status, description, media_type, schema: Schema::None, example: None, headers }
}

fn start_parameters() -> Vec<QueryParameter> {
    let parameter = |name, is_required, schema, description| QueryParameter {
        name,
        is_required,
        schema,
        description,
    };
    vec![
        parameter(
            "redirect_uri",
            true,
            json!({ "type": "string" }),
            "The app's address, one of `OAUTH_REDIRECTS`",
        ),
        parameter(
            "code_challenge",
            true,
            json!({ "type": "string", "pattern": "^[A-Za-z0-9._~-]{43,128}$" }),
            "The base64url of the SHA-256 of the app's verifier (RFC 7636, section 4.2)",
        ),
        parameter(
            "code_challenge_method",
            true,
            json!({ "type": "string", "const": "S256" }),
            "The method of the challenge",
        ),
        parameter(
            "state",
            false,
            json!({ "type": "string", "pattern": "^[ -~]{1,200}$" }),
            "A text that the app gets back",
        ),
    ]
}

fn callback_parameters() -> Vec<QueryParameter> {
    [
        ("state", "The state of the sign-in, of the provider"),
        ("code", "The provider's code"),
        ("iss", "The provider (RFC 9207)"),
        ("error", "The provider's error"),
    ]
    .map(|(name, description)| QueryParameter {
        name,
        is_required: name == "state",
        schema: json!({ "type": "string" }),
        description,
    })
    .into()
}

/// A redirect, which no cache keeps.
fn redirect(status: StatusCode, redirection: Redirection) -> HandlerResult {
    let Redirection { url, set_cookie } = redirection;
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let value = |text: String| HeaderValue::try_from(text).map_err(internal);
    headers.insert(header::LOCATION, value(url)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cookie) = set_cookie {
        headers.insert(header::SET_COOKIE, value(cookie)?);
    }
    Ok(response)
}

fn internal(error: InvalidHeaderValue) -> ApiError {
    ApiError::Core(Error::Internal(BoxError::new(error)))
}

/// An error of a route whose path names a provider.
fn of_provider(error: Error) -> ApiError {
    no_such(PROVIDER, error)
}

fn providers(request: &RequestContext<'_>) -> Response<Body> {
    let providers = sign_in::providers(request.api.core());
    respond::json(StatusCode::OK, &json!({ "providers": providers }))
}

async fn start(request: RequestContext<'_>) -> HandlerResult {
    let query = Query::parse(&request.parts.uri);
    let mut errors = FieldErrors::none();
    let mut text = |name| query.text(name, &mut errors);
    let redirect_uri = text("redirect_uri");
    let challenge = text("code_challenge");
    let method = text("code_challenge_method");
    let state = text("state");
    for (name, value) in [
        ("redirect_uri", &redirect_uri),
        ("code_challenge", &challenge),
        ("code_challenge_method", &method),
    ] {
        if value.is_none() && !errors.iter().any(|error| error.field == name) {
            errors.push(validate::missing(name));
        }
    }
    if method.is_some_and(|method| method != "S256") {
        let message = "Code challenge method must be S256.";
        errors.extend(field("code_challenge_method", "invalid", message));
    }
    let new = NewSignIn::new(redirect_uri.unwrap_or_default(), challenge.unwrap_or_default());
    let new = state.into_iter().fold(new, NewSignIn::state);
    let new = errors.into_result(|| new).map_err(Error::from)?;
    let core = request.api.core();
    let provider = request.params.provider();
    let limited = sign_in::start_limited(core, request.client, provider, new).await;
    let redirection = unwrap_limited(&request, limited).map_err(of_provider)?;
    redirect(StatusCode::FOUND, redirection)
}

async fn callback(request: RequestContext<'_>) -> HandlerResult {
    let parts = request.parts;
    if parts.method == Method::HEAD || is_prefetch(&parts.headers) {
        let detail = "This address completes a sign-in, and is for a browser that goes there.";
        return Err(ApiError::BadRequest(detail));
    }
    let query = Query::parse(&parts.uri);
    let mut errors = FieldErrors::none();
    let mut text = |name| query.text(name, &mut errors);
    let returned = ProviderRedirect {
        state: text("state"),
        code: text("code"),
        iss: text("iss"),
        error: text("error"),
    };
    // A parameter that occurs twice (RFC 6749, section 3.1).
    let returned = errors.into_result(|| returned).map_err(|_| Error::InvalidGrant)?;
    let fields = parts.headers.get_all(header::COOKIE).into_iter();
    let cookies = fields.filter_map(|field| field.to_str().ok());
    let core = request.api.core();
    let provider = request.params.provider();
    let limited =
        sign_in::callback_limited(core, request.client, provider, returned, cookies).await;
    let redirection = unwrap_limited(&request, limited).map_err(of_provider)?;
    redirect(StatusCode::SEE_OTHER, redirection)
}

/// Whether the browser only prepares for a navigation (Fetch Standard, `Sec-Purpose`; `Purpose` is
/// that of older browsers).
fn is_prefetch(headers: &HeaderMap) -> bool {
    let values = ["sec-purpose", "purpose", "x-moz"].into_iter();
    let mut values = values.flat_map(|name| headers.get_all(name));
    values.any(|value| value.as_bytes().starts_with(b"prefetch"))
}

async fn exchange(mut request: RequestContext<'_>) -> HandlerResult {
    let ExchangeBody { code, code_verifier } = request.json().await?;
    let core = request.api.core();
    let client = request.client.map_or(Client::Trusted, Client::At);
    let label = session_label(&request);
    let session = sign_in::exchange(core, client, &code.0, &code_verifier.0, label).await?;
    Ok(respond::json(StatusCode::OK, &AuthResponse::from(session)))
}

async fn start_addition(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let AdditionBody { redirect_uri, state } = request.json().await?;
    let core = request.api.core();
    let provider = request.params.provider();
    let state = state.0.as_ref().map(|state| state.0.as_str());
    let page = sign_in::start_addition(core, &caller, provider, &redirect_uri.0, state).await;
    let url = page.map_err(of_provider)?;
    Ok(respond::json(StatusCode::OK, &json!({ "url": url })))
}

async fn complete_addition(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let CompleteAdditionBody { code } = request.json().await?;
    let core = request.api.core();
    let client = request.client;
    let limited = sign_in::complete_addition_limited(core, client, &caller, &code.0).await;
    let identity = unwrap_limited(&request, limited)?;
    Ok(respond::json(StatusCode::CREATED, &identity))
}
