//! Encoding of values in SQLite, with rusqlite. Ids are blobs, times are microseconds.

use chrono::DateTime;
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use uuid::Uuid;

use crate::db::value::{Timestamp, Value};

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let integer = |n: i64| ToSqlOutput::Owned(n.into());
        Ok(match self {
            Self::Uuid(Some(id)) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
            Self::Uuids(ids) => ToSqlOutput::Owned(json_array(ids).into()),
            Self::Bool(flag) => integer((*flag).into()),
            Self::BigInt(Some(number)) => integer(*number),
            Self::SmallInt(Some(rank)) => integer((*rank).into()),
            Self::Text(Some(text)) => ToSqlOutput::Borrowed(text.as_str().into()),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Uuid(None)
            | Self::BigInt(None)
            | Self::SmallInt(None)
            | Self::Text(None)
            | Self::Timestamp(None) => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Timestamp(Some(time)) => integer(time.timestamp_micros()),
            Self::OneMicrosecond => integer(1),
        })
    }
}

/// A JSON array of ids as hexadecimal texts, for `json_each` and `unhex`.
fn json_array(ids: &[Uuid]) -> String {
    let mut json = String::with_capacity(ids.len() * 35 + 2);
    json.push('[');
    for (number, id) in ids.iter().enumerate() {
        if number > 0 {
            json.push(',');
        }
        let mut text = Uuid::encode_buffer();
        json.push('"');
        json.push_str(id.simple().encode_lower(&mut text));
        json.push('"');
    }
    json.push(']');
    json
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        DateTime::from_timestamp_micros(micros).map(Self).ok_or(FromSqlError::OutOfRange(micros))
    }
}
