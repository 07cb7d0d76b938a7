//! Runs the handler of a matched endpoint: access, the session of a rejected request, deadline, and
//! the memory of the response.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::{
    auth::{self, Caller},
    error::Error,
    http::{
        Api, Body,
        budget::{Payer, Reservation, UNCHARGED_BYTES},
        endpoint::{Charge, Endpoint, Handler, HandlerResult, RequestContext},
        matcher::PathParams,
        problem::ApiError,
    },
};

/// Runs the handler of `endpoint`. `caller` is `None` for public endpoints only.
pub(crate) async fn run(
    endpoint: &'static Endpoint,
    caller: Option<Caller>,
    request: RequestContext<'_>,
) -> HandlerResult {
    let api = request.api;
    let payer = request.payer;
    let params = request.params;
    let result = match (endpoint.handler, caller) {
        (Handler::Public(handler), _) => handler(request).await,
        (_, None) => Err(ApiError::MissingToken),
        (Handler::User(handler), Some(caller)) => {
            let result = handler(request, caller).await;
            check_failed_session(api, &caller, false, result).await
        }
        (Handler::Owner(handler), Some(caller)) => {
            let owner = check_owner(&caller, params);
            // The core's statement then checks the session of every request that finds a todo.
            let names_a_todo = owner.is_ok() && params.todo_id().is_some();
            let result = match owner {
                Ok(()) => handler(request, caller).await,
                Err(failure) => Err(failure),
            };
            check_failed_session(api, &caller, names_a_todo, result).await
        }
    };
    charge(api, endpoint.policy.charge, payer, result?)
}

/// Checks the session of a rejected request, if no statement has checked it yet: an ended session
/// comes before these failures in the order of checks. `names_a_todo` means that 403 and 404 come
/// from the core, whose statement has checked it.
async fn check_failed_session(
    api: &Api,
    caller: &Caller,
    names_a_todo: bool,
    result: HandlerResult,
) -> HandlerResult {
    match result {
        Err(failure @ ApiError::Core(Error::Forbidden | Error::NotFound)) if names_a_todo => {
            Err(failure)
        }
        Err(
            failure @ (ApiError::OtherUser
            | ApiError::Core(Error::Forbidden | Error::NotFound | Error::Invalid(_))
            | ApiError::UnsupportedMediaType
            | ApiError::BodyTimeout
            | ApiError::BadRequest(_)
            | ApiError::TooLarge(_)
            | ApiError::Malformed(..)),
        ) => {
            Box::pin(auth::check_session(api.core(), caller)).await?;
            Err(failure)
        }
        result => result,
    }
}

/// Checks that the path's user is the caller; an id that is not a UUID is forbidden.
fn check_owner(caller: &Caller, params: PathParams<'_>) -> Result<(), ApiError> {
    if params.user_id() == Some(caller.user_id()) {
        Ok(())
    } else if params.has_todo() {
        Err(ApiError::Core(Error::Forbidden))
    } else {
        Err(ApiError::OtherUser)
    }
}

/// Charges a whole response to the budget, by the endpoint's policy.
fn charge(api: &Api, charge: Charge, payer: Payer, response: Response<Body>) -> HandlerResult {
    let size = charged_size(&response);
    if size == 0 {
        return Ok(response);
    }
    let reservation = match charge {
        Charge::Never => None,
        Charge::Required => Some(api.budget().reserve(payer, size).ok_or(ApiError::BodyMemory)?),
        Charge::IfAvailable => api.budget().try_reserve(payer, size),
    };
    Ok(attach_reservation(reservation, response))
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
        Some(reservation) => response.map(|body| match body.into_bytes() {
            Ok(bytes) => Arc::new(reservation).attach_to(bytes).into(),
            Err(chunks) => chunks,
        }),
        _ => response,
    }
}
