//! Many todos at once, in one transaction: all items take effect or none, unless the request is
//! partial.
//!
//! The number of statements does not depend on the number of items: one finds and locks the todos,
//! one changes them. A creation needs the second one only.

use serde::Serialize;

#[cfg(feature = "http")]
pub(crate) use self::request::number_error;
pub use self::request::{Bulk, BulkOutcome, BulkRequest, BulkResult};
use self::{recurring::Plan, script::Run, statements::Circumstances};
pub(super) use self::{
    script::{Done, Encode},
    statements::{
        Text, are_items, as_time, as_uuid, both, for_update, is_callers_row, is_item, item_details,
        item_id, items, member, new_item,
    },
};
use super::{
    Description, Details, IdempotencyKey, NewTodo, TodoId, TodoPatch, idempotency::DetailsContent,
    keyed_request::KeyedRequest,
};
use crate::{
    authz::Caller,
    clock::new_id,
    core::Core,
    error::{BoxError, Error, FieldErrors, ItemError, Result},
};

mod occurrences;
mod recurring;
mod reminders;
mod request;
mod script;
mod statements;

/// Maximum number of times that the next occurrences of recurring todos are computed, if others
/// change the todos meanwhile.
const MAX_PLANS: usize = 10;

/// The outcome of [`bulk_once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkAnswer {
    /// The result of each item, as it was. The todos may have been changed or deleted since.
    pub results: Vec<BulkResult>,
    /// Whether an earlier call with this key did it.
    pub is_replay: bool,
}

/// Creates, updates, completes, deletes or restores up to [`BulkRequest::MAX_ITEMS`] todos, and
/// returns the result of each item, in their order.
///
/// Each change is in the log of [`changes`](super::changes): creations in the order of the items,
/// deletions and restorations in the order of the ids.
///
/// ```
/// use todo_core::{Core, Error, auth::Caller, todos::{self, Bulk, BulkRequest, TodoId}};
///
/// async fn complete(core: &Core, caller: &Caller, ids: Vec<TodoId>) -> Result<(), Error> {
///     let request = BulkRequest::new(Bulk::Complete { ids, completed: true })?;
///     todos::bulk(core, caller, request).await?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`Error::ItemsFailed`] with all items that failed, unless the request is
/// [partial](BulkRequest::partial): a todo does not exist, or belongs to another user, or the user
/// would have more todos or reminders than allowed. Else as [`create`](super::create).
pub async fn bulk(core: &Core, caller: &Caller, request: BulkRequest) -> Result<Vec<BulkResult>> {
    match run(core, caller, None, request).await? {
        Done::Results(results, _) => Ok(results),
        Done::Failed(error) => Err(error),
        Done::Replayed(_) => Err(Error::Internal(BoxError::new("a replay without a key"))),
        Done::Unplanned | Done::Crowded(_) => Err(Error::Busy),
    }
}

/// As [`bulk`], unless a call with this key has done it within 24 hours: then it returns the
/// results of that call. The key is stored in the same transaction as the changes. A call that
/// fails stores nothing.
///
/// # Errors
/// [`Error::KeyReused`] if the key was used for another request, [`Error::KeyInUse`] if a call with
/// the same key is still running, [`Error::KeysFull`] if the user's stored answers exceed 32 MiB;
/// else as [`bulk`].
pub async fn bulk_once(
    core: &Core,
    caller: &Caller,
    key: IdempotencyKey,
    request: BulkRequest,
) -> Result<BulkAnswer> {
    match run(core, caller, Some(key), request).await? {
        Done::Results(results, _) => Ok(BulkAnswer { results, is_replay: false }),
        Done::Failed(error) => Err(error),
        Done::Unplanned | Done::Crowded(_) => Err(Error::Busy),
        Done::Replayed(answer) => {
            let stored: StoredResults =
                serde_json::from_str(&answer).map_err(|e| Error::Internal(BoxError::new(e)))?;
            Ok(BulkAnswer { results: stored.results, is_replay: true })
        }
    }
}

/// A bulk's answer as JSON, and whether it was stored by an earlier request.
#[cfg(feature = "http")]
pub(crate) async fn bulk_as_json(
    core: &Core,
    caller: &Caller,
    key: Option<IdempotencyKey>,
    request: BulkRequest,
) -> Result<(String, bool)> {
    match run(core, caller, key, request).await? {
        Done::Results(_, Some(answer)) => Ok((answer, false)),
        Done::Results(results, None) => {
            let answer = encode(&results).map_err(|e| Error::Internal(BoxError::new(e)))?;
            Ok((answer, false))
        }
        Done::Failed(error) => Err(error),
        Done::Unplanned | Done::Crowded(_) => Err(Error::Busy),
        Done::Replayed(answer) => Ok((answer, true)),
    }
}

/// The answer as it is stored.
#[derive(serde::Deserialize)]
struct StoredResults {
    results: Vec<BulkResult>,
}

fn encode(results: &[BulkResult]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Results<'a> {
        results: &'a [BulkResult],
    }
    serde_json::to_string(&Results { results })
}

async fn run(
    core: &Core,
    caller: &Caller,
    key: Option<IdempotencyKey>,
    request: BulkRequest,
) -> Result<Done> {
    let content = Content::of(&request);
    let key = key.map(|key| KeyedRequest::new(*caller, core.now(), key, &content)).transpose()?;
    run_keyed(core, caller, key, request, encode).await
}

/// Runs a bulk, whose answer `encode` makes.
pub(super) async fn run_keyed(
    core: &Core,
    caller: &Caller,
    key: Option<KeyedRequest>,
    request: BulkRequest,
    encode: Encode,
) -> Result<Done> {
    let now = core.now();
    let db = core.db();
    let circumstances = Circumstances {
        caller: *caller,
        dialect: db.dialect(),
        now,
        oldest: now - core.trash_lifetime(),
        keeps_trash: !core.trash_lifetime().is_zero(),
        max_todos: core.max_todos().into(),
        max_tags: core.max_tags(),
        max_reminders: core.max_reminders(),
    };
    // In ascending order: lists and the log then have the todos in the order of the items.
    let mut new_ids: Vec<TodoId> = match &request.bulk {
        Bulk::Create(new) => new.iter().map(|_| new_id(now).into()).collect(),
        _ => Vec::new(),
    };
    new_ids.sort_unstable();
    if let Bulk::Patch { patch, .. } = &request.bulk {
        patch.details.check(false, now).map_err(|errors| errors.below("patch"))?;
    }
    let ids = request.bulk.ids().to_vec();
    let is_partial = request.is_partial;
    let mut script = Run::new(circumstances, request, &new_ids, key.clone(), encode);
    script.check();
    if let Some(failure) = script.failure().filter(|_| !is_partial) {
        return Ok(Done::Failed(failure));
    }
    let user = caller.user_id();
    let work = core.clone();
    core.write(user, async move {
        let mut done = db.execute_script(Some(user.as_uuid()), script.clone()).await;
        for _ in 0..MAX_PLANS {
            match done {
                Ok(Done::Unplanned) => {
                    let plan = Box::pin(Plan::make(&work, circumstances, &ids)).await?;
                    script = script.planned(plan);
                }
                Ok(Done::Crowded(items)) => script.fail(items),
                // The day of an occurrence was taken meanwhile. With a key, it may be the key.
                Err(ref fault) if key.is_none() && fault.is_unique_violation() => {}
                _ => break,
            }
            done = db.execute_script(Some(user.as_uuid()), script.clone()).await;
        }
        let failed = match done {
            Ok(Done::Failed(
                error @ (Error::ItemsFailed { .. } | Error::Busy | Error::Internal(_)),
            )) => error,
            Ok(done) => return Ok(done),
            Err(fault) if fault.is_foreign_key_violation() => return Err(Error::Unauthenticated),
            Err(fault) if key.is_some() && fault.is_lock_timeout() => return Err(Error::KeyInUse),
            // The key, which another request has used meanwhile; it may have been rolled back.
            Err(fault) if key.is_some() && fault.is_unique_violation() => Error::KeyInUse,
            Err(fault) if fault.is_unique_violation() => return Err(Error::Busy),
            Err(fault) => return Err(fault.into()),
        };
        let Some(key) = key else { return Ok(Done::Failed(failed)) };
        // Another request with this key may have taken effect while this one was waiting.
        match Box::pin(key.replay(&work)).await {
            Ok(Some(answer)) => Ok(Done::Replayed(answer)),
            Ok(None) => Ok(Done::Failed(failed)),
            // The resource comes before the key.
            Err(Error::KeyReused) if is_about_resource(&failed) => Ok(Done::Failed(failed)),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Whether a todo was not found, or belongs to another user.
fn is_about_resource(error: &Error) -> bool {
    matches!(error, Error::ItemsFailed { reason: ItemError::NotFound | ItemError::Forbidden, .. })
}

/// All that a request does: a key belongs to it.
#[derive(Serialize)]
struct Content<'a> {
    bulk: &'static str,
    is_partial: bool,
    ids: &'a [TodoId],
    new: Vec<(&'a str, Option<&'a str>, i16)>,
    patch: Option<PatchContent<'a>>,
    completed: Option<bool>,
    rejected: &'a [(usize, FieldErrors)],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<IndexedDetails<'a>>,
}

type PatchContent<'a> = (Option<&'a str>, Option<Option<&'a str>>, bool, Option<i16>);
/// Of a new todo or a patch, by its index.
type IndexedDetails<'a> = (usize, DetailsContent<'a>);

impl<'a> Content<'a> {
    fn of(request: &'a BulkRequest) -> Self {
        fn new_content(new: &NewTodo) -> (&str, Option<&str>, i16) {
            let description = new.description.as_ref().map(Description::as_str);
            (new.title.as_str(), description, new.priority.rank())
        }
        fn patch_content(patch: &TodoPatch) -> PatchContent<'_> {
            let description = patch.description.as_ref();
            (
                patch.title.as_ref().map(super::Title::as_str),
                description.map(|text| text.as_ref().map(Description::as_str)),
                description.is_some(),
                patch.priority.map(super::Priority::rank),
            )
        }
        let BulkRequest { bulk, is_partial, rejected } = request;
        Self {
            bulk: match bulk {
                Bulk::Create(_) => "bulk create",
                Bulk::Patch { .. } => "bulk patch",
                Bulk::Complete { .. } => "bulk complete",
                Bulk::Delete(_) => "bulk delete",
                Bulk::Restore(_) => "bulk restore",
            },
            is_partial: *is_partial,
            ids: bulk.ids(),
            new: match bulk {
                Bulk::Create(new) => new.iter().map(new_content).collect(),
                _ => Vec::new(),
            },
            patch: match bulk {
                Bulk::Patch { patch, .. } => Some(patch_content(patch)),
                _ => None,
            },
            completed: match bulk {
                Bulk::Complete { completed, .. } => Some(*completed),
                _ => None,
            },
            rejected,
            details: match bulk {
                Bulk::Create(new) => indexed(new.iter().map(|new| &new.details)),
                Bulk::Patch { patch, .. } => indexed(std::iter::once(&patch.details)),
                _ => Vec::new(),
            },
        }
    }
}

fn indexed<'a>(details: impl Iterator<Item = &'a Details>) -> Vec<IndexedDetails<'a>> {
    let given = details.enumerate();
    given.filter_map(|(index, details)| Some((index, DetailsContent::of(details)?))).collect()
}
