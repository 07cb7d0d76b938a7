//! Accounts and todos as async functions, over SQLite or PostgreSQL.
//!
//! Everything begins with a [`Core`]: a database, and the few things it takes to work on it. Free
//! functions in [`auth`] and [`todos`] do the rest.
//!
//! ```
//! use todo_core::{Core, Options, Secret, auth, todos};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let secret = Secret::new("at least thirty-two random bytes")?;
//!     let core = Core::open("sqlite::memory:", Options::new(secret)).await?;
//!     let form = auth::Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
//!     let session = auth::signup(&core, None, form).await?;
//!     let caller = auth::verify(&core, &session.token)?;
//!     let (title, priority) = ("Buy milk".try_into()?, todos::Priority::High);
//!     let new = todos::NewTodo { title, description: None, priority };
//!     let todo = todos::create(&core, &caller, new).await?;
//!     let list = todos::list(&core, &caller, todos::ListQuery::default()).await?;
//!     assert_eq!((list.total, &list.todos[0]), (1, &todo));
//!     Ok(())
//! }
//! ```
//!
//! # Who acts
//!
//! No function of [`todos`] works without an [`auth::Caller`], and there are two ways to one: a
//! token that [`auth::verify`] or [`auth::authenticate`] found good, or a host program that vouches
//! for a user id ([`auth::Caller::trusted`]) because it knows its users by other means. A caller
//! sees that user's todos and nobody else's. The session behind a token is looked up by the very
//! statement that does the work: after [`auth::logout`] the next call fails, on every replica.
//!
//! # What a value may be
//!
//! [`auth::Email`], [`auth::Name`], [`auth::Password`], [`todos::Title`], [`todos::Description`],
//! [`todos::Priority`] and [`todos::Limit`] are made by parsing only, so whoever holds one holds a
//! good one. [`auth::Signup::parse`] and [`auth::Credentials::parse`] take a whole form and report
//! every rule that its fields break at once, in [`Error::Invalid`].
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
//! # What can go wrong
//!
//! [`Error`] says what the caller can do about it: mend a value, log in, wait, try again. What lies
//! behind a fault is a [`BoxError`]: it is for logs, and its text may name tables or hosts.
//! [`Error::Unavailable`] leaves open whether a write took effect; nothing here repeats one.
//!
//! # What runs where
//!
//! A tokio runtime with its timer is needed. One user's operations take turns: a few at once reach the
//! database, so that nobody else waits for them. Dropping the future of one that waits for its turn ends
//! it. One that is under way leaves no database call half-done: it runs on to its end in a task of its
//! own, under a permit and a deadline. A short read of an SQLite file is made where it is
//! asked for, on all but one of the runtime's workers at a time: give a runtime one more worker than it
//! needs otherwise. Passwords are hashed off the runtime, one a core at a time; beyond a bounded queue,
//! [`Error::Busy`] at once.
//!
//! Time is an input. [`Options::clock`] takes any [`Clock`], and nothing else is asked:
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
//! or a listener. It is a tower `Service` too. Who mounts it below a path says so in
//! `http::ApiOptions::mount_path`, and puts an `http::Peer` into each request's extensions, by which
//! rate limits are kept.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `sqlite` | yes | `sqlite://FILE`, `sqlite::memory:`; SQLite itself is compiled in |
//! | `postgres` | yes | `postgres://…`, with TLS by rustls |
//! | `http` | yes | the HTTP contract |
//! | `server` | no | what a server's `main` needs: settings, logs, signals, the sweep |
//! | `otlp` | no | with `server`: traces by OTLP/HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set |
//!
//! Types of other crates in the public API: [`uuid`], [`chrono`], and with `http` those of `http`,
//! `http-body`, `bytes`, `tower-service` and `ipnet`; with `server` also tokio's `TcpListener` and
//! the `Stream` of `futures`.
// Without a database nothing can be opened: what works on one is compiled, and not reached.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(unused, clippy::unused_async, clippy::unused_self, clippy::trivially_copy_pass_by_ref)
)]

#[cfg(feature = "server")]
mod admission;
mod clock;
mod core;
mod db;
#[cfg(feature = "server")]
mod dotenv;
mod error;
mod request_id;
mod secret;
mod timestamp;
mod validate;

#[cfg(all(feature = "server", feature = "sqlite", feature = "postgres"))]
pub mod admin;
pub mod auth;
mod caller_queue;
#[cfg(feature = "server")]
mod header_timeout;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod settings;
#[cfg(feature = "server")]
mod sources;
pub mod todos;

#[cfg(feature = "postgres")]
pub use self::db::{
    pooler_check::check_pooler,
    requirements::{Finding, check_database},
};
pub use self::{
    clock::Clock,
    core::{Core, Options},
    db::OpenError,
    error::{BoxError, Error, FieldError, Result},
    secret::{Algorithm, Secret},
};

/// Compiles and runs the example in the README.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../README.md")]
struct Readme;
