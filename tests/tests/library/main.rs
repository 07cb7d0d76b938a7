//! `todo-core` as a Rust program links it, without HTTP.

mod api;
mod batch;
mod bulk;
mod changes;
mod limits;
mod lists;
mod model;
