//! Todos: create, list, read, update, complete, delete. Every function takes a
//! [`Caller`](crate::auth::Caller), and every statement contains the caller's user id: isolation is
//! in the types and in the WHERE clauses.
//!
//! Each operation of one todo is one statement. The same statement checks that the caller's session
//! still exists, so a revoked session is rejected at once on every replica. A second statement runs
//! only if the first one affected no row, to find the reason.

pub use self::{
    bulk::{Bulk, BulkAnswer, BulkOutcome, BulkRequest, BulkResult, bulk, bulk_once},
    change::{delete, patch, replace, set_completed},
    changes::{Change, ChangeCursor, ChangePage, changes},
    create::create,
    follow::{ChangeEvent, Events, StreamItem, follow},
    idempotency::{Creation, IdempotencyKey, Restoration, create_once, restore_once},
    list_types::{Filters, Limit, ListQuery, SortBy, SortOrder, Status, TodoList},
    list_version::{ListVersion, list_version},
    listing::Listing,
    read::{get, list, stream},
    trash::{
        MAX_TRASHED, TrashPage, TrashedTodo, delete_expired, delete_trashed, empty_trash,
        list_trash, restore,
    },
    types::{Description, NewTodo, Priority, Title, Todo, TodoPatch},
    version::{Target, Version},
};
pub use crate::{ids::TodoId, streams::EndReason};

mod bulk;
mod change;
mod changes;
mod create;
mod cursor;
mod export;
mod follow;
mod idempotency;
mod keyed_request;
mod list_query;
mod list_types;
mod list_version;
mod listing;
mod no_rows;
mod read;
mod trash;
mod types;
mod version;

/// Maximum number of todos in a list without a limit; its cursor continues it.
pub const MAX_UNPAGED: u16 = 10_000;

#[cfg(feature = "http")]
pub(crate) use bulk::{bulk_as_json, number_error};
pub(crate) use export::{TodoWalk, WalkPage};
#[cfg(feature = "http")]
pub(crate) use follow::{Batch, Follower, check_position};
#[cfg(feature = "http")]
pub(crate) use idempotency::{Answer, create_or_replay, restore_or_replay, stored_todo};
#[cfg(feature = "testing")]
pub(crate) use list_query::{ListShape, list_statements};
#[cfg(feature = "http")]
pub(crate) use list_version::QueryHash;
pub(crate) use types::todo_columns;
