//! Creations that may be repeated: a client that got no response sends the same request with the
//! same key again, and gets the answer to the first one.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Bulk, BulkRequest, BulkResult, Description, Details, Due, ListId, NewTodo, Recurrence,
    Reminders, Tags, Todo, TodoId,
    bulk::{Done, Encode, Text, both, run_keyed},
    create::{Limits, bind_todo, explain_no_insert, is_below_quota, new_todo, used_quota},
    details::{self, detail_columns, is_below_tag_quota, is_own_list},
    keyed_request::KeyedRequest,
    reminder_quota::{is_below_reminder_quota, number_of, open_reminders},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{FromRow, Row, value::Timestamp},
    error::{BoxError, Error, FieldError, Result},
    parsed::{impl_as_str, impl_parse},
};

/// The time for which a key is kept.
pub(super) const KEY_LIFETIME: TimeDelta = TimeDelta::hours(24);
/// The status of the answer to a creation.
pub(super) const CREATED: i16 = 201;

/// A key that a client chooses for one request of a user, and sends again with each repetition of
/// it (draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII characters.
///
/// A key should be random, such as a UUID. Keys of different users are independent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 255;

    /// Parses a key.
    ///
    /// # Errors
    /// It is empty, too long, or has another character.
    pub fn parse(key: &str) -> Result<Self, FieldError> {
        let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible && (1..=Self::MAX_CHARS).contains(&key.len()) {
            Ok(Self(key.to_owned()))
        } else {
            let message = "Idempotency-Key must be 1 to 255 visible ASCII characters.";
            Err(FieldError::new("idempotency_key", "invalid", message))
        }
    }

    /// The key of a piece of the key's request. No client can choose it: it has a space.
    pub(super) fn piece(&self, number: usize) -> Self {
        Self(format!("{} {number}", self.0))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_parse!(IdempotencyKey, FieldError);
impl_as_str!(IdempotencyKey);

/// The outcome of [`create_once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Creation {
    /// The todo, as it was created. It may have been changed or deleted since.
    pub todo: Todo,
    /// Whether an earlier call with this key created it.
    pub is_replay: bool,
}

/// A creation, or the stored answer to the first request with its key.
pub(crate) enum Answer {
    Created(Box<Todo>),
    /// The todo as JSON.
    Replayed(String),
}

/// Creates a todo, unless a call with this key has created it within 24 hours: then it returns that
/// todo. The key is stored in the same statement as the todo, so there is never the one without the
/// other. A call that fails stores nothing.
///
/// After [`Error::Unavailable`] it is unknown whether the todo was created: the same call with the
/// same key is then safe.
///
/// # Errors
/// [`Error::KeyReused`] if the key was used for another todo, [`Error::KeyInUse`] if a call with
/// the same key is still running; else as [`create`](super::create).
pub async fn create_once(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    new: NewTodo,
) -> Result<Creation> {
    Ok(match create_or_replay(core, caller, key, new).await? {
        Answer::Created(todo) => Creation { todo: *todo, is_replay: false },
        Answer::Replayed(answer) => Creation { todo: stored_todo(&answer)?, is_replay: true },
    })
}

/// The outcome of [`restore_once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restoration {
    /// The todo, as it was restored. It may have been changed or deleted since.
    pub todo: Todo,
    /// Whether an earlier call with this key restored it.
    pub is_replay: bool,
}

/// Restores a todo from the trash, as [`restore`](super::restore), unless a call with this key has
/// restored it within 24 hours: then it returns the todo as it was then. See [`create_once`].
///
/// # Errors
/// [`Error::KeyReused`] if the key was used for another request, [`Error::KeyInUse`] if a call with
/// the same key is still running, [`Error::KeysFull`] as of [`bulk_once`](super::bulk_once); else
/// as [`restore`](super::restore).
pub async fn restore_once(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    id: TodoId,
) -> Result<Restoration> {
    let (answer, is_replay) = restore_or_replay(core, caller, key, id).await?;
    Ok(Restoration { todo: stored_todo(&answer)?, is_replay })
}

/// As [`restore_once`], with the stored answer unparsed: a todo as JSON.
pub(crate) async fn restore_or_replay(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    id: TodoId,
) -> Result<(String, bool)> {
    // The answer has the version that the statement makes, so it is stored by the statement after
    // it. A bulk of one item does that.
    let encode: Encode = |results| {
        let todo = results.first().and_then(BulkResult::todo);
        serde_json::to_string(&todo)
    };
    let key = KeyedRequest::new(*caller, core.now(), key, &("restore", id))?;
    let request = BulkRequest::new(Bulk::Restore(vec![id])).map_err(Error::from)?;
    match run_keyed(core, caller, Some(key), request, encode).await? {
        Done::Results(_, Some(answer)) => Ok((answer, false)),
        Done::Replayed(answer) => Ok((answer, true)),
        Done::Failed(Error::ItemsFailed { reason, .. }) => Err(reason.into()),
        Done::Failed(error) => Err(error),
        Done::Unplanned | Done::Crowded(_) => Err(Error::Busy),
        Done::Results(_, None) => Err(Error::Internal(BoxError::new("an answer is not stored"))),
    }
}

/// The todo of a stored answer.
pub(crate) fn stored_todo(answer: &str) -> Result<Todo> {
    serde_json::from_str(answer).map_err(|error| Error::Internal(BoxError::new(error)))
}

/// As [`create_once`], with the stored answer unparsed.
pub(crate) async fn create_or_replay(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    new: NewTodo,
) -> Result<Answer> {
    // A view, whose trigger inserts both rows.
    macro_rules! insert {
        ($dialect:ident) => {
            concat!(
                "INSERT INTO keyed_todos (id, user_id, title, title_key, description, priority, \
                 completed, created_at, updated_at, search, ",
                detail_columns!(),
                ", key, fingerprint, status, answer) \
                 SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9, $10, $12, $13, $14, $15, $16, $17, \
                 $18, $19, $20, $21, $22, $23, $24, $26, $27, $28, $29 WHERE ",
                authorized!(),
                " AND ",
                is_below_quota!("$11"),
                " AND ",
                is_own_list!("$13"),
                " AND ",
                is_below_tag_quota!($dialect, "$12", "$25"),
                " AND ",
                is_below_reminder_quota!($dialect, "$24", "$30"),
                " RETURNING id",
            )
        };
    }
    const SQL: Text = both!(insert);
    let now = core.now();
    new.details.check(true, now)?;
    let db = core.db();
    let caller = *caller;
    let limits = Limits::of(core);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let request = fingerprint(&new)?;
        // The answer is known before the row is inserted.
        let todo = new_todo(caller, new, now);
        let answer =
            serde_json::to_string(&todo).map_err(|error| Error::Internal(BoxError::new(error)))?;
        let insert =
            bind_todo(acting_as(caller, SQL.of(db.dialect())), &todo).bind(i64::from(limits.todos));
        let insert = details::bind_new(insert, &todo)
            .bind(i64::from(limits.tags))
            .bind(key.as_str())
            .bind(request.clone())
            .bind(CREATED)
            .bind(answer)
            .bind(i64::from(limits.reminders));
        let is_rejected = match db.execute::<Option<(uuid::Uuid,)>>(insert).await {
            Ok(Some(_)) => return Ok(Answer::Created(todo.into())),
            Ok(None) => true,
            Err(fault) if fault.is_unique_violation() => false,
            Err(fault) if fault.is_foreign_key_violation() => return Err(Error::Unauthenticated),
            Err(fault) if fault.is_lock_timeout() => return Err(Error::KeyInUse),
            Err(fault) => return Err(fault.into()),
        };
        Box::pin(async move {
            // The key comes before the quota: a repetition succeeds although the quota is used up.
            match stored_answer(&work, caller, &key, now).await? {
                Some(stored) if stored.fingerprint == request => {
                    Ok(Answer::Replayed(stored.answer))
                }
                Some(_) => Err(Error::KeyReused),
                None if is_rejected => Err(explain_no_insert(&work, caller, &todo, limits).await),
                // The first request with this key was rolled back, or its key has just expired.
                None => Err(Error::KeyInUse),
            }
        })
        .await
    })
    .await
}

/// A hash of what a creation does: a key belongs to it.
fn fingerprint(new: &NewTodo) -> Result<Vec<u8>> {
    let (title, description) =
        (new.title.as_str(), new.description.as_ref().map(Description::as_str));
    match DetailsContent::of(&new.details) {
        None => hash(&("create", title, description, new.priority)),
        Some(details) => hash(&("create", title, description, new.priority, details)),
    }
}

/// What is hashed of details: an absent one is null, a cleared one `[null]`.
#[derive(Serialize)]
pub(super) struct DetailsContent<'a> {
    tags: Option<&'a Tags>,
    due: Option<[&'a Option<Due>; 1]>,
    recurrence: Option<[&'a Option<Recurrence>; 1]>,
    reminders: Option<&'a Reminders>,
    list_id: Option<[Option<ListId>; 1]>,
}

impl<'a> DetailsContent<'a> {
    /// `None` if nothing is given: a request without details has the hash that it had before there
    /// were any.
    pub(super) fn of(details: &'a Details) -> Option<Self> {
        let Details { tags, due, recurrence, reminders, list_id } = details;
        (!details.is_empty()).then(|| Self {
            tags: tags.as_ref(),
            due: due.as_ref().map(|due| [due]),
            recurrence: recurrence.as_ref().map(|recurrence| [recurrence]),
            reminders: reminders.as_ref(),
            list_id: list_id.map(|list| [list]),
        })
    }
}

pub(super) fn hash(request: &impl Serialize) -> Result<Vec<u8>> {
    let request =
        serde_json::to_vec(request).map_err(|error| Error::Internal(BoxError::new(error)))?;
    Ok(Sha256::digest(request).to_vec())
}

/// What is stored with a key.
pub(super) struct StoredAnswer {
    pub(super) fingerprint: Vec<u8>,
    pub(super) answer: String,
}

impl FromRow for StoredAnswer {
    fn from_row(row: &Row<'_>) -> Result<Self, crate::db::DbError> {
        Ok(Self { fingerprint: row.get(0)?, answer: row.get(1)? })
    }
}

/// The answer stored with a key, if there is one and the session is live.
pub(super) async fn stored_answer(
    core: &Core,
    caller: Caller,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
) -> Result<Option<StoredAnswer>> {
    const SQL: &str = concat!(
        "SELECT fingerprint, answer FROM idempotency \
         WHERE user_id = $1 AND key = $4 AND made_at >= $5 AND ",
        authorized!()
    );
    let select = acting_as(caller, SQL).bind(key.as_str()).bind(Timestamp(now - KEY_LIFETIME));
    let stored = async { Ok(core.db().fetch(select).await?) };
    core.read_in_write(caller.user_id(), stored).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::todos::Priority;

    #[test]
    fn keys_are_visible_ascii() {
        let longest = "k".repeat(255);
        for key in ["a", "~!\"", &longest] {
            assert_eq!(IdempotencyKey::parse(key).unwrap().as_str(), key);
        }
        for key in ["", " ", "a b", "a\n", "\u{e9}", "\0", &format!("{longest}k")] {
            assert!(IdempotencyKey::parse(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_fingerprint_covers_every_field() {
        let new = |title: &str| NewTodo::new(title.parse().unwrap());
        let described = |text: &str| new("a").description(Description::parse(text).unwrap());
        let all =
            [new("a"), new("b"), described("a"), described(""), new("a").priority(Priority::High)];
        let prints: Vec<_> = all.iter().map(|new| fingerprint(new).unwrap()).collect();
        let distinct: std::collections::HashSet<_> = prints.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(fingerprint(&new("a")).unwrap(), prints[0]);
    }
}
