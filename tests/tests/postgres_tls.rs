//! TLS to PostgreSQL: how much of a server's certificate each `sslmode` believes, in the spellings
//! of libpq, Neon and asyncpg.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{Connection, PgConnection};
use todo_tests::{App, Cell, Database, PROGRAMS, Server, postgres::Cluster, refusal};

const SECRET: (&str, &str) =
    ("SECRET_KEY", "a secret of more than thirty-two bytes for tests only");

/// An authority, and what a server calls its own.
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
    Cluster::of_its_own(&settings, &files).await.expect("a PostgreSQL with TLS")
}

fn url(cluster: &Cluster, host: &str, query: &str) -> String {
    let port = cluster.port().expect("a cluster of its own");
    format!("postgresql://postgres@{host}:{port}/postgres?{query}")
}

/// It serves, and each of its connections is encrypted or none is.
async fn serves(cluster: &Cluster, url: &str, encrypted: bool) {
    let cell = Cell { server: Server::Hyper, database: Database::Sqlite };
    let app = App::try_start_with(cell, &[("DATABASE_URL", url)]).await;
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

/// It ends at once, although there is a minute left to wait for the database, and says why in its
/// last line.
async fn refuses(dir: &Path, url: &str, why: &str) {
    let settings = [("DATABASE_URL", url), SECRET, ("DATABASE_STARTUP_SECONDS", "60")];
    let said = refusal(PROGRAMS[1], dir, &settings).await;
    assert!(!said.contains("waiting for the database"), "{url}: {said}");
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("{url}: not one line: {said}") };
    assert!(error.starts_with("error: cannot open the database: "), "{url}: {said}");
    assert!(error.contains(why), "{url}: {said}");
    assert_eq!(said.lines().last(), Some(error), "{url}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_believed_as_far_as_the_mode_says() {
    let certificates = issued_for("localhost");
    let cluster = with_tls(&certificates).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &certificates.ca).expect("a file");
    let stranger = dir.path().join("stranger.pem");
    fs::write(&stranger, issued_for("localhost").ca).expect("a file");
    let rooted = |mode: &str, root: &Path| format!("{mode}&sslrootcert={}", root.display());

    serves(&cluster, &url(&cluster, "127.0.0.1", "sslmode=disable"), false).await;
    // Encrypted, whoever is at the other end: as libpq has it, Neon writes it and asyncpg spells it.
    for query in ["sslmode=require", "sslmode=require&channel_binding=require", "ssl=require"] {
        serves(&cluster, &url(&cluster, "127.0.0.1", query), true).await;
    }
    let asyncpg =
        url(&cluster, "127.0.0.1", "ssl=require").replace("postgresql://", "postgresql+asyncpg://");
    serves(&cluster, &asyncpg, true).await;
    let verified = rooted("sslmode=verify-full", &ca);
    serves(&cluster, &url(&cluster, "localhost", &verified), true).await;
    // Signed by the right authority, whatever its name.
    let signed = rooted("sslmode=verify-ca", &ca);
    serves(&cluster, &url(&cluster, "127.0.0.1", &signed), true).await;

    let unsigned = url(&cluster, "localhost", "sslmode=verify-full");
    refuses(dir.path(), &unsigned, "UnknownIssuer").await;
    let elsewhere = url(&cluster, "localhost", &rooted("sslmode=verify-full", &stranger));
    refuses(dir.path(), &elsewhere, "certificate").await;
    refuses(dir.path(), &url(&cluster, "127.0.0.1", &verified), "not valid for name").await;
    let spelled = url(&cluster, "localhost", "ssl=verify-full")
        .replace("postgresql://", "postgresql+asyncpg://");
    refuses(dir.path(), &spelled, "UnknownIssuer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    refuses(dir.path(), &url(&cluster, "127.0.0.1", "sslmode=require"), "TLS").await;
}
