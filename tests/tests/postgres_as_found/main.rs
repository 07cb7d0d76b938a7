//! PostgreSQL as operators have it: connections that fall silent or are closed, sessions that can
//! only fail, fewer connections than the pool wants, other encodings, defaults and grants.

mod fitness;
mod sessions;

use sqlx::{Connection, Executor, PgConnection};
use todo_tests::{App, Cell, Database, Server, postgres::Cluster};

/// A server process of its own, with a role `app` that may use the schema.
async fn cluster() -> Cluster {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("a PostgreSQL");
    let role = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app";
    admin(&cluster).await.execute(role).await.expect("a role");
    cluster
}

async fn admin(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.url()).await.expect("a connection")
}

/// The address of `cluster` for the role `app`.
fn app_url(cluster: &Cluster) -> String {
    cluster.url().replace("postgres@", "app@")
}

async fn start(server: Server, settings: &[(&str, &str)]) -> Result<App, String> {
    // The harness makes a database by the cell; this one is given by the settings.
    App::try_start_with(Cell { server, database: Database::Sqlite }, settings).await
}

/// Runs `n` tasks side by side, which may borrow, and collects what they return.
async fn side_by_side<T>(n: usize, task: impl AsyncFn(usize) -> T) -> Vec<T> {
    futures_util::future::join_all((0..n).map(|n| task(n))).await
}
