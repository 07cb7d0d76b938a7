//! The due dates that a filter selects, as ranges of the stored columns.

use chrono::{DateTime, DurationRound, NaiveDate, TimeDelta, Utc};

use super::{
    due::{DAY, Due},
    filters::{DueBound, DueFilter, Filters},
};
use crate::time_zone::{self, TimeZone};

/// Minutes between a time on the clock of a time zone and the same time in UTC, at most, with a
/// margin. `due_key` is the time on the clock, the filters are about instants.
const MAX_OFFSET: i64 = 26 * 60;
/// Before and after all instants of due dates.
const FIRST: DateTime<Utc> = DateTime::from_timestamp(-100_000_000, 0).expect("a time");
const LAST: DateTime<Utc> = DateTime::from_timestamp(300_000_000_000, 0).expect("a time");

/// What the filters by due date of a list select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueSelection {
    /// Todos with a due date.
    Any,
    /// Todos without one.
    None,
    Range(DueRange),
}

/// A range of due dates: the dates from `dates.0` to `dates.1`, as days since 1970-01-01, and the
/// instants from `instants.0` until before `instants.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DueRange {
    pub(crate) dates: (i64, i64),
    pub(crate) instants: (DateTime<Utc>, DateTime<Utc>),
}

impl DueSelection {
    /// What `filters` select at a time; `None` if they have no filter by due date.
    ///
    /// Times of due dates are whole minutes, so the time that counts is the end of its minute: the
    /// selection is the same during a minute.
    pub(crate) fn of(filters: &Filters, now: DateTime<Utc>) -> Option<Self> {
        let Filters { due, due_before, due_after, time_zone, .. } = filters;
        let utc = TimeZone::from_stored("UTC".to_owned());
        let zone = time_zone.as_ref().unwrap_or(&utc);
        let mut range = DueRange::ALL;
        match (due, due_before, due_after) {
            (None, None, None) => return None,
            (Some(DueFilter::Any), None, None) => return Some(Self::Any),
            (Some(DueFilter::None), None, None) => return Some(Self::None),
            // Nothing has a due date in a range, and has none.
            (Some(DueFilter::None), _, _) => range = DueRange::EMPTY,
            (Some(DueFilter::Overdue), _, _) => {
                range.end_at(zone, DueBound::Instant(end_of_minute(now)));
            }
            (Some(DueFilter::Today), _, _) => {
                let today =
                    time_zone::date_at(zone, end_of_minute(now) - TimeDelta::microseconds(1));
                range.start_at(zone, DueBound::Date(today));
                range.end_at(zone, tomorrow(today));
            }
            (Some(DueFilter::Any) | None, _, _) => {}
        }
        if let Some(bound) = due_before {
            range.end_at(zone, *bound);
        }
        if let Some(bound) = due_after {
            range.start_at(zone, *bound);
        }
        Some(Self::Range(range))
    }
}

/// The end of the minute of a time; the time itself if it is whole.
fn end_of_minute(now: DateTime<Utc>) -> DateTime<Utc> {
    let minute = TimeDelta::minutes(1);
    match now.duration_trunc(minute) {
        Ok(start) if start == now => now,
        Ok(start) => start + minute,
        Err(_) => now,
    }
}

fn tomorrow(today: NaiveDate) -> DueBound {
    today.succ_opt().map_or(DueBound::Instant(LAST), DueBound::Date)
}

impl DueRange {
    const ALL: Self =
        Self { dates: (i64::MIN / 4 / DAY, i64::MAX / 4 / DAY), instants: (FIRST, LAST) };
    const EMPTY: Self = Self { dates: (1, 0), instants: (LAST, FIRST) };

    /// Excludes what is before a bound.
    fn start_at(&mut self, zone: &TimeZone, bound: DueBound) {
        let (day, instant) = place(zone, bound);
        self.dates.0 = self.dates.0.max(day);
        self.instants.0 = self.instants.0.max(instant);
    }

    /// Excludes a bound and what is after it.
    fn end_at(&mut self, zone: &TimeZone, bound: DueBound) {
        let (day, instant) = place(zone, bound);
        self.dates.1 = self.dates.1.min(day - 1);
        self.instants.1 = self.instants.1.min(instant);
    }

    /// The keys that can be in the range, the first and the last.
    pub(crate) fn keys(self) -> (i64, i64) {
        let Self { dates, instants } = self;
        (
            Due::key_of_date(dates.0).min(minutes(instants.0) - MAX_OFFSET),
            Due::key_of_date(dates.1).max(minutes(instants.1) + MAX_OFFSET),
        )
    }

    /// The keys that are certainly in the range; without any, the first is one more than the last
    /// one of [`DueRange::keys`].
    pub(crate) fn sure_keys(self) -> (i64, i64) {
        let Self { dates, instants } = self;
        let first = Due::key_of_date(dates.0).max(minutes(instants.0) + MAX_OFFSET);
        let last = Due::key_of_date(dates.1).min(minutes(instants.1) - MAX_OFFSET);
        let (_, end) = self.keys();
        if first <= last { (first, last) } else { (end + 1, end) }
    }
}

/// The day of a bound, and its instant.
fn place(zone: &TimeZone, bound: DueBound) -> (i64, DateTime<Utc>) {
    match bound {
        DueBound::Date(date) => {
            let instant = time_zone::instant(zone, date, 0).unwrap_or(if date < Due::FIRST {
                FIRST
            } else {
                LAST
            });
            (Due::days_of(date), instant.clamp(FIRST, LAST))
        }
        DueBound::Instant(instant) => {
            let instant = instant.clamp(FIRST, LAST);
            (Due::days_of(time_zone::date_at(zone, instant)), instant)
        }
    }
}

/// The minutes since 1970, rounded down.
fn minutes(instant: DateTime<Utc>) -> i64 {
    instant.timestamp().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn selects(filters: &Filters, at: &str, due: &Due) -> bool {
        match DueSelection::of(filters, now(at)).unwrap() {
            DueSelection::Any => true,
            DueSelection::None => false,
            DueSelection::Range(range) => range.contains(due),
        }
    }

    impl DueRange {
        fn contains(self, due: &Due) -> bool {
            match due.at() {
                None => (self.dates.0..=self.dates.1).contains(&due.days()),
                Some(at) => (self.instants.0..self.instants.1).contains(&at),
            }
        }
    }

    fn date(text: &str) -> Due {
        Due::parse(text, None, None).unwrap()
    }

    fn time(date: &str, time: &str, zone: &str) -> Due {
        Due::parse(date, Some(time), Some(zone)).unwrap()
    }

    fn filters(due: DueFilter, zone: &str) -> Filters {
        let time_zone = Some(TimeZone::parse(zone).unwrap());
        Filters { due: Some(due), time_zone, ..Filters::default() }
    }

    #[test]
    fn overdue_is_what_has_passed() {
        let overdue = |zone, at, due: &Due| selects(&filters(DueFilter::Overdue, zone), at, due);
        let at = "2026-12-01T08:30:00Z";
        assert!(!overdue("UTC", at, &time("2026-12-01", "08:30", "UTC")), "now");
        assert!(overdue("UTC", "2026-12-01T08:30:00.000001Z", &time("2026-12-01", "08:30", "UTC")));
        assert!(overdue("UTC", at, &time("2026-12-01", "09:29", "Europe/Berlin")));
        assert!(!overdue("UTC", at, &time("2026-12-01", "09:31", "Europe/Berlin")));
        assert!(
            overdue("UTC", at, &date("2026-11-30")) && !overdue("UTC", at, &date("2026-12-01"))
        );
        // There it is still, or already, another day.
        assert!(!overdue("Pacific/Pago_Pago", at, &date("2026-11-30")));
        let late = "2026-11-30T12:00:00Z";
        assert!(overdue("Pacific/Kiritimati", late, &date("2026-11-30")));
        assert!(!overdue("UTC", late, &date("2026-11-30")));
    }

    #[test]
    fn today_is_a_day_of_the_time_zone() {
        let today = |zone, at, due: &Due| selects(&filters(DueFilter::Today, zone), at, due);
        let at = "2026-12-01T22:59:59.5Z";
        assert!(today("Europe/Berlin", at, &date("2026-12-01")));
        assert!(!today("Europe/Berlin", "2026-12-01T23:00:00.5Z", &date("2026-12-01")));
        assert!(today("Europe/Berlin", "2026-12-01T23:00:00Z", &date("2026-12-01")), "the end");
        assert!(today("Europe/Berlin", at, &time("2026-12-01", "00:00", "Europe/Berlin")));
        assert!(!today("Europe/Berlin", at, &time("2026-12-02", "00:00", "Europe/Berlin")));
        assert!(today("Europe/Berlin", at, &time("2026-12-02", "07:59", "Asia/Tokyo")));
        assert!(!today("Europe/Berlin", at, &time("2026-12-02", "08:00", "Asia/Tokyo")));
    }

    #[test]
    fn bounds_include_the_start_and_exclude_the_end() {
        let range = |after: Option<&str>, before: Option<&str>| {
            let bound = |text: &str| DueBound::parse(text).unwrap();
            Filters {
                due_after: after.map(bound),
                due_before: before.map(bound),
                time_zone: Some(TimeZone::parse("Europe/Berlin").unwrap()),
                ..Filters::default()
            }
        };
        let at = "2026-12-01T00:00:00Z";
        let days = range(Some("2026-12-01"), Some("2026-12-03"));
        for (due, is_in) in [
            (date("2026-11-30"), false),
            (date("2026-12-01"), true),
            (date("2026-12-02"), true),
            (date("2026-12-03"), false),
            (time("2026-11-30", "22:59", "UTC"), false),
            (time("2026-11-30", "23:00", "UTC"), true),
            (time("2026-12-02", "22:59", "UTC"), true),
            (time("2026-12-02", "23:00", "UTC"), false),
        ] {
            assert_eq!(selects(&days, at, &due), is_in, "{due:?}");
        }
        let instants = range(Some("2026-11-30T23:30:00Z"), Some("2026-12-02T09:30:00Z"));
        for (due, is_in) in [
            (date("2026-11-30"), false),
            (date("2026-12-01"), true),
            (date("2026-12-02"), false),
            (time("2026-11-30", "23:29", "UTC"), false),
            (time("2026-11-30", "23:30", "UTC"), true),
            (time("2026-12-02", "09:30", "UTC"), false),
        ] {
            assert_eq!(selects(&instants, at, &due), is_in, "{due:?}");
        }
        let none = Filters { due: Some(DueFilter::None), ..range(Some("2026-12-01"), None) };
        assert!(!selects(&none, at, &date("2026-12-01")));
        for far in ["0001-01-01", "0000-01-01T00:00:00Z"] {
            assert!(selects(&range(Some(far), None), at, &date("1970-01-01")), "{far}");
            assert!(!selects(&range(None, Some(far)), at, &date("1970-01-01")), "{far}");
        }
        for far in ["9999-01-01", "9999-01-01T23:59:59Z"] {
            assert!(selects(&range(None, Some(far)), at, &date("9998-12-31")), "{far}");
            assert!(!selects(&range(Some(far), None), at, &date("9998-12-31")), "{far}");
        }
    }

    fn dues() -> impl Strategy<Value = Due> {
        let zones = ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Africa/Monrovia", "Pacific/Apia"];
        (0_i64..30_000, prop::option::of((0_u32..1440, prop::sample::select(zones.to_vec()))))
            .prop_map(|(days, time)| {
                let date = Due::FIRST + TimeDelta::days(days);
                match time {
                    None => Due::on(date).unwrap(),
                    Some((minute, zone)) => {
                        let time = chrono::NaiveTime::from_hms_opt(minute / 60, minute % 60, 0);
                        Due::at_time(date, time.unwrap(), zone.parse().unwrap()).unwrap()
                    }
                }
            })
    }

    proptest! {
        /// The keys of a range include those of all its due dates, and the sure keys only those.
        #[test]
        fn the_keys_enclose_the_range(
            due in dues(), start in -40_000_000_i64..3_000_000_000, length in 0_i64..10_000_000,
            is_date in any::<bool>(), near in prop::option::of(-2_000_000_i64..2_000_000),
        ) {
            // Near the due date, half of the times.
            let start = near.map_or(start, |near| due.days() * 86_400 + near);
            let bound = |seconds: i64| {
                let instant = DateTime::from_timestamp(seconds, 0).unwrap();
                if is_date { DueBound::Date(instant.date_naive()) } else { DueBound::Instant(instant) }
            };
            let filters = Filters {
                due_after: Some(bound(start)),
                due_before: Some(bound(start + length)),
                ..Filters::default()
            };
            let Some(DueSelection::Range(range)) = DueSelection::of(&filters, FIRST) else {
                return Err(TestCaseError::fail("no range"));
            };
            let ((first, last), (sure_first, sure_last)) = (range.keys(), range.sure_keys());
            let key = due.key();
            if range.contains(&due) {
                prop_assert!((first..=last).contains(&key));
            }
            if (sure_first..=sure_last).contains(&key) {
                prop_assert!(range.contains(&due));
            }
            prop_assert!(sure_first > last || (first <= sure_first && sure_last <= last));
        }
    }
}
