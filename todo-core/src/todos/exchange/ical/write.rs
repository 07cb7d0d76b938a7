//! Writes todos as iCalendar.

use std::io;

use chrono::{DateTime, Utc};

use super::{
    FROM, LIST,
    lines::{Property, escape, write_line},
};
use crate::todos::{Due, Priority, RecurrenceBase, exchange::rows::Record};

/// Writes what is before the todos.
pub(in crate::todos::exchange) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//todo-core//todos//EN\r\n");
}

/// Writes the end.
pub(in crate::todos::exchange) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END:VCALENDAR\r\n");
}

/// Writes a todo.
pub(in crate::todos::exchange) fn write(out: &mut Vec<u8>, record: &Record<'_>) -> io::Result<()> {
    let todo = record.todo;
    let kept: Vec<&str> = record.ical.into_iter().flat_map(|lines| lines.split('\n')).collect();
    let mut line = |text: &str| write_line(out, text);
    line("BEGIN:VTODO")?;
    if !has(&kept, "UID") {
        line(&format!("UID:{}", todo.id.as_uuid()))?;
    }
    line(&format!("DTSTAMP:{}", utc(todo.updated_at)))?;
    line(&format!("CREATED:{}", utc(todo.created_at)))?;
    line(&format!("LAST-MODIFIED:{}", utc(todo.updated_at)))?;
    line(&format!("SUMMARY:{}", escape(todo.title.as_str())))?;
    if let Some(description) = &todo.description {
        line(&format!("DESCRIPTION:{}", escape(description.as_str())))?;
    }
    let kept_status = value(&kept, "STATUS");
    let keeps_status = match kept_status {
        Some(status) => status.eq_ignore_ascii_case("CANCELLED") == todo.completed,
        None => false,
    };
    if !keeps_status {
        line(if todo.completed { "STATUS:COMPLETED" } else { "STATUS:NEEDS-ACTION" })?;
    }
    if let Some(at) = todo.completed_at {
        line(&format!("COMPLETED:{}", utc(at)))?;
    }
    let grades = match todo.priority {
        Priority::High => 1..=4,
        Priority::Medium => 5..=5,
        Priority::Low => 6..=9,
    };
    let kept_grade = value(&kept, "PRIORITY").and_then(|value| value.trim().parse::<u8>().ok());
    let keeps_grade = kept_grade.is_some_and(|grade| grades.contains(&grade));
    if !keeps_grade {
        let grade = match todo.priority {
            Priority::High => 1,
            Priority::Medium => 5,
            Priority::Low => 9,
        };
        line(&format!("PRIORITY:{grade}"))?;
    }
    if !todo.tags.is_empty() {
        let tags: Vec<_> = todo.tags.iter().map(|tag| escape(tag.as_str())).collect();
        line(&format!("CATEGORIES:{}", tags.join(",")))?;
    }
    if let Some(due) = &todo.due {
        let due = due_text(due);
        // A rule counts from a start.
        if todo.recurrence.is_some() && !has(&kept, "DTSTART") {
            line(&format!("DTSTART{due}"))?;
        }
        line(&format!("DUE{due}"))?;
    }
    if let Some(recurrence) = &todo.recurrence {
        line(&format!("RRULE:{}", recurrence.rule.as_str()))?;
        if recurrence.from == RecurrenceBase::Completion {
            line(&format!("{FROM}:COMPLETION"))?;
        }
    }
    if let Some(list) = record.list {
        line(&format!("{LIST}:{}", escape(list)))?;
    }
    let mut depth = 0_usize;
    for text in kept {
        let Some(property) = Property::parse(text) else { continue };
        let is_replaced = depth == 0
            && match &*property.name {
                "STATUS" => !keeps_status,
                "PRIORITY" => !keeps_grade,
                "PERCENT-COMPLETE" => todo.completed != (property.value.trim() == "100"),
                _ => false,
            };
        match &*property.name {
            "BEGIN" => depth += 1,
            "END" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !is_replaced {
            line(text)?;
        }
    }
    for reminder in &todo.reminders {
        line("BEGIN:VALARM")?;
        line("ACTION:DISPLAY")?;
        line(&format!("DESCRIPTION:{}", escape(todo.title.as_str())))?;
        line(&format!("TRIGGER;RELATED=END:-PT{}M", reminder.minutes_before))?;
        line("END:VALARM")?;
    }
    line("END:VTODO")
}

/// The value of a kept property outside of components within the todo.
fn value<'a>(kept: &[&'a str], name: &str) -> Option<&'a str> {
    let mut depth = 0_usize;
    kept.iter().find_map(|line| {
        let property = Property::parse(line)?;
        match &*property.name {
            "BEGIN" => depth += 1,
            "END" => depth = depth.saturating_sub(1),
            found if depth == 0 && found == name => return Some(property.value),
            _ => {}
        }
        None
    })
}

fn has(kept: &[&str], name: &str) -> bool {
    value(kept, name).is_some()
}

fn utc(time: DateTime<Utc>) -> String {
    time.format("%Y%m%dT%H%M%SZ").to_string()
}

/// The parameters and the value of a date.
fn due_text(due: &Due) -> String {
    let date = due.date().format("%Y%m%d");
    match (due.time(), due.time_zone()) {
        (Some(time), Some(zone)) if zone.as_str() == "UTC" => {
            format!(":{date}T{}Z", time.format("%H%M%S"))
        }
        (Some(time), Some(zone)) => {
            format!(";TZID={}:{date}T{}", zone.as_str(), time.format("%H%M%S"))
        }
        _ => format!(";VALUE=DATE:{date}"),
    }
}
