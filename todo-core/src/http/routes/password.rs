//! `/auth/password`: the change of a password.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::{self, Caller, Password, PasswordChange},
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess,
            Policy, RequestContext, Statements, Tag,
        },
        extract::{OrDefault, json_body},
        problem::ApiError,
        respond,
        routes::{
            auth::{ACCOUNT, AuthResponse, LIMITED, session_label, unwrap_limited},
            docs::{
                self, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE, UNAVAILABLE, field,
            },
        },
        schema::LoginPassword,
    },
};

pub(crate) const WRONG_PASSWORD: ErrorDocs = ErrorDocs {
    description: "No token, or one that is not valid; or the password is wrong \
        (`invalid_credentials`)",
    example: |_| ApiError::Core(Error::InvalidCredentials),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[Endpoint::of_api(
    Method::POST,
    "/auth/password",
    Policy { rate_limit: Some("login"), ..ACCOUNT },
    // Two slots taken and given back, the account, the change.
    Statements::new(6, 8),
    Handler::User(KeyAccess::Never, |request, caller| Box::pin(change(request, caller))),
    Docs {
        operation_id: "changePassword",
        summary: "Change the password",
        description: "Sets a new password, ends all sessions of the user and creates a new one, \
            whose token replaces the request's. Links that were mailed to reset the password or to \
            change the address are invalid from now on. API keys stay, unless `end_keys` is true. \
            Wrong passwords are rate-limited per client address, with failed logins, and per user.",
        tag: Tag::Authentication,
        query: None,
        headers: &[],
        body: Some(BodyDocs::of::<ChangePasswordBody>(
            || json!({ "current_password": "Correct1horse", "new_password": "Other2battery" }),
        )),
        answers: &[AnswerDocs::json(200, "The new session", "Auth", None)],
        errors: &[
            docs::invalid(|_| {
                let message = "Password must contain a digit.";
                ApiError::Core(Error::Invalid(field("new_password", "weak", message)))
            }),
            WRONG_PASSWORD,
            BODY_TIMEOUT,
            TOO_LARGE,
            MEDIA_TYPE,
            docs::malformed(|_| {
                let message = "New password is required.";
                ApiError::Malformed("", field("new_password", "missing", message).into())
            }),
            LIMITED,
            INTERNAL,
            UNAVAILABLE,
            TIMEOUT,
        ],
    },
)];

json_body! {
    /// The body of a change of the password.
    struct ChangePasswordBody as "ChangePassword" {
        current_password: LoginPassword,
        new_password: Password,
        end_keys: OrDefault<bool>,
    }
}

async fn change(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let ChangePasswordBody { current_password, new_password, end_keys } = request.json().await?;
    let mut change = PasswordChange::new(current_password.0, new_password);
    change.end_keys = end_keys.0;
    change.label = session_label(&request);
    let core = request.api.core();
    let limited = auth::change_password_limited(core, &caller, request.client, change).await;
    let session = unwrap_limited(&request, limited)?;
    Ok(respond::json(StatusCode::OK, &AuthResponse::from(session)))
}
