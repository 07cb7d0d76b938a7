//! The contract inside of the envelope: finds the endpoint of a request, authenticates its caller,
//! and runs the handler; checks the session of a rejected request, and charges the response's
//! memory.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::Either;
use http::{HeaderValue, Request, Response, header, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::timeout;

use crate::{
    auth::{
        self, Caller,
        credential::{self, Credential},
        events::{self, AuthEvent},
    },
    error::{BoxError, Error},
    http::{
        Access, Api, Body,
        access_log::RequestLog,
        budget::{Payer, Reservation, UNCHARGED_BYTES},
        endpoint::{Charge, Endpoint, Handler, HandlerResult, RequestContext},
        envelope::{Enclosed, RequestLine},
        extract::{self, Incoming},
        matcher::{Found, Matched, PathParams},
        problem::ApiError,
        respond, routes,
        websocket::handshake,
    },
    ids::UserId,
};

impl<B> Enclosed<B> for Api
where
    B: HttpBody + Send,
    B::Data: Send,
{
    fn api(&self) -> &Api {
        self
    }

    fn route(&self, parts: &Parts) -> Option<&str> {
        let path = parts.uri.path().strip_prefix(self.mount_path()).unwrap_or_default();
        self.find(&parts.method, path).map(|found| found.pattern)
    }

    async fn respond<'s>(&'s self, request: Request<B>, log: &RequestLog<'s>) -> Response<Body> {
        let line = RequestLine::of(&request);
        let (parts, body) = request.into_parts();
        let mut body = pin!(body);
        let waits_for_continue = parts.headers.contains_key(header::EXPECT);
        let mut was_read = false;
        let response = {
            let incoming = Incoming::new(body.as_mut(), &mut was_read);
            let dispatched = pin!(self.dispatch(&parts, incoming, log));
            self.complete(line, log, dispatched).await
        };
        // The head may be large, and the rest of the body may be slow.
        drop(parts);
        // The sender then reads the response; one that waits for `100 Continue` sends nothing.
        if was_read || !waits_for_continue {
            extract::drain(body).await;
        }
        response
    }
}

impl Api {
    async fn dispatch<'s: 'a, 'a>(
        &'s self,
        parts: &'a Parts,
        body: Incoming<'a>,
        log: &'a RequestLog<'s>,
    ) -> Result<Response<Body>, ApiError> {
        let _head = self.check_head(parts, log)?;
        if extract::is_server_options(&parts.method, &parts.uri) {
            return Ok(respond::options(&HeaderValue::from_static(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )));
        }
        let path = parts.uri.path().strip_prefix(&*self.config().mount_path).unwrap_or_default();
        let found = self.find(&parts.method, path);
        self.admit(parts, found.as_ref().is_some_and(|found| found.is_probe))?;
        let Some(Found { pattern, matched, .. }) = found else {
            let shorter = without_trailing_slash(path).ok_or(ApiError::NoRoute)?;
            let found = self.find(&parts.method, shorter).ok_or(ApiError::NoRoute)?;
            log.update(|fields| fields.route = Some(found.pattern));
            return Ok(self.redirect(shorter, parts.uri.query()));
        };
        log.update(|fields| fields.route = Some(pattern));
        match matched {
            Matched::WrongMethod(allow) => Err(ApiError::WrongMethod(allow.clone())),
            Matched::Options(allow) => Ok(respond::options(allow)),
            Matched::Endpoint(endpoint, params) => {
                // A block, so that its variables are not part of the future below.
                let (deadline, handling) = {
                    let credential = if endpoint.access() == Access::Public {
                        None
                    } else {
                        Some(self.authenticate(parts, endpoint, log.client())?)
                    };
                    let client = log.client();
                    let (user_id, names_caller) = match &credential {
                        Some(Credential::Known(known)) => {
                            (Some(known.caller.user_id()), known.is_named(params.user()))
                        }
                        _ => (None, false),
                    };
                    log.update(|fields| fields.user_id = user_id);
                    let per_minute = self.core().rate_limiter().per_minute();
                    if let Some(policy) = endpoint.policy.rate_limit
                        && client.is_some()
                        && per_minute > 0
                    {
                        log.rate_limit().set(policy, per_minute, Duration::from_mins(1));
                    }
                    let request = RequestContext {
                        api: self,
                        parts,
                        params,
                        names_caller,
                        client,
                        rate_limit: log.rate_limit(),
                        payer: Payer::new(client, user_id),
                        body,
                        max_body: endpoint.policy.max_body(self.config()),
                    };
                    let handling = match credential {
                        None => Either::Right(run(endpoint, None, request)),
                        Some(Credential::Known(known)) => {
                            Either::Right(run(endpoint, Some(known.caller), request))
                        }
                        Some(unknown) => {
                            Either::Left(Box::pin(find_and_run(endpoint, unknown, request, log)))
                        }
                    };
                    (endpoint.policy.deadline(self.config()), handling)
                };
                let handled = timeout(deadline, handling).await;
                handled.unwrap_or(Err(ApiError::Timeout))
            }
        }
    }

    /// The request's credential.
    fn authenticate(
        &self,
        parts: &Parts,
        endpoint: &Endpoint,
        client: Option<IpAddr>,
    ) -> Result<Credential, ApiError> {
        let token = match extract::bearer(&parts.headers) {
            Err(ApiError::MissingToken) if endpoint.policy.takes_protocol_token => {
                handshake::token(&parts.headers).ok_or(ApiError::MissingToken)
            }
            token => token,
        };
        match token {
            Ok(token) => Ok(credential::read(self.core(), token, client)?),
            Err(failure) => {
                match failure {
                    ApiError::MissingToken => events::log_missing_token(client),
                    _ => events::failed(AuthEvent::Token, client, None, "malformed header"),
                }
                Err(failure)
            }
        }
    }
}

/// Finds the caller of a credential that is not known yet, and runs the handler of `endpoint`.
async fn find_and_run(
    endpoint: &'static Endpoint,
    unknown: Credential,
    mut request: RequestContext<'_>,
    log: &RequestLog<'_>,
) -> HandlerResult {
    let label = routes::auth::session_label(&request);
    let found = credential::find(request.api.core(), unknown, request.client, label).await?;
    log.update(|fields| fields.user_id = Some(found.caller.user_id()));
    request.names_caller = found.is_named(request.params.user());
    run(endpoint, Some(found.caller), request).await
}

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
        (Handler::User(keys, handler), Some(caller)) => {
            let result = if keys.allows(&caller) {
                handler(request, caller).await
            } else {
                Err(keys.refusal().into())
            };
            if is_before_session(&result, false) {
                Box::pin(auth::check_session(api.core(), &caller)).await?;
            }
            result
        }
        (Handler::Owner(keys, handler), Some(caller)) => {
            let owner = if keys.allows(&caller) {
                check_owner(&caller, params, request.names_caller)
            } else {
                Err(keys.refusal().into())
            };
            // The core's statement then checks the session of every request that finds a todo.
            let names_a_todo = owner.is_ok() && params.todo_id().is_some();
            let result = match owner {
                Ok(()) => handler(request, caller).await,
                Err(failure) => Err(failure),
            };
            if is_before_session(&result, names_a_todo) {
                Box::pin(auth::check_session(api.core(), &caller)).await?;
            }
            result
        }
    };
    let mut response = result?;
    if !endpoint.policy.body.allows(response.body()) {
        let cause = format!("{endpoint:?} returned a body that its policy excludes");
        return Err(ApiError::Core(Error::Internal(BoxError::new(cause))));
    }
    response.body_mut().limit_silence(endpoint.policy.deadline(api.config()));
    charge(api, endpoint.policy.charge, payer, response)
}

/// Whether a request was rejected before a statement has checked its session, which must be checked
/// then: an ended session comes before these failures in the order of checks. `names_a_todo` means
/// that 403 and 404 come from the core, whose statement has checked it.
fn is_before_session(result: &HandlerResult, names_a_todo: bool) -> bool {
    match result {
        Err(ApiError::Core(Error::Forbidden | Error::NotFound)) => !names_a_todo,
        Err(
            ApiError::OtherUser
            | ApiError::Core(
                Error::Invalid(_)
                | Error::FileInvalid { .. }
                | Error::MailNotConfigured
                | Error::InsufficientScope { .. },
            )
            | ApiError::UnsupportedMediaType
            | ApiError::WrongFileType
            | ApiError::BodyTimeout
            | ApiError::BadRequest(_)
            | ApiError::UpgradeRequired
            | ApiError::WebSocketVersion
            | ApiError::OriginNotAllowed
            | ApiError::TooLarge(_)
            | ApiError::Malformed(..),
        ) => true,
        _ => false,
    }
}

/// Checks that the path's user is the caller; an id that is not a UUID is forbidden.
fn check_owner(
    caller: &Caller,
    params: PathParams<'_>,
    names_caller: bool,
) -> Result<(), ApiError> {
    if names_caller || params.user_id() == Some(caller.user_id()) {
        Ok(())
    } else if params.has_item() {
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

/// Logs the outcome of a request with a verified token: by now its session has been checked.
pub(crate) fn log_token_use(
    client: Option<IpAddr>,
    user_id: UserId,
    result: &Result<Response<Body>, ApiError>,
) {
    match result {
        Err(ApiError::Core(error @ Error::Unauthenticated)) => {
            events::failed(AuthEvent::Token, client, Some(user_id), events::reason(error));
        }
        // After a server error, it is unknown whether the session is live.
        Err(failure) if failure.status().is_server_error() => {}
        _ => events::succeeded(AuthEvent::Token, client, user_id),
    }
}

/// The path without its trailing slash, if it has one and the rest is more than a slash.
pub(crate) fn without_trailing_slash(path: &str) -> Option<&str> {
    path.strip_suffix('/').filter(|shorter| !matches!(*shorter, "" | "/"))
}
