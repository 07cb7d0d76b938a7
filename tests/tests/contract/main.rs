//! The contract, route by route, on every target: each promise of docs/api.md and each error.

mod auth;
mod equality;
mod listing;
mod openapi;
mod public_url;
mod rate_limits;
mod statements;
mod todos;
mod tokens;
