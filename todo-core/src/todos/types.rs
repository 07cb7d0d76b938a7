//! The types of a todo list, constructed only by parsing: a [`Title`] is always valid.

use serde::{Deserialize, Serialize};

use crate::{
    db::value::Value,
    error::{FieldError, FieldErrors},
    parsed::{impl_text, impl_words},
    validate,
};

/// A todo's title: trimmed, 1 to 200 characters (Unicode scalar values), no U+0000.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Title(String);

impl Title {
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 200;

    /// Parses a title.
    ///
    /// # Errors
    /// Every rule that the field `title` breaks.
    pub fn parse(title: &str) -> Result<Self, FieldErrors> {
        let title = title.trim();
        if title.is_empty() {
            return Err(FieldError::new("title", "blank", "Title cannot be empty.").into());
        }
        let errors = validate::check_text("title", title, 1, Self::MAX_CHARS);
        errors.into_result(|| Self(title.to_owned()))
    }

    /// The title as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A title from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Title);

/// A todo's description: up to 1000 characters (Unicode scalar values), no U+0000. Not trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Description(String);

impl Description {
    /// Maximum number of characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 1000;

    /// Parses a description.
    ///
    /// # Errors
    /// Every rule that the field `description` breaks.
    pub fn parse(description: &str) -> Result<Self, FieldErrors> {
        let errors = validate::check_text("description", description, 0, Self::MAX_CHARS);
        errors.into_result(|| Self(description.to_owned()))
    }

    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A description from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Description);

/// How urgent a todo is. Ordered by rank: low, medium, high.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Priority {
    /// Not urgent.
    Low = 1,
    /// The default.
    #[default]
    Medium = 2,
    /// Urgent.
    High = 3,
}

impl_words!(Priority, "priority", "high, medium or low",
    "low" => Low, "medium" => Medium, "high" => High);

impl Priority {
    /// The number that is stored: 1 for low to 3 for high.
    pub(crate) fn rank(self) -> i16 {
        self as i16
    }

    /// The priority of a stored number.
    pub(crate) fn from_rank(rank: i16) -> Option<Self> {
        match rank {
            1 => Some(Self::Low),
            2 => Some(Self::Medium),
            3 => Some(Self::High),
            _ => None,
        }
    }
}

impl From<Priority> for Value {
    fn from(priority: Priority) -> Self {
        Self::SmallInt(Some(priority.rank()))
    }
}

impl From<Option<Priority>> for Value {
    fn from(priority: Option<Priority>) -> Self {
        Self::SmallInt(priority.map(Priority::rank))
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt, str::FromStr};

    use super::*;
    use crate::todos::list_types::{Limit, SortBy, SortOrder, Status};

    fn codes<T>(parsed: Result<T, FieldErrors>) -> Vec<&'static str> {
        parsed.err().into_iter().flatten().map(|error| error.code).collect()
    }

    #[test]
    fn titles_are_trimmed_then_measured() {
        assert_eq!(Title::parse("  a b \u{3000}").unwrap().as_str(), "a b");
        assert_eq!(codes(Title::parse(" \t\u{a0}")), ["blank"]);
        assert!(Title::parse(&format!(" {} ", "é".repeat(200))).is_ok());
        assert_eq!(codes(Title::parse(&"é".repeat(201))), ["too_long"]);
        assert_eq!(codes(Title::parse("a\0")), ["nul"]);
        assert_eq!(codes(Title::parse(&"\0".repeat(201))), ["nul", "too_long"]);
    }

    #[test]
    fn descriptions_keep_their_space_and_may_be_empty() {
        assert_eq!(Description::parse(" x ").unwrap().as_str(), " x ");
        assert!(Description::parse("").is_ok());
        assert!(Description::parse(&"x".repeat(1000)).is_ok());
        assert_eq!(codes(Description::parse(&"x".repeat(1001))), ["too_long"]);
    }

    #[test]
    fn enum_strings_are_exact() {
        assert_eq!(Priority::parse("high"), Ok(Priority::High));
        assert!(Priority::parse("High").is_err() && Priority::parse("").is_err());
        assert!(Priority::Low < Priority::Medium && Priority::Medium < Priority::High);
        assert_eq!(SortBy::parse("created_at"), Ok(SortBy::CreatedAt));
        assert!(Status::parse("done").is_err() && SortOrder::parse("up").is_err());
    }

    #[test]
    fn each_priority_is_stored_as_its_rank() {
        for priority in [Priority::Low, Priority::Medium, Priority::High] {
            assert_eq!(Priority::from_rank(priority.rank()), Some(priority));
        }
        assert_eq!((Priority::from_rank(0), Priority::from_rank(4)), (None, None));
    }

    #[test]
    fn words_in_json_are_those_that_are_parsed() {
        fn check<T>(values: &[T])
        where
            T: Serialize
                + for<'de> Deserialize<'de>
                + AsRef<str>
                + FromStr
                + PartialEq
                + fmt::Debug,
            T::Err: fmt::Debug,
        {
            for value in values {
                let json = serde_json::to_value(value).unwrap();
                assert_eq!(json.as_str(), Some(value.as_ref()));
                assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value);
                assert_eq!(&value.as_ref().parse::<T>().unwrap(), value);
            }
        }
        check(Priority::ALL);
        check(Status::ALL);
        check(SortBy::ALL);
        check(SortOrder::ALL);
    }

    #[test]
    fn deserializing_parses() {
        assert_eq!(serde_json::from_str::<Title>("\" a \"").unwrap(), "a");
        assert!(serde_json::from_str::<Title>("\"\"").is_err());
        assert!(serde_json::from_str::<Description>("\"\\u0000\"").is_err());
        assert_eq!(serde_json::from_str::<Limit>("500").unwrap(), Limit::new(500).unwrap());
        assert!(serde_json::from_str::<Limit>("501").is_err());
    }
}
