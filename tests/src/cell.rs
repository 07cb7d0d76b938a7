//! The matrix: which server on which database, and the macro that walks it.

/// One of the two servers that speak the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `todo-server`.
    Salvo,
    /// `todo-hyper-min`.
    Hyper,
}

/// One of the two databases the product runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file in a temporary directory.
    Sqlite,
    /// A database created for the test in the PostgreSQL of [`crate::postgres`].
    Postgres,
}

/// A server on a database: every case runs on all of them.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The server under test.
    pub server: Server,
    /// The database under it.
    pub database: Database,
}

impl Cell {
    /// The whole matrix.
    pub const ALL: [Cell; 4] = [
        Cell { server: Server::Salvo, database: Database::Sqlite },
        Cell { server: Server::Salvo, database: Database::Postgres },
        Cell { server: Server::Hyper, database: Database::Sqlite },
        Cell { server: Server::Hyper, database: Database::Postgres },
    ];
}

/// Turns each `async fn case(cell) { … }` into a module `case` with one test per cell:
/// `salvo_sqlite`, `salvo_postgres`, `hyper_sqlite` and `hyper_postgres`. Attributes of the case,
/// such as `#[ignore]`, are those of its tests.
///
/// ```no_run
/// todo_tests::on_every_cell! {
///     async fn a_stranger_is_refused(cell) {
///         let app = todo_tests::App::start(cell).await;
///         app.anonymous().get("/api/auth/me").await.problem(401, "unauthorized");
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_every_cell {
    ($($(#[$meta:meta])* async fn $case:ident($cell:ident) $body:block)*) => {$(
        mod $case {
            #[allow(unused_imports)]
            use super::*;

            async fn case($cell: $crate::Cell) $body

            $crate::on_every_cell!(@cell [$(#[$meta])*] salvo_sqlite, Salvo, Sqlite);
            $crate::on_every_cell!(@cell [$(#[$meta])*] salvo_postgres, Salvo, Postgres);
            $crate::on_every_cell!(@cell [$(#[$meta])*] hyper_sqlite, Hyper, Sqlite);
            $crate::on_every_cell!(@cell [$(#[$meta])*] hyper_postgres, Hyper, Postgres);
        }
    )*};
    (@cell [$($meta:tt)*] $name:ident, $server:ident, $database:ident) => {
        $($meta)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            case($crate::Cell {
                server: $crate::Server::$server,
                database: $crate::Database::$database,
            })
            .await
        }
    };
}
