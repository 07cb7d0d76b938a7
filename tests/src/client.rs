//! Who acts: a client that is nobody, a user who signed up, and a bare socket.

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

use crate::Answer;

/// How long any one exchange may take before the test fails: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long [`raw`] waits for the peer to close.
const RAW_PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP/1.1 client that keeps its connections alive.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `addr`, with connections from `source` if that matters.
    pub(crate) fn new(addr: SocketAddr, source: Option<std::net::IpAddr>) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_local_address(source);
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Client { addr, http, authorization: None }
    }

    /// A client of whatever listens at `addr`, with no token.
    pub fn of(addr: SocketAddr) -> Client {
        Client::new(addr, None)
    }

    /// Whom it talks to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same client, presenting `token` from now on.
    pub fn bearing(&self, token: &str) -> Client {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let authorization = Some(value.expect("a token of visible characters"));
        Client { authorization, ..self.clone() }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send_json("POST", path, body).await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send_json("PUT", path, body).await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send_json("PATCH", path, body).await
    }

    async fn send_json(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string()).await
    }

    /// Any request: exactly these header fields (and the token, if the client bears one), with no
    /// content type of its own. A name given twice is sent twice.
    ///
    /// # Panics
    /// When no whole answer comes.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        match self.try_send(method, path, headers, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// As [`Client::send`], for a test in which the connection may break.
    ///
    /// # Errors
    /// What the transport said, with its causes.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, String> {
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
        let (head, body) = timeout(PATIENCE, exchange).await.map_err(causes)??;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            asked: format!("{method} {path}"),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.addr)
    }
}

/// A user who signed up: a [`Client`] that bears the user's token.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Speaks with the token.
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
    /// Signs a fresh user up.
    pub async fn sign_up(client: &Client) -> Actor {
        let email = fresh_email();
        let password = "Correct1horse".to_owned();
        let body = json!({ "email": email, "password": password, "name": "Ada Lovelace" });
        let auth = client.post("/api/auth/signup", body).await.expect(201);
        Actor::of(client, &auth, password)
    }

    /// Signs a fresh user up at whatever `client` talks to.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn sign_up_to(client: &Client) -> Actor {
        Actor::sign_up(client).await
    }

    /// Signs a fresh user up, whose list is some 400 KB: several times what buffers take.
    ///
    /// # Panics
    /// When that is refused.
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

    /// The user of an auth object, as signup and login answer it.
    ///
    /// # Panics
    /// When it is none.
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

    /// The token this actor bears.
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
    /// When that is not answered with 201.
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

/// An address nobody used yet.
pub fn fresh_email() -> String {
    format!("user-{}@example.com", uuid::Uuid::now_v7().simple())
}

/// Runs `n` tasks side by side and collects what they return, in no order.
///
/// # Panics
/// When one of them does.
pub async fn at_once<F, T>(n: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    (0..n).map(task).collect::<JoinSet<T>>().join_all().await
}

/// Waits until `holds`, for at most `patience`; whether it came to hold.
pub async fn comes_true(patience: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if holds().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One exchange on a bare socket: writes `bytes`, then reads until the server closes or a few
/// seconds have passed. The writing side stays open throughout.
///
/// # Panics
/// When the server takes no connection at all.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + RAW_PATIENCE;
    let stream = TcpStream::connect(addr).await.expect("the server listens");
    let (mut reader, mut writer) = stream.into_split();
    let bytes = bytes.to_vec();
    // Written aside: a server may answer and close long before it has read everything.
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
