//! The HTTP contract: from an `http::Request` to an `http::Response`, without a framework, listener
//! or runtime. [`Api::handle`] owns routing, extraction, authentication, status mapping, problem
//! bodies and the headers of every response; a server only has to call it.

#[cfg(feature = "testing")]
#[doc(hidden)]
pub use self::routes::testing::with_test_routes;
pub use self::{
    api::Api,
    body::{Body, BodyError},
    endpoint::{Access, Endpoint, KeyAccess, Statements, endpoints},
    envelope::{Envelope, EnvelopeLayer},
    head::{HeadError, HeadMemory},
    openapi::openapi_document,
    options::ApiOptions,
    origin::Origin,
    proxies::{OverCapacity, Peer, canonical as canonical_networks},
    public::PublicUrl,
    trace::TRACE_TARGET,
    upgrade::Upgrade,
};

mod access_log;
mod api;
mod body;
mod budget;
mod conditions;
mod cors;
mod database_check;
mod dispatch;
mod endpoint;
mod envelope;
mod events;
mod export;
mod extract;
mod head;
mod idempotency;
mod list;
mod matcher;
mod metrics;
mod openapi;
mod options;
mod origin;
mod problem;
mod proxies;
mod public;
mod rate_limit;
mod respond;
mod routes;
mod schema;
mod trace;
mod upgrade;
mod websocket;
