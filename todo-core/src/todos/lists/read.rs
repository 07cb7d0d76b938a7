//! Reads of lists.

use uuid::Uuid;

use super::types::{List, Lists, list_at, list_columns};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, FromRows, Row, Statement},
    error::{Error, Result},
    ids::ListId,
    todos::list_version::{QueryHash, version_in},
};

/// The row of a list, if there is one, and what is known without one.
#[derive(Default)]
struct ListRows {
    is_authorized: bool,
    epoch: Option<String>,
    number: Option<i64>,
    lists: Vec<List>,
}

impl FromRows for ListRows {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        self.epoch = row.get(1)?;
        self.number = row.get(2)?;
        self.lists.extend(list_at(row, 3)?);
        Ok(())
    }
}

/// The hash of the version of the lists.
pub(crate) fn lists_hash() -> QueryHash {
    QueryHash::of_text("lists")
}

/// Returns the caller's lists, in the order of their creation.
///
/// # Errors
/// [`Error::Unauthenticated`]; else as [`create`](crate::todos::create).
pub async fn lists(core: &Core, caller: &Caller) -> Result<Lists> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", (SELECT value FROM meta WHERE name = 'epoch'), \
         (SELECT seq FROM todo_counts WHERE user_id = $1), ",
        list_columns!(),
        " FROM (SELECT 1 AS one) AS one \
         LEFT JOIN lists ON lists.user_id = $1 AND lists.deleted_at IS NULL \
         ORDER BY lists.created_at, lists.id"
    );
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let rows: ListRows = db.fetch(acting_as(caller, SQL)).await?;
        if !rows.is_authorized {
            return Err(Error::Unauthenticated);
        }
        let version = version_in(rows.epoch, rows.number, lists_hash());
        Ok(Lists { lists: rows.lists, version })
    })
    .await
}

/// Reads one list.
///
/// # Errors
/// [`Error::Unauthenticated`], [`Error::NotFound`], [`Error::Forbidden`] if it is another user's;
/// else as [`create`](crate::todos::create).
pub async fn get_list(core: &Core, caller: &Caller, id: ListId) -> Result<List> {
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        match db.fetch(read(caller, id)).await? {
            Some(list) => Ok(list),
            None => Err(Box::pin(find_reason(&db, caller, id.into())).await),
        }
    })
    .await
}

fn read(caller: Caller, id: ListId) -> Statement {
    const SQL: &str = concat!(
        "SELECT ",
        list_columns!(),
        " FROM lists WHERE id = $4 AND user_id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    acting_as(caller, SQL).bind(id)
}

/// Returns the row of a change, or the reason why it changed none.
pub(super) async fn require_change<T>(
    core: &Core,
    caller: Caller,
    target: super::ListTarget,
    changed: Option<T>,
) -> Result<T> {
    if let Some(row) = changed {
        return Ok(row);
    }
    let db = core.db();
    let reason = async { Err(find_reason(&db, caller, target).await) };
    Box::pin(core.read_in_write(caller.user_id(), reason)).await
}

/// The reason why a statement on one list affected no row.
async fn find_reason(db: &crate::db::Db, caller: Caller, target: super::ListTarget) -> Error {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", (SELECT user_id FROM lists WHERE id = $4 AND deleted_at IS NULL)"
    );
    match db.fetch_one::<(bool, Option<Uuid>)>(acting_as(caller, SQL).bind(target.id)).await {
        Err(fault) => fault.into(),
        Ok((false, _)) => Error::Unauthenticated,
        Ok((true, Some(owner))) if owner != caller.user_id().as_uuid() => Error::Forbidden,
        Ok((true, Some(_))) if target.versions.is_conditional() => Error::PreconditionFailed,
        Ok((true, _)) => Error::NotFound,
    }
}
