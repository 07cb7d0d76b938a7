//! Reads todos of iCalendar.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use super::{
    FROM, LIST, MAX_DEPTH, MAX_KEPT,
    lines::{Line, LineReader, Property, unescape, unescape_list},
};
use crate::{
    error::{FieldError, FieldErrors},
    time_zone::TimeZone,
    todos::{
        Due, Priority, RecurrenceBase, Reminder, Reminders,
        exchange::{draft::Draft, sink::Sink},
    },
};

/// Reads a file.
pub(in crate::todos::exchange) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let mut lines = LineReader::new(text);
    let mut calendar = None;
    let mut list = None;
    // The components outside of todos, which are not read.
    let mut others: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        let Some(property) = Property::parse(&line.text) else {
            return Err(not_ical(line.number));
        };
        let component = property.value.trim().to_ascii_uppercase();
        match &*property.name {
            "BEGIN" if component == "VCALENDAR" && others.is_empty() => {
                calendar = Some(line.number);
                list = None;
            }
            "BEGIN" if component == "VTODO" && calendar.is_some() && others.is_empty() => {
                let todo = Todo::read(&line, &mut lines)?;
                sink.push(line.number, todo.draft(&sink.zone, list.as_deref()))?;
            }
            "BEGIN" if calendar.is_some() && others.len() < 2 * MAX_DEPTH => others.push(component),
            "END" if others.last() == Some(&component) => {
                others.pop();
            }
            "END" if component == "VCALENDAR" && others.is_empty() => calendar = None,
            "BEGIN" | "END" => return Err(not_ical(line.number)),
            // The name that programs give to a calendar.
            "X-WR-CALNAME" if others.is_empty() => list = Some(unescape(property.value)),
            _ if calendar.is_none() => return Err(not_ical(line.number)),
            _ => {}
        }
    }
    match calendar {
        Some(line) => Err(not_ical(line)),
        None if text.trim().is_empty() => Err(not_ical(1)),
        None => Ok(()),
    }
}

fn not_ical(line: u32) -> FieldError {
    FieldError::new("file", "invalid", "The file is not iCalendar (RFC 5545).").on_line(line)
}

/// The lines of a component VTODO.
struct Todo {
    properties: Vec<Line>,
    /// The components within it, each from its BEGIN to its END.
    components: Vec<Vec<Line>>,
}

impl Todo {
    /// Reads the lines after `begin`.
    fn read(begin: &Line, lines: &mut LineReader<'_>) -> Result<Self, FieldError> {
        let mut todo = Self { properties: Vec::new(), components: Vec::new() };
        let mut open: Vec<String> = Vec::new();
        let mut component = Vec::new();
        for line in lines {
            let Some(property) = Property::parse(&line.text) else {
                return Err(not_ical(line.number));
            };
            let name = property.value.trim().to_ascii_uppercase();
            match &*property.name {
                "BEGIN" if open.len() < MAX_DEPTH => open.push(name),
                "END" if open.is_empty() && name == "VTODO" => return Ok(todo),
                "END" if open.last() == Some(&name) => {
                    open.pop();
                    component.push(line);
                    if open.is_empty() {
                        todo.components.push(std::mem::take(&mut component));
                    }
                    continue;
                }
                "BEGIN" | "END" => return Err(not_ical(line.number)),
                _ => {}
            }
            if open.is_empty() { &mut todo.properties } else { &mut component }.push(line);
        }
        Err(not_ical(begin.number))
    }

    fn draft(self, zone: &TimeZone, list: Option<&str>) -> Draft {
        let mut draft = Draft { list: list.map(str::to_owned), ..Draft::default() };
        let mut kept: Vec<&str> = Vec::new();
        let mut start = None;
        let mut due = None;
        for line in &self.properties {
            let Some(property) = Property::parse(&line.text) else { continue };
            let value = property.value;
            let mut is_kept = false;
            match &*property.name {
                "SUMMARY" => draft.title = unescape(value).replace('\n', " "),
                "DESCRIPTION" => draft.description = Some(unescape(value)),
                "CATEGORIES" => {
                    for tag in &unescape_list(value) {
                        draft.push_tag(tag);
                    }
                }
                "DUE" => due = Some(property),
                "DTSTART" => start = Some((property, &*line.text)),
                "RRULE" => draft.rule = Some(value.trim().to_owned()),
                "STATUS" => {
                    let status = value.trim().to_ascii_uppercase();
                    draft.completed |= matches!(&*status, "COMPLETED" | "CANCELLED");
                    is_kept = matches!(&*status, "IN-PROCESS" | "CANCELLED");
                }
                "PRIORITY" => is_kept = set_priority(value, &mut draft),
                "COMPLETED" => {
                    draft.completed = true;
                    draft.completed_at = time("completed_at", &property, &mut draft);
                }
                "CREATED" => draft.created_at = time("created_at", &property, &mut draft),
                "LAST-MODIFIED" => draft.updated_at = time("updated_at", &property, &mut draft),
                "DTSTAMP" => {}
                LIST => draft.list = Some(unescape(value)),
                FROM if value.eq_ignore_ascii_case("completion") => {
                    draft.from = RecurrenceBase::Completion;
                }
                FROM => {}
                _ => is_kept = true,
            }
            if is_kept {
                kept.push(&line.text);
            }
        }
        // A rule counts from the start, if nothing else is due.
        let is_start = due.is_none() && draft.rule.is_some();
        if is_start {
            due = start.take().map(|(property, _)| property);
        }
        if let Some(due) = &due {
            draft.set_due(parse_due(due, zone));
        }
        let repeats_due = |start: &Property<'_>| {
            due.as_ref().is_some_and(|due| due.value == start.value && draft.rule.is_some())
        };
        if let Some((property, text)) = start
            && !repeats_due(&property)
        {
            kept.push(text);
        }
        let mut minutes = Vec::new();
        for component in &self.components {
            match reminder(component).filter(|_| draft.due.is_some()) {
                Some(reminder) if minutes.len() < Reminders::MAX => minutes.push(reminder),
                _ => kept.extend(component.iter().map(|line| &*line.text)),
            }
        }
        draft.reminders = minutes;
        if kept.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_KEPT {
            let message = "Properties that a todo does not have must be at most 16384 bytes.";
            draft.error("ical", "too_long", message);
        } else if !kept.is_empty() {
            draft.ical = Some(kept.join("\n"));
        }
        draft
    }
}

/// Sets the priority; returns whether it has more grades than a todo's.
fn set_priority(value: &str, draft: &mut Draft) -> bool {
    let (priority, is_kept) = match value.trim().parse::<u8>() {
        Ok(0 | 5) => (Priority::Medium, false),
        Ok(number @ 1..=4) => (Priority::High, number != 1),
        Ok(number @ 6..=9) => (Priority::Low, number != 9),
        _ => {
            draft.error("priority", "invalid", "Priority must be a number from 0 to 9.");
            return false;
        }
    };
    draft.priority = Some(priority);
    is_kept
}

/// A date with a time, and whether it is in UTC.
fn civil(value: &str) -> Option<(NaiveDateTime, bool)> {
    let text = value.strip_suffix('Z');
    let parsed = NaiveDateTime::parse_from_str(text.unwrap_or(value), "%Y%m%dT%H%M%S").ok()?;
    Some((parsed, text.is_some()))
}

/// An instant. Programs that do not write UTC mean it.
fn time(field: &'static str, property: &Property<'_>, draft: &mut Draft) -> Option<DateTime<Utc>> {
    let parsed = civil(property.value.trim());
    if parsed.is_none() {
        draft.error(field, "invalid", "A time must be as in 20261201T093000Z.");
    }
    parsed.map(|(time, _)| time.and_utc())
}

fn parse_due(property: &Property<'_>, zone: &TimeZone) -> Result<Due, FieldErrors> {
    let value = property.value.trim();
    if let Ok(date) = NaiveDate::parse_from_str(value, "%Y%m%d")
        && value.len() == 8
    {
        return Ok(Due::on(date)?);
    }
    let Some((time, is_utc)) = civil(value) else {
        let message = "A due date must be as in 20261201 or 20261201T093000.";
        return Err(FieldError::new("due", "invalid", message).into());
    };
    let zone = match property.param("TZID") {
        _ if is_utc => TimeZone::parse("UTC")?,
        Some(name) => time_zone(name)?,
        None => zone.clone(),
    };
    Ok(Due::at_time(time.date(), time.time(), zone)?)
}

/// The zone of a name of the database, which programs write with their own prefix.
fn time_zone(name: &str) -> Result<TimeZone, FieldErrors> {
    let mut rest = name.trim_start_matches('/');
    loop {
        match (TimeZone::parse(rest), rest.split_once('/')) {
            (Ok(zone), _) => return Ok(zone),
            (Err(_), Some((_, after))) => rest = after,
            (Err(errors), None) => return Err(errors.of_field("due/time_zone")),
        }
    }
}

/// The minutes of an alarm that only displays something at a time before the todo is due.
fn reminder(component: &[Line]) -> Option<i64> {
    let mut minutes = None;
    for line in component {
        let property = Property::parse(&line.text)?;
        let value = property.value.trim();
        match &*property.name {
            "BEGIN" | "END" if value.eq_ignore_ascii_case("VALARM") => {}
            "ACTION" if value.eq_ignore_ascii_case("DISPLAY") => {}
            "DESCRIPTION" | "SUMMARY" => {}
            "TRIGGER" => {
                let related = property.param("RELATED");
                let is_relative =
                    related.is_some_and(|related| related.eq_ignore_ascii_case("END"));
                minutes = Some(before(value).filter(|_| is_relative)?);
            }
            _ => return None,
        }
    }
    minutes.filter(|minutes| Reminder::before(*minutes).is_ok())
}

/// The minutes of a negative duration, as `-PT15M` or `-P1DT2H` (section 3.3.6), or of none.
fn before(value: &str) -> Option<i64> {
    let (negative, rest) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let mut total = TimeDelta::zero();
    let mut digits = String::new();
    let mut in_time = false;
    for c in rest.strip_prefix('P')?.chars() {
        if c.is_ascii_digit() && digits.len() < 6 {
            digits.push(c);
            continue;
        }
        if c == 'T' && digits.is_empty() {
            in_time = true;
            continue;
        }
        let number: i64 = digits.parse().ok()?;
        digits.clear();
        total += match (c, in_time) {
            ('W', false) => TimeDelta::try_weeks(number)?,
            ('D', false) => TimeDelta::try_days(number)?,
            ('H', true) => TimeDelta::try_hours(number)?,
            ('M', true) => TimeDelta::try_minutes(number)?,
            ('S', true) => TimeDelta::try_seconds(number)?,
            _ => return None,
        };
    }
    let is_whole = digits.is_empty() && total.num_seconds() % 60 == 0;
    (is_whole && (negative || total.is_zero())).then(|| total.num_minutes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_before_are_minutes() {
        for (text, minutes) in [
            ("-PT15M", Some(15)),
            ("-P1DT2H", Some(26 * 60)),
            ("-P2W", Some(2 * 7 * 24 * 60)),
            ("PT0S", Some(0)),
            ("-PT60S", Some(1)),
            ("PT15M", None),
            ("-PT15S", None),
            ("-P1M", None),
            ("-P", Some(0)),
            ("15", None),
            ("-PT9999999M", None),
        ] {
            assert_eq!(before(text), minutes, "{text}");
        }
    }

    #[test]
    fn zones_may_have_a_prefix() {
        let prefixed = "/freeassociation.sourceforge.net/America/Argentina/Ushuaia";
        assert_eq!(time_zone(prefixed).unwrap(), "America/Argentina/Ushuaia");
        assert_eq!(time_zone("Europe/Berlin").unwrap(), "Europe/Berlin");
        let errors = time_zone("Mars/Olympus").unwrap_err();
        assert_eq!(errors[0].field, "due/time_zone");
    }
}
