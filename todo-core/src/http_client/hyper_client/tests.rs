use std::{sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use rustls::crypto::aws_lc_rs;

use super::*;

/// What the server does after the head of a request.
#[derive(Clone)]
enum Then {
    /// Writes this and closes.
    Write(Vec<u8>),
    /// Writes a head and then a body that never ends.
    Endless(&'static str),
}

fn response(head: &str, body: &str) -> Then {
    Then::Write(format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes())
}

/// Reads a request's head and does this; returns the head.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, then: Then) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    match then {
        Then::Write(bytes) => {
            stream.write_all(&bytes).await.unwrap();
            // A TLS stream is ended by its close.
            let _ = stream.shutdown().await;
        }
        Then::Endless(start) => {
            let mut written = stream.write_all(start.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(b"400\r\n").await;
                written = written.and(stream.write_all(&[b'x'; 1024]).await);
                written = written.and(stream.write_all(b"\r\n").await);
            }
        }
    }
    String::from_utf8(head).unwrap()
}

/// A server for one request: its address, and the head of that request.
async fn server(then: Then) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys?v=1", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        serve(stream, then).await
    });
    (url, served)
}

async fn get(url: &str) -> Result<HttpResponse, HttpError> {
    get_by(&HyperClient::new(), url).await
}

async fn get_by(client: &HyperClient, url: &str) -> Result<HttpResponse, HttpError> {
    let request = HttpRequest::get(url).header("accept", "application/json");
    timeout(Duration::from_secs(10), client.send(request, 1024)).await.unwrap()
}

#[tokio::test]
async fn a_request_and_its_response_are_complete() {
    let head = "200 OK\r\nContent-Length: 2\r\nX-A: b";
    let (url, served) = server(response(head, "{}")).await;
    let answer = get(&url).await.unwrap();
    assert_eq!((answer.status(), answer.body()), (200, b"{}".as_slice()));
    assert_eq!(answer.header_value("x-a"), Some("b"));
    let head = served.await.unwrap().to_lowercase();
    let host = url.split('/').nth(2).unwrap();
    assert!(head.starts_with("get /keys?v=1 http/1.1\r\n"), "{head}");
    for field in ["accept: application/json", "user-agent: todo-core/", &format!("host: {host}")] {
        assert!(head.contains(field), "{head}");
    }
}

#[tokio::test]
async fn a_post_has_its_body() {
    let (url, served) = server(response("204 No Content", "")).await;
    let request = HttpRequest::post(&url, b"a=b".to_vec()).header("user-agent", "other");
    let answer = HyperClient::new().send(request, 1024).await.unwrap();
    assert_eq!(answer.status(), 204);
    let head = served.await.unwrap().to_lowercase();
    assert!(head.starts_with("post ") && head.contains("content-length: 3"), "{head}");
    assert!(head.contains("user-agent: other") && !head.contains("todo-core"), "{head}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (target, served) = server(response("200 OK\r\nContent-Length: 0", "")).await;
    let head = format!("302 Found\r\nLocation: {target}\r\nContent-Length: 0");
    let url = server(response(&head, "")).await.0;
    assert_eq!(get(&url).await.unwrap().status(), 302);
    assert!(!served.is_finished());
    served.abort();
}

#[tokio::test]
async fn a_large_body_is_not_read_to_its_end() {
    let declared = format!("200 OK\r\nContent-Length: {}", 1_u64 << 40);
    for then in [
        Then::Endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        response(&declared, &"x".repeat(2048)),
        response("200 OK\r\nConnection: close", &"x".repeat(1025)),
    ] {
        let (url, served) = server(then).await;
        let error = get(&url).await.unwrap_err();
        assert_eq!(error, HttpError::new("a body of more than 1024 bytes"));
        // The connection is closed, so that the server ends too.
        timeout(Duration::from_secs(10), served).await.unwrap().unwrap();
    }
    let url = server(response("200 OK\r\nConnection: close", &"x".repeat(1024))).await.0;
    assert_eq!(get(&url).await.unwrap().body().len(), 1024);
}

#[tokio::test]
async fn a_cut_response_is_an_error() {
    for (head, body) in [
        ("200 OK\r\nContent-Length: 10", "{\"keys\""),
        ("200 OK\r\nTransfer-Encoding: chunked", "5\r\n{\"key"),
        ("200 OK\r\nX: ", ""),
    ] {
        let bytes = format!("HTTP/1.1 {head}\r\n\r\n{body}");
        let bytes = bytes.trim_end().as_bytes().to_vec();
        let url = server(Then::Write(bytes)).await.0;
        assert!(get(&url).await.is_err(), "{head}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = get(&url).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_head_is_bounded() {
    let fields = format!("X: {}\r\n", "x".repeat(4000)).repeat(90);
    let url = server(response(&format!("200 OK\r\n{}", fields.trim_end()), "")).await.0;
    assert!(get(&url).await.is_err());
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let request = tokio::spawn(async move { get(&url).await.map(|answer| answer.status()) });
    let mut stream = listener.accept().await.unwrap().0;
    stream.read_u8().await.unwrap();
    request.abort();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn plain_http_is_for_loopback_only() {
    for url in [
        "http://192.0.2.1/",
        "http://example.com/",
        "http://localhost.example.com/",
        "http://127.0.0.1@example.com/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "/keys",
        "https://",
    ] {
        let error = get(url).await.unwrap_err().to_string();
        assert!(error == "neither https nor a loopback address" || error == "invalid address");
    }
    for url in ["http://127.0.0.2:1/", "http://[::1]:1/", "http://localhost:1/"] {
        let error = get(url).await.unwrap_err().to_string();
        assert!(error.starts_with("client error (Connect)"), "{error}");
    }
}

#[tokio::test]
async fn certificates_are_of_a_known_authority() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            if let Ok(stream) = acceptor.accept(stream).await {
                let then = response("200 OK\r\nContent-Length: 2\r\nConnection: close", "{}");
                serve(stream, then).await;
            }
        }
    });
    let url = format!("https://localhost:{port}/");
    let refused = get(&url).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    let client = HyperClient::with_roots(cert.pem().as_bytes()).unwrap();
    assert_eq!(get_by(&client, &url).await.unwrap().body(), b"{}");
    // The name is checked too.
    let other = format!("https://127.0.0.1:{port}/");
    let refused = get_by(&client, &other).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    served.abort();
}

#[test]
fn roots_are_certificates() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "x", broken] {
        assert!(HyperClient::with_roots(pem.as_bytes()).is_err(), "{pem}");
    }
}
