//! An API on a temporary SQLite file, with one user and a list of todos, for measurements without a
//! socket. It builds requests; it does not measure.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tempfile::TempDir;
use todo_core::{
    Core, Secret,
    auth::{self, Token},
    http::{Api, ApiOptions, Body},
    todos,
};

use crate::Failure;

/// Number of todos: more than a page of 50.
const TODOS: usize = 60;

/// An API with test data.
pub struct Fixture {
    api: Api,
    token: Token,
    /// The path of the user's todos.
    pub todos: String,
    /// The path of one todo.
    pub todo: String,
    _dir: TempDir,
}

impl Fixture {
    /// Creates and fills the database.
    ///
    /// # Errors
    /// If the database cannot be created or filled.
    pub async fn open() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        let secret = Secret::new("a secret of more than 32 bytes to measure with")?;
        let core = Core::builder(secret).open(&url).await?;
        let form = auth::Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
        let token = auth::signup(&core, auth::Client::Trusted, form).await?.token;
        let caller = auth::authenticate(&core, token.as_str()).await?;
        let todos = format!("/api/users/{}/todos", caller.user_id());
        let mut todo = String::new();
        for number in 0..TODOS {
            let title = format!("Prepare the meeting of week {number}");
            let new = todos::NewTodo::new(title.parse()?);
            todo = format!("{todos}/{}", todos::create(&core, &caller, new).await?.id);
        }
        Ok(Self { api: Api::new(core, ApiOptions::default()), token, todos, todo, _dir: dir })
    }

    /// The core underneath.
    #[must_use]
    pub fn core(&self) -> &Core {
        self.api.core()
    }

    /// The user's token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_str()
    }

    /// Builds a request of the user; a non-empty body is declared as JSON.
    ///
    /// # Errors
    /// If the request is invalid.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        body: &'static str,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        request = request.header("authorization", format!("Bearer {}", self.token()));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        Ok(request.body(Full::new(Bytes::from_static(body.as_bytes())))?)
    }

    /// Sends a request to the API.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.api.handle(request).await
    }
}
