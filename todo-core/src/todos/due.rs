//! When a todo is due: a date, or a time in a time zone.

use chrono::{DateTime, NaiveDate, NaiveTime, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::{FieldError, FieldErrors},
    time_zone::{self, TimeZone},
    timestamp,
};

/// When a todo is due. A date is a day of a calendar, in no time zone; a time has a time zone, and
/// therefore an instant. Neither is converted to the other.
///
/// As JSON: `{"date": "2026-12-01"}`, or
/// `{"date": "2026-12-01", "time": "09:30", "time_zone": "Europe/Berlin", "at": "…"}`, where `at`
/// is read by nobody.
///
/// ```
/// use todo_core::todos::Due;
///
/// let date = Due::parse("2026-12-01", None, None)?;
/// assert!(date.at().is_none());
/// let time = Due::parse("2026-12-01", Some("09:30"), Some("Europe/Berlin"))?;
/// assert_eq!(time.at().unwrap().to_rfc3339(), "2026-12-01T08:30:00+00:00");
/// # Ok::<(), todo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    date: NaiveDate,
    time: Option<DueTime>,
}

/// The time of a [`Due`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DueTime {
    /// The minute of the day.
    minute: u16,
    zone: TimeZone,
    at: DateTime<Utc>,
}

/// Minutes of a day.
pub(super) const DAY: i64 = 24 * 60;
const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");

impl Due {
    /// The first date: 1970-01-01.
    pub const FIRST: NaiveDate = EPOCH;
    /// The last date: 9998-12-31, so that the instant of a time has a year of four digits in every
    /// time zone (RFC 3339, section 1).
    pub const LAST: NaiveDate = NaiveDate::from_ymd_opt(9998, 12, 31).expect("a date");

    /// A day.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `due/date`, unless it is from [`Due::FIRST`] to
    /// [`Due::LAST`].
    pub fn on(date: NaiveDate) -> Result<Self, FieldError> {
        if (Self::FIRST..=Self::LAST).contains(&date) {
            return Ok(Self { date, time: None });
        }
        let message = "Date must be from 1970-01-01 to 9998-12-31.";
        Err(FieldError::new("due/date", "out_of_range", message))
    }

    /// A time of a day in a time zone; seconds are cut off. If the clock skips the time, the
    /// instant is that of the later one by the skipped span; if the clock shows it twice, the
    /// earlier one (RFC 5545, section 3.3.5).
    ///
    /// # Errors
    /// As [`Due::on`].
    pub fn at_time(date: NaiveDate, time: NaiveTime, zone: TimeZone) -> Result<Self, FieldError> {
        let Self { date, .. } = Self::on(date)?;
        let minute = u16::try_from(time.hour() * 60 + time.minute()).unwrap_or_default();
        let at = time_zone::instant(&zone, date, minute)
            .ok_or_else(|| FieldError::new("due/time_zone", "invalid", UNKNOWN_ZONE))?;
        Ok(Self { date, time: Some(DueTime { minute, zone, at }) })
    }

    /// Parses a date as `2026-12-01`, and a time as `09:30` with the name of a time zone.
    ///
    /// # Errors
    /// Every rule that the fields `due/date`, `due/time` and `due/time_zone` break. A time wants a
    /// time zone, and a time zone a time.
    pub fn parse(
        date: &str,
        time: Option<&str>,
        time_zone: Option<&str>,
    ) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::none();
        let date = errors.collect(parse_date(date));
        let time = time.map(|time| errors.collect(parse_time(time)));
        let zone = time_zone.map(|zone| {
            let parsed = TimeZone::parse(zone);
            errors.collect(parsed.map_err(|errors| errors.of_field("due/time_zone")))
        });
        match (&time, &zone) {
            (Some(_), None) => {
                let message = "A time must have a time zone.";
                errors.push(FieldError::new("due/time_zone", "missing", message));
            }
            (None, Some(_)) => {
                let message = "A time zone must have a time.";
                errors.push(FieldError::new("due/time", "missing", message));
            }
            _ => {}
        }
        match (date, time, zone) {
            (Some(date), None, None) => match Self::on(date) {
                Ok(due) => errors.into_result(|| due),
                Err(error) => Err(error.into()),
            },
            (Some(date), Some(Some(time)), Some(Some(zone))) => {
                Ok(Self::at_time(date, time, zone)?)
            }
            _ => Err(errors),
        }
    }

    /// The same time of another day, or another day.
    ///
    /// # Errors
    /// As [`Due::on`], or the time zone is not in the database.
    pub(super) fn on_date(&self, date: NaiveDate) -> Result<Self, FieldError> {
        match (self.time(), self.time_zone()) {
            (Some(time), Some(zone)) => Self::at_time(date, time, zone.clone()),
            _ => Self::on(date),
        }
    }

    /// The date.
    #[must_use]
    pub fn date(&self) -> NaiveDate {
        self.date
    }

    /// The time of the day in the time zone, if there is one.
    #[must_use]
    pub fn time(&self) -> Option<NaiveTime> {
        let minute = u32::from(self.time.as_ref()?.minute);
        NaiveTime::from_hms_opt(minute / 60, minute % 60, 0)
    }

    /// The time zone of the time.
    #[must_use]
    pub fn time_zone(&self) -> Option<&TimeZone> {
        Some(&self.time.as_ref()?.zone)
    }

    /// The instant of the time. A date has none.
    #[must_use]
    pub fn at(&self) -> Option<DateTime<Utc>> {
        Some(self.time.as_ref()?.at)
    }

    /// The days since 1970-01-01.
    pub(crate) fn days(&self) -> i64 {
        Self::days_of(self.date)
    }

    /// The days from 1970-01-01 until a date.
    pub(super) fn days_of(date: NaiveDate) -> i64 {
        (date - EPOCH).num_days()
    }

    /// The minute of the day.
    pub(crate) fn minute(&self) -> Option<i64> {
        Some(self.time.as_ref()?.minute.into())
    }

    /// The number that todos are sorted by: the minutes since 1970-01-01 on the clock of the time
    /// zone. A date comes after all times of its day.
    pub(crate) fn key(&self) -> i64 {
        match self.minute() {
            None => Self::key_of_date(self.days()),
            Some(minute) => self.days() * DAY + minute,
        }
    }

    /// The key of a date, which is given by its days since 1970-01-01.
    pub(super) fn key_of_date(days: i64) -> i64 {
        (days + 1) * DAY
    }

    /// The due date of stored columns; `None` if they are not those of one.
    pub(crate) fn from_stored(
        days: i64,
        time: Option<(i64, String, DateTime<Utc>)>,
    ) -> Option<Self> {
        let date = EPOCH.checked_add_signed(chrono::TimeDelta::try_days(days)?)?;
        let time = match time {
            None => None,
            Some((minute, zone, at)) => {
                let minute =
                    u16::try_from(minute).ok().filter(|minute| i64::from(*minute) < DAY)?;
                Some(DueTime { minute, zone: TimeZone::from_stored(zone), at })
            }
        };
        Some(Self { date, time })
    }
}

const UNKNOWN_ZONE: &str =
    "Time zone must be a name of the IANA time zone database, for example Europe/Berlin.";

fn parse_date(text: &str) -> Result<NaiveDate, FieldError> {
    let error = || {
        let message = "Date must be a date of the calendar, for example 2026-12-01.";
        FieldError::new("due/date", "invalid", message)
    };
    // Of RFC 3339's `full-date`, which has digits only.
    let is_plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_plain).ok_or_else(error)
}

fn parse_time(text: &str) -> Result<NaiveTime, FieldError> {
    let error = || {
        let message = "Time must be hours and minutes from 00:00 to 23:59.";
        FieldError::new("due/time", "invalid", message)
    };
    let is_plain = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|_| is_plain).ok_or_else(error)
}

impl Serialize for Due {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Members<'a> {
            date: String,
            #[serde(flatten)]
            time: Option<TimeMembers<'a>>,
        }
        #[derive(Serialize)]
        struct TimeMembers<'a> {
            time: String,
            time_zone: &'a TimeZone,
            #[serde(serialize_with = "timestamp::serialize")]
            at: DateTime<Utc>,
        }
        let time = self.time.as_ref().map(|time| TimeMembers {
            time: format!("{:02}:{:02}", time.minute / 60, time.minute % 60),
            time_zone: &time.zone,
            at: time.at,
        });
        Members { date: self.date.format("%Y-%m-%d").to_string(), time }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Due {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Members {
            date: String,
            time: Option<String>,
            time_zone: Option<String>,
        }
        let due = Members::deserialize(deserializer)?;
        Self::parse(&due.date, due.time.as_deref(), due.time_zone.as_deref())
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(due: &Due) -> String {
        serde_json::to_string(due).unwrap()
    }

    fn codes(date: &str, time: Option<&str>, zone: Option<&str>) -> Vec<(String, &'static str)> {
        let errors = Due::parse(date, time, zone).err().into_iter().flatten();
        errors.map(|error| (error.field.into_owned(), error.code)).collect()
    }

    #[test]
    fn a_date_stays_a_date_and_a_time_has_its_instant() {
        let date = Due::parse("2026-12-01", None, None).unwrap();
        assert_eq!(json(&date), r#"{"date":"2026-12-01"}"#);
        let time = Due::parse("2026-12-01", Some("09:30"), Some("europe/berlin")).unwrap();
        let expected = r#"{"date":"2026-12-01","time":"09:30","time_zone":"Europe/Berlin","at":"2026-12-01T08:30:00Z"}"#;
        assert_eq!(json(&time), expected);
        for due in [date, time] {
            assert_eq!(serde_json::from_str::<Due>(&json(&due)).unwrap(), due);
            let time = due.minute().map(|minute| {
                (minute, due.time_zone().unwrap().as_str().to_owned(), due.at().unwrap())
            });
            assert_eq!(Due::from_stored(due.days(), time), Some(due));
        }
    }

    #[test]
    fn a_gap_gives_the_later_instant_and_a_fold_the_earlier() {
        let at = |date, time, zone| Due::parse(date, Some(time), Some(zone)).unwrap().at().unwrap();
        let gap = at("2027-03-28", "02:30", "Europe/Berlin");
        assert_eq!(gap.to_rfc3339(), "2027-03-28T01:30:00+00:00", "03:30 in summer time");
        let fold = at("2027-10-31", "02:30", "Europe/Berlin");
        assert_eq!(fold.to_rfc3339(), "2027-10-31T00:30:00+00:00", "in summer time");
        let last = at("9998-12-31", "23:59", "Etc/GMT+12");
        assert_eq!(last.to_rfc3339(), "9999-01-01T11:59:00+00:00");
    }

    #[test]
    fn each_broken_rule_is_reported() {
        for date in ["", "2026-02-30", "2026-1-1", "+2026-01-01", "26-01-01", "2026-01-01T00:00"] {
            assert_eq!(codes(date, None, None), [("due/date".to_owned(), "invalid")], "{date}");
        }
        for date in ["1969-12-31", "9999-01-01"] {
            assert_eq!(codes(date, None, None), [("due/date".to_owned(), "out_of_range")]);
        }
        for time in ["", "24:00", "9:30", "09:30:00", "+9:30"] {
            let errors = codes("2026-12-01", Some(time), Some("UTC"));
            assert_eq!(errors, [("due/time".to_owned(), "invalid")], "{time}");
        }
        let of = |field: &str, code| vec![(field.to_owned(), code)];
        assert_eq!(codes("2026-12-01", Some("09:30"), None), of("due/time_zone", "missing"));
        assert_eq!(codes("2026-12-01", None, Some("UTC")), of("due/time", "missing"));
        assert_eq!(codes("2026-12-01", Some("09:30"), Some("X")), of("due/time_zone", "invalid"));
        assert_eq!(codes("x", Some("y"), Some("z")).len(), 3);
    }

    #[test]
    fn a_date_sorts_after_the_times_of_its_day() {
        let key =
            |date, time: Option<&str>| Due::parse(date, time, time.map(|_| "UTC")).unwrap().key();
        assert!(key("2026-12-01", Some("23:59")) < key("2026-12-01", None));
        assert_eq!(key("2026-12-01", None), key("2026-12-02", Some("00:00")));
    }
}
