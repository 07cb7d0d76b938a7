//! The recurrence of a todo: the rule by which its next occurrence is made when it is completed.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use self::parts::{End, Parts};
use super::Due;
use crate::{
    error::{FieldError, FieldErrors},
    parsed::{impl_text, impl_words},
    time_zone::{self, TimeZone},
    validate,
};

mod dates;
mod parts;
#[cfg(test)]
mod tests;

/// The recurrence of a todo with a due date.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recurrence {
    /// The rule.
    pub rule: Rule,
    /// The date from which the next one is computed.
    #[serde(default)]
    pub from: RecurrenceBase,
}

impl Recurrence {
    /// A recurrence by a rule, from the due date.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, from: RecurrenceBase::default() }
    }

    /// Sets the date from which the next one is computed.
    #[must_use]
    pub fn from(mut self, from: RecurrenceBase) -> Self {
        self.from = from;
        self
    }

    /// The recurrence of stored columns; `None` if they are not those of one.
    pub(crate) fn from_stored(rule: String, from: i16) -> Option<Self> {
        let from = match from {
            1 => RecurrenceBase::Due,
            2 => RecurrenceBase::Completion,
            _ => return None,
        };
        Some(Self { rule: Rule::from_stored(rule), from })
    }

    /// The due date and the recurrence of the occurrence after the one that is due at `due` and is
    /// completed at `now`. A date is due in `home`, the time zone of the user.
    ///
    /// Its date is the first one of the rule after the due date and after today, so that no date is
    /// in the past. The rule counts from the due date or from today. The series ends with COUNT, of
    /// which each occurrence made takes one, with UNTIL, and where the rule has no further date
    /// within 10 years.
    ///
    /// # Errors
    /// The rule or the time zone is not one of this version.
    pub(super) fn next(
        &self,
        due: &Due,
        home: Option<&TimeZone>,
        now: DateTime<Utc>,
    ) -> Result<Option<(Due, Self)>, FieldErrors> {
        let mut parts = Parts::parse(self.rule.as_str())?;
        match &mut parts.end {
            End::Count(0 | 1) => return Ok(None),
            End::Count(count) => *count -= 1,
            End::Never | End::Until(_) => {}
        }
        let zone = due.time_zone().or(home);
        let today = zone.map_or_else(|| now.date_naive(), |zone| time_zone::date_at(zone, now));
        let start = match self.from {
            RecurrenceBase::Due => due.date(),
            RecurrenceBase::Completion => today,
        };
        let mut after = due.date().max(today);
        while let Some(date) = parts.first_after(start, after) {
            if matches!(parts.end, End::Until(until) if date > until) {
                break;
            }
            let next = due.on_date(date)?;
            // A date that the clocks of a zone have skipped has the instant of the next one.
            if next.at() > due.at() || next.at().is_none() {
                let rule = Rule(parts.to_string());
                return Ok(Some((next, Self { rule, from: self.from })));
            }
            after = date;
        }
        Ok(None)
    }
}

/// The date from which the next date of a recurrence is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum RecurrenceBase {
    /// The due date.
    #[default]
    Due = 1,
    /// The day of the completion.
    Completion = 2,
}

impl_words!(RecurrenceBase, "from", "due or completion", "due" => Due, "completion" => Completion);

impl RecurrenceBase {
    /// The number that is stored.
    pub(crate) fn number(self) -> i16 {
        self as i16
    }
}

/// A recurrence rule (RFC 5545, section 3.3.10): `FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH`.
///
/// FREQ is DAILY, WEEKLY, MONTHLY or YEARLY. INTERVAL is 1 to 366; COUNT is 1 to 1000, or UNTIL is
/// the last date; BYMONTH, BYMONTHDAY (not of weeks), BYDAY (with numbers of months and years
/// only), BYSETPOS and WKST select dates. A rule has up to 200 characters.
///
/// A rule is kept in one spelling: upper case, the parts in a fixed order, lists sorted and without
/// repetitions, no defaults, and the date of an UNTIL that is a time.
///
/// ```
/// use todo_core::todos::Rule;
///
/// let rule = Rule::parse("rrule:byday=th,mo,mo;interval=1;freq=weekly")?;
/// assert_eq!(rule, "FREQ=WEEKLY;BYDAY=MO,TH");
/// assert!(Rule::parse("FREQ=HOURLY").is_err());
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule(String);

impl Rule {
    /// Maximum number of characters.
    pub const MAX_CHARS: usize = 200;

    /// Parses a rule.
    ///
    /// # Errors
    /// Every rule that the field `rule` breaks.
    pub fn parse(rule: &str) -> Result<Self, FieldErrors> {
        let errors = validate::check_line("rule", rule, 1, Self::MAX_CHARS);
        errors.into_result(|| ())?;
        Parts::parse(rule).map(|parts| Self(parts.to_string()))
    }

    /// The rule as text, in its canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A rule from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Checks that the rule has a date after `start`: within 10 years, also if the series ends
    /// before. The last occurrence of a series has its rule still.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `recurrence/rule`.
    pub(super) fn check_from(&self, start: NaiveDate) -> Result<(), FieldError> {
        let error = |message: &'static str| FieldError::new("recurrence/rule", "no_date", message);
        let has_date =
            Parts::parse(&self.0).is_ok_and(|parts| parts.first_after(start, start).is_some());
        if has_date { Ok(()) } else { Err(error("The rule must have a date within 10 years.")) }
    }

    /// Checks the rule of a todo that is due on `start`.
    ///
    /// # Errors
    /// As [`Rule::check_from`]; also if the series ends before it begins.
    pub(super) fn check_due(&self, start: NaiveDate) -> Result<(), FieldError> {
        let parts = Parts::parse(&self.0);
        if parts.is_ok_and(|parts| matches!(parts.end, End::Until(until) if until < start)) {
            let message = "UNTIL in the rule must not be before the due date.";
            return Err(FieldError::new("recurrence/rule", "no_date", message));
        }
        self.check_from(start)
    }
}

impl_text!(Rule);
