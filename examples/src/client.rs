//! A small HTTP client of the API, for Rust programs that do not embed the library. It uses only
//! the wire format.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
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
    /// Time of the last change. It increases with every change, so equal times are equal todos.
    pub updated_at: String,
}

/// A todo and the `ETag` of its version, for `If-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The todo.
    pub todo: Todo,
    /// Its `ETag`.
    pub etag: String,
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

/// A page of changes.
#[derive(Clone, Debug, Deserialize)]
pub struct Changes {
    /// The changes, each todo at most once.
    pub changes: Vec<Change>,
    /// The position after the page.
    pub next: String,
    /// Whether there are more changes now.
    pub has_more: bool,
}

/// A change of a todo.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Change {
    /// The todo is new or changed.
    Todo {
        /// The todo as it is now.
        todo: Todo,
    },
    /// The todo was deleted.
    Deleted {
        /// Its id.
        id: String,
    },
    /// A change of a later version of the API.
    #[serde(other)]
    Other,
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
    /// The todo as it is now, if it has no version that `If-Match` allows (412).
    pub current: Option<Todo>,
    /// The `ETag` of the response, if it has one.
    #[serde(skip)]
    pub etag: Option<String>,
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
            self.send(Method::POST, "/api/auth/signup", &[], Some(&form)).await?;
        Ok(LoggedIn { client: self.clone(), token: auth.token, user: auth.user })
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap), Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(name, *value);
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
        let etag = head.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
        Err(Problem { etag: etag.map(str::to_owned), ..problem(head.status, &body) }.into())
    }
}

impl LoggedIn {
    /// Creates a todo; returns its path too.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn create(&self, title: &str) -> Result<(Todo, String), Failure> {
        let form = json!({ "title": title });
        let (todo, headers) = self.send(Method::POST, &self.todos(), &[], Some(&form)).await?;
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
        Ok(self.send(Method::GET, &path, &[], None).await?.0)
    }

    /// Creates a todo with an idempotency key: however often it is called with one key, there is
    /// one todo.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn create_once(&self, key: &str, title: &str) -> Result<Versioned, Failure> {
        let headers = [(HeaderName::from_static("idempotency-key"), key)];
        let form = json!({ "title": title });
        versioned(self.send(Method::POST, &self.todos(), &headers, Some(&form)).await?)
    }

    /// Reads a todo.
    ///
    /// # Errors
    /// A [`Problem`], or an error of the connection.
    pub async fn get(&self, id: &str) -> Result<Versioned, Failure> {
        versioned(self.send(Method::GET, &self.todo(id), &[], None).await?)
    }

    /// Changes the title of a todo, if it has the version `etag`.
    ///
    /// # Errors
    /// A [`Problem`], with status 412 if it has another version; or an error of the connection.
    pub async fn rename(&self, id: &str, etag: &str, title: &str) -> Result<Versioned, Failure> {
        self.change(&self.todo(id), etag, &json!({ "title": title })).await
    }

    /// Completes or reopens a todo, if it has the version `etag`.
    ///
    /// # Errors
    /// As [`LoggedIn::rename`].
    pub async fn set_completed(
        &self,
        id: &str,
        etag: &str,
        completed: bool,
    ) -> Result<Versioned, Failure> {
        let path = format!("{}/complete", self.todo(id));
        self.change(&path, etag, &json!({ "completed": completed })).await
    }

    async fn change(&self, path: &str, etag: &str, form: &Value) -> Result<Versioned, Failure> {
        versioned(self.send(Method::PATCH, path, &[(header::IF_MATCH, etag)], Some(form)).await?)
    }

    /// Deletes a todo, if it has the version `etag`.
    ///
    /// # Errors
    /// As [`LoggedIn::rename`].
    pub async fn delete(&self, id: &str, etag: &str) -> Result<(), Failure> {
        let headers = [(header::IF_MATCH, etag)];
        let _: (Value, _) = self.send(Method::DELETE, &self.todo(id), &headers, None).await?;
        Ok(())
    }

    /// Reads the changes since a position, or the position of now without one.
    ///
    /// # Errors
    /// A [`Problem`], with status 410 if the server no longer has all of them; or an error of the
    /// connection.
    pub async fn changes(&self, since: Option<&str>) -> Result<Changes, Failure> {
        let since = since.map_or_else(String::new, |since| format!("?since={since}"));
        let path = format!("/api/users/{}/changes{since}", self.user.id);
        Ok(self.send(Method::GET, &path, &[], None).await?.0)
    }

    fn todo(&self, id: &str) -> String {
        format!("{}/{id}", self.todos())
    }

    fn todos(&self) -> String {
        format!("/api/users/{}/todos", self.user.id)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap), Failure> {
        let token = format!("Bearer {}", self.token);
        let headers = [headers, &[(header::AUTHORIZATION, &token)]].concat();
        self.client.send(method, path, &headers, body).await
    }
}

fn versioned((todo, headers): (Todo, HeaderMap)) -> Result<Versioned, Failure> {
    let etag = headers.get(header::ETAG).ok_or("a todo without ETag")?;
    Ok(Versioned { todo, etag: etag.to_str()?.to_owned() })
}

/// Parses a problem document; a response of a proxy, for example, may not contain one.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        status: status.as_u16(),
        code: "unknown".into(),
        detail: "no problem document".into(),
        current: None,
        etag: None,
    })
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl std::error::Error for Problem {}
