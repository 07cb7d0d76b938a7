//! Six ways to use the library, each a file to copy from:
//!
//! - [`embed`]: accounts and todos in your own program, without HTTP;
//! - [`planner`]: due dates, tags and recurrence: the todos of a week, day by day;
//! - [`in_axum`]: the whole API under a path of an axum app;
//! - [`in_salvo`]: the same in a salvo app, documentation pages included;
//! - [`client`]: an HTTP client for any of them;
//! - [`offline`]: a copy of the todos that is edited offline and synchronized.
//!
//! The programs in `src/bin` only choose a database and an address; `tests` runs all of them.
#![forbid(unsafe_code)]

use todo_core::{Core, Secret};

pub mod client;
pub mod embed;
pub mod in_axum;
pub mod in_salvo;
pub mod offline;
pub mod planner;

/// Error of an example.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens the database of the examples with a server, in the working directory.
///
/// # Errors
/// If `SECRET_KEY` is not set to at least 32 bytes, or the database does not open.
pub async fn open_core() -> Result<Core, Failure> {
    let secret = std::env::var("SECRET_KEY").unwrap_or_default();
    Ok(Core::builder(Secret::new(secret)?).open("sqlite://example.db").await?)
}

/// Completes on Ctrl-C.
pub async fn ctrl_c() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot wait for ctrl-c, stopping: {error}");
    }
}

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
