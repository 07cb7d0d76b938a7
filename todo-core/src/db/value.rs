//! Values that a statement binds. How each is stored is in the codecs of the drivers and in
//! `migrations/`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A value that can be bound.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Uuid(Option<Uuid>),
    /// A set: an array on PostgreSQL, a JSON array of hexadecimal texts on SQLite.
    Uuids(Vec<Uuid>),
    Bool(bool),
    BigInt(Option<i64>),
    SmallInt(Option<i16>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Timestamp(Option<DateTime<Utc>>),
    /// One microsecond.
    OneMicrosecond,
}

/// A time: `timestamptz` on PostgreSQL, whole microseconds since the Unix epoch on SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp(pub(crate) DateTime<Utc>);

/// One microsecond, to be added to a [`Timestamp`] in SQL: an `interval`, or 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneMicrosecond;

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
    Uuid => |id| Self::Uuid(Some(id)),
    Option<Uuid> => |id| Self::Uuid(id),
    Vec<Uuid> => |ids| Self::Uuids(ids),
    bool => |flag| Self::Bool(flag),
    i64 => |number| Self::BigInt(Some(number)),
    Option<i64> => |number| Self::BigInt(number),
    &str => |text| Self::Text(Some(text.to_owned())),
    Vec<u8> => |bytes| Self::Bytes(bytes),
    i16 => |number| Self::SmallInt(Some(number)),
    Option<i16> => |number| Self::SmallInt(number),
    String => |text| Self::Text(Some(text)),
    Option<&str> => |text| Self::Text(text.map(str::to_owned)),
    Option<String> => |text| Self::Text(text),
    Timestamp => |stamp| Self::Timestamp(Some(stamp.0)),
    Option<Timestamp> => |stamp| Self::Timestamp(stamp.map(|stamp| stamp.0)),
    OneMicrosecond => |_one| Self::OneMicrosecond,
}
