//! What the programs of this crate share: [`bare`], the two servers that do nothing. How a whole
//! server is measured is for the program `todo-bench` alone.

pub mod bare;

/// Why something was not measured.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
