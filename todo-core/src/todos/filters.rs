//! The filters of a list.

use std::fmt;

use chrono::{DateTime, NaiveDate, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    list_types::{SortBy, SortOrder, Status},
    search::Search,
    tags::Tag,
};
use crate::{
    error::{FieldError, FieldErrors},
    ids::ListId,
    parsed::{impl_parse, impl_words},
    time_zone::TimeZone,
};

/// The filter and the order of a list. A todo is listed if all filters match.
///
/// As JSON, a filter that is not given is absent, but for the first three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Filters {
    /// The filter by completion.
    pub status: Status,
    /// The sort key.
    pub sort_by: SortBy,
    /// The sort direction.
    pub order: SortOrder,
    /// Tags, all of which a todo has: at most [`Filters::MAX_TAGS`].
    #[serde(rename = "tag", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Tags, one of which a todo has: at most [`Filters::MAX_TAGS`]. None is no filter.
    #[serde(rename = "any_tag", default, skip_serializing_if = "Vec::is_empty")]
    pub any_tags: Vec<Tag>,
    /// The filter by due date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DueFilter>,
    /// Todos that are due before this, which is excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_before: Option<DueBound>,
    /// Todos that are due at this or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_after: Option<DueBound>,
    /// The time zone of the three filters before; UTC if it is not given. It has no effect without
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// The list of the todos. An unknown one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListFilter>,
    /// The search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<Search>,
}

impl Filters {
    /// Maximum number of tags of each of the two filters by tags.
    pub const MAX_TAGS: usize = 20;

    /// Checks the numbers of tags.
    pub(crate) fn check(&self) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::none();
        for (field, label, tags) in
            [("tag", "Tag", &self.tags), ("any_tag", "Any tag", &self.any_tags)]
        {
            if tags.len() > Self::MAX_TAGS {
                let message = format!("{label} must be given at most {} times.", Self::MAX_TAGS);
                errors.push(FieldError::new(field, "too_many", message));
            }
        }
        errors.into_result(|| ())
    }

    /// A text that determines them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether there is no filter but by completion.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { status, sort_by, order, .. } = *self;
        *self == Self { status, sort_by, order, ..Self::default() }
    }
}

/// Filter of a list by due date. `today` and `overdue` depend on the time at which the list is
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DueFilter {
    /// Todos whose time has passed, or whose date is before today; completed ones too, unless the
    /// status excludes them.
    Overdue,
    /// Todos whose date is today, or whose time is within today.
    Today,
    /// Todos with a due date.
    Any,
    /// Todos without one.
    None,
}

impl_words!(DueFilter, "due", "overdue, today, any or none",
    "overdue" => Overdue, "today" => Today, "any" => Any, "none" => None);

/// A bound of a filter by due date.
///
/// A date is compared with dates, and its first moment in the filter's time zone with times. An
/// instant is compared with times, and its date in the filter's time zone with dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DueBound {
    /// A day of the calendar.
    Date(NaiveDate),
    /// An instant, in whole microseconds.
    Instant(DateTime<Utc>),
}

impl DueBound {
    /// Parses a date as `2026-12-01`, or an instant as in RFC 3339, `2026-12-01T09:30:00Z`.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `due_before`.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        Self::parse_as("due_before", text)
    }

    /// As [`DueBound::parse`], with the error of another field.
    pub(crate) fn parse_as(field: &'static str, text: &str) -> Result<Self, FieldError> {
        let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_date);
        if let Some(date) = date {
            return Ok(Self::Date(date));
        }
        let instant = DateTime::parse_from_rfc3339(text).ok();
        if let Some(instant) = instant {
            return Ok(Self::Instant(instant.to_utc().trunc_subsecs(6)));
        }
        let message = format!(
            "{} must be a date as 2026-12-01 or a time as 2026-12-01T09:30:00Z.",
            crate::validate::FieldLabel(field)
        );
        Err(FieldError::new(field, "invalid", message))
    }
}

impl_parse!(DueBound, FieldError);

impl From<NaiveDate> for DueBound {
    fn from(date: NaiveDate) -> Self {
        Self::Date(date)
    }
}

impl From<DateTime<Utc>> for DueBound {
    fn from(instant: DateTime<Utc>) -> Self {
        Self::Instant(instant.trunc_subsecs(6))
    }
}

impl fmt::Display for DueBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date(date) => date.fmt(f),
            Self::Instant(instant) => {
                let format = chrono::SecondsFormat::AutoSi;
                f.write_str(&instant.to_rfc3339_opts(format, true))
            }
        }
    }
}

impl Serialize for DueBound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DueBound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Filter of todos by their list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListFilter {
    /// The todos in no list.
    Inbox,
    /// The todos in this list.
    List(ListId),
}

impl ListFilter {
    /// Parses the id of a list, or `inbox`.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `list`.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match text {
            "inbox" => Ok(Self::Inbox),
            id => id.parse().map(Self::List).map_err(|_| {
                let message = "List must be the id of a list, or inbox.";
                FieldError::new("list", "invalid", message)
            }),
        }
    }
}

impl_parse!(ListFilter, FieldError);

impl fmt::Display for ListFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox => f.write_str("inbox"),
            Self::List(id) => id.fmt(f),
        }
    }
}

impl Serialize for ListFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_date_or_an_instant() {
        for (text, shown) in [
            ("2026-12-01", "2026-12-01"),
            ("0001-01-01", "0001-01-01"),
            ("9999-12-31", "9999-12-31"),
            ("2026-12-01T09:30:00Z", "2026-12-01T09:30:00Z"),
            ("2026-12-01T09:30:00.5+01:00", "2026-12-01T08:30:00.500Z"),
        ] {
            assert_eq!(DueBound::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "2026-2-1", "2026-02-30", "+2026-01-01", "2026-12-01T09:30", "today"] {
            let error = DueBound::parse_as("due_after", text).unwrap_err();
            assert_eq!((&*error.field, error.code), ("due_after", "invalid"), "{text}");
        }
    }

    #[test]
    fn a_list_is_an_id_or_the_inbox() {
        let id = "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11";
        for text in ["inbox", id] {
            assert_eq!(ListFilter::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "Inbox", "x", "null"] {
            assert_eq!(ListFilter::parse(text).unwrap_err().code, "invalid", "{text}");
        }
    }

    #[test]
    fn filters_that_are_not_given_are_absent_in_json() {
        let plain = serde_json::to_string(&Filters::default()).unwrap();
        assert_eq!(plain, r#"{"status":"all","sort_by":"created_at","order":"desc"}"#);
        let filters = Filters {
            tags: vec![Tag::parse("a").unwrap()],
            due: Some(DueFilter::Overdue),
            due_before: Some(DueBound::parse("2026-12-01T09:30:00Z").unwrap()),
            list: Some(ListFilter::Inbox),
            q: Some(Search::parse("x").unwrap()),
            ..Filters::default()
        };
        assert!(!filters.is_plain() && Filters::default().is_plain());
        let json = serde_json::to_string(&filters).unwrap();
        assert!(json.contains(r#""tag":["a"],"due":"overdue""#), "{json}");
        assert!(json.ends_with(r#""due_before":"2026-12-01T09:30:00Z","list":"inbox","q":"x"}"#));
        assert_eq!(serde_json::from_str::<Filters>(&json).unwrap(), filters);
    }
}
