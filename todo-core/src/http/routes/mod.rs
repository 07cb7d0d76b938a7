//! The routes, by resource. Each file has its endpoints and their handlers, which decode, call and
//! encode. The types of `auth` and `todos` validate values; `problem` maps errors to statuses.

pub(crate) mod account;
pub(crate) mod auth;
pub(crate) mod bulk;
pub(crate) mod changes;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod exchange;
pub(crate) mod health;
#[cfg(feature = "identity")]
pub(crate) mod identities;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod mail;
pub(crate) mod meta;
#[cfg(feature = "identity")]
pub(crate) mod oauth;
pub(crate) mod order;
pub(crate) mod password;
pub(crate) mod sessions;
pub(crate) mod tags;
#[cfg(feature = "testing")]
pub(crate) mod testing;
pub(crate) mod todos;
pub(crate) mod trash;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;
