use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::*;

/// A server over TLS that answers each request with this and closes: its port, its certificate, and
/// the heads of the requests.
async fn server(answer: &'static str) -> (u16, String, JoinHandle<String>) {
    server_at("127.0.0.1:0", answer).await
}

/// As [`server`], at this address.
async fn server_at(address: &str, answer: &'static str) -> (u16, String, JoinHandle<String>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            // The client may close before it has read all.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            return String::from_utf8(head).unwrap();
        }
    });
    (port, cert.pem(), served)
}

async fn post(client: &impl WebhookClient, url: &str) -> Result<u16, HttpError> {
    let request = HttpRequest::post(url, b"{}".to_vec()).header("webhook-id", "1");
    timeout(Duration::from_secs(10), client.post(request)).await.unwrap()
}

#[tokio::test]
async fn a_request_is_sent_and_its_status_returned() {
    let (port, pem, served) = server("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}").await;
    let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
    assert_eq!(post(&client, &format!("https://localhost:{port}/hook?key=1")).await, Ok(202));
    let head = served.await.unwrap().to_lowercase();
    assert!(head.starts_with("post /hook?key=1 http/1.1\r\n"), "{head}");
    let host = format!("host: localhost:{port}\r\n");
    for field in ["webhook-id: 1\r\n", "user-agent: todo-core/", "content-length: 2\r\n", &host] {
        assert!(head.contains(field), "{head}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_body_not_read() {
    let (other, _, never) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let redirect = format!("HTTP/1.1 307 X\r\nLocation: https://localhost:{other}/\r\n\r\n");
    let (port, pem, _) = server(redirect.leak()).await;
    let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
    assert_eq!(post(&client, &format!("https://localhost:{port}/")).await, Ok(307));
    assert!(!never.is_finished());
    never.abort();
    let (port, pem, _) = server("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n").await;
    let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
    assert_eq!(post(&client, &format!("https://localhost:{port}/")).await, Ok(200));
}

#[tokio::test]
async fn a_certificate_is_verified() {
    let (port, pem, served) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    let other = server("").await;
    for (pem, host) in [(&other.1, "localhost"), (&pem, "127.0.0.1")] {
        let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
        let error = post(&client, &format!("https://{host}:{port}/")).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    served.abort();
    other.2.abort();
}

/// Also a name with such an address, which is known only after its look-up.
#[tokio::test]
async fn no_connection_is_made_to_an_address_that_is_not_public() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = PublicClient::new();
    for host in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00:ec2::254]",
    ] {
        let refused = post(&client, &format!("https://{host}:{port}/")).await.unwrap_err();
        assert_eq!(refused.to_string(), "the address of the host is not public", "{host}");
    }
    assert!(timeout(Duration::from_millis(200), listener.accept()).await.is_err());
}

#[tokio::test]
async fn only_https_is_sent() {
    let client = PublicClient::new();
    for url in ["http://1.1.1.1/", "ftp://1.1.1.1/", "/hook", "", "https://"] {
        assert!(post(&client, url).await.is_err(), "{url}");
    }
}

/// A resolver with the answers of each look-up.
#[derive(Clone)]
struct Names(Arc<Mutex<VecDeque<Vec<SocketAddr>>>>);

impl Names {
    fn new(answers: &[&[[u8; 4]]]) -> Self {
        let addresses = |answer: &&[[u8; 4]]| {
            answer.iter().map(|address| SocketAddr::from((*address, 0))).collect()
        };
        Self(Arc::new(Mutex::new(answers.iter().map(addresses).collect())))
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let answer = self.0.lock().unwrap().pop_front().expect("a look-up");
        std::future::ready(Ok(answer.into_iter()))
    }
}

impl WebhookClient for Checked<Names> {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        Box::pin(self.exchange(request))
    }
}

/// The name has one address when it is checked, and another one afterwards.
#[tokio::test]
async fn the_address_that_was_checked_is_the_one_of_the_connection() {
    const GOOD: [u8; 4] = [127, 0, 0, 1];
    const BAD: [u8; 4] = [127, 0, 0, 2];
    let is_good: Rule = |address| address == IpAddr::from(GOOD);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (port, pem, served) = server(answer).await;
    let trap = TcpListener::bind((IpAddr::from(BAD), port)).await.unwrap();
    let names = Names::new(&[&[GOOD], &[BAD], &[GOOD, BAD], &[BAD, GOOD]]);
    let roots = tls::more_roots(pem.as_bytes()).unwrap();
    let client = Checked::new(names.clone(), roots, is_good);
    let url = format!("https://localhost:{port}/");
    assert_eq!(post(&client, &url).await, Ok(200));
    served.await.unwrap();
    assert_eq!(names.left(), 3, "one look-up for both");
    for left in [2, 1, 0] {
        let refused = post(&client, &url).await.unwrap_err();
        assert_eq!(refused.to_string(), "the address of the host is not public");
        assert_eq!(names.left(), left);
    }
    assert!(timeout(Duration::from_millis(200), trap.accept()).await.is_err());
}

#[tokio::test]
async fn a_head_without_an_end_is_given_up() {
    let huge = format!("HTTP/1.1 200 OK\r\n{}", "x-a: b\r\n".repeat(1 << 20));
    let (port, pem, _) = server(huge.leak()).await;
    let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
    post(&client, &format!("https://localhost:{port}/")).await.unwrap_err();
    let long = format!("HTTP/1.1 200 OK\r\nx-a: {}", "a".repeat(8 << 20));
    let (port, pem, _) = server(long.leak()).await;
    let client = PublicClient::for_tests(pem.as_bytes()).unwrap();
    post(&client, &format!("https://localhost:{port}/")).await.unwrap_err();
}
