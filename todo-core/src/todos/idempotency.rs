//! Creations that may be repeated: a client that got no response sends the same request with the
//! same key again, and gets the answer to the first one.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Bulk, BulkRequest, BulkResult, Description, NewTodo, Todo, TodoId,
    bulk::{Done, Encode, run_keyed},
    create::{explain_no_insert, is_below_quota, used_quota},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::{FromRow, Row, Statement, value::Timestamp},
    error::{BoxError, Error, FieldError, Result},
    parsed::{impl_as_str, impl_parse},
};

/// The time for which a key is kept.
pub(super) const KEY_LIFETIME: TimeDelta = TimeDelta::hours(24);
/// The status of the answer to a creation.
const CREATED: i16 = 201;
/// The status of the answers to other requests.
const OK: i16 = 200;

/// A user's stored answers of more than 8 KiB have at most this size together. The
/// one that exceeds it is stored: it has at most a few MB.
const MAX_STORED_BYTES: u64 = 32 << 20;

/// SQL condition of the answers that count towards [`MAX_STORED_BYTES`]; an index has them.
macro_rules! is_long {
    () => {
        "octet_length(answer) > 8192"
    };
}

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
    Created(Todo),
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
        Answer::Created(todo) => Creation { todo, is_replay: false },
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
    const SQL: &str = concat!(
        "INSERT INTO keyed_todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at, key, fingerprint, status, answer) \
         SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9, $11, $12, $13, $14 WHERE ",
        authorized!(),
        " AND ",
        is_below_quota!("$10"),
        " RETURNING id",
    );
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let limit = core.max_todos();
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let title_key = crate::validate::sort_key(new.title.as_str());
        let request = fingerprint(&new)?;
        // The answer is known before the row is inserted.
        let todo = Todo {
            id: new_id(now).into(),
            user_id: caller.user_id(),
            title: new.title,
            description: new.description,
            priority: new.priority,
            completed: false,
            created_at: now,
            updated_at: now,
            completed_at: None,
        };
        let answer =
            serde_json::to_string(&todo).map_err(|error| Error::Internal(BoxError::new(error)))?;
        let insert = acting_as(caller, SQL)
            .bind(todo.id)
            .bind(todo.title.as_str())
            .bind(title_key)
            .bind(todo.description.as_ref().map(Description::as_str))
            .bind(todo.priority)
            .bind(Timestamp(now))
            .bind(i64::from(limit))
            .bind(key.as_str())
            .bind(request.clone())
            .bind(CREATED)
            .bind(answer);
        let is_rejected = match db.execute::<Option<(uuid::Uuid,)>>(insert).await {
            Ok(Some(_)) => return Ok(Answer::Created(todo)),
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
                None if is_rejected => Err(explain_no_insert(&work, caller, limit).await),
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
    let description = new.description.as_ref().map(Description::as_str);
    hash(&("create", new.title.as_str(), description, new.priority))
}

fn hash(request: &impl Serialize) -> Result<Vec<u8>> {
    let request =
        serde_json::to_vec(request).map_err(|error| Error::Internal(BoxError::new(error)))?;
    Ok(Sha256::digest(request).to_vec())
}

/// A key, and a hash of the request that it belongs to: for a script that makes an answer known
/// only after its statements, and stores it in their transaction.
///
/// It looks the key up first, so that a repetition changes nothing. Two requests at once may both
/// find none: then the unique index lets the second one wait, and rejects it.
#[derive(Clone, Debug)]
pub(super) struct KeyedRequest {
    caller: Caller,
    now: DateTime<Utc>,
    key: IdempotencyKey,
    fingerprint: Vec<u8>,
}

/// What is known of a key, and of its user: the row of [`KeyedRequest::find`].
#[derive(Clone, Debug)]
pub(super) struct KeyState {
    pub(super) is_authorized: bool,
    fingerprint: Option<Vec<u8>>,
    answer: Option<String>,
    made_at: Option<DateTime<Utc>>,
    stored_bytes: i64,
}

impl FromRow for KeyState {
    fn from_row(row: &Row<'_>) -> Result<Self, crate::db::DbError> {
        Ok(Self {
            is_authorized: row.get(0)?,
            fingerprint: row.get(1)?,
            answer: row.get(2)?,
            made_at: row.get::<Option<Timestamp>>(3)?.map(|time| time.0),
            stored_bytes: row.get(4)?,
        })
    }
}

/// What a key means for a request.
pub(super) enum KeyUse {
    /// No request had it, or the last one more than [`KEY_LIFETIME`] ago.
    Free { is_expired: bool },
    /// The same request had it; this was the answer.
    Repeated(String),
    /// Another request had it, or no further answer may be stored.
    Refused(Error),
}

impl KeyedRequest {
    /// A key and the request, which must contain all that the request does.
    pub(super) fn new(
        caller: Caller,
        now: DateTime<Utc>,
        key: IdempotencyKey,
        request: &impl Serialize,
    ) -> Result<Self> {
        Ok(Self { caller, now, key, fingerprint: hash(request)? })
    }

    /// The statement that returns the [`KeyState`].
    pub(super) fn find(&self) -> Statement {
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            ", fingerprint, answer, made_at, \
             (SELECT coalesce(sum(octet_length(answer)), 0) FROM idempotency \
             WHERE user_id = $1 AND ",
            is_long!(),
            ") FROM (SELECT 1 AS one) AS one LEFT JOIN idempotency ON user_id = $1 AND key = $4"
        );
        acting_as(self.caller, SQL).bind(self.key.as_str())
    }

    pub(super) fn judge(&self, state: KeyState) -> KeyUse {
        match (state.fingerprint, state.answer, state.made_at) {
            (Some(fingerprint), Some(answer), Some(made_at))
                if made_at >= self.now - KEY_LIFETIME =>
            {
                if fingerprint == self.fingerprint {
                    KeyUse::Repeated(answer)
                } else {
                    KeyUse::Refused(Error::KeyReused)
                }
            }
            (found, ..) => {
                let used = state.stored_bytes.unsigned_abs();
                if used >= MAX_STORED_BYTES {
                    return KeyUse::Refused(Error::KeysFull { limit: MAX_STORED_BYTES, used });
                }
                KeyUse::Free { is_expired: found.is_some() }
            }
        }
    }

    /// The statement that deletes the expired key.
    pub(super) fn free(&self) -> Statement {
        const SQL: &str =
            concat!("DELETE FROM idempotency WHERE user_id = $1 AND key = $4 AND ", authorized!());
        acting_as(self.caller, SQL).bind(self.key.as_str())
    }

    /// The statement that stores the answer.
    pub(super) fn store(&self, answer: String) -> Statement {
        const SQL: &str = concat!(
            "INSERT INTO idempotency (user_id, key, fingerprint, status, answer, made_at) \
             SELECT $1, $4, $5, $6, $7, $8 WHERE ",
            authorized!()
        );
        acting_as(self.caller, SQL)
            .bind(self.key.as_str())
            .bind(self.fingerprint.clone())
            .bind(OK)
            .bind(answer)
            .bind(Timestamp(self.now))
    }

    /// The stored answer, for a request that failed: another one with this key may have taken
    /// effect meanwhile. [`Error::KeyReused`] if that was another request.
    pub(super) async fn replay(&self, core: &Core) -> Result<Option<String>> {
        match stored_answer(core, self.caller, &self.key, self.now).await? {
            None => Ok(None),
            Some(stored) if stored.fingerprint == self.fingerprint => Ok(Some(stored.answer)),
            Some(_) => Err(Error::KeyReused),
        }
    }
}

/// What is stored with a key.
struct StoredAnswer {
    fingerprint: Vec<u8>,
    answer: String,
}

impl FromRow for StoredAnswer {
    fn from_row(row: &Row<'_>) -> Result<Self, crate::db::DbError> {
        Ok(Self { fingerprint: row.get(0)?, answer: row.get(1)? })
    }
}

/// The answer stored with a key, if there is one and the session is live.
async fn stored_answer(
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
    Ok(core.db().fetch(select).await?)
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
