//! A statement as both databases take it, and the rows that come of it. A statement's text and its
//! binds are written once (`$1` works on both); each driver binds and reads them in its own types.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Fault,
    columns::{Stamp, Tick},
};

/// One statement: its text, and what is bound to it in the order of its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(super) sql: &'static str,
    pub(super) binds: Vec<Value>,
    /// Whose it is, for what takes callers in turn.
    pub(super) caller: Option<Uuid>,
}

/// What can be bound.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Id(Uuid),
    Flag(bool),
    Number(i64),
    Rank(Option<i16>),
    Text(Option<String>),
    Time(DateTime<Utc>),
    /// One microsecond.
    Tick,
}

#[cfg(test)]
thread_local! {
    /// How many statements this thread has made.
    pub(crate) static MADE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Statement {
    pub(crate) fn new(sql: &'static str) -> Self {
        #[cfg(test)]
        MADE.with(|made| made.set(made.get() + 1));
        // The longest has eleven.
        Self { sql, binds: Vec::with_capacity(11), caller: None }
    }

    /// Says whose it is.
    #[must_use]
    pub(crate) fn of(mut self, caller: Uuid) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Binds the next number.
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.binds.push(value.into());
        self
    }
}

macro_rules! binds {
    ($($type:ty => |$value:ident| $bound:expr),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $bound
            }
        })+
    };
}
binds! {
    Uuid => |id| Self::Id(id),
    bool => |flag| Self::Flag(flag),
    i64 => |number| Self::Number(number),
    &str => |text| Self::Text(Some(text.to_owned())),
    String => |text| Self::Text(Some(text)),
    Option<&str> => |text| Self::Text(text.map(str::to_owned)),
    Option<String> => |text| Self::Text(text),
    Stamp => |stamp| Self::Time(stamp.0),
    Tick => |_tick| Self::Tick,
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
    pub(crate) fn get<T: Column>(&self, index: usize) -> Result<T, Fault> {
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

/// What a column can be read as: whatever each of the drivers that are linked can read.
pub(crate) trait Column: OfSqlite + OfPostgres {}
impl<T: OfSqlite + OfPostgres> Column for T {}

#[cfg(feature = "sqlite")]
pub(crate) use rusqlite::types::FromSql as OfSqlite;
#[cfg(not(feature = "sqlite"))]
pub(crate) trait OfSqlite {}
#[cfg(not(feature = "sqlite"))]
impl<T> OfSqlite for T {}

#[cfg(feature = "postgres")]
pub(crate) trait OfPostgres:
    sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>
{
}
#[cfg(feature = "postgres")]
impl<T> OfPostgres for T where
    T: sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>
{
}
#[cfg(not(feature = "postgres"))]
pub(crate) trait OfPostgres {}
#[cfg(not(feature = "postgres"))]
impl<T> OfPostgres for T {}

/// What is made of one row. Columns are read by position, which spares a look-up by name for each.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &Row<'_>) -> Result<Self, Fault>;
}

macro_rules! tuples {
    ($(($($column:ident $index:tt),+))+) => {
        $(impl<$($column: Column),+> FromRow for ($($column,)+) {
            fn from_row(row: &Row<'_>) -> Result<Self, Fault> {
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

/// What takes the outcome of a statement: its rows one by one, then how many were changed.
pub(crate) trait Rows: Default + Send + 'static {
    fn push(&mut self, row: &Row<'_>) -> Result<(), Fault>;

    fn changed(&mut self, _rows: u64) {}

    /// Whether no further row of a statement that reads is wanted: what follows may be left unread.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "PostgreSQL's rows come whole"))]
    fn is_full(&self) -> bool {
        false
    }
}

/// How many rows a statement changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed(pub(crate) u64);

impl Rows for Changed {
    fn push(&mut self, _: &Row<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn changed(&mut self, rows: u64) {
        self.0 = rows;
    }
}

/// The first row, if there is one.
impl<T: FromRow + Send + 'static> Rows for Option<T> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), Fault> {
        if self.is_none() {
            *self = Some(T::from_row(row)?);
        }
        Ok(())
    }
}

impl<T: FromRow + Send + 'static> Rows for Vec<T> {
    fn push(&mut self, row: &Row<'_>) -> Result<(), Fault> {
        Vec::push(self, T::from_row(row)?);
        Ok(())
    }
}
