//! TLS in `todo-server`: both HTTP versions, a certificate reload that keeps connections open,
//! invalid certificates, and clients without TLS. Other suites test the API.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use todo_tests::{PROGRAMS, Process, STARTING, command, raw, unique_email};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer},
};

const SERVER: &str = PROGRAMS[0];
/// Half of the handshake timeout: a server that waits for the timeout is not prompt.
const PROMPT: Duration = Duration::from_secs(5);

type Issued = CertifiedKey<KeyPair>;

fn issued() -> Issued {
    generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
}

/// A directory with the certificate and its key.
fn dir_with(issued: &Issued) -> TempDir {
    let dir = TempDir::new().expect("a directory");
    write_cert(dir.path(), issued);
    write_key(dir.path(), issued);
    dir
}

fn write_cert(dir: &Path, issued: &Issued) {
    fs::write(dir.join("cert.pem"), issued.cert.pem()).expect("a written file");
}

fn write_key(dir: &Path, issued: &Issued) {
    fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).expect("a written file");
}

const FILES: [(&str, &str); 2] = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")];

/// Connects and verifies that the certificate is for `localhost` and one of `trusted`.
async fn tls_connect(
    addr: SocketAddr,
    protocols: &[&str],
    trusted: &[&Issued],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for issued in trusted {
        roots.add(issued.cert.der().clone()).expect("a certificate");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(addr).await?;
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn server_certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

/// A persistent connection of either HTTP version.
enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Uses the HTTP version negotiated by ALPN.
    async fn over(stream: TlsStream<TcpStream>) -> Connection {
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let io = TokioIo::new(stream);
        if protocol.as_deref() == Some(b"h2") {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            Connection::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Connection::One(sender)
        }
    }

    async fn send(&mut self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer: Response<Incoming> = match self {
            Connection::One(sender) => {
                let request = request.uri(path).header("host", "localhost");
                let answer = sender.send_request(request.body(body.into()).expect("a request"));
                answer.await.expect("a response")
            }
            Connection::Two(sender) => {
                let request = request.uri(format!("https://localhost{path}"));
                let request = request.version(Version::HTTP_2).body(body.into());
                sender.send_request(request.expect("a request")).await.expect("a response")
            }
        };
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn assert_alive(&mut self) {
        assert_eq!(self.send("GET", "/health", "", &Value::Null).await.0, 200);
    }
}

#[tokio::test]
async fn http_1_1_and_http_2_are_negotiated() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = tls_connect(process.addr, offered, &[&cert]).await.expect("a handshake");
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{offered:?}");
        let mut kept = Connection::over(stream).await;
        assert_eq!(matches!(kept, Connection::Two(_)), agreed == Some("h2"));

        let account = json!({
            "email": unique_email(),
            "password": "Correct1horse",
            "name": "Ada Lovelace",
        });
        let (status, auth) = kept.send("POST", "/api/auth/signup", "", &account).await;
        assert_eq!(status, 201, "{offered:?}: {auth}");
        let token = auth["token"].as_str().expect("a token");
        let todos = format!("/api/users/{}/todos", auth["user"]["id"].as_str().expect("an id"));
        let (status, todo) = kept.send("POST", &todos, token, &json!({ "title": "a" })).await;
        assert_eq!(status, 201, "{offered:?}: {todo}");
        assert_eq!(kept.send("GET", &todos, token, &Value::Null).await.1["total"], 1);
        assert_eq!(kept.send("GET", &todos, "", &Value::Null).await.0, 401);
    }
    // An unsupported protocol.
    tls_connect(process.addr, &["h3"], &[&cert]).await.expect_err("no common protocol");
    process.stop().await;
}

#[tokio::test]
async fn a_client_without_tls_is_disconnected_at_once() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    for words in ["GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n"] {
        let answer = timeout(PROMPT, raw(process.addr, words.as_bytes())).await;
        let answer = answer.unwrap_or_else(|_| panic!("no close in time after {words:?}"));
        assert!(!String::from_utf8_lossy(&answer).contains("healthy"), "{answer:?}");
    }
    Connection::over(tls_connect(process.addr, &[], &[&cert]).await.expect("TLS"))
        .await
        .assert_alive()
        .await;
    process.stop().await;
}

#[tokio::test]
async fn a_reloaded_certificate_is_used_for_new_connections_and_keeps_old_ones() {
    let [old, new, newer] = [issued(), issued(), issued()];
    let dir = dir_with(&old);
    let mut process = Process::start(SERVER, dir.path(), &FILES).await;
    let addr = process.addr;
    let connect = async |protocols: &[&str]| {
        tls_connect(addr, protocols, &[&old, &new, &newer]).await.expect("a handshake")
    };
    let eventually_shows = async |cert: &Issued| {
        let shows = async { while server_certificate(&connect(&[]).await) != *cert.cert.der() {} };
        timeout(STARTING, shows).await.expect("the new certificate in time");
    };
    let mut kept = Vec::new();
    for protocols in [&["http/1.1"], &["h2"]] {
        let stream = connect(protocols).await;
        assert_eq!(server_certificate(&stream), *old.cert.der());
        kept.push(Connection::over(stream).await);
    }

    write_cert(dir.path(), &new);
    write_key(dir.path(), &new);
    for kept in &mut kept {
        kept.assert_alive().await;
    }
    assert_eq!(server_certificate(&connect(&[]).await), *old.cert.der(), "no reload before SIGHUP");
    process.signal("HUP");
    process.wait_for_line("certificate reloaded").await;
    eventually_shows(&new).await;
    kept.push(Connection::over(connect(&["h2"]).await).await);
    for kept in &mut kept {
        kept.assert_alive().await;
    }

    // An incomplete or failed renewal changes nothing.
    let damages: [&dyn Fn(); 4] = [
        &|| write_cert(dir.path(), &newer),
        &|| fs::write(dir.path().join("cert.pem"), "no certificate").expect("a written file"),
        &|| fs::write(dir.path().join("key.pem"), "no key").expect("a written file"),
        &|| fs::remove_file(dir.path().join("cert.pem")).expect("a removed file"),
    ];
    for damage in damages {
        damage();
        process.signal("HUP");
        process.wait_for_line("certificate reload failed").await;
        assert_eq!(server_certificate(&connect(&[]).await), *new.cert.der());
    }
    let logged = process.output();
    let logged = logged.lines().find(|line| line.contains("certificate reload failed"));
    assert!(logged.is_some_and(|line| line.contains("ERROR")), "{logged:?}");

    // A valid certificate is still loaded after that.
    write_cert(dir.path(), &newer);
    write_key(dir.path(), &newer);
    process.signal("HUP");
    eventually_shows(&newer).await;
    for kept in &mut kept {
        kept.assert_alive().await;
    }
    process.stop().await;
}

#[tokio::test]
async fn a_server_without_a_certificate_ignores_a_reload() {
    for program in PROGRAMS {
        let dir = TempDir::new().expect("a directory");
        let mut process = Process::start(program, dir.path(), &[]).await;
        for _ in 0..2 {
            process.signal("HUP");
            process.wait_for_line("nothing to reload").await;
        }
        let answer = raw(process.addr, b"GET /health HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
        process.stop().await;
    }
}

/// A change to the files of a directory.
type Damage<'a> = &'a dyn Fn(&Path);

#[tokio::test]
async fn an_invalid_certificate_at_startup_is_a_one_line_error() {
    let (one, other) = (issued(), issued());
    let damages: [(&str, Damage); 6] = [
        ("cert.pem", &|dir| fs::remove_file(dir.join("cert.pem")).expect("a removed file")),
        ("key.pem", &|dir| fs::remove_file(dir.join("key.pem")).expect("a removed file")),
        ("cert.pem", &|dir| fs::write(dir.join("cert.pem"), "").expect("a written file")),
        ("key.pem", &|dir| fs::write(dir.join("key.pem"), "hushhush").expect("a written file")),
        ("cert.pem", &|dir| {
            let damaged = one.cert.pem().replace('M', "!");
            fs::write(dir.join("cert.pem"), damaged).expect("a written file");
        }),
        ("keys may not be consistent", &|dir| write_key(dir, &other)),
    ];
    for (expected, damage) in damages {
        let dir = dir_with(&one);
        damage(dir.path());
        let output = timeout(STARTING, command(SERVER, dir.path(), &FILES).output()).await;
        let output = output.expect("an exit in time").expect("the program runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("error: cannot use TLS_CERT and TLS_KEY: "), "{stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("hushhush"), "{expected}: {stderr}");
        assert!(!dir.path().join("todo.db").exists(), "no database was created");
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_handshake_and_no_idle_connection() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    let mut kept = Vec::new();
    for protocols in [&["http/1.1"], &["h2"]] {
        let stream = tls_connect(process.addr, protocols, &[&cert]).await.expect("a handshake");
        let mut connection = Connection::over(stream).await;
        connection.assert_alive().await;
        kept.push(connection);
    }
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(process.addr).await.expect("a connection");
        stream.write_all(bytes).await.expect("a write");
        silent.push(stream);
    }
    let unused = tls_connect(process.addr, &["h2"], &[&cert]).await.expect("a handshake");
    process.stop().await;
    drop((kept, silent, unused));
}

/// The connection is https already: no proxy header is needed.
#[tokio::test]
async fn production_accepts_https_by_its_own_certificate() {
    let cert = issued();
    let dir = dir_with(&cert);
    let settings = [
        ("ENVIRONMENT", "production"),
        ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only"),
        ("ALLOWED_ORIGINS", "https://app.example"),
    ];
    let process = Process::start(SERVER, dir.path(), &[&FILES[..], &settings].concat()).await;
    for path in ["/api/auth/me", "/docs", "/health"] {
        let mut stream =
            tls_connect(process.addr, &["http/1.1"], &[&cert]).await.expect("a handshake");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             X-Forwarded-Proto: http\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a write");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("a response");
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let status = if path == "/api/auth/me" { "http/1.1 401" } else { "http/1.1 200" };
        assert!(answer.starts_with(status), "{path}: {answer}");
        assert!(answer.contains("\r\nstrict-transport-security: max-age="), "{path}: {answer}");
    }
    process.stop().await;
}

/// The handshake timeout is 10 s; without one, these connections would stay open forever.
#[tokio::test]
#[ignore = "slow: run by .ci/run"]
async fn a_handshake_that_stalls_is_cut_off() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    let mut stalled = Vec::new();
    // No bytes; the header of a record without its content; one byte of a handshake.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(process.addr).await.expect("a connection");
        stream.write_all(bytes).await.expect("a write");
        stalled.push(stream);
    }
    // A complete handshake without a request.
    let mut silent = tls_connect(process.addr, &["http/1.1"], &[&cert]).await.expect("a handshake");
    Connection::over(tls_connect(process.addr, &[], &[&cert]).await.expect("TLS"))
        .await
        .assert_alive()
        .await;

    let ended = async {
        for stream in &mut stalled {
            // Closed or reset: either is fine.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let _ = silent.read_to_end(&mut Vec::new()).await;
    };
    timeout(Duration::from_secs(30), ended).await.expect("closed connections in time");
    process.stop().await;
}
