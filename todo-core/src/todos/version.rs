//! Versions of a todo, and changes that apply only to some of them: so no change overwrites
//! another one that its author has not seen.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Todo, TodoId};
use crate::{
    authz::{Caller, acting_as},
    db::{Statement, value::Timestamp},
    error::FieldError,
    parsed::impl_parse,
};

/// The format of the text of a version: raised when the JSON of a todo changes, so that no client
/// takes a cached representation of the format before for a current one.
pub(super) const FORMAT: &str = "2-";

/// The version of a todo. Every change of the todo gives it another version, which it never had
/// before.
///
/// Its text is opaque: the format's number and `updated_at`. The HTTP API sends it as `ETag`
/// (RFC 9110, section 8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(DateTime<Utc>);

impl Version {
    /// The version of a row by its `updated_at`.
    pub(super) fn at(updated_at: DateTime<Utc>) -> Self {
        Self(updated_at)
    }

    /// Parses the text of a version.
    ///
    /// # Errors
    /// The text is not that of a version, or is of another format: no todo has it.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let decode = |text: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(FORMAT)?).ok()?;
            let micros = i64::from_be_bytes(bytes.try_into().ok()?);
            // Also within the range of PostgreSQL's timestamptz.
            DateTime::from_timestamp_micros(micros).filter(|time| *time >= FIRST && *time < LAST)
        };
        let message = "Version must be one that a todo was returned with.";
        decode(text).map(Self).ok_or_else(|| FieldError::new("version", "invalid", message))
    }
}

/// Bounds of the times of versions: the years 1 to 9999 of the wire format (RFC 3339, section 1).
pub(super) const FIRST: DateTime<Utc> =
    DateTime::from_timestamp(-62_135_596_800, 0).expect("the year 1");
const LAST: DateTime<Utc> = DateTime::from_timestamp(253_402_300_800, 0).expect("the year 10000");

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.timestamp_micros().to_be_bytes();
        write!(f, "{FORMAT}{}", BASE64_URL_SAFE_NO_PAD.encode(micros))
    }
}

impl_parse!(Version, FieldError);

impl Todo {
    /// The todo's version.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::at(self.updated_at)
    }
}

/// A todo that an operation changes, and the versions that it may have. A [`TodoId`] alone allows
/// all of them: the last change wins.
///
/// ```
/// use todo_core::{Core, Error, auth::Caller, todos::{self, Todo, TodoPatch}};
///
/// /// Changes a todo, unless it was changed after it was read.
/// async fn update(
///     core: &Core,
///     caller: &Caller,
///     todo: Todo,
///     patch: TodoPatch,
/// ) -> Result<Todo, Error> {
///     todos::patch(core, caller, todo.id.at(todo.version()), patch).await
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    id: TodoId,
    versions: Allowed,
}

impl Target {
    /// Maximum number of versions.
    pub const MAX_VERSIONS: usize = Allowed::MAX;

    /// The todo `id`, if it has one of these versions. Without a version, it is never changed.
    ///
    /// # Errors
    /// There are more than [`Target::MAX_VERSIONS`].
    pub fn any_of(id: TodoId, versions: &[Version]) -> Result<Self, FieldError> {
        Ok(Self { id, versions: Allowed::any_of(versions)? })
    }

    /// The todo's id.
    #[must_use]
    pub fn id(self) -> TodoId {
        self.id
    }

    /// Whether a todo of this version may be changed.
    #[must_use]
    pub fn allows(self, version: Version) -> bool {
        self.versions.allows(version)
    }

    pub(super) fn is_conditional(self) -> bool {
        self.versions.is_conditional()
    }
}

impl From<TodoId> for Target {
    fn from(id: TodoId) -> Self {
        Self { id, versions: Allowed::ALL }
    }
}

impl TodoId {
    /// The todo, if it has this version.
    #[must_use]
    pub fn at(self, version: Version) -> Target {
        Target { id: self, versions: Allowed::one(version) }
    }
}

/// The versions that the row of a change may have: the last one is repeated; `None` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed(Option<[Version; Self::MAX]>);

impl Allowed {
    pub(super) const ALL: Self = Self(None);
    const MAX: usize = 4;

    pub(super) fn one(version: Version) -> Self {
        Self(Some([version; Self::MAX]))
    }

    pub(super) fn any_of(versions: &[Version]) -> Result<Self, FieldError> {
        if versions.len() > Self::MAX {
            let message = "There must be at most 4 versions.";
            return Err(FieldError::new("version", "too_many", message));
        }
        // No row has this version.
        let mut allowed = [versions.last().copied().unwrap_or(Version(FIRST)); Self::MAX];
        for (allowed, version) in allowed.iter_mut().zip(versions) {
            *allowed = *version;
        }
        Ok(Self(Some(allowed)))
    }

    pub(super) fn allows(self, version: Version) -> bool {
        self.0.is_none_or(|versions| versions.contains(&version))
    }

    pub(super) fn is_conditional(self) -> bool {
        self.0.is_some()
    }
}

/// SQL condition that a row of a table is the target of a change: `$4` is its id, `$5` whether it
/// may have any version, `$6` to `$9` are the versions.
macro_rules! is_target {
    () => {
        "id = $4 AND user_id = $1 AND ($5 OR updated_at IN ($6, $7, $8, $9))"
    };
}
pub(super) use is_target;

/// A statement with the caller as its first three binds and the target as the next six, for
/// [`is_target!`].
pub(super) fn changing(caller: Caller, target: Target, sql: &'static str) -> Statement {
    changing_row(caller, target.id.as_uuid(), target.versions, sql)
}

/// As [`changing`], with a row of any table.
pub(super) fn changing_row(
    caller: Caller,
    id: Uuid,
    versions: Allowed,
    sql: &'static str,
) -> Statement {
    let statement = acting_as(caller, sql).bind(id).bind(!versions.is_conditional());
    let versions = versions.0.unwrap_or([Version(FIRST); Allowed::MAX]);
    versions.into_iter().fold(statement, |statement, Version(time)| statement.bind(Timestamp(time)))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn version(micros: i64) -> Version {
        Version(Utc.timestamp_micros(micros).unwrap())
    }

    proptest! {
        #[test]
        fn the_text_of_a_version_is_parsed_back(micros in 0_i64..4_000_000_000_000_000) {
            let text = version(micros).to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
            prop_assert_eq!(text.parse(), Ok(version(micros)));
        }

        #[test]
        fn no_text_fails_otherwise(text in ".{0,20}") {
            let _: Result<Version, FieldError> = text.parse();
        }
    }

    #[test]
    fn versions_out_of_the_databases_range_are_none() {
        for micros in [i64::MIN, i64::MIN + 1, i64::MAX, LAST.timestamp_micros()] {
            let text = format!("{FORMAT}{}", BASE64_URL_SAFE_NO_PAD.encode(micros.to_be_bytes()));
            assert!(Version::parse(&text).is_err(), "{micros}");
        }
        let other_format = version(1).to_string().replacen('2', "3", 1);
        assert!(Version::parse(&other_format).is_err());
    }

    #[test]
    fn a_target_allows_its_versions_only() {
        let id = TodoId::new(Uuid::from_u128(1));
        let [one, two, three] = [1, 2, 3].map(version);
        assert!(Target::from(id).allows(one));
        assert!(id.at(one).allows(one) && !id.at(one).allows(two));
        let both = Target::any_of(id, &[one, two]).unwrap();
        assert!(both.allows(one) && both.allows(two) && !both.allows(three));
        assert!(!Target::any_of(id, &[]).unwrap().allows(one));
        assert!(Target::any_of(id, &[one; 5]).is_err());
    }
}
