//! The two apps that mount the API, run over TCP and tested with the client of the examples.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::{future::Future, net::SocketAddr, pin::Pin};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client as Connections, rt::TokioExecutor};
use todo_core::{Core, Secret};
use todo_examples::{
    Failure,
    client::{Client, Problem},
    in_axum, in_salvo,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running app on its own port, with a database in memory.
struct RunningApp {
    base: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Failure>>,
}

impl RunningApp {
    async fn start<F>(run: impl FnOnce(Core, TcpListener, Stopped) -> F) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let secret = Secret::new("a secret for the tests of the examples").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(run(core, listener, Box::pin(async { drop(stopped.await) })));
        Self { base, stop, served }
    }

    async fn get(&self, path: &str) -> Response<String> {
        let connections = Connections::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("{}{path}", self.base));
        let response = connections.request(request.body(Empty::<Bytes>::new()).unwrap()).await;
        let (head, body) = response.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(body.into()).unwrap())
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// Checks that apply to both apps.
async fn check(app: &RunningApp) {
    let own = app.get("/").await;
    assert_eq!(
        (own.status(), own.body().as_str()),
        (StatusCode::OK, "the host program's own page\n")
    );

    let client = Client::new(format!("{}/todo", app.base));
    let ada = client.sign_up("ada@example.com", "Correct1horse", "Ada Lovelace").await.unwrap();
    let (milk, location) = ada.create("Buy milk").await.unwrap();
    assert_eq!(location, format!("/todo/api/users/{}/todos/{}", ada.user.id, milk.id));
    let (plants, _) = ada.create("Water the plants").await.unwrap();

    let first = ada.page(1, None).await.unwrap();
    assert_eq!((first.total, first.todos), (2, vec![plants]));
    let second = ada.page(1, first.next_cursor.as_deref()).await.unwrap();
    assert_eq!((second.todos, second.next_cursor), (vec![milk], None));

    let again = client.sign_up("ADA@example.com", "Correct1horse", "Ada").await.unwrap_err();
    let problem: &Problem = again.downcast_ref().unwrap();
    assert_eq!((problem.status, problem.code.as_str()), (409, "email_taken"));

    let index = app.get("/todo/").await;
    assert!(index.body().contains("\"/todo/openapi.json\""), "{}", index.body());
    let document = app.get("/todo/openapi.json").await;
    assert!(document.body().contains("\"/todo/api/auth/signup\""));
    assert_eq!(app.get("/todo/nothing").await.status(), StatusCode::NOT_FOUND);
    let slashed = app.get("/todo/health/?x").await;
    assert_eq!(slashed.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(slashed.headers()[header::LOCATION], "/todo/health?x");
    assert_eq!(
        app.get("/api/auth/me").await.status(),
        StatusCode::NOT_FOUND,
        "outside of the mount path"
    );
}

/// Rate limits are by client address, so they apply only if the app passes the address.
async fn check_rate_limit(app: &RunningApp) {
    let client = Client::new(format!("{}/todo", app.base));
    for i in 0..20 {
        let email = format!("user-{i}@example.com");
        let Err(error) = client.sign_up(&email, "Correct1horse", "A user").await else {
            continue;
        };
        let problem: &Problem = error.downcast_ref().unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (429, "rate_limited"));
        return;
    }
    panic!("twenty sign-ups from one address were accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_works_in_axum() {
    let app = RunningApp::start(in_axum::run).await;
    check(&app).await;
    check_rate_limit(&app).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_works_in_salvo() {
    let app = RunningApp::start(in_salvo::run).await;
    check(&app).await;
    check_rate_limit(&app).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_pages_work_under_the_mount_path() {
    let app = RunningApp::start(in_salvo::run).await;
    let index = app.get("/todo/").await;
    assert!(index.body().contains("\"docs\":\"/todo/docs\""), "{}", index.body());
    for page in ["/todo/docs", "/todo/redoc"] {
        let html = app.get(page).await;
        assert_eq!(html.status(), StatusCode::OK, "{page}");
        assert_eq!(html.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let links = ["href=\"", "src=\"", "data-document=\""]
            .into_iter()
            .flat_map(|start| html.body().split(start).skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .filter(|link| !link.starts_with("data:"))
            // Relative to the page, which is under `/todo/`.
            .map(|link| format!("/todo/{link}"));
        let links: Vec<String> = links.collect();
        assert!(links.len() >= 4, "{page}: {links:?}");
        for link in links {
            assert_eq!(app.get(&link).await.status(), StatusCode::OK, "{page} references {link}");
        }
    }
    app.stop().await;
}
