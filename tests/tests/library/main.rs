//! `todo-core` as a Rust program links it, without HTTP.

/// Expands each case to a module with a test for either database.
macro_rules! on_both_databases {
    ($($(#[$attribute:meta])? async fn $name:ident($database:ident) $body:block)+) => {$(
        mod $name {
            use super::*;

            async fn case($database: Database) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$attribute])?
            async fn sqlite() {
                case(Database::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$attribute])?
            async fn postgres() {
                case(Database::Postgres).await;
            }
        }
    )+};
}

mod api;
mod batch;
mod bulk;
mod changes;
mod deletion;
mod derived;
mod due_times;
mod filters;
mod jobs;
mod keys;
mod limits;
mod list_plans;
mod lists;
mod model;
mod order;
mod plans;
mod reminders;
mod sessions;
mod tags;
mod todo_lists;
