//! Shared code of this crate's programs: [`bare`] for the two bare servers, and [`fixture`], an API
//! on a small SQLite file for measurements without a socket. The program `todo-bench` measures
//! whole servers.

pub mod bare;
pub mod fixture;

/// Error of a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
