//! Accounts and todos as async functions, over SQLite or PostgreSQL.
//!
//! A [`Core`] holds a database and the state for working on it. The operations are free functions
//! in [`auth`] and [`todos`].
//!
//! ```
//! use todo_core::{
//!     Core, Secret,
//!     auth::{self, Client},
//!     todos::{self, ListQuery, NewTodo, Priority},
//! };
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let secret = Secret::new("at least thirty-two random bytes")?;
//!     let core = Core::builder(secret).open("sqlite::memory:").await?;
//!     let form = auth::Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
//!     let session = auth::signup(&core, Client::Trusted, form).await?;
//!     let caller = auth::authenticate(&core, session.token.as_str()).await?;
//!     let new = NewTodo::new("Buy milk".parse()?).priority(Priority::High);
//!     let todo = todos::create(&core, &caller, new).await?;
//!     let list = todos::list(&core, &caller, ListQuery::new()).await?;
//!     assert_eq!((list.total, &list.todos[0]), (Some(1), &todo));
//!     Ok(())
//! }
//! ```
//!
//! # Callers
//!
//! Every function of [`todos`] takes an [`auth::Caller`], which comes from a token that
//! [`auth::authenticate`] accepted, or from a user id that the host program has authenticated by
//! other means ([`auth::Caller::trusted`]). A caller has access to that user's todos only. The
//! statement of each operation checks the token's session too: after [`auth::logout`] the next call
//! fails, on every replica.
//!
//! # Validated values
//!
//! [`auth::Email`], [`auth::Name`], [`auth::Password`], [`auth::TimeZone`], [`todos::Title`],
//! [`todos::Description`], [`todos::Priority`] and [`todos::Limit`] can only be created by parsing,
//! so each value is valid: `Title::parse(text)`, `text.parse::<Title>()` and
//! `Title::try_from(text)` are the same, and serde's `Deserialize` parses too.
//! [`auth::Signup::parse`] and [`auth::Credentials::parse`] take a whole form and report the errors
//! of all its fields at once, in [`Error::Invalid`].
//!
//! ```
//! use todo_core::{Error, auth::Signup};
//!
//! let Err(Error::Invalid(fields)) = Signup::parse("ada", "secret", "A") else { panic!() };
//! let names: Vec<_> = fields.iter().map(|field| field.field.as_ref()).collect();
//! // The password is too short, and lacks an upper-case letter and a digit.
//! assert_eq!(names, ["email", "password", "password", "password", "name"]);
//! ```
//!
//! # Errors
//!
//! The variants of [`Error`] are the possible reactions of a caller: correct a value, log in, wait,
//! try again. The cause of a failure is a [`BoxError`]: it is for logs, and its text may contain
//! names of tables or hosts. After [`Error::Unavailable`] a write may have taken effect; this
//! library never retries one.
//!
//! # Runtime and threads
//!
//! A tokio runtime with its timer is required. Each user can run a few operations at once; further
//! ones wait in that user's queue, so that they do not delay other users. Dropping the future of a
//! queued operation cancels it. If it is running, it then completes in a separate task, with its
//! permit and deadline, so that no database call is left half-done. A short read of an SQLite file
//! runs on the calling worker, on all but one of the runtime's workers at a time: give the runtime
//! one worker more than it needs otherwise. Passwords are hashed outside of the runtime, one per
//! core at a time; beyond a bounded queue, [`Error::Busy`] at once.
//!
//! Time is an input. [`CoreBuilder::clock`] takes any [`Clock`], the only source of the time:
//!
//! ```
//! use todo_core::Clock;
//!
//! let noon = "2026-11-23T12:00:00Z".parse().expect("RFC 3339");
//! let clock = Clock::from_fn(move || noon);
//! assert_eq!(clock.now(), noon);
//! ```
//!
//! # Over HTTP
//!
//! With the feature `http`, `http::Api` turns an `http::Request` into an `http::Response`: routing,
//! authentication, problem documents (RFC 9457), CORS and the OpenAPI document, without a framework
//! or a listener. It is a tower `Service` too. To mount it below a path, set
//! `http::ApiOptions::mount_path`. Put an `http::Peer` into each request's extensions: rate limits
//! apply per peer.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `sqlite` | yes | `sqlite://FILE`, `sqlite::memory:`; SQLite itself is compiled in |
//! | `postgres` | yes | `postgres://…`, with TLS by rustls |
//! | `http` | yes | the HTTP contract |
//! | `admin` | no | with both databases: migrating, copying, importing, backups, users |
//! | `identity` | no | tokens of another issuer, and the HTTP client for its keys |
//! | `webhook` | no | reminders by webhook, and the HTTP client for it |
//! | `otlp` | no | with `http`: a request's span joins the client's trace (W3C Trace Context) |
//!
//! Types and traits of other crates in the public API: [`uuid`], [`chrono`], serde, futures'
//! `Stream`, and with `http` those of `http`, `http-body`, `bytes`, `tower-service`, `tower-layer`,
//! `ipnet`, `serde_json` and tokio's `AsyncRead` and `AsyncWrite`. `public-api.txt` beside this
//! crate's manifest lists the public API.
#![forbid(unsafe_code)]
// Without a database driver no database can be opened, so the code that uses one is unreachable.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(unused, clippy::unused_async, clippy::unused_self, clippy::trivially_copy_pass_by_ref)
)]

mod authz;
mod backoff;
mod clock;
mod core;
mod crypto;
mod db;
mod error;
#[cfg(any(feature = "identity", feature = "webhook"))]
mod http_client;
mod ids;
mod job_counters;
pub mod jobs;
pub mod mail;
pub mod outbox;
mod parsed;
mod rate_limit;
mod reminder_counters;
pub mod reminders;
mod request_id;
mod run_to_completion;
mod scopes;
mod secret;
#[cfg(feature = "identity")]
pub mod sign_in;
mod streams;
mod time_zone;
mod timestamp;
mod validate;

#[cfg(feature = "admin")]
pub mod admin;
pub mod auth;
mod caller_queue;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "identity")]
pub mod identity;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
pub mod todos;
#[cfg(feature = "webhook")]
pub mod webhooks;

#[cfg(feature = "postgres")]
pub use self::db::{
    pooler_check::check_pooler,
    requirements::{Finding, check_database},
};
pub use self::{
    clock::Clock,
    core::{Core, CoreBuilder},
    db::{Database, DatabaseOptions, DatabaseUrl, DatabaseUrlError, OpenError},
    error::{BoxError, Error, ErrorChain, FieldError, FieldErrors, ItemError, Quota, Result},
    secret::{Algorithm, Secret, SecretError},
};
