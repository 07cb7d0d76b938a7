//! Creation of a list.

use super::types::{List, ListColor, ListName, NewList};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::{
        DbError, FromRow, Row, RowsAffected, Statement,
        batch::{Next, Script},
        value::Timestamp,
    },
    error::{BoxError, Error, Quota, Result},
    todos::{
        IdempotencyKey,
        create::quota_error,
        idempotency::CREATED,
        keyed_request::{KeyState, KeyUse, KeyedRequest},
    },
};

/// SQL expression for the number of the caller's lists.
macro_rules! used_lists {
    () => {
        "(SELECT count(*) FROM lists WHERE user_id = $1 AND deleted_at IS NULL)"
    };
}

/// Creates a list.
///
/// # Errors
/// [`Error::QuotaExceeded`] if the user has as many lists as
/// [`CoreBuilder::max_lists`](crate::CoreBuilder::max_lists) allows; [`Error::Unauthenticated`];
/// else as [`create`](crate::todos::create).
pub async fn create_list(core: &Core, caller: &Caller, new: NewList) -> Result<List> {
    let db = core.db();
    let caller = *caller;
    let limit = core.max_lists();
    let list = new_list(core, new);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        match db.execute(insert(caller, &list, limit)).await {
            Ok(RowsAffected(0)) => Err(Box::pin(explain(&work, caller, limit)).await),
            Ok(_) => Ok(list),
            Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}

/// The outcome of [`create_list_once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListCreation {
    /// The list, as it was created. It may have been changed or deleted since.
    pub list: List,
    /// Whether an earlier call with this key created it.
    pub is_replay: bool,
}

/// Creates a list, unless a call with this key has created it within 24 hours: then it returns that
/// list. See [`create_once`](crate::todos::create_once).
///
/// # Errors
/// [`Error::KeyReused`] if the key was used for another request, [`Error::KeyInUse`] if a call with
/// the same key is still running, [`Error::KeysFull`] as of
/// [`bulk_once`](crate::todos::bulk_once); else as [`create_list`].
pub async fn create_list_once(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    new: NewList,
) -> Result<ListCreation> {
    Ok(match create_list_or_replay(core, caller, key, new).await? {
        ListAnswer::Created(list) => ListCreation { list, is_replay: false },
        ListAnswer::Replayed(answer) => {
            ListCreation { list: stored_list(&answer)?, is_replay: true }
        }
    })
}

/// A creation, or the stored answer to the first request with its key.
#[derive(Clone)]
pub(crate) enum ListAnswer {
    Created(List),
    /// The list as JSON.
    Replayed(String),
}

/// The list of a stored answer.
pub(crate) fn stored_list(answer: &str) -> Result<List> {
    serde_json::from_str(answer).map_err(|error| Error::Internal(BoxError::new(error)))
}

/// As [`create_list_once`], with the stored answer unparsed.
pub(crate) async fn create_list_or_replay(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    new: NewList,
) -> Result<ListAnswer> {
    let content = ("list", new.name.as_str(), new.color.as_ref().map(ListColor::as_str));
    let key = KeyedRequest::new(*caller, core.now(), key, &content)?;
    let caller = *caller;
    let limit = core.max_lists();
    let db = core.db();
    let run = Run {
        caller,
        dialect: db.dialect(),
        key: key.clone(),
        list: new_list(core, new),
        limit,
        step: Step::Begin,
        state: None,
    };
    let user = caller.user_id();
    let work = core.clone();
    core.write(user, async move {
        let failed = match db.execute_script(Some(user.as_uuid()), run).await {
            Ok(Outcome::Answer(answer)) => return Ok(answer),
            Ok(Outcome::Failed(error)) => return Err(error),
            Ok(Outcome::NotInserted) => Box::pin(explain(&work, caller, limit)).await,
            Err(fault) if fault.is_foreign_key_violation() => return Err(Error::Unauthenticated),
            Err(fault) if fault.is_lock_timeout() => return Err(Error::KeyInUse),
            // The key, which another request has used meanwhile; it may have been rolled back.
            Err(fault) if fault.is_unique_violation() => Error::KeyInUse,
            Err(fault) => return Err(fault.into()),
        };
        match Box::pin(key.replay(&work)).await? {
            Some(answer) => Ok(ListAnswer::Replayed(answer)),
            None => Err(failed),
        }
    })
    .await
}

fn new_list(core: &Core, new: NewList) -> List {
    let now = core.now();
    let NewList { name, color } = new;
    List {
        id: new_id(now).into(),
        name,
        color,
        pending: 0,
        completed: 0,
        created_at: now,
        updated_at: now,
    }
}

/// The statement that inserts a list, below the quota.
fn insert(caller: Caller, list: &List, limit: u32) -> Statement {
    const SQL: &str = concat!(
        "INSERT INTO lists (id, user_id, name, color, created_at, updated_at) \
         SELECT $4, $1, $5, $6, $7, $7 WHERE ",
        authorized!(),
        " AND ($8 = 0 OR ",
        used_lists!(),
        " < $8)"
    );
    acting_as(caller, SQL)
        .bind(list.id)
        .bind(ListName::as_str(&list.name))
        .bind(list.color.as_ref().map(ListColor::as_str))
        .bind(Timestamp(list.created_at))
        .bind(i64::from(limit))
}

/// The reason why a list was not inserted.
async fn explain(core: &Core, caller: Caller, limit: u32) -> Error {
    const SQL: &str = concat!("SELECT ", authorized!(), ", ", used_lists!());
    let count = async { Ok(core.db().fetch_one(acting_as(caller, SQL)).await?) };
    match core.read_in_write::<(bool, i64)>(caller.user_id(), count).await {
        Err(error) => error,
        Ok((false, _)) => Error::Unauthenticated,
        // A list that was deleted meanwhile made room.
        Ok((true, used)) => quota_error(Quota::Lists, limit, used).unwrap_or(Error::Busy),
    }
}

/// Looks the key up, inserts the list, and stores the answer.
#[derive(Clone)]
struct Run {
    caller: Caller,
    dialect: crate::db::Dialect,
    key: KeyedRequest,
    list: List,
    limit: u32,
    step: Step,
    state: Option<KeyState>,
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    Key,
    Free,
    Insert,
    Store,
}

enum Outcome {
    Answer(ListAnswer),
    /// The session has ended, or the quota is used up.
    NotInserted,
    Failed(Error),
}

impl Run {
    fn run(&mut self, step: Step, statement: Statement) -> Next<Outcome> {
        self.step = step;
        Next::Run(statement)
    }

    fn insert(&mut self) -> Next<Outcome> {
        let insert = insert(self.caller, &self.list, self.limit);
        self.run(Step::Insert, insert)
    }

    fn judge(&mut self) -> Result<Next<Outcome>, DbError> {
        let state = self.state.take().ok_or(DbError::NoRow)?;
        if !state.is_authorized {
            return Ok(Next::RollBack(Outcome::Failed(Error::Unauthenticated)));
        }
        Ok(match self.key.judge(&state) {
            KeyUse::Repeated(answer) => {
                Next::RollBack(Outcome::Answer(ListAnswer::Replayed(answer)))
            }
            KeyUse::Refused(error) => Next::RollBack(Outcome::Failed(error)),
            KeyUse::Free { is_expired: true } => {
                let free = self.key.free();
                self.run(Step::Free, free)
            }
            KeyUse::Free { is_expired: false } => self.insert(),
        })
    }
}

impl Script for Run {
    type Output = Outcome;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        if let Step::Key = self.step {
            self.state = Some(KeyState::from_row(row)?);
        }
        Ok(())
    }

    fn next(&mut self, rows: u64) -> Result<Next<Outcome>, DbError> {
        Ok(match self.step {
            Step::Begin => {
                let find = self.key.find(self.dialect);
                self.run(Step::Key, find)
            }
            Step::Key => self.judge()?,
            Step::Free => self.insert(),
            Step::Insert if rows == 0 => Next::RollBack(Outcome::NotInserted),
            Step::Insert => match serde_json::to_string(&self.list) {
                Ok(answer) => {
                    let store = self.key.store(CREATED, answer);
                    self.run(Step::Store, store)
                }
                Err(error) => {
                    let error = Error::Internal(BoxError::new(error));
                    Next::RollBack(Outcome::Failed(error))
                }
            },
            // The session has ended meanwhile.
            Step::Store if rows == 0 => Next::RollBack(Outcome::Failed(Error::Unauthenticated)),
            Step::Store => Next::Commit(Outcome::Answer(ListAnswer::Created(self.list.clone()))),
        })
    }
}
