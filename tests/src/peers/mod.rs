//! Servers of others that sign users in, as real programs: Better Auth, an OpenID Connect provider,
//! and a stand-in for GitHub. Each is a process of its own on a loopback port, ended on drop.

mod better_auth;
mod github;
mod node;
mod oidc;

pub use better_auth::{AUDIENCE, BetterAuth, IssuerUser, now};
pub use github::GitHub;
pub use oidc::OidcProvider;

/// The id of the client that the providers know.
pub const CLIENT_ID: &str = "todo";

/// The secret of [`CLIENT_ID`].
pub const CLIENT_SECRET: &str = "a secret of the client for tests only";
