//! The types of lists, and how their rows are read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    db::{DbError, FromRow, Row, value::Timestamp},
    error::{FieldError, FieldErrors},
    ids::ListId,
    parsed::impl_text,
    timestamp,
    todos::{ListVersion, Version, version::Allowed},
    validate,
};

/// A list's name: trimmed, 1 to 100 characters (Unicode scalar values), without control characters.
/// Two lists may have one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListName(String);

impl ListName {
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 100;

    /// Parses a name.
    ///
    /// # Errors
    /// Every rule that the field `name` breaks.
    pub fn parse(name: &str) -> Result<Self, FieldErrors> {
        let name = name.trim();
        if name.is_empty() {
            return Err(FieldError::new("name", "blank", "Name cannot be empty.").into());
        }
        let errors = validate::check_line("name", name, 1, Self::MAX_CHARS);
        errors.into_result(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A name from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(ListName);

/// A list's color: `#rrggbb`, in lower case.
///
/// ```
/// use todo_core::todos::ListColor;
///
/// assert_eq!(ListColor::parse("#FF8800")?, "#ff8800");
/// assert!(ListColor::parse("red").is_err());
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListColor(String);

impl ListColor {
    /// Parses a color.
    ///
    /// # Errors
    /// The error of the field `color`.
    pub fn parse(color: &str) -> Result<Self, FieldErrors> {
        let is_color = color.strip_prefix('#').is_some_and(|digits| {
            digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_color {
            Ok(Self(color.to_ascii_lowercase()))
        } else {
            let message = "Color must be # and six hexadecimal digits.";
            Err(FieldError::new("color", "invalid", message).into())
        }
    }

    /// The color as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }
}

impl_text!(ListColor);

/// A list of todos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct List {
    /// A UUIDv7.
    pub id: ListId,
    /// Trimmed, 1 to 100 characters.
    pub name: ListName,
    /// `#rrggbb`
    pub color: Option<ListColor>,
    /// The number of open todos in it.
    pub pending: i64,
    /// The number of completed todos in it.
    pub completed: i64,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When its name or color was last changed; increases strictly.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: DateTime<Utc>,
}

impl List {
    /// The version of its name and color. The numbers of its todos change without it.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::at(self.updated_at)
    }
}

/// The lists of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lists {
    /// The lists, in the order of their creation.
    pub lists: Vec<List>,
    /// The version of them all, with the numbers of their todos.
    #[serde(skip)]
    pub version: Option<ListVersion>,
}

/// The columns of a [`List`], of a row of `lists`, in the order it is read.
macro_rules! list_columns {
    () => {
        "lists.id, lists.name, lists.color, \
         coalesce((SELECT pending FROM list_counts WHERE list_id = lists.id), 0), \
         coalesce((SELECT completed FROM list_counts WHERE list_id = lists.id), 0), \
         lists.created_at, lists.updated_at"
    };
}
pub(super) use list_columns;

impl FromRow for List {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        list_at(row, 0)?.ok_or(DbError::NoRow)
    }
}

/// The list in the columns of `list_columns!` from `first`; `None` if they are NULL.
pub(in crate::todos) fn list_at(row: &Row<'_>, first: usize) -> Result<Option<List>, DbError> {
    let Some(id) = row.get::<Option<Uuid>>(first)? else { return Ok(None) };
    Ok(Some(List {
        id: id.into(),
        name: ListName::from_stored(row.get(first + 1)?),
        color: row.get::<Option<String>>(first + 2)?.map(ListColor),
        pending: row.get(first + 3)?,
        completed: row.get(first + 4)?,
        created_at: row.get::<Timestamp>(first + 5)?.0,
        updated_at: row.get::<Timestamp>(first + 6)?.0,
    }))
}

/// The data of a new list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewList {
    /// The name.
    pub name: ListName,
    /// The color, if any.
    pub color: Option<ListColor>,
}

impl NewList {
    /// A list without a color.
    #[must_use]
    pub fn new(name: ListName) -> Self {
        Self { name, color: None }
    }

    /// Sets the color; `None` for none.
    #[must_use]
    pub fn color(mut self, color: impl Into<Option<ListColor>>) -> Self {
        self.color = color.into();
        self
    }
}

/// A partial update of a list (RFC 7396); a field that is `None` is unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPatch {
    /// A new name.
    pub name: Option<ListName>,
    /// `Some(None)` clears the color.
    pub color: Option<Option<ListColor>>,
}

impl ListPatch {
    /// A patch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the name.
    #[must_use]
    pub fn name(mut self, name: ListName) -> Self {
        self.name = Some(name);
        self
    }

    /// Changes the color; `None` clears it.
    #[must_use]
    pub fn color(mut self, color: impl Into<Option<ListColor>>) -> Self {
        self.color = Some(color.into());
        self
    }

    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A list that an operation changes, and the versions that it may have: as
/// [`Target`](crate::todos::Target) of a todo. A [`ListId`] alone allows all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListTarget {
    pub(super) id: ListId,
    pub(super) versions: Allowed,
}

impl ListTarget {
    /// The list `id`, if it has one of these versions. Without a version, it is never changed.
    ///
    /// # Errors
    /// There are more than [`Target::MAX_VERSIONS`](crate::todos::Target::MAX_VERSIONS).
    pub fn any_of(id: ListId, versions: &[Version]) -> Result<Self, FieldError> {
        Ok(Self { id, versions: Allowed::any_of(versions)? })
    }

    /// The list's id.
    #[must_use]
    pub fn id(self) -> ListId {
        self.id
    }
}

impl From<ListId> for ListTarget {
    fn from(id: ListId) -> Self {
        Self { id, versions: Allowed::ALL }
    }
}

impl ListId {
    /// The list, if it has this version.
    #[must_use]
    pub fn at(self, version: Version) -> ListTarget {
        ListTarget { id: self, versions: Allowed::one(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_lines() {
        assert_eq!(ListName::parse(" Caf\u{e9} ").unwrap(), "Caf\u{e9}");
        assert!(ListName::parse(&"\u{10400}".repeat(100)).is_ok());
        let long = "x".repeat(101);
        for (bad, code) in [
            ("", "blank"),
            (" ", "blank"),
            (&*long, "too_long"),
            ("a\nb", "control"),
            ("\0", "nul"),
        ] {
            let errors = ListName::parse(bad).unwrap_err();
            assert_eq!((&*errors[0].field, errors[0].code), ("name", code), "{bad:?}");
        }
    }

    #[test]
    fn colors_are_six_digits() {
        assert_eq!(ListColor::parse("#A0b1C2").unwrap(), "#a0b1c2");
        for bad in
            ["", "#", "a0b1c2", "#a0b1c", "#a0b1c2d", "#a0b1cg", " #a0b1c2", "#\u{e9}\u{e9}\u{e9}"]
        {
            assert_eq!(ListColor::parse(bad).unwrap_err()[0].code, "invalid", "{bad:?}");
        }
    }
}
