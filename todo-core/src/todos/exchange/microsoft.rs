//! Lists and tasks of Microsoft To Do, as Microsoft Graph returns them and programs save them.

use chrono::{NaiveDateTime, NaiveTime, TimeDelta};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    draft::Draft,
    members::{Lines, Members, not_json},
    sink::Sink,
};
use crate::{
    error::FieldError,
    time_zone::TimeZone,
    todos::{Due, Priority},
};

/// A file has `lists`, or the `value` of a response, with lists or tasks in it.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    lists: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    value: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    tasks: Option<Vec<&'a RawValue>>,
    #[serde(rename = "displayName")]
    display_name: Option<String>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(rename = "displayName")]
    display_name: Option<String>,
    #[serde(borrow)]
    tasks: Option<Vec<&'a RawValue>>,
}

/// Reads a file.
pub(super) fn read(text: &str, sink: &mut Sink) -> Result<(), FieldError> {
    let file: File<'_> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let mut lines = Lines::new(text);
    if let Some(tasks) = file.tasks {
        return push_all(&tasks, file.display_name.as_deref(), &mut lines, sink);
    }
    let Some(entries) = file.lists.or(file.value) else {
        let message = "The file must have lists, value or tasks.";
        return Err(FieldError::new("file", "invalid", message).on_line(1));
    };
    for entry in entries {
        match serde_json::from_str(entry.get()) {
            Ok(List { display_name, tasks: Some(tasks) }) => {
                push_all(&tasks, display_name.as_deref(), &mut lines, sink)?;
            }
            Ok(List { display_name: Some(_), tasks: None }) => {}
            _ => push_all(&[entry], None, &mut lines, sink)?,
        }
    }
    Ok(())
}

fn push_all(
    tasks: &[&RawValue],
    list: Option<&str>,
    lines: &mut Lines<'_>,
    sink: &mut Sink,
) -> Result<(), FieldError> {
    for task in tasks {
        let line = lines.of(task);
        let draft = draft(task, list, sink);
        sink.push(line, draft)?;
    }
    Ok(())
}

fn draft(task: &RawValue, list: Option<&str>, sink: &Sink) -> Draft {
    let mut draft = Draft::default();
    let Some(mut members) = Members::of(task, &mut draft) else { return draft };
    draft.list = list.map(str::to_owned);
    draft.title = members.text("title", &mut draft).unwrap_or_default();
    if let Some(mut body) = members.object("body", &mut draft) {
        draft.description = body.text("content", &mut draft).filter(|text| !text.is_empty());
    }
    for step in members.array("checklistItems", &mut draft) {
        let Some(name) = step.get("displayName").and_then(Value::as_str) else { continue };
        let is_done = step.get("isChecked").and_then(Value::as_bool).unwrap_or_default();
        let text = draft.description.get_or_insert_default();
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(if is_done { "- [x] " } else { "- [ ] " });
        text.push_str(name);
    }
    match members.text("importance", &mut draft).as_deref() {
        None | Some("normal") => {}
        Some("high") => draft.priority = Some(Priority::High),
        Some("low") => draft.priority = Some(Priority::Low),
        Some(_) => draft.error("importance", "invalid", "Importance must be low, normal or high."),
    }
    draft.completed =
        members.text("status", &mut draft).is_some_and(|status| status == "completed");
    for tag in members.texts("categories", &mut draft) {
        draft.push_tag(&tag);
    }
    draft.created_at = members.time("createdDateTime", "created_at", &mut draft);
    draft.updated_at = members.time("lastModifiedDateTime", "updated_at", &mut draft);
    draft.completed_at = members
        .object("completedDateTime", &mut draft)
        .and_then(|time| civil("completed_at", time, &mut draft))
        .map(|(time, _)| time.and_utc());
    if let Some(due) = members.object("dueDateTime", &mut draft)
        && let Some((time, _)) = civil("due", due, &mut draft)
    {
        // A date: midnight, of a zone of which Graph may return the time in UTC.
        let nearest = time.checked_add_signed(TimeDelta::hours(12)).unwrap_or(time);
        let date = if time.time() == NaiveTime::MIN { time.date() } else { nearest.date() };
        draft.set_due(Due::on(date));
    }
    let reminds = members.flag("isReminderOn", &mut draft);
    let reminder = members.object("reminderDateTime", &mut draft);
    if let Some(reminder) = reminder.filter(|_| reminds) {
        remind(reminder, &mut draft, sink);
    }
    if let Some(recurrence) = members.object("recurrence", &mut draft) {
        match rule(recurrence, &mut draft) {
            Some(rule) => draft.rule = Some(rule),
            None if draft.errors.is_empty() => {
                let message = "The recurrence is none that a todo can have.";
                draft.error("recurrence/rule", "invalid", message);
            }
            None => {}
        }
    }
    draft
}

/// The time and the zone of an object `dateTimeTimeZone`.
fn civil(
    field: &'static str,
    mut members: Members,
    draft: &mut Draft,
) -> Option<(NaiveDateTime, String)> {
    let text = members.text("dateTime", draft)?;
    let zone = members.text("timeZone", draft).unwrap_or_else(|| "UTC".to_owned());
    let text = text.strip_suffix('Z').unwrap_or(&text);
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f");
    if let Ok(time) = parsed {
        Some((time, zone))
    } else {
        let message = "A time must be as in 2026-12-01T09:30:00.";
        draft.error(field, "invalid", message);
        None
    }
}

/// A reminder is the time of a todo that is due on that day or on none. Before a due date, it is a
/// number of minutes before 9 o'clock of that day.
fn remind(reminder: Members, draft: &mut Draft, sink: &Sink) {
    let Some((time, zone)) = civil("reminders", reminder, draft) else { return };
    let zone = match TimeZone::parse(&zone) {
        Ok(zone) => zone,
        Err(errors) => {
            draft.errors.extend(errors.of_field("reminders/time_zone"));
            return;
        }
    };
    let Ok(at) = Due::at_time(time.date(), time.time(), zone) else {
        draft.error("reminders", "out_of_range", "A reminder must be from 1970 to 9998.");
        return;
    };
    let nine = |due: &Due| {
        Due::at_time(due.date(), NaiveTime::from_hms_opt(9, 0, 0)?, sink.zone.clone()).ok()?.at()
    };
    let minutes = match (&draft.due, at.at()) {
        (Some(due), Some(instant)) if due.date() != at.date() => {
            nine(due).map(|nine| (nine - instant).num_minutes()).filter(|minutes| *minutes >= 0)
        }
        _ => None,
    };
    if let Some(minutes) = minutes {
        draft.reminders.push(minutes);
    } else {
        draft.due = Some(at);
        draft.reminders.push(0);
    }
}

/// The rule of an object `patternedRecurrence`.
fn rule(mut recurrence: Members, draft: &mut Draft) -> Option<String> {
    let mut pattern = recurrence.object("pattern", draft)?;
    let kind = pattern.text("type", draft)?;
    let number = |value: Option<Value>| value.and_then(|value| value.as_i64());
    let interval = number(pattern.take("interval")).unwrap_or(1);
    let days: Option<Vec<&str>> =
        pattern.texts("daysOfWeek", draft).iter().map(|day| code(day)).collect();
    let days = days?.join(",");
    let day_of_month = number(pattern.take("dayOfMonth")).unwrap_or_default();
    let month = number(pattern.take("month")).unwrap_or_default();
    let index = match pattern.text("index", draft).as_deref() {
        None | Some("first") => 1,
        Some("second") => 2,
        Some("third") => 3,
        Some("fourth") => 4,
        Some("last") => -1,
        Some(_) => return None,
    };
    let start = pattern.text("firstDayOfWeek", draft);
    let (frequency, rest) = match &*kind {
        "daily" => ("DAILY", None),
        "weekly" if days.is_empty() => ("WEEKLY", None),
        "weekly" => ("WEEKLY", Some(format!("BYDAY={days}"))),
        "absoluteMonthly" => ("MONTHLY", Some(format!("BYMONTHDAY={day_of_month}"))),
        "relativeMonthly" => ("MONTHLY", Some(format!("BYDAY={days};BYSETPOS={index}"))),
        "absoluteYearly" => ("YEARLY", Some(format!("BYMONTH={month};BYMONTHDAY={day_of_month}"))),
        "relativeYearly" => {
            ("YEARLY", Some(format!("BYMONTH={month};BYDAY={days};BYSETPOS={index}")))
        }
        _ => return None,
    };
    let mut parts = vec![format!("FREQ={frequency}")];
    if interval != 1 {
        parts.push(format!("INTERVAL={interval}"));
    }
    parts.extend(rest);
    if let Some(start) = start.as_deref().and_then(code)
        && frequency == "WEEKLY"
        && interval != 1
        && start != "MO"
    {
        parts.push(format!("WKST={start}"));
    }
    if let Some(mut range) = recurrence.object("range", draft) {
        match range.text("type", draft).as_deref() {
            Some("endDate") => {
                let date = range.text("endDate", draft)?;
                parts.push(format!("UNTIL={}", date.replace('-', "")));
            }
            Some("numbered") => {
                parts.push(format!("COUNT={}", number(range.take("numberOfOccurrences"))?));
            }
            _ => {}
        }
    }
    Some(parts.join(";"))
}

fn code(day: &str) -> Option<&'static str> {
    Some(match day.to_ascii_lowercase().as_str() {
        "monday" => "MO",
        "tuesday" => "TU",
        "wednesday" => "WE",
        "thursday" => "TH",
        "friday" => "FR",
        "saturday" => "SA",
        "sunday" => "SU",
        _ => return None,
    })
}
