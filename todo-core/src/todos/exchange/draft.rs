//! A todo of a file before and after its values are checked.

use chrono::{DateTime, DurationRound, NaiveTime, TimeDelta, Utc};

use super::{ical, sink::Rules};
use crate::{
    error::{FieldError, FieldErrors},
    todos::{
        Description, Due, ListName, Priority, Recurrence, RecurrenceBase, Reminders, Tags, Title,
        input::need_due,
    },
    validate,
};

/// How far the clock that wrote a file may be ahead.
const MAX_AHEAD: TimeDelta = TimeDelta::days(1);
/// Maximum number of characters of a position.
const MAX_POSITION: usize = 64;

/// A todo as a file has it: texts, and the errors of those that its reader could not read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) priority: Option<Priority>,
    pub(super) tags: Vec<String>,
    pub(super) due: Option<Due>,
    pub(super) rule: Option<String>,
    pub(super) from: RecurrenceBase,
    pub(super) reminders: Vec<i64>,
    pub(super) list: Option<String>,
    pub(super) completed: bool,
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) created_at: Option<DateTime<Utc>>,
    pub(super) updated_at: Option<DateTime<Utc>>,
    /// The key of the manual order.
    pub(super) position: Option<String>,
    /// Lines of iCalendar that no other property has.
    pub(super) ical: Option<String>,
    pub(super) errors: Vec<FieldError>,
}

/// A todo that can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) title: Title,
    pub(super) description: Option<Description>,
    pub(super) priority: Priority,
    pub(super) tags: Tags,
    pub(super) due: Option<Due>,
    pub(super) recurrence: Option<Recurrence>,
    pub(super) reminders: Reminders,
    pub(super) list: Option<String>,
    /// When it was completed, if it was.
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) position: Option<String>,
    pub(super) ical: Option<String>,
}

impl Item {
    /// Whether it has reminders that may be open.
    pub(super) fn may_remind(&self) -> bool {
        self.completed_at.is_none() && !self.reminders.is_empty()
    }

    /// The number of reminders whose time is to come. In every time zone, the morning of a day is
    /// before the end of that day in UTC.
    pub(super) fn open_reminders(&self, now: DateTime<Utc>) -> usize {
        let Some(due) = self.due.as_ref().filter(|_| self.may_remind()) else { return 0 };
        let latest = due
            .at()
            .unwrap_or_else(|| due.date().and_time(NaiveTime::MIN).and_utc() + TimeDelta::days(1));
        let is_open = |minutes: u16| latest - TimeDelta::minutes(minutes.into()) > now;
        self.reminders.iter().filter(|reminder| is_open(reminder.minutes_before)).count()
    }
}

impl Draft {
    /// Adds the error of a field.
    pub(super) fn error(&mut self, field: &'static str, code: &'static str, message: &'static str) {
        self.errors.push(FieldError::new(field, code, message));
    }

    /// Adds a tag of another program, where a tag may have commas.
    pub(super) fn push_tag(&mut self, tag: &str) {
        let parts: Vec<&str> = tag.split(',').map(str::trim).collect();
        self.tags.push(parts.join(" "));
    }

    /// Sets when it is due, or collects the errors.
    pub(super) fn set_due<E: Into<FieldErrors>>(&mut self, due: Result<Due, E>) {
        match due {
            Ok(due) => self.due = Some(due),
            Err(errors) => self.errors.extend(errors.into()),
        }
    }

    /// Sets the priority, or collects the error.
    pub(super) fn set_priority(&mut self, priority: Result<Priority, FieldError>) {
        match priority {
            Ok(priority) => self.priority = Some(priority),
            Err(error) => self.errors.push(error),
        }
    }

    /// Checks all values. A todo without times was created `now`.
    pub(super) fn check(self, now: DateTime<Utc>, rules: &mut Rules) -> Result<Item, FieldErrors> {
        let mut errors = FieldErrors::none();
        // What is no todo has no fields that could be wrong.
        let is_todo = !self.errors.iter().any(|error| error.field == "todo");
        for error in self.errors {
            errors.push(error);
        }
        if !is_todo {
            return Err(errors);
        }
        let title = errors.collect(Title::parse(&self.title));
        let description = self.description.and_then(|text| {
            let parsed = Description::parse(&text);
            errors.collect(parsed)
        });
        let tags = errors.collect(Tags::parse(&self.tags)).unwrap_or_default();
        let rule = self.rule.and_then(|rule| errors.collect(rules.parse(&rule)));
        let recurrence = rule.map(|rule| Recurrence::new(rule).from(self.from));
        let reminders = errors.collect(Reminders::parse(self.reminders)).unwrap_or_default();
        // The error of an unreadable due date is enough.
        if self.due.is_none() && !errors.iter().any(|error| error.field.starts_with("due")) {
            errors.collect(need_due(recurrence.is_some(), !reminders.is_empty()));
        }
        let list = self.list.and_then(|name| errors.collect(list_name("list", &name)));
        let position = self.position.and_then(|key| errors.collect(position(key)));
        let ical = self.ical.and_then(|lines| errors.collect(ical::check_kept(lines)));
        let mut time = |field, time: Option<DateTime<Utc>>| {
            time.and_then(|time| errors.collect(check_time(field, time, now)))
        };
        let completed_at = time("completed_at", self.completed_at);
        let created_at = time("created_at", self.created_at);
        let updated_at = time("updated_at", self.updated_at);
        let Some(title) = title.filter(|_| errors.is_empty()) else { return Err(errors) };
        // A file may know that it was completed, and not when it was created.
        let known = [updated_at, completed_at.filter(|_| self.completed)];
        let latest = known.into_iter().flatten().max();
        let created_at = created_at.unwrap_or_else(|| latest.map_or(now, |latest| latest.min(now)));
        let updated_at = updated_at.or(latest).unwrap_or(created_at).max(created_at);
        Ok(Item {
            title,
            description,
            priority: self.priority.unwrap_or_default(),
            tags,
            due: self.due,
            recurrence,
            reminders,
            list,
            completed_at: self.completed.then_some(completed_at.unwrap_or(updated_at)),
            created_at,
            updated_at,
            position,
            ical,
        })
    }
}

/// The name of a list, with the errors of `field`.
pub(super) fn list_name(field: &'static str, name: &str) -> Result<String, FieldErrors> {
    let parsed = ListName::parse(name).map_err(|errors| errors.of_field(field))?;
    Ok(parsed.as_str().to_owned())
}

/// A key of the manual order: pairs of hexadecimal digits, of which the last is not `00`.
fn position(key: String) -> Result<String, FieldError> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_key = (1..=MAX_POSITION).contains(&key.len())
        && key.len().is_multiple_of(2)
        && key.bytes().all(is_digit)
        && !key.ends_with("00");
    if is_key {
        return Ok(key);
    }
    let message = "Position must be the position of an exported todo.";
    Err(FieldError::new("position", "invalid", message))
}

/// A time in microseconds, from 1970 to tomorrow.
fn check_time(
    field: &'static str,
    time: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, FieldError> {
    let cut = time.duration_trunc(TimeDelta::microseconds(1)).ok();
    let in_range = |time: &DateTime<Utc>| (DateTime::UNIX_EPOCH..=now + MAX_AHEAD).contains(time);
    cut.filter(in_range).ok_or_else(|| {
        let label = validate::FieldLabel(field);
        let message = format!("{label} must be from 1970 to the present.");
        FieldError::new(field, "out_of_range", message)
    })
}

/// A time as RFC 3339 has it.
pub(super) fn parse_time(field: &'static str, text: &str) -> Result<DateTime<Utc>, FieldError> {
    let parsed = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    parsed.map_err(|_| {
        let label = validate::FieldLabel(field);
        let message = format!("{label} must be a time as in RFC 3339.");
        FieldError::new(field, "invalid", message)
    })
}
