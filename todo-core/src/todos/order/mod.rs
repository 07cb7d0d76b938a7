//! The manual order of a user's todos: first those with a position, by it, then those without one,
//! the oldest first. Lists and filters show a part of this one order.
//!
//! A position is an [`OrderKey`](super::order_key). A todo has none until it, or one after it, is
//! moved: so creations cost nothing more.

pub use self::move_todo::move_todo;

mod keys;
mod move_todo;
mod places;
mod rekey;
