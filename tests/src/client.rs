//! Test clients: an anonymous client, a signed-up user and a raw socket.

use std::{fmt, future::Future, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::TestResponse;

/// Limit for one exchange; far above the time that a loaded machine needs.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long [`raw`] waits for the peer to close.
const RAW_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP/1.1 client that keeps its connections alive.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `addr`; its connections come from `source`, if given.
    pub(crate) fn new(addr: SocketAddr, source: Option<std::net::IpAddr>) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_local_address(source);
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Client { addr, http, authorization: None }
    }

    /// A client of the server at `addr`, with no token.
    pub fn of(addr: SocketAddr) -> Client {
        Client::new(addr, None)
    }

    /// The server's address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same client, sending `token` with each request.
    pub fn bearing(&self, token: &str) -> Client {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let authorization = Some(value.expect("a token of visible characters"));
        Client { authorization, ..self.clone() }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> TestResponse {
        self.send("GET", path, &[], "").await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> TestResponse {
        self.send("DELETE", path, &[], "").await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> TestResponse {
        self.send_json("POST", path, body).await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, body: Value) -> TestResponse {
        self.send_json("PUT", path, body).await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, body: Value) -> TestResponse {
        self.send_json("PATCH", path, body).await
    }

    async fn send_json(&self, method: &str, path: &str, body: Value) -> TestResponse {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string()).await
    }

    /// Any request, with exactly these header fields (and the client's token, if any), without a
    /// default content type. A name given twice is sent twice.
    ///
    /// # Panics
    /// When no whole response arrives.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> TestResponse {
        match self.try_send(method, path, headers, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// As [`Client::send`], for a test in which the connection may break.
    ///
    /// # Errors
    /// The transport error, with its causes.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<TestResponse, String> {
        let uri = format!("http://{}{path}", self.addr);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).expect(name));
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(body.into())).map_err(causes)?;
        let exchange = async {
            let (head, body) = self.http.request(request).await.map_err(causes)?.into_parts();
            let body = body.collect().await.map_err(causes)?.to_bytes().to_vec();
            Ok::<_, String>((head, body))
        };
        let (head, body) = timeout(EXCHANGE_TIMEOUT, exchange).await.map_err(causes)??;
        Ok(TestResponse {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            request: format!("{method} {path}"),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.addr)
    }
}

/// A signed-up user: a [`Client`] that sends the user's token.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The client that sends the token.
    pub client: Client,
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    id: String,
    email: String,
    password: String,
    token: String,
}

impl Actor {
    /// Signs up a new user.
    pub async fn sign_up(client: &Client) -> Actor {
        let email = unique_email();
        let password = "Correct1horse".to_owned();
        let body = json!({ "email": email, "password": password, "name": "Ada Lovelace" });
        let auth = client.post("/api/auth/signup", body).await.expect(201);
        Actor::of(client, &auth, password)
    }

    /// Signs up a new user at the server of `client`.
    ///
    /// # Panics
    /// When the signup is rejected.
    pub async fn sign_up_to(client: &Client) -> Actor {
        Actor::sign_up(client).await
    }

    /// Signs up a new user with a list of some 400 KB, several times the size of the buffers.
    ///
    /// # Panics
    /// When a request is rejected.
    pub async fn with_a_large_list(client: &Client) -> Actor {
        let actor = Actor::sign_up(client).await;
        at_once(10, |_| {
            let actor = actor.clone();
            async move {
                for _ in 0..10 {
                    let todo = json!({"title": "t", "description": "\u{1d11e}".repeat(1000)});
                    actor.post(&actor.todos(), todo).await.expect(201);
                }
            }
        })
        .await;
        actor
    }

    /// The user of an auth object, as returned by signup and login.
    ///
    /// # Panics
    /// When it is not an auth object.
    pub fn of(client: &Client, auth: &Value, password: impl Into<String>) -> Actor {
        let text = |value: &Value| value.as_str().expect("an auth object").to_owned();
        let account = Account {
            id: text(&auth["user"]["id"]),
            email: text(&auth["user"]["email"]),
            password: password.into(),
            token: text(&auth["token"]),
        };
        Actor { client: client.bearing(&account.token), account: Arc::new(account) }
    }

    /// The same user at the server of `client`.
    #[must_use]
    pub fn at(&self, client: &Client) -> Actor {
        Actor { client: client.bearing(self.token()), account: self.account.clone() }
    }

    /// The user's id.
    pub fn id(&self) -> &str {
        &self.account.id
    }

    /// The user's e-mail address.
    pub fn email(&self) -> &str {
        &self.account.email
    }

    /// The user's password.
    pub fn password(&self) -> &str {
        &self.account.password
    }

    /// The token that this actor sends.
    pub fn token(&self) -> &str {
        &self.account.token
    }

    /// The path of the user's list.
    pub fn todos(&self) -> String {
        format!("/api/users/{}/todos", self.id())
    }

    /// Creates a todo.
    ///
    /// # Panics
    /// When the status is not 201.
    pub async fn todo(&self, title: &str) -> Value {
        self.post(&self.todos(), json!({ "title": title })).await.expect(201)
    }
}

impl Deref for Actor {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// An e-mail address that no other test uses.
pub fn unique_email() -> String {
    format!("user-{}@example.com", uuid::Uuid::now_v7().simple())
}

/// Runs `n` tasks concurrently and collects their results, in no order.
///
/// # Panics
/// When a task panics.
pub async fn at_once<F, T>(n: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    (0..n).map(task).collect::<JoinSet<T>>().join_all().await
}

/// Polls `condition` until it is true, for at most `limit`; returns whether it became true.
pub async fn eventually(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One exchange on a raw socket: writes `bytes`, then reads until the server closes or 5 s have
/// passed. The write half stays open throughout.
///
/// # Panics
/// When the connection fails.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + RAW_TIMEOUT;
    let stream = TcpStream::connect(addr).await.expect("the server listens");
    let (mut reader, mut writer) = stream.into_split();
    let bytes = bytes.to_vec();
    // In a separate task: a server may respond and close before it has read everything.
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let mut answer = Vec::new();
    let mut chunk = [0; 8192];
    while let Ok(Ok(n @ 1..)) = timeout_at(deadline, reader.read(&mut chunk)).await {
        answer.extend_from_slice(&chunk[..n]);
    }
    writing.abort();
    answer
}

/// An error with all its causes in one line.
pub(crate) fn causes(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
