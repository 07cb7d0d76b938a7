//! The dates of a rule. They are days of the calendar: no clock and no time zone is part of it, so
//! that no change of a clock makes or loses a day.
//!
//! The evaluation starts at the period (the day, week, month or year) that the search begins in,
//! which it finds by arithmetic, and looks at each day of ten years at most once: 4,000 comparisons
//! of numbers. So a rule without dates costs as little as one with many. A general library walks
//! from the first date of a series through all later ones, and without an end where there is none.

use chrono::{Datelike, Months, NaiveDate, Weekday};

use super::parts::{Frequency, Parts};
use crate::todos::Due;

/// The number of years in which a rule must have a date.
const YEARS: u32 = 10;

/// The last date that is looked at for a date after `date`.
pub(super) fn horizon(date: NaiveDate) -> NaiveDate {
    date.checked_add_months(Months::new(12 * YEARS)).map_or(Due::LAST, |last| last.min(Due::LAST))
}

impl Parts {
    /// The first date of the rule after `after`, of a series that begins at `start`, up to
    /// [`horizon`]. The end of the series is not regarded.
    pub(super) fn first_after(&self, start: NaiveDate, after: NaiveDate) -> Option<NaiveDate> {
        let from = after.succ_opt()?.max(start);
        let last = horizon(after);
        let pattern = Pattern::of(self, start);
        let interval = i32::from(self.interval);
        let origin = self.period_of(start);
        let mut period = origin + (self.period_of(from) - origin) / interval * interval;
        loop {
            let (first, end) = self.days_of(period)?;
            if first > last {
                return None;
            }
            if let Some(date) = pattern.first(first, end, from) {
                return Some(date).filter(|date| *date <= last);
            }
            period += interval;
        }
    }

    /// The number of the period with a date.
    fn period_of(&self, date: NaiveDate) -> i32 {
        match self.frequency {
            Frequency::Daily => date.num_days_from_ce(),
            Frequency::Weekly => (date.num_days_from_ce() - self.week_offset()).div_euclid(7),
            Frequency::Monthly => date.year() * 12 + small(date.month0()),
            Frequency::Yearly => date.year(),
        }
    }

    /// The first and the last day of a period.
    fn days_of(&self, period: i32) -> Option<(NaiveDate, NaiveDate)> {
        let first = match self.frequency {
            Frequency::Daily => NaiveDate::from_num_days_from_ce_opt(period)?,
            Frequency::Weekly => {
                NaiveDate::from_num_days_from_ce_opt(period * 7 + self.week_offset())?
            }
            Frequency::Monthly => {
                let month = u32::try_from(period.rem_euclid(12)).ok()?;
                NaiveDate::from_ymd_opt(period.div_euclid(12), month + 1, 1)?
            }
            Frequency::Yearly => NaiveDate::from_ymd_opt(period, 1, 1)?,
        };
        let end = match self.frequency {
            Frequency::Daily => first,
            Frequency::Weekly => {
                NaiveDate::from_num_days_from_ce_opt(first.num_days_from_ce() + 6)?
            }
            Frequency::Monthly => first.checked_add_months(Months::new(1))?.pred_opt()?,
            Frequency::Yearly => NaiveDate::from_ymd_opt(period, 12, 31)?,
        };
        Some((first, end))
    }

    /// The number of a day on which a week begins: the first day of the common era is a Monday.
    fn week_offset(&self) -> i32 {
        1 + small(self.week_start.num_days_from_monday())
    }
}

/// A number of days or months, which are small.
fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or_default()
}

/// The days of a period that a rule selects, with what the first date of the series adds to the
/// rule.
struct Pattern<'a> {
    parts: &'a Parts,
    /// The months; all if there are none.
    month: Option<i16>,
    month_day: Option<i16>,
    weekday: Option<Weekday>,
}

impl<'a> Pattern<'a> {
    fn of(parts: &'a Parts, start: NaiveDate) -> Self {
        let (month, day) = (number(start.month()), number(start.day()));
        let selects_days = !parts.days.is_empty() || !parts.month_days.is_empty();
        let (month, month_day, weekday) = match parts.frequency {
            _ if selects_days => (None, None, None),
            Frequency::Daily => (None, None, None),
            Frequency::Weekly => (None, None, Some(start.weekday())),
            Frequency::Yearly if parts.months.is_empty() => (Some(month), Some(day), None),
            Frequency::Monthly | Frequency::Yearly => (None, Some(day), None),
        };
        Self { parts, month, month_day, weekday }
    }

    /// The first selected day from `from` on, of the period from `first` to `end`.
    fn first(&self, first: NaiveDate, end: NaiveDate, from: NaiveDate) -> Option<NaiveDate> {
        if self.parts.positions.is_empty() {
            return self.days(first.max(from), end).next();
        }
        let days: Vec<NaiveDate> = self.days(first, end).collect();
        let at = |position: &i16| {
            let index = usize::from(position.unsigned_abs());
            let index =
                if *position > 0 { index.checked_sub(1) } else { days.len().checked_sub(index) };
            days.get(index?).copied()
        };
        self.parts.positions.iter().filter_map(at).filter(|date| *date >= from).min()
    }

    /// The days from `first` to `end` that all parts select but BYSETPOS.
    fn days(&self, first: NaiveDate, end: NaiveDate) -> impl Iterator<Item = NaiveDate> + '_ {
        let mut next = Some(first);
        std::iter::from_fn(move || {
            loop {
                let date = next.filter(|date| *date <= end)?;
                if self.has_month(date) {
                    next = date.succ_opt();
                    if self.has_day(date) {
                        return Some(date);
                    }
                } else {
                    let month = date.with_day(1)?;
                    next = month.checked_add_months(Months::new(1));
                }
            }
        })
    }

    fn has_month(&self, date: NaiveDate) -> bool {
        let month = number(date.month());
        let months = &self.parts.months;
        self.month.is_none_or(|only| only == month)
            && (months.is_empty() || months.contains(&month))
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let day = number(date.day());
        let from_end = || day - number(u32::from(date.num_days_in_month())) - 1;
        let month_days = &self.parts.month_days;
        self.month_day.is_none_or(|only| only == day)
            && self.weekday.is_none_or(|only| only == date.weekday())
            && (month_days.is_empty()
                || month_days.contains(&day)
                || month_days.contains(&from_end()))
            && (self.parts.days.is_empty() || self.has_weekday(date))
    }

    fn has_weekday(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday();
        self.parts.days.iter().filter(|day| day.weekday == weekday).any(|day| {
            // Days before the date, or after it, in its month or year.
            let (before, after) = if self.parts.counts_in_months() {
                (date.day0(), u32::from(date.num_days_in_month()) - date.day())
            } else {
                (date.ordinal0(), if date.leap_year() { 366 } else { 365 } - date.ordinal())
            };
            match day.nth {
                0 => true,
                nth if nth > 0 => nth == number(before / 7) + 1,
                nth => nth == -number(after / 7) - 1,
            }
        })
    }
}

/// A number of a day or month, which is small.
fn number(number: u32) -> i16 {
    i16::try_from(number).unwrap_or_default()
}
