//! PostgreSQL as operators run it: silent or closed connections, broken sessions, fewer connections
//! than the pool's size, other encodings, defaults and grants.

mod requirements;
mod sessions;

use sqlx::{Connection, Executor, PgConnection};
use todo_tests::{App, Database, Server, Target, postgres::Cluster};

/// A dedicated server with a role `app` that may use the schema.
async fn cluster() -> Cluster {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("a PostgreSQL");
    let role = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app";
    admin(&cluster).await.execute(role).await.expect("a role");
    cluster
}

async fn admin(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url()).await.expect("a connection")
}

/// The URL of `cluster` for the role `app`.
fn app_url(cluster: &Cluster) -> String {
    cluster.url().replace("postgres@", "app@")
}

async fn start(server: Server, settings: &[(&str, &str)]) -> Result<App, String> {
    // The settings override the database that the harness creates for the target.
    App::try_start_with(Target { server, database: Database::Sqlite }, settings).await
}

/// Runs `n` futures concurrently on this task, so that they may borrow, and collects the results.
async fn side_by_side<T>(n: usize, task: impl AsyncFn(usize) -> T) -> Vec<T> {
    futures_util::future::join_all((0..n).map(|n| task(n))).await
}
