//! A small HTTP client of the API, for Rust programs that do not embed the library. It uses only
//! the wire format.

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

/// An unauthenticated client of the API at a base URL.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    connections: Connections<HttpConnector, Full<Bytes>>,
}

/// An authenticated client.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    client: Client,
    token: String,
    /// The authenticated user.
    pub user: User,
}

/// A user, with the fields that this client uses.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// A UUID.
    pub id: String,
    /// In lower case.
    pub email: String,
}

/// A todo, with the fields that this client uses.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Todo {
    /// A UUID.
    pub id: String,
    /// Short text of the todo.
    pub title: String,
    /// Whether it is completed.
    pub completed: bool,
}

/// A page of todos.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// The todos on this page.
    pub todos: Vec<Todo>,
    /// Number of todos on all pages.
    pub total: u64,
    /// Cursor of the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// Response to a signup.
#[derive(Deserialize)]
struct AuthResponse {
    user: User,
    token: String,
}

/// An error response (RFC 9457).
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Machine-readable code, such as `email_taken`.
    pub code: String,
    /// Human-readable sentence.
    pub detail: String,
}

impl Client {
    /// Creates a client of the API at `base`, such as `http://127.0.0.1:8000`, without a trailing
    /// slash.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        let connections = Connections::builder(TokioExecutor::new()).build_http();
        Self { base: base.into(), connections }
    }

    /// Creates an account.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn sign_up(
        &self,
        email: &str,
        password: &str,
        name: &str,
    ) -> Result<LoggedIn, Failure> {
        let form = json!({ "email": email, "password": password, "name": name });
        let (auth, _): (AuthResponse, _) =
            self.send(Method::POST, "/api/auth/signup", None, Some(&form)).await?;
        Ok(LoggedIn { client: self.clone(), token: auth.token, user: auth.user })
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
    /// Creates a todo; returns its path too.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn create(&self, title: &str) -> Result<(Todo, String), Failure> {
        let form = json!({ "title": title });
        let (todo, headers) = self.send(Method::POST, &self.todos(), Some(&form)).await?;
        let location = headers.get(header::LOCATION).ok_or("a response without Location")?;
        Ok((todo, location.to_str()?.to_owned()))
    }

    /// Reads a page of at most `limit` todos, newest first; `cursor` is from the previous page.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn page(&self, limit: u16, cursor: Option<&str>) -> Result<Page, Failure> {
        // A cursor contains only characters that need no escaping in a query.
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

/// Parses a problem document; a response of a proxy, for example, may not contain one.
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
