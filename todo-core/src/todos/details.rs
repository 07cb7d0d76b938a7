//! How the properties of [`Details`] are stored: columns of a new todo, and SQL of a patch.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    Description, Details, Due, Recurrence, Target, Todo, TodoPatch,
    create::{Limits, no_room_for_reminders, quota_error},
    fold,
    input::need_due,
    reminder_quota::open_reminders,
};
use crate::{
    authz::{Caller, acting_as, authorized},
    db::{DbError, FromRows, Row, Statement, value::Timestamp},
    error::{Error, FieldError, FieldErrors, Quota},
    ids::ListId,
};

/// The columns of the details of a new todo, in the order of [`bind_new`].
macro_rules! detail_columns {
    () => {
        "tags, list_id, due_date, due_minute, due_zone, due_at, undated, due_key, rule, rule_from, \
         series_id, occurrence, reminders"
    };
}
pub(super) use detail_columns;

/// Binds the values of [`detail_columns!`] of a new todo: 13 binds.
pub(super) fn bind_new(statement: Statement, todo: &Todo) -> Statement {
    let columns = Columns::of(todo);
    statement
        .bind(todo.tags.to_stored())
        .bind(todo.list_id.map(Uuid::from))
        .bind(columns.due_date)
        .bind(columns.due_minute)
        .bind(columns.due_zone)
        .bind(columns.due_at)
        .bind(columns.due_date.is_none())
        .bind(columns.due_key)
        .bind(columns.rule)
        .bind(columns.rule_from)
        .bind(columns.series_id)
        .bind(columns.occurrence)
        .bind(todo.reminders.to_stored())
}

/// The columns of the due date and the recurrence.
pub(super) struct Columns<'a> {
    pub(super) due_date: Option<i64>,
    pub(super) due_minute: Option<i64>,
    pub(super) due_zone: Option<&'a str>,
    pub(super) due_at: Option<Timestamp>,
    pub(super) due_key: i64,
    pub(super) rule: Option<&'a str>,
    pub(super) rule_from: Option<i16>,
    /// A todo begins its own series.
    pub(super) series_id: Option<Uuid>,
    pub(super) occurrence: Option<i64>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(todo: &'a Todo) -> Self {
        let recurrence = todo.recurrence.as_ref();
        Self {
            series_id: recurrence.map(|_| todo.id.as_uuid()),
            occurrence: recurrence.and(todo.due.as_ref()).map(Due::days),
            ..Self::of_parts(todo.due.as_ref(), recurrence)
        }
    }

    fn of_parts(due: Option<&'a Due>, recurrence: Option<&'a Recurrence>) -> Self {
        Self {
            due_date: due.map(Due::days),
            due_minute: due.and_then(Due::minute),
            due_zone: due.and_then(Due::time_zone).map(super::super::time_zone::TimeZone::as_str),
            due_at: due.and_then(Due::at).map(Timestamp),
            due_key: due.map(Due::key).unwrap_or_default(),
            rule: recurrence.map(|recurrence| recurrence.rule.as_str()),
            rule_from: recurrence.map(|recurrence| recurrence.from.number()),
            series_id: None,
            occurrence: None,
        }
    }
}

/// SQL assignments of a patch with details, after those of [`patched_columns!`]: `$tags`; `$dues`
/// says whether there is a due date, which is the next five; `$recurs` whether there is a
/// recurrence, which is the next two; `$reminders`; `$moves` says whether there is a list, which is
/// the next one. See [`bind_patch`].
///
/// A todo begins its own series when it begins to recur. Its occurrence is the day of the due date,
/// unless another todo of the series has it; `$same` is an alternative for those of the same patch.
///
/// [`patched_columns!`]: super::change::patched_columns
macro_rules! patched_details {
    ($tags:literal, $dues:literal, $date:literal, $minute:literal, $zone:literal, $at:literal,
     $key:literal, $recurs:literal, $rule:literal, $from:literal, $reminders:literal,
     $moves:literal, $list:literal, $same:expr) => {
        concat!(
            "tags = coalesce(",
            $tags,
            ", tags), ",
            "due_date = CASE WHEN ",
            $dues,
            " THEN ",
            $date,
            " ELSE due_date END, ",
            "due_minute = CASE WHEN ",
            $dues,
            " THEN ",
            $minute,
            " ELSE due_minute END, ",
            "due_zone = CASE WHEN ",
            $dues,
            " THEN ",
            $zone,
            " ELSE due_zone END, ",
            "due_at = CASE WHEN ",
            $dues,
            " THEN ",
            $at,
            " ELSE due_at END, ",
            "undated = CASE WHEN ",
            $dues,
            " THEN ",
            $date,
            " IS NULL ELSE undated END, ",
            "due_key = CASE WHEN ",
            $dues,
            " THEN ",
            $key,
            " ELSE due_key END, ",
            "rule = CASE WHEN ",
            $recurs,
            " THEN ",
            $rule,
            " ELSE rule END, ",
            "rule_from = CASE WHEN ",
            $recurs,
            " THEN ",
            $from,
            " ELSE rule_from END, ",
            "series_id = CASE WHEN ",
            $recurs,
            " THEN CASE WHEN ",
            $rule,
            " IS NULL THEN NULL \
             ELSE coalesce(series_id, id) END ELSE series_id END, ",
            "occurrence = CASE WHEN NOT (",
            $dues,
            " OR ",
            $recurs,
            ") THEN occurrence WHEN CASE WHEN ",
            $recurs,
            " THEN ",
            $rule,
            " ELSE rule END \
             IS NULL THEN NULL WHEN EXISTS (SELECT 1 FROM todos AS other \
             WHERE other.series_id = coalesce(todos.series_id, todos.id) AND other.id <> todos.id \
             AND (other.occurrence = CASE WHEN ",
            $dues,
            " THEN ",
            $date,
            " ELSE todos.due_date END",
            $same,
            ")) THEN NULL WHEN ",
            $dues,
            " THEN ",
            $date,
            " ELSE due_date END, ",
            "reminders = coalesce(",
            $reminders,
            ", reminders), ",
            "list_id = CASE WHEN ",
            $moves,
            " THEN ",
            $list,
            " ELSE list_id END"
        )
    };
}
pub(super) use patched_details;

/// SQL condition of a patch with details: what needs a due date has one, and the list is one of the
/// caller. The parameters are those of [`patched_details!`].
macro_rules! allows_details {
    ($dues:literal, $date:literal, $recurs:literal, $rule:literal, $reminders:literal,
     $list:literal) => {
        concat!(
            "(CASE WHEN ",
            $dues,
            " THEN ",
            $date,
            " ELSE due_date END IS NOT NULL \
             OR (CASE WHEN ",
            $recurs,
            " THEN ",
            $rule,
            " ELSE rule END IS NULL \
             AND coalesce(",
            $reminders,
            ", reminders) = '[]')) AND ",
            is_own_list!($list)
        )
    };
}
pub(super) use allows_details;

/// SQL condition that a list is none, or one of the caller.
macro_rules! is_own_list {
    ($list:expr) => {
        concat!(
            "(",
            $list,
            " IS NULL OR EXISTS (SELECT 1 FROM lists WHERE lists.id = ",
            $list,
            " AND lists.user_id = $1 AND lists.deleted_at IS NULL))"
        )
    };
}
pub(super) use is_own_list;

/// SQL condition that the caller would have no more than `$limit` different tags with those of a
/// stored text; 0 is no limit.
macro_rules! is_below_tag_quota {
    (Sqlite, $tags:literal, $limit:literal) => {
        is_below_tag_quota!($tags, $limit, concat!("value FROM json_each(", $tags, ")"))
    };
    (Postgres, $tags:literal, $limit:literal) => {
        is_below_tag_quota!(
            $tags,
            $limit,
            concat!("json_array_elements_text(CAST(", $tags, " AS json))")
        )
    };
    ($tags:literal, $limit:literal, $names:expr) => {
        concat!(
            "(",
            $limit,
            " = 0 OR coalesce(",
            $tags,
            ", '[]') = '[]' OR ",
            "(SELECT count(*) FROM (SELECT tag FROM tags WHERE user_id = $1 UNION SELECT ",
            $names,
            ") AS used) <= ",
            $limit,
            ")"
        )
    };
}
pub(super) use is_below_tag_quota;

/// Binds the details of a patch for [`patched_details!`]: 13 binds.
pub(super) fn bind_patch(statement: Statement, details: &Details) -> Statement {
    let due = details.due.as_ref().and_then(Option::as_ref);
    let recurrence = details.recurrence.as_ref().and_then(Option::as_ref);
    let columns = Columns::of_parts(due, recurrence);
    statement
        .bind(details.tags.as_ref().map(super::Tags::to_stored))
        .bind(details.due.is_some())
        .bind(columns.due_date)
        .bind(columns.due_minute)
        .bind(columns.due_zone)
        .bind(columns.due_at)
        .bind(columns.due_key)
        .bind(details.recurrence.is_some())
        .bind(columns.rule)
        .bind(columns.rule_from)
        .bind(details.reminders.as_ref().map(super::Reminders::to_stored))
        .bind(details.list_id.is_some())
        .bind(details.list_id.flatten().map(Uuid::from))
}

/// The folded parts that a patch changes: title, tags, description.
pub(super) fn folded_parts(patch: &TodoPatch) -> [Option<String>; 3] {
    [
        patch.title.as_ref().map(fold::title),
        patch.details.tags.as_ref().map(fold::tags),
        patch
            .description
            .as_ref()
            .map(|text| fold::description(Option::<&Description>::from(text))),
    ]
}

/// The tags, lists and reminders of a user, by which details are judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) is_authorized: bool,
    pub(super) tags: HashSet<String>,
    pub(super) lists: HashSet<ListId>,
    /// The number of reminders that have not fired.
    pub(super) reminders: i64,
}

impl FromRows for Known {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        self.tags.extend(row.get::<Option<String>>(1)?);
        self.lists.extend(row.get::<Option<Uuid>>(2)?.map(ListId::from));
        self.reminders = row.get(3)?;
        Ok(())
    }
}

impl Known {
    /// The statement of its rows, at least one.
    pub(super) fn find(caller: Caller) -> Statement {
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            " AS is_authorized, tag, list, ",
            open_reminders!(""),
            " FROM (SELECT tag, NULL AS list FROM tags \
             WHERE user_id = $1 UNION ALL SELECT NULL, id FROM lists \
             WHERE user_id = $1 AND deleted_at IS NULL UNION ALL SELECT NULL, NULL) AS known"
        );
        acting_as(caller, SQL)
    }

    /// Adds the tags of a todo that is to be created.
    pub(super) fn add(&mut self, details: &Details) {
        let tags = details.tags.iter().flatten();
        self.tags.extend(tags.map(|tag| tag.as_str().to_owned()));
        self.reminders += details.number_of_reminders();
    }

    /// Fails if the list of the details is none of the user, or their tags exceed the quota.
    pub(super) fn judge(&self, details: &Details, max_tags: u32) -> Result<(), Error> {
        self.judge_list(details)?;
        let tags = details.tags.iter().flatten();
        let new = tags.filter(|tag| !self.tags.contains(tag.as_str())).count();
        let used = self.tags.len();
        let limit = usize::try_from(max_tags).unwrap_or(usize::MAX);
        if new > 0 && limit > 0 && used + new > limit {
            let used = i64::try_from(used).unwrap_or(i64::MAX).max(max_tags.into());
            return Err(quota_error(Quota::Tags, max_tags, used).unwrap_or(Error::Busy));
        }
        Ok(())
    }

    /// Fails if further reminders exceed the quota; 0 is no limit.
    pub(super) fn judge_reminders(&self, more: i64, limit: u32) -> Result<(), Error> {
        if more == 0 || limit == 0 || self.reminders + more <= i64::from(limit) {
            return Ok(());
        }
        // Those that are there may be fewer than the limit, and leave no room for these.
        Err(no_room_for_reminders(limit, self.reminders))
    }

    /// Fails if the list of the details is none of the user.
    pub(super) fn judge_list(&self, details: &Details) -> Result<(), FieldErrors> {
        match details.list_id {
            Some(Some(list)) if !self.lists.contains(&list) => Err(unknown_list().into()),
            _ => Ok(()),
        }
    }
}

/// The error of a list that does not exist.
pub(super) fn unknown_list() -> FieldError {
    FieldError::new("list_id", "unknown", "List id must be the id of one of your lists.")
}

/// The reason why a patch with details did not change a todo that exists.
pub(super) fn judge_patch(
    todo: &Todo,
    target: Target,
    details: &Details,
    known: &Known,
    limits: Limits,
) -> Error {
    let due = details.due.as_ref().unwrap_or(&todo.due);
    let recurrence = details.recurrence.as_ref().unwrap_or(&todo.recurrence);
    let reminders = details.reminders.as_ref().unwrap_or(&todo.reminders);
    if let Err(errors) = known.judge_list(details) {
        return errors.into();
    }
    if due.is_none()
        && let Err(errors) = need_due(recurrence.is_some(), !reminders.is_empty())
    {
        return errors.into();
    }
    if !target.allows(todo.version()) {
        return Error::PreconditionFailed;
    }
    let judged = known.judge(details, limits.tags).and_then(|()| {
        let adds = details.reminders.is_some() || details.due.is_some();
        let more = i64::try_from(reminders.len()).unwrap_or_default();
        known.judge_reminders(if adds { more } else { 0 }, limits.reminders)
    });
    // Otherwise a tag or a reminder that went meanwhile made room.
    judged.err().unwrap_or(Error::Busy)
}
