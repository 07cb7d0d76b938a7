//! TLS to PostgreSQL: how each `sslmode` verifies the server's certificate, in the spellings of
//! libpq, Neon and asyncpg.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{Connection, PgConnection};
use todo_tests::{
    App, Database, PROGRAMS, SECRET_SETTING, Server, Target, postgres::Cluster, startup_error,
};

/// A certificate authority, and a server's certificate and key.
struct Certificates {
    ca: String,
    cert: String,
    key: String,
}

fn issued_for(name: &str) -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let ca = ca.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let cert = params.signed_by(&key, &ca).expect("a certificate");
    Certificates { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() }
}

async fn with_tls(certificates: &Certificates) -> Cluster {
    let settings = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"];
    let files = [("server.crt", &*certificates.cert), ("server.key", &*certificates.key)];
    Cluster::dedicated(&settings, &files).await.expect("a PostgreSQL with TLS")
}

fn url(cluster: &Cluster, host: &str, query: &str) -> String {
    let port = cluster.port().expect("a dedicated cluster");
    format!("postgresql://postgres@{host}:{port}/postgres?{query}")
}

/// Checks that a server starts with `url` and that all its connections are encrypted, or none is.
async fn assert_serves(cluster: &Cluster, url: &str, encrypted: bool) {
    let target = Target { server: Server::Hyper, database: Database::Sqlite };
    let app = App::try_start_with(target, &[("DATABASE_URL", url)]).await;
    let app = app.unwrap_or_else(|why| panic!("{url}: {why}"));
    app.signed_up().await.todo("over TLS").await;
    let mut direct = PgConnection::connect(&cluster.url()).await.expect("a connection");
    let found: Vec<bool> = sqlx::query_scalar(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'todo'",
    )
    .fetch_all(&mut direct)
    .await
    .expect("its connections");
    assert!(!found.is_empty() && found.iter().all(|ssl| *ssl == encrypted), "{url}: {found:?}");
    app.stop().await.expect("a clean stop");
}

/// Checks that the start fails at once, with a minute of the startup time left, and that the last
/// line of output is the error.
async fn assert_start_fails(dir: &Path, url: &str, why: &str) {
    let settings = [("DATABASE_URL", url), SECRET_SETTING, ("DATABASE_STARTUP_SECONDS", "60")];
    let stderr = startup_error(PROGRAMS[1], dir, &settings).await;
    assert!(!stderr.contains("waiting for the database"), "{url}: {stderr}");
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("{url}: not one line: {stderr}") };
    assert!(error.starts_with("error: cannot open the database: "), "{url}: {stderr}");
    assert!(error.contains(why), "{url}: {stderr}");
    assert_eq!(stderr.lines().last(), Some(error), "{url}: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_decides_how_a_certificate_is_verified() {
    let certificates = issued_for("localhost");
    let cluster = with_tls(&certificates).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &certificates.ca).expect("a file");
    let other_ca = dir.path().join("other_ca.pem");
    fs::write(&other_ca, issued_for("localhost").ca).expect("a file");
    let rooted = |mode: &str, root: &Path| format!("{mode}&sslrootcert={}", root.display());

    assert_serves(&cluster, &url(&cluster, "127.0.0.1", "sslmode=disable"), false).await;
    // Encrypted without verification, in the spellings of libpq, Neon and asyncpg.
    for query in ["sslmode=require", "sslmode=require&channel_binding=require", "ssl=require"] {
        assert_serves(&cluster, &url(&cluster, "127.0.0.1", query), true).await;
    }
    let asyncpg =
        url(&cluster, "127.0.0.1", "ssl=require").replace("postgresql://", "postgresql+asyncpg://");
    assert_serves(&cluster, &asyncpg, true).await;
    let verified = rooted("sslmode=verify-full", &ca);
    assert_serves(&cluster, &url(&cluster, "localhost", &verified), true).await;
    // Signed by the right authority; the host name is not checked.
    let signed = rooted("sslmode=verify-ca", &ca);
    assert_serves(&cluster, &url(&cluster, "127.0.0.1", &signed), true).await;

    let unsigned = url(&cluster, "localhost", "sslmode=verify-full");
    assert_start_fails(dir.path(), &unsigned, "UnknownIssuer").await;
    let elsewhere = url(&cluster, "localhost", &rooted("sslmode=verify-full", &other_ca));
    assert_start_fails(dir.path(), &elsewhere, "certificate").await;
    assert_start_fails(dir.path(), &url(&cluster, "127.0.0.1", &verified), "not valid for name")
        .await;
    let spelled = url(&cluster, "localhost", "ssl=verify-full")
        .replace("postgresql://", "postgresql+asyncpg://");
    assert_start_fails(dir.path(), &spelled, "UnknownIssuer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_if_tls_is_required() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_start_fails(dir.path(), &url(&cluster, "127.0.0.1", "sslmode=require"), "TLS").await;
}
