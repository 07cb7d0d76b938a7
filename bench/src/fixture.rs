//! An API over an SQLite file of its own, with one user and a list of todos: what is measured
//! without a socket in between. It makes requests; it does not measure.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tempfile::TempDir;
use todo_core::{
    Core, Options, Secret, auth,
    http::{Api, ApiOptions, Body},
    todos,
};

use crate::Failure;

/// How many todos there are: a page of 50 and some more.
const TODOS: usize = 60;

/// An API with something in it.
pub struct Fixture {
    api: Api,
    token: String,
    /// The path of the user's todos.
    pub todos: String,
    /// The path of one of them.
    pub todo: String,
    _dir: TempDir,
}

impl Fixture {
    /// Makes one.
    ///
    /// # Errors
    /// Why the database cannot be made or filled.
    pub async fn open() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        let secret = Secret::new("a secret of more than 32 bytes to measure with")?;
        let core = Core::open(&url, Options::new(secret)).await?;
        let form = auth::Signup::parse("ada@example.com", "Correct1horse", "Ada Lovelace")?;
        let token = auth::signup(&core, None, form).await?.token;
        let caller = auth::verify(&core, &token)?;
        let todos = format!("/api/users/{}/todos", caller.user_id());
        let mut todo = String::new();
        for number in 0..TODOS {
            let title = format!("Prepare the meeting of week {number}");
            let new = todos::NewTodo {
                title: title.as_str().try_into()?,
                description: None,
                priority: todos::Priority::Medium,
            };
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
        &self.token
    }

    /// A request as a client of the user sends it; a body, if not empty, is said to be JSON.
    ///
    /// # Errors
    /// If there is no such request.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        body: &'static str,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        request = request.header("authorization", format!("Bearer {}", self.token));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        Ok(request.body(Full::new(Bytes::from_static(body.as_bytes())))?)
    }

    /// The API's answer.
    pub async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.api.handle(request).await
    }
}
