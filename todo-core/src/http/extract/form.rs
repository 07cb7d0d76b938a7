//! A JSON object as a form: its members, read one by one.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{
    error::FieldError,
    http::{problem::ApiError, schema::Member},
    validate::{self, FieldLabel},
};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The members of a JSON object, read one by one; errors of type or presence are collected.
#[derive(Debug)]
pub(crate) struct Form {
    members: BTreeMap<String, Value>,
    errors: Vec<FieldError>,
}

impl Form {
    /// Parses JSON. A leading byte order mark is skipped (RFC 8259, section 8.1).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match serde_json::from_slice::<Members>(bytes) {
            Ok(Members::Object(members)) => Ok(Self { members, errors: Vec::new() }),
            Ok(Members::Repeated) => {
                Err(ApiError::Malformed("The request body names a member twice.", Vec::new()))
            }
            Err(error) if error.is_data() => {
                Err(ApiError::Malformed("The request body must be a JSON object.", Vec::new()))
            }
            Err(_) => Err(ApiError::Malformed("The request body is not valid JSON.", Vec::new())),
        }
    }

    /// The members of an object in a body.
    pub(crate) fn of(members: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self { members: members.into_iter().collect(), errors: Vec::new() }
    }

    /// Whether there is a member of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A required member that is an array.
    pub(crate) fn array(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.members.remove(name) {
            Some(Value::Array(items)) => return Some(items),
            Some(_) => {
                let message = format!("{} must be an array.", FieldLabel(name));
                self.errors.push(FieldError::new(name, "wrong_type", message));
            }
            None => self.errors.push(validate::missing(name)),
        }
        None
    }

    /// A required member that is an object.
    pub(crate) fn object(&mut self, name: &'static str) -> Option<Self> {
        match self.members.remove(name) {
            Some(Value::Object(members)) => return Some(Self::of(members)),
            Some(_) => {
                let message = format!("{} must be an object.", FieldLabel(name));
                self.errors.push(FieldError::new(name, "wrong_type", message));
            }
            None => self.errors.push(validate::missing(name)),
        }
        None
    }

    /// A required member.
    pub(crate) fn required<M: Member>(&mut self, name: &'static str) -> Option<M::Shape> {
        let Some(value) = self.members.remove(name) else {
            self.errors.push(validate::missing(name));
            return None;
        };
        self.typed::<M>(name, value, "")
    }

    /// A member that may be absent, but not null.
    pub(crate) fn optional<M: Member>(&mut self, name: &'static str) -> Option<M::Shape> {
        let value = self.members.remove(name)?;
        self.typed::<M>(name, value, "")
    }

    /// A member that may be null (`Some(None)`) or absent (`None`).
    pub(crate) fn nullable<M: Member>(&mut self, name: &'static str) -> Option<Option<M::Shape>> {
        match self.members.remove(name)? {
            Value::Null => Some(None),
            value => Some(self.typed::<M>(name, value, " or null")),
        }
    }

    /// A required member that may be null.
    pub(crate) fn required_or_null<M: Member>(
        &mut self,
        name: &'static str,
    ) -> Option<Option<M::Shape>> {
        if !self.has(name) {
            self.errors.push(validate::missing(name));
            return None;
        }
        self.nullable::<M>(name)
    }

    fn typed<M: Member>(
        &mut self,
        name: &'static str,
        value: Value,
        or: &'static str,
    ) -> Option<M::Shape> {
        let shape = M::from_json(value);
        if shape.is_none() {
            let message = format!("{} must be {}{or}.", FieldLabel(name), M::TYPE);
            self.errors.push(FieldError::new(name, "wrong_type", message));
        }
        shape
    }

    /// Fails if a member was missing or of the wrong type. Unread members are ignored.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::Malformed("", self.errors))
    }
}

/// A JSON object with distinct member names; `serde_json` alone keeps the last duplicate.
enum Members {
    Object(BTreeMap<String, Value>),
    Repeated,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                let mut repeated = false;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let value: Value = map.next_value()?;
                    repeated |= members.insert(name.into_owned(), value).is_some();
                }
                Ok(if repeated { Members::Repeated } else { Members::Object(members) })
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_other_than_an_object_of_distinct_members_is_malformed() {
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"1",
            b"\"x\"",
            b"{",
            b"{}x",
            b"{\"a\":1,\"a\":2}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"{\"a\":1e999}",
            b"{'a':1}",
        ] {
            assert!(matches!(Form::parse(bad), Err(ApiError::Malformed(..))), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Form::parse(format!("{{\"a\":{deep}").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&bytes);
        }
    }
}
