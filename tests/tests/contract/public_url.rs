//! Behind a proxy that strips a path prefix: every path sent to a client must contain the prefix.
//! `PUBLIC_URL` sets it; the documentation pages work without the setting.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use todo_tests::{Actor, App, Client, Server, on_every_target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The prefix that the proxy strips.
const PATH: &str = "/todo";
const PUBLIC: [(&str, &str); 1] = [("PUBLIC_URL", "https://Todo.example.org:443/todo/")];
const ORIGIN: &str = "https://todo.example.org";

/// A proxy in front of `app`, like nginx with `location /todo/ { proxy_pass http://app/; }`. Stops
/// with the test's runtime.
async fn path_stripping_proxy(app: SocketAddr) -> Client {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(forward(stream, app));
        }
    });
    Client::of(addr)
}

/// Forwards one request of a connection, then closes it.
async fn forward(mut client: TcpStream, app: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
        assert!(head.len() < 65_536, "a head without an end");
    }
    let head = String::from_utf8(head).ok()?;
    let (line, fields) = head.split_once("\r\n")?;
    let mut parts = line.split(' ');
    let (method, target) = (parts.next()?, parts.next()?);
    let Some(target) = target.strip_prefix(PATH).filter(|target| target.starts_with('/')) else {
        let nothing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(nothing.as_bytes()).await.ok();
    };
    let mut server = TcpStream::connect(app).await.ok()?;
    let head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{fields}");
    server.write_all(head.as_bytes()).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}

/// Resolves a reference in a page or response at `base`, and returns its path.
fn resolved(base: &str, reference: &str) -> String {
    let base = Url::parse(&format!("{ORIGIN}{base}")).expect("a path");
    let url = base.join(reference).expect("a reference");
    assert_eq!(url.origin().ascii_serialization(), ORIGIN, "{reference} is of another host");
    url.path().to_owned()
}

async fn sign_up(client: &Client) -> Actor {
    let email = todo_tests::unique_email();
    let account = json!({ "email": email, "password": "Correct1horse", "name": "Ada" });
    let auth = client.post("/todo/api/auth/signup", account).await.expect(201);
    Actor::of(client, &auth, "Correct1horse")
}

/// Checks that every file referenced by a page, and the OpenAPI document, load.
async fn assert_pages_load(client: &Client) {
    for page in ["/todo/docs", "/todo/redoc"] {
        let html = client.get(page).await;
        assert_eq!(html.status, 200, "{html}");
        let html = html.text();
        let named: Vec<String> = ["src=\"", "href=\"", "data-document=\""]
            .into_iter()
            .flat_map(|start| html.split(start).skip(1))
            .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
            .filter(|reference| !reference.starts_with("data:"))
            .collect();
        assert!(named.len() >= 5, "{named:?}");
        for reference in named {
            let path = resolved(page, &reference);
            assert!(path.starts_with("/todo/"), "{reference} in {page}");
            assert_eq!(client.get(&path).await.status, 200, "{reference} in {page}");
        }
    }
}

on_every_target! {
    async fn links_and_locations_use_the_public_path(target) {
        let app = App::start_with(target, &PUBLIC).await;
        let client = path_stripping_proxy(app.addr()).await;
        let ann = sign_up(&client).await;
        let todos = format!("/todo/api/users/{}/todos", ann.id());

        let created = ann.post(&todos, json!({ "title": "a" })).await;
        let location = resolved(&todos, created.header("location").expect("a Location"));
        assert!(location.starts_with(&format!("{todos}/")), "{location}");
        assert_eq!(ann.get(&location).await.expect(200), created.expect(201));

        let slashed = format!("{todos}/?limit=1");
        let answer = ann.get(&slashed).await;
        assert_eq!(answer.status, 307, "{answer}");
        assert_eq!(answer.header("location"), Some(&*format!("{todos}?limit=1")));

        let index = client.get("/todo/").await.expect(200);
        let links = index["links"].as_object().expect("links");
        let has_pages = target.server == Server::Salvo;
        assert_eq!(links.contains_key("docs") && links.contains_key("redoc"), has_pages, "{index}");
        for link in links.values() {
            let path = resolved("/todo/", link.as_str().expect("a link"));
            assert!(path.starts_with("/todo/"), "{link}");
            assert_eq!(client.get(&path).await.status, 200, "{link}");
        }

        let document = client.get("/todo/openapi.json").await.expect(200);
        assert_eq!(document["servers"], json!([{ "url": "https://todo.example.org/todo" }]));
        assert!(document["paths"]["/api/auth/me"].is_object(), "paths begin behind the server's");
        if has_pages {
            assert_pages_load(&client).await;
            let answer = client.get("/todo/docs/").await;
            assert_eq!((answer.status, answer.header("location")), (307, Some("/todo/docs")));
        }
    }

    /// The documentation must be readable without any setting.
    async fn pages_work_without_the_setting(target) {
        let app = App::start(target).await;
        let client = path_stripping_proxy(app.addr()).await;
        let document = client.get("/todo/openapi.json").await.expect(200);
        assert_eq!(document["servers"], json!([{ "url": "/" }]));
        if target.server == Server::Salvo {
            assert_pages_load(&client).await;
        }
    }

    async fn an_invalid_public_url_is_refused_at_startup(target) {
        for bad in [
            "todo.example.org", "/todo", "ftp://todo.example.org", "https://a@todo.example.org",
            "https://todo.example.org/?x", "https://todo.example.org/a b", "https://a/../b",
        ] {
            let refused = App::try_start_with(target, &[("PUBLIC_URL", bad)]).await;
            let reason = refused.err().unwrap_or_else(|| panic!("{bad} was accepted"));
            assert!(reason.contains("PUBLIC_URL must be an http or https address"), "{reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
        let index: Value = App::start(target).await.anonymous().get("/").await.expect(200);
        assert_eq!(index["links"]["health"], "/health");
    }
}
