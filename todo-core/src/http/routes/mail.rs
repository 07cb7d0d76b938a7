//! `/auth/password/forgot`, `/auth/password/reset` and `/auth/email`: what a mailed link does.

use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::{
    auth::{self, Caller, Client, Email, Password},
    error::Error,
    http::{
        Body,
        endpoint::{
            AnswerDocs, BodyDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess,
            Policy, RequestContext, Statements, Tag,
        },
        extract::json_body,
        problem::ApiError,
        respond,
        routes::{
            auth::{ACCOUNT, LIMITED, MALFORMED, unwrap_limited},
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, TIMEOUT, TOO_LARGE,
                UNAUTHORIZED, UNAVAILABLE, field,
            },
            password::WRONG_PASSWORD,
        },
        schema::{LinkToken, LoginPassword},
    },
};

const INVALID_EMAIL: ErrorDocs = docs::invalid(|_| {
    ApiError::Core(Error::Invalid(field("email", "invalid", "Invalid email format.")))
});
const INVALID_LINK: ErrorDocs = ErrorDocs {
    description: "The link is used, expired, altered or of another kind; or the password is weak",
    example: |_| ApiError::Core(Error::InvalidLink),
};
const NOT_CONFIGURED: ErrorDocs = ErrorDocs {
    description: "The server sends no mails (`SMTP_URL` is not set)",
    example: |_| ApiError::Core(Error::MailNotConfigured),
};

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::POST,
        "/auth/password/forgot",
        Policy { rate_limit: Some("forgot"), ..ACCOUNT },
        // One for the rate limit.
        Statements::new(2, 3),
        Handler::Public(|request| Box::pin(forgot_password(request))),
        Docs {
            operation_id: "forgotPassword",
            summary: "Request a new password",
            description: "Mails a link that sets a new password, if the address has an account. \
                The response does not depend on that. An address gets one such mail a minute and \
                five a day at most. Requests are rate-limited per client address.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<ForgotBody>(|| json!({ "email": "ada@example.com" }))),
            answers: &[AnswerDocs::json(
                202,
                "Accepted",
                "Message",
                Some(|| json!({ "message": FORGOTTEN })),
            )],
            errors: &[
                INVALID_EMAIL,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED,
                LIMITED,
                INTERNAL,
                NOT_CONFIGURED,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/password/reset",
        ACCOUNT,
        Statements::new(2, 2),
        Handler::Public(|request| Box::pin(reset_password(request))),
        Docs {
            operation_id: "resetPassword",
            summary: "Set a new password",
            description: "Sets a new password by the token of a mailed link, which is valid once \
                and for 30 minutes. All sessions and API keys end, and the address is confirmed. \
                No session is created: log in.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<ResetBody>(
                || json!({ "token": EXAMPLE_TOKEN, "password": "N3wpassword" }),
            )),
            answers: &[AnswerDocs::json(
                200,
                "The password is set",
                "Message",
                Some(|| json!({ "message": RESET })),
            )],
            errors: &[
                INVALID_LINK,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED,
                INTERNAL,
                NOT_CONFIGURED,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/email/verify",
        Policy { rate_limit: Some("verify"), ..Policy::DEFAULT },
        // One for the rate limit, and one that finds the reason why nothing was queued.
        Statements::new(3, 3),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(verify_email(request, caller))),
        Docs {
            operation_id: "verifyEmail",
            summary: "Request a confirmation of the address",
            description: "Mails a link that confirms the address of the account, as a signup \
                does. There is one such mail a minute and there are five a day at most. Requests \
                are rate-limited per client address.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                202,
                "Accepted",
                "Message",
                Some(|| json!({ "message": VERIFYING })),
            )],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                ErrorDocs {
                    description: "The address is confirmed already",
                    example: |_| ApiError::Core(Error::AlreadyVerified),
                },
                LIMITED,
                INTERNAL,
                NOT_CONFIGURED,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/email/confirm",
        ACCOUNT,
        Statements::new(2, 1),
        Handler::Public(|request| Box::pin(confirm_email(request))),
        Docs {
            operation_id: "confirmEmail",
            summary: "Confirm an address",
            description: "Confirms the address of an account, or its new one, by the token of a \
                mailed link, which is valid once.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<ConfirmBody>(|| json!({ "token": EXAMPLE_TOKEN }))),
            answers: &[AnswerDocs::json(200, "The account", "User", None)],
            errors: &[
                ErrorDocs {
                    description: "The link is used, expired, altered or of another kind",
                    example: |_| ApiError::Core(Error::InvalidLink),
                },
                ErrorDocs {
                    description: "Another account has the new address",
                    example: |_| ApiError::Core(Error::EmailTaken),
                },
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    ApiError::Malformed("", field("token", "missing", "Token is required.").into())
                }),
                INTERNAL,
                NOT_CONFIGURED,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::POST,
        "/auth/email",
        Policy { rate_limit: Some("login"), ..ACCOUNT },
        // The account, two slots and their return, the mails, the reason.
        Statements::new(7, 8),
        Handler::User(KeyAccess::Never, |request, caller| Box::pin(change_email(request, caller))),
        Docs {
            operation_id: "changeEmail",
            summary: "Request another address",
            description: "Mails a link to the new address, whose use makes it the address of the \
                account, and a notice to the present one. The new address gets one such mail a \
                minute and five a day at most. Wrong passwords are rate-limited per client \
                address, and per user.",
            tag: Tag::Authentication,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<EmailBody>(
                || json!({ "email": "ada@example.org", "password": "Passw0rd" }),
            )),
            answers: &[AnswerDocs::json(
                202,
                "Accepted",
                "Message",
                Some(|| json!({ "message": VERIFYING })),
            )],
            errors: &[
                INVALID_EMAIL,
                WRONG_PASSWORD,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                MALFORMED,
                LIMITED,
                INTERNAL,
                NOT_CONFIGURED,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

const FORGOTTEN: &str = "If the address has an account, a mail is on its way";
const RESET: &str = "Password changed successfully";
const VERIFYING: &str = "A mail is on its way";
const EXAMPLE_TOKEN: &str = "AZOMbpCyfDOaZR2belLA3lDPUV5GvbQnH-tbx0VwQ7I";

json_body! {
    /// The body of a request for a new password.
    struct ForgotBody as "ForgotPassword" {
        email: Email,
    }
}

json_body! {
    /// The body that sets a new password.
    struct ResetBody as "ResetPassword" {
        token: LinkToken,
        password: Password,
    }
}

json_body! {
    /// The body that confirms an address.
    struct ConfirmBody as "ConfirmEmail" {
        token: LinkToken,
    }
}

json_body! {
    /// The body of a request for another address.
    struct EmailBody as "ChangeEmail" {
        email: Email,
        password: LoginPassword,
    }
}

/// The response to a request that mails something.
fn accepted(message: &str) -> Response<Body> {
    respond::json(StatusCode::ACCEPTED, &json!({ "message": message }))
}

async fn forgot_password(mut request: RequestContext<'_>) -> HandlerResult {
    let ForgotBody { email } = request.json().await?;
    let core = request.api.core();
    let limited = auth::request_password_reset_limited(core, request.client, email).await;
    unwrap_limited(&request, limited)?;
    Ok(accepted(FORGOTTEN))
}

async fn reset_password(mut request: RequestContext<'_>) -> HandlerResult {
    let ResetBody { token, password } = request.json().await?;
    let client = request.client.map_or(Client::Trusted, Client::At);
    auth::reset_password(request.api.core(), client, &token.0, password).await?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": RESET })))
}

async fn verify_email(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let core = request.api.core();
    let limited = auth::request_verification_limited(core, &caller, request.client).await;
    unwrap_limited(&request, limited)?;
    Ok(accepted(VERIFYING))
}

async fn change_email(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let EmailBody { email, password } = request.json().await?;
    let core = request.api.core();
    let client = request.client;
    let limited =
        auth::request_email_change_limited(core, &caller, client, email, password.0).await;
    unwrap_limited(&request, limited)?;
    Ok(accepted(VERIFYING))
}

async fn confirm_email(mut request: RequestContext<'_>) -> HandlerResult {
    let ConfirmBody { token } = request.json().await?;
    let client = request.client.map_or(Client::Trusted, Client::At);
    let user = auth::confirm_email(request.api.core(), client, &token.0).await?;
    Ok(respond::json(StatusCode::OK, &user))
}
