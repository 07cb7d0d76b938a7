//! Encoding of values in PostgreSQL, with sqlx. Ids are `uuid`, times are `timestamptz`.

use chrono::{DateTime, Utc};
use sqlx::{
    Arguments, Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, PgValueRef, types::PgInterval},
};

use crate::db::value::{Timestamp, Value};

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

/// The binds of a statement as arguments of the driver.
pub(super) fn arguments(binds: &[Value]) -> sqlx::Result<PgArguments> {
    const ONE_MICROSECOND: PgInterval = PgInterval { months: 0, days: 0, microseconds: 1 };
    let mut arguments = PgArguments::default();
    for value in binds {
        match value {
            Value::Uuid(id) => arguments.add(id),
            Value::Uuids(ids) => arguments.add(ids),
            Value::Bool(flag) => arguments.add(flag),
            Value::BigInt(number) => arguments.add(number),
            Value::SmallInt(rank) => arguments.add(rank),
            Value::Text(text) => arguments.add(text.as_deref()),
            Value::Bytes(bytes) => arguments.add(bytes.as_slice()),
            Value::Timestamp(time) => arguments.add(time),
            Value::OneMicrosecond => arguments.add(ONE_MICROSECOND),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
