//! A client in a hundred lines: what a Rust program needs to use the API from elsewhere. It knows
//! the contract and nothing of the library.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Connections, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::Failure;

/// Somebody without an account, at the address where the API is mounted.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    connections: Connections<HttpConnector, Full<Bytes>>,
}

/// A user with a token.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    client: Client,
    token: String,
    /// Who it is.
    pub user: User,
}

/// A user, as far as this client cares.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// A UUID.
    pub id: String,
    /// In lower case.
    pub email: String,
}

/// A todo, as far as this client cares.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Todo {
    /// A UUID.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// Whether it is done.
    pub completed: bool,
}

/// A page of todos.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The todos on this page.
    pub todos: Vec<Todo>,
    /// How many there are on all pages.
    pub total: u64,
    /// Asks for the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// What signing up answers.
#[derive(Deserialize)]
struct AuthAnswer {
    user: User,
    token: String,
}

/// An answer that reports a failure (RFC 9457).
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A word for programs, such as `email_taken`.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

impl Client {
    /// A client of the API at `base`, such as `http://127.0.0.1:8000`, without a trailing slash.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        let connections = Connections::builder(TokioExecutor::new()).build_http();
        Self { base: base.into(), connections }
    }

    /// Makes an account.
    ///
    /// # Errors
    /// A [`Problem`], or what the connection fails with.
    pub async fn sign_up(
        &self,
        email: &str,
        password: &str,
        name: &str,
    ) -> Result<LoggedIn, Failure> {
        let form = json!({ "email": email, "password": password, "name": name });
        let (answer, _): (AuthAnswer, _) =
            self.send(Method::POST, "/api/auth/signup", None, Some(&form)).await?;
        Ok(LoggedIn { client: self.clone(), token: answer.token, user: answer.user })
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap), Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(String::new, Value::to_string);
        let response = self.connections.request(request.body(Full::from(body))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if head.status.is_success() {
            return Ok((serde_json::from_slice(&body)?, head.headers));
        }
        Err(problem(head.status, &body).into())
    }
}

impl LoggedIn {
    /// Makes a todo; tells also the path it is at.
    ///
    /// # Errors
    /// A [`Problem`], or what the connection fails with.
    pub async fn create(&self, title: &str) -> Result<(Todo, String), Failure> {
        let form = json!({ "title": title });
        let (todo, headers) = self.send(Method::POST, &self.todos(), Some(&form)).await?;
        let location = headers.get(header::LOCATION).ok_or("an answer without Location")?;
        Ok((todo, location.to_str()?.to_owned()))
    }

    /// One page of at most `limit` todos, the newest first; `cursor` is the last page's.
    ///
    /// # Errors
    /// A [`Problem`], or what the connection fails with.
    pub async fn page(&self, limit: u16, cursor: Option<&str>) -> Result<Page, Failure> {
        // A cursor is made of characters that need no escaping in a query.
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("{}?limit={limit}{cursor}", self.todos());
        Ok(self.send(Method::GET, &path, None).await?.0)
    }

    fn todos(&self) -> String {
        format!("/api/users/{}/todos", self.user.id)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap), Failure> {
        self.client.send(method, path, Some(&self.token), body).await
    }
}

/// The problem in an answer; something on the way (a proxy, say) may have answered without one.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        status: status.as_u16(),
        code: "unknown".into(),
        detail: "no problem document".into(),
    })
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl std::error::Error for Problem {}
