//! The grammar of recurrence rules: their parts, how they are parsed, and their canonical spelling.

use std::{fmt, ops::RangeInclusive};

use chrono::{NaiveDate, Weekday};

use crate::{
    error::{FieldError, FieldErrors},
    todos::Due,
};

/// The parts of a rule. Its lists are sorted, without repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) frequency: Frequency,
    /// 1 to 366.
    pub(super) interval: u16,
    pub(super) end: End,
    /// 1 to 12.
    pub(super) months: Vec<i16>,
    /// 1 to 31, or -31 to -1 from the end of the month.
    pub(super) month_days: Vec<i16>,
    pub(super) days: Vec<Day>,
    /// 1 to 366, or -366 to -1 from the end of the period.
    pub(super) positions: Vec<i16>,
    pub(super) week_start: Weekday,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// The end of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Never,
    /// The number of occurrences that are left, with the present one.
    Count(u16),
    /// The last date that an occurrence may have.
    Until(NaiveDate),
}

/// A value of BYDAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    /// The number of the weekday in its month or year, from the end if it is negative; 0 is all.
    pub(super) nth: i16,
    pub(super) weekday: Weekday,
}

impl Parts {
    /// Maximum value of INTERVAL.
    const MAX_INTERVAL: i16 = 366;
    /// Maximum value of COUNT.
    const MAX_COUNT: i16 = 1000;

    /// Parses a rule, whose letters may be of either case, with or without `RRULE:`.
    ///
    /// # Errors
    /// Those of the field `rule`, at most one for each part.
    pub(super) fn parse(rule: &str) -> Result<Self, FieldErrors> {
        let rule = rule.to_ascii_uppercase();
        let rule = rule.strip_prefix("RRULE:").unwrap_or(&rule);
        let mut given = Given::default();
        let mut errors = FieldErrors::none();
        for part in rule.split(';') {
            if let Err(message) = given.add(part) {
                errors.push(invalid(message));
            }
        }
        match given.finish() {
            Ok(parts) => errors.into_result(|| parts),
            // The messages above say more.
            Err(_) if !errors.is_empty() => Err(errors),
            Err(message) => Err(invalid(message).into()),
        }
    }

    /// Whether BYDAY has numbers that count in a month, not in a year.
    pub(super) fn counts_in_months(&self) -> bool {
        self.frequency == Frequency::Monthly || !self.months.is_empty()
    }
}

/// The parts as they are given.
#[derive(Default)]
struct Given {
    frequency: Option<Frequency>,
    interval: Option<i16>,
    count: Option<i16>,
    until: Option<NaiveDate>,
    months: Option<Vec<i16>>,
    month_days: Option<Vec<i16>>,
    days: Option<Vec<Day>>,
    positions: Option<Vec<i16>>,
    week_start: Option<Weekday>,
}

type Message = &'static str;

impl Given {
    fn add(&mut self, part: &str) -> Result<(), Message> {
        let (name, value) = part.split_once('=').ok_or(SHAPE)?;
        match name {
            "FREQ" => set(&mut self.frequency, frequency(value)),
            "INTERVAL" => set(
                &mut self.interval,
                number(value, 1..=Parts::MAX_INTERVAL)
                    .ok_or("INTERVAL in the rule must be a number from 1 to 366."),
            ),
            "COUNT" => set(
                &mut self.count,
                number(value, 1..=Parts::MAX_COUNT)
                    .ok_or("COUNT in the rule must be a number from 1 to 1000."),
            ),
            "UNTIL" => set(&mut self.until, until(value)),
            "BYMONTH" => set(
                &mut self.months,
                list(value, |month| number(month, 1..=12))
                    .ok_or("BYMONTH in the rule must be numbers from 1 to 12."),
            ),
            "BYMONTHDAY" => set(
                &mut self.month_days,
                list(value, |day| signed(day, 31))
                    .ok_or("BYMONTHDAY in the rule must be numbers from 1 to 31 or -31 to -1."),
            ),
            "BYDAY" => set(
                &mut self.days,
                list(value, day).ok_or(
                    "BYDAY in the rule must be weekdays MO, TU, WE, TH, FR, SA or SU, of which \
                     each may have a number from 1 to 53 or -53 to -1 before it.",
                ),
            ),
            "BYSETPOS" => set(
                &mut self.positions,
                list(value, |position| signed(position, 366))
                    .ok_or("BYSETPOS in the rule must be numbers from 1 to 366 or -366 to -1."),
            ),
            "WKST" => set(
                &mut self.week_start,
                weekday(value).ok_or("WKST in the rule must be MO, TU, WE, TH, FR, SA or SU."),
            ),
            _ => Err("The rule may have the parts FREQ, INTERVAL, COUNT or UNTIL, BYMONTH, \
                 BYMONTHDAY, BYDAY, BYSETPOS and WKST only."),
        }
    }

    /// Checks the parts together.
    fn finish(self) -> Result<Parts, Message> {
        let frequency = self.frequency.ok_or("The rule must have FREQ.")?;
        let days = self.days.unwrap_or_default();
        if days.iter().any(|day| day.nth != 0) {
            if matches!(frequency, Frequency::Daily | Frequency::Weekly) {
                return Err("BYDAY in a rule with FREQ=DAILY or FREQ=WEEKLY must be weekdays \
                     without a number.");
            }
            let is_of_month = frequency == Frequency::Monthly || self.months.is_some();
            if is_of_month && days.iter().any(|day| day.nth.abs() > 5) {
                return Err("The number of a weekday in a month must be from 1 to 5 or -5 to -1.");
            }
        }
        if frequency == Frequency::Weekly && self.month_days.is_some() {
            return Err("A rule with FREQ=WEEKLY must not have BYMONTHDAY.");
        }
        let selects = !days.is_empty() || self.month_days.is_some() || self.months.is_some();
        if self.positions.is_some() && !selects {
            return Err("A rule with BYSETPOS must have BYDAY, BYMONTHDAY or BYMONTH.");
        }
        let end = match (self.count, self.until) {
            (None, None) => End::Never,
            (Some(count), None) => End::Count(count.unsigned_abs()),
            (None, Some(until)) => End::Until(until),
            (Some(_), Some(_)) => return Err("The rule must not have both COUNT and UNTIL."),
        };
        Ok(Parts {
            frequency,
            interval: self.interval.unwrap_or(1).unsigned_abs(),
            end,
            months: self.months.unwrap_or_default(),
            month_days: self.month_days.unwrap_or_default(),
            days,
            positions: self.positions.unwrap_or_default(),
            week_start: self.week_start.unwrap_or(Weekday::Mon),
        })
    }
}

const SHAPE: Message =
    "Rule must be a recurrence rule of RFC 5545, for example FREQ=WEEKLY;BYDAY=MO,TH.";

fn invalid(message: Message) -> FieldError {
    FieldError::new("rule", "invalid", message)
}

fn set<T>(slot: &mut Option<T>, value: Result<T, Message>) -> Result<(), Message> {
    if slot.replace(value?).is_some() {
        return Err("The rule must have each part once.");
    }
    Ok(())
}

fn frequency(value: &str) -> Result<Frequency, Message> {
    Ok(match value {
        "DAILY" => Frequency::Daily,
        "WEEKLY" => Frequency::Weekly,
        "MONTHLY" => Frequency::Monthly,
        "YEARLY" => Frequency::Yearly,
        _ => return Err("FREQ in the rule must be DAILY, WEEKLY, MONTHLY or YEARLY."),
    })
}

/// A number of digits only.
fn number(text: &str, range: RangeInclusive<i16>) -> Option<i16> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && range.contains(number))
}

/// A number from 1 to `max`, with a sign or without one.
fn signed(text: &str, max: i16) -> Option<i16> {
    match text.strip_prefix('-') {
        Some(digits) => number(digits, 1..=max).map(i16::wrapping_neg),
        None => number(text.strip_prefix('+').unwrap_or(text), 1..=max),
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, weekday)| *weekday)
}

const NAMES: [(&str, Weekday); 7] = [
    ("MO", Weekday::Mon),
    ("TU", Weekday::Tue),
    ("WE", Weekday::Wed),
    ("TH", Weekday::Thu),
    ("FR", Weekday::Fri),
    ("SA", Weekday::Sat),
    ("SU", Weekday::Sun),
];

fn day(text: &str) -> Option<Day> {
    let (nth, name) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let nth = if nth.is_empty() { 0 } else { signed(nth, 53)? };
    Some(Day { nth, weekday: weekday(name)? })
}

/// A sorted list without repetitions.
fn list<T: Ord>(value: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut list: Vec<T> = value.split(',').map(parse).collect::<Option<_>>()?;
    list.sort_unstable();
    list.dedup();
    Some(list)
}

/// A date, or the date of a time.
fn until(value: &str) -> Result<NaiveDate, Message> {
    let message = "UNTIL in the rule must be a date from 19700101 to 99981231, for example \
        20261231.";
    let (date, time) = value.split_at_checked(8).ok_or(message)?;
    let is_plain = date.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.is_empty() || {
        let time = time.strip_suffix('Z').unwrap_or(time);
        time.len() == 7 && chrono::NaiveTime::parse_from_str(time, "T%H%M%S").is_ok()
    };
    NaiveDate::parse_from_str(date, "%Y%m%d")
        .ok()
        .filter(|date| is_plain && is_time && (Due::FIRST..=Due::LAST).contains(date))
        .ok_or(message)
}

impl Day {
    fn order(self) -> (i16, u32) {
        (self.nth, self.weekday.num_days_from_monday())
    }
}

impl PartialOrd for Day {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Day {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nth != 0 {
            write!(f, "{}", self.nth)?;
        }
        f.write_str(name(self.weekday))
    }
}

fn name(weekday: Weekday) -> &'static str {
    NAMES.iter().find(|(_, other)| *other == weekday).map_or("MO", |(name, _)| name)
}

/// The canonical spelling: the parts in this order, without those that have their default.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.frequency {
            Frequency::Daily => "FREQ=DAILY",
            Frequency::Weekly => "FREQ=WEEKLY",
            Frequency::Monthly => "FREQ=MONTHLY",
            Frequency::Yearly => "FREQ=YEARLY",
        })?;
        if self.interval != 1 {
            write!(f, ";INTERVAL={}", self.interval)?;
        }
        match self.end {
            End::Never => {}
            End::Count(count) => write!(f, ";COUNT={count}")?,
            End::Until(date) => write!(f, ";UNTIL={}", date.format("%Y%m%d"))?,
        }
        write_list(f, ";BYMONTH=", &self.months)?;
        write_list(f, ";BYMONTHDAY=", &self.month_days)?;
        write_list(f, ";BYDAY=", &self.days)?;
        write_list(f, ";BYSETPOS=", &self.positions)?;
        if self.week_start != Weekday::Mon {
            write!(f, ";WKST={}", name(self.week_start))?;
        }
        Ok(())
    }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, list: &[T]) -> fmt::Result {
    let mut before = name;
    for value in list {
        f.write_str(before)?;
        write!(f, "{value}")?;
        before = ",";
    }
    Ok(())
}
