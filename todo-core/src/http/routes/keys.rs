//! `/auth/keys`: the API keys of the caller's user.

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::{
    auth::{self, ApiKey, Caller, CreatedKey, KeyInfo, KeyLifetime, KeyName, NewKey, Scopes},
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess,
            Policy, RequestContext, Statements, Tag,
        },
        extract::json_body,
        problem::ApiError,
        respond,
        routes::{
            auth::{ACCOUNT, LIMITED, unwrap_limited},
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            password::WRONG_PASSWORD,
            sessions::{credential_id, no_such},
        },
        schema::LoginPassword,
    },
};

const KEYS: &str = "/auth/keys";
const KEY: &str = "/auth/keys/{key_id}";

const NOT_FOUND: ErrorDocs =
    ErrorDocs { description: "The user has no such key", example: |_| ApiError::NoSuch("key") };
const TOO_MANY_KEYS: ErrorDocs = ErrorDocs {
    description: "The user has 20 keys",
    example: |_| ApiError::Core(Error::TooManyKeys { limit: auth::MAX_KEYS.into() }),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::POST,
        KEYS,
        Policy { rate_limit: Some("login"), ..ACCOUNT },
        // Two slots taken and given back, the account, the key.
        Statements::new(6, 8),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(create(request, caller))),
        Docs {
            operation_id: "createKey",
            summary: "Create an API key",
            description: "Creates a credential for a program, with scopes, for 1 to 365 days. The \
                response has the key, which cannot be read again. A user has at most 20 keys. \
                Wrong passwords are rate-limited per client address, with failed logins, and per \
                user.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<CreateKeyBody>(|| {
                json!({
                    "name": "backup", "scopes": ["todos:read"], "expires_in_days": 30,
                    "password": "Correct1horse",
                })
            })),
            answers: &[AnswerDocs::json(201, "The key", "CreatedKey", None)],
            errors: &[
                docs::invalid(|_| {
                    let message = "Expires in days must be from 1 to 365.";
                    let field = field("expires_in_days", "out_of_range", message);
                    ApiError::Core(Error::Invalid(field))
                }),
                WRONG_PASSWORD,
                TOO_MANY_KEYS,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    let message = "Scopes must be an array of strings.";
                    ApiError::Malformed("", field("scopes", "wrong_type", message).into())
                }),
                LIMITED,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        KEYS,
        Policy::DEFAULT,
        // If there is none, the session is checked.
        Statements::new(2, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(list(request, caller))),
        Docs {
            operation_id: "listKeys",
            summary: "List the API keys",
            description: "Returns the API keys of the user that have not expired, the newest \
                first: at most 20. The keys themselves are not stored.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The keys", "Keys", None)],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        KEY,
        Policy::DEFAULT,
        Statements::new(1, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(delete(request, caller))),
        Docs {
            operation_id: "deleteKey",
            summary: "Delete an API key",
            description: "Deletes an API key of the user: it is rejected from now on.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "Message",
                Some(|| json!({ "message": "Key deleted successfully" })),
            )],
            errors: &[BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
];

json_body! {
    /// The body of the creation of a key.
    struct CreateKeyBody as "CreateKey" {
        name: KeyName,
        scopes: Scopes,
        expires_in_days: KeyLifetime,
        password: LoginPassword,
    }
}

/// The response to the creation of a key.
#[derive(Serialize)]
struct CreatedKeyResponse {
    #[serde(flatten)]
    info: KeyInfo,
    key: String,
}

impl From<CreatedKey> for CreatedKeyResponse {
    fn from(CreatedKey { key, info }: CreatedKey) -> Self {
        Self { info, key: ApiKey::into(key) }
    }
}

async fn create(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let CreateKeyBody { name, scopes, expires_in_days, password } = request.json().await?;
    let key = NewKey::new(name, scopes, expires_in_days, password.0);
    let core = request.api.core();
    let limited = auth::create_key_limited(core, &caller, request.client, key).await;
    let created = unwrap_limited(&request, limited)?;
    Ok(respond::json(StatusCode::CREATED, &CreatedKeyResponse::from(created)))
}

async fn list(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let keys = auth::keys(request.api.core(), &caller).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "keys": keys })))
}

async fn delete(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let id = credential_id(core, &caller, request.session_id(), "key").await?;
    let deleted = auth::delete_key_from(core, &caller, id, request.client).await;
    deleted.map_err(|error| no_such("key", error))?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Key deleted successfully" })))
}
