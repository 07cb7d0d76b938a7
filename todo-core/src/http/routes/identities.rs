//! `/auth/identities`: the users of other issuers that log in to the caller's account.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::{self, Caller},
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
            auth::ACCOUNT,
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            sessions::{credential_id, no_such},
        },
        schema::IdentityToken,
    },
};

const IDENTITIES: &str = "/auth/identities";
const IDENTITY: &str = "/auth/identities/{identity_id}";

const NOT_FOUND: ErrorDocs = ErrorDocs {
    description: "The user has no such identity",
    example: |_| ApiError::NoSuch("identity"),
};
const LAST_CREDENTIAL: ErrorDocs = ErrorDocs {
    description: "The user has neither a password nor another identity",
    example: |_| ApiError::Core(Error::LastCredential),
};
pub(super) const TAKEN: ErrorDocs = ErrorDocs {
    description: "The identity belongs to another account, or the user has 20 identities",
    example: |_| ApiError::Core(Error::IdentityTaken),
};
pub(crate) const REAUTHENTICATION: ErrorDocs = ErrorDocs {
    description: "The session began more than 10 minutes ago",
    example: |_| ApiError::Core(Error::ReauthenticationRequired),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::POST,
        IDENTITIES,
        ACCOUNT,
        // The identity, and what it is now; or the reason of a failure.
        Statements::new(2, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(add(request, caller))),
        Docs {
            operation_id: "addIdentity",
            summary: "Add an identity",
            description: "Adds the user of another issuer, whose token is in the body, to the \
                account: from then on its tokens are the caller's. The issuer is the one that \
                the server accepts tokens of. The session must have begun within the last 10 \
                minutes. A user has at most 20 identities. An identity that the user has already \
                is returned.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<AddIdentityBody>(
                || json!({ "token": "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJzdWIiOiIxIn0.c2lnbmF0dXJl" }),
            )),
            answers: &[AnswerDocs::json(201, "The identity", "Identity", None)],
            errors: &[
                docs::invalid(|_| ApiError::Core(Error::Invalid(invalid_token()))),
                UNAUTHORIZED,
                REAUTHENTICATION,
                TAKEN,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    let message = "Token must be a string.";
                    ApiError::Malformed("", field("token", "wrong_type", message).into())
                }),
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        IDENTITIES,
        Policy::DEFAULT,
        // If there is none, the session is checked.
        Statements::new(2, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(list(request, caller))),
        Docs {
            operation_id: "listIdentities",
            summary: "List the identities",
            description: "Returns the users of other issuers that log in to the account, the \
                oldest first.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The identities", "Identities", None)],
            errors: &[BAD_REQUEST, UNAUTHORIZED, INTERNAL, UNAVAILABLE, TIMEOUT],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        IDENTITY,
        Policy::DEFAULT,
        Statements::new(1, 2),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(remove(request, caller))),
        Docs {
            operation_id: "removeIdentity",
            summary: "Remove an identity",
            description: "Removes an identity from the account, and ends its sessions: its tokens \
                are rejected. Not if the user could not log in without it. A later token of it \
                creates another account.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Removed",
                "Message",
                Some(|| json!({ "message": "Identity removed successfully" })),
            )],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                NOT_FOUND,
                LAST_CREDENTIAL,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

json_body! {
    /// The body that adds an identity.
    struct AddIdentityBody as "AddIdentity" {
        token: IdentityToken,
    }
}

/// The error of a token that the issuer has not signed for this service.
fn invalid_token() -> crate::FieldErrors {
    auth::invalid_identity_token().into()
}

async fn add(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let AddIdentityBody { token } = request.json().await?;
    let core = request.api.core();
    let identity = auth::add_identity_from(core, &caller, &token.0, request.client).await?;
    Ok(respond::json(StatusCode::CREATED, &identity))
}

async fn list(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let identities = auth::identities(request.api.core(), &caller).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "identities": identities })))
}

async fn remove(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let id = credential_id(core, &caller, request.identity_id(), "identity").await?;
    let removed = auth::remove_identity_from(core, &caller, id, request.client).await;
    removed.map_err(|error| no_such("identity", error))?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Identity removed successfully" })))
}
