//! `/users/{user_id}/webhook`: where a user's reminders are sent.

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::{
    auth::Caller,
    error::Error,
    http::{
        endpoint::{
            AnswerDocs, BodyDocs, Docs, Endpoint, ErrorDocs, Handler, HandlerResult, KeyAccess,
            Policy, RequestContext, Statements, Tag,
        },
        extract::{Optional, json_body},
        problem::ApiError,
        respond,
        routes::{
            docs::{
                self, BAD_REQUEST, BODY_TIMEOUT, INTERNAL, MEDIA_TYPE, OTHER_USER, TIMEOUT,
                TOO_LARGE, UNAUTHORIZED, UNAVAILABLE, field,
            },
            sessions::no_such,
        },
    },
    webhooks::{self, Webhook, WebhookSecret, WebhookUrl},
};

const WEBHOOK: &str = "/users/{user_id}/webhook";

const NOT_FOUND: ErrorDocs =
    ErrorDocs { description: "The user has no webhook", example: |_| ApiError::NoSuch("webhook") };

pub(crate) static ENDPOINTS: &[Endpoint] = &[
    Endpoint::of_api(
        Method::PUT,
        WEBHOOK,
        Policy::CHANGE,
        Statements::new(1, 1),
        Handler::Owner(KeyAccess::Never, |request, caller| Box::pin(set(request, caller))),
        Docs {
            operation_id: "setWebhook",
            summary: "Set the webhook",
            description: "Sets where the reminders of the user are sent, in place of the present \
                webhook, and turns it on. Each is a POST by Standard Webhooks, with the id of the \
                reminder in `webhook-id`, until it is answered with a status of 2xx: at least \
                once. The host must have public addresses only, and redirects are not followed. \
                A day after the first failure without a success, the webhook is off. Without a \
                `secret`, one is generated. This answer is the only one that contains it.",
            tag: Tag::Todos,
            query: None,
            headers: &[],
            body: Some(BodyDocs::of::<SetWebhookBody>(
                || json!({ "url": "https://hooks.example.com/todo?key=7f3a" }),
            )),
            answers: &[AnswerDocs::json(200, "The webhook", "SetWebhookResult", None)],
            errors: &[
                docs::invalid(|_| {
                    let message = "URL must have a host with a public address.";
                    ApiError::Core(Error::Invalid(field("url", "not_public", message)))
                }),
                UNAUTHORIZED,
                OTHER_USER,
                BODY_TIMEOUT,
                TOO_LARGE,
                MEDIA_TYPE,
                docs::malformed(|_| {
                    ApiError::Malformed("", field("url", "missing", "URL is required.").into())
                }),
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::GET,
        WEBHOOK,
        Policy::DEFAULT,
        Statements::new(1, 1),
        Handler::Owner(KeyAccess::Never, |request, caller| Box::pin(get(request, caller))),
        Docs {
            operation_id: "getWebhook",
            summary: "Get the webhook",
            description: "Returns where the reminders of the user are sent, whether they are, and \
                the last success and failure. The secret is not in it.",
            tag: Tag::Todos,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(200, "The webhook", "Webhook", None)],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USER,
                NOT_FOUND,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
    Endpoint::of_api(
        Method::DELETE,
        WEBHOOK,
        Policy::DEFAULT,
        Statements::new(1, 2),
        Handler::Owner(KeyAccess::Never, |request, caller| Box::pin(delete(request, caller))),
        Docs {
            operation_id: "deleteWebhook",
            summary: "Delete the webhook",
            description: "Deletes the webhook of the user, with the reminders that are queued for \
                it.",
            tag: Tag::Todos,
            query: None,
            headers: &[],
            body: None,
            answers: &[AnswerDocs::json(
                200,
                "Deleted",
                "Message",
                Some(|| json!({ "message": "Webhook deleted successfully" })),
            )],
            errors: &[
                BAD_REQUEST,
                UNAUTHORIZED,
                OTHER_USER,
                NOT_FOUND,
                INTERNAL,
                UNAVAILABLE,
                TIMEOUT,
            ],
        },
    ),
];

json_body! {
    /// The body of a webhook that is set.
    struct SetWebhookBody as "SetWebhook" {
        url: WebhookUrl,
        secret: Optional<WebhookSecret>,
    }
}

/// The response to a webhook that is set.
#[derive(Serialize)]
struct SetWebhookResponse {
    #[serde(flatten)]
    webhook: Webhook,
    secret: String,
}

async fn set(mut request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let SetWebhookBody { url, secret } = request.json().await?;
    let (webhook, secret) = webhooks::set(request.api.core(), &caller, url, secret.0).await?;
    let response = SetWebhookResponse { webhook, secret: secret.reveal() };
    Ok(respond::json(StatusCode::OK, &response))
}

async fn get(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let webhook = webhooks::get(request.api.core(), &caller).await;
    Ok(respond::json(StatusCode::OK, &webhook.map_err(|error| no_such("webhook", error))?))
}

async fn delete(request: RequestContext<'_>, caller: Caller) -> HandlerResult {
    let deleted = webhooks::delete(request.api.core(), &caller).await;
    deleted.map_err(|error| no_such("webhook", error))?;
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Webhook deleted successfully" })))
}
