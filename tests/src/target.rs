//! The test matrix (server x database) and the macro that expands a case over it.

/// One of the two servers that implement the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `todo-server`.
    Salvo,
    /// `todo-hyper-min`.
    Hyper,
}

/// One of the two supported databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file in a temporary directory.
    Sqlite,
    /// A database created for the test in the PostgreSQL of [`crate::postgres`].
    Postgres,
}

/// A server on a database; every case runs on all four.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The server under test.
    pub server: Server,
    /// The database under it.
    pub database: Database,
}

impl Target {
    /// The whole matrix.
    pub const ALL: [Target; 4] = [
        Target { server: Server::Salvo, database: Database::Sqlite },
        Target { server: Server::Salvo, database: Database::Postgres },
        Target { server: Server::Hyper, database: Database::Sqlite },
        Target { server: Server::Hyper, database: Database::Postgres },
    ];
}

/// Expands each `async fn case(target) { … }` to a module `case` with one test per target:
/// `salvo_sqlite`, `salvo_postgres`, `hyper_sqlite` and `hyper_postgres`. Attributes of the case,
/// such as `#[ignore]`, apply to its tests.
///
/// ```no_run
/// todo_tests::on_every_target! {
///     async fn an_anonymous_client_is_rejected(target) {
///         let app = todo_tests::App::start(target).await;
///         app.anonymous().get("/api/auth/me").await.problem(401, "unauthorized");
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_every_target {
    ($($(#[$meta:meta])* async fn $case:ident($target:ident) $body:block)*) => {$(
        mod $case {
            #[allow(unused_imports)]
            use super::*;

            async fn case($target: $crate::Target) $body

            $crate::on_every_target!(@target [$(#[$meta])*] salvo_sqlite, Salvo, Sqlite);
            $crate::on_every_target!(@target [$(#[$meta])*] salvo_postgres, Salvo, Postgres);
            $crate::on_every_target!(@target [$(#[$meta])*] hyper_sqlite, Hyper, Sqlite);
            $crate::on_every_target!(@target [$(#[$meta])*] hyper_postgres, Hyper, Postgres);
        }
    )*};
    (@target [$($meta:tt)*] $name:ident, $server:ident, $database:ident) => {
        $($meta)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            case($crate::Target {
                server: $crate::Server::$server,
                database: $crate::Database::$database,
            })
            .await
        }
    };
}
