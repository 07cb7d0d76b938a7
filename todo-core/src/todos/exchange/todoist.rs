//! The table of a project that Todoist exports.
//!
//! Sections are lists, labels (`@label` in a task) tags, notes parts of the description. Subtasks
//! are todos beside their task, since a todo has no parent.

use chrono::{Datelike, Days, Months, NaiveDate, NaiveTime, Weekday};

use super::{csv::Table, draft::Draft, sink::Sink};
use crate::{
    error::FieldError,
    time_zone::TimeZone,
    todos::{Due, Priority, RecurrenceBase},
};

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let mut table = Table::new(text, "content")?;
    let mut section: Option<String> = None;
    let mut last: Option<(u32, Draft)> = None;
    while let Some(line) = table.next()? {
        let content = table.cell("content").unwrap_or_default();
        match table.cell("type").unwrap_or_default() {
            "task" => {
                let draft = draft(&table, content, section.as_deref(), sink);
                if let Some((line, task)) = last.replace((line, draft)) {
                    sink.push(line, task)?;
                }
            }
            // Of the task before it.
            "note" => {
                // A note before all tasks is one of the project.
                if let Some((_, task)) = &mut last {
                    let text = task.description.get_or_insert_default();
                    if !text.is_empty() {
                        text.push_str("\n\n");
                    }
                    text.push_str(content);
                }
            }
            "section" => section = Some(content.to_owned()).filter(|name| !name.trim().is_empty()),
            // Settings of the view, and empty rows.
            _ => {}
        }
    }
    match last {
        Some((line, task)) => sink.push(line, task),
        None => Ok(()),
    }
}

fn draft(table: &Table<'_>, content: &str, section: Option<&str>, sink: &Sink) -> Draft {
    let mut draft = Draft {
        description: table.cell("description").map(str::to_owned),
        list: section.map(str::to_owned),
        ..Draft::default()
    };
    let (tags, words): (Vec<&str>, Vec<&str>) =
        content.split(' ').partition(|word| word.len() > 1 && word.starts_with('@'));
    draft.tags = tags.iter().map(|tag| tag.trim_start_matches('@').to_owned()).collect();
    // A task that one only completes with its subtasks begins with an asterisk.
    words.join(" ").trim_start_matches("* ").clone_into(&mut draft.title);
    match table.cell("priority") {
        None | Some("2" | "4") => {}
        Some("1") => draft.priority = Some(Priority::High),
        Some("3") => draft.priority = Some(Priority::Low),
        Some(_) => draft.error("priority", "invalid", "Priority must be a number from 1 to 4."),
    }
    if let Some(text) = table.cell("date") {
        let zone = table.cell("timezone").map_or_else(|| Ok(sink.zone.clone()), TimeZone::parse);
        match zone {
            Err(errors) => draft.errors.extend(errors.of_field("due/time_zone")),
            Ok(zone) => set_date(&mut draft, text, &zone, sink.now.date_naive()),
        }
    }
    draft
}

/// Reads a date as Todoist writes it: `2026-12-01`, `Dec 1`, `1 Dec 2026 at 09:30`, `every 2
/// weeks`, `every mon, fri at 10am`.
fn set_date(draft: &mut Draft, text: &str, zone: &TimeZone, today: NaiveDate) {
    let lower = text.trim().to_lowercase();
    let (date, time) = split_time(&lower);
    let parsed = match date.strip_prefix("every!").or_else(|| date.strip_prefix("after ")) {
        Some(rest) => every(rest, today).inspect(|_| draft.from = RecurrenceBase::Completion),
        None => date.strip_prefix("every ").and_then(|rest| every(rest, today)),
    };
    let (date, rule) = match parsed {
        Some((date, rule)) => (Some(date), Some(rule)),
        None => (calendar_date(date, today), None),
    };
    let Some(date) = date else {
        let message =
            "The date must be one of the calendar, or a repetition such as every 2 weeks.";
        draft.error("due", "invalid", message);
        return;
    };
    draft.rule = rule;
    draft.set_due(match time {
        None => Due::on(date),
        Some(time) => Due::at_time(date, time, zone.clone()),
    });
}

/// A date, and the time at the end of the text.
fn split_time(text: &str) -> (&str, Option<NaiveTime>) {
    let Some((date, last)) = text.rsplit_once([' ', 't']) else { return (text, None) };
    let time = ["%H:%M", "%H:%M:%S", "%I:%M%p"]
        .iter()
        .find_map(|format| NaiveTime::parse_from_str(last, format).ok())
        .or_else(|| {
            let (hour, half) = last.split_at_checked(last.len().checked_sub(2)?)?;
            NaiveTime::parse_from_str(&format!("{hour}:00{half}"), "%I:%M%p").ok()
        });
    match time {
        Some(_) => (date.trim_end().trim_end_matches(" at").trim_end(), time),
        None => (text, None),
    }
}

fn calendar_date(text: &str, today: NaiveDate) -> Option<NaiveDate> {
    match text {
        "today" => return Some(today),
        "tomorrow" => return today.succ_opt(),
        _ => {}
    }
    let with_year = ["%Y-%m-%d", "%d %b %Y", "%b %d %Y", "%b %d, %Y"];
    if let Some(date) = with_year.iter().find_map(|f| NaiveDate::parse_from_str(text, f).ok()) {
        return Some(date);
    }
    // Without a year, it is the next such day.
    let next = (0..9).find_map(|years| {
        let dated = format!("{text} {}", today.year() + years);
        let date = ["%d %b %Y", "%b %d %Y"]
            .iter()
            .find_map(|format| NaiveDate::parse_from_str(&dated, format).ok())?;
        (date >= today).then_some(date)
    });
    next.or_else(|| weekday(text).and_then(|day| next_weekday(today, day)))
}

/// The first date and the rule of what is after `every`.
fn every(text: &str, today: NaiveDate) -> Option<(NaiveDate, String)> {
    let text = text.trim();
    match text {
        "workday" | "weekday" => {
            let date = today
                .iter_days()
                .take(7)
                .find(|date| !matches!(date.weekday(), Weekday::Sat | Weekday::Sun))?;
            return Some((date, "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR".to_owned()));
        }
        "other day" => return Some((today, "FREQ=DAILY;INTERVAL=2".to_owned())),
        "other week" => return Some((today, "FREQ=WEEKLY;INTERVAL=2".to_owned())),
        "other month" => return Some((today, "FREQ=MONTHLY;INTERVAL=2".to_owned())),
        _ => {}
    }
    let (count, unit) = match text.split_once(' ') {
        Some((count, unit)) if count.bytes().all(|byte| byte.is_ascii_digit()) => {
            (count.parse::<u32>().ok()?, unit)
        }
        _ => (1, text),
    };
    let frequency = match unit.trim_end_matches('s') {
        "day" => Some("DAILY"),
        "week" => Some("WEEKLY"),
        "month" => Some("MONTHLY"),
        "year" => Some("YEARLY"),
        _ => None,
    };
    if let Some(frequency) = frequency {
        let rule = match count {
            1 => format!("FREQ={frequency}"),
            _ => format!("FREQ={frequency};INTERVAL={count}"),
        };
        return Some((today, rule));
    }
    if let Some(day) = ordinal(text) {
        let date = (0..12).find_map(|months| {
            let date = today.checked_add_months(Months::new(months))?.with_day(day)?;
            (date >= today).then_some(date)
        })?;
        return Some((date, format!("FREQ=MONTHLY;BYMONTHDAY={day}")));
    }
    let days: Vec<Weekday> = text
        .split([',', ' '])
        .filter(|word| !word.is_empty() && *word != "and")
        .map(weekday)
        .collect::<Option<_>>()?;
    let date = days.iter().filter_map(|day| next_weekday(today, *day)).min()?;
    let mut numbers: Vec<u32> = days.iter().map(Weekday::num_days_from_monday).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let names = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
    let names: Vec<&str> = numbers
        .into_iter()
        .filter_map(|number| names.get(usize::try_from(number).ok()?).copied())
        .collect();
    Some((date, format!("FREQ=WEEKLY;BYDAY={}", names.join(","))))
}

/// The day of the month of `15th` or `15`.
fn ordinal(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let is_ordinal = matches!(text.strip_prefix(digits)?, "" | "st" | "nd" | "rd" | "th");
    digits.parse().ok().filter(|day| is_ordinal && (1..=31).contains(day))
}

fn weekday(name: &str) -> Option<Weekday> {
    name.parse().ok()
}

/// The first such day from today.
fn next_weekday(today: NaiveDate, day: Weekday) -> Option<NaiveDate> {
    let after = (day.num_days_from_monday() + 7 - today.weekday().num_days_from_monday()) % 7;
    today.checked_add_days(Days::new(after.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_todoist_writes_them() {
        // A Friday.
        let today = NaiveDate::from_ymd_opt(2026, 11, 27).unwrap();
        let zone = TimeZone::parse("Europe/Berlin").unwrap();
        let read = |text: &str| {
            let mut draft = Draft::default();
            set_date(&mut draft, text, &zone, today);
            let due = draft.due?;
            let time = due.time().map(|time| time.format(" %H:%M").to_string());
            let rule = draft.rule.unwrap_or_default();
            Some(format!(
                "{}{} {rule} {}",
                due.date(),
                time.unwrap_or_default(),
                draft.from.as_str()
            ))
        };
        for (text, expected) in [
            ("2026-12-01", "2026-12-01  due"),
            ("2026-12-01 09:30", "2026-12-01 09:30  due"),
            ("2026-12-01T09:30:00", "2026-12-01 09:30  due"),
            ("1 Dec 2026", "2026-12-01  due"),
            ("Dec 1 at 9am", "2026-12-01 09:00  due"),
            ("1 Jan", "2027-01-01  due"),
            ("today", "2026-11-27  due"),
            ("Monday", "2026-11-30  due"),
            ("every day", "2026-11-27 FREQ=DAILY due"),
            ("every! 3 days", "2026-11-27 FREQ=DAILY;INTERVAL=3 completion"),
            ("every mon, fri at 10:00", "2026-11-27 10:00 FREQ=WEEKLY;BYDAY=MO,FR due"),
            ("every workday", "2026-11-27 FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR due"),
            ("every 15th", "2026-12-15 FREQ=MONTHLY;BYMONTHDAY=15 due"),
            ("Every year", "2026-11-27 FREQ=YEARLY due"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "soon", "every blue moon", "every", "jeden Tag", "every 40th", "31 Feb"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
