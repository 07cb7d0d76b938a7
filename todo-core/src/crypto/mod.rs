//! Cryptography: the hashing of passwords, API keys, and signed tokens and cursors. Nothing here
//! takes a [`Core`](crate::core::Core).

pub(crate) mod api_key;
pub(crate) mod hash_queue;
pub(crate) mod hashing;
pub(crate) mod stored_hash;
pub(crate) mod tokens;
