//! The export of an account: everything that is stored about a user, for the user.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    Caller, Identity, KeyInfo, SessionInfo, User, current_user, identities, keys::live_keys,
    limited::Limited, sessions,
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::value::Timestamp,
    error::{Error, Result},
    timestamp,
    todos::{self, List, Todo, TodoWalk, TrashedTodo, WalkPage},
};

pub(crate) mod limit;

/// The format of an export, as its `format` and `version` say.
const FORMAT: &str = "todo-export";
const VERSION: u32 = 1;

/// An export that is being read: see [`export`].
pub struct Export {
    head: ExportHead,
    walk: TodoWalk,
}

/// The beginning of an export: everything but todos. As JSON, these are the members of the file
/// before `todos` and `trash`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExportHead {
    /// `todo-export`
    pub format: &'static str,
    /// 1
    pub version: u32,
    /// When the export began.
    #[serde(serialize_with = "timestamp::serialize")]
    pub exported_at: DateTime<Utc>,
    /// The account.
    pub user: User,
    /// The identities by which the user logs in, the oldest first.
    pub identities: Vec<Identity>,
    /// The live sessions, the newest first.
    pub sessions: Vec<SessionInfo>,
    /// The API keys that have not expired, the newest first.
    pub keys: Vec<KeyInfo>,
    /// The lists, in the order of their creation.
    pub lists: Vec<List>,
    /// The webhook, if there is one.
    pub webhook: Option<ExportedWebhook>,
}

/// A webhook in an export: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExportedWebhook {
    /// Where reminders are sent.
    pub url: String,
    /// When it was set.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
}

/// A piece of an export.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExportPart {
    /// Some of the todos, in the order of their creation.
    Todos(Vec<Todo>),
    /// Some of the todos in the trash, in the order of their deletion, after all todos.
    Trash(Vec<TrashedTodo>),
}

/// Begins an export of the caller's account: two an hour for each user, counted in the database. A
/// [trusted](Caller::trusted) caller has no limit.
///
/// The parts are separate reads, not one snapshot. A todo that exists throughout is exported once,
/// whatever changes meanwhile. One that is deleted meanwhile is exported at least once; one that is
/// restored from the trash meanwhile may be missing.
///
/// ```
/// use todo_core::{Core, Error, auth::{self, Caller, ExportPart}};
///
/// async fn titles(core: &Core, caller: &Caller) -> Result<Vec<String>, Error> {
///     let mut export = auth::export(core, caller).await?;
///     let mut titles = Vec::new();
///     while let Some(part) = export.next().await? {
///         if let ExportPart::Todos(todos) = part {
///             titles.extend(todos.into_iter().map(|todo| todo.title.into()));
///         }
///     }
///     Ok(titles)
/// }
/// ```
///
/// # Errors
/// [`Error::RateLimited`](crate::Error::RateLimited),
/// [`Error::InsufficientScope`](crate::Error::InsufficientScope) if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn export(core: &Core, caller: &Caller) -> Result<Export> {
    export_limited(core, caller).await.result
}

/// As [`export`], with the state of the limit.
pub(crate) async fn export_limited(core: &Core, caller: &Caller) -> Limited<Export> {
    let begun = async {
        caller.require_no_key()?;
        let state = limit::take(core, *caller).await?;
        Ok((begin(core, caller).await, state))
    };
    Limited::new(begun.await)
}

async fn begin(core: &Core, caller: &Caller) -> Result<Export> {
    let exported_at = core.now();
    let user = current_user(core, caller).await?;
    let head = ExportHead {
        format: FORMAT,
        version: VERSION,
        exported_at,
        user,
        identities: identities(core, caller).await?,
        sessions: sessions(core, caller).await?,
        keys: live_keys(core, caller, exported_at).await?,
        lists: todos::lists(core, caller).await?.lists,
        webhook: webhook(core, *caller).await?,
    };
    Ok(Export { head, walk: TodoWalk::new(core, caller)? })
}

async fn webhook(core: &Core, caller: Caller) -> Result<Option<ExportedWebhook>> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", url, created_at FROM (SELECT 1 AS one) AS one LEFT JOIN webhooks ON user_id = $1"
    );
    let db = core.db();
    let read = async move { Ok(db.fetch_one(acting_as(caller, SQL)).await?) };
    let found: (bool, Option<String>, Option<Timestamp>) =
        core.read(caller.user_id(), read).await?;
    let (is_authorized, url, created_at) = found;
    if !is_authorized {
        return Err(Error::Unauthenticated);
    }
    let webhook = url.zip(created_at);
    Ok(webhook.map(|(url, Timestamp(created_at))| ExportedWebhook { url, created_at }))
}

impl Export {
    /// The beginning of the export.
    #[must_use]
    pub fn head(&self) -> &ExportHead {
        &self.head
    }

    /// Reads the next part: at most 500 todos, and at most 256 KiB of JSON. A part may be empty.
    /// Returns `None` after the last part.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`](crate::Error::Unauthenticated) if the caller's session has ended,
    /// also between two parts; else as [`authenticate`](super::authenticate). The call can be
    /// repeated after an error.
    pub async fn next(&mut self) -> Result<Option<ExportPart>> {
        let page = self.walk.next().await?;
        Ok(page.map(|page| match page {
            WalkPage::Todos(todos) => ExportPart::Todos(todos),
            WalkPage::Trash(todos) => ExportPart::Trash(todos),
        }))
    }
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("head", &self.head).finish_non_exhaustive()
    }
}
