//! Requests to other servers over HTTP: their interface, and the clients on hyper.

#[cfg(feature = "identity")]
pub use self::hyper_client::HyperClient;
#[cfg(feature = "webhook")]
pub use self::public_client::{PostFuture, PublicClient, WebhookClient};
#[cfg(feature = "identity")]
pub use self::types::{HttpClient, HttpFuture, HttpResponse};
pub use self::types::{HttpError, HttpRequest};

#[cfg(feature = "identity")]
mod hyper_client;
#[cfg(feature = "webhook")]
mod public_address;
#[cfg(feature = "webhook")]
mod public_client;
mod tls;
mod types;

#[cfg(feature = "webhook")]
pub(crate) use self::public_address::is_public;
