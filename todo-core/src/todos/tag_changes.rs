//! Changes of a tag on all todos that have it. They are made in pieces, each in its own turn and
//! transaction, so that no other writer waits for more than one of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Tag, Tags,
    bulk::{Text, both, for_update, is_callers_row, item_id, items, member},
    change::{next_updated_at, refolded},
    fold,
    pieces::{MAX_IDLE_PIECES, PIECE, pause},
    tag_list::KnownTag,
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, Dialect, Row, Statement,
        batch::{Next, Script},
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, Result},
};

/// Renames a tag on all of the caller's todos, and returns how many were changed. Todos that have
/// both tags, also if `to` is that of other todos, keep the new one. Those in the trash keep the
/// old one.
///
/// It changes 200 todos at a time, each with a new version. If it is dropped, or fails, some are
/// changed, and another call changes the rest. A todo that gets the tag meanwhile may keep it.
///
/// # Errors
/// [`Error::NotFound`] if no todo has the tag; [`Error::Unauthenticated`], also if the session ends
/// meanwhile; else as [`create`](super::create).
pub async fn rename_tag(core: &Core, caller: &Caller, from: Tag, to: Tag) -> Result<u64> {
    if from == to {
        return require_tag(core, caller, &from).await.map(|()| 0);
    }
    retag(core, *caller, from, Some(to)).await
}

/// Removes a tag from all of the caller's todos, and returns how many were changed: see
/// [`rename_tag`].
///
/// # Errors
/// As [`rename_tag`].
pub async fn delete_tag(core: &Core, caller: &Caller, tag: Tag) -> Result<u64> {
    retag(core, *caller, tag, None).await
}

/// Fails if no todo has the tag.
async fn require_tag(core: &Core, caller: &Caller, tag: &Tag) -> Result<()> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", EXISTS (SELECT 1 FROM tags WHERE user_id = $1 AND tag = $4)"
    );
    let db = core.db();
    let select = acting_as(*caller, SQL).bind(tag.as_str());
    let known: KnownTag =
        core.read(caller.user_id(), async move { Ok(db.fetch_one(select).await?) }).await?;
    match known {
        KnownTag { is_authorized: false, .. } => Err(Error::Unauthenticated),
        KnownTag { exists: false, .. } => Err(Error::NotFound),
        KnownTag { .. } => Ok(()),
    }
}

async fn retag(core: &Core, caller: Caller, from: Tag, to: Option<Tag>) -> Result<u64> {
    let mut total = 0;
    let mut is_first = true;
    let mut idle = 0;
    loop {
        let db = core.db();
        let began = Instant::now();
        let piece = Piece::new(caller, db.dialect(), core, from.clone(), to.clone());
        let user = caller.user_id();
        let done = core
            .write(user, async move { Ok(db.execute_script(Some(user.as_uuid()), piece).await?) })
            .await?;
        if !done.is_authorized {
            return Err(Error::Unauthenticated);
        }
        if is_first && done.found == 0 {
            return Err(Error::NotFound);
        }
        is_first = false;
        total += done.changed;
        if done.found < PIECE {
            return Ok(total);
        }
        idle = if done.changed == 0 { idle + 1 } else { 0 };
        if idle == MAX_IDLE_PIECES {
            return Err(Error::Busy);
        }
        pause(began).await;
    }
}

/// Finds the next todos with a tag, and changes their tags.
#[derive(Clone)]
struct Piece {
    caller: Caller,
    dialect: Dialect,
    now: Timestamp,
    from: Tag,
    to: Option<Tag>,
    step: Step,
    is_authorized: bool,
    found: i64,
    /// The present tags of the todos that were found.
    todos: BTreeMap<Uuid, Tags>,
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    Find,
    Change,
}

/// What a piece has done.
struct Done {
    is_authorized: bool,
    /// The number of todos that were found, at most [`PIECE`].
    found: i64,
    changed: u64,
}

impl Piece {
    fn new(caller: Caller, dialect: Dialect, core: &Core, from: Tag, to: Option<Tag>) -> Self {
        Self {
            caller,
            dialect,
            now: Timestamp(core.now()),
            from,
            to,
            step: Step::Begin,
            is_authorized: false,
            found: 0,
            todos: BTreeMap::new(),
        }
    }

    /// The statement that returns the next todos with the tag, locked in the order of a bulk; at
    /// least one row.
    fn find(&self) -> Statement {
        macro_rules! find {
            ($dialect:ident) => {
                concat!(
                    "WITH picked AS MATERIALIZED (SELECT todo_id FROM todo_tags \
                     WHERE user_id = $1 AND tag = $4 \
                     ORDER BY completed, created_at, todo_id LIMIT $5), \
                     locked AS MATERIALIZED (SELECT id, tags FROM todos WHERE ",
                    is_callers_row!($dialect),
                    " AND id IN (SELECT todo_id FROM picked) ORDER BY id",
                    for_update!($dialect, "todos"),
                    ") SELECT ",
                    authorized!(),
                    ", (SELECT count(*) FROM picked), locked.id, locked.tags \
                     FROM (SELECT 1 AS one) AS one LEFT JOIN locked ON TRUE"
                )
            };
        }
        const SQL: Text = both!(find);
        acting_as(self.caller, SQL.of(self.dialect)).bind(self.from.as_str()).bind(PIECE)
    }

    /// The statement that changes the todos that still have the tag; `None` if none has.
    fn change(&mut self) -> Option<Statement> {
        macro_rules! change {
            ($dialect:ident) => {
                concat!(
                    "UPDATE todos SET tags = new_tags, \
                     search = ",
                    refolded!($dialect, ("CAST(NULL AS text)", "new_folded", "CAST(NULL AS text)")),
                    ", updated_at = ",
                    next_updated_at!("$5", "$6"),
                    " FROM (SELECT ",
                    item_id!($dialect),
                    " AS item_id, item.value ->> 'tags' AS new_tags, \
                     item.value ->> 'folded' AS new_folded FROM ",
                    items!($dialect),
                    ") AS changed WHERE todos.id = item_id AND ",
                    is_callers_row!($dialect),
                    " AND ",
                    authorized!()
                )
            };
        }
        const SQL: Text = both!(change);
        let (from, to) = (&self.from, &self.to);
        let changed = std::mem::take(&mut self.todos).into_iter().filter_map(|(id, tags)| {
            let tags = tags.with_replaced(from, to.as_ref())?;
            let item = json!({ "tags": tags.to_stored(), "folded": fold::tags(&tags) });
            Some((member(id.into()), item))
        });
        let object: Map<String, Value> = changed.collect();
        if object.is_empty() {
            return None;
        }
        let update = acting_as(self.caller, SQL.of(self.dialect));
        let update = update.bind(Value::Object(object).to_string());
        Some(update.bind(self.now).bind(OneMicrosecond))
    }

    fn done(&self, changed: u64) -> Done {
        Done { is_authorized: self.is_authorized, found: self.found, changed }
    }
}

impl Script for Piece {
    type Output = Done;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        self.found = row.get(1)?;
        if let Some(id) = row.get::<Option<Uuid>>(2)? {
            let tags = Tags::from_stored(&row.get::<String>(3)?).ok_or(DbError::Value("tags"))?;
            self.todos.insert(id, tags);
        }
        Ok(())
    }

    fn next(&mut self, rows: u64) -> Result<Next<Done>, DbError> {
        Ok(match self.step {
            Step::Begin => {
                self.step = Step::Find;
                Next::Run(self.find())
            }
            Step::Find if !self.is_authorized => Next::RollBack(self.done(0)),
            Step::Find => {
                self.step = Step::Change;
                match self.change() {
                    Some(update) => Next::Run(update),
                    // Another request has changed them meanwhile.
                    None => Next::RollBack(self.done(0)),
                }
            }
            // The session has ended meanwhile.
            Step::Change if rows == 0 => {
                self.is_authorized = false;
                Next::RollBack(self.done(0))
            }
            Step::Change => Next::Commit(self.done(rows)),
        })
    }
}
