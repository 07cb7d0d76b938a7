//! TLS in `todo-server`: both versions of HTTP, a certificate that is read again while connections
//! go on, and what a bad one or a client that speaks no TLS comes to. What is asked over it is for
//! the other suites.

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
use todo_tests::{PROGRAMS, Process, STARTING, command, fresh_email, raw};
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
/// Half of what a handshake may take: who waits for that deadline is not prompt.
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
    fs::write(dir.join("cert.pem"), issued.cert.pem()).expect("it is written");
}

fn write_key(dir: &Path, issued: &Issued) {
    fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).expect("it is written");
}

const FILES: [(&str, &str); 2] = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")];

/// A connection whose server has shown a certificate for `localhost` that is one of `trusted`.
async fn dial(
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

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

/// A connection that is kept, of either version.
enum Kept {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Kept {
    /// The version is what the two agreed on.
    async fn over(stream: TlsStream<TcpStream>) -> Kept {
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let io = TokioIo::new(stream);
        if protocol.as_deref() == Some(b"h2") {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            Kept::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Kept::One(sender)
        }
    }

    async fn send(&mut self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer: Response<Incoming> = match self {
            Kept::One(sender) => {
                let request = request.uri(path).header("host", "localhost");
                let answer = sender.send_request(request.body(body.into()).expect("a request"));
                answer.await.expect("an answer")
            }
            Kept::Two(sender) => {
                let request = request.uri(format!("https://localhost{path}"));
                let request = request.version(Version::HTTP_2).body(body.into());
                sender.send_request(request.expect("a request")).await.expect("an answer")
            }
        };
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn lives(&mut self) {
        assert_eq!(self.send("GET", "/health", "", &Value::Null).await.0, 200);
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = dial(process.addr, offered, &[&cert]).await.expect("a handshake");
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{offered:?}");
        let mut kept = Kept::over(stream).await;
        assert_eq!(matches!(kept, Kept::Two(_)), agreed == Some("h2"));

        let account = json!({
            "email": fresh_email(),
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
    // A protocol that is none of ours.
    dial(process.addr, &["h3"], &[&cert]).await.expect_err("nothing in common");
    process.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_let_go_at_once() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    for words in ["GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n"] {
        let answer = timeout(PROMPT, raw(process.addr, words.as_bytes())).await;
        let answer = answer.unwrap_or_else(|_| panic!("{words:?} is waited for"));
        assert!(!String::from_utf8_lossy(&answer).contains("healthy"), "{answer:?}");
    }
    Kept::over(dial(process.addr, &[], &[&cert]).await.expect("TLS")).await.lives().await;
    process.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let [old, new, newer] = [issued(), issued(), issued()];
    let dir = dir_with(&old);
    let mut process = Process::start(SERVER, dir.path(), &FILES).await;
    let addr = process.addr;
    let connect = async |protocols: &[&str]| {
        dial(addr, protocols, &[&old, &new, &newer]).await.expect("a handshake")
    };
    let eventually_shows = async |cert: &Issued| {
        let shows = async { while shown(&connect(&[]).await) != *cert.cert.der() {} };
        timeout(STARTING, shows).await.expect("the new certificate is shown");
    };
    let mut kept = Vec::new();
    for protocols in [&["http/1.1"], &["h2"]] {
        let stream = connect(protocols).await;
        assert_eq!(shown(&stream), *old.cert.der());
        kept.push(Kept::over(stream).await);
    }

    write_cert(dir.path(), &new);
    write_key(dir.path(), &new);
    for kept in &mut kept {
        kept.lives().await;
    }
    assert_eq!(shown(&connect(&[]).await), *old.cert.der(), "not before it is told");
    process.signal("HUP");
    process.says("the certificate was read again").await;
    eventually_shows(&new).await;
    kept.push(Kept::over(connect(&["h2"]).await).await);
    for kept in &mut kept {
        kept.lives().await;
    }

    // A renewal that is half done, or went wrong, changes nothing.
    let spoilt: [&dyn Fn(); 4] = [
        &|| write_cert(dir.path(), &newer),
        &|| fs::write(dir.path().join("cert.pem"), "no certificate").expect("it is written"),
        &|| fs::write(dir.path().join("key.pem"), "no key").expect("it is written"),
        &|| fs::remove_file(dir.path().join("cert.pem")).expect("it is removed"),
    ];
    for spoil in spoilt {
        spoil();
        process.signal("HUP");
        process.says("the old certificate stays").await;
        assert_eq!(shown(&connect(&[]).await), *new.cert.der());
    }
    let logged = process.said();
    let logged = logged.lines().find(|line| line.contains("the old certificate stays"));
    assert!(logged.is_some_and(|line| line.contains("ERROR")), "{logged:?}");

    // And a good one is still taken after that.
    write_cert(dir.path(), &newer);
    write_key(dir.path(), &newer);
    process.signal("HUP");
    eventually_shows(&newer).await;
    for kept in &mut kept {
        kept.lives().await;
    }
    process.stop().await;
}

#[tokio::test]
async fn a_server_without_a_certificate_takes_a_reload_calmly() {
    for program in PROGRAMS {
        let dir = TempDir::new().expect("a directory");
        let mut process = Process::start(program, dir.path(), &[]).await;
        for _ in 0..2 {
            process.signal("HUP");
            process.says("nothing to reload").await;
        }
        let answer = raw(process.addr, b"GET /health HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
        process.stop().await;
    }
}

/// What is done to a directory.
type Spoil<'a> = &'a dyn Fn(&Path);

#[tokio::test]
async fn a_bad_certificate_at_the_start_is_one_line() {
    let (one, other) = (issued(), issued());
    let spoilt: [(&str, Spoil); 6] = [
        ("cert.pem", &|dir| fs::remove_file(dir.join("cert.pem")).expect("it is removed")),
        ("key.pem", &|dir| fs::remove_file(dir.join("key.pem")).expect("it is removed")),
        ("cert.pem", &|dir| fs::write(dir.join("cert.pem"), "").expect("it is written")),
        ("key.pem", &|dir| fs::write(dir.join("key.pem"), "hushhush").expect("it is written")),
        ("cert.pem", &|dir| {
            let damaged = one.cert.pem().replace('M', "!");
            fs::write(dir.join("cert.pem"), damaged).expect("it is written");
        }),
        ("keys may not be consistent", &|dir| write_key(dir, &other)),
    ];
    for (told, spoil) in spoilt {
        let dir = dir_with(&one);
        spoil(dir.path());
        let output = timeout(STARTING, command(SERVER, dir.path(), &FILES).output()).await;
        let output = output.expect("it ends").expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("error: cannot use TLS_CERT and TLS_KEY: "), "{said}");
        assert!(said.contains(told) && !said.contains("hushhush"), "{told}: {said}");
        assert!(!dir.path().join("todo.db").exists(), "no database was made");
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_handshake_and_no_idle_connection() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    let mut kept = Vec::new();
    for protocols in [&["http/1.1"], &["h2"]] {
        let stream = dial(process.addr, protocols, &[&cert]).await.expect("a handshake");
        let mut connection = Kept::over(stream).await;
        connection.lives().await;
        kept.push(connection);
    }
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(process.addr).await.expect("it listens");
        stream.write_all(bytes).await.expect("it is sent");
        silent.push(stream);
    }
    let unused = dial(process.addr, &["h2"], &[&cert]).await.expect("a handshake");
    process.stop().await;
    drop((kept, silent, unused));
}

/// https is wanted, and this is https: no proxy has to say so.
#[tokio::test]
async fn production_is_content_with_its_own_certificate() {
    let cert = issued();
    let dir = dir_with(&cert);
    let settings = [
        ("ENVIRONMENT", "production"),
        ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only"),
        ("ALLOWED_ORIGINS", "https://app.example"),
    ];
    let process = Process::start(SERVER, dir.path(), &[&FILES[..], &settings].concat()).await;
    for path in ["/api/auth/me", "/docs", "/health"] {
        let mut stream = dial(process.addr, &["http/1.1"], &[&cert]).await.expect("a handshake");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             X-Forwarded-Proto: http\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let status = if path == "/api/auth/me" { "http/1.1 401" } else { "http/1.1 200" };
        assert!(answer.starts_with(status), "{path}: {answer}");
        assert!(answer.contains("\r\nstrict-transport-security: max-age="), "{path}: {answer}");
    }
    process.stop().await;
}

/// The deadline is 10 s; a server that has none holds these for ever.
#[tokio::test]
#[ignore = "slow: run by .ci/run"]
async fn a_handshake_that_stalls_is_cut_off() {
    let cert = issued();
    let dir = dir_with(&cert);
    let process = Process::start(SERVER, dir.path(), &FILES).await;
    let mut stalled = Vec::new();
    // Nothing; the head of a record that never comes; one byte of a handshake.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(process.addr).await.expect("it listens");
        stream.write_all(bytes).await.expect("it is sent");
        stalled.push(stream);
    }
    // A handshake that is done, with nothing asked after it.
    let mut silent = dial(process.addr, &["http/1.1"], &[&cert]).await.expect("a handshake");
    Kept::over(dial(process.addr, &[], &[&cert]).await.expect("TLS")).await.lives().await;

    let ended = async {
        for stream in &mut stalled {
            // Closed or reset: both are an end.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let _ = silent.read_to_end(&mut Vec::new()).await;
    };
    timeout(Duration::from_secs(30), ended).await.expect("they are cut off");
    process.stop().await;
}
