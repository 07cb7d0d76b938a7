//! Encoding of values in columns, where the two databases differ. A query's text is the same for
//! both; the differences are here and in `migrations/`.

use chrono::{DateTime, Utc};

/// A time: `timestamptz` on PostgreSQL, whole microseconds since the Unix epoch on SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp(pub(crate) DateTime<Utc>);

/// One microsecond, to be added to a [`Timestamp`] in SQL: an `interval`, or 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneMicrosecond;

#[cfg(feature = "sqlite")]
mod sqlite {
    use chrono::DateTime;
    use rusqlite::{
        ToSql,
        types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
    };

    use super::Timestamp;
    use crate::db::statement::Value;

    impl ToSql for Value {
        fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
            let integer = |n: i64| ToSqlOutput::Owned(n.into());
            Ok(match self {
                Self::Uuid(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
                Self::Bool(flag) => integer((*flag).into()),
                Self::BigInt(number) => integer(*number),
                Self::SmallInt(Some(rank)) => integer((*rank).into()),
                Self::Text(Some(text)) => ToSqlOutput::Borrowed(text.as_str().into()),
                Self::SmallInt(None) | Self::Text(None) => ToSqlOutput::Borrowed(ValueRef::Null),
                Self::Timestamp(time) => integer(time.timestamp_micros()),
                Self::OneMicrosecond => integer(1),
            })
        }
    }

    impl FromSql for Timestamp {
        fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
            let micros = value.as_i64()?;
            DateTime::from_timestamp_micros(micros)
                .map(Self)
                .ok_or(FromSqlError::OutOfRange(micros))
        }
    }
}

/// The same codec for copies of whole databases, which access SQLite through sqlx.
#[cfg(feature = "admin")]
mod sqlite_by_sqlx {
    use chrono::DateTime;
    use sqlx::{
        Decode, Encode, Sqlite, Type,
        encode::IsNull,
        error::BoxDynError,
        sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
    };

    use super::Timestamp;

    impl Type<Sqlite> for Timestamp {
        fn type_info() -> SqliteTypeInfo {
            <i64 as Type<Sqlite>>::type_info()
        }

        fn compatible(ty: &SqliteTypeInfo) -> bool {
            <i64 as Type<Sqlite>>::compatible(ty)
        }
    }

    impl Encode<'_, Sqlite> for Timestamp {
        fn encode_by_ref(&self, buf: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Sqlite>::encode(self.0.timestamp_micros(), buf)
        }
    }

    impl<'r> Decode<'r, Sqlite> for Timestamp {
        fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
            let micros = <i64 as Decode<Sqlite>>::decode(value)?;
            Ok(Self(DateTime::from_timestamp_micros(micros).ok_or("time out of range")?))
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use chrono::{DateTime, Utc};
    use sqlx::{
        Arguments, Decode, Encode, Postgres, Type,
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, PgValueRef, types::PgInterval},
    };

    use super::Timestamp;
    use crate::db::statement::{Statement, Value};

    impl Type<Postgres> for Timestamp {
        fn type_info() -> PgTypeInfo {
            <DateTime<Utc> as Type<Postgres>>::type_info()
        }
    }

    impl Encode<'_, Postgres> for Timestamp {
        fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Postgres>::encode(self.0, buf)
        }
    }

    impl<'r> Decode<'r, Postgres> for Timestamp {
        fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
            Ok(Self(<DateTime<Utc> as Decode<Postgres>>::decode(value)?))
        }
    }

    impl Statement {
        /// The binds as arguments of the driver.
        pub(in crate::db) fn arguments(&self) -> sqlx::Result<PgArguments> {
            const ONE_MICROSECOND: PgInterval = PgInterval { months: 0, days: 0, microseconds: 1 };
            let mut arguments = PgArguments::default();
            for value in &self.binds {
                match value {
                    Value::Uuid(id) => arguments.add(id),
                    Value::Bool(flag) => arguments.add(flag),
                    Value::BigInt(number) => arguments.add(number),
                    Value::SmallInt(rank) => arguments.add(rank),
                    Value::Text(text) => arguments.add(text.as_deref()),
                    Value::Timestamp(time) => arguments.add(time),
                    Value::OneMicrosecond => arguments.add(ONE_MICROSECOND),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        }
    }
}
