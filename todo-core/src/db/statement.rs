//! Statements for both databases, and their rows. A statement's text and its binds are written once
//! (`$1` works on both); each driver binds and decodes them in its own types.

use sqlx::{SqlSafeStr, SqlStr};
use uuid::Uuid;

use super::{COMPOSED_CACHES, DbError, MAX_COMPOSED, value::Value};

/// Maximum number of statements with a fixed text, those of transactions included.
pub(crate) const MAX_FIXED: usize = 224;
/// Prepared statements cached by a connection: enough for all that are kept, so that none of them
/// is prepared twice.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const MAX_PREPARED: usize = MAX_FIXED + COMPOSED_CACHES * MAX_COMPOSED;

/// One statement: its text, and its binds in the order of their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(super) sql: SqlStr,
    pub(super) binds: Vec<Value>,
    /// The caller, for queues that are fair between callers.
    pub(super) caller: Option<Uuid>,
}

#[cfg(test)]
thread_local! {
    /// The number of statements made on this thread.
    pub(crate) static MADE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Statement {
    pub(crate) fn new(sql: impl SqlSafeStr) -> Self {
        #[cfg(test)]
        MADE.with(|made| made.set(made.get() + 1));
        // Enough for most statements.
        Self { sql: sql.into_sql_str(), binds: Vec::with_capacity(16), caller: None }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn sql(&self) -> &str {
        self.sql.as_str()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn binds(&self) -> &[Value] {
        &self.binds
    }

    /// Sets the caller.
    #[must_use]
    pub(crate) fn of(mut self, caller: impl Into<Uuid>) -> Self {
        self.caller = Some(caller.into());
        self
    }

    /// Binds the next parameter.
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.binds.push(value.into());
        self
    }
}

/// A row of either driver.
pub(crate) enum Row<'r> {
    #[cfg(feature = "sqlite")]
    Sqlite(&'r rusqlite::Row<'r>),
    #[cfg(feature = "postgres")]
    Postgres(&'r sqlx::postgres::PgRow),
    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    None(&'r std::convert::Infallible),
}

impl Row<'_> {
    /// The column at `index`, from 0.
    pub(crate) fn get<T: Decode>(&self, index: usize) -> Result<T, DbError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(row) => Ok(row.get(index)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => Ok(sqlx::Row::try_get(*row, index)?),
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            Self::None(never) => match **never {},
        }
    }
}

/// A type that a column can be decoded as, by each of the enabled drivers.
pub(crate) trait Decode: SqliteDecode + PgDecode {}
impl<T: SqliteDecode + PgDecode> Decode for T {}

#[cfg(feature = "sqlite")]
pub(crate) use rusqlite::types::FromSql as SqliteDecode;
#[cfg(not(feature = "sqlite"))]
pub(crate) trait SqliteDecode {}
#[cfg(not(feature = "sqlite"))]
impl<T> SqliteDecode for T {}

#[cfg(feature = "postgres")]
pub(crate) trait PgDecode:
    sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>
{
}
#[cfg(feature = "postgres")]
impl<T> PgDecode for T where T: sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>
{}
#[cfg(not(feature = "postgres"))]
pub(crate) trait PgDecode {}
#[cfg(not(feature = "postgres"))]
impl<T> PgDecode for T {}

/// A type made from one row. Columns are read by position, which saves a lookup by name for each.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError>;
}

macro_rules! tuples {
    ($(($($column:ident $index:tt),+))+) => {
        $(impl<$($column: Decode),+> FromRow for ($($column,)+) {
            fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
                Ok(($(row.get::<$column>($index)?,)+))
            }
        })+
    };
}
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
}

/// The result of a statement: receives its rows one by one, then the number of affected rows.
pub(crate) trait FromRows: Default + Send + 'static {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError>;

    fn set_affected(&mut self, _rows: u64) {}

    /// Whether the remaining rows of a read may be left unread.
    fn is_full(&self) -> bool {
        false
    }
}

/// The receiver of a statement's rows, which may exist before the statement runs.
pub(crate) trait Receive {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError>;

    fn set_affected(&mut self, rows: u64);

    /// As [`FromRows::is_full`].
    #[cfg_attr(
        not(feature = "sqlite"),
        allow(dead_code, reason = "PostgreSQL's rows are all read")
    )]
    fn is_full(&self) -> bool {
        false
    }
}

impl<R: FromRows> Receive for R {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        FromRows::push(self, row)
    }

    fn set_affected(&mut self, rows: u64) {
        FromRows::set_affected(self, rows);
    }

    fn is_full(&self) -> bool {
        FromRows::is_full(self)
    }
}

/// The number of rows that a statement affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowsAffected(pub(crate) u64);

impl FromRows for RowsAffected {
    fn push(&mut self, _: &Row<'_>) -> Result<(), DbError> {
        Ok(())
    }

    fn set_affected(&mut self, rows: u64) {
        self.0 = rows;
    }
}

/// The first row, if there is one.
impl<T: FromRow + Send + 'static> FromRows for Option<T> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        if self.is_none() {
            *self = Some(T::from_row(row)?);
        }
        Ok(())
    }
}

impl<T: FromRow + Send + 'static> FromRows for Vec<T> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        Vec::push(self, T::from_row(row)?);
        Ok(())
    }
}
