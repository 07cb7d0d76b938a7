//! What a webhook receives.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::WebhookSecret;
use crate::{
    error::{BoxError, Error, Result},
    http_client::HttpRequest,
    timestamp,
    todos::{FiredReminder, Todo},
};

/// The body: a reminder that has fired, and its todo as it is now.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'static str,
    #[serde(serialize_with = "timestamp::serialize")]
    timestamp: DateTime<Utc>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    reminder: &'a FiredReminder,
    /// Null if it is deleted.
    todo: Option<&'a Todo>,
}

/// The request with a reminder, signed at this time (Standard Webhooks 1.0.0).
pub(super) fn request(
    url: &str,
    secret: &WebhookSecret,
    reminder: &FiredReminder,
    todo: Option<&Todo>,
    now: DateTime<Utc>,
) -> Result<HttpRequest> {
    let payload = Payload {
        r#type: "reminder.fired",
        timestamp: reminder.fired_at,
        data: Data { reminder, todo },
    };
    let body = serde_json::to_vec(&payload).map_err(|e| Error::Internal(BoxError::new(e)))?;
    let id = reminder.id.to_string();
    let seconds = now.timestamp();
    let signature = secret.sign(&id, seconds, &body);
    Ok(HttpRequest::post(url, body)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds.to_string())
        .header("webhook-signature", signature))
}
