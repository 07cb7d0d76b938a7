//! The tags of a user, with the number of todos that each has.

use serde::Serialize;

use super::{
    ListVersion, Tag,
    list_version::{QueryHash, version_in},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, FromRows, Row},
    error::{Error, Result},
};

/// A tag, and the number of todos that have it. A tag without todos does not exist; those in the
/// trash do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TagCount {
    /// The tag.
    pub name: Tag,
    /// The number of open todos.
    pub pending: i64,
    /// The number of completed todos.
    pub completed: i64,
}

/// The tags of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TagList {
    /// The tags, in code point order.
    pub tags: Vec<TagCount>,
    /// The version of the list.
    #[serde(skip)]
    pub version: Option<ListVersion>,
}

/// The row of a tag, if there is one, and what is known without one.
#[derive(Default)]
struct TagRows {
    is_authorized: bool,
    epoch: Option<String>,
    number: Option<i64>,
    tags: Vec<TagCount>,
}

impl FromRows for TagRows {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        self.epoch = row.get(1)?;
        self.number = row.get(2)?;
        self.tags.extend(tag_count(row, 3)?);
        Ok(())
    }
}

/// The tag in three columns from `first`; `None` if they are NULL.
pub(super) fn tag_count(row: &Row<'_>, first: usize) -> Result<Option<TagCount>, DbError> {
    let Some(name) = row.get(first)? else { return Ok(None) };
    Ok(Some(TagCount {
        name: Tag::from_stored(name),
        pending: row.get(first + 1)?,
        completed: row.get(first + 2)?,
    }))
}

/// The hash of the version of the tags.
pub(crate) fn tags_hash() -> QueryHash {
    QueryHash::of_text("tags")
}

/// Returns the tags of the caller's todos.
///
/// # Errors
/// [`Error::Unauthenticated`]; else as [`create`](super::create).
pub async fn tags(core: &Core, caller: &Caller) -> Result<TagList> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", (SELECT value FROM meta WHERE name = 'epoch'), \
         (SELECT seq FROM todo_counts WHERE user_id = $1), tag, pending, completed \
         FROM (SELECT 1 AS one) AS one LEFT JOIN tags ON user_id = $1 ORDER BY tag"
    );
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let rows: TagRows = db.fetch(acting_as(caller, SQL)).await?;
        if !rows.is_authorized {
            return Err(Error::Unauthenticated);
        }
        let version = version_in(rows.epoch, rows.number, tags_hash());
        Ok(TagList { tags: rows.tags, version })
    })
    .await
}

/// Whether the caller is authorized and has a todo with a tag.
pub(super) struct KnownTag {
    pub(super) is_authorized: bool,
    pub(super) exists: bool,
}

impl FromRow for KnownTag {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self { is_authorized: row.get(0)?, exists: row.get(1)? })
    }
}
