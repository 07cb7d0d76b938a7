//! Encoding of values in SQLite, with rusqlite. Ids are blobs, times are microseconds.

use chrono::DateTime;
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use crate::db::value::{Timestamp, Value};

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let integer = |n: i64| ToSqlOutput::Owned(n.into());
        Ok(match self {
            Self::Uuid(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
            Self::Bool(flag) => integer((*flag).into()),
            Self::BigInt(number) => integer(*number),
            Self::SmallInt(Some(rank)) => integer((*rank).into()),
            Self::Text(Some(text)) => ToSqlOutput::Borrowed(text.as_str().into()),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::SmallInt(None) | Self::Text(None) => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Timestamp(time) => integer(time.timestamp_micros()),
            Self::OneMicrosecond => integer(1),
        })
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        DateTime::from_timestamp_micros(micros).map(Self).ok_or(FromSqlError::OutOfRange(micros))
    }
}
