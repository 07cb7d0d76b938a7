//! Todos: create, list, read, update, complete, delete. Every function takes a
//! [`Caller`](crate::auth::Caller), and every statement contains the caller's user id: isolation is
//! in the types and in the WHERE clauses.
//!
//! Each operation of one todo is one statement. The same statement checks that the caller's session
//! still exists, so a revoked session is rejected at once on every replica. A second statement runs
//! only if the first one affected no row, to find the reason.

pub use self::{
    bulk::{Bulk, BulkAnswer, BulkOutcome, BulkRequest, BulkResult, bulk, bulk_once},
    change::{delete, patch, replace},
    changes::{Change, ChangeCursor, ChangePage, changes},
    complete::{Completion, set_completed},
    create::create,
    due::Due,
    due_times::update_due_times,
    exchange::{
        Export, ExportFormat, ExportOptions, ImportFormat, ImportOptions, ImportReport, export,
        import,
    },
    filters::{DueBound, DueFilter, Filters, ListFilter},
    fired::FiredReminder,
    follow::{ChangeEvent, Events, StreamItem, follow},
    highlight::Match,
    idempotency::{Creation, IdempotencyKey, Restoration, create_once, restore_once},
    input::{Details, NewTodo, TodoPatch},
    list_types::{Limit, ListQuery, SortBy, SortOrder, Status, TodoList},
    list_version::{ListVersion, list_version},
    listing::Listing,
    lists::{
        List, ListColor, ListCreation, ListName, ListPatch, ListTarget, Lists, NewList,
        create_list, create_list_once, delete_list, finish_list_deletions, get_list, lists,
        patch_list,
    },
    order::move_todo,
    read::{get, list, stream},
    recurrence::{Recurrence, RecurrenceBase, Rule},
    reminders::{Reminder, Reminders},
    search::Search,
    tag_changes::{delete_tag, rename_tag},
    tag_list::{TagCount, TagList, tags},
    tags::{Tag, Tags},
    todo::Todo,
    trash::{
        MAX_TRASHED, TrashPage, TrashedTodo, delete_expired, delete_trashed, empty_trash,
        list_trash, restore,
    },
    types::{Description, Priority, Title},
    version::{Target, Version},
};
pub use crate::{
    ids::{ListId, ReminderId, TodoId},
    streams::EndReason,
    time_zone::TimeZone,
};

mod bulk;
mod change;
mod changes;
mod complete;
mod create;
mod cursor;
mod details;
mod due;
mod due_range;
mod due_times;
mod exchange;
mod export;
mod filters;
mod fired;
mod fold;
mod follow;
mod highlight;
mod idempotency;
mod input;
mod keyed_request;
mod list_query;
mod list_types;
mod list_version;
mod listing;
mod lists;
mod no_rows;
mod order;
mod order_key;
mod pieces;
mod read;
mod recurrence;
mod reminder_quota;
mod reminders;
mod search;
mod series;
mod tag_changes;
mod tag_list;
mod tags;
mod todo;
mod trash;
mod types;
mod unfolded;
mod version;

/// Maximum number of todos in a list without a limit; its cursor continues it.
pub const MAX_UNPAGED: u16 = 10_000;

#[cfg(feature = "http")]
pub(crate) use bulk::{bulk_as_json, number_error};
#[cfg(feature = "testing")]
pub(crate) use cursor::Position;
#[cfg(feature = "http")]
pub(crate) use exchange::{MAX_IMPORT_BYTES, import_or_replay};
pub(crate) use export::{TodoWalk, WalkPage};
#[cfg(feature = "webhook")]
pub(crate) use fired::fired_columns;
#[cfg(feature = "http")]
pub(crate) use follow::{Batch, Follower, check_position};
#[cfg(feature = "http")]
pub(crate) use idempotency::{Answer, create_or_replay, restore_or_replay, stored_todo};
#[cfg(feature = "testing")]
pub(crate) use list_query::{Selection, page, total};
#[cfg(feature = "http")]
pub(crate) use list_version::{QueryHash, current_version};
#[cfg(feature = "http")]
pub(crate) use lists::{ListAnswer, create_list_or_replay, lists_hash, stored_list};
#[cfg(feature = "http")]
pub(crate) use tag_list::tags_hash;
#[cfg(feature = "webhook")]
pub(crate) use todo::TODO_COLUMNS;
pub(crate) use todo::todo_columns;
pub(crate) use unfolded::fold_all;
