//! The export of an account: everything that is stored about a user, for the user.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Caller, User, current_user, limited::Limited};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row, value::Timestamp},
    error::Result,
    timestamp,
    todos::{Todo, TodoWalk, TrashedTodo, WalkPage},
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
    /// Accounts elsewhere that are linked with this one: none.
    pub identities: [(); 0],
    /// The sessions that have not ended, the oldest first.
    pub sessions: Vec<ExportedSession>,
    /// The API keys that have not expired, the oldest first.
    pub keys: Vec<ExportedKey>,
}

/// A session in an export.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExportedSession {
    /// Its id.
    pub id: Uuid,
    /// How it was created, such as `password`.
    pub kind: String,
    /// The program that created it.
    pub label: Option<String>,
    /// The network address that it was created from.
    pub client: Option<String>,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last used, if that is known.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub seen_at: Option<DateTime<Utc>>,
    /// When it expires.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: DateTime<Utc>,
    /// Whether it is the caller's.
    pub current: bool,
}

/// An API key in an export, without the key itself, which is not stored.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExportedKey {
    /// Its id.
    pub id: Uuid,
    /// The name that its user has given it.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<&'static str>,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last used, if that is known.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub seen_at: Option<DateTime<Utc>>,
    /// When it expires.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: DateTime<Utc>,
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
/// [`Error::RateLimited`](crate::Error::RateLimited); else as
/// [`authenticate`](super::authenticate).
pub async fn export(core: &Core, caller: &Caller) -> Result<Export> {
    export_limited(core, caller).await.result
}

/// As [`export`], with the state of the limit.
pub(crate) async fn export_limited(core: &Core, caller: &Caller) -> Limited<Export> {
    let begun = async {
        let state = limit::take(core, *caller).await?;
        Ok((begin(core, caller).await, state))
    };
    Limited::new(begun.await)
}

async fn begin(core: &Core, caller: &Caller) -> Result<Export> {
    let exported_at = core.now();
    let user = current_user(core, caller).await?;
    let rows = credentials(core, *caller, exported_at).await?;
    let (keys, sessions): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.kind == "key");
    let head = ExportHead {
        format: FORMAT,
        version: VERSION,
        exported_at,
        user,
        identities: [],
        sessions: sessions.into_iter().map(|row| row.into_session(caller)).collect(),
        keys: keys.into_iter().map(CredentialRow::into_key).collect(),
    };
    Ok(Export { head, walk: TodoWalk::new(core, caller)? })
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

/// A row of `sessions`.
struct CredentialRow {
    id: Uuid,
    kind: String,
    label: Option<String>,
    client: Option<String>,
    created_at: DateTime<Utc>,
    seen_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    scopes: i64,
}

impl FromRow for CredentialRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get(0)?,
            kind: row.get(1)?,
            label: row.get(2)?,
            client: row.get(3)?,
            created_at: row.get::<Timestamp>(4)?.0,
            seen_at: row.get::<Option<Timestamp>>(5)?.map(|seen_at| seen_at.0),
            expires_at: row.get::<Timestamp>(6)?.0,
            scopes: row.get(7)?,
        })
    }
}

impl CredentialRow {
    fn into_session(self, caller: &Caller) -> ExportedSession {
        ExportedSession {
            current: caller.session() == Some(self.id),
            id: self.id,
            kind: self.kind,
            label: self.label,
            client: self.client,
            created_at: self.created_at,
            seen_at: self.seen_at,
            expires_at: self.expires_at,
        }
    }

    fn into_key(self) -> ExportedKey {
        /// The scopes, by their bits.
        const SCOPES: [(i64, &str); 3] =
            [(1, "todos:read"), (2, "todos:write"), (4, "account:read")];
        let has = |(bit, _): &&(i64, &str)| self.scopes & bit != 0;
        ExportedKey {
            id: self.id,
            name: self.label.unwrap_or_default(),
            scopes: SCOPES.iter().filter(has).map(|(_, name)| *name).collect(),
            created_at: self.created_at,
            seen_at: self.seen_at,
            expires_at: self.expires_at,
        }
    }
}

/// The caller's sessions and keys: the schema limits their number.
async fn credentials(
    core: &Core,
    caller: Caller,
    now: DateTime<Utc>,
) -> Result<Vec<CredentialRow>> {
    const SQL: &str = concat!(
        "SELECT id, kind, label, client, created_at, seen_at, expires_at, scopes FROM sessions \
         WHERE user_id = $1 AND expires_at > $4 AND ",
        authorized!(),
        " ORDER BY created_at, id"
    );
    let db = core.db();
    core.read(caller.user_id(), async move {
        Ok(db.fetch(acting_as(caller, SQL).bind(Timestamp(now))).await?)
    })
    .await
}
