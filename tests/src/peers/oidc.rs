//! A real OpenID Connect provider, `tests/oidc-provider/server.mjs`, and a person at its pages.

use std::collections::BTreeMap;

use serde_json::Value;
use url::Url;

use super::node::Node;
use crate::{Client, TestResponse};

/// A provider with the client [`super::CLIENT_ID`].
#[derive(Debug)]
pub struct OidcProvider(Node);

impl OidcProvider {
    /// Starts one that redirects to these callbacks.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(callbacks: &[&str]) -> OidcProvider {
        let options: Vec<_> = callbacks.iter().map(|url| format!("--redirect={url}")).collect();
        OidcProvider(Node::start("oidc-provider", "server.mjs", &options).await)
    }

    /// Its issuer, without a slash at the end.
    pub fn issuer(&self) -> String {
        self.0.url()
    }

    /// Replaces the accounts and the faults; members: the first lines of `server.mjs`.
    pub async fn control(&self, control: Value) {
        self.0.control(control).await;
    }

    /// The number of requests by path.
    pub async fn requests(&self) -> BTreeMap<String, u64> {
        self.0.requests().await
    }

    /// Stops the process: connections open, and nothing is answered.
    pub fn freeze(&self) {
        self.0.freeze();
    }

    /// Continues after [`OidcProvider::freeze`].
    pub fn thaw(&self) {
        self.0.thaw();
    }

    /// Logs `subject` in and consents, at the address to which a start redirects; returns the
    /// callback's address, with its query.
    ///
    /// # Panics
    /// When the pages lead to no callback.
    pub async fn sign_in(&self, authorize: &str, subject: &str) -> String {
        self.visit(authorize, Some(subject)).await
    }

    /// As [`OidcProvider::sign_in`] by a person who declines.
    ///
    /// # Panics
    /// When the pages lead to no callback.
    pub async fn decline(&self, authorize: &str) -> String {
        self.visit(authorize, None).await
    }

    async fn visit(&self, authorize: &str, subject: Option<&str>) -> String {
        let mut browser = Browser { client: self.0.client.clone(), cookies: BTreeMap::new() };
        let issuer = Url::parse(&self.issuer()).expect("an address");
        let mut answer = browser.send("GET", &self.path(authorize), "").await;
        // Login, consent, and the redirects between them.
        for _ in 0..10 {
            if let Some(location) = answer.header("location") {
                let to = issuer.join(location).expect("an address");
                if to.origin() != issuer.origin() {
                    return to.into();
                }
                answer = browser.send("GET", &self.path(to.as_str()), "").await;
                continue;
            }
            let page = answer.text();
            let action = page.split_once("action=\"").and_then(|(_, rest)| rest.split_once('"'));
            let (action, _) = action.unwrap_or_else(|| panic!("no form: {answer}: {}", self.log()));
            let prompt = if page.contains("value=\"login\"") { "login" } else { "consent" };
            answer = match subject {
                Some(subject) => {
                    let form = format!("prompt={prompt}&login={subject}&password=any");
                    browser.send("POST", &self.path(action), &form).await
                }
                None => browser.send("GET", &format!("{}/abort", self.path(action)), "").await,
            };
        }
        panic!("no callback after login and consent: {answer}")
    }

    /// The path and the query of an address of this provider.
    fn path(&self, address: &str) -> String {
        address.strip_prefix(&self.issuer()).unwrap_or(address).to_owned()
    }

    fn log(&self) -> String {
        self.0.output()
    }
}

/// A client that keeps cookies.
struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn send(&mut self, method: &str, path: &str, form: &str) -> TestResponse {
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let headers =
            [("cookie", &*cookies), ("content-type", "application/x-www-form-urlencoded")];
        let answer = self.client.send(method, path, &headers, form).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().expect("visible characters");
            let pair = cookie.split(';').next().and_then(|pair| pair.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }
}
