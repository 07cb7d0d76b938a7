//! How values are kept in columns, where the two databases differ. A query's text is the same for
//! both; what differs is here and in `migrations/`.

use chrono::{DateTime, Utc};

/// A time: `timestamptz` on PostgreSQL, whole microseconds since the Unix epoch on SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(pub(crate) DateTime<Utc>);

/// One microsecond, to be added to a [`Stamp`] in SQL: an `interval`, or 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick;

#[cfg(feature = "sqlite")]
mod sqlite {
    use chrono::DateTime;
    use rusqlite::{
        ToSql,
        types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
    };

    use super::Stamp;
    use crate::db::statement::Value;

    impl ToSql for Value {
        fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
            let integer = |n: i64| ToSqlOutput::Owned(n.into());
            Ok(match self {
                Self::Id(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
                Self::Flag(flag) => integer((*flag).into()),
                Self::Number(number) => integer(*number),
                Self::Rank(Some(rank)) => integer((*rank).into()),
                Self::Text(Some(text)) => ToSqlOutput::Borrowed(text.as_str().into()),
                Self::Rank(None) | Self::Text(None) => ToSqlOutput::Borrowed(ValueRef::Null),
                Self::Time(time) => integer(time.timestamp_micros()),
                Self::Tick => integer(1),
            })
        }
    }

    impl FromSql for Stamp {
        fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
            let micros = value.as_i64()?;
            DateTime::from_timestamp_micros(micros)
                .map(Self)
                .ok_or(FromSqlError::OutOfRange(micros))
        }
    }
}

/// The same for what copies whole databases, which reads and writes SQLite through sqlx.
#[cfg(all(feature = "server", feature = "sqlite", feature = "postgres"))]
mod sqlite_by_sqlx {
    use chrono::DateTime;
    use sqlx::{
        Decode, Encode, Sqlite, Type,
        encode::IsNull,
        error::BoxDynError,
        sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
    };

    use super::Stamp;

    impl Type<Sqlite> for Stamp {
        fn type_info() -> SqliteTypeInfo {
            <i64 as Type<Sqlite>>::type_info()
        }

        fn compatible(ty: &SqliteTypeInfo) -> bool {
            <i64 as Type<Sqlite>>::compatible(ty)
        }
    }

    impl Encode<'_, Sqlite> for Stamp {
        fn encode_by_ref(&self, buf: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Sqlite>::encode(self.0.timestamp_micros(), buf)
        }
    }

    impl<'r> Decode<'r, Sqlite> for Stamp {
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

    use super::Stamp;
    use crate::db::statement::{Statement, Value};

    impl Type<Postgres> for Stamp {
        fn type_info() -> PgTypeInfo {
            <DateTime<Utc> as Type<Postgres>>::type_info()
        }
    }

    impl Encode<'_, Postgres> for Stamp {
        fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Postgres>::encode(self.0, buf)
        }
    }

    impl<'r> Decode<'r, Postgres> for Stamp {
        fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
            Ok(Self(<DateTime<Utc> as Decode<Postgres>>::decode(value)?))
        }
    }

    impl Statement {
        /// The binds as the driver takes them.
        pub(in crate::db) fn arguments(&self) -> sqlx::Result<PgArguments> {
            const TICK: PgInterval = PgInterval { months: 0, days: 0, microseconds: 1 };
            let mut arguments = PgArguments::default();
            for value in &self.binds {
                match value {
                    Value::Id(id) => arguments.add(id),
                    Value::Flag(flag) => arguments.add(flag),
                    Value::Number(number) => arguments.add(number),
                    Value::Rank(rank) => arguments.add(rank),
                    Value::Text(text) => arguments.add(text.as_deref()),
                    Value::Time(time) => arguments.add(time),
                    Value::Tick => arguments.add(TICK),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        }
    }
}
