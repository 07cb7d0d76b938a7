//! The stand-in for GitHub, `tests/oidc-provider/github.mjs`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::Node;

/// A stand-in for GitHub, with the client [`super::CLIENT_ID`].
#[derive(Debug)]
pub struct GitHub(Node);

impl GitHub {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> GitHub {
        GitHub(Node::start("oidc-provider", "github.mjs", &[]).await)
    }

    /// Its address, for the site and for the API.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Replaces the accounts and the faults; members: the first lines of `github.mjs`.
    pub async fn control(&self, control: Value) {
        self.0.control(control).await;
    }

    /// The number of requests by path.
    pub async fn requests(&self) -> BTreeMap<String, u64> {
        self.0.requests().await
    }

    /// Signs `login` in at the address to which a start redirects; returns the callback's address,
    /// with its query.
    ///
    /// # Panics
    /// When it does not redirect to a callback.
    pub async fn sign_in(&self, authorize: &str, login: &str) -> String {
        let (_, path) = authorize.split_once(&self.url()).expect("an address of this server");
        let answer = self.0.client.get(&format!("{path}&login={login}")).await;
        answer.header("location").unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}
