//! What the programs of this crate share: [`bare`], the two servers that do nothing, and
//! [`fixture`], an API over a small SQLite file for what is measured without a socket. How a whole
//! server is measured is for the program `todo-bench` alone.

pub mod bare;
pub mod fixture;

/// Why something was not measured.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
